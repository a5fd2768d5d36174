"""Servers as processes, and clients of them."""

import contextlib
import http.client
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

REPOSITORY = Path(__file__).resolve().parents[2]
FIRST_HOUR = REPOSITORY / "examples" / "first-hour"
SAMPLES = REPOSITORY / "crates" / "connectors" / "connectors" / "samples"
NODE_MODULES = REPOSITORY / "target" / "test-tools" / "node" / "node_modules"


def binary():
    """The program under test."""
    found = Path(os.environ.get("LINKSPAN_BIN") or REPOSITORY / "target" / "debug" / "linkspan").resolve()
    assert found.exists(), f"{found} is missing: build it, or name another one in LINKSPAN_BIN"
    return found


def node_modules():
    """Where tests/setup put the Node packages."""
    found = Path(os.environ.get("LINKSPAN_TEST_NODE_MODULES") or NODE_MODULES)
    assert found.exists(), f"{found} is missing: run tests/setup"
    return found


def clean_environment(**more):
    """Without settings of whoever runs the tests: no LINKSPAN_ variable, no proxy."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("LINKSPAN_") and not name.lower().endswith("_proxy")
    }
    return kept | more


def linkspan(*args, env, timeout=90, **options):
    """A command of the program under test, as a person types it."""
    return subprocess.run(
        [str(binary()), *map(str, args)],
        env=clean_environment(**env),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        **options,
    )


def sample(name):
    """What an API answers or sends, as the connectors that come with the product have it."""
    return (SAMPLES / name).read_bytes()


def free_port():
    """A loopback port that is free now, for programs that cannot take port 0."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def eventually(check, seconds=30, every=0.1):
    """The first true answer of `check`; fails when none comes in time, showing the last one."""
    deadline = time.monotonic() + seconds
    while True:
        answer = check()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"not within {seconds} s; the last answer was {answer!r}"
        time.sleep(every)


class Caller:
    """One kept-alive connection; what it sends is sent once, never repeated behind the test's back."""

    def __init__(self, url, timeout=30):
        parts = urlsplit(url)
        self.prefix = parts.path.rstrip("/")
        self.http = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)

    def call(self, method, target, body=None, headers=None):
        """Status, headers and body of the answer."""
        self.http.request(method, self.prefix + target, body=body, headers=headers or {})
        answer = self.http.getresponse()
        return answer.status, answer.headers, answer.read()

    def close(self):
        self.http.close()


class Refused(AssertionError):
    """The API answered with an error."""


class Server:
    """A linkspan process on its own data folder and on ports that the system picks."""

    def __init__(self, data, *, args=(), env=None, apply=None, wait=30):
        self.data = Path(data)
        self.args = [str(arg) for arg in args]
        self.env = dict(env or {})
        self.apply_at_start = apply
        self.wait = wait
        self.log = self.data.with_name(self.data.name + ".log")
        self.process = None
        self.was_killed = False
        self.local = threading.local()
        # The values of secrets that it was given.
        self.secrets = [value for name, value in self.env.items() if name.startswith("LINKSPAN_SECRET_")]

    def start(self):
        # A developer's disk is often nearly full; what is tested here is not that.
        command = [binary(), "serve", "--data", self.data, "--operator", "127.0.0.1:0", "--disk-min-free", "1MiB"]
        if "--public" not in self.args:
            command += ["--public", "127.0.0.1:0"]
        if self.apply_at_start:
            command += ["--apply", self.apply_at_start]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(part) for part in command] + self.args,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=clean_environment(**self.env),
                # Its own group: Ctrl-C in the terminal must not end it before the test does.
                start_new_session=True,
            )
        self.was_killed = False
        self.local = threading.local()
        self.public = self.operator = None
        # A server that never says where it listens is ended, and with it the loop below.
        watch = threading.Timer(self.wait, self.process.kill)
        watch.start()
        try:
            for line in self.process.stdout:
                name, _, url = line.decode().partition(" ")
                if name == "public":
                    self.public = url.strip()
                if name == "operator":
                    self.operator = url.strip()
                    break
        finally:
            watch.cancel()
        assert self.public and self.operator, f"the server did not start:\n{self.log_tail()}"
        # What it prints later must not fill the pipe.
        threading.Thread(target=self._drain, args=(self.process.stdout,), daemon=True).start()
        return self

    @staticmethod
    def _drain(stream):
        for _ in stream:
            pass

    @property
    def pid(self):
        return self.process.pid

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def peak_own_mib(self):
        """The most memory that it has had, without what is mapped from its program's file: of a debug build that is
        half of all, and grows with every line."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        mapped = int(status.split("RssFile:")[1].split()[0]) / 1024
        return self.peak_mib() - mapped

    def peak_mib(self):
        """The most memory that it has had."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    def stop(self, seconds=45):
        """Ends it the ordinary way; gives its exit code, which is not 0 when it does not end in time."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(30)
        return self.process.returncode

    def kill(self):
        """Ends it as a crash does."""
        self.was_killed = True
        self.process.kill()
        self.process.wait(30)

    def assert_ended_well(self):
        """It ended by itself when it was asked to, unless the test killed it."""
        if self.process is not None and not self.was_killed:
            code = self.process.returncode
            assert code == 0, f"the server ended with {code}:\n{self.log_tail()}"

    def assert_secrets_kept(self):
        """No value of a secret stands in the database, the log or any other file that the server wrote."""
        # Of one with several lines, such as a key, the longest: grep would look for each of them, and for none.
        for secret in {max(secret.splitlines(), key=len) for secret in self.secrets if len(secret) >= 8}:
            # A file that does hold it: a search that cannot find must not pass for one that found nothing.
            control = self.data / "holds-the-secret"
            control.write_text(secret)
            command = ["grep", "-rlF", "-e", secret, str(self.data), str(self.log)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            control.unlink()
            assert done.returncode == 0, done.stderr or "the search does not find what is there"
            found = done.stdout.splitlines()
            assert found == [str(control)], f"the secret {secret} stands in {found}"

    def log_tail(self, most=6000):
        if not self.log.exists():
            return "(no log)"
        return self.log.read_bytes()[-most:].decode(errors="replace")

    @property
    def token(self):
        return (self.data / "operator-token").read_text().strip()

    # The API.

    def request(self, method, path, body=None, headers=None):
        """Status, headers and bytes of an operator API answer."""
        if not hasattr(self.local, "caller"):
            self.local.caller, self.local.used = Caller(self.operator, timeout=90), 0
        if time.monotonic() - self.local.used > 20:
            # The server closes connections that are idle for a minute.
            self.local.caller.close()
        self.local.used = time.monotonic()
        sent = {"Authorization": f"Bearer {self.token}"} | (headers or {})
        if body is not None:
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        return self.local.caller.call(method, path, body, sent)

    def api(self, method, path, body=None):
        """The answer's JSON; anything but a success is an error."""
        status, _, answer = self.request(method, path, body)
        if status >= 400:
            raise Refused(f"{method} {path}: {status} {answer.decode(errors='replace')}")
        return json.loads(answer) if answer else None

    def get(self, path, **query):
        query = {name: value for name, value in query.items() if value is not None}
        return self.api("GET", path + ("?" + urlencode(query) if query else ""))

    def pages(self, path, **query):
        """Every item of a list."""
        cursor = None
        while True:
            page = self.get(path, cursor=cursor, limit=1000, **query)
            yield from page["data"]
            cursor = page["next"]
            if cursor is None:
                return

    def apply(self, *documents):
        self.secrets += [
            document["spec"]["value"]
            for document in documents
            if document["kind"] == "secret" and "value" in document["spec"]
        ]
        return self.api("POST", "/api/v1/apply", {"documents": list(documents)})

    def events(self, endpoint, after="first"):
        """Every event of an endpoint, oldest first. Read from the log as a whole: the list of one endpoint's events
        comes a moment after their acknowledgement."""
        while True:
            page = self.get("/api/v1/events", after=after, limit=1000)["data"]
            yield from (event for event in page if event["endpoint"] == endpoint)
            if not page:
                return
            after = page[-1]["id"]

    def jobs(self, recipe=None, **query):
        return list(self.pages("/api/v1/jobs", recipe=recipe, **query))

    def job(self, job_id):
        return self.get(f"/api/v1/jobs/{job_id}")["data"]

    def endpoint_url(self, name):
        return self.get(f"/api/v1/endpoints/{name}")["data"]["status"]["url"]

    def wait_for_jobs(self, recipe=None, seconds=60):
        """Waits until no job has anything left to do, and gives all of them."""

        def ended():
            open_jobs = [
                self.get("/api/v1/jobs", recipe=recipe, status=status, limit=1)["data"]
                for status in ("queued", "waiting", "running")
            ]
            return not any(open_jobs)

        eventually(ended, seconds)
        return self.jobs(recipe)

    def metrics(self):
        return self.request("GET", "/metrics")[2].decode()

    # The command line.

    def run(self, *args, timeout=90, **options):
        environment = {"LINKSPAN_URL": self.operator, "LINKSPAN_DATA": str(self.data)}
        return linkspan(*args, env=environment, timeout=timeout, **options)

    def cli(self, *args, **options):
        """The JSON that a command prints; it must succeed."""
        done = self.run(*args, "--output", "json", **options)
        assert done.returncode == 0, f"linkspan {args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout)

    def table(self, name):
        """Every row of a table."""
        return [row for page in self._table_pages(name) for row in page["rows"]]

    def _table_pages(self, name):
        cursor = None
        while True:
            more = ("--cursor", cursor) if cursor else ()
            answer = self.cli("tables", "show", name, "--limit", 1000, *more)
            yield answer["data"]
            cursor = answer["next"]
            if cursor is None:
                return


class StandIn:
    """An API on loopback: answers to a method and a target, or its path, with a status and a body, and keeps what it got.
    Everything else is 404."""

    def __init__(self, answers):
        self.answers = answers
        self.requests = []
        stand_in = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = [(name.lower(), value) for name, value in self.headers.items()]
                assert len(headers) == len(dict(headers)), f"a header came twice: {headers}"
                stand_in.requests.append((self.command, self.path, dict(headers), body))
                unknown = (404, b'{"error_description": "nothing is here"}')
                of_path = stand_in.answers.get((self.command, urlsplit(self.path).path), unknown)
                status, answer = stand_in.answers.get((self.command, self.path), of_path)
                self.send_response(status)
                self.send_header("Content-Type", "application/json;charset=UTF-8")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_POST = do_GET

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_port
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.host}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self):
        """What it got since this was asked the last time."""
        taken, self.requests = self.requests, []
        return taken

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class Program:
    """A program that runs beside a test until it is stopped; `is_up` says when it takes requests."""

    def begin(self, command, log, *, folder=None, seconds=30, **env):
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [str(part) for part in command],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=clean_environment(**env),
                # Its own group: Ctrl-C in the terminal must not end it before the test does.
                start_new_session=True,
            )
        try:
            eventually(self._is_up, seconds)
        except BaseException:
            self.stop()
            raise

    def _is_up(self):
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self.is_up()
        except OSError:
            return False

    def stop(self, patience=15):
        """Asks it to end, which it must do in time; ends all of its group if it does not."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(15)
            raise


def answers(url, target="/"):
    """The status that a server answers with."""
    caller = Caller(url, timeout=5)
    try:
        return caller.call("GET", target)[0]
    finally:
        caller.close()


class Httpbin(Program):
    """httpbin under gunicorn: an HTTP server that says what it was sent."""

    def __init__(self, folder):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.access = folder / "access.log"
        command = [sys.executable, "-m", "gunicorn", "-b", f"127.0.0.1:{self.port}", "--threads", "16"]
        # The request line as it came: httpbin itself shows URLs decoded.
        command += ["--access-logfile", self.access, "--access-logformat", "%(r)s", "httpbin:app"]
        # gunicorn leaves a control socket below HOME.
        self.begin(command, folder / "gunicorn.log", folder=folder, HOME=str(folder))

    def is_up(self):
        return answers(self.url, "/status/200") == 200

    def stop(self):
        with contextlib.suppress(subprocess.TimeoutExpired):
            # It waits for requests that are still being answered.
            super().stop()

    def requests(self, marker, least=1):
        """Method and target of every request so far whose target holds the marker, of which there are so many at least."""
        # Its threads write their lines after their answers, each in its own time: those that must come are waited for,
        # and those that must not have the time that a last request takes.
        last = f"/status/200?last={time.monotonic_ns()}"
        answers(self.url, last)
        eventually(lambda: last in self.access.read_text() and len(self._lines(marker)) >= least, every=0.01)
        return self._lines(marker)

    def _lines(self, marker):
        lines = (line.split(" ") for line in self.access.read_text().splitlines(keepends=True) if line.endswith("\n"))
        return [(line[0], line[1]) for line in lines if marker in line[1]]


def program(name):
    found = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin")
    assert found, f"{name} is missing: run tests/setup"
    return found


class Process(Program):
    """A program that we did not write, on a loopback port; `{folder}` in its command is a folder of its own."""

    def __init__(self, folder, name, command, port, config=""):
        folder.mkdir(exist_ok=True)
        self.port = port
        self.address = f"127.0.0.1:{port}"
        (folder / "config").write_text(config)
        self.begin([program(name), *(part.format(folder=folder) for part in command)], folder / "log", seconds=20)

    def is_up(self):
        caller = Caller(f"http://{self.address}", timeout=5)
        caller.http.connect()
        caller.close()
        return True


class Haproxy(Process):
    """haproxy with what it listens on."""

    def __init__(self, folder, port, listens):
        config = f"""
defaults
    mode http
    timeout client 30s
    timeout server 30s
    timeout connect 5s
{listens}
"""
        super().__init__(folder, "haproxy", ["-db", "-f", "{folder}/config"], port, config)


def encoded(text):
    return quote(text, safe="")
