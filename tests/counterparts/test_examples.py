"""The examples, run as their READMEs say: their own documents and payloads, against stand-ins that answer with what
Eventbrite, Jira and Slack publish as samples. Only addresses are changed."""

import json
import re
import shutil
import subprocess
from urllib.parse import urlsplit

import pytest

from support import REPOSITORY, Caller, binary, clean_environment, eventually, free_port, sample


class Example:
    """An example in a folder of its own, with other addresses in its files, and the server that its README starts."""

    def __init__(self, name, folder, addresses, start, **serve):
        self.name = name
        self.folder = folder
        self.readme = (REPOSITORY / "examples" / name / "README.md").read_text()
        here = folder / "examples" / name
        shutil.copytree(REPOSITORY / "examples" / name, here)
        changed = set()
        for path in [*here.glob("*.yaml"), *here.glob("*.json")]:
            text = path.read_text()
            for old, new in addresses.items():
                changed |= {old} if old in text else set()
                text = text.replace(old, new)
            path.write_text(text)
        assert changed == addresses.keys(), "an address stands nowhere in the example"
        self.payload = json.loads((here / "payload.json").read_text())
        self.server = start(apply=here, **serve)
        (folder / "bin").mkdir()
        (folder / "bin" / "linkspan").symlink_to(binary())

    def commands(self):
        """What the README has people type in a second terminal."""
        blocks = re.findall(r"^( *)```sh\n(.*?)^ *```", self.readme, flags=re.S | re.M)
        lines = "".join(block for _, block in blocks).replace("\\\n", " ").splitlines()
        commands = [re.sub(r"\s+", " ", line.strip()) for line in lines]
        return [command for command in commands if " serve " not in command]

    def sh(self, command):
        """What a command prints; it must succeed."""
        environment = clean_environment(LINKSPAN_URL=self.server.operator, LINKSPAN_DATA=str(self.server.data))
        environment["PATH"] = f"{self.folder / 'bin'}:{environment['PATH']}"
        done = subprocess.run(
            ["bash", "-eu", "-c", command],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def follow(self):
        """Types what the README says, in its order; gives what was printed by command. The first event's job ends
        before anybody looks for it, and `ID` is its id."""
        printed, job = {}, "ID"
        for command in self.commands():
            printed[command] = self.sh(command.replace(" ID", f" {job}"))
            if command.startswith("linkspan send "):
                job = self.job_of(printed[command].strip())["id"]
        return printed

    def job_of(self, event):
        """The only job that an event started, when it has ended."""

        def ended():
            jobs = self.server.jobs(event=event)
            assert len(jobs) <= 1, jobs
            return jobs and jobs[0]["status"] in ("succeeded", "failed", "canceled") and jobs[0]

        return self.server.job(eventually(ended)["id"])


def assert_sent(request, method, target, headers, body=None):
    """A request of a step, as the stand-in got it: the whole target, every header, the body as JSON."""
    sent_method, sent_target, sent_headers, sent_body = request
    assert (sent_method, sent_target) == (method, target)
    assert (json.loads(sent_body) if sent_body else None) == body
    if body is not None:
        headers = headers | {"content-length": str(len(sent_body))}
    assert re.fullmatch(r"linkspan/\d+\.\d+\.\d+", sent_headers["user-agent"])
    assert re.fullmatch(r"1\.[0-9a-f]{32}", sent_headers["linkspan-hops"])
    own = {"accept-encoding": "gzip, br, zstd"} | {name: sent_headers[name] for name in ("user-agent", "linkspan-hops")}
    assert sent_headers == headers | own


def assert_shown(step, request, status, answer):
    """The job shows what the stand-in got, but for the credentials, and what it answered."""
    method, target, headers, body = request
    shown = dict(step["input"]["headers"])
    assert "•" in shown["authorization"]
    assert shown == headers | {"authorization": shown["authorization"]}
    assert (step["input"]["method"], step["input"]["url"]) == (method, f"http://{headers['host']}{target}")
    assert step["input"].get("body", {"text": ""})["text"] == body.decode()
    assert (step["output"]["status"], step["output"]["body"]) == (status, json.loads(answer))


# Jira.

JIRA = {
    ("GET", "/rest/api/2/myself"): (200, sample("jira/myself.json")),
    ("GET", "/rest/api/2/project/search"): (200, sample("jira/projects.json")),
    # Behind the two of the sample, the end.
    ("GET", "/rest/api/2/project/search?startAt=2&maxResults=100"): (200, b'{"values": [], "isLast": true}'),
    ("GET", "/rest/api/2/user/search"): (200, sample("jira/users.json")),
    ("GET", "/rest/api/2/user/search?query=mia&startAt=2&maxResults=100"): (200, b"[]"),
    ("POST", "/rest/api/2/project"): (201, sample("jira/created-project.json")),
}
# `robot@example.com` and the token below.
JIRA_ROBOT = "Basic cm9ib3RAZXhhbXBsZS5jb206amlyYS10b2tlbi1vZi10aGUtdGVzdA=="
PROJECTS_KEY = "projects-key-of-the-test"


class Jira(Example):
    def __init__(self, api, folder, start):
        super().__init__(
            "jira-new-project",
            folder,
            {"https://your-domain.atlassian.net": api.url},
            start,
            args=["--egress-allow", f"127.0.0.1/32:{api.port}"],
            env={"LINKSPAN_SECRET_JIRA": "jira-token-of-the-test", "LINKSPAN_SECRET_PROJECTS": PROJECTS_KEY},
        )
        self.api = api

    def assert_made(self, job):
        """The job found the lead and created the project, by two requests."""
        assert (job["status"], [step["id"] for step in job["steps"]]) == ("succeeded", ["find_lead", "create"])
        found, created = self.api.take()
        headers = {"host": self.api.host, "accept": "application/json", "authorization": JIRA_ROBOT}
        assert_sent(found, "GET", "/rest/api/2/user/search?query=mia&startAt=0&maxResults=100", headers)
        project = {
            "key": "EX",
            "name": "Example",
            "projectTypeKey": "business",
            "projectTemplateKey": "com.atlassian.jira-core-project-templates:jira-core-project-management",
            "description": "Example Project description",
            # Of the first person in what the first step got.
            "leadAccountId": "5b10a2844c20165700ede21g",
            "assigneeType": "PROJECT_LEAD",
        }
        headers |= {"content-type": "application/json", "idempotency-key": f"{job['id']}-create"}
        assert_sent(created, "POST", "/rest/api/2/project", headers, project)
        assert_shown(job["steps"][0], found, 200, sample("jira/users.json"))
        assert_shown(job["steps"][1], created, 201, sample("jira/created-project.json"))


@pytest.fixture
def jira(start, stand_in, tmp_path):
    return Jira(stand_in(JIRA), tmp_path / "jira", start)


def test_a_project_is_created_in_jira(jira):
    event = jira.sh("linkspan send new-projects --file examples/jira-new-project/payload.json").strip()
    job = jira.job_of(event)
    jira.assert_made(job)

    # Again, while nobody sends.
    again = jira.sh(f"linkspan jobs rerun {job['id']} --yes").strip()
    assert again != job["id"]
    jobs = jira.server.wait_for_jobs("new-project")
    assert sorted(job["id"] for job in jobs) == sorted([job["id"], again])
    rerun = jira.server.job(again)
    assert (rerun["rerun_of"], rerun["event"]) == (job["id"], event)
    jira.assert_made(rerun)
    assert [event["id"] for event in jira.server.events("new-projects")] == [event]


def test_others_create_projects_with_the_key_and_once(jira):
    url = jira.sh("linkspan endpoints url new-projects").strip()
    caller = Caller(url)
    body = json.dumps(jira.payload)
    headers = {"Content-Type": "application/json"}
    assert caller.call("POST", "", body, headers)[0] == 401
    assert caller.call("POST", "", body, headers | {"X-Api-Key": "another-key"})[0] == 401
    answers = [caller.call("POST", "", body, headers | {"X-Api-Key": PROJECTS_KEY}) for _ in range(2)]
    caller.close()
    (first, _, made), (second, _, repeated) = answers
    event = json.loads(made)["data"]["id"]
    assert (first, second, json.loads(repeated)["data"]) == (202, 202, {"id": event, "duplicate": True})
    jira.assert_made(jira.job_of(event))


def test_what_the_readme_of_jira_says_to_type_works(jira):
    printed = jira.follow()
    tested, listed, found, created, sent, jobs, shown = printed.values()
    assert tested.startswith("connected: status 200")
    projects = json.loads(sample("jira/projects.json"))["values"]
    assert [json.loads(line) for line in listed.splitlines()] == projects
    assert [json.loads(line)["displayName"] for line in found.splitlines()] == ["Mia Krystof", "Emma Richards"]
    assert json.loads(created) == json.loads(sample("jira/created-project.json"))
    assert "new-project  succeeded" in jobs
    assert '"leadAccountId":"5b10a2844c20165700ede21g"' in shown and '"id": 10010' in shown, shown


# Eventbrite and Slack.

EVENTBRITE = {
    ("GET", "/v3/users/me/"): (200, sample("eventbrite/user.json")),
    ("GET", "/v3/orders/579759447/"): (200, sample("eventbrite/order.json")),
    # Written after the fields that Eventbrite's own SDK names: there is no sample that may be copied.
    ("GET", "/v3/users/me/organizations/"): (
        200,
        b'{"organizations": [{"id": "144138753572", "name": "Marathons"}], "pagination": {"has_more_items": false}}',
    ),
    ("POST", "/v3/organizations/144138753572/webhooks/"): (200, b'{"id": "287968"}'),
}
SLACK = {
    ("GET", "/api/auth.test"): (200, sample("slack/auth.test.json")),
    ("POST", "/api/chat.postMessage"): (200, sample("slack/chat.postMessage.json")),
}


class Orders(Example):
    def __init__(self, eventbrite, slack, folder, start):
        # Where a proxy would lead what comes for the public URL.
        self.listener = f"127.0.0.1:{free_port()}"
        super().__init__(
            "eventbrite-orders",
            folder,
            {"https://www.eventbriteapi.com": eventbrite.url, "https://slack.com": slack.url},
            start,
            args=[
                *("--public", self.listener, "--public-url", "https://hooks.example.com"),
                *("--egress-allow", f"127.0.0.1/32:{eventbrite.port}"),
                *("--egress-allow", f"127.0.0.1/32:{slack.port}"),
            ],
            env={
                "LINKSPAN_SECRET_EVENTBRITE": "eventbrite-token-of-the-test",
                "LINKSPAN_SECRET_SLACK": "slack-token-of-the-test",
            },
        )
        self.eventbrite, self.slack = eventbrite, slack

    def assert_told(self, job):
        """The job got the order from Eventbrite, and told of it in Slack."""
        assert (job["status"], [step["id"] for step in job["steps"]]) == ("succeeded", ["order", "tell"])
        (got,), (told,) = self.eventbrite.take(), self.slack.take()
        headers = {
            "host": self.eventbrite.host,
            "accept": "application/json",
            "authorization": "Bearer eventbrite-token-of-the-test",
        }
        assert_sent(got, "GET", "/v3/orders/579759447/", headers)
        # Name, id and sum stand at three depths of the order.
        message = {"channel": "#orders", "text": "hl y placed order 579759447 for $0.00."}
        headers = {
            "host": self.slack.host,
            "authorization": "Bearer slack-token-of-the-test",
            "content-type": "application/json; charset=utf-8",
            "idempotency-key": f"{job['id']}-tell",
        }
        assert_sent(told, "POST", "/api/chat.postMessage", headers, message)
        assert_shown(job["steps"][0], got, 200, sample("eventbrite/order.json"))
        assert_shown(job["steps"][1], told, 200, sample("slack/chat.postMessage.json"))


@pytest.fixture
def orders(start, stand_in, tmp_path):
    return Orders(stand_in(EVENTBRITE), stand_in(SLACK), tmp_path / "orders", start)


def post(orders, payload):
    """As Eventbrite does: to the endpoint's URL, with no proof. Gives the event."""
    path = urlsplit(orders.sh("linkspan endpoints url eventbrite-orders").strip()).path
    caller = Caller(f"http://{orders.listener}")
    status, _, answer = caller.call("POST", path, json.dumps(payload), {"Content-Type": "application/json"})
    caller.close()
    assert status == 202, answer
    return json.loads(answer)["data"]["id"]


def test_an_order_is_fetched_and_told(orders):
    event = post(orders, orders.payload)
    job = orders.job_of(event)
    orders.assert_told(job)

    # Again, while Eventbrite is silent.
    again = orders.sh(f"linkspan jobs rerun {job['id']} --yes").strip()
    orders.server.wait_for_jobs("new-order")
    rerun = orders.server.job(again)
    assert (rerun["rerun_of"], rerun["event"]) == (job["id"], event)
    orders.assert_told(rerun)
    assert [event["id"] for event in orders.server.events("eventbrite-orders")] == [event]


def test_other_events_tell_nothing(orders):
    post(orders, orders.payload | {"config": orders.payload["config"] | {"action": "order.updated"}})
    orders.job_of(post(orders, orders.payload))
    assert len(orders.server.jobs()) == 1


def test_an_event_that_leads_elsewhere_sends_nothing(orders):
    job = orders.job_of(post(orders, orders.payload | {"api_url": "https://evil.example/"}))
    assert (job["status"], job["steps"][0]["error"]["code"]) == ("failed", "request.url")
    assert (orders.eventbrite.take(), orders.slack.take()) == ([], [])


def test_what_the_readme_of_eventbrite_says_to_type_works(orders):
    printed = orders.follow()
    reached, told, organizations, url, webhook, sent, jobs, shown = printed.values()
    assert reached.startswith("connected: status 200") and told.startswith("connected: status 200")
    assert json.loads(organizations) == {"id": "144138753572", "name": "Marathons"}
    assert url.startswith("https://hooks.example.com/webhooks/")
    assert json.loads(webhook) == {"id": "287968"}
    registered = [json.loads(body) for method, _, _, body in orders.eventbrite.take() if method == "POST"]
    assert registered == [{"endpoint_url": "https://hooks.example.com/webhooks/KEY", "actions": "order.placed"}]
    assert "new-order  succeeded" in jobs
    assert '"email": "hl@example.com"' in shown, shown
