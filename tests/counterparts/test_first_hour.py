"""The README's first hour, run as it stands there."""

import json
import os
import re
import urllib.request

import pytest

from support import FIRST_HOUR, REPOSITORY, eventually

# A block that follows this comment is part of the first hour.
BLOCK = re.compile(r"<!-- first-hour -->\s*```sh\n(.*?)```", re.S)


def test_the_readme_does_what_it_says(machine):
    readme = (REPOSITORY / "README.md").read_text()
    blocks = BLOCK.findall(readme)
    assert len(blocks) == readme.count("<!-- first-hour -->") >= 4, "a marked block is not a sh block"
    payload = (FIRST_HOUR / "payload.json").read_text()
    printed = [machine.sh(block) for block in blocks]

    # The payload that was sent is stored as it is, and verified.
    first = printed[0].strip()
    (event,) = [event for event in machine.cli("events list --endpoint github") if event["id"] == first]
    assert (event["body"], event["verified"]) == (payload, {"by": "hmac", "ok": True})

    # It became a ticket on the desk.
    jobs = [job for job in machine.cli("jobs list --recipe new-issue") if job["event"] == first]
    assert [job["status"] for job in jobs] == ["succeeded"]

    def tickets():
        return [json.loads(event["body"]) for event in machine.cli("events list --endpoint desk")]

    ticket = {"title": "Found a bug", "votes": 3, "sender": "octocat"}
    assert tickets().count(ticket) == 1
    # And after the change of the recipe it became another one.
    eventually(lambda: ticket | {"title": "FOUND A BUG"} in tickets())

    # It is a row.
    rows = machine.cli("tables show github.events")["rows"]
    assert [row["_id"] for row in rows].count(first) == 1

    # What was not signed was refused, and the reader is told why.
    refusals = machine.cli("refusals --endpoint github")
    assert "verify.failed" in {refusal["code"] for refusal in refusals}

    # The blocks themselves showed these things.
    shown = "".join(printed)
    for text in ("succeeded", "/tickets-1347", "octocat", "verify.failed"):
        assert text in shown, shown


def test_what_start_says_to_type_works(machine):
    """The lines that the start script prints for the reader to copy."""
    said = eventually(lambda: "Ctrl-C" in machine.log.read_text() and machine.log.read_text())
    commands = [line.strip() for line in said.splitlines() if line.startswith("    target/release/linkspan ")]
    assert len(commands) >= 3, said
    for command in commands:
        machine.sh(command)
    # Named in a comment beside the last one.
    machine.sh("target/release/linkspan syncs run github-events --wait")
    assert len(machine.cli("tables show github.events")["rows"]) == 1


def test_ctrl_c_ends_the_server(machine):
    machine.interrupt()
    # Nobody of its group is left.
    with pytest.raises(ProcessLookupError):
        os.killpg(machine.process.pid, 0)
    with pytest.raises(OSError):
        urllib.request.urlopen(f"http://{machine.operator}/readyz", timeout=5)
