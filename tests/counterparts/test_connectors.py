"""Connectors that come with the product, against traffic of GitHub that others recorded and a server that answers in
Stripe's forms."""

import json

import pytest

from support import Caller, Program, answers, free_port, node_modules

# What the recordings were made with: they are found only by the same headers. Those of an account replace others.
RECORDED_WITH = {
    "Authorization": "token 0000000000000000000000000000000000000001",
    "Accept": "application/vnd.github.v3+json",
    "Content-Type": "application/json; charset=utf-8",
}


class Node(Program):
    """A server of a Node package, which says nothing when it is up but answers."""

    def __init__(self, folder, script, *args, **env):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = ["node", node_modules() / script, *(arg.format(port=self.port, url=self.url) for arg in args)]
        self.begin(command, folder / f"{self.port}.log", folder=folder, HOME=str(folder), PORT=str(self.port), **env)

    def is_up(self):
        return answers(self.url) > 0


def call(server, action, **given):
    """What an action gives: the body of the answer, of a list its items."""
    ran = server.run("call", action, "--file", "-", input=json.dumps({"input": given}))
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def one(server, action, **given):
    return json.loads(call(server, action, **given))


def items(server, action, **given):
    return [json.loads(line) for line in call(server, action, **given).splitlines()]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Octokit's recordings of GitHub, played back."""
    node = Node(
        tmp_path_factory.mktemp("github"),
        "@octokit/fixtures-server/bin/server.js",
        "--port={port}",
        "--fixtures-url={url}",
    )
    yield node
    node.stop()


@pytest.fixture
def github(start, recordings):
    """Gives a server with a connection to the recording of one scenario."""
    server = start(args=["--egress-allow", f"127.0.0.1/32:{recordings.port}"])

    def github(scenario, paginate=None):
        caller = Caller(recordings.url)
        body = json.dumps({"scenario": scenario})
        status, _, answer = caller.call("POST", "/fixtures", body, {"Content-Type": "application/json"})
        assert status < 300, answer
        caller.close()
        server.apply(
            {"kind": "account", "name": "recorded", "spec": {"headers": RECORDED_WITH}},
            {
                "kind": "connector",
                "name": "recorded",
                "spec": {
                    "extends": "github",
                    "accounts": [{"kind": "headers"}],
                    "paginate": paginate or {"link": "next"},
                },
            },
            {
                "kind": "connection",
                "name": "github",
                "spec": {
                    "connector": "recorded",
                    "settings": {"base_url": json.loads(answer)["url"]},
                    "account": "recorded",
                },
            },
        )
        return server

    return github


def test_an_issue_gets_labels(github):
    server = github("add-labels-to-issue")
    there = {"owner": "octokit-fixture-org", "repo": "add-labels-to-issue"}
    issue = one(server, "github.create_issue", **there, title="Issue without a label")
    labels = one(server, "github.add_labels", **there, number=issue["number"], labels=["Foo", "bAr", "baZ"])
    assert [label["name"] for label in labels] == ["Foo", "bAr", "baZ"]


def test_a_file_is_written(github):
    server = github("create-file")
    there = {"owner": "octokit-fixture-org", "repo": "create-file"}
    written = one(server, "github.put_file", **there, path="test.txt", message="create test.txt", content="Test content")
    assert (written["content"]["path"], written["content"]["size"]) == ("test.txt", 12)


def test_commits_get_statuses(github):
    server = github("create-status")
    there = {"owner": "octokit-fixture-org", "repo": "create-status", "sha": "0000000000000000000000000000000000000001"}
    for number, state in enumerate(("failure", "success"), 1):
        status = {"target_url": "https://example.com", "description": f"create-status {state} test"}
        given = one(server, "github.create_commit_status", **there, **status, state=state, context=f"example/{number}")
        assert given["state"] == state


def test_github_leads_through_a_list_by_its_own_links(github):
    server = github("paginate-issues", {"link": "next", "size": {"send": {"query": "per_page"}, "value": 3}})
    issues = items(server, "github.list_issues", owner="octokit-fixture-org", repo="paginate-issues")
    assert [issue["number"] for issue in issues] == list(range(13, 0, -1))


def test_issues_are_found(github):
    server = github("search-issues")
    issues = items(server, "github.search_issues", query="sesame repo:octokit-fixture-org/search-issues")
    assert sorted(issue["number"] for issue in issues) == [1, 2]


@pytest.fixture
def stripe(start, beside, tmp_path):
    """A server with a connection to a server that answers as Stripe does."""
    node = beside(Node, tmp_path, "stripe-stateful-mock/dist/cli.js", LOG_LEVEL="warn")
    server = start(args=["--egress-allow", f"127.0.0.1/32:{node.port}"])
    server.apply(
        {"kind": "secret", "name": "stripe-key", "spec": {"value": "sk_test_only_here"}},
        {"kind": "account", "name": "stripe", "spec": {"bearer": {"token": {"secret": "stripe-key"}}}},
        {
            "kind": "connection",
            "name": "stripe",
            "spec": {"connector": "stripe", "base_url": node.url, "account": "stripe"},
        },
    )
    return server


def test_fields_within_fields_reach_stripe(stripe):
    metadata = {"order": "7", "note": "a & b = ü"}
    customer = one(stripe, "stripe.create_customer", email="jane@example.com", metadata=metadata)
    assert customer["metadata"] == metadata
    product = one(stripe, "stripe.create_product", name="Gold")
    price = one(
        stripe, "stripe.create_price", product=product["id"], currency="eur", unit_amount=1990, interval="month"
    )
    assert (price["type"], price["recurring"]["interval"], price["unit_amount"]) == ("recurring", "month", 1990)


def test_a_list_goes_on_behind_the_last_customer(stripe):
    # More than one page of a hundred.
    made = [one(stripe, "stripe.create_customer", email=f"{n}@example.com")["id"] for n in range(103)]
    read = [customer["id"] for customer in items(stripe, "stripe.list_customers")]
    assert sorted(read) == sorted(made)


def test_what_stripe_refuses_is_said(stripe):
    ran = stripe.run("call", "stripe.get_customer", "--set", "customer=cus_nothing")
    assert ran.returncode != 0
    assert "No such customer: cus_nothing" in ran.stderr
