"""Stripe's, Slack's and Standard Webhooks' own libraries sign, and the documents of the guide verify; and the other
way round: what `linkspan send` signs, these libraries accept."""

import base64
import json
import re
import secrets
import time
from datetime import datetime, timezone

import pytest
import standardwebhooks
import stripe
import yaml
from slack_sdk.signature import SignatureVerifier

from support import REPOSITORY, Caller

GUIDE = REPOSITORY / "docs" / "receive-webhooks.md"
BODY = json.dumps({"id": "evt_1", "object": "event", "text": "né 😀"}, ensure_ascii=False)


class Stripe:
    title, secret = "Stripe", "whsec_" + secrets.token_hex(16)

    def sign(self, body, at):
        signature = stripe.WebhookSignature._compute_signature(f"{at}.{body}", self.secret)
        return {"Stripe-Signature": f"t={at},v1={signature},v0=ignored"}

    def accepts(self, body, headers):
        stripe.WebhookSignature.verify_header(body, headers["stripe-signature"], self.secret, tolerance=300)


class Slack:
    title, secret = "Slack", secrets.token_hex(16)

    def sign(self, body, at):
        signature = SignatureVerifier(self.secret).generate_signature(timestamp=str(at), body=body)
        return {"X-Slack-Request-Timestamp": str(at), "X-Slack-Signature": signature}

    def accepts(self, body, headers):
        assert SignatureVerifier(self.secret).is_valid_request(body, headers)


class StandardWebhooks:
    title, secret = "Standard Webhooks", "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()

    def sign(self, body, at):
        moment = datetime.fromtimestamp(at, timezone.utc)
        signature = standardwebhooks.Webhook(self.secret).sign("msg_1", moment, body)
        # A sender that rotates its key sends several.
        return {
            "webhook-id": "msg_1",
            "webhook-timestamp": str(at),
            "webhook-signature": f"v1,{base64.b64encode(bytes(32)).decode()} {signature}",
        }

    def accepts(self, body, headers):
        standardwebhooks.Webhook(self.secret).verify(body, headers)


def verify_of(title):
    """What the guide says under this title."""
    found = re.search(rf"^\*\*{title}\*\*[^\n]*\n+```yaml\n(.*?)```", GUIDE.read_text(), re.S | re.M)
    assert found, f"the guide has no document for {title}"
    return yaml.safe_load(found[1])["verify"]


@pytest.mark.parametrize("sender", [Stripe(), Slack(), StandardWebhooks()], ids=lambda sender: sender.title)
def test_signed_by_the_senders_own_library(start, sender):
    server = start()
    verify = verify_of(sender.title)
    name = verify["hmac"]["secrets"][0]["secret"]
    server.apply(
        {"kind": "secret", "name": name, "spec": {"value": sender.secret}},
        {"kind": "endpoint", "name": "in", "spec": {"format": "json", "verify": verify}},
    )
    caller = Caller(server.endpoint_url("in"))

    def post(body, headers):
        status, _, answer = caller.call("POST", "", body.encode(), {"Content-Type": "application/json", **headers})
        return status, json.loads(answer)

    now = int(time.time())
    status, answer = post(BODY, sender.sign(BODY, now))
    assert status == 202, (answer, server.get("/api/v1/refusals")["data"])
    event = server.get(f"/api/v1/events/{answer['data']['id']}")["data"]
    assert (event["body"], event["verified"]) == (BODY, {"by": "hmac", "ok": True})

    # Another body, a time outside the tolerance on either side, another time than was signed, no headers at all.
    assert post(BODY + " ", sender.sign(BODY, now))[0] == 401
    assert post(BODY, sender.sign(BODY, now - 400))[0] == 401
    assert post(BODY, sender.sign(BODY, now + 400))[0] == 401
    moved = {name: value.replace(str(now), str(now + 1)) for name, value in sender.sign(BODY, now).items()}
    assert post(BODY, moved)[0] == 401
    assert post(BODY, {})[0] == 401
    # What the caller is told is the same for all of these.
    answers = [post(BODY, headers)[1] for headers in (moved, {}, sender.sign(BODY, now - 400))]
    assert answers[0] == answers[1] == answers[2]
    assert sum(1 for _ in server.events("in")) == 1

    # What we sign ourselves, the library accepts.
    sent = server.cli("send", "in", "--body", BODY)["data"]["id"]
    event = server.get(f"/api/v1/events/{sent}")["data"]
    sender.accepts(event["body"], dict(event["headers"]))
