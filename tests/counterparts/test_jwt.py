"""Tokens that are signed here, verified by jose: as bearer tokens, and as assertions for tokens."""

import json
import time
from pathlib import Path

import pytest

from certificates import new_key, public_half
from support import Program, free_port, node_modules

KEYS = {
    **{algorithm: "rsa-pkcs8" for algorithm in ("RS256", "RS384", "PS256", "PS384", "PS512")},
    "RS512": "rsa-pkcs1",
    "ES256": "p256-sec1",
    "ES384": "p384-pkcs8",
    "ES512": "p521-sec1",
    "EdDSA": "ed25519-pkcs8",
    **{algorithm: "canary-shared-secret-of-more-than-sixty-four-bytes-as-the-standard-asks" for algorithm in ("HS256", "HS384", "HS512")},
}


class Checker(Program):
    """jose, which checks tokens by the keys in `keys.json`."""

    def __init__(self, folder):
        self.port = free_port()
        script = Path(__file__).with_name("jwt_checker.mjs")
        self.begin(["node", script, node_modules(), self.port, folder / "keys.json"], folder / "checker.log")

    def is_up(self):
        return "listening" in self.log.read_text()


@pytest.fixture(scope="module")
def checker(tmp_path_factory):
    """A server that checks tokens, and the key of each algorithm by the id `key-ALGORITHM`."""
    folder = tmp_path_factory.mktemp("jwt")
    made = {kind: new_key(kind) for kind in set(KEYS.values()) if not kind.startswith("canary")}
    private = {algorithm: made.get(kind, kind) for algorithm, kind in KEYS.items()}
    known = {
        f"key-{algorithm}": {"algorithm": algorithm}
        | ({"secret": key} if algorithm.startswith("HS") else {"public": public_half(key)})
        for algorithm, key in private.items()
    }
    (folder / "keys.json").write_text(json.dumps(known))
    checker = Checker(folder)
    yield checker.port, private
    checker.stop()


def documents(port, key, account):
    return [
        {"kind": "secret", "name": "key", "spec": {"value": key}},
        {"kind": "account", "name": "robot", "spec": account},
        {"kind": "connection", "name": "api", "spec": {"base_url": f"http://127.0.0.1:{port}", "account": "robot"}},
    ]


def call(server):
    asked = {"request": {"method": "GET", "path": "/api", "response": "json"}}
    status, _, answer = server.request("POST", "/api/v1/connections/api/call", asked)
    return status, json.loads(answer)


def hides(server, key, *answers):
    """Neither key nor token stands in what is shown."""
    line = key.splitlines()[min(2, len(key.splitlines()) - 1)]
    shown = server.log.read_text() + json.dumps([server.cli("export"), server.cli("check"), *answers])
    assert line not in shown and "eyJ" not in shown


@pytest.mark.parametrize("algorithm", KEYS)
def test_bearer_tokens(start, checker, algorithm):
    port, keys = checker
    server = start(args=["--egress-allow", f"127.0.0.1/32:{port}"])
    jwt = {
        "algorithm": algorithm,
        "key": {"secret": "key"},
        "key_id": f"key-{algorithm}",
        "issuer": "app-7",
        "subject": "robot",
        "audience": "https://api.test",
        "lifetime": "2m",
        "claims": {"scope": ["GET /v1/apps"], "bid": "com.example"},
        "header": {"typ": "at+jwt"},
    }
    server.apply(*documents(port, keys[algorithm], {"jwt": jwt}))
    status, answer = call(server)
    assert status == 200, answer
    said, header = answer["data"]["payload"], answer["data"]["protectedHeader"]
    assert header == {"typ": "at+jwt", "alg": algorithm, "kid": f"key-{algorithm}"}
    now = time.time()
    assert now - 60 < said["iat"] <= now and said["exp"] - said["iat"] == 120
    assert (said["iss"], said["sub"], said["scope"], said["bid"]) == ("app-7", "robot", ["GET /v1/apps"], "com.example")
    # One token serves several requests.
    assert call(server)[1]["data"]["payload"]["jti"] == said["jti"]
    hides(server, keys[algorithm], answer["call"])


def test_tokens_are_signed_anew_in_time(start, checker):
    port, keys = checker
    server = start(args=["--egress-allow", f"127.0.0.1/32:{port}"])
    jwt = {"algorithm": "ES256", "key": {"secret": "key"}, "key_id": "key-ES256", "issuer": "a", "audience": "https://api.test"}
    server.apply(*documents(port, keys["ES256"], {"jwt": {**jwt, "lifetime": "1m"}}))
    first = call(server)[1]["data"]["payload"]
    # Half of what is left of a minute when the token says that it was made half a minute ago.
    time.sleep(15.5)
    second = call(server)[1]["data"]["payload"]
    assert second["jti"] != first["jti"] and second["iat"] >= first["iat"] + 15


def test_a_key_that_does_not_fit(start, checker):
    port, keys = checker
    server = start(args=["--egress-allow", f"127.0.0.1/32:{port}"])
    jwt = {"algorithm": "ES384", "key": {"secret": "key"}, "issuer": "a"}
    done = server.request("POST", "/api/v1/apply", {"documents": documents(port, keys["ES256"], {"jwt": jwt})})
    fault = json.loads(done[2])["error"]["faults"][0]
    assert done[0] == 422 and fault["path"] == "spec.jwt.key", fault
    assert "ES384 is signed with a key of EC P-384, and this one is EC P-256" in fault["reason"]
    # A secret that changes later is told when it is used.
    server.apply(*documents(port, keys["ES384"], {"jwt": jwt}))
    server.api("PATCH", "/api/v1/secrets/key", {"spec": {"value": keys["ES256"]}})
    status, answer = call(server)
    assert (status, answer["error"]["code"]) == (503, "account.not_ready"), answer
    assert "EC P-256" in json.dumps(server.cli("check"))


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA", "HS512"])
def test_assertions_for_tokens(start, checker, algorithm):
    port, keys = checker
    server = start(args=["--egress-allow", f"127.0.0.1/32:{port}"])
    oauth2 = {
        "grant": "jwt_bearer",
        "token_url": f"http://127.0.0.1:{port}/token",
        "scopes": ["read"],
        "assertion": {
            "algorithm": algorithm,
            "key": {"secret": "key"},
            "key_id": f"key-{algorithm}",
            "issuer": "robot@project.test",
            "subject": "joe@example.com",
            "claims": {"scope": "https://www.test/auth/read"},
        },
    }
    server.apply(*documents(port, keys[algorithm], {"oauth2": oauth2}))
    status, answer = call(server)
    assert status == 200, answer
    said = answer["data"]
    assert (said["payload"]["iss"], said["payload"]["sub"]) == ("robot@project.test", "joe@example.com")
    assert said["payload"]["scope"] == "https://www.test/auth/read"
    assert (said["scope"], said["client_id"]) == ("read", None)
    status = server.get("/api/v1/accounts/robot")["data"]["status"]
    assert status["state"] == "connected", status
    hides(server, keys[algorithm], answer["call"], status)

    # Another key: the provider says no, in its own words, and the assertion is not among them.
    other = new_key(KEYS[algorithm]) if algorithm != "HS512" else "canary-another-secret-of-some-length"
    server.apply(*documents(port, other, {"oauth2": {**oauth2, "scopes": ["write"]}}))
    status, answer = call(server)
    assert answer["error"]["code"] == "account.refused" and "signature verification failed" in json.dumps(answer), answer
    hides(server, other, answer)
