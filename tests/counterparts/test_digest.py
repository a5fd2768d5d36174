"""HTTP Digest against httpbin, which checks the answers and makes each nonce old after some requests."""

import json

import pytest

PASSWORD = "canary-digest-pass"


@pytest.fixture
def bin_(start, httpbin):
    server = start(args=["--egress-allow", f"127.0.0.1/32:{httpbin.port}"])
    server.apply(
        {"kind": "secret", "name": "password", "spec": {"value": PASSWORD}},
        {"kind": "secret", "name": "other", "spec": {"value": "canary-another-pass"}},
        *(
            {"kind": "account", "name": name, "spec": {"digest": {"user": "alice", "password": {"secret": secret}}}}
            for name, secret in [("alice", "password"), ("wrong", "other")]
        ),
        *(
            {"kind": "connection", "name": name, "spec": {"base_url": httpbin.url, "account": name}}
            for name in ("alice", "wrong")
        ),
    )
    return server


def call(server, connection, path, method="GET", **request):
    status, _, answer = server.request(
        "POST", f"/api/v1/connections/{connection}/call", {"request": {"method": method, "path": path, **request}}
    )
    return status, json.loads(answer)


@pytest.mark.parametrize("algorithm", ["MD5", "SHA-256", "SHA-512"])
@pytest.mark.parametrize("qop", ["auth", "auth-int"])
def test_challenges_are_answered(bin_, qop, algorithm):
    path = f"/digest-auth/{qop}/alice/{PASSWORD}/{algorithm}"
    status, answer = call(bin_, "alice", path)
    # What httpbin calls SHA-512 is not of RFC 7616, and no client should guess what is meant.
    known = algorithm != "SHA-512"
    assert status == (200 if known else 502), answer
    if known:
        assert answer["data"] == {"authenticated": True, "user": "alice"}
    else:
        assert answer["call"]["status"] == 401
    assert PASSWORD not in json.dumps(answer["call"].get("request", {}).get("headers"))


def test_later_requests_answer_ahead_of_being_asked(bin_, httpbin):
    path = f"/digest-auth/auth/alice/{PASSWORD}/SHA-256/never"
    assert [call(bin_, "alice", path)[0] for _ in range(3)] == [200, 200, 200]
    assert len(httpbin.requests("/SHA-256/never", 4)) == 4
    # After one use the nonce is old, which the server says in another challenge.
    assert [call(bin_, "alice", path.replace("never", "1"))[0] for _ in range(3)] == [200, 200, 200]


def test_wrong_password_is_asked_once_more_and_not_again(bin_, httpbin):
    status, answer = call(bin_, "wrong", f"/digest-auth/auth/alice/{PASSWORD}/MD5/never")
    assert status == 502, answer
    assert len(httpbin.requests("/MD5/never", 2)) == 2
    assert (answer["call"]["status"], len(answer["call"]["attempts"])) == (401, 1)
    assert "canary-another-pass" not in json.dumps(answer)
