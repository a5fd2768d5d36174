"""Every example payload of GitHub, signed by GitHub's library, through the first-hour example."""

import json
import subprocess
import threading
import uuid
from collections import Counter
from urllib.parse import urlsplit

import pytest

from support import FIRST_HOUR, Caller, clean_environment, eventually, free_port, node_modules

CONNECTIONS = 8


@pytest.fixture(scope="module")
def payloads():
    script = [
        "node",
        str(FIRST_HOUR.parents[1] / "tests/counterparts/github_payloads.mjs"),
        str(node_modules()),
        "first-hour-github-secret",
    ]
    done = subprocess.run(script, capture_output=True, text=True, timeout=60, check=True, env=clean_environment())
    payloads = [json.loads(line) for line in done.stdout.splitlines()]
    # The package has hundreds of examples; far fewer would mean that its layout changed.
    assert len(payloads) > 700
    for payload in payloads:
        payload["delivery"] = str(uuid.uuid4())
    return payloads


def post_all(url, payloads):
    """Posts over several connections at once; gives the answers in the order of the payloads."""
    answers = [None] * len(payloads)

    def post(first):
        caller = Caller(url)
        for n in range(first, len(payloads), CONNECTIONS):
            payload = payloads[n]
            headers = {
                "Content-Type": "application/json",
                "User-Agent": "GitHub-Hookshot/044aadd",
                "X-GitHub-Event": payload["event"],
                "X-GitHub-Delivery": payload["delivery"],
                "X-Hub-Signature-256": payload["signature"],
            }
            status, _, body = caller.call("POST", "", payload["body"].encode(), headers)
            answers[n] = (status, json.loads(body))
        caller.close()

    threads = [threading.Thread(target=post, args=(n,), daemon=True) for n in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return answers


def test_every_payload_arrives_once_and_whole(start, payloads):
    # A port of its own choosing cannot be allowed before it is known, so this one is picked here.
    port = free_port()
    server = start(
        apply=FIRST_HOUR, args=["--egress-allow", f"127.0.0.1/32:{port}", "--public", f"127.0.0.1:{port}"]
    )
    url = server.endpoint_url("github")
    assert urlsplit(url).port == port

    answers = post_all(url, payloads)
    assert [answer for answer in answers if answer[0] != 202] == []
    ids = [answer[1]["data"]["id"] for answer in answers]
    assert len(set(ids)) == len(payloads)
    assert not any("duplicate" in answer[1]["data"] for answer in answers)

    # Each is stored byte for byte, with the headers that it came with.
    stored = {event["id"]: event for event in server.events("github")}
    assert set(stored) == set(ids)
    for event_id, payload in zip(ids, payloads):
        event = stored[event_id]
        assert event["body"].encode() == payload["body"].encode()
        assert event["verified"] == {"by": "hmac", "ok": True}
        headers = dict(event["headers"])
        assert headers["x-github-event"] == payload["event"]
        assert headers["x-github-delivery"] == payload["delivery"]

    # The list of the endpoint's events shows the same.
    eventually(lambda: len(list(server.pages("/api/v1/events", endpoint="github"))) == len(payloads))

    # The condition picks exactly those whose action is `opened`.
    opened = {
        event_id for event_id, payload in zip(ids, payloads) if json.loads(payload["body"]).get("action") == "opened"
    }
    assert opened, "no example has the action `opened`: the condition would go unproven"
    eventually(lambda: len(server.jobs("new-issue")) >= len(opened))
    jobs = server.wait_for_jobs("new-issue", seconds=120)
    assert Counter(job["event"] for job in jobs) == Counter(opened)
    assert {job["status"] for job in jobs} == {"succeeded"}

    # The desk got each call once, with what the recipe says.
    calls = {dict(event["headers"])["idempotency-key"]: event for event in server.events("desk")}
    assert len(list(server.events("desk"))) == len(jobs) == len(calls)
    by_id = dict(zip(ids, payloads))
    told = Counter(event["body"] for event in calls.values())
    expected = Counter()
    for event_id in opened:
        payload = json.loads(by_id[event_id]["body"])
        issue = payload.get("issue", {})
        expected[
            json.dumps(
                {
                    "title": issue.get("title", ""),
                    "votes": issue.get("reactions", {}).get("total_count", 0),
                    "sender": payload.get("sender", {}).get("login", ""),
                },
                separators=(",", ":"),
                ensure_ascii=False,
            )
        ] += 1
    assert told == expected

    # All of them again, as GitHub redelivers: nothing new.
    again = post_all(url, payloads)
    assert [answer[0] for answer in again] == [202] * len(payloads)
    assert [answer[1]["data"] for answer in again] == [{"id": event_id, "duplicate": True} for event_id in ids]
    assert sum(1 for _ in server.events("github")) == len(payloads)

    # Every event is exactly one row, also after the redelivery and after a second run.
    for _ in range(2):
        server.cli("syncs", "run", "github-events", "--wait")
        rows = server.table("github.events")
        assert Counter(row["_id"] for row in rows) == Counter(ids)
    assert len(server.jobs("new-issue")) == len(opened)
