"""Rows of a sync whose keys are chosen to cost: another thousand long names in each event, alike up to where names are
shortened, and deep objects. The server stays small, every event becomes a row, and it goes on answering."""

import json
import random
import sqlite3
import time

from support import Caller, eventually

MOST_MIB = 200
EVENTS = 24
KEYS = 2_000


def hostile(number):
    """Keys that no other event has, by turns: many, alike for a long way, and deep."""
    dice = random.Random(number)
    match number % 3:
        case 0:
            return {f"k{number}_{key}_{dice.getrandbits(400):x}": key for key in range(KEYS)}
        case 1:
            return {"same" * 60 + f"_{number}_{key}": key for key in range(KEYS)}
        case _:
            deep = {}
            for level in range(60):
                deep = {f"deep{number}_{level}_{dice.getrandbits(64):x}": deep, "beside": level}
            return {"deep": deep}


def test_a_sync_of_hostile_keys_stays_small(start):
    server = start()
    server.apply(
        {"kind": "endpoint", "name": "in", "spec": {"verify": "none"}},
        {"kind": "destination", "name": "rows", "spec": {"sqlite": {"path": "rows.db"}}},
        {"kind": "sync", "name": "rows", "spec": {
            "from": {"endpoint": "in"}, "to": {"destination": "rows", "schema": "s", "table": "t"}, "format": "unpacked",
        }},
    )
    caller = Caller(server.endpoint_url("in"))
    sent = set()
    for number in range(EVENTS):
        status, _, answer = caller.call("POST", "", json.dumps(hostile(number)), {"Content-Type": "application/json"})
        assert status == 202, (status, answer)
        sent.add(json.loads(answer)["data"]["id"])
    caller.close()
    began = time.monotonic()
    server.cli("syncs", "run", "rows", "--wait", timeout=120)
    took = time.monotonic() - began
    assert eventually(lambda: server.request("GET", "/livez")[0]) == 200
    peak = server.peak_mib()
    with sqlite3.connect(server.data / "destinations" / "rows.db") as database:
        rows = {row for (row,) in database.execute('SELECT "_id" FROM "s.t"')}
        columns = len(database.execute('PRAGMA table_info("s.t")').fetchall())
    print(f"\n{EVENTS} events of hostile keys: {took:.1f} s, {columns} columns, peak {peak:.0f} MiB")
    assert rows == sent
    assert peak <= MOST_MIB, f"{peak:.0f} MiB"
