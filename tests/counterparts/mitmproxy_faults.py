"""What mitmproxy does to requests on their way, by their paths: it answers itself, delays, cuts, and spoils."""

import asyncio

from mitmproxy import http


class Faults:
    def __init__(self):
        self.seen = {}

    async def request(self, flow):
        path = flow.request.path.partition("?")[0]
        self.seen[path] = self.seen.get(path, 0) + 1
        if path == "/unavailable":
            flow.response = http.Response.make(503, b"not now", {"Retry-After": "1"})
        elif path == "/twice-unavailable" and self.seen[path] <= 2:
            flow.response = http.Response.make(503, b"not now")
        elif path == "/twice-unavailable":
            flow.response = http.Response.make(200, b"now", {"Content-Type": "text/plain"})
        elif path == "/delayed":
            await asyncio.sleep(0.5)
            flow.response = http.Response.make(200, b"late", {"Content-Type": "text/plain"})
        elif path == "/cut":
            flow.kill()
        elif path == "/count":
            counts = " ".join(f"{name}={count}" for name, count in self.seen.items())
            flow.response = http.Response.make(200, counts.encode(), {"Content-Type": "text/plain"})

    def response(self, flow):
        if flow.request.path.startswith("/json") and flow.response.content:
            # The upstream's body with its end missing, under its own headers.
            flow.response.headers["Content-Type"] = "application/json"
            flow.response.content = flow.response.content[:-20]


addons = [Faults()]
