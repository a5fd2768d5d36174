"""TLS of connections against nginx, with authorities and certificates that openssl made."""

import itertools
import json

import pytest

from certificates import Authority, Nginx, StrictServer, new_key


@pytest.fixture
def world(start, beside, tmp_path):
    """A server, an authority for servers and one for clients, and what starts servers with certificates."""
    servers, clients = Authority(tmp_path, "Servers"), Authority(tmp_path, "Clients")
    numbers = itertools.count()

    class World:
        def nginx(self, server=None, **options):
            folder = tmp_path / f"nginx-{next(numbers)}"
            server = server or servers.issue("/CN=localhost", use="server")
            return beside(Nginx, folder, server, clients, **options)

        def strict(self, versions):
            server = servers.issue("/CN=localhost", use="server")
            return beside(StrictServer, tmp_path / "strict", server, clients, versions)

    world = World()
    world.servers, world.clients, world.folder = servers, clients, tmp_path
    world.server = start(args=["--egress-allow", "127.0.0.1/32"])
    return world


def secret(name, value):
    return {"kind": "secret", "name": name, "spec": {"value": value}}


def account(name, certificate, key="key", **spec):
    shown = {"certificate": certificate, "key": {"secret": key}}
    return {"kind": "account", "name": name, "spec": spec or {"client_certificate": shown}}


def connection(name, nginx, authority, account=None, **more):
    spec = {"base_url": nginx.url, "test": {"path": "/me"}, "tls": {"authorities": authority.pem}, **more}
    if account:
        spec["account"] = account
    return {"kind": "connection", "name": name, "spec": spec}


def call(server, connection, path="/"):
    """Status of the call, and its answer."""
    asked = {"request": {"method": "GET", "path": path, "response": "text"}}
    status, _, answer = server.request("POST", f"/api/v1/connections/{connection}/call", asked)
    return status, json.loads(answer)


def result_of_test(server, connection):
    return server.api("POST", f"/api/v1/connections/{connection}/test")["data"]


@pytest.mark.parametrize("kind", ["rsa-pkcs8", "rsa-pkcs1", "p256-sec1", "p384-pkcs8"])
@pytest.mark.parametrize("protocol", ["TLSv1.2", "TLSv1.3"])
def test_the_right_certificate(world, kind, protocol):
    nginx = world.nginx(protocols=protocol)
    certificate, key = world.clients.issue("/O=Example/CN=robot", key=new_key(kind))
    world.server.apply(
        secret("key", key), account("robot", certificate), connection("api", nginx, world.servers, "robot")
    )
    status, answer = call(world.server, "api")
    assert status == 200, answer
    assert answer["data"].split(" ", 1)[1] == f"{protocol} SUCCESS O=Example,CN=robot"
    assert result_of_test(world.server, "api")["state"] == "connected"
    line = key.splitlines()[2]
    shown = json.dumps(answer) + world.server.log.read_text() + json.dumps(world.server.cli("export"))
    assert line not in shown and line not in json.dumps(world.server.cli("check"))


def test_a_certificate_beside_other_credentials(world):
    nginx = world.nginx(location='default_type text/plain; return 200 "$ssl_client_s_dn $http_x_key";')
    certificate, key = world.clients.issue("/CN=robot")
    shown = {"certificate": certificate, "key": {"secret": "key"}}
    custom = {"headers": {"X-Key": {"secret": "word"}}, "client_certificate": shown}
    world.server.apply(
        secret("key", key),
        secret("word", "canary-header-key"),
        account("robot", certificate, custom=custom),
        connection("api", nginx, world.servers, "robot"),
    )
    # What repeats the header's secret is masked.
    assert call(world.server, "api")[1]["data"] == "CN=robot ••••••"


def test_without_one_and_with_a_strangers(world):
    nginx = world.nginx()
    strangers = Authority(world.folder, "Strangers")
    (stranger, strangers_key), (old, old_key) = strangers.issue("/CN=mallory"), world.clients.issue("/CN=old", years=(2020, 2021))
    world.server.apply(
        secret("key", strangers_key),
        secret("old", old_key),
        account("mallory", stranger),
        account("late", old, "old"),
        connection("none", nginx, world.servers),
        connection("mallory", nginx, world.servers, "mallory"),
        connection("late", nginx, world.servers, "late"),
    )
    # nginx lets the handshake end and answers over it; what it says is shown.
    for name, words in [
        ("none", "No required SSL certificate was sent"),
        ("mallory", "The SSL certificate error"),
        ("late", "The SSL certificate error"),
    ]:
        result = result_of_test(world.server, name)
        assert (result["state"], result["http_status"]) == ("failed", 400), result
        assert words in result["answer"], result
    warnings = world.server.get("/api/v1/accounts/late")["data"]["status"]["warnings"]
    assert "client_certificate: the certificate of CN=old has expired, at 2021-01-01T00:00:00Z" in warnings
    assert "has expired, at 2021-01-01T00:00:00Z" in json.dumps(world.server.cli("check"))


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_handshakes_that_a_server_ends(world, version):
    strict = world.strict(f"ssl-min-ver {version} ssl-max-ver {version}")
    strangers = Authority(world.folder, "Strangers")
    shown = {
        "robot": world.clients.issue("/CN=robot"),
        "mallory": strangers.issue("/CN=mallory"),
        "late": world.clients.issue("/CN=late", years=(2020, 2021)),
    }
    for name, (certificate, key) in shown.items():
        world.server.apply(
            secret(name, key),
            account(name, certificate, name),
            connection(name, strict, world.servers, name),
        )
    world.server.apply(connection("none", strict, world.servers))
    assert call(world.server, "robot")[1]["data"] == "robot"
    for name, words in [
        ("none", "client certificate"),
        ("mallory", "the server does not know the authority of our client certificate"),
        ("late", "our client certificate has expired, says the server"),
    ]:
        # Whether the server's word or its end comes first is chance.
        for _ in range(20):
            result = result_of_test(world.server, name)
            assert (result["state"], result["code"]) == ("failed", "outbound.tls"), result
            assert words in result["reason"] and result["reason"].endswith("nothing was sent"), result


def test_servers_that_are_not_trusted(world):
    strangers = Authority(world.folder, "Strangers")
    (certificate, key) = world.clients.issue("/CN=robot")
    unknown = world.nginx(strangers.issue("/CN=localhost", use="server"))
    expired = world.nginx(world.servers.issue("/CN=localhost", use="server", years=(2020, 2021)))
    elsewhere = world.nginx(world.servers.issue("/CN=other", use="server", names="DNS:other.test"))
    world.server.apply(
        secret("key", key),
        account("robot", certificate),
        connection("unknown", unknown, world.servers, "robot"),
        connection("expired", expired, world.servers, "robot"),
        connection("elsewhere", elsewhere, world.servers, "robot"),
    )
    for name, words in [
        ("unknown", "it is of no authority that is trusted here"),
        ("expired", "it has expired, at 2021-01-01"),
        ("elsewhere", "it is for another name"),
    ]:
        result = result_of_test(world.server, name)
        assert (result["state"], result["code"]) == ("failed", "outbound.tls"), result
        assert words in result["reason"] and "nothing was sent" in result["reason"], result
    named = {"authorities": world.servers.pem, "server_name": "other.test"}
    world.server.apply(connection("elsewhere", elsewhere, world.servers, "robot", tls=named))
    assert result_of_test(world.server, "elsewhere")["state"] == "connected"
    both = {"authorities": world.servers.pem + strangers.pem, "only_these": True, "min_version": "1.3"}
    world.server.apply(connection("unknown", unknown, world.servers, "robot", tls=both))
    assert result_of_test(world.server, "unknown")["state"] == "connected"


@pytest.mark.parametrize("http2", ["", "http2"])
def test_two_identities_never_share_a_connection(world, http2):
    nginx = world.nginx(http2=http2)
    (alice, alices), (bob, bobs) = world.clients.issue("/CN=alice"), world.clients.issue("/CN=bob")
    world.server.apply(
        secret("alice", alices),
        secret("bob", bobs),
        account("alice", alice, "alice"),
        account("bob", bob, "bob"),
        connection("alice", nginx, world.servers, "alice"),
        connection("bob", nginx, world.servers, "bob"),
    )
    seen = {"alice": set(), "bob": set()}
    for name in ["alice", "bob"] * 5:
        number, _, _, subject = call(world.server, name)[1]["data"].split(" ")
        assert subject == f"CN={name}"
        seen[name].add(number)
    assert len(seen["alice"]) == len(seen["bob"]) == 1 and seen["alice"] != seen["bob"]

    # A change of something else keeps the connections, a new certificate takes another one.
    world.server.apply(secret("other", "x"))
    assert {call(world.server, name)[1]["data"].split(" ")[0] for name in seen} == seen["alice"] | seen["bob"]
    carol, carols = world.clients.issue("/CN=carol")
    world.server.apply(secret("alice", carols), account("alice", carol, "alice"))
    number, _, _, subject = call(world.server, "alice")[1]["data"].split(" ")
    assert subject == "CN=carol" and number not in seen["alice"] | seen["bob"]
