"""Answers that are meant to hurt: endless, slow, deep, huge, cut off, and what is no HTTP at all. Each call of one ends
within its limits in an error with a name, and memory stays flat."""

import json
import socket
import socketserver
import threading
import time

import pytest

from support import Refused

MIB = 1 << 20


def head(content_type, *more, status="200 OK"):
    return "\r\n".join([f"HTTP/1.1 {status}", f"Content-Type: {content_type}", "Connection: close", *more, "", ""]).encode()


def whole(content_type, body, *more):
    return [head(content_type, f"Content-Length: {len(body)}", *more), body]


def endless():
    yield head("application/json", "Transfer-Encoding: chunked")
    while True:
        yield b"10000\r\n" + b" " * 0x10000 + b"\r\n"


def dripping():
    yield head("application/json", "Content-Length: 1000")
    while True:
        time.sleep(0.1)
        yield b" "


def dripping_head():
    for byte in head("application/json", "Content-Length: 0") * 10:
        time.sleep(0.1)
        yield bytes([byte])


DTD = b'<!DOCTYPE a SYSTEM "http://127.0.0.1:1/a.dtd"><a/>'
LAUGHS = b'<!DOCTYPE a [<!ENTITY b "' + b"l" * 1000 + b'"><!ENTITY c "' + b"&b;" * 1000 + b'">]><a>' + b"&c;" * 1000 + b"</a>"

# What stands at a path, what a step would take it for, and what the error is.
ANSWERS = {
    "/endless": (endless, None, "outbound.too_large"),
    "/large": (lambda: [head("application/json", f"Content-Length: {1 << 40}")], None, "outbound.too_large"),
    "/slow": (dripping, None, "outbound.timeout"),
    "/slow-head": (dripping_head, None, "outbound.timeout"),
    "/half": (lambda: [head("application/json", "Content-Length: 100"), b"{"], None, "outbound.reset"),
    "/half-chunk": (lambda: [head("text/plain", "Transfer-Encoding: chunked"), b"10\r\nabc"], None, "outbound.reset"),
    "/no-chunk": (lambda: [head("text/plain", "Transfer-Encoding: chunked"), b"xyz\r\nabc\r\n"], None, "outbound.protocol"),
    "/nothing": (list, None, "outbound.reset"),
    "/no-http": (lambda: [b"220 mail.example ESMTP\r\n"], None, "outbound.protocol"),
    "/lengths": (lambda: [head("text/plain", "Content-Length: 3", "Content-Length: 4"), b"abc"], None, "outbound.protocol"),
    "/zero": (lambda: [b"HTTP/1.1 200 OK\r\nX-A: a\0b\r\n\r\n"], None, "outbound.protocol"),
    "/long-head": (lambda: [head("text/plain", "X-A: " + "a" * MIB)], None, "outbound.protocol"),
    "/many-headers": (lambda: [head("text/plain", *[f"X-{n}: a" for n in range(500)])], None, "outbound.protocol"),
    "/deep": (lambda: whole("application/json", b"[" * 100_000 + b"]" * 100_000), "json", "response.unreadable"),
    "/deep-objects": (lambda: whole("application/json", b'{"a":' * 100_000 + b"1" + b"}" * 100_000), "json", "response.unreadable"),
    "/many-values": (lambda: whole("application/json", b"[" + b"0," * 4_000_000 + b"0]"), "json", "response.unreadable"),
    "/html": (lambda: whole("application/json", b"<html>Bad gateway</html>"), "json", "response.unreadable"),
    "/empty": (lambda: whole("application/json", b""), "json", None),
    "/utf8": (lambda: whole("application/json", b'{"a": "\xff\xfe"}'), "json", "response.unreadable"),
    "/text": (lambda: whole("text/plain; charset=utf-8", b"\xff\xfe\xfd"), "text", "response.unreadable"),
    "/charset": (lambda: whole("text/plain; charset=klingon", b"abc"), "text", "response.unreadable"),
    "/xml-deep": (lambda: whole("application/xml", b"<a>" * 100_000 + b"</a>" * 100_000), "xml", "response.unreadable"),
    "/xml-many": (lambda: whole("application/xml", b"<a>" + b"<b/>" * 2_000_000 + b"</a>"), "xml", "response.unreadable"),
    "/xml-attributes": (
        lambda: whole("application/xml", b"<a " + b" ".join(b'a%d=""' % n for n in range(200_000)) + b"/>"),
        "xml",
        "response.unreadable",
    ),
    "/dtd": (lambda: whole("application/xml", DTD), "xml", "response.unreadable"),
    "/laughs": (lambda: whole("application/xml", LAUGHS), "xml", "response.unreadable"),
    "/circle": (lambda: [head("text/plain", "Location: /circle", "Content-Length: 0", status="302 Found")], None, "outbound.redirect"),
    "/away": (
        lambda: [head("text/plain", "Location: http://169.254.169.254/", "Content-Length: 0", status="302 Found")],
        None,
        "outbound.redirect",
    ),
    "/upgrade": (lambda: [b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"], None, "response.status"),
    "/cookie": (lambda: whole("text/plain", b"ok", "Set-Cookie: session=abc; Path=/"), None, None),
}


class Hostile(socketserver.ThreadingTCPServer):
    """Answers a path as ANSWERS says, for as long as somebody takes it."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), None)
        self.heads = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def port(self):
        return self.server_address[1]

    def finish_request(self, request, _):
        request.settimeout(20)
        read = b""
        while b"\r\n\r\n" not in read:
            piece = request.recv(65536)
            if not piece:
                return
            read += piece
        self.heads.append(read.decode("latin-1"))
        answer = ANSWERS[read.split(b" ")[1].decode()][0]
        try:
            for piece in answer():
                request.sendall(piece)
            request.shutdown(socket.SHUT_WR)
        except OSError:
            # Whoever was hurt enough has gone away.
            pass

    def handle_error(self, *_):
        pass


@pytest.fixture(scope="module")
def hostile():
    server = Hostile()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def desk(start, hostile):
    server = start(args=["--egress-allow", f"127.0.0.1/32:{hostile.port}"])
    spec = {"base_url": f"http://127.0.0.1:{hostile.port}", "timeout": "3s", "redirects": 5, "retry": {"tries": 1}}
    spec |= {"breaker": "none", "rate": {"learn": False}}
    server.apply({"kind": "connection", "name": "hostile", "spec": spec})
    return server


def call(server, path, response):
    """The code of the error, or nothing."""
    request = {"method": "GET", "path": path} | ({"response": response} if response else {})
    status, _, answer = server.request("POST", "/api/v1/connections/hostile/call", {"request": request})
    answer = json.loads(answer)
    assert status in (200, 502, 504), (path, status, answer)
    return answer.get("error", {}).get("code"), answer


def test_every_one_ends_by_name_within_its_limits(desk, hostile):
    wrong = {}
    for path, (_, response, expected) in ANSWERS.items():
        began = time.monotonic()
        code, answer = call(desk, path, response)
        if code != expected:
            wrong[path] = (expected, code, str(answer)[:500])
        assert time.monotonic() - began < 6, path
    assert wrong == {}
    # No state comes along from one answer to the next request.
    assert call(desk, "/cookie", None)[0] is None
    assert not any("cookie:" in head.lower() for head in hostile.heads)
    assert desk.is_running()


def test_memory_stays_flat(desk):
    for path in ("/many-values", "/xml-many", "/endless"):
        call(desk, path, ANSWERS[path][1])
    first = desk.peak_mib()
    for _ in range(4):
        for path in ("/endless", "/deep", "/many-values", "/xml-many", "/xml-attributes", "/laughs"):
            call(desk, path, ANSWERS[path][1])
    assert desk.peak_mib() < first * 1.5 + 16, f"{first:.0f} MiB at first, then {desk.peak_mib():.0f} MiB"
    assert desk.peak_mib() < 256


def test_addresses_that_nobody_may_call_are_refused_before_anything_is_sent(desk, hostile):
    before = len(hostile.heads)
    urls = ["http://user:pass@127.0.0.1/", "ftp://127.0.0.1/", "file:///etc/passwd", "gopher://127.0.0.1/", "http://[::1]:1/"]
    for url in urls:
        with pytest.raises(Refused) as refused:
            desk.api("POST", "/api/v1/connections/hostile/call", {"request": {"method": "GET", "url": url}})
        assert "422" in str(refused.value), (url, refused.value)
    for header, value in {"X-A": "a\r\nX-B: b", "X A": "a", "X-N": "a\0b", "Host": "x", "Content-Length": "9"}.items():
        request = {"method": "GET", "path": "/cookie", "headers": {header: value}}
        with pytest.raises(Refused) as refused:
            desk.api("POST", "/api/v1/connections/hostile/call", {"request": request})
        assert "422" in str(refused.value), (header, refused.value)
    assert len(hostile.heads) == before
