"""How connections treat the APIs they call, against httpbin and a proxy that fails in its own ways."""

import json
import time
from datetime import datetime

import pytest

from support import Caller, Program, answers, eventually, free_port, program

HAPROXY = """
defaults
    mode http
    timeout client 30s
    timeout server 30s
    timeout connect 5s
    timeout tarpit 20s
frontend api
    bind 127.0.0.1:{port}
    http-request return status 200 content-type text/plain string up if {{ path /up }}
    http-request return status 503 hdr Retry-After 2 content-type text/plain string later if {{ path /later }} {{ src_inc_gpc0(counts) le 1 }}
    http-request tarpit if {{ path /tarpit }}
    http-request silent-drop if {{ path /drop }}
    http-request return status 503 if {{ path /down }}
    http-request return status 200 content-type text/plain string ok
backend counts
    stick-table type ip size 10 store gpc0
"""


class Haproxy(Program):
    """A proxy with nothing behind it: it answers, refuses, keeps waiting and goes silent by itself."""

    def __init__(self, folder):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        config = folder / "haproxy.cfg"
        config.write_text(HAPROXY.format(port=self.port))
        self.begin([program("haproxy"), "-db", "-f", config], folder / "haproxy.log", seconds=20)

    def is_up(self):
        return answers(self.url, "/up") == 200


@pytest.fixture
def haproxy(tmp_path):
    haproxy = Haproxy(tmp_path)
    yield haproxy
    haproxy.stop()


class Desk:
    """A server with one connection, and recipes that call it with a path of the event."""

    def __init__(self, start, upstream, **connection):
        self.upstream = upstream
        self.server = start(args=["--egress-allow", f"127.0.0.1/32:{upstream.port}"])
        self.server.apply(
            {"kind": "endpoint", "name": "in", "spec": {"verify": "none", "format": "json"}},
            self.connection(**connection),
        )
        self.caller = Caller(self.server.endpoint_url("in"))

    def connection(self, **spec):
        return {"kind": "connection", "name": "desk", "spec": {"base_url": self.upstream.url, **spec}}

    def recipe(self, name, **step):
        request = {"connection": "desk", "method": "GET", "path": "/", **step}
        spec = {"trigger": {"webhook": {"endpoint": "in", "when": f"trigger.query.r == '{name}'"}}}
        self.server.apply({"kind": "recipe", "name": name, "spec": spec | {"steps": [{"id": "call", "request": request}]}})
        return name

    def send(self, recipe):
        """Starts a job; gives its id."""
        status, _, answer = self.caller.call("POST", f"?r={recipe}", b"{}")
        assert status == 202, answer
        event = json.loads(answer)["data"]["id"]
        return eventually(lambda: self.server.jobs(recipe, event=event))[0]["id"]

    def when(self, job, *states, seconds=40):
        def there():
            found = self.server.job(job)
            return found if found["status"] in states else None

        return eventually(there, seconds)

    def ended(self, job):
        return self.when(job, "succeeded", "failed")

    def traffic(self):
        return self.server.get("/api/v1/connections/desk")["data"]["status"]["traffic"]


def moment(text):
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def test_every_attempt_at_a_failing_api_is_recorded(start, httpbin):
    desk = Desk(start, httpbin, retry={"tries": 3, "backoff": {"from": "10ms", "to": "20ms"}})
    job = desk.ended(desk.send(desk.recipe("failing", path="/status/503")))
    (step,) = job["steps"]
    assert [(a["number"], a["status"], a["decision"]) for a in step["attempt_log"]] == [
        (1, 503, "retry"),
        (2, 503, "retry"),
        (3, 503, "stop"),
    ]
    assert step["attempt_log"][2]["reason"] == "attempts made: 3, as many as are allowed"
    began = [moment(attempt["started_at"]) for attempt in step["attempt_log"]]
    assert began == sorted(began) and all(attempt["timings"]["total_us"] > 0 for attempt in step["attempt_log"])
    write = desk.ended(desk.send(desk.recipe("writing", path="/status/500", method="POST", json={})))
    (attempt,) = write["steps"][0]["attempt_log"]
    assert attempt["decision"] == "stop" and attempt["reason"].startswith("the request may have been processed")
    assert write["steps"][0]["error"]["description"].endswith(f"; not repeated: {attempt['reason']}")


def test_what_headers_say_holds_the_connection(start, httpbin):
    desk = Desk(start, httpbin)
    said = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "8"}
    telling = desk.recipe("telling", path="/response-headers", query=said)
    other = desk.recipe("other", path="/get")
    # On a success it is about what was begun, not about the next request.
    assert desk.ended(desk.send(desk.recipe("begun", path="/response-headers", query={"Retry-After": "600"})))["status"] == "succeeded"
    assert desk.ended(desk.send(telling))["status"] == "succeeded"
    told_at = time.time()
    status = desk.traffic()
    assert status["waits_by"] == "X-RateLimit-Reset" and 5 < moment(status["waits_until"]) - told_at < 9
    job = desk.send(other)
    step = desk.when(job, "waiting")["steps"][0]
    assert (step["attempts"], step["error"]["code"]) == (0, "connection.asked_to_wait")
    step = desk.ended(job)["steps"][0]
    assert step["attempts"] == 1 and moment(step["started_at"]) - told_at > 7


def test_requests_under_way_are_bounded(start, httpbin):
    desk = Desk(start, httpbin, limits={"concurrency": 1})
    slow = desk.recipe("slow", path="/delay/1")
    jobs = [desk.ended(job) for job in [desk.send(slow) for _ in range(3)]]
    assert all(job["status"] == "succeeded" for job in jobs)
    began = sorted(moment(job["steps"][0]["started_at"]) for job in jobs)
    assert all(later - earlier > 0.99 for earlier, later in zip(began, began[1:])), began


def test_retry_after_of_a_proxy_is_waited_for(start, haproxy):
    desk = Desk(start, haproxy)
    job = desk.ended(desk.send(desk.recipe("later", path="/later")))
    assert job["status"] == "succeeded", job
    first, second = job["steps"][0]["attempt_log"]
    assert (first["status"], second["status"]) == (503, 200)
    assert moment(second["started_at"]) - moment(first["started_at"]) >= 2


@pytest.mark.parametrize("path, code", [("/tarpit", "outbound.timeout"), ("/drop", "outbound.timeout"), ("/down", "response.status")])
def test_breaker_opens_on_what_a_proxy_does_and_closes_after_it(start, haproxy, path, code):
    breaker = {"open_after": 2, "probe_after": "8s"}
    desk = Desk(start, haproxy, timeout="700ms", breaker=breaker, retry={"tries": 1})
    failing = desk.recipe("failing", path=path)
    for _ in range(2):
        step = desk.ended(desk.send(failing))["steps"][0]
        assert step["error"]["code"] == code, step
    assert desk.traffic()["breaker"] == "open"
    job = desk.send(desk.recipe("fine", path="/up"))
    step = desk.when(job, "waiting")["steps"][0]
    assert (step["attempts"], step["error"]["code"]) == (0, "connection.breaker_open")
    assert "linkspan_breakers_open 1" in desk.server.metrics()
    assert desk.ended(job)["status"] == "succeeded"
    assert desk.traffic()["breaker"] == "closed"
