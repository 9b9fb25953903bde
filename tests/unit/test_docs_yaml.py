"""Examples of YAML in the docs: each is what a workspace may say, whole or in part."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import textwrap
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from groundplan.catalog.base import Strict
from groundplan.catalog.check import validate
from groundplan.catalog.model import KINDS
from groundplan.catalog.reader import read_documents
from groundplan.catalog.schema import json_schema
from groundplan.core.errors import Invalid
from groundplan.knowledge.governance.inherit import parse_declared
from groundplan.knowledge.parsing.text import parse_mapping

ROOT = Path(__file__).parents[2]
ELSEWHERE = ("scrape_configs", "supersedes")
"""In what is no part of a workspace: Prometheus' own file, and what a document says of itself."""
CUT_SHORT = "digest"
"""Its value is shown by its beginning."""
AROUND = """\
{kind: company, name: acme, format: 1}
---
{kind: site, name: azure-sweden, type: cloud, jurisdiction: EU}
---
{kind: site, name: anthropic-eu, type: cloud, jurisdiction: EU}
---
{kind: site, name: openai-eu, type: cloud, jurisdiction: EU}
---
{kind: site, name: rack-1, type: private, jurisdiction: EU}
---
{kind: deployment, name: gpt-eu, site: azure-sweden, model: m, url: 'https://acme.example/openai/v1', key: env:KEY}
---
{kind: deployment, name: gpt-eu-2, site: azure-sweden, model: m, url: 'https://acme.example/openai/v1', key: env:KEY}
---
{kind: deployment, name: gpt-eu-mini, site: azure-sweden, model: n, url: 'https://acme.example/openai/v1', key: env:KEY}
---
{kind: deployment, name: other-eu, site: azure-sweden, model: o, url: 'https://acme.example/openai/v1', key: env:KEY}
---
{kind: deployment, name: mistral-eu, site: azure-sweden, model: p, url: 'https://acme.example/openai/v1', key: env:KEY}
---
{kind: source, name: handbook, path: ./handbook, sensitivity: internal, owner: dana@acme.example, readers: [everyone]}
---
{kind: workload, name: staff-assistant, purpose: Answer questions, audience: employees, stage: pilot,
 sensitivity: internal, residency: [EU], sources: [handbook], deployments: [gpt-eu, gpt-eu-mini, other-eu],
 owners: {business: ana@acme.example}}
---
{kind: workload, name: support-assistant, purpose: Answer customers, audience: customers, stage: pilot,
 sensitivity: internal, deployments: [gpt-eu], owners: {business: ana@acme.example}}
---
{kind: deployment, name: sorter, site: rack-1, model: r, type: rerank, url: 'https://acme.example/v1', key: env:KEY}
---
{kind: workload, name: sorting, purpose: Sort passages, audience: employees, stage: pilot, sensitivity: internal,
 residency: [EU], also: [sorter], owners: {business: ana@acme.example}}
---
{kind: deployment, name: embed-eu, site: rack-1, model: e, type: embeddings, url: 'https://acme.example/v1'}
---
{kind: workload, name: index, purpose: Embed passages, audience: employees, stage: pilot, sensitivity: internal,
 residency: [EU], embeddings: [embed-eu], owners: {business: ana@acme.example}}
"""
"""A reader's workspace, to which an example belongs."""
LEFT_OUT: dict[str, dict[str, Any]] = {
    "deployment": {"site": "azure-sweden", "model": "m", "url": "https://acme.example/v1"},
    "workload": {
        "name": "staff-assistant", "purpose": "Answer questions", "audience": "employees", "stage": "pilot",
        "sensitivity": "internal", "owners": {"business": "ana@acme.example"}, "sources": ["handbook"],
        "deployments": ["gpt-eu", "gpt-eu-mini", "other-eu"],
    },
    "framework": {"name": "nist-ai-rmf", "owner": "clara@acme.example"},
}  # fmt: skip
"""What examples of a name of their own do not say again."""


def blocks() -> list[tuple[str, list[dict[str, Any]]]]:
    """What each block of YAML declares, with its file."""
    found = []
    for file in [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]:
        for block in re.findall(r"```yaml\n(.*?)```", file.read_text(encoding="utf-8"), re.DOTALL):
            documents, problems = read_documents(file.name, block)
            assert not problems, (file.name, problems)
            found.append((file.name, [document.value for document in documents]))
    return [(name, block) for name, block in found if not any(key in value for value in block for key in ELSEWHERE)]


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


def kind_of(value: dict[str, Any]) -> str:
    """Its kind, else the first one that may say all of it."""
    possible = [value["kind"]] if "kind" in value else [kind for kind in KINDS if value.keys() <= keys_of(KINDS[kind])]
    wrong = {kind: wrong_in(kind, value) for kind in possible}
    assert wrong and not all(wrong.values()), (value, wrong)
    return next(kind for kind, problems in wrong.items() if not problems)


def workspace_with(block: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The reader's workspace with what the block declares in it: what it leaves out is as it was there."""
    documents, problems = read_documents("around", AROUND)
    assert not problems
    declared = {(document.value["kind"], document.value["name"]): document.value for document in documents}
    for value in block:
        kind = kind_of(value)
        name = (
            value.get("name")
            or LEFT_OUT.get(kind, {}).get("name")
            or next(of for kinds, of in declared if kinds == kind)
        )
        before = declared.get((kind, name), LEFT_OUT.get(kind, {}))
        kept = {key: each for key, each in before.items() if not (key == "path" and "connector" in value)}
        declared[kind, name] = {**kept, **value, "kind": kind, "name": name}
    for value in declared.values():
        if CUT_SHORT in value.get("routing", {}):
            value["routing"] = {**value["routing"], CUT_SHORT: "5f0c" * 16}
    covered = {value["covers"] for (kind, _), value in declared.items() if kind == "budget"}
    for name in [name for kind, name in declared if kind == "workload" and f"workload/{name}" not in covered]:
        declared["budget", f"of-{name}"] = {
            "kind": "budget", "name": f"of-{name}", "covers": f"workload/{name}", "limit": "50 USD/month",
        }  # fmt: skip
    return list(declared.values())


@pytest.mark.parametrize(("page", "block"), blocks())
def test_every_example_in_the_docs_passes_check(page: str, block: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "handbook").mkdir()
    (tmp_path / "all.yaml").write_text("\n---\n".join(json.dumps(value) for value in workspace_with(block)))
    checked = validate(tmp_path, known_price=lambda _: True)
    assert {value["name"] for value in block if kind_of(value) == "deployment"} <= set(checked.deployments), page


def test_the_docs_have_examples_and_a_wrong_one_is_found(tmp_path: Path) -> None:
    assert len(blocks()) > 25
    (tmp_path / "handbook").mkdir()
    wrong = [{"kind": "workload", "name": "support", "deployments": ["gpt-eu"], "fallbacks": ["nobody"]}]
    (tmp_path / "all.yaml").write_text("\n---\n".join(json.dumps(value) for value in workspace_with(wrong)))
    with pytest.raises(Invalid, match="deployment nobody is not declared"):
        validate(tmp_path, known_price=lambda _: True)


def fields_named(name: str) -> list[Any]:
    """Where a workspace may say that key, in any of its kinds and rules."""
    models: list[type[Strict]] = [Strict]
    for model in models:
        models += model.__subclasses__()
    return [field for model in models for of, field in model.model_fields.items() if (field.alias or of) == name]


def is_understood(name: str, value: Any) -> bool:
    """Whether that key may have this value somewhere; what it leaves out is not asked for."""
    for field in fields_named(name):
        try:
            TypeAdapter(field.rebuild_annotation()).validate_python(value)
        except ValidationError as error:
            if any(detail["type"] != "missing" for detail in error.errors()):
                continue
        return True
    return not fields_named(name)


INLINE = re.compile(r"(?<!`)`(\{?[a-z_]+: [^`\n]+)`")
ELSEWHERE_INLINE = {
    "active: false", "cache: exact", "cache: semantic", "cost: 310 EUR/month",
    "cache: {mode: simple, max_age}", "messages: tool_calls.function.arguments", "mode: realtime", "mode: responses",
    "mode: semantic",
}  # fmt: skip
"""Of SCIM, of answers, in another currency (read with the company's rates), of refusals, of LiteLLM and Portkey."""


def test_what_sentences_say_to_declare_is_understood() -> None:
    wrong, count = [], 0
    for file in [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]:
        text = re.sub(r"```.*?```", "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
        for line in set(INLINE.findall(text)) - ELSEWHERE_INLINE:
            if re.search(r"\b[A-Z]{2,}\b(?!/)(?<!USD)(?<!EU)|…|\.\.\.|\\\||: n}", line):
                continue  # to be filled in
            documents, problems = read_documents(file.name, line if line.startswith("{") else f"{{{line}}}")
            wrong += [(file.name, line)] if problems else []
            for document in documents:
                count += 1
                wrong += [(file.name, line) for name, value in document.value.items() if not is_understood(name, value)]
    assert wrong == [] and count > 90
    assert is_understood("answers", "exact") and not is_understood("answers", "exactly")


def blocks_in(language: str) -> list[tuple[str, str]]:
    """Blocks of code in a language, each with its file."""
    files = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]
    return [
        (file.name, textwrap.dedent(block)) for file in files
        for block in re.findall(rf"```{language}\n(.*?)```", file.read_text(encoding="utf-8"), re.DOTALL)
    ]  # fmt: skip


def test_what_a_document_says_of_itself_is_understood() -> None:
    (block,) = [block for _, block in blocks_in("yaml") if "supersedes:" in block]
    fronts = [re.split(r"^---$", block, flags=re.MULTILINE)[1] for _, block in blocks_in("markdown")]
    for text in (block, *fronts):
        told = parse_declared(parse_mapping(text, "example"), "example")
        assert told.values or told.readers, text
        assert not told.unknown, text
    assert fronts


@pytest.mark.parametrize(
    ("language", "read"),
    [
        ("python", ast.parse), ("toml", tomllib.loads),
        ("json", lambda text: [json.loads(line) for line in text.splitlines()]),
    ],
)  # fmt: skip
def test_code_in_other_languages_can_be_read(language: str, read: Callable[[str], object]) -> None:
    found = blocks_in(language)
    assert found
    for name, block in found:
        assert read(block), name


def test_what_is_to_be_typed_in_a_shell_is_its_grammar() -> None:
    text = "\n".join(re.sub(r"[\[\]]|\.\.\.", "", block) for _, block in blocks_in("sh"))
    done = subprocess.run(["sh", "-n"], input=text, capture_output=True, text=True, timeout=30)
    assert text.count("groundplan") > 10 and (done.returncode, done.stderr) == (0, "")


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
