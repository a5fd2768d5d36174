"""A wall clock that jumps under a running server, by libfaketime: jobs do not wait for it, and nothing expires."""

import json
import os
import time
from pathlib import Path

from support import Caller, Server, StandIn, eventually

DAY = 86_400
LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


class Clock:
    """The clock of a server, as far off as `jump` says."""

    def __init__(self, folder):
        assert LIBRARY, "libfaketime is missing: run tests/setup"
        self.file = folder / "clock"
        self.jump(0)
        self.env = {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",
        }

    def jump(self, seconds):
        partial = self.file.with_suffix(".part")
        partial.write_text(f"{seconds:+d}\n")
        os.replace(partial, self.file)


def documents(upstream):
    return [
        {"kind": "endpoint", "name": "in", "spec": {"verify": "none", "dedupe": {"by": "json:/id", "within": "14d"}}},
        {"kind": "connection", "name": "up", "spec": {"base_url": upstream.url}},
        {"kind": "recipe", "name": "act", "spec": {
            "trigger": {"webhook": {"endpoint": "in"}},
            "steps": [{"id": "one", "request": {"connection": "up", "method": "POST", "path": "/", "effect": "idempotent"}}],
        }},
    ]


def send(server, number):
    caller = Caller(server.endpoint_url("in"))
    status, _, body = caller.call("POST", "", json.dumps({"id": number}), {"Content-Type": "application/json"})
    caller.close()
    assert status == 202, body
    return json.loads(body)["data"]


def finding(server, subject):
    findings = server.get("/api/v1/check")["data"]["findings"]
    return next((found["message"] for found in findings if found["subject"] == subject), None)


def test_jumps_hold_up_no_job_and_expire_nothing(tmp_path, start, beside):
    clock = Clock(tmp_path)
    upstream = beside(StandIn, {("POST", "/"): (200, b"{}")})
    egress = ["--egress-allow", upstream.host.replace(":", "/32:")]
    server = start(args=egress, env=clock.env)
    server.apply(*documents(upstream))
    send(server, 1)
    server.wait_for_jobs("act")

    # Back by an hour, and by a month: what is queued runs, what is deduplicated stays so.
    for number, back in [(2, -3_600), (3, -30 * DAY)]:
        send(server, number * 10)
        clock.jump(back)
        send(server, number)
        eventually(lambda number=number: len(upstream.requests) == 2 * number - 1, 20)
        server.wait_for_jobs("act", seconds=20)
        assert send(server, number)["duplicate"] is True

    # Ahead by a month for a moment: nothing is removed, and the check says why.
    clock.jump(0)
    time.sleep(2)
    events = len(server.get("/api/v1/events")["data"])
    clock.jump(31 * DAY)
    message = eventually(lambda: finding(server, "clock"), 20)
    assert "nothing expires" in message and "--confirm-clock" in message
    # Longer than the time until expiry first looks.
    time.sleep(8)
    clock.jump(0)
    eventually(lambda: finding(server, "clock") is None, 20)
    assert len(server.get("/api/v1/events")["data"]) == events
    assert send(server, 2)["duplicate"] is True
    send(server, 4)
    server.wait_for_jobs("act", seconds=20)


def test_a_clock_that_was_set_back_while_the_server_was_stopped(tmp_path, start, beside):
    clock = Clock(tmp_path)
    upstream = beside(StandIn, {("POST", "/"): (503, b"{}")})
    egress = ["--egress-allow", upstream.host.replace(":", "/32:")]
    first = Server(tmp_path / "data", args=egress, env=clock.env).start()
    first.apply(*documents(upstream))
    send(first, 1)
    # It waits for its next attempt, which lies a month ahead after the restart.
    eventually(lambda: first.get("/api/v1/jobs", status="waiting")["data"])
    first.kill()
    clock.jump(-30 * DAY)
    upstream.answers[("POST", "/")] = (200, b"{}")
    again = start(tmp_path / "data", args=egress, env=clock.env)
    jobs = eventually(lambda: again.get("/api/v1/jobs", status="succeeded")["data"], 30)
    assert len(jobs) == 1
    send(again, 2)
    eventually(lambda: len(again.get("/api/v1/jobs", status="succeeded")["data"]) == 2, 20)
