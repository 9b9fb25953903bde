"""docs/errors.md has the codes that callers of the gateway get, each with the status that comes with it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from groundplan.core import errors

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "groundplan"
PAGE = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
COMPLETE = (
    "gateway/call/identify.py", "gateway/call/admit.py", "gateway/call/limit_report.py", "gateway/policy/grants.py",
    "gateway/policy/client_address.py", "gateway/call/attempts/sequence.py",
)  # fmt: skip
"""Modules all of whose codes are on the page."""
KINDS = {
    name: kind.status
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, errors.GroundplanError)
}


def raised(file: Path) -> set[tuple[int, str]]:
    """(status, code) of the errors that a module makes, by their classes, or by `Refusal(status, code, ...)`."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    constants = {
        name.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for name in node.targets
        if isinstance(name, ast.Name)
    }
    found = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        first, *rest = [each.value for each in node.args if isinstance(each, ast.Constant)] or [None]
        if isinstance(node.func, ast.Name) and node.func.id == "Refusal" and isinstance(first, int):
            found.add((first, str(rest[0])))
            continue
        made = node.func.body if isinstance(node.func, ast.IfExp) else node.func
        status = KINDS.get(made.id) if isinstance(made, ast.Name) else None
        for word in node.keywords if status is not None else ():
            values = [word.value.body, word.value.orelse] if isinstance(word.value, ast.IfExp) else [word.value]
            for value in values if word.arg == "code" else ():
                code = value.value if isinstance(value, ast.Constant) else constants.get(getattr(value, "id", ""))
                if isinstance(code, str) and status is not None:
                    found.add((status, code))
    return found


def documented() -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    for row in re.findall(r"^\| (\d.*?) \|", PAGE, re.MULTILINE):
        for part in re.findall(r"(\d{3})((?:[ ,]+`[a-z_]+`)+)", row):
            found += [(int(part[0]), code) for code in re.findall(r"`([a-z_]+)`", part[1])]
    return found


def test_every_documented_error_is_raised_with_its_status() -> None:
    known = {pair for place in ("gateway", "governance") for file in (SOURCE / place).rglob("*.py")
             for pair in raised(file)}  # fmt: skip
    assert len(documented()) > 50
    assert [pair for pair in documented() if pair not in known] == []


@pytest.mark.parametrize("name", COMPLETE)
def test_every_error_of_the_way_of_a_call_is_documented(name: str) -> None:
    codes = {code for _, code in raised(SOURCE / name)}
    assert codes and codes - {code for _, code in documented()} == set()
