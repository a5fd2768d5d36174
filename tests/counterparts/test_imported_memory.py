"""The largest descriptions of APIs that are in wide use, imported as connectors: a server that only holds them stays
small."""

import json
import os
import time
from pathlib import Path

import pytest

from support import eventually, linkspan
from test_imports import DIRECTORY

# How long nothing is asked of the server before it is measured.
IDLE_SECONDS = int(os.environ.get("IDLE_SECONDS", "12"))
MOST_MIB = 120


def pss_mib(pid):
    """Resident memory of a process, shared pages by their share."""
    (kilobytes,) = [
        line.split()[1] for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if line.startswith("Pss:")
    ]
    return int(kilobytes) / 1024


@pytest.mark.timeout(IDLE_SECONDS + 200)
def test_stripe_and_kubernetes_leave_an_idle_server_small(start):
    server = start()
    empty = pss_mib(server.pid)
    for name, least in (("stripe", 350), ("kubernetes", 800)):
        source = DIRECTORY / f"{name}{'.com' if name == 'stripe' else '.io'}.json"
        done = linkspan("connectors", "import", source, "--output", "json", env={"LINKSPAN_URL": server.operator})
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)["data"]["document"]
        assert len(document["spec"]["actions"]) > least, f"{name}: {len(document['spec']['actions'])} actions"
        server.apply(document)
    eventually(lambda: len(server.get("/api/v1/connectors")["data"]) >= 2)
    applied = pss_mib(server.pid)
    time.sleep(IDLE_SECONDS)
    idle = pss_mib(server.pid)
    print(f"\nPSS: {empty:.0f} MiB empty, {applied:.0f} MiB just applied, {idle:.0f} MiB idle, peak {server.peak_mib():.0f}")
    assert idle <= MOST_MIB, f"{idle:.0f} MiB after {IDLE_SECONDS} s"
