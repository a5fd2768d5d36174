"""How connections treat the APIs they call, against httpbin and a proxy that fails in its own ways."""

import time

import pytest

from desk import Desk, moment
from support import Haproxy, free_port

HAPROXY = """
frontend api
    timeout tarpit 20s
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


@pytest.fixture
def haproxy(beside, tmp_path):
    """A proxy with nothing behind it: it answers, refuses, keeps waiting and goes silent by itself."""
    port = free_port()
    haproxy = beside(Haproxy, tmp_path / "haproxy", port, HAPROXY.format(port=port))
    haproxy.url = f"http://{haproxy.address}"
    return haproxy


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
