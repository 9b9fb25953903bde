"""What `check` advises for the mistakes that a newcomer makes, and that no hint is a regular expression."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.test_catalog_loader import SMALLEST

from groundplan.catalog.check import validate, validate_files
from groundplan.catalog.model import KINDS
from groundplan.catalog.value_hints import PATTERNS
from groundplan.core.errors import Invalid
from groundplan.core.words import closest_name


def hints_after(old: str, new: str) -> dict[str, str]:
    """code -> hints of the problems of the smallest workspace with `new` for `old`."""
    assert old in SMALLEST
    with pytest.raises(Invalid) as caught:
        validate_files({"a.yaml": SMALLEST.replace(old, new, 1)})
    problems = caught.value.problems
    return {each.code: " ".join(one.hint for one in problems if one.code == each.code) for each in problems}


@pytest.mark.parametrize(
    ("old", "new", "code", "hint"),
    [
        ("key: env:AZURE_KEY", "api_key: env:AZURE_KEY", "unknown_key", "Did you mean key?"),
        ("url: https:", "base_url: https:", "unknown_key", "Did you mean url?"),
        ("stage: pilot", "stage: pilot\nmax_tokens: 100", "unknown_key", "Write it below limits: max_output."),
        ("stage: pilot", "stage: pilot\nexpires: 2027-01-31", "unknown_key", "Write it below limits: expires."),
        ("stage: pilot", "stage: pilot\nlimits: {max_tokens: 9}", "unknown_key", "Did you mean max_output?"),
        ("stage: pilot", "stage: pilot\ncolour: red", "unknown_key", "docs/workspace.md explains those of each"),
        ("stage: pilot", "stage: prod", "unknown_value", "Did you mean production?"),
        ("stage: pilot", "stage: pilot\ncache: true", "wrong_type", "Write keys and values below it: answers, ttl"),
        ("limit: 200 USD/month", "limit: 200 USD/month\nhard: no", "wrong_type", "Write true or false."),
        ("covers: workload/", "covers: workloads/", "invalid_value", "Write company, team/NAME, workload/NAME"),
        ("key: env:AZURE_KEY", "key: env:azure-key", "secret_not_reference", "only letters, digits and underscores"),
        ("key: env:AZURE_KEY", "key: env: AZURE_KEY", "yaml_syntax", "a reference has no space: env:NAME"),
        ("key: env:AZURE_KEY", "key: env:AZURE_KEY\nprice: 0.15", "invalid_value", "Write free, or {input:"),
        ("owners: {business", "owners:\n\tx: {business", "yaml_syntax", "Indent with spaces"),
        ("stage: pilot", "stage:pilot", "yaml_syntax", "Write a space after each colon"),
        ("business: ana@acme.example", "business: @ana", "yaml_syntax", "into quotes"),
        ("---\nkind: budget", "kind: budget", "duplicate_key", "Write a line --- before it"),
    ],
)  # fmt: skip
def test_a_hint_says_what_to_write(old: str, new: str, code: str, hint: str) -> None:
    found = hints_after(old, new)
    assert hint in found[code], found


def test_a_nameless_workload_is_not_among_the_known_names() -> None:
    hint = hints_after("name: staff-assistant\npurpose", "purpose")["unknown_workload"]
    assert hint == "No workload is declared."


def patterns_of(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(schema.get("pattern"), str):
            yield schema["pattern"]
        for each in schema.values():
            yield from patterns_of(each)
    elif isinstance(schema, list | tuple):
        for each in schema:
            yield from patterns_of(each)


def test_every_form_of_a_text_has_a_hint_in_words() -> None:
    used = {pattern for kind in KINDS.values() for pattern in patterns_of(kind.__pydantic_core_schema__)}
    assert len(used) > 25
    assert sorted(used - PATTERNS.keys()) == []


def test_a_beginning_finds_its_only_ending() -> None:
    assert closest_name("prod", ["proposed", "pilot", "production"]) == "production"
    assert closest_name("propos", ["proposed", "proposal"]) == "proposed", "several begin so: the most similar one"
    assert closest_name("zz", ["zzz-long-name"]) is None


def test_a_company_in_a_file_that_cannot_be_read_is_not_said_to_be_missing(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(SMALLEST.encode() + b"# caf\xe9\n")
    with pytest.raises(Invalid) as caught:
        validate(tmp_path)
    assert [problem.code for problem in caught.value.problems] == ["not_utf8"]
