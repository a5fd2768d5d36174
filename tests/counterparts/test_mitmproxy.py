"""Faults on the way to an API, made by mitmproxy between Linkspan and httpbin."""

from pathlib import Path

import pytest

from desk import Desk, moment
from support import REPOSITORY, Caller, Program, free_port

PROGRAM = REPOSITORY / "target" / "test-tools" / "mitmproxy" / "bin" / "mitmdump"


class Mitmproxy(Program):
    """A reverse proxy in front of httpbin that does harm to some paths."""

    def __init__(self, folder, upstream):
        assert PROGRAM.exists(), f"{PROGRAM} is missing: run tests/setup"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        faults = Path(__file__).with_name("mitmproxy_faults.py")
        command = [PROGRAM, "-q", "--set", f"confdir={folder}/mitmproxy", "--mode", f"reverse:{upstream.url}"]
        command += ["--listen-host", "127.0.0.1", "-p", self.port, "-s", faults]
        self.begin(command, folder / "mitmproxy.log", seconds=60)

    def is_up(self):
        return self.call("/count") is not None

    def call(self, path):
        caller = Caller(self.url, timeout=5)
        status, _, body = caller.call("GET", path)
        caller.close()
        return body.decode() if status == 200 else None

    def count(self, path):
        counts = dict(pair.split("=") for pair in self.call("/count").split())
        return int(counts.get(path, 0))


@pytest.fixture(scope="module")
def mitmproxy(tmp_path_factory, httpbin):
    mitmproxy = Mitmproxy(tmp_path_factory.mktemp("mitmproxy"), httpbin)
    yield mitmproxy
    mitmproxy.stop()


QUICK = {"tries": 3, "backoff": {"from": "10ms", "to": "20ms"}}


def test_a_busy_api_is_asked_again_until_it_is_not(start, mitmproxy):
    desk = Desk(start, mitmproxy, retry=QUICK)
    job = desk.ended(desk.send(desk.recipe("twice", path="/twice-unavailable")))
    assert job["status"] == "succeeded", job
    attempts = [(attempt["status"], attempt["decision"]) for attempt in job["steps"][0]["attempt_log"]]
    assert attempts == [(503, "retry"), (503, "retry"), (200, "succeeded")]

    step = desk.ended(desk.send(desk.recipe("never", path="/unavailable")))["steps"][0]
    assert step["error"]["code"] == "response.status" and step["attempts"] == 3
    began = [moment(attempt["started_at"]) for attempt in step["attempt_log"]]
    # It asked for a second between them.
    assert all(later - earlier >= 1 for earlier, later in zip(began, began[1:])), began


def test_what_is_cut_is_repeated_only_where_that_does_no_harm(start, mitmproxy):
    desk = Desk(start, mitmproxy, retry=QUICK)
    before = mitmproxy.count("/cut")
    step = desk.ended(desk.send(desk.recipe("reading", path="/cut")))["steps"][0]
    assert (step["error"]["code"], step["attempts"]) == ("outbound.reset", 3), step
    assert mitmproxy.count("/cut") == before + 3
    step = desk.ended(desk.send(desk.recipe("writing", method="POST", path="/cut", json={"a": 1})))["steps"][0]
    assert (step["error"]["code"], step["attempts"], step["error"]["outcome_unknown"]) == ("outbound.reset", 1, True), step
    assert mitmproxy.count("/cut") == before + 4
    idempotent = desk.recipe("again", method="POST", path="/cut", json={"a": 1}, effect="idempotent")
    assert desk.ended(desk.send(idempotent))["steps"][0]["attempts"] == 3


def test_a_delay_is_waited_for_within_the_limit_and_not_beyond(start, mitmproxy):
    desk = Desk(start, mitmproxy, timeout="5s")
    step = desk.ended(desk.send(desk.recipe("late", path="/delayed")))["steps"][0]
    assert step["output"]["body"] == "late" and step["output"]["timings"]["first_byte_us"] >= 500_000
    message = "The desk is slow today."
    desk.server.apply(desk.connection(timeout="200ms", timeout_message=message, retry={"tries": 1}))
    step = desk.ended(desk.send(desk.recipe("late", path="/delayed")))["steps"][0]
    assert step["error"]["code"] == "outbound.timeout"
    assert step["error"]["description"].startswith(f"{message} (no answer from"), step["error"]


def test_an_answer_that_lost_its_end_is_not_taken_for_whole(start, mitmproxy):
    desk = Desk(start, mitmproxy, retry={"tries": 1})
    step = desk.ended(desk.send(desk.recipe("spoiled", path="/json", response="json")))["steps"][0]
    assert step["error"]["code"] == "response.unreadable", step
    # What came is there to be looked at.
    assert "slideshow" in str(step["output"]["body"]), step["output"]
