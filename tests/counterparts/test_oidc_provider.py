"""OAuth2 against oidc-provider: a user's consent with PKCE, rotation with reuse detection, client credentials."""

import asyncio
import http.cookiejar
import json
import re
import resource
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest

from certificates import Authority, Nginx, new_key, public_half
from oidc import LIFE, SECRET, Provider, call_at_once, documents
from support import free_port


@pytest.fixture
def bench(request, start, beside, tmp_path):
    """A server and a provider that know each other's addresses."""
    public = free_port()
    lives = getattr(request, "param", (LIFE,))
    provider = beside(Provider, tmp_path, f"http://127.0.0.1:{public}/oauth/callback", lives=lives)
    args = ["--public", f"127.0.0.1:{public}", "--egress-allow", f"127.0.0.1/32:{provider.port}"]
    return start(args=args), provider


def of_user(provider, client, **oauth2):
    """The same with a user's consent."""
    consent = {"grant": "authorization_code", "authorize_url": f"{provider.url}/auth?prompt=consent"}
    return documents(provider, client, **consent, scopes=["openid", "offline_access"], **oauth2)


def account(server):
    return server.get("/api/v1/accounts/account")["data"]["status"]


class StayHere(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


def consent(url):
    """Logs in and consents as a browser does; gives the URL that the provider sends it back to."""
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()), StayHere())
    body = None
    for _ in range(12):
        try:
            page = opener.open(urllib.request.Request(url, data=body), timeout=20).read().decode()
        except urllib.error.HTTPError as answer:
            assert answer.status in (302, 303), f"{url}: {answer.status} {answer.read()}"
            url, body = urllib.parse.urljoin(url, answer.headers["Location"]), None
            if "/oauth/callback?" in url:
                return url
            continue
        # A form of the provider's own: the login takes any name, the consent is one button.
        action = re.search(r'<form[^>]* action="([^"]+)"', page)[1]
        prompt = re.search(r'name="prompt" value="([^"]+)"', page)[1]
        fields = {"prompt": prompt, "login": "joe", "password": "any"}
        url, body = urllib.parse.urljoin(url, action), urllib.parse.urlencode(fields).encode()
    raise AssertionError(f"no end at {url}")


def connect(server):
    asked = server.api("POST", "/api/v1/accounts/account/connect")["data"]
    back = consent(asked["authorize_url"])
    with urllib.request.urlopen(back, timeout=20) as page:
        assert page.status == 200 and b"is connected" in page.read()
    return back


@pytest.mark.parametrize("client", ["user-basic", "user-body"])
def test_a_user_connects_and_rotation_is_kept_up_with(bench, client):
    server, provider = bench
    server.apply(*of_user(provider, client, issuer=provider.url))
    assert account(server)["state"] == "new"
    back = connect(server)
    # It says who it is, and that was checked.
    assert urllib.parse.parse_qs(urllib.parse.urlsplit(back).query)["iss"] == [provider.url]
    status = account(server)
    assert status["state"] == "connected" and "offline_access" in status["scopes"]
    assert provider.counts() == {"granted": 1, "refused": [], "revoked": 0}
    with pytest.raises(urllib.error.HTTPError) as again:
        urllib.request.urlopen(back, timeout=20)
    assert again.value.code == 400

    # Three lives of the token, each ended, and then wanted by 50 jobs at once.
    for refreshes in (1, 2, 3):
        time.sleep(LIFE + 0.2)
        jobs = call_at_once(server, 50)
        assert {job["status"] for job in jobs} == {"succeeded"}
        counts = provider.counts()
        assert counts["refused"] == [] and counts["revoked"] == 0
        assert counts["granted"] <= 1 + refreshes * 2
    assert server.cli("connections", "test", "api")["data"]["state"] == "connected"
    log = server.log.read_text()
    code = urllib.parse.parse_qs(urllib.parse.urlsplit(back).query)["code"][0]
    assert code not in log and SECRET not in log


def calls_at_once(server, count):
    """The statuses of so many calls that are all under way before the first is answered."""
    body = b'{"request": {"method": "GET", "path": "/api/x"}}'
    host = server.operator.removeprefix("http://")
    head = (
        f"POST /api/v1/connections/api/call HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {server.token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    address = host.rsplit(":", 1)

    async def ask():
        opened = [await asyncio.open_connection(*address) for _ in range(count)]
        for _, writer in opened:
            writer.write(head.encode() + body)
        answers = await asyncio.gather(*(reader.read() for reader, _ in opened))
        for _, writer in opened:
            writer.close()
        return [int(answer.split(b" ", 2)[1]) for answer in answers]

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, count + 500), hard), hard))
    try:
        return asyncio.run(asyncio.wait_for(ask(), 120))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("bench", [(2, 3600)], indirect=True)
def test_a_thousand_calls_at_once_on_an_ended_token_are_one_refresh(bench):
    server, provider = bench
    server.apply(*of_user(provider, "user-basic"))
    connect(server)
    time.sleep(2.2)
    assert set(calls_at_once(server, 1000)) == {200}
    assert provider.counts() == {"granted": 2, "refused": [], "revoked": 0}


def test_a_revoked_grant_asks_for_the_user_again(bench):
    server, provider = bench
    server.apply(*of_user(provider, "user-basic"))
    connect(server)
    # A provider without its memory knows neither token.
    provider.stop()
    provider.__init__(provider.log.parent, f"{server.public}/oauth/callback", provider.port)
    time.sleep(LIFE + 0.2)
    jobs = call_at_once(server, 3)
    assert {server.job(job["id"])["error"]["code"] for job in jobs} == {"account.not_connected"}
    assert account(server)["state"] == "reconnect"
    # Asked once: what was refused is not used again.
    assert len(provider.counts()["refused"]) == 1
    connect(server)
    assert {job["status"] for job in call_at_once(server, 3)} == {"succeeded"}


@pytest.mark.parametrize("client", ["machine-basic", "machine-body"])
def test_client_credentials(bench, client):
    server, provider = bench
    server.apply(*documents(provider, client, grant="client_credentials", scopes=["read"]))
    jobs = call_at_once(server, 50)
    assert {job["status"] for job in jobs} == {"succeeded"}
    assert account(server)["state"] == "connected"
    assert provider.counts()["refused"] == []
    answer = server.job(jobs[0]["id"])["steps"][0]["output"]["body"]
    assert answer == {"client": client}

    # With other scopes there must be another token, and a wrong secret gets none.
    server.apply(*documents(provider, client, grant="client_credentials", scopes=["openid"]))
    server.api("PATCH", "/api/v1/secrets/client", {"spec": {"value": "wrong"}})
    tested = server.api("POST", "/api/v1/connections/api/test")["data"]
    assert tested["state"] == "failed" and tested["code"] == "account.refused"
    assert "does not accept its secret" in tested["reason"]


def clients_document(provider, key, **oauth2):
    """Documents of a client without a secret."""
    found = documents(provider, "client", **({"grant": "client_credentials", "scopes": ["read"]} | oauth2))
    for name in ("client_secret", "client_auth"):
        if name not in oauth2:
            del found[1]["spec"]["oauth2"][name]
    found[0] = {"kind": "secret", "name": "client", "spec": {"value": key}}
    return found


@pytest.mark.parametrize(("algorithm", "kind"), [("RS256", "rsa-pkcs8"), ("PS256", "rsa-pkcs1"), ("ES256", "p256-sec1"), ("EdDSA", "ed25519-pkcs8")])
def test_clients_prove_themselves_by_what_they_sign(start, beside, tmp_path, algorithm, kind):
    key = new_key(kind)
    client = {"client_id": "client", "auth": "private_key_jwt", "public": public_half(key), "algorithm": algorithm}
    provider = beside(Provider, tmp_path, "http://127.0.0.1:1/", more={"clients": [client]})
    server = start(args=["--egress-allow", f"127.0.0.1/32:{provider.port}"])
    assertion = {"algorithm": algorithm, "key": {"secret": "client"}, "key_id": "k-1"}
    proof = {"client_auth": "private_key_jwt", "client_assertion": assertion}
    server.apply(*clients_document(provider, key, **proof))
    assert {job["status"] for job in call_at_once(server, 3)} == {"succeeded"}
    # Each token is asked for with an assertion of its own: the provider takes none twice.
    time.sleep(LIFE + 0.2)
    assert {job["status"] for job in call_at_once(server, 3)} == {"succeeded"}
    assert provider.counts()["refused"] == []

    server.apply(*clients_document(provider, new_key(kind), scopes=["openid"], **proof))
    tested = server.api("POST", "/api/v1/connections/api/test")["data"]
    assert tested["code"] == "account.refused" and "invalid_client" in tested["reason"], tested
    assert "eyJ" not in server.log.read_text() + json.dumps(tested)


def test_clients_prove_themselves_by_their_certificate(start, beside, tmp_path):
    servers, clients = Authority(tmp_path, "Servers"), Authority(tmp_path, "Clients")
    (alice, alices), (bob, bobs) = clients.issue("/CN=alice"), clients.issue("/CN=bob")
    client = {"client_id": "client", "auth": "tls_client_auth", "subject": "CN=alice"}
    provider = beside(Provider, tmp_path, "http://127.0.0.1:1/", more={"clients": [client], "mtls": True})
    location = f"""
        proxy_set_header X-Client-Verify $ssl_client_verify;
        proxy_set_header X-Client-Subject $ssl_client_s_dn;
        proxy_set_header X-Client-Certificate $ssl_client_escaped_cert;
        proxy_set_header Host $http_host;
        proxy_pass {provider.url};
    """
    shown = servers.issue("/CN=localhost", use="server")
    nginx = beside(Nginx, tmp_path / "nginx", shown, clients, verify="optional", location=location)
    server = start(args=["--egress-allow", "127.0.0.1/32"])

    def apply(certificate, key):
        found = clients_document(
            provider,
            key,
            client_auth="tls",
            client_certificate={"certificate": certificate, "key": {"secret": "client"}},
            tls={"authorities": servers.pem},
            token_url=f"{nginx.url}/token",
        )
        found[2]["spec"] |= {"base_url": nginx.url, "tls": {"authorities": servers.pem}}
        server.apply(*found)

    apply(alice, alices)
    jobs = call_at_once(server, 3)
    assert {job["status"] for job in jobs} == {"succeeded"}
    # The token is bound to the certificate (RFC 8705, section 3), which the API saw too.
    answer = server.job(jobs[0]["id"])["steps"][0]["output"]["body"]
    assert answer["client"] == "client" and answer["bound"] is True, answer
    apply(bob, bobs)
    tested = server.api("POST", "/api/v1/connections/api/test")["data"]
    assert tested["code"] == "account.refused" and "invalid_client" in tested["reason"], tested
