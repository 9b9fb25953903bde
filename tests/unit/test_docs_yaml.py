"""Examples of YAML in the docs: each is what a workspace may say, whole or in part."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from groundplan.catalog.base import Strict
from groundplan.catalog.model import KINDS
from groundplan.catalog.reader import read_documents

ROOT = Path(__file__).parents[2]
ELSEWHERE = ("scrape_configs", "supersedes")
"""In what is no part of a workspace: Prometheus' own file, and what a document says of itself."""
CUT_SHORT = "digest"
"""Its value is shown by its beginning."""


def examples() -> list[tuple[str, dict[str, Any]]]:
    """Each with its file."""
    found = []
    for file in [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]:
        for block in re.findall(r"```yaml\n(.*?)```", file.read_text(encoding="utf-8"), re.DOTALL):
            documents, problems = read_documents(file.name, block)
            assert not problems, (file.name, problems)
            found += [(file.name, document.value) for document in documents]
    return [(name, value) for name, value in found if not any(key in value for key in ELSEWHERE)]


def wrong_in(kind: str, value: dict[str, Any]) -> list[str]:
    """What is wrong with what it says; what it leaves out is in another example, or in the reader's workspace."""
    try:
        KINDS[kind].model_validate({"kind": kind, **value})
    except ValidationError as error:
        wrong = [detail for detail in error.errors() if detail["type"] != "missing" and CUT_SHORT not in detail["loc"]]
        return [f"{detail['loc']}: {detail['msg']}" for detail in wrong]
    return []


def keys_of(model: type[Strict]) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


def test_every_example_in_the_docs_is_understood() -> None:
    told = examples()
    assert len(told) > 25
    for name, value in told:
        possible = [kind for kind in KINDS if value.keys() <= keys_of(KINDS[kind])]
        wrong = {kind: wrong_in(kind, value) for kind in ([value["kind"]] if "kind" in value else possible)}
        assert wrong and not all(wrong.values()), (name, value, wrong)
