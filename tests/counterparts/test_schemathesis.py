"""schemathesis makes requests from our own OpenAPI document and holds our answers against it."""

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from support import FIRST_HOUR, clean_environment, free_port

SECONDS = int(os.environ.get("SCHEMATHESIS_SECONDS", "75"))
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
]
CONNECTOR = {
    "kind": "connector",
    "name": "tickets",
    "spec": {
        "connection": {"base_url": "https://desk.example.com"},
        "actions": {"list_tickets": {"request": {"method": "GET", "path": "/tickets"}}},
    },
}


@pytest.mark.timeout(SECONDS + 300)
def test_the_api_keeps_its_own_description(start, tmp_path):
    port = free_port()
    server = start(
        apply=FIRST_HOUR, args=["--public", f"127.0.0.1:{port}", "--egress-allow", f"127.0.0.1/32:{port}"]
    )
    connector = tmp_path / "connector.json"
    connector.write_text(json.dumps(CONNECTOR))
    server.cli("apply", "-f", connector)
    for _ in range(5):
        server.cli("send", "github", "--file", FIRST_HOUR / "payload.json")
    server.wait_for_jobs("new-issue")
    server.run("send", "github", "--body", "not JSON")

    def ids(path):
        return [item["id"] for item in server.get(path, limit=100)["data"]]

    documents = ("secrets", "accounts", "connectors", "connections", "destinations", "endpoints", "recipes", "syncs")
    collections = (*documents, "catalog")
    known = {f"/api/v1/{kind}": [item["name"] for item in server.get(f"/api/v1/{kind}")["data"]] for kind in collections}
    known |= {f"/api/v1/{kind}": ids(f"/api/v1/{kind}") for kind in ("events", "jobs")}
    known["/api/v1/tables"] = ["github.events"]
    assert all(known.values()), known

    command = [
        Path(sys.executable).with_name("schemathesis"),
        "run",
        f"{server.operator}/openapi.json",
        "--url", server.operator,
        "--header", f"Authorization: Bearer {server.token}",
        "--checks", ",".join(CHECKS),
        "--max-time", SECONDS,
        "--request-timeout", 20,
        "--generation-database", "none",
        "--continue-on-failure",
        # After it the token of this very run would be dead.
        "--exclude-path", "/api/v1/token/rotate",
        # Each writes a whole copy of the data folder: hundreds of them are a full disk and no finding.
        "--exclude-path", "/api/v1/backup",
        # These call whatever address a document or a request made up, which takes its time and leaves this machine:
        # the address guard only keeps them from private ones.
        "--exclude-path", "/api/v1/connections/{name}/test",
        "--exclude-path", "/api/v1/connections/{name}/call",
        "--exclude-path", "/api/v1/connections/{name}/read",
        "--no-color",
    ]  # fmt: skip
    # The run deletes what it finds; put back now and then, there is something to find until the end.
    over = threading.Event()

    def put_back():
        while not over.wait(2):
            server.run("apply", "-f", FIRST_HOUR, "-f", connector)

    gardener = threading.Thread(target=put_back, daemon=True)
    gardener.start()
    done = subprocess.run(
        [str(part) for part in command],
        cwd=tmp_path,
        env=clean_environment(
            SCHEMATHESIS_HOOKS="schemathesis_hooks",
            PYTHONPATH=str(Path(__file__).parent),
            KNOWN_PATH_PARAMETERS=json.dumps(known),
            COLUMNS="160",
        ),
        capture_output=True,
        text=True,
        timeout=SECONDS + 240,
        check=False,
    )
    over.set()
    gardener.join(60)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-4_000:]
    cases = re.search(r"(\d+) generated", done.stdout)
    # A run that generated nothing would pass as well.
    assert cases and int(cases[1]) > 500, done.stdout[-4_000:]
    print(f"\nschemathesis: {cases[1]} cases")
    # It is still the server that it was, and it still answers.
    assert server.is_running()
    assert server.api("GET", "/api/v1/check")["data"] is not None
    # These the run leaves out; they answer as described.
    assert set(server.api("POST", "/api/v1/backup")["data"]) >= {"path", "events", "jobs"}
