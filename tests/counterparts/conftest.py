"""The tests start the real binary and let programs that we did not write call it, or be called by it."""

from contextlib import ExitStack

import pytest

from machine import Machine
from support import Httpbin, Server, StandIn


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A failure shows what the servers of the test wrote to their logs."""
    report = (yield).get_result()
    if report.failed:
        for server in getattr(item, "servers", []):
            report.sections.append((f"log of {server.data}", server.log_tail()))


@pytest.fixture
def start(request, tmp_path):
    """Starts servers that end with the test, each on a data folder of its own unless the test names one."""
    request.node.servers = servers = []

    def start(data=None, **options):
        server = Server(data or tmp_path / f"data-{len(servers)}", **options)
        servers.append(server)
        return server.start()

    yield start
    for server in servers:
        server.stop()
    for server in servers:
        server.assert_ended_well()
        server.assert_secrets_kept()


@pytest.fixture
def beside():
    """Starts programs that end with the test, the last one first."""
    with ExitStack() as running:

        def beside(kind, *args, **options):
            program = kind(*args, **options)
            running.callback(program.stop)
            return program

        yield beside


@pytest.fixture
def stand_in():
    """Makes APIs of answers, which end with the test."""
    running = []

    def stand_in(answers):
        running.append(StandIn(answers))
        return running[-1]

    yield stand_in
    for one in running:
        one.stop()


@pytest.fixture
def machine(tmp_path):
    """The first hour's example, started as `make run` does it."""
    machine = Machine(tmp_path)
    yield machine
    machine.stop()


@pytest.fixture(scope="session")
def httpbin(tmp_path_factory):
    """httpbin under gunicorn, for all tests of a run: it keeps no state."""
    httpbin = Httpbin(tmp_path_factory.mktemp("httpbin"))
    yield httpbin
    httpbin.stop()
