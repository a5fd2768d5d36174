"""Recipes that call httpbin: what the job's record says was sent is what came, and answers are read as they are."""

import base64
import json
import time
import uuid
from xml.etree import ElementTree

import pytest

from support import Caller, encoded, eventually

PASSWORD = "p4ss:w+rd&canary-password"
API_KEY = "canary-api-key-5f1d"


class Bench:
    """A server with one endpoint, and connections to httpbin in every form that accounts have."""

    def __init__(self, start, httpbin):
        self.httpbin = httpbin
        self.server = start(args=["--egress-allow", f"127.0.0.1/32:{httpbin.port}"])
        self.server.apply(
            {"kind": "endpoint", "name": "in", "spec": {"verify": "none", "format": "json"}},
            {"kind": "secret", "name": "password", "spec": {"value": PASSWORD}},
            {"kind": "secret", "name": "api-key", "spec": {"value": API_KEY}},
            {"kind": "account", "name": "right", "spec": self.basic("password")},
            {"kind": "account", "name": "wrong", "spec": self.basic("api-key")},
            {"kind": "account", "name": "keyed", "spec": {"headers": {"X-Api-Key": {"secret": "api-key"}}}},
            self.connection("plain"),
            self.connection("as-right", account="right"),
            self.connection("as-wrong", account="wrong"),
            self.connection("as-keyed", account="keyed"),
            self.connection("hasty", timeout="1s", timeout_message="The bin is asleep."),
            self.connection("following", redirects=2),
        )

    @staticmethod
    def basic(secret):
        return {"basic": {"user": "alice", "password": {"secret": secret}}}

    def connection(self, name, **spec):
        return {"kind": "connection", "name": name, "spec": {"base_url": self.httpbin.url, **spec}}

    def start_job(self, *steps, event=None):
        """Makes a recipe of these steps, sends one event, and gives the job's id."""
        name = "r" + uuid.uuid4().hex[:12]
        steps = [{"id": f"s{n}", "request": {"connection": "plain", **step}} for n, step in enumerate(steps)]
        spec = {"trigger": {"webhook": {"endpoint": "in", "when": f"trigger.query.r == '{name}'"}}, "steps": steps}
        self.server.apply({"kind": "recipe", "name": name, "spec": spec})
        caller = Caller(self.server.endpoint_url("in"))
        status, _, answer = caller.call("POST", f"?r={name}", json.dumps(event or {}).encode())
        assert status == 202, answer
        caller.close()
        return eventually(lambda: self.server.jobs(name))[0]["id"]

    def ended(self, job_id, seconds=30):
        def ended():
            job = self.server.job(job_id)
            return job if job["status"] in ("succeeded", "failed", "canceled") else None

        return eventually(ended, seconds)

    def run(self, *steps, event=None):
        return self.ended(self.start_job(*steps, event=event))


@pytest.fixture
def bench(start, httpbin):
    return Bench(start, httpbin)


def succeeded(job):
    assert job["status"] == "succeeded", json.dumps(job, indent=1)
    return job["steps"]


def pairs(headers):
    """Headers without the names' case, which HTTP does not keep."""
    return {name.lower(): value for name, value in headers}


# Texts that a careless encoding would change or let out of their place in the URL.
AWKWARD = "a b/c?d=e&f#g%h+i;j:k@l!é€😀\"'<>\\^`{|}~"


@pytest.mark.parametrize(
    "body",
    [
        {"json": {"text": "{{ trigger.body.awkward }}", "number": "{{ trigger.body.number }}", "list": "{{ trigger.body.list }}", "fixed": [1, None, True]}},
        {"form": {"first field": "{{ trigger.body.awkward }}", "b": "{{ trigger.body.number }}"}},
        {"text": "say {{ trigger.body.awkward }}\nand {{ trigger.body.number }}"},
        {},
    ],
    ids=["json", "form", "text", "none"],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_what_the_record_shows_is_what_came(bench, method, body):
    marker = uuid.uuid4().hex
    event = {"awkward": AWKWARD, "number": 123456789012345678901234567890, "list": [1, {"a": None}]}
    step = {
        "method": method,
        "path": f"/anything/{marker}/{{{{ trigger.body.awkward }}}}/end",
        "query": {"q": "{{ trigger.body.awkward }}", "sp ace": "x"},
        "headers": {"X-Pill": "n={{ trigger.body.number }}", "X-Fixed": "fixed"},
        **body,
    }
    (step,) = succeeded(bench.run(step, event=event))
    sent, echo = step["input"], step["output"]["body"]

    # The request line, byte for byte.
    ((came_method, target),) = bench.httpbin.requests(marker)
    assert (came_method, bench.httpbin.url + target) == (sent["method"], sent["url"])
    # One segment it was, and one value: both come out as they went in.
    assert len(target.split("?")[0].split("/")) == 5
    assert echo["args"] == {"q": AWKWARD, "sp ace": "x"}

    # The headers: all that came, and nothing beside them.
    came, shown = pairs(echo["headers"].items()), pairs(sent["headers"])
    assert came == shown
    assert shown["x-fixed"] == "fixed" and shown["x-pill"] == "n=123456789012345678901234567890"

    # The body.
    shown_body = sent.get("body", {}).get("text", "") if body else ""
    if "form" in body:
        assert echo["form"] == {"first field": AWKWARD, "b": shown["x-pill"][2:]}
        assert echo["data"] == ""
    else:
        assert echo["data"] == shown_body
    if "json" in body:
        assert echo["json"] == {"text": AWKWARD, "number": event["number"], "list": event["list"], "fixed": [1, None, True]}
    if "text" in body:
        assert shown_body == f"say {AWKWARD}\nand {shown['x-pill'][2:]}"


def test_credentials(bench):
    right = f"/basic-auth/alice/{encoded(PASSWORD)}"
    (step,) = succeeded(bench.run({"connection": "as-right", "method": "GET", "path": right}))
    assert step["output"]["body"] == {"authenticated": True, "user": "alice"}
    assert pairs(step["input"]["headers"])["authorization"].startswith("Basic ")

    job = bench.run({"connection": "as-wrong", "method": "GET", "path": right})
    (step,) = job["steps"]
    assert job["status"] == "failed" and step["attempts"] == 1
    assert job["error"]["code"] == step["error"]["code"] == "response.status"
    assert step["output"]["status"] == 401

    (step,) = succeeded(bench.run({"connection": "as-keyed", "method": "GET", "path": "/headers"}))
    # httpbin says the header back; what is recorded of that is masked like the request.
    shown = pairs(step["output"]["body"]["headers"].items())
    assert shown["x-api-key"] == pairs(step["input"]["headers"])["x-api-key"]
    assert API_KEY not in json.dumps(step)


def test_secrets_are_nowhere(bench):
    """A canary scan: not in the API, not in the log, not in any file of the data folder, plain or encoded."""
    steps = [
        {"connection": "as-keyed", "method": "POST", "path": "/anything/echo", "json": {"a": 1}},
        {"connection": "as-keyed", "method": "GET", "path": "/anything/again/{{ steps.s0.status }}"},
        {"connection": "as-right", "method": "GET", "path": "/headers"},
        {"connection": "as-wrong", "method": "GET", "path": "/basic-auth/alice/other"},
    ]
    job = bench.run(*steps)
    assert job["status"] == "failed" and len(job["steps"]) == 4
    server = bench.server
    exported = server.run("export").stdout + server.run("jobs", "show", job["id"]).stdout
    answers = json.dumps(job) + exported + server.metrics()
    for path in ("secrets", "accounts", "connections", "recipes", "endpoints", "jobs", "events", "refusals"):
        answers += json.dumps(list(server.pages(f"/api/v1/{path}")))

    pair = f"alice:{PASSWORD}"
    forms = {PASSWORD.encode(), API_KEY.encode(), encoded(PASSWORD).encode(), json.dumps(PASSWORD)[1:-1].encode()}
    for text in (PASSWORD, API_KEY, pair, f"alice:{API_KEY}"):
        forms.add(base64.b64encode(text.encode()).rstrip(b"="))
    # The scan must be able to find them.
    assert any(form in b"x" + API_KEY.encode() for form in forms)

    def found(where, content):
        return [(where, form) for form in forms if form in content]

    hits = found("answers", answers.encode())
    scanned = 0
    for state in ("running", "stopped"):
        for path in [server.log, *server.data.rglob("*")]:
            if path.is_file():
                scanned += 1
                hits += found(f"{state}: {path.name}", path.read_bytes())
        if state == "running":
            assert server.stop() == 0
    assert scanned > 10
    assert hits == []


def test_a_failed_read_waits_and_is_tried_again(bench):
    marker = uuid.uuid4().hex
    job_id = bench.start_job({"method": "GET", "path": "/status/500", "query": {"marker": marker}})

    def waiting():
        job = bench.server.job(job_id)
        return job if job["status"] == "waiting" else None

    job = eventually(waiting, 20, every=0.02)
    (step,) = job["steps"]
    assert step["status"] == "waiting" and step["retry_at"]
    assert step["error"]["code"] == "response.status" and step["output"]["status"] == 500

    # A second attempt comes by itself.
    eventually(lambda: len(bench.httpbin.requests(marker)) >= 2, 20)
    assert bench.server.api("POST", f"/api/v1/jobs/{job_id}/cancel")["data"]["status"] == "canceled"


def test_a_failed_write_is_not_repeated(bench):
    marker = uuid.uuid4().hex
    job = bench.run({"method": "POST", "path": "/status/500", "query": {"marker": marker}, "json": {}})
    (step,) = job["steps"]
    assert (job["status"], step["attempts"]) == ("failed", 1)
    assert "repeating" in step["error"]["description"]
    time.sleep(3)
    assert len(bench.httpbin.requests(marker)) == 1


def test_a_write_that_is_idempotent_is_repeated_with_its_key(bench):
    marker = uuid.uuid4().hex
    step = {"method": "POST", "effect": "idempotent", "path": "/status/500", "query": {"marker": marker}, "json": {}}
    job_id = bench.start_job(step)
    eventually(lambda: len(bench.httpbin.requests(marker)) >= 2, 20)
    (step,) = bench.server.job(job_id)["steps"]
    assert pairs(step["input"]["headers"])["idempotency-key"] == f"{job_id}-s0"
    bench.server.api("POST", f"/api/v1/jobs/{job_id}/cancel")


def test_what_was_not_processed_is_repeated_and_what_is_final_is_not(bench):
    # 429 says that the request was not processed: also a write is sent again.
    marker = uuid.uuid4().hex
    job_id = bench.start_job({"method": "POST", "path": "/status/429", "query": {"marker": marker}, "json": {}})
    eventually(lambda: len(bench.httpbin.requests(marker)) >= 2, 20)
    bench.server.api("POST", f"/api/v1/jobs/{job_id}/cancel")

    job = bench.run({"method": "GET", "path": "/status/418"})
    assert (job["status"], job["steps"][0]["attempts"]) == ("failed", 1)


def test_too_slow(bench):
    began = time.monotonic()
    job = bench.run({"connection": "hasty", "method": "POST", "path": "/delay/5", "json": {}})
    assert time.monotonic() - began < 5
    (step,) = job["steps"]
    assert (job["status"], step["attempts"]) == ("failed", 1)
    assert step["error"]["description"].startswith("The bin is asleep.")
    assert step["error"]["outcome_unknown"] is True


def test_redirects(bench):
    marker = uuid.uuid4().hex
    path = f"/redirect-to?url=/anything/{marker}"
    job = bench.run({"method": "GET", "path": path})
    assert job["status"] == "failed" and job["steps"][0]["output"]["status"] == 302
    assert bench.httpbin.requests(f"/anything/{marker}") == [("GET", path)]

    (step,) = succeeded(bench.run({"connection": "following", "method": "GET", "path": path}))
    assert step["output"]["body"]["url"] == f"{bench.httpbin.url}/anything/{marker}"


def test_answers_are_read_as_they_are(bench):
    (step,) = succeeded(bench.run({"method": "GET", "path": "/bytes/300?seed=7", "response": "raw"}))
    wanted = Caller(bench.httpbin.url).call("GET", "/bytes/300?seed=7")[2]
    body = step["output"]["body"]
    assert base64.b64decode(body if isinstance(body, str) else body["base64"]) == wanted

    (step,) = succeeded(bench.run({"method": "GET", "path": "/html"}))
    assert step["output"]["body"] == Caller(bench.httpbin.url).call("GET", "/html")[2].decode()

    job = bench.run({"method": "GET", "path": "/html", "response": "json"})
    assert (job["status"], job["error"]["code"]) == ("failed", "response.unreadable")


def test_packed_answers_are_unpacked(bench):
    for path, word in (("gzip", "gzipped"), ("deflate", "deflated"), ("brotli", "brotli")):
        (step,) = succeeded(bench.run({"method": "GET", "path": f"/{path}", "response": "json"}))
        assert step["output"]["body"][word] is True
        # The headers stay as they came, and so does what was asked for.
        assert pairs(step["output"]["headers"])["content-encoding"] == {"brotli": "br"}.get(path, path)
        assert pairs(step["input"]["headers"])["accept-encoding"] == "gzip, br, zstd"


def fetched(bench, target):
    """What an ordinary client gets."""
    return Caller(bench.httpbin.url).call("GET", target)[2]


def test_characters_of_every_script_survive(bench):
    (step,) = succeeded(bench.run({"method": "GET", "path": "/encoding/utf8"}))
    text = step["output"]["body"]
    assert text == fetched(bench, "/encoding/utf8").decode()
    assert all(c in text for c in "∮ლЗ⠑ท☺█")


def test_xml_becomes_a_tree_and_goes_back(bench):
    steps = [
        {"method": "GET", "path": "/xml"},
        {"method": "POST", "path": "/anything/back", "xml": "{{ steps.s0.body }}"},
        {"method": "POST", "path": "/anything/new", "xml": {"a": {"@t": "{{ steps.s0.body.slideshow['@title'] }}", "s": "{{ trigger.body.awkward }}"}}},
        {"method": "POST", "path": "/anything/text", "xml": "<a t='{{ trigger.body.awkward }}'>{{ trigger.body.awkward }}</a>"},
    ]
    read, back, new, text = succeeded(bench.run(*steps, event={"awkward": AWKWARD}))
    show = read["output"]["body"]["slideshow"]
    assert show["@title"] == "Sample Slide Show"
    assert [slide["title"] for slide in show["slide"]] == ["Wake up to WonderWidgets!", "Overview"]
    assert show["slide"][1]["item"][0] == {"#text": ["Why ", " are great"], "em": "WonderWidgets", "#order": ["#text", "em", "#text"]}

    def canonical(text):
        return ElementTree.canonicalize(text, strip_text=True)

    # A parser that is not ours finds the same document.
    assert canonical(back["output"]["body"]["data"]) == canonical(fetched(bench, "/xml").decode())
    assert pairs(back["output"]["body"]["headers"].items())["content-type"] == "application/xml"
    made = ElementTree.fromstring(new["output"]["body"]["data"])
    assert (made.get("t"), made.find("s").text) == ("Sample Slide Show", AWKWARD)
    made = ElementTree.fromstring(text["output"]["body"]["data"])
    assert (made.get("t"), made.text) == (AWKWARD, AWKWARD)


def test_multipart_arrives_as_fields_and_files(bench):
    steps = [
        {"method": "GET", "path": "/image/png", "response": "raw"},
        {
            "method": "POST",
            "path": "/anything/upload",
            "multipart": [
                {"name": "title", "text": "{{ trigger.body.awkward }}"},
                {"name": "title", "text": "again"},
                {"name": "meta", "filename": "meta.json", "json": {"n": "{{ trigger.body.n }}"}},
                {"name": "picture", "filename": "{{ trigger.body.awkward }}.png", "content_type": "image/png", "raw": "{{ steps.s0.body }}"},
                {"name": "bytes", "filename": "b", "raw": {"base64": "/wD+"}},
                {"name": "note", "filename": "note.txt", "text": "line\r\nline"},
            ],
        },
    ]
    _, step = succeeded(bench.run(*steps, event={"awkward": AWKWARD, "n": 9007199254740993}))
    echo = step["output"]["body"]
    assert echo["form"] == {"title": [AWKWARD, "again"]}
    picture = fetched(bench, "/image/png")
    assert echo["files"] == {
        "meta": '{"n":9007199254740993}',
        "picture": "data:image/png;base64," + base64.b64encode(picture).decode(),
        "bytes": "data:application/octet-stream;base64,/wD+",
        "note": "line\r\nline",
    }
    # The record shows every part as what it is.
    shown = step["input"]["body"]
    assert shown["parts"][0]["text"] == AWKWARD
    assert base64.b64decode(shown["parts"][3]["base64"]) == picture
    assert shown["size"] == int(pairs(step["input"]["headers"])["content-length"])


def test_bytes_travel_unchanged(bench):
    steps = [
        {"method": "GET", "path": "/stream-bytes/70000?seed=3&chunk_size=999", "response": "raw"},
        {"method": "PUT", "path": "/anything/raw", "raw": "{{ steps.s0.body }}"},
        {"method": "PUT", "path": "/anything/typed", "raw": {"base64": "AAEC/w"}, "headers": {"Content-Type": "image/x-none"}},
    ]
    _, raw, typed = succeeded(bench.run(*steps))
    wanted = fetched(bench, "/stream-bytes/70000?seed=3&chunk_size=999")
    head = "data:application/octet-stream;base64,"
    # The echo is longer than the history keeps, so it is cut there.
    assert raw["output"]["body"]["cut"] is True
    assert head + base64.b64encode(wanted).decode()[:1000] in raw["output"]["body"]["text"]
    assert raw["input"]["body"]["size"] == 70000
    assert typed["output"]["body"]["data"] == head + "AAEC/w=="
    assert pairs(typed["output"]["body"]["headers"].items())["content-type"] == "image/x-none"


def test_nothing_is_null(bench):
    steps = [
        {"method": "GET", "path": "/status/204", "response": "json"},
        {"method": "HEAD", "path": "/json", "response": "json"},
        {"method": "GET", "path": "/etag/one", "headers": {"If-None-Match": '"one"'}, "response": "json"},
        {"method": "GET", "path": "/bytes/0", "response": "xml"},
        {"method": "POST", "path": "/anything/all", "json": ["{{ steps.s0.body }}", "{{ steps.s1.body }}", "{{ steps.s2.body }}", "{{ steps.s2.status }}", "{{ steps.s3.body }}"]},
    ]
    echo = succeeded(bench.run(*steps))[-1]["output"]["body"]
    assert echo["json"] == [None, None, None, 304, None]


def test_answers_that_come_in_pieces(bench):
    steps = [
        {"method": "GET", "path": "/drip?duration=1&numbytes=5&delay=0", "response": "text"},
        {"method": "GET", "path": "/stream/3"},
    ]
    drip, stream = succeeded(bench.run(*steps))
    assert drip["output"]["body"] == "*****"
    # It says JSON and is lines of JSON: then it is text, unless the step insists.
    assert [json.loads(line)["id"] for line in stream["output"]["body"].splitlines()] == [0, 1, 2]
    job = bench.run({"method": "GET", "path": "/stream/3", "response": "json"})
    assert job["error"]["code"] == "response.unreadable"


def test_an_answer_that_drips_too_long(bench):
    step = {"connection": "hasty", "method": "GET", "path": "/drip?duration=5&numbytes=5&delay=0", "response": "text"}
    job_id = bench.start_job(step)

    def failed_once():
        (step,) = bench.server.job(job_id)["steps"] or [{}]
        return step.get("error")

    error = eventually(failed_once, 20)
    assert error["code"] == "outbound.timeout" and "reading the body" in error["description"]
    bench.server.api("POST", f"/api/v1/jobs/{job_id}/cancel")


def test_a_later_step_uses_an_earlier_answer(bench):
    first = {"method": "POST", "path": "/anything/one", "json": {"name": "{{ trigger.body.name }}", "n": 9007199254740993}}
    second = {
        "method": "PUT",
        "path": "/anything/{{ steps.s0.body.json.name }}",
        "headers": {"X-Status": "{{ steps.s0.status }}"},
        "json": {"all": "{{ steps.s0.body.json }}", "n": "{{ steps.s0.body.json.n }}"},
    }
    steps = succeeded(bench.run(first, second, event={"name": "né/1"}))
    echo = steps[1]["output"]["body"]
    # 2^53 + 1: a number that passed through floating point would be another one.
    assert echo["json"] == {"all": {"name": "né/1", "n": 9007199254740993}, "n": 9007199254740993}
    assert echo["headers"]["X-Status"] == "200"
    assert steps[1]["input"]["url"].endswith("/anything/n%C3%A9%2F1")
