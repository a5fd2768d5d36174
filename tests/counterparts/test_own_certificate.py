"""The certificate of the public listener is read again when its files change and at SIGHUP."""

import os
import signal
import ssl
import time

import pytest

from certificates import Authority
from support import eventually


@pytest.fixture
def world(start, tmp_path):
    authority = Authority(tmp_path, "Servers")
    files = tmp_path / "chain.pem", tmp_path / "key.pem"

    class World:
        def put(self, chain=None, key=None):
            """Puts files in the place of those that are there, as programs that renew certificates do."""
            for file, pem in zip(files, (chain, key), strict=True):
                if pem is not None:
                    new = file.with_suffix(".new")
                    new.write_text(pem)
                    os.replace(new, file)

        def issue(self):
            return authority.issue("/CN=localhost", use="server")

        def shown(self):
            """The certificate that a client is shown."""
            address = self.server.public.removeprefix("https://").rsplit(":", 1)
            return ssl.get_server_certificate((address[0], int(address[1]))).strip()

    world = World()
    world.first = world.issue()
    world.put(*world.first)
    world.server = start(args=["--tls-cert", files[0], "--tls-key", files[1]])
    assert world.shown() == world.first[0].strip()
    return world


def test_renewed_certificate_is_shown_without_a_restart(world):
    second = world.issue()
    world.put(*second)
    eventually(lambda: world.shown() == second[0].strip(), seconds=15)


def test_certificate_without_its_key_is_refused_and_the_old_one_goes_on(world):
    second = world.issue()
    world.put(chain=second[0])
    eventually(lambda: "the one from before goes on" in world.server.log_tail(), seconds=15)
    assert world.shown() == world.first[0].strip()
    world.put(chain="no certificate at all")
    time.sleep(3)
    assert world.shown() == world.first[0].strip()
    world.put(*second)
    eventually(lambda: world.shown() == second[0].strip(), seconds=15)


def test_hangup_reads_it_at_once(world):
    second = world.issue()
    world.put(*second)
    os.kill(world.server.pid, signal.SIGHUP)
    eventually(lambda: world.shown() == second[0].strip(), seconds=1.5, every=0.05)
