"""Disks that fill and fail under a running server: nothing is acknowledged that is not kept, nothing that was sent is
sent again, and a full disk ends no process."""

import contextlib
import http.client
import http.server
import json
import os
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from support import REPOSITORY, Caller, Server, eventually

ENDPOINT = {"kind": "endpoint", "name": "in", "spec": {"verify": "none"}}


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 120 MB in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    subprocess.run([*root, "mount", "-t", "tmpfs", "-o", "size=120m,mode=0777", "tmpfs", folder], check=True)
    yield folder
    subprocess.run([*root, "umount", "--lazy", folder], check=True)


def fill(folder):
    """Takes all room that is left, to the last byte."""
    with (folder / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        for size in (1 << 16, 512):
            with contextlib.suppress(OSError):
                while True:
                    filler.write(b"x" * size)
    return folder / "filler"


class Upstream:
    """Answers with a body that is too long for the database, after it has done `first` once."""

    def __init__(self, first):
        self.keys = []
        upstream = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                upstream.keys.append(self.headers["Idempotency-Key"])
                if len(upstream.keys) == 1:
                    first()
                body = json.dumps({"text": "x" * 200_000}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


def test_a_full_disk_repeats_no_write_and_ends_nothing(small_disk, start, beside):
    fillers = []
    upstream = beside(Upstream, lambda: fillers.append(fill(small_disk)))
    server = start(small_disk / "data", args=["--egress-allow", f"127.0.0.1/32:{upstream.port}"])
    step = {"connection": "up", "method": "POST", "path": "/"}
    text = "{{ steps.one.body.text | length }}"
    server.apply(
        ENDPOINT,
        {"kind": "connection", "name": "up", "spec": {"base_url": f"http://127.0.0.1:{upstream.port}"}},
        {"kind": "recipe", "name": "act", "spec": {
            "trigger": {"webhook": {"endpoint": "in", "when": "trigger.body.act"}},
            "steps": [{"id": "one", "request": step}, {"id": "two", "request": step | {"json": {"length": text}}}],
        }},
    )
    caller = Caller(server.endpoint_url("in"))
    json_type = {"Content-Type": "application/json"}
    assert caller.call("POST", "", json.dumps({"act": True}), json_type)[0] == 202
    eventually(lambda: fillers)
    # Full to the last byte, the reserve included: every size of an event is refused, and may be sent again.
    for size in (10, 5_000, 60_000, 200_000) * 5:
        status, headers, _ = caller.call("POST", "", json.dumps({"pad": "x" * size}), json_type)
        assert (status, "Retry-After" in headers) == (503, True)
    time.sleep(3)
    assert server.process.poll() is None
    # The first step was answered while the disk was full: its result is kept and recorded as soon as there is room.
    assert len(upstream.keys) == 1
    fillers[0].unlink()
    job = eventually(lambda: [job for job in server.api("GET", "/api/v1/jobs")["data"] if job["status"] == "succeeded"])
    assert len(job) == 1
    assert len(upstream.keys) == len(set(upstream.keys)) == 2
    eventually(lambda: caller.call("POST", "", "{}", json_type)[0] == 202)
    caller.close()


def test_a_failing_disk_is_said_to_every_sender(start, tmp_path):
    """Those whose batch meets the fault hear the same as those who come later: try again."""
    shim = tmp_path / "eio_shim.so"
    source = REPOSITORY / "tests" / "crash" / "eio_shim.c"
    subprocess.run(["cc", "-O2", "-Wall", "-shared", "-fPIC", "-o", shim, source, "-ldl"], check=True)
    trigger = tmp_path / "fail"
    server = Server(tmp_path / "data", env={"LD_PRELOAD": str(shim), "EIO_SHIM": str(trigger)}).start()
    server.apply(ENDPOINT)
    url = server.endpoint_url("in")
    kept = threading.Event()

    def send(_):
        answers = []
        caller = Caller(url)
        # Until the server is gone.
        with contextlib.suppress(OSError, http.client.HTTPException):
            while True:
                answers.append(caller.call("POST", "", "{}", {"Content-Type": "application/json"})[0])
                kept.set()
        return answers

    with ThreadPoolExecutor(8) as pool:
        sent = [pool.submit(send, n) for n in range(8)]
        assert kept.wait(30)
        time.sleep(0.5)
        trigger.touch()
        answers = [answer for each in sent for answer in each.result(60)]
    assert server.process.wait(30) != 0, "a server whose writes fail ends, so that it starts again from its log"
    server.was_killed = True
    assert set(answers) == {202, 503}, set(answers)
    # Nothing that was acknowledged is missing.
    trigger.unlink()
    again = start(tmp_path / "data")
    newest = again.get("/api/v1/events", limit=1)["data"][0]["id"]
    # An id ends with the event's position in the log.
    assert int(newest.removeprefix("evt_"), 16) & ((1 << 62) - 1) >= answers.count(202)
