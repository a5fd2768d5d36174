"""A client of HTTP/2 that we did not write keeps its connection, idle and pinging, and is told when it ends."""

import json
import socket
import ssl
import time
from urllib.parse import urlsplit

import h2.config
import h2.connection
import h2.events

from certificates import Authority
from support import FIRST_HOUR

OPEN = {"kind": "endpoint", "name": "open", "spec": {"format": "json", "verify": "none"}}


class Client:
    """One connection of the library `h2`, which acknowledges settings and pings as every client does."""

    def __init__(self, url, tls=None):
        parts = urlsplit(url)
        self.parts = parts
        self.socket = socket.create_connection((parts.hostname, parts.port), timeout=20)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
            assert self.socket.selected_alpn_protocol() == "h2"
        self.http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        self.came = b""
        self.http.initiate_connection()
        self.send()

    def send(self):
        self.socket.sendall(self.http.data_to_send())

    def until(self, *kinds):
        """The first event of one of these kinds; None when the connection is closed before."""
        while True:
            frame = self.frame()
            if frame is None:
                return None
            events = self.http.receive_data(frame)
            self.send()
            for event in events:
                if isinstance(event, kinds):
                    return event

    def frame(self):
        """The bytes of the next frame. One by one, because the library takes none after GOAWAY, although a server that
        says that it will close sends PING behind it (RFC 9113, section 6.8)."""
        while True:
            end = 9 + int.from_bytes(self.came[:3], "big")
            if len(self.came) >= max(end, 9):
                frame, self.came = self.came[:end], self.came[end:]
                return frame
            data = self.socket.recv(65536)
            if not data:
                return None
            self.came += data

    def post(self, body):
        stream = self.http.get_next_available_stream_id()
        head = [
            (":method", "POST"),
            (":scheme", self.parts.scheme),
            (":authority", self.parts.netloc),
            (":path", self.parts.path),
            ("content-type", "application/json"),
        ]
        self.http.send_headers(stream, head)
        self.http.send_data(stream, json.dumps(body).encode(), end_stream=True)
        self.send()
        answer = self.until(h2.events.ResponseReceived, h2.events.ConnectionTerminated)
        assert isinstance(answer, h2.events.ResponseReceived), answer
        assert dict(answer.headers)[":status"] == "202"

    def ping(self):
        self.http.ping(b"12345678")
        self.send()
        return self.until(h2.events.PingAckReceived, h2.events.ConnectionTerminated)

    def idle(self, seconds, every):
        """Pings now and then, and asks for nothing."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            event = self.ping()
            left = round(end - time.monotonic(), 1)
            assert isinstance(event, h2.events.PingAckReceived), f"{event} with {left} s of idle time left"
            time.sleep(min(every, max(0, end - time.monotonic())))


def test_connection_lives_for_two_minutes_idle_pinging_and_posting(start, tmp_path):
    """With the limits as they are by default: 10 s for a head, 60 s without a request."""
    authority = Authority(tmp_path, "Servers")
    files = tmp_path / "cert.pem", tmp_path / "key.pem"
    for file, pem in zip(files, authority.issue("/CN=localhost", use="server"), strict=True):
        file.write_text(pem)
    args = ["--tls-cert", files[0], "--tls-key", files[1]]
    tls = ssl.create_default_context(cadata=authority.pem)
    tls.set_alpn_protocols(["h2"])
    server = start(apply=FIRST_HOUR, args=args)
    server.apply(OPEN)
    client = Client(server.endpoint_url("open"), tls)
    began = time.monotonic()
    while time.monotonic() - began < 80:
        client.post({"at": time.monotonic() - began})
        client.idle(25, every=5)
    client.post({"last": True})
    # Longer than the head may take, shorter than it may be idle, and nothing is sent meanwhile.
    time.sleep(40)
    client.post({"quiet": True})


def test_idle_connection_ends_with_goaway(start):
    server = start(apply=FIRST_HOUR, args=["--head-timeout", "1s", "--idle-timeout", "3s"])
    server.apply(OPEN)
    client = Client(server.endpoint_url("open"))
    client.post({"n": 1})
    idle = time.monotonic()
    client.idle(2, every=0.2)
    end = client.until(h2.events.ConnectionTerminated)
    assert isinstance(end, h2.events.ConnectionTerminated)
    assert end.error_code == 0
    # The server counts from when it has written its answer, a moment before it is read here.
    assert 2.9 <= time.monotonic() - idle < 6
    # The client has closed nothing: the server does.
    client.socket.settimeout(10)
    while client.socket.recv(65536):
        pass
