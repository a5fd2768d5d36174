"""Jobs whose steps write and get large answers, under `kill -9` and on a disk that fills and empties: no finished write
is sent again, an unfinished one only as it was sent before, and later steps see every answer whole."""

import contextlib
import hashlib
import http.client
import http.server
import json
import os
import random
import threading
import time
from collections import defaultdict

import pytest

from support import Caller, eventually
from test_disk import fill, small_disk  # noqa: F401 (a fixture)

# How long each loop goes on; as long as the crash loops when they are given their time.
SECONDS = int(os.environ.get("CRASH_SECONDS", "8"))
# Kills of one server: as many workers as may leave a job without a step recorded before it fails (job.interrupted). A
# slow build records none in a life this short.
KILLS = 5
STEPS = ("one", "two", "three")
FILLING = random.Random(7).randbytes(1_100_000).hex()


def text_of(number, step):
    """The answer to one step of one job: 200 KB to 2 MB, so that it is kept as a file."""
    dice = random.Random(f"{number} {step}")
    size = dice.choices([dice.randrange(200_000, 500_000), dice.randrange(500_000, 2_000_000)], [4, 1])[0]
    at = dice.randrange(len(FILLING) - size)
    return f"{number} {step} " + FILLING[at : at + size]


class Receiver:
    """Takes the writes of all jobs and notes each one before it answers."""

    def __init__(self):
        self.lock = threading.Lock()
        # By job and step: idempotency keys and digests of the bodies, in the order of arrival.
        self.taken = defaultdict(list)
        self.faults = []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                step = self.path.removeprefix("/")
                with contextlib.suppress(ValueError):
                    # What a killed client sent in part is no request.
                    number = json.loads(body)["number"]
                    receiver.take(number, step, self.headers["Idempotency-Key"], body)
                    answer = json.dumps({"text": text_of(number, step)}).encode()
                    with contextlib.suppress(OSError):
                        self.send_response(200)
                        self.send_header("Content-Type", "application/json")
                        self.send_header("Content-Length", str(len(answer)))
                        self.end_headers()
                        for at in range(0, len(answer), 100_000):
                            self.wfile.write(answer[at : at + 100_000])
                            time.sleep(random.random() / 200)

            def log_message(self, *_):
                pass

        class Threads(http.server.ThreadingHTTPServer):
            # Five by default: beyond that the kernel resets connections, and what became of their writes is unknown.
            request_queue_size = 512

        self.server = Threads(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, number, step, key, body):
        at = STEPS.index(step)
        with self.lock:
            self.taken[number, step].append((key, hashlib.sha256(body).hexdigest()))
            # A later step was sent: this one's success was recorded.
            if any(self.taken.get((number, later)) for later in STEPS[at + 1 :]):
                self.faults.append(f"{step} of {number} was finished and came again")
            # Every step brings the whole answer to the one before.
            if at and json.loads(body)["before"] != text_of(number, STEPS[at - 1]):
                self.faults.append(f"{step} of {number} saw another answer than was given")

    def counts(self, numbers):
        with self.lock:
            return {(number, step): len(self.taken[number, step]) for number in numbers for step in STEPS}

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


def apply(server, receiver):
    request = {"connection": "up", "method": "POST"}
    steps = [
        {"id": step, "request": request | {"path": f"/{step}", "json": {"number": "{{ trigger.body.number }}"} | (
            {"before": "{{ steps." + before + ".body.text }}"} if before else {}
        )}}
        for before, step in zip((None, *STEPS), STEPS, strict=False)
    ]
    dedupe = {"by": "header:X-Event-Id", "within": "14d"}
    server.apply(
        {"kind": "endpoint", "name": "in", "spec": {"verify": "none", "dedupe": dedupe}},
        {"kind": "connection", "name": "up", "spec": {"base_url": f"http://127.0.0.1:{receiver.port}"}},
        {"kind": "recipe", "name": "act", "spec": {"trigger": {"webhook": {"endpoint": "in"}}, "steps": steps}},
    )


class Sender:
    """Sends numbered events and keeps to what it was told: acknowledged, or to be sent again."""

    def __init__(self):
        self.next = 0
        self.acknowledged = {}
        self.open = set()
        self.refused = 0

    def send(self, caller, number):
        self.open.add(number)
        headers = {"Content-Type": "application/json", "X-Event-Id": str(number)}
        status, _, answer = caller.call("POST", "", json.dumps({"number": number}), headers)
        if status == 202:
            event = json.loads(answer)["data"]["id"]
            assert self.acknowledged.setdefault(number, event) == event
            self.open.discard(number)
        else:
            assert status == 503, (status, answer)
            self.refused += 1
        return status

    def send_for(self, server, seconds, pause=0.03):
        end = time.monotonic() + seconds
        caller = Caller(server.endpoint_url("in"))
        with contextlib.suppress(OSError, http.client.HTTPException):
            while time.monotonic() < end:
                self.next += 1
                self.send(caller, self.next)
                time.sleep(pause)
        caller.close()

    def send_again(self, server):
        url = server.endpoint_url("in")

        def sent(number):
            # A connection of its own each time: one may be closed after an event that was refused unread.
            caller = Caller(url)
            try:
                return self.send(caller, number) == 202
            finally:
                caller.close()

        for number in list(self.open):
            eventually(lambda number=number: sent(number))


def check(server, sender, receiver, most):
    """Every event has one job that succeeded, and each of its steps was sent under one key, with one body, at most
    `most` times."""
    sender.send_again(server)
    eventually(lambda: len(server.jobs("act")) >= len(sender.acknowledged), 60, every=0.3)
    jobs = server.wait_for_jobs("act", seconds=120)
    assert [server.job(job["id"]) for job in jobs if job["status"] != "succeeded"] == []
    assert sorted(job["event"] for job in jobs) == sorted(sender.acknowledged.values())
    assert receiver.faults == []
    job_of = {job["event"]: job["id"] for job in jobs}
    assert len(receiver.taken) == len(STEPS) * len(jobs)
    for (number, step), sent in receiver.taken.items():
        assert {key for key, _ in sent} == {f"{job_of[sender.acknowledged[number]]}-{step}"}, (number, step)
        assert len({digest for _, digest in sent}) == 1, f"{step} of {number} was sent with different bodies"
        assert len(sent) <= most, f"{step} of {number} was sent {len(sent)} times"
    return sum(len(sent) - 1 for sent in receiver.taken.values())


@pytest.mark.timeout(2 * SECONDS + 300)
def test_kills_repeat_no_finished_write_of_large_answers(start, beside):
    end = time.monotonic() + SECONDS
    kills = repeated = done = 0
    while time.monotonic() < end:
        receiver, sender = beside(Receiver), Sender()
        server = start(args=["--egress-allow", f"127.0.0.1/32:{receiver.port}"])
        apply(server, receiver)
        for episode in range(KILLS):
            sending = threading.Thread(target=sender.send_for, args=(server, random.uniform(0.1, 0.5)))
            sending.start()
            time.sleep(random.uniform(0.2, 0.8))
            events = {event: number for number, event in sender.acknowledged.items()}
            finished = {events[job["event"]] for job in server.jobs("act", status="succeeded") if job["event"] in events}
            before = receiver.counts(finished)
            time.sleep(random.uniform(0, 0.1))
            server.kill()
            sending.join(30)
            kills += 1
            server.start()
            # What was seen to be finished before is never sent again.
            assert receiver.counts(finished) == before
            if time.monotonic() > end and episode:
                break
        repeated += check(server, sender, receiver, KILLS + 1)
        assert receiver.counts(finished) == before
        done += len(sender.acknowledged)
        assert server.stop() == 0
    # Had no write been interrupted, the kills would have missed them.
    assert repeated, f"{kills} kills interrupted nothing"
    print(f"\nkill -9: {kills} kills, {done} jobs, {repeated} unfinished writes sent again")


@pytest.mark.timeout(2 * SECONDS + 300)
def test_full_disks_repeat_no_write_of_large_answers(small_disk, start, beside):  # noqa: F811
    end = time.monotonic() + SECONDS
    receiver, fills, refused, done, round_ = beside(Receiver), 0, 0, 0, 0
    while time.monotonic() < end:
        # A new folder now and then: the answers of some dozen jobs are all that a small disk can hold.
        sender, round_ = Sender(), round_ + 1
        receiver.taken.clear()
        data = small_disk / f"data-{round_}"
        server = start(data, args=["--egress-allow", f"127.0.0.1/32:{receiver.port}"])
        apply(server, receiver)
        for _ in range(4):
            sending = threading.Thread(target=sender.send_for, args=(server, 1.2, 0.1))
            sending.start()
            time.sleep(random.uniform(0, 0.5))
            filler = fill(small_disk)
            fills += 1
            time.sleep(random.uniform(0.2, 1.2))
            assert server.process.poll() is None
            filler.unlink()
            sending.join(30)
            eventually(lambda: not server.get("/api/v1/jobs", recipe="act", status="running", limit=1)["data"])
        # Nothing was killed: nothing is sent twice.
        assert check(server, sender, receiver, 1) == 0
        refused, done = refused + sender.refused, done + len(sender.acknowledged)
        assert server.stop() == 0
        for path in sorted(data.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
    assert refused, f"a disk that was full {fills} times refused nothing"
    print(f"\nfull disk: {fills} times full, {done} jobs, {refused} events refused and sent again")
