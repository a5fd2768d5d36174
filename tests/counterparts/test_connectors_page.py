"""The examples of docs/connectors.md, run as they stand there: every file, every command, and what it prints."""

import json
import re
import shlex

import pytest

from support import REPOSITORY, eventually, sample

PAGE = (REPOSITORY / "docs" / "connectors.md").read_text()
# A block behind a comment: a file, a piece of one, or commands with what they print.
BLOCK = re.compile(r"<!-- (?:file: (?P<file>\S+)|run) -->\n+```(?P<kind>\w+)\n(?P<text>.*?)^```", re.S | re.M)

OPENED = json.loads(sample("github/issue-opened.json"))
LABEL = ("POST", f"/repos/{OPENED['repository']['full_name']}/issues/{OPENED['issue']['number']}/labels")
GITHUB = {
    ("GET", "/user"): (200, sample("github/user.json")),
    ("GET", "/repos/octocat/Hello-World"): (200, sample("github/repository.json")),
    ("GET", "/repos/octocat/Hello-World/issues"): (200, sample("github/issues.json")),
    ("POST", "/repos/octocat/Hello-World/issues"): (201, sample("github/issue.json")),
    ("GET", "/gists"): (200, b"[]"),
    LABEL: (200, sample("github/labels.json")),
}
DESK = {
    ("GET", "/api/me"): (200, b'{"name": "robot"}'),
    ("POST", "/api/tickets"): (201, b'{"id": 7, "title": "Broken", "priority": "high"}'),
    ("GET", "/api/tickets"): (200, b'{"tickets": [{"id": 7, "title": "Broken"}], "next": "abc"}'),
    ("GET", "/api/tickets?label=red&label=blue&limit=100&after=abc"): (200, b'{"tickets": [{"id": 6, "title": "Late"}], "next": null}'),
}


@pytest.fixture
def reader(start, stand_in, tmp_path):
    """A server, and a folder to work in, of somebody who reads the page."""
    github, desk = stand_in(GITHUB), stand_in(DESK)
    server = start(
        args=[part for api in (github, desk) for part in ("--egress-allow", f"127.0.0.1/32:{api.port}")],
        env={
            "LINKSPAN_SECRET_GITHUB": "token-of-octocat",
            "LINKSPAN_SECRET_GITHUB_WEBHOOK": "webhook-of-octocat",
            "LINKSPAN_SECRET_DESK": "token-of-the-desk",
        },
    )
    folder = tmp_path / "reader"
    folder.mkdir()
    reader = Reader(server, folder, {"https://api.github.com": github.url, "https://desk.example.com": desk.url})
    reader.github = github
    return reader


class Reader:
    def __init__(self, server, folder, addresses):
        self.server, self.folder, self.addresses = server, folder, addresses

    def write(self, name, text):
        """A file, or a further piece of it. Documents lead to the stand-ins; what runs offline stays as it is."""
        if name.endswith(".yaml") and "kind: connector" not in text and not self.is_connector(name):
            for there, here in self.addresses.items():
                text = text.replace(there, here)
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        with path.open("a") as file:
            file.write(text)

    def is_connector(self, name):
        path = self.folder / name
        return path.exists() and "kind: connector" in path.read_text()

    def type(self, command):
        program, *arguments = shlex.split(command)
        assert program == "linkspan", command
        ran = self.server.run(*arguments, cwd=self.folder)
        assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"
        # A terminal shows both. The stand-ins speak http, which is warned of.
        lines = (ran.stdout + ran.stderr).splitlines()
        return "\n".join(line for line in lines if "go over plain http" not in line)


def as_shown(shown, printed):
    """Whether this was printed; `…` stands for anything."""
    pattern = ".*".join(re.escape(part) for part in shown.strip().split("…"))
    return re.fullmatch(pattern, printed.strip(), re.S)


def test_the_page_does_what_it_says(reader):
    blocks = list(BLOCK.finditer(PAGE))
    assert len(blocks) == len(re.findall(r"^<!-- (?:file|run)", PAGE, flags=re.M)) > 20, "a marked block is no block"
    pieces = 0
    for block in blocks:
        if block["file"]:
            reader.write(block["file"], block["text"])
            if block["file"] == "desk.yaml":
                # The page says so: after every piece.
                reader.type("linkspan connectors validate desk.yaml")
                pieces += 1
            continue
        for command, shown in re.findall(r"^\$ (.*?)\n(.*?)(?=^\$ |\Z)", block["text"], flags=re.S | re.M):
            printed = reader.type(command)
            assert as_shown(shown, printed), f"{command}\nthe page shows:\n{shown}\nthis was printed:\n{printed}"
    assert pieces == 10

    # The recipe of the page, on what GitHub sends: only what was opened starts it.
    sent = reader.server.api("POST", "/api/v1/endpoints/github-events/send", {"body": json.dumps(OPENED)})
    eventually(lambda: reader.server.jobs("triage"))
    (job,) = reader.server.wait_for_jobs("triage")
    assert (job["event"], job["status"]) == (sent["data"]["id"], "succeeded")
    (labelled,) = [body for method, target, _, body in reader.github.take() if (method, target) == LABEL]
    assert json.loads(labelled) == {"labels": ["triage"]}


def test_every_connector_that_comes_with_the_product_stands_in_the_table(reader):
    rows = re.findall(r"^\| `(\w+)`[^|]*\|([^|]*)\|([^|]*)\|([^|]*)\|([^|]*)\|$", PAGE.split("### Set it up")[0], flags=re.M)
    listed = {}
    for name, accounts, settings, webhooks, streams in rows:
        required = re.findall(r"\*\*`(\w+)`\*\*", settings)
        named = [set(re.findall(r"`(\w+)`", cell)) for cell in (accounts, webhooks, streams)]
        without_cursor = set(re.findall(r"`(\w+)`\*", streams))
        listed[name] = (*named, set(required), without_cursor)

    there = {}
    for entry in reader.server.get("/api/v1/catalog")["data"]:
        one = reader.server.get(f"/api/v1/catalog/{entry['name']}")["data"]
        streams = {stream["name"]: stream["cursor"] for stream in one["streams"]}
        there[entry["name"]] = (
            {account["kind"] for account in one["accounts"]},
            {webhook["name"] for webhook in one["webhooks"]},
            set(streams),
            set((one["settings"] or {}).get("required", [])),
            {name for name, cursor in streams.items() if cursor is None},
        )
    assert listed == there
