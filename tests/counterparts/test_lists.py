"""Lists of an API that we did not write: Datasette over a table, by its tokens, its URLs and its Link header."""

import json
import sqlite3
import sys
import urllib.request

import pytest

from support import Program, answers, free_port

ROWS = 2_500
LARGE_ROWS, LARGE_BYTES = 2_000, 50_000


class Datasette(Program):
    """Datasette over `shop.db`."""

    def __init__(self, folder):
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "datasette", "shop.db", "--host", "127.0.0.1", "--port", port]
        command += ["--setting", "max_returned_rows", 1000, "--setting", "sql_time_limit_ms", 20000]
        command += ["--setting", "num_sql_threads", 1]
        self.begin(command, folder / "datasette.log", folder=folder, seconds=60, HOME=str(folder))

    def is_up(self):
        return answers(self.url, "/-/versions.json") == 200


@pytest.fixture(scope="module")
def datasette(tmp_path_factory):
    """The URL of Datasette with tables `shop/orders` of small rows and `shop/scans` of 100 MB."""
    folder = tmp_path_factory.mktemp("datasette")
    with sqlite3.connect(folder / "shop.db") as db:
        db.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, name TEXT)")
        db.executemany("INSERT INTO orders VALUES (?, ?)", ((n, f"örder {n}") for n in range(1, ROWS + 1)))
        db.execute("CREATE TABLE scans (id INTEGER PRIMARY KEY, picture TEXT)")
        db.executemany("INSERT INTO scans VALUES (?, ?)", ((n, "x" * LARGE_BYTES) for n in range(LARGE_ROWS)))
    db.close()
    datasette = Datasette(folder)
    yield datasette.url
    datasette.stop()


@pytest.fixture
def shop(start, datasette):
    """A server with a connection to Datasette."""
    port = datasette.rsplit(":", 1)[1]
    server = start(args=["--egress-allow", f"127.0.0.1:{port}"])
    server.apply({"kind": "connection", "name": "shop", "spec": {"base_url": datasette}})
    return server


def lines_of(server, read):
    """The lines of a list, read as they come."""
    request = urllib.request.Request(
        f"{server.operator}/api/v1/connections/shop/read",
        data=json.dumps(read).encode(),
        headers={"Authorization": f"Bearer {server.token}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        assert answer.headers["Content-Type"] == "application/x-ndjson"
        for line in answer:
            yield json.loads(line)


WAYS = {
    "next_url": ("/shop/orders.json?_shape=objects", {"items": "body.rows", "next_url": "body.next_url"}),
    "cursor": (
        "/shop/orders.json?_shape=objects",
        {"items": "body.rows", "cursor": {"next": "body.next", "send": {"query": "_next"}}},
    ),
    "link": ("/shop/orders.json?_shape=array", {"link": "next"}),
    "size": (
        "/shop/orders.json?_shape=objects",
        {
            "items": "body.rows",
            "cursor": {"next": "body.next", "send": {"query": "_next"}},
            "size": {"send": {"query": "_size"}, "value": 1000},
        },
    ),
    "offset": (
        "/shop.json?sql=select+*+from+orders+order+by+id+limit+700+offset+:from&_shape=array",
        {"offset": {"send": {"query": "from"}}},
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_list_is_read_whole_and_in_order(shop, way):
    path, rule = WAYS[way]
    *items, end = lines_of(shop, {"request": {"method": "GET", "path": path}, "paginate": rule})
    assert [line["item"]["id"] for line in items] == list(range(1, ROWS + 1))
    assert items[6]["item"]["name"] == "örder 7"
    pages = {"size": 3, "offset": 5}.get(way, 25)
    assert end == {"end": {"pages": pages, "items": ROWS, "complete": True}}


def test_the_command_writes_an_item_a_line(shop):
    rule = "{items: body.rows, next_url: body.next_url, max_pages: 2}"
    ran = shop.run("call", "shop", "/shop/orders.json?_shape=objects", "--paginate", rule)
    assert [json.loads(line)["id"] for line in ran.stdout.splitlines()] == list(range(1, 201))


def test_a_parameter_that_the_api_does_not_know_is_found_out(shop):
    rule = {"items": "body.rows", "page": {"send": {"query": "_page"}}}
    lines = list(lines_of(shop, {"request": {"method": "GET", "path": "/shop/orders.json?_shape=objects"}, "paginate": rule}))
    assert len(lines) == 101
    assert lines[-1]["error"]["code"] == "response.page"


def test_a_hundred_megabytes_are_read_in_little_memory(shop):
    read = {
        "request": {"method": "GET", "path": "/shop/scans.json?_shape=objects&_size=20"},
        "paginate": {"items": "body.rows", "next_url": "body.next_url"},
    }
    size = items = 0
    for line in lines_of(shop, read):
        if "item" in line:
            items += 1
            size += len(line["item"]["picture"])
    assert line == {"end": {"pages": LARGE_ROWS // 20, "items": LARGE_ROWS, "complete": True}}
    assert (items, size) == (LARGE_ROWS, LARGE_ROWS * LARGE_BYTES)
    assert shop.peak_own_mib() < 40, f"{shop.peak_own_mib():.0f} MiB"
