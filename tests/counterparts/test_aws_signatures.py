"""Signatures of AWS's own kind, checked by AWS's own signer: botocore signs what came again and must agree."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

KEY_ID, KEY, TOKEN = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "session/token+of=tests"
REGION = "eu-central-1"


def signed_again(service, method, url, headers, body):
    """The Authorization header that botocore gives for what came over the wire."""
    authorization = headers["Authorization"]
    names = authorization.split("SignedHeaders=")[1].split(",")[0].split(";")
    request = AWSRequest(method=method, url=url, data=body, headers={name: headers[name] for name in names})
    request.context["timestamp"] = headers["X-Amz-Date"]
    signer = (S3SigV4Auth if service == "s3" else SigV4Auth)(Credentials(KEY_ID, KEY), service, REGION)
    canonical = signer.canonical_request(request)
    signature = signer.signature(signer.string_to_sign(request, canonical), request)
    scope = f"{headers['X-Amz-Date'][:8]}/{REGION}/{service}/aws4_request"
    return f"AWS4-HMAC-SHA256 Credential={KEY_ID}/{scope}, SignedHeaders={';'.join(names)}, Signature={signature}", names


@pytest.fixture
def aws():
    """A server that keeps what it was sent."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            seen.append((self.command, self.path, self.headers, body))
            # What it echoes must not be readable in what is shown.
            echo = f"{self.headers.get('X-Amz-Security-Token')} {KEY}".encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Length", str(len(echo)))
            self.end_headers()
            self.wfile.write(echo)

        do_GET = do_POST = do_PUT = do_DELETE = answer

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.seen = seen
    yield server
    server.shutdown()
    server.server_close()


CALLS = [
    {"method": "GET", "path": "/"},
    {"method": "GET", "path": "/a b/ü/~x", "query": {"b": "2", "a": "1 +/ä", "A": "", "a-b": "*"}},
    {"method": "POST", "path": "/queue/", "json": {"Message": "hällo"}, "headers": {"X-Amz-Target": "Sqs.Send  It"}},
    {"method": "PUT", "path": "/key//with%20space/x", "text": "content"},
    {"method": "DELETE", "path": "/arn%3Aaws%3Alambda%3Afn/versions"},
]


@pytest.mark.parametrize("service", ["sqs", "execute-api", "s3"])
def test_aws_signs_as_we_do(start, aws, service):
    port = aws.server_address[1]
    server = start(
        args=["--egress-allow", f"127.0.0.1:{port}"],
        env={"LINKSPAN_SECRET_AWS": KEY, "LINKSPAN_SECRET_SESSION": TOKEN},
    )
    account = {"access_key_id": KEY_ID, "secret_access_key": {"secret": "aws"}, "region": REGION, "service": service}
    server.apply(
        {"kind": "secret", "name": "aws", "spec": {"env": "LINKSPAN_SECRET_AWS"}},
        {"kind": "secret", "name": "session", "spec": {"env": "LINKSPAN_SECRET_SESSION"}},
        {"kind": "account", "name": "lasting", "spec": {"aws_sigv4": account}},
        {"kind": "account", "name": "passing", "spec": {"aws_sigv4": account | {"session_token": {"secret": "session"}}}},
        *(
            {
                "kind": "connection",
                "name": name,
                "spec": {"base_url": f"http://127.0.0.1:{port}", "account": name},
            }
            for name in ("lasting", "passing")
        ),
    )
    for connection in ("lasting", "passing"):
        for call in CALLS:
            answer = server.api("POST", f"/api/v1/connections/{connection}/call", {"request": call})
            method, target, headers, body = aws.seen[-1]
            expected, names = signed_again(service, method, f"http://127.0.0.1:{port}{target}", headers, body)
            assert headers["Authorization"] == expected, (call, target)
            assert ("x-amz-security-token" in names) == (connection == "passing")
            assert ("x-amz-content-sha256" in names) == (service == "s3")
            assert ("content-type" in names) == ("json" in call or "text" in call)
            shown = str(answer)
            assert KEY not in shown and TOKEN not in shown and headers["Authorization"][-64:] not in shown
