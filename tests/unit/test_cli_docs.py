"""docs/cli.md tells what the program has: every command, every exit code, and shells complete the same names.

What README and docs lead to is there.
"""

from __future__ import annotations

import ast
import functools
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from groundplan.catalog.check import validate
from groundplan.cli.main import app
from groundplan.core import errors
from groundplan.core.settings import VARIABLE_NAMES

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
PAGES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")))
NO_ROUTES = ("/api/openapi.json", "/api/access/access.cedar", "/api/chat", "/api/replay", "/api/scim/v2")
"""What describes the API, a file, a path of Ollama, one between our own processes, and the front of a directory."""
AROUND = """\
{kind: company, name: acme, format: 1}
---
{kind: site, name: azure-sweden, type: cloud, jurisdiction: EU}
---
{kind: deployment, name: gpt-eu, site: azure-sweden, model: openai/gpt-4.1-mini, url: https://acme.example/openai/v1,
 key: env:AZURE_KEY}
---
{kind: source, name: handbook, path: ./handbook, sensitivity: internal, owner: dana@acme.example, readers: [everyone]}
"""
"""What the workload of the README needs beside it."""
LINK = re.compile(r"""\]\(([^)#\s]+)|(?:src|srcset)="([^"]+)\"""")


def commands() -> list[str]:
    """`up`, `keys create`, ...: every command and every command of a group."""
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    context = root.context_class(root)
    found: list[str] = []
    for name in root.list_commands(context):
        command = root.get_command(context, name)
        inner = command.list_commands(context) if isinstance(command, TyperGroup) else []
        found += [f"{name} {one}" for one in inner] or [name]
    return found


@functools.cache
def options() -> dict[str, list[str]]:
    """command -> what it takes, as help has it: `knowledge index build` too, and groups; the program itself has no
    name."""
    root = typer.main.get_command(app)
    assert isinstance(root, TyperGroup)
    context = root.context_class(root)
    found: dict[str, list[str]] = {}
    waiting: list[tuple[str, Any]] = [("", root)]
    while waiting:
        name, command = waiting.pop()
        if isinstance(command, TyperGroup):
            inner = command.list_commands(context)
            waiting += [(f"{name} {one}".strip(), command.get_command(context, one)) for one in inner]
        found[name] = [word for option in command.params for word in (*option.opts, *option.secondary_opts)]
    return found


def misled(line: str, known: dict[str, list[str]]) -> list[str]:
    """What in a command line (without `groundplan`) there is not: its command, or options of it."""
    words = [word.strip("[].,;|'") for word in line.split()]
    length = next((n for n in (3, 2, 1) if " ".join(words[:n]) in known), 0)
    if not length and re.fullmatch(r"[a-z]+", words[0]):
        return words[:1]
    takes = {*known[" ".join(words[:length])], "--help"}
    return [word for word in words[length:] if re.match(r"-{1,2}[a-z]", word) and word.split("=")[0] not in takes]


def documented(command: str) -> bool:
    """Commands of one group may share a row: `people list`, `add`, `leave`."""
    group, _, name = command.partition(" ")
    rows = [row for row in DOCUMENT.splitlines() if row.startswith("| ")]
    told = [set(re.findall(r"[\w-]+", " ".join(re.findall(r"`([^`]+)`", row.split("|")[1])))) for row in rows]
    return any(group in words and (not name or name in words) for words in told)


@pytest.mark.parametrize("command", commands())
def test_every_command_is_documented(command: str) -> None:
    assert documented(command), f"docs/cli.md has no row for `{command}`"


def test_a_command_that_there_is_not_is_not_taken_for_documented() -> None:
    assert not documented("keys frobnicate") and not documented("frobnicate")


def test_every_command_gives_json_to_who_asks() -> None:
    known = options()
    groups = {name.rpartition(" ")[0] for name in known if name}
    assert [name for name, takes in known.items() if name not in groups and "--json" not in takes] == []


def test_a_reason_is_given_by_the_same_option_everywhere() -> None:
    takes_reasons = {name: takes for name, takes in options().items() if "--reason" in takes}
    assert [name for name, takes in takes_reasons.items() if "-m" not in takes] == []
    assert {"knowledge delete", "kill", "approve", "rollback"} <= takes_reasons.keys()


def test_what_every_command_takes_comes_last_in_its_help() -> None:
    last = {name: [word for word in takes if word in ("--home", "--json")] for name, takes in options().items()}
    assert [name for name, takes in options().items() if takes[len(takes) - len(last[name]) :] != last[name]] == []
    assert last["keys create"] == last["experiments start"] == last["cost book"] == ["--home", "--json"]


@pytest.mark.parametrize("page", PAGES)
def test_what_is_to_be_typed_exists(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    told = re.findall(r"`groundplan ([^`]+)`", text)
    told += re.findall(r"^ *(?:\.venv/bin/)?groundplan ([a-z][^#\n&]*)", text, re.MULTILINE)
    known = options()
    assert [(line, wrong) for line in told if (wrong := misled(line, known))] == []


def unparsed(line: str, *, whole: bool) -> str:
    """Why the program would refuse a command line (without `groundplan`); empty where it takes it. What may be left out
    (`[--ab]`) is left in; of alternatives (`list | show ID`) each is tried. `whole`: it has all that it needs."""
    first, *others = re.split(r" \| (?=[a-z])", re.sub(r" > \S+$", "", line).replace("[", "").replace("]", ""))
    command, words = typer.main.get_command(app), shlex.split(first)
    taken: list[str] = []
    context = command.make_context("groundplan", [], resilient_parsing=True)
    while isinstance(command, TyperGroup) and words and (inner := command.get_command(context, words[0])):
        taken.append(words.pop(0))
        command = inner
    if taken and (words or whole):
        try:
            command.make_context("groundplan", [re.sub(r"^N$", "1", word) for word in words])
        except TyperException as error:
            if whole or not re.search(r"^Missing|requires an argument", str(error)):
                return str(error)
    group = " ".join(taken[:-1])
    return next(filter(None, (unparsed(f"{group} {other}", whole=whole) for other in others)), "")


@pytest.mark.parametrize("page", PAGES)
def test_what_is_to_be_typed_is_taken_as_it_is_written(page: str) -> None:
    """What stands on a line of its own with all that it needs; a name in a sentence may leave that out."""
    text = (ROOT / page).read_text(encoding="utf-8")
    lines = re.findall(r"^ *(?:\.venv/bin/)?groundplan ([a-z][^#\n&]*)", text, re.MULTILINE)
    wrong = [(line, why) for line in lines if (why := unparsed(line.strip(), whole=True))]
    named = [line for line in re.findall(r"`groundplan ([^`]+)`", text) if line not in lines]
    wrong += [(line, why) for line in named if (why := unparsed(line, whole=False))]
    assert wrong == []


def test_a_command_line_that_is_refused_is_found() -> None:
    assert "No such option" in unparsed("keys create --workload W --colour red", whole=True)
    assert "Missing" in unparsed("keys create", whole=True) and not unparsed("keys create", whole=False)
    assert "extra" in unparsed("status now", whole=False)
    assert "integer" in unparsed("placement ahead --months x", whole=False)
    assert not unparsed("experiments list | show ID | stop ID", whole=True)
    assert "Missing" in unparsed("experiments list | show", whole=True)


@pytest.mark.parametrize("page", PAGES)
def test_every_route_of_the_api_that_is_named_exists(page: str) -> None:
    asked = json.loads((ROOT / "src/groundplan/api/access/routes.json").read_text(encoding="utf-8"))
    routes = [route.partition(" ") for told in asked.values() for route in told]
    known = {(method, re.sub(r"{[^}]*}", "*", path)) for method, _, path in routes}
    wrong = []
    for method, path in re.findall(r"(?:\b([A-Z]{3,6}) )?(/api/[\w/{}.-]+)", (ROOT / page).read_text(encoding="utf-8")):
        parts = re.sub(r"{[^}]*}", "X", path).rstrip("./").split("/")
        fits = [of for of, told in known if len(told.split("/")) >= len(parts)
                and all(one in (other, "*") for one, other in zip(told.split("/"), parts, strict=False))]  # fmt: skip
        wrong += [] if path in NO_ROUTES or (method in fits if method else fits) else [f"{method} {path}"]
    assert wrong == []


def quoted_commands(text: str) -> list[str]:
    """What is to be typed by strings of a program, in the order of its lines; what is filled in is a name."""
    found = []
    for node in ast.walk(ast.parse(text)):
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        filled = "".join(
            each.value if isinstance(each, ast.Constant) and isinstance(each.value, str) else "NAME" for each in parts
        )
        if isinstance(node, ast.JoinedStr | ast.Constant):
            found += re.findall(r"`groundplan ([^`]+)`", filled)
    return found


def test_what_errors_and_findings_say_to_type_exists() -> None:
    """A hint is followed word by word."""
    known, told = options(), []
    for file in sorted((ROOT / "src").rglob("*.py")):
        text = file.read_text(encoding="utf-8")
        told += [(file.name, line) for line in (quoted_commands(text) if "`groundplan " in text else ())]
    assert len(told) > 100
    assert [(name, line) for name, line in told if misled(line, known)] == []
    assert quoted_commands('f"see `groundplan keys {x} --frob`"') == ["keys NAME --frob"]


def test_a_command_line_that_there_is_not_is_found() -> None:
    known = options()
    assert misled("keys create --workload W --colour red", known) == ["--colour"]
    assert misled("frobnicate --home X", known) == ["frobnicate"]
    assert misled("knowledge index build --frob", known) == ["--frob"]
    assert misled("COMMAND --help", known) == []


def strayed(text: str) -> list[str]:
    """Places of the console that a text names (`Governance, Rules`) and that are not among its tabs."""
    templates = ROOT / "src" / "groundplan" / "console" / "templates"
    tabs = {
        entry: re.findall(r'"/[^"]*", "([^"]+)"', (templates / f"{entry.lower()}_nav.html").read_text(encoding="utf-8"))
        for entry in ("Cost", "Governance", "Knowledge")
    }
    named = re.findall(r"\b(Cost|Governance|Knowledge)(?:, | > )(?!USD)([A-Z][\w-]+(?: [a-z]+){0,2})", text)
    return [f"{entry}, {tab}" for entry, tab in named if not any(tab.startswith(known) for known in tabs[entry])]


def test_places_of_the_console_that_are_named_are_there() -> None:
    files = [*sorted((ROOT / "src").rglob("*.py")), *(ROOT / page for page in PAGES)]
    assert [(file.name, lost) for file in files if (lost := strayed(file.read_text(encoding="utf-8")))] == []
    assert strayed("under Knowledge, Shared with me, or Governance, Who decides") == ["Knowledge, Shared with me"]


def test_every_exit_code_of_an_error_is_documented() -> None:
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", DOCUMENT, re.MULTILINE)}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert {kind.exit_code for kind in kinds if issubclass(kind, errors.GroundplanError)} <= told
    assert {0, 2, 130} <= told


def test_every_environment_variable_is_documented() -> None:
    table = DOCUMENT.partition("## Environment variables")[2].partition("\n## ")[0]
    rows = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    assert sorted(name for row in rows for name in re.findall(r"`(\w+)`", row)) == sorted(VARIABLE_NAMES)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [("groundplan st", "status"), ("groundplan keys cr", "create"), ("groundplan up --gateway", "--gateway-workers")],
)
def test_shells_complete_commands_and_options(words: str, wanted: str) -> None:
    environment = {
        **os.environ, "_GROUNDPLAN_COMPLETE": "complete_bash", "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }  # fmt: skip
    program = "import sys; sys.argv = ['groundplan']; from groundplan.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    assert wanted in done.stdout.split(), done


@pytest.mark.parametrize("page", PAGES)
def test_every_link_within_the_repository_leads_somewhere(page: str) -> None:
    found = [one or other for one, other in LINK.findall((ROOT / page).read_text(encoding="utf-8"))]
    local = [link for link in found if not link.startswith(("http://", "https://", "mailto:"))]
    assert [link for link in local if not ((ROOT / page).parent / link).exists()] == []
    assert local or page != "README.md"


def anchors(page: Path) -> set[str]:
    """What `#...` may name in a page: its headings as GitHub writes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_every_anchor_names_a_heading(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    found = [(path, anchor) for path, anchor in re.findall(r"\]\(([^)#\s:]*)#([^)\s]+)\)", text)]
    assert [(path, anchor) for path, anchor in found
            if anchor not in anchors((ROOT / page).parent / path if path else ROOT / page)] == []  # fmt: skip


def test_headings_become_anchors_as_on_github(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# Model routing\n## `auto`: what it does\n```\n# no heading\n```\n")
    assert anchors(tmp_path / "a.md") == {"model-routing", "auto-what-it-does"}


def benchmark_options(name: str) -> set[str]:
    """What a benchmark takes: of its own, and of the module that it starts."""
    text = (ROOT / "benchmarks" / f"{name}.py").read_text(encoding="utf-8")
    takes = set(re.findall(r"""add_argument\(\s*"(--[\w-]+)\"""", text))
    return takes.union(*map(benchmark_options, re.findall(r'run_module\("benchmarks\.(\w+)"', text)))


@pytest.mark.parametrize("page", PAGES)
def test_every_benchmark_that_is_to_be_run_exists_and_takes_what_is_said(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    wrong = [f"benchmarks/{name}" for name in re.findall(r"benchmarks/(\w+\.py)", text)
             if not (ROOT / "benchmarks" / name).exists()]  # fmt: skip
    for name, rest in re.findall(r"`(?:python )?(?:benchmarks/)?(\w+)\.py ([^`]*)`", text):
        if (ROOT / "benchmarks" / f"{name}.py").exists():
            takes = benchmark_options(name)
            wrong += [f"{name} {word}" for word in re.findall(r"(?<![\w-])--[\w-]+", rest) if word not in takes]
    assert wrong == []


def test_every_row_of_a_table_has_as_many_cells_as_its_head() -> None:
    wrong, cells = [], 0
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for row in text.splitlines():
            found = len(re.findall(r"(?<!\\)\|", row)) if row.startswith("|") else 0
            wrong += [(page, row)] if cells and found not in (0, cells) else []
            cells = found and (cells or found)
    assert wrong == []


def test_the_readme_leads_to_every_page_and_tells_the_layers() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    led = {link for pair in LINK.findall(readme) for link in pair if link}
    pages = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}
    assert sorted(pages - led) == []
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    assert sorted(pages - {"docs/README.md"} - {f"docs/{link}" for link, _ in LINK.findall(index)}) == []
    layers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]
    told = [re.findall(r"`(\w+)`", row.split("|")[1]) for row in readme.partition("## For developers")[2].splitlines()
            if row.startswith("| `")]  # fmt: skip
    assert told == [re.findall(r"groundplan\.(\w+)", layer) for layer in layers]


def prose(page: str) -> list[str]:
    """The paragraphs and points of a page, without links, tables and code."""
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    told = re.split(r"\n\s*\n|\n(?= *(?:- |\d+\. |\|))", re.sub(r"\]\([^)]*\)", "]", text))
    return [part.strip() for part in told if part.strip() and not part.strip().startswith("|")]


@pytest.mark.parametrize("page", [page for page in PAGES if "/adr/" not in page])
def test_a_page_says_first_what_it_is_about_and_has_paragraphs_that_can_be_taken_in(page: str) -> None:
    title, opening, *_ = parts = prose(page)
    assert title.startswith("# ") and not opening.startswith(("#", "-"))
    assert [f"{len(part)}: {part[:60]}" for part in parts if len(part) > 1_200] == []


def test_every_complaint_has_its_test() -> None:
    rows = re.findall(r"^\|.*\| `(test_[a-z0-9_]+)`", (ROOT / "docs" / "complaints.md").read_text(), re.MULTILINE)
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(rows) >= 24 and [name for name in rows if f"def {name}(" not in sources] == []


def test_the_workload_of_the_readme_is_in_order(tmp_path: Path) -> None:
    declared = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "handbook").mkdir()
    (tmp_path / "all.yaml").write_text("\n---\n".join([AROUND, *declared]))
    workspace = validate(tmp_path, known_price=lambda _: True)
    assert list(workspace.workloads) == ["staff-assistant"] and list(workspace.budgets) == ["staff-assistant"]


def test_commands_of_the_readme_exist() -> None:
    known = {command.partition(" ")[0] for command in commands()}
    told = re.findall(r"\.venv/bin/groundplan ([a-z]+)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(told) > 5 and set(told) <= known
