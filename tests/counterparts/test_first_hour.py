"""The README's first hour, run as it stands there."""

import json
import os
import re
import signal
import subprocess
import urllib.error
import urllib.request

import pytest

from support import FIRST_HOUR, REPOSITORY, binary, clean_environment, eventually, free_port

# A block that follows this comment is part of the first hour.
BLOCK = re.compile(r"<!-- first-hour -->\s*```sh\n(.*?)```", re.S)


class Machine:
    """A folder in which the commands find what they name: the example, and the binary where `make` puts it."""

    def __init__(self, folder):
        (folder / "target" / "release").mkdir(parents=True)
        (folder / "target" / "release" / "linkspan").symlink_to(binary())
        (folder / "examples").symlink_to(REPOSITORY / "examples")
        public, self.operator = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        self.folder = folder
        # Ports other than the README's, which may be taken; everything else is as there.
        self.env = clean_environment(
            LINKSPAN_BIN="target/release/linkspan",
            LINKSPAN_PUBLIC=public,
            LINKSPAN_OPERATOR=self.operator,
            LINKSPAN_URL=f"http://{self.operator}",
        )
        self.log = folder / "start.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [str(folder / "examples" / "first-hour" / "start")],
                cwd=folder,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        eventually(self._is_up, 30)

    def _is_up(self):
        assert self.process.poll() is None, self.log.read_text()
        try:
            with urllib.request.urlopen(f"http://{self.operator}/readyz", timeout=5) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def sh(self, script, timeout=120):
        done = subprocess.run(
            ["bash", "-eu", "-o", "pipefail", "-c", script],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}\n{self.log.read_text()[-3000:]}"
        return done.stdout

    def cli(self, command):
        return json.loads(self.sh(f"target/release/linkspan {command} --output json"))["data"]

    def stop(self):
        """As Ctrl-C does: the script passes it on and waits for the server."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(45)
        except subprocess.TimeoutExpired:
            # The whole group: the server is a child of the script.
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(15)
            raise


@pytest.fixture
def machine(tmp_path):
    machine = Machine(tmp_path)
    yield machine
    machine.stop()


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
    machine.stop()
    with pytest.raises(OSError):
        urllib.request.urlopen(f"http://{machine.operator}/readyz", timeout=5)
