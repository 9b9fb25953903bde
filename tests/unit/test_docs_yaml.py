"""Examples of YAML in the docs: each is what a workspace may say, whole or in part."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from groundplan.catalog.base import Strict
from groundplan.catalog.check import validate
from groundplan.catalog.model import KINDS
from groundplan.catalog.reader import read_documents
from groundplan.catalog.schema import json_schema

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


@pytest.mark.parametrize("page", ["interfaces.md", "tasks.md", "transport.md"])
def test_deployments_in_the_docs_pass_check(page: str, tmp_path: Path) -> None:
    declared = [value for name, value in examples() if name == page and value.get("kind") == "deployment"]
    around = [{"kind": "company", "name": "acme"}]
    around += [
        {"kind": "site", "name": site, "type": "cloud", "jurisdiction": "EU"}
        for site in {value["site"] for value in declared}
    ]
    (tmp_path / "all.yaml").write_text("\n---\n".join(json.dumps(value) for value in (*around, *declared)))
    assert len(validate(tmp_path, known_price=lambda _: True).deployments) == len(declared) > 0


def test_every_default_is_told_as_it_would_be_written() -> None:
    models: list[type[Strict]] = [Strict]
    for model in models:
        models += model.__subclasses__()
    told = json_schema()["$defs"]
    found = [
        (field, told[model.__name__]["properties"][field.alias or name]["default"])
        for model in models if model.__name__ in told
        for name, field in model.model_fields.items()
        if "default" in told[model.__name__]["properties"].get(field.alias or name, {})
    ]  # fmt: skip
    assert [text for field, text in found
            if TypeAdapter(field.rebuild_annotation()).validate_python(text) != field.default] == []  # fmt: skip
    assert len(found) > 120 and {"30d", "100%", "64 MB", "0.05 USD/hour", 1024} <= {
        text for _, text in found if not isinstance(text, list)
    }
