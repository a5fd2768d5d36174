"""Proxies of connections: tinyproxy, the same behind TLS of haproxy's, and microsocks."""

import itertools
import json
from urllib.parse import quote

import pytest

from certificates import Authority, Nginx
from oidc import Provider, call_at_once, documents as oidc_documents
from support import Haproxy, Process, free_port

PASSWORD = "canary-proxy-pass"


class Tinyproxy(Process):
    def __init__(self, folder, more=""):
        port = free_port()
        config = f"Port {port}\nListen 127.0.0.1\nAllow 127.0.0.1\nTimeout 60\nMaxClients 50\nLogLevel Info\n{more}\n"
        super().__init__(folder, "tinyproxy", ["-d", "-c", "{folder}/config"], port, config)

    def tunnels(self):
        """What it was asked for."""
        lines = self.log.read_text().splitlines()
        return [line.split(": CONNECT ", 1)[1].split(" ")[0] for line in lines if ": CONNECT " in line]


@pytest.fixture
def started(beside, tmp_path):
    """Starts programs that end with the test, each with a folder of its own."""
    numbers = itertools.count()
    return lambda kind, *args, **options: beside(kind, tmp_path / f"process-{next(numbers)}", *args, **options)


def secret(name="password", value=PASSWORD):
    return {"kind": "secret", "name": name, "spec": {"value": value}}


def connection(url, proxy, **more):
    spec = {"base_url": url, "proxy": proxy, "test": {"path": "/get"}, **more}
    return {"kind": "connection", "name": "api", "spec": {name: value for name, value in spec.items() if value}}


def login(url, user="robot", name="password"):
    return {"url": url, "user": user, "password": {"secret": name}}


def call(server, path="/get", **request):
    target = {"path": path} if path else {}
    asked = {"request": {"method": "GET", "response": "text", **target, **request}}
    status, _, answer = server.request("POST", "/api/v1/connections/api/call", asked)
    return status, json.loads(answer)


def result_of_test(server):
    return server.api("POST", "/api/v1/connections/api/test")["data"]


def test_requests_go_through_a_tunnel(start, started, httpbin):
    proxy = started(Tinyproxy, f"BasicAuth robot {PASSWORD}")
    # What the environment says of proxies counts for nothing.
    server = start(args=["--egress-allow", "127.0.0.1/32"], env={"HTTP_PROXY": "http://127.0.0.1:9", "ALL_PROXY": "socks5://127.0.0.1:9"})
    server.apply(secret(), connection(httpbin.url, login(f"http://{proxy.address}")))
    status, answer = call(server, "/anything?x=1")
    assert status == 200, answer
    assert "Proxy" not in answer["data"] and "x=1" in answer["data"]
    assert proxy.tunnels() == [f"127.0.0.1:{httpbin.port}"]
    timings = answer["call"]["attempts"][-1]["timings"]
    assert timings["connect_us"] > 0 and timings["total_us"] >= timings["connect_us"], timings
    assert result_of_test(server)["state"] == "connected"
    shown = json.dumps([answer, server.cli("export"), server.cli("check")]) + server.log.read_text()
    assert PASSWORD not in shown and PASSWORD not in httpbin.log.read_text()
    # An API that repeats it, however it came by it, does not make it readable in a job's history.
    status, answer = call(server, f"/anything?say={quote(PASSWORD)}")
    assert PASSWORD not in json.dumps(answer["call"])


def test_tls_goes_through_the_tunnel_to_its_end(start, started, tmp_path):
    servers, clients = Authority(tmp_path, "Servers"), Authority(tmp_path, "Clients")
    nginx = started(Nginx, servers.issue("/CN=localhost", use="server", names="DNS:localhost"), clients)
    proxy = started(Tinyproxy)
    certificate, key = clients.issue("/CN=robot")
    server = start(args=["--egress-allow", "127.0.0.1/32"])
    server.apply(
        secret("key", key),
        {"kind": "account", "name": "robot", "spec": {"client_certificate": {"certificate": certificate, "key": {"secret": "key"}}}},
        connection(
            f"https://localhost:{nginx.port}",
            {"url": f"http://{proxy.address}"},
            tls={"authorities": servers.pem},
            account="robot",
        ),
    )
    status, answer = call(server)
    assert status == 200 and "SUCCESS CN=robot" in answer["data"], answer
    # Looked up here, and asked for by the address that was judged; the certificate is for the name.
    assert proxy.tunnels() in ([f"127.0.0.1:{nginx.port}"], [f"[::1]:{nginx.port}", f"127.0.0.1:{nginx.port}"])
    assert answer["call"]["attempts"][-1]["timings"]["tls_us"] > 0

    server.apply(
        connection(
            f"https://localhost:{nginx.port}",
            {"url": f"http://{proxy.address}", "resolve": "proxy"},
            tls={"authorities": servers.pem},
            account="robot",
        )
    )
    assert call(server)[0] == 200
    assert proxy.tunnels()[-1] == f"localhost:{nginx.port}"


def test_a_proxy_behind_tls(start, started, httpbin, tmp_path):
    authority = Authority(tmp_path, "Proxies")
    tinyproxy = started(Tinyproxy, f"BasicAuth robot {PASSWORD}")
    pem, port = tmp_path / "proxy.pem", free_port()
    pem.write_text("".join(authority.issue("/CN=proxy", use="server")))
    config = f"""
listen proxy
    mode tcp
    bind 127.0.0.1:{port} ssl crt {pem}
    server tinyproxy {tinyproxy.address}
"""
    proxy = started(Haproxy, port, config)
    server = start(args=["--egress-allow", "127.0.0.1/32"])
    trusted = {"authorities": authority.pem}
    server.apply(secret(), connection(httpbin.url, login(f"https://{proxy.address}"), tls=trusted))
    assert call(server)[0] == 200
    assert tinyproxy.tunnels() == [f"127.0.0.1:{httpbin.port}"]
    server.apply(connection(httpbin.url, login(f"https://{proxy.address}")))
    result = result_of_test(server)
    assert result["code"] == "outbound.proxy" and "of no authority that is trusted here" in result["reason"], result


def test_refusals_are_the_proxys(start, started, httpbin):
    proxy = started(Tinyproxy, f"BasicAuth robot {PASSWORD}\nConnectPort 443")
    server = start(args=["--egress-allow", "127.0.0.1/32"])
    url = f"http://{proxy.address}"
    server.apply(secret(), secret("other", "canary-wrong-pass"))
    for at, words in [
        ({"url": url}, "wants credentials (407)"),
        (login(url, name="other"), "does not accept the user and password of `proxy` (401)"),
        (login(url), f"gives no tunnel to 127.0.0.1:{httpbin.port}: it answered 403"),
    ]:
        server.apply(connection(httpbin.url, at))
        result = result_of_test(server)
        assert (result["state"], result["code"]) == ("failed", "outbound.proxy"), result
        assert f"the proxy {proxy.address} {words}" in result["reason"], result
        assert "canary" not in json.dumps(result)
    proxy.stop()
    result = result_of_test(server)
    assert result["code"] == "outbound.proxy" and "cannot be connected to: connection refused" in result["reason"], result


def test_the_guard_judges_before_the_proxy_is_asked(start, started, httpbin):
    proxy = started(Tinyproxy)
    server = start(args=["--egress-allow", f"127.0.0.1/32:{proxy.port}"])
    for resolve in ("here", "proxy"):
        at = {"url": f"http://{proxy.address}", "resolve": resolve}
        for host in ("127.0.0.1", "localhost", "2130706433", "169.254.169.254"):
            server.apply(connection(f"http://{host}:{httpbin.port}", at))
            result = result_of_test(server)
            assert (result["state"], result["code"]) == ("failed", "outbound.refused"), (host, result)
    assert proxy.tunnels() == []
    # Nor is a proxy dialled that is not opened.
    other = started(Tinyproxy)
    server.apply(connection("https://api.example.com", {"url": f"http://{other.address}", "resolve": "proxy"}))
    result = result_of_test(server)
    assert result["code"] == "outbound.refused" and f"its proxy {other.address} is closed to us" in result["reason"], result
    # And no name leaves for a proxy that no host stands for.
    wrong = connection(None, {"url": f"http://{proxy.address}", "resolve": "proxy"}, test=None)
    status, _, answer = server.request("POST", "/api/v1/apply", {"documents": [wrong]})
    assert status == 422 and json.loads(answer)["error"]["faults"][0]["path"] == "spec.proxy.resolve", answer


def test_redirects_are_judged_and_take_the_same_way(start, started, httpbin):
    proxy = started(Tinyproxy)
    server = start(args=["--egress-allow", f"127.0.0.1/32:{proxy.port}", "--egress-allow", f"127.0.0.1/32:{httpbin.port}"])
    anywhere = connection(None, {"url": f"http://{proxy.address}"}, redirects=3, test=None)
    server.apply(anywhere)
    to = f"{httpbin.url}/redirect-to?url="
    status, answer = call(server, None, url=to + quote(f"http://localhost:{httpbin.port}/get", safe=""))
    assert status == 200, answer
    assert len(proxy.tunnels()) == 2
    status, answer = call(server, None, url=to + quote("http://127.0.0.1:1/", safe=""))
    assert (status, answer["error"]["code"]) == (422, "outbound.refused"), answer
    assert not any(target.endswith(":1") for target in proxy.tunnels())


def test_socks5(start, started, httpbin):
    port = free_port()
    command = ["-i", "127.0.0.1", "-p", str(port), "-u", "robot", "-P", PASSWORD]
    proxy = started(Process, "microsocks", command, port)
    server = start(args=["--egress-allow", "127.0.0.1/32"])
    server.apply(secret(), secret("other", "canary-wrong-pass"), connection(httpbin.url, login(f"socks5://{proxy.address}")))
    assert call(server)[0] == 200
    at = login(f"socks5://{proxy.address}") | {"resolve": "proxy"}
    server.apply(connection(f"http://localhost:{httpbin.port}", at))
    assert call(server)[0] == 200
    server.apply(connection(httpbin.url, login(f"socks5://{proxy.address}", name="other")))
    result = result_of_test(server)
    assert result["code"] == "outbound.proxy" and "canary" not in json.dumps(result), result


def test_tokens_are_asked_for_through_the_accounts_own_proxy(start, started, beside, tmp_path):
    proxy = started(Tinyproxy, f"BasicAuth robot {PASSWORD}")
    provider = beside(Provider, tmp_path, "http://127.0.0.1:1/")
    server = start(args=["--egress-allow", "127.0.0.1/32"])
    at = login(f"http://{proxy.address}")
    server.apply(secret(), *oidc_documents(provider, "machine-basic", grant="client_credentials", scopes=["read"], proxy=at))
    assert {job["status"] for job in call_at_once(server, 3)} == {"succeeded"}
    assert proxy.tunnels() == [f"127.0.0.1:{provider.port}"]
    # Another way to the same provider: the token that there is goes on.
    proxy.stop()
    tested = server.api("POST", "/api/v1/connections/api/test")["data"]
    assert tested["state"] == "connected", tested
