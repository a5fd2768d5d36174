"""Nothing that was acknowledged is lost, and nothing happens twice, wherever the server is killed.

Two kinds of crash. `kill -9` loses the process and keeps the page cache. A power cut loses the page cache as well:
tests/crash/sync_shim.c keeps an image of only what was synced, and that is what the next server starts from. The
second check also runs against a server that syncs too little, on purpose: a check that cannot fail proves nothing.
"""

import http.client
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from pathlib import Path

import pytest

from support import REPOSITORY, Caller, Server, binary, eventually, free_port

CRASH_SECONDS = int(os.environ.get("CRASH_SECONDS", "300"))
POWER_CUTS = 20
WRITERS = 32
# Every tenth event starts a job.
JOB_SHARE = 10

pytestmark = pytest.mark.crash

DOCUMENTS = """
kind: endpoint
name: intake
spec:
  format: json
  verify: none
  dedupe: {by: "header:X-Event-Id", within: 14d}
---
kind: endpoint
name: desk
spec:
  format: json
  verify: none
  dedupe: {by: "header:Idempotency-Key", within: 14d}
---
kind: connection
name: desk
spec: {endpoint: desk, timeout: 10s}
---
kind: recipe
name: tell-desk
spec:
  trigger:
    webhook: {endpoint: intake, when: trigger.body.start == true}
  steps:
    - id: tell
      request:
        connection: desk
        method: POST
        path: /told
        json: {id: "{{ trigger.body.id }}"}
---
kind: destination
name: warehouse
spec:
  sqlite: {path: warehouse.db}
---
kind: sync
name: intake-events
spec:
  from: {endpoint: intake}
  bucket: own
  to: {destination: warehouse, schema: crash, table: events}
  format: unpacked
  every: 1m
"""

FILLING = random.Random(20_000).randbytes(150_000).hex()


def body_of(event_id):
    """A body that no other event has, made again from the id wherever it is compared. Some are larger than
    64 KiB: these go through spool files."""
    dice = random.Random(event_id)
    size = dice.choices([dice.randrange(16, 2_000), dice.randrange(8_000, 32_000), dice.randrange(66_000, 200_000)], [91, 6, 3])[0]
    at = dice.randrange(len(FILLING) - size)
    start = "true" if starts_job(event_id) else "false"
    return f'{{"id":"{event_id}","start":{start},"filling":"{FILLING[at : at + size]}"}}'.encode()


def starts_job(event_id):
    return int(event_id[:8], 16) % JOB_SHARE == 0


class Sent:
    """What the writers sent and what they were told, over all crashes."""

    def __init__(self):
        self.lock = threading.Lock()
        self.acknowledged = {}
        self.unknown = set()
        # Whether the server was seen to commit on the threads that serve, as it does where a disk is swift.
        self.at_seats = False

    def post(self, caller, event_id):
        """Sends one event and notes what came of it; gives whether the connection is still good."""
        headers = {"Content-Type": "application/json", "X-Event-Id": event_id}
        try:
            status, _, answer = caller.call("POST", "", body_of(event_id), headers)
        except (OSError, http.client.HTTPException):
            with self.lock:
                self.unknown.add(event_id)
            return False
        with self.lock:
            if status == 202:
                data = json.loads(answer)["data"]
                first = self.acknowledged.setdefault(event_id, data["id"])
                self.unknown.discard(event_id)
                # Acknowledged before: it is the same event, however often it is sent.
                assert data["id"] == first, f"{event_id} was stored as {first} and again as {data['id']}"
            else:
                assert status == 503, (status, answer)
                self.unknown.add(event_id)
        return True


def write_until_killed(server, sent, seconds, writers=WRITERS, power_cut=False):
    """Writers that send as fast as they are answered, until the server is killed in the middle of it."""
    url = server.endpoint_url("intake")
    stop = threading.Event()
    faults = []

    def write():
        caller = Caller(url, timeout=20)
        try:
            while not stop.is_set():
                if not sent.post(caller, uuid.uuid4().hex):
                    return
        except AssertionError as fault:
            faults.append(fault)
        finally:
            caller.close()

    def load():
        # Rows are loaded all the while, so that the crash also hits the loading.
        while not stop.is_set():
            try:
                server.request("POST", "/api/v1/syncs/intake-events/run")
                sent.at_seats |= "\nlinkspan_store_swift 1\n" in server.metrics()
            except (OSError, http.client.HTTPException):
                return
            time.sleep(0.1)

    threads = [threading.Thread(target=write, daemon=True) for _ in range(writers)]
    threads.append(threading.Thread(target=load, daemon=True))
    for thread in threads:
        thread.start()
    time.sleep(seconds)
    server.kill()
    stop.set()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    assert not faults, faults[0]


class Stored:
    """What the server says it has, read as it grows: event ids by the sender's id."""

    def __init__(self):
        self.events = {}
        self.after = "first"

    def read(self, server):
        """Reads what is new, comparing every body."""
        for event in server.events("intake", self.after):
            sender_id = dict(event["headers"])["x-event-id"]
            assert event["body"].encode() == body_of(sender_id), f"event {event['id']} has another body than was sent"
            assert sender_id not in self.events, f"{sender_id} is stored twice"
            self.events[sender_id] = event["id"]
            self.after = event["id"]

    def lost(self, sent):
        return [event_id for event_id, stored in sent.acknowledged.items() if self.events.get(event_id) != stored]


def resend(server, sent, again=20):
    """What a sender does after a crash: everything unanswered again, and some of what was answered."""
    caller = Caller(server.endpoint_url("intake"))
    for event_id in list(sent.unknown) + random.sample(list(sent.acknowledged), min(again, len(sent.acknowledged))):
        assert sent.post(caller, event_id)
    caller.close()
    assert not sent.unknown


def check_effects(server, sent, stored):
    """Every event that starts a job has exactly one, and each job told the desk once; what is left is loaded."""
    assert set(stored.events) == set(sent.acknowledged)
    wanted = Counter(stored for event_id, stored in stored.events.items() if starts_job(event_id))
    # Until the dispatcher has come to the end of the log there may be fewer.
    eventually(lambda: len(server.jobs("tell-desk")) >= len(wanted), 120, every=0.5)
    jobs = server.wait_for_jobs("tell-desk", seconds=120)
    assert Counter(job["event"] for job in jobs) == wanted
    assert [server.job(job["id"]) for job in jobs if job["status"] != "succeeded"] == []
    told = [json.loads(event["body"])["id"] for event in server.events("desk")]
    assert Counter(told) == Counter(event_id for event_id in stored.events if starts_job(event_id))
    server.cli("syncs", "run", "intake-events", "--wait", timeout=300)


def check_rows(data, stored):
    """Every event is exactly one row, as another SQLite than ours reads it."""
    with sqlite3.connect(data / "destinations" / "warehouse.db") as database:
        rows = Counter(event_id for (event_id,) in database.execute('SELECT "_id" FROM "crash.events"'))
    assert rows == Counter(stored.events.values())


def check_files(data):
    """After an ordinary stop the databases are whole, and the spool holds what they name."""
    databases = [data / "linkspan.db", *(data / "destinations").glob("*.db")]
    for path in databases:
        with sqlite3.connect(path) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)], path
    with sqlite3.connect(data / "linkspan.db") as database:
        named = {name for (name,) in database.execute("SELECT name FROM spool")}
    # Bodies whose events were never acknowledged are set aside, not among the others.
    assert {path.name for path in (data / "spool").iterdir() if path.name != "unknown"} == named


@pytest.fixture
def documents(tmp_path):
    path = tmp_path / "documents.yaml"
    path.write_text(DOCUMENTS)
    return path


@pytest.fixture
def ram():
    """A folder on a RAM disk, where there is one with room for an episode: there commits wait for nothing."""
    disk = Path("/dev/shm")
    if not disk.is_dir() or shutil.disk_usage(disk).free < 6 << 30:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="linkspan-crash-", dir=disk) as folder:
        yield Path(folder)


def options(documents, **more):
    # The port stays the same over restarts: it is the one private address that recipes may reach.
    port = free_port()
    args = ["--public", f"127.0.0.1:{port}", "--egress-allow", f"127.0.0.1/32:{port}"]
    return {"apply": documents, "args": args} | more


@pytest.mark.timeout(2 * CRASH_SECONDS + 400)
def test_kill_at_any_moment(start, documents, ram):
    end = time.monotonic() + CRASH_SECONDS
    rounds = interrupted = events = episodes = 0
    while time.monotonic() < end:
        # A new folder now and then: an hour of events in one is more than a test should leave on a disk.
        episode = min(end, time.monotonic() + 150)
        # On a disk and on a RAM disk by turns: commits are made by other threads there.
        episodes += 1
        on_ram = ram and episodes % 2 == 0
        server = start(ram / f"data-{episodes}" if on_ram else None, **options(documents))
        sent, stored = Sent(), Stored()
        while time.monotonic() < episode:
            write_until_killed(server, sent, seconds=random.uniform(0.2, 3))
            interrupted += bool(sent.unknown)
            server.start()
            stored.read(server)
            assert stored.lost(sent) == [], f"lost in round {rounds}"
            resend(server, sent)
            stored.read(server)
            rounds += 1
        check_effects(server, sent, stored)
        assert server.stop() == 0
        check_rows(server.data, stored)
        check_files(server.data)
        shutil.rmtree(server.data)
        events += len(sent.acknowledged)
        assert sent.at_seats or not on_ram
    # Were no request ever interrupted, the kills would have missed the writing.
    assert interrupted > rounds / 2
    print(f"\nkill -9: {rounds} rounds, {events} events, 0 lost")


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    library = tmp_path_factory.mktemp("shim") / "sync_shim.so"
    source = REPOSITORY / "tests" / "crash" / "sync_shim.c"
    subprocess.run(["cc", "-O2", "-Wall", "-shared", "-fPIC", "-o", library, source, "-ldl", "-lpthread"], check=True)
    # A static binary would ignore the shim, and every check below would pass for nothing.
    assert b"linux" in binary().read_bytes()[:1000], "the binary names no dynamic loader"
    return library


def durable_after(shim, folder, script):
    """What of `folder` a power cut would leave when a program does this and dies: contents by path."""
    image = folder.with_name(folder.name + ".image")
    image.mkdir()
    environment = os.environ | {"LD_PRELOAD": str(shim), "SHIM_ROOT": str(folder), "SHIM_IMAGE": str(image)}
    script = "import os, signal\n" + SYNC + script + "\nos.kill(os.getpid(), signal.SIGKILL)"
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, env=environment, timeout=30, check=False)
    assert done.returncode == -signal.SIGKILL
    left = image.with_name("left")
    shutil.copytree(image / "root", left)
    found = {str(path.relative_to(left)): path.read_bytes() for path in left.rglob("*") if path.is_file()}
    shutil.rmtree(image)
    shutil.rmtree(left)
    return found


SYNC = """
def sync(path):
    opened = os.open(path, os.O_RDONLY)
    os.fsync(opened)
    os.close(opened)
def write(path, data, at=0, flags=os.O_CREAT, synced=True):
    opened = os.open(path, os.O_WRONLY | flags)
    os.pwrite(opened, data, at)
    if synced:
        os.fdatasync(opened)
    os.close(opened)
"""


@pytest.mark.parametrize(
    ("script", "left"),
    [
        # The file is synced, its name is not.
        ("write('new', b'x')", {"old": b"0123456789"}),
        ("write('new', b'x'); sync('.')", {"old": b"0123456789", "new": b"x"}),
        # The name is synced, the content is not.
        ("write('new', b'x', synced=False); sync('.')", {"old": b"0123456789", "new": b""}),
        # Of two writes only the one before the sync.
        ("write('old', b'ab', 2); write('old', b'cd', 6, synced=False)", {"old": b"01ab456789"}),
        ("write('old', b'ab', 2); write('old', b'cd', 6)", {"old": b"01ab45cd89"}),
        # Cut and grown again: what lay there is gone.
        ("os.truncate('old', 10); f = os.open('old', os.O_RDWR); os.ftruncate(f, 3); os.pwrite(f, b'z', 5); os.fsync(f)", {"old": b"012\0\0z"}),
        ("f = os.open('old', os.O_RDWR); os.ftruncate(f, 3)", {"old": b"0123456789"}),
        # Renames and removals.
        ("write('a', b'x'); sync('.'); os.rename('a', 'old')", {"a": b"x", "old": b"0123456789"}),
        ("write('a', b'x'); os.rename('a', 'old'); sync('.')", {"old": b"x"}),
        ("os.unlink('old')", {"old": b"0123456789"}),
        ("os.unlink('old'); sync('.')", {}),
        # A name used again is another file, also where the system gives it the same number.
        ("os.unlink('old'); write('old', b'n', synced=False); sync('.')", {"old": b""}),
        # A folder is there once the one above it is synced.
        ("os.mkdir('d'); write('d/f', b'x'); sync('d')", {"old": b"0123456789"}),
        ("os.mkdir('d'); write('d/f', b'x'); sync('d'); sync('.')", {"old": b"0123456789", "d/f": b"x"}),
        ("os.mkdir('d'); write('d/f', b'x'); sync('.')", {"old": b"0123456789"}),
    ],
)
def test_the_image_holds_what_was_synced(tmp_path, shim, script, left):
    """The instrument itself, on programs of a line."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "old").write_bytes(b"0123456789")
    assert durable_after(shim, folder, script) == left


@pytest.mark.parametrize("cut", [False, True], ids=["appended", "cut"])
def test_the_image_holds_what_one_thread_synced_beside_another(tmp_path, shim, cut):
    """A log's commits beside its checkpoints: a sync must never drop what another thread's sync has brought."""
    program = tmp_path / "two_threads"
    source = REPOSITORY / "tests" / "crash" / "two_threads.c"
    subprocess.run(["cc", "-O2", "-Wall", "-o", program, source, "-lpthread"], check=True)
    folder, image, blocks, lost = tmp_path / "folder", tmp_path / "image", 20_000, 0
    folder.mkdir()
    image.mkdir()
    (folder / "log").touch()
    environment = os.environ | {"LD_PRELOAD": str(shim), "SHIM_ROOT": str(folder), "SHIM_IMAGE": str(image)}
    given = [program, folder / "log", str(blocks), *(["cut"] if cut else [])]
    subprocess.run(given, env=environment, check=True, timeout=120)
    durable = (image / "root" / "log").read_bytes()
    first = blocks - 999 if cut else 1
    for number in range(first, blocks + 1):
        place = (number - first) * 512
        lost += durable[place : place + 512] != number.to_bytes(8, "little") * 64
    assert lost == 0


def power_cut(server, root, shim, sent, seconds):
    """Runs a server in `root` under the shim, kills it, and puts in the place of `root` what was durable."""
    image = root.with_name(root.name + ".image")
    shutil.rmtree(image, ignore_errors=True)
    image.mkdir()
    server.env |= {"LD_PRELOAD": str(shim), "SHIM_ROOT": str(root), "SHIM_IMAGE": str(image)}
    server.start()
    write_until_killed(server, sent, seconds, writers=16)
    for name in ("LD_PRELOAD", "SHIM_ROOT", "SHIM_IMAGE"):
        del server.env[name]
    shutil.rmtree(root)
    # Links to folders are followed: they are how the image nests them.
    shutil.copytree(image / "root", root)
    shutil.rmtree(image)


@pytest.mark.timeout(2 * CRASH_SECONDS + 600)
def test_power_cuts_lose_nothing(request, tmp_path, documents, shim):
    request.node.servers = servers = []
    events = cuts = at_seats = 0
    end = time.monotonic() + CRASH_SECONDS / 2
    while cuts < POWER_CUTS or time.monotonic() < end:
        # The data folder is made by the server, so that its first run is cut as well; then some more cuts on
        # what that left.
        root = tmp_path / f"root-{cuts}"
        root.mkdir()
        server = Server(root / "data", **options(documents))
        server.log = tmp_path / f"server-{cuts}.log"
        servers[:] = [server]
        sent, stored = Sent(), Stored()
        try:
            for cut in range(4):
                power_cut(server, root, shim, sent, seconds=random.uniform(0.2, 2))
                cuts += 1
                server.start()
                stored.read(server)
                assert stored.lost(sent) == [], f"lost by power cut {cuts}"
                resend(server, sent)
                stored.read(server)
                if cut < 3:
                    assert server.stop() == 0
                    check_files(server.data)
            check_effects(server, sent, stored)
        finally:
            server.stop()
        check_rows(server.data, stored)
        check_files(server.data)
        events += len(sent.acknowledged)
        at_seats += sent.at_seats
        shutil.rmtree(root)
    # Under the shim a sync waits for nothing, so the server commits as it does on a swift disk.
    assert at_seats
    print(f"\npower cuts: {cuts}, {events} events, 0 lost")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("durability", ["normal", "off"])
def test_power_cuts_show_missing_syncs(request, tmp_path, documents, shim, durability):
    """The check above is able to fail: events that are acknowledged unsynced are seen to be lost."""
    request.node.servers = servers = []
    for cut in range(POWER_CUTS):
        root = tmp_path / f"root-{cut}"
        root.mkdir()
        # An ordinary run first, with all syncs, so that what the cut takes away is events and nothing else.
        server = Server(root / "data", **options(documents))
        server.log = tmp_path / f"server-{cut}.log"
        servers[:] = [server]
        sent, stored = Sent(), Stored()
        try:
            server.start()
            assert server.stop() == 0
            server.env["LINKSPAN_UNSAFE_DURABILITY"] = durability
            power_cut(server, root, shim, sent, seconds=random.uniform(0.5, 2))
            del server.env["LINKSPAN_UNSAFE_DURABILITY"]
            assert sent.acknowledged
            server.start()
            stored.read(server)
        finally:
            server.stop()
        lost = stored.lost(sent)
        if lost:
            print(f"\nsynchronous={durability}: {len(lost)} of {len(sent.acknowledged)} lost at cut {cut + 1}")
            return
    pytest.fail(f"{POWER_CUTS} power cuts with synchronous={durability} lost nothing: the check is blind")
