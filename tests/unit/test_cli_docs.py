"""docs/cli.md tells what the program has: every command, every exit code, and shells complete the same names.

What README and docs lead to is there.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from groundplan.cli.main import app
from groundplan.core import errors

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
PAGES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")))
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


def test_every_exit_code_of_an_error_is_documented() -> None:
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", DOCUMENT, re.MULTILINE)}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert {kind.exit_code for kind in kinds if issubclass(kind, errors.GroundplanError)} <= told
    assert {0, 2, 130} <= told


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


def test_commands_of_the_readme_exist() -> None:
    known = {command.partition(" ")[0] for command in commands()}
    told = re.findall(r"\.venv/bin/groundplan ([a-z]+)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(told) > 5 and set(told) <= known
