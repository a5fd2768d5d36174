"""An OAuth2 provider, oidc-provider, and the documents of a connection whose tokens come from it."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from support import Caller, Program, eventually, free_port, node_modules

SECRET = "client-secret-with-more-than-thirty-two-bytes+/="
LIFE = 3


class Provider(Program):
    def __init__(self, folder, callback, port=None, lives=(LIFE,), more=None):
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        (folder / "more.json").write_text(json.dumps(more or {}))
        script = Path(__file__).with_name("oidc_provider.mjs")
        command = ["node", str(script), str(node_modules()), str(self.port), callback, SECRET]
        command.append(",".join(map(str, lives)))
        command.append(str(folder / "more.json"))
        self.begin(command, folder / "oidc-provider.log")

    def is_up(self):
        return "listening" in self.log.read_text()

    def counts(self):
        caller = Caller(self.url)
        answer = json.loads(caller.call("GET", "/counts")[2])
        caller.close()
        return answer


def documents(provider, client, **oauth2):
    spec = {
        "token_url": f"{provider.url}/token",
        "client_id": client,
        "client_secret": {"secret": "client"},
        "client_auth": client.rpartition("-")[2],
        **oauth2,
    }
    step = {"id": "call", "request": {"connection": "api", "method": "GET", "path": "/api/x", "response": "json"}}
    return [
        {"kind": "secret", "name": "client", "spec": {"value": SECRET}},
        {"kind": "account", "name": "account", "spec": {"oauth2": spec}},
        {
            "kind": "connection",
            "name": "api",
            "spec": {"base_url": provider.url, "account": "account", "test": {"path": "/api/me"}},
        },
        {"kind": "endpoint", "name": "in", "spec": {"verify": "none"}},
        {"kind": "recipe", "name": "call", "spec": {"trigger": {"webhook": {"endpoint": "in"}}, "steps": [step]}},
    ]


def call_at_once(server, count):
    """So many events at once, and their jobs."""
    url = server.endpoint_url("in")

    def send(_):
        caller = Caller(url)
        status, _, body = caller.call("POST", "", b"{}")
        caller.close()
        assert status == 202
        return json.loads(body)["data"]["id"]

    with ThreadPoolExecutor(16) as pool:
        events = set(pool.map(send, range(count)))
    # Each event starts its job a moment after its acknowledgement.
    eventually(lambda: len([job for job in server.jobs("call") if job["event"] in events]) == count)
    return [job for job in server.wait_for_jobs("call") if job["event"] in events]
