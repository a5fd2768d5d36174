"""An API that is called by recipes, through one connection."""

import json
from datetime import datetime

from support import Caller, eventually


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
