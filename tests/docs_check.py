#!/usr/bin/env python3
"""Keeps pages and code together. Standard library only; run from anywhere:

    python3 tests/docs_check.py

Fails when
- a problem code that the code can give has no page in docs/errors/, or stands not in its index;
- a page is about a code that no code gives any more;
- a page does not say what happened and what to do;
- a relative link in a .md file leads nowhere, or to a heading that is not there;
- a `linkspan` command in a .md file is none of the command line's, or the reverse: a command has no line in docs/cli.md;
- a crate or a dependency is missing from ARCHITECTURE.md;
- a filter, a metric, or a variable of the environment is missing from its page.
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ERRORS = ROOT / "docs" / "errors"

SLUG = r"[a-z][a-z_]*\.[a-z][a-z_]*"
# Codes stand as the first dotted slug in the arguments of what makes a problem, a refusal or a step's error …
MAKERS = re.compile(
    r"\b(?:Problem::new|Problem::unavailable|Self::new|Self::unavailable|Refused::new|RenderFault::new|bad_request|"
    r"failed|failure|StepError::new|step_error)\s*\((?P<arguments>[^;{}]{0,200})"
)
# … or as the value of a field that is called `code` …
FIELDS = re.compile(rf'\bcode:\s*"({SLUG})"')
# … or in a function that is called `code`.
FUNCTIONS = re.compile(r"\bfn code\(&self\)[^{]*\{(?P<body>.*?)\n    \}", re.S)
QUOTED = re.compile(rf'"({SLUG})"')

# What looks like a code and is none: paths of fields in documents and roots of pills.
PATHS = re.compile(r"^(?:spec|to|from|limits|basic|sqlite|dedupe|trigger|steps|order|timeouts)\.")
# Given by the model, and turned into response.unreadable before anyone sees them; and paths of pills and fields.
INSIDE = {"response.not_json", "response.not_xml", "response.not_text", "response.packed", "job.id", "job.recipe", "job.attempt", "job.test", "request.connection"}
# Variables that are no setting: the client's own stand in docs/cli.md, and one exists for a test.
UNDOCUMENTED = {"LINKSPAN_URL", "LINKSPAN_UNSAFE_DURABILITY"}


def without_tests(text: str) -> str:
    """The text of a source file in front of its tests, without comments."""
    text = text.split("#[cfg(test)]\nmod tests", 1)[0]
    return re.sub(r"^\s*//.*$", "", text, flags=re.M)


def sources() -> list[Path]:
    found = ROOT.glob("crates/*/src/**/*.rs")
    return sorted(path for path in found if path.name != "tests.rs" and "tests" not in path.parts)


def codes() -> dict[str, set[str]]:
    """Every code, with the files that give it."""
    found: dict[str, set[str]] = {}
    families: set[str] = set()
    quoted: dict[str, set[str]] = {}
    for path in sources():
        text = without_tests(path.read_text(encoding="utf-8"))
        name = str(path.relative_to(ROOT))
        for match in MAKERS.finditer(text):
            if first := QUOTED.search(match["arguments"]):
                found.setdefault(first[1], set()).add(name)
        for match in FIELDS.finditer(text):
            found.setdefault(match[1], set()).add(name)
        for match in FUNCTIONS.finditer(text):
            for code in QUOTED.findall(match["body"]):
                found.setdefault(code, set()).add(name)
        for code in QUOTED.findall(text):
            quoted.setdefault(code, set()).add(name)
    found = {code: files for code, files in found.items() if not PATHS.match(code)}
    # A family that is known makes the rest of its slugs codes too, wherever they stand.
    families = {code.split(".")[0] for code in found}
    for code, files in quoted.items():
        if code.split(".")[0] in families and not PATHS.match(code):
            found.setdefault(code, set()).update(files)
    return {code: files for code, files in found.items() if code not in INSIDE}


def check_errors() -> list[str]:
    faults = []
    given = codes()
    pages = {path.stem for path in ERRORS.glob("*.md")} - {"index"}
    index = (ERRORS / "index.md").read_text(encoding="utf-8")
    for code in sorted(given.keys() - pages):
        faults.append(f"docs/errors/{code}.md is missing; {', '.join(sorted(given[code]))} gives this code")
    for code in sorted(pages - given.keys()):
        faults.append(f"docs/errors/{code}.md is about a code that no code gives")
    for code in sorted(pages):
        text = (ERRORS / f"{code}.md").read_text(encoding="utf-8")
        if not text.startswith(f"# {code}\n"):
            faults.append(f"docs/errors/{code}.md does not begin with its code")
        for heading in ("## What happened", "## What to do"):
            if heading not in text:
                faults.append(f"docs/errors/{code}.md has no heading `{heading}`")
        if f"({code}.md)" not in index:
            faults.append(f"docs/errors/index.md does not list {code}")
    return faults


def pages() -> list[Path]:
    skipped = {"target", ".git", "node_modules", "data"}
    return sorted(path for path in ROOT.rglob("*.md") if not skipped.intersection(path.relative_to(ROOT).parts))


def prose(text: str) -> str:
    """A page without its fences and code spans."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M))


def anchors(path: Path) -> set[str]:
    found = set()
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.S | re.M)
    for heading in re.findall(r"^#+ +(.+?) *$", text, flags=re.M):
        plain = re.sub(r"[^\w\- ]", "", heading.lower())
        found.add(plain.replace(" ", "-"))
    return found


def check_links() -> list[str]:
    faults = []
    for page in pages():
        for target in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text(encoding="utf-8"))):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            path = (page.parent / name).resolve() if name else page
            where = page.relative_to(ROOT)
            if not path.exists():
                faults.append(f"{where}: the link to {target} leads nowhere")
            elif anchor and path.suffix == ".md" and anchor not in anchors(path):
                faults.append(f"{where}: {name or 'this page'} has no heading #{anchor}")
    return faults


def commands() -> set[str]:
    """The first words of the command line, from its declaration."""
    text = (ROOT / "crates/app/src/cli.rs").read_text(encoding="utf-8")
    body = text.split("enum Command {", 1)[1].split("\n}", 1)[0]
    return {name.lower() for name in re.findall(r"^    ([A-Z]\w+)", body, flags=re.M)}


def check_commands() -> list[str]:
    faults = []
    known = commands()
    for page in pages():
        text = page.read_text(encoding="utf-8")
        shown = "\n".join(re.findall(r"^```(?:sh|console)\n(.*?)^```", text, flags=re.S | re.M))
        shown += "\n" + "\n".join(re.findall(r"`(linkspan [^`\n]+)`", text))
        for word in re.findall(r"(?:^|[$|(;&]\s*|\bdo |\"\$\()linkspan ([a-z][a-z-]*)", shown, flags=re.M):
            if word not in known | {"help"}:
                faults.append(f"{page.relative_to(ROOT)}: `linkspan {word}` is no command")
    text = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    for name in sorted(known):
        if f"linkspan {name}" not in text:
            faults.append(f"docs/cli.md says nothing about `linkspan {name}`")
    return faults


def check_crates() -> list[str]:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    names = sorted(path.parent.name for path in ROOT.glob("crates/*/Cargo.toml"))
    faults = [f"ARCHITECTURE.md says nothing about crates/{name}" for name in names if f"`{name}`" not in text]
    dependencies = set()
    for manifest in ROOT.glob("crates/*/Cargo.toml"):
        with manifest.open("rb") as file:
            tables = tomllib.load(file)
        dependencies |= tables.get("dependencies", {}).keys() | tables.get("dev-dependencies", {}).keys()
    table = text.split("## Dependencies", 1)[1]
    for name in sorted(dependencies):
        if not name.startswith("linkspan-") and not re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", table):
            faults.append(f"ARCHITECTURE.md gives no reason for the dependency {name}")
    return faults


def check_names() -> list[str]:
    """Filters, metrics and variables, each on its page."""
    code = {path: without_tests(path.read_text(encoding="utf-8")) for path in sources()}
    everything = "\n".join(code.values())
    filters = code[ROOT / "crates/model/src/template/filters.rs"]
    listed = filters.split("static FILTERS", 1)[1].split("};", 1)[0]
    aliases = filters.split("const ALIASES", 1)[1].split("];", 1)[0]
    wanted = {
        "docs/recipes.md": set(re.findall(r'^    "(\w+)" \d', listed, flags=re.M)) | set(re.findall(r'\("(\w+)",', aliases)),
        "docs/operate.md": set(re.findall(r'!\(\s*"(linkspan_\w+)"', everything))
        | set(re.findall(r'"(LINKSPAN_\w+)"', everything)) - UNDOCUMENTED,
    }
    faults = []
    for page, names in wanted.items():
        text = (ROOT / page).read_text(encoding="utf-8")
        faults += [f"{page} says nothing about {name}" for name in sorted(names) if not re.search(rf"\b{name}(?![A-Za-z0-9_])", text)]
    return faults


def main() -> int:
    faults = check_errors() + check_links() + check_commands() + check_crates() + check_names()
    for fault in faults:
        print(fault, file=sys.stderr)
    if not faults:
        print(f"{len(codes())} codes and {len(pages())} pages agree")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
