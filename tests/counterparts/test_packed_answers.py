"""Answers packed by compressors that are not ours: right ones, broken ones, and bombs."""

import gzip
import json
import threading
import time
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import brotlicffi
import pytest

from support import Caller, eventually

ZEROS = bytes(1 << 20)


def gzip_bomb(mebibytes):
    packer = zlib.compressobj(9, wbits=31)
    return b"".join([packer.compress(ZEROS) for _ in range(mebibytes)] + [packer.flush()])


def brotli_bomb(mebibytes):
    packer = brotlicffi.Compressor(quality=5)
    return b"".join([packer.process(ZEROS) for _ in range(mebibytes)] + [packer.finish()])


def bare_deflate(body):
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


TEXT = json.dumps({"text": "é" * 1000}).encode()
PATHS = {
    "/gzip": ("gzip", gzip.compress(TEXT)),
    "/two": ("gzip", gzip.compress(TEXT[:100]) + gzip.compress(TEXT[100:])),
    "/br": ("br", brotlicffi.compress(TEXT)),
    "/zlib": ("deflate", zlib.compress(TEXT)),
    "/bare": ("deflate", bare_deflate(TEXT)),
    "/both": ("gzip, br", brotlicffi.compress(gzip.compress(TEXT))),
    "/plain": ("identity", TEXT),
    "/cut": ("gzip", gzip.compress(TEXT)[:-9]),
    "/cut-br": ("br", brotlicffi.compress(TEXT)[:-1]),
    "/wrong": ("br", gzip.compress(TEXT)),
    "/odd": ("compress", b"\x1f\x9d\x90"),
}


@pytest.fixture(scope="module")
def packed():
    """A server that answers what stands in PATHS, and bombs."""
    bombs = {"/bomb": ("gzip", gzip_bomb(1024)), "/bomb-br": ("br", brotli_bomb(1024))}
    bombs["/bomb-twice"] = ("gzip, gzip", gzip.compress(bombs["/bomb"][1]))
    answers = PATHS | bombs

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            coding, body = answers[self.path]
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Encoding", coding)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture
def fetch(start, packed):
    """Makes a job that fetches a path, and waits for its end."""
    server = start(args=["--egress-allow", f"127.0.0.1/32:{packed}"])
    server.apply(
        {"kind": "endpoint", "name": "in", "spec": {"verify": "none", "format": "json"}},
        {"kind": "connection", "name": "packed", "spec": {"base_url": f"http://127.0.0.1:{packed}"}},
    )

    def fetch(path, response=None):
        name = "r" + path.strip("/") + (response or "")
        request = {"connection": "packed", "method": "GET", "path": path} | ({"response": response} if response else {})
        when = f"trigger.query.r == '{name}'"
        spec = {"trigger": {"webhook": {"endpoint": "in", "when": when}}, "steps": [{"id": "get", "request": request}]}
        server.apply({"kind": "recipe", "name": name, "spec": spec})
        assert Caller(server.endpoint_url("in")).call("POST", f"?r={name}", b"{}")[0] == 202
        job = eventually(lambda: server.jobs(name))[0]["id"]
        ended = eventually(lambda: (lambda job: job["status"] in ("succeeded", "failed") and job)(server.job(job)), 30)
        return ended["steps"][0]

    fetch.server = server
    return fetch


def test_every_packing_gives_the_same(fetch):
    for path in ("/gzip", "/two", "/br", "/zlib", "/bare", "/both", "/plain"):
        step = fetch(path)
        assert step["status"] == "succeeded", (path, step)
        assert step["output"]["body"] == json.loads(TEXT), path


def test_what_is_broken_is_named(fetch):
    for path in ("/cut", "/cut-br", "/wrong"):
        error = fetch(path)["error"]
        assert error["code"] == "outbound.encoding", (path, error)
        assert "cannot be unpacked as" in error["description"]
    assert fetch("/odd", "json")["error"]["code"] == "response.unreadable"
    assert fetch("/odd", "raw")["output"]["body"] == {"base64": "H52Q"}


def test_a_gigabyte_of_zeros_ends_soon_in_little_memory(fetch):
    fetch("/gzip")
    before = fetch.server.peak_mib()
    for path in ("/bomb", "/bomb-br", "/bomb-twice"):
        began = time.monotonic()
        error = fetch(path)["error"]
        assert error["code"] == "outbound.too_large", (path, error)
        assert time.monotonic() - began < 10, path
    # The limit is 10 MiB for each; windows, buffers that grow and what an allocator keeps come on top.
    assert fetch.server.peak_mib() - before < 100
