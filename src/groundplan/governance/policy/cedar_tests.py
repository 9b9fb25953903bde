"""Runs a folder of Cedar tests (policies, entities, a schema, requests) through the same code as everything else.

Each test is a JSON file that names the other files and the expected decision of every request. Only files inside the
folder are read.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groundplan.core.errors import Invalid
from groundplan.governance.policy import cedar
from groundplan.governance.policy.partial_evaluation import Facts, Uid

MAX_FILES = 200_000
MAX_BYTES = 16 << 20


@dataclass(slots=True)
class Outcome:
    """The results of a folder. `seconds`: time spent deciding, without reading and parsing."""

    requests: int = 0
    wrong: list[dict[str, Any]] = field(default_factory=list)
    denied_by_error: int = 0
    seconds: float = 0.0
    invalid: list[dict[str, Any]] = field(default_factory=list)
    """Tests whose policies fit their schema although they should not, or the other way round."""


def run_tests(folder: Path) -> Outcome:
    """Decide every request of every test in `folder`. Raises `Invalid` if a test cannot be read or there is none."""
    root = folder.resolve()
    if not root.is_dir():
        raise Invalid(f"there is no folder {folder}", code="cedar_folder", hint="Name a folder with Cedar tests.")
    outcome = Outcome()
    tests = 0
    for path in sorted(root.rglob("*.json"))[:MAX_FILES]:
        held = _json(path, root)
        if isinstance(held, dict) and "policies" in held and ("requests" in held or "queries" in held):
            tests += 1
            _run_test(root, path, held, outcome)
    if not tests:
        hint = 'A test is a JSON file with "policies", "entities" and "requests".'
        raise Invalid(f"there is no Cedar test in {folder}", code="cedar_folder", hint=hint)
    return outcome


def _run_test(root: Path, path: Path, held: dict[str, Any], outcome: Outcome) -> None:
    name = path.relative_to(root).as_posix()
    text = _read_referenced(root, path, held["policies"])
    schema_text = _read_referenced(root, path, held["schema"]) if held.get("schema") else None
    schema = cedar.parse_schema(schema_text) if schema_text is not None else None
    items = held.get("entities", "[]")
    entity_text = json.dumps(items) if isinstance(items, list) else _read_referenced(root, path, items)
    known = cedar.parse_entities(entity_text, schema)
    rules = cedar.Ruleset.of([cedar.Source(name, text, str(held["policies"]))])
    _check_validation(name, text, schema, held.get("shouldValidate"), outcome)
    world = EntityStore(json.loads(entity_text))
    for number, asked in enumerate(held.get("requests", held.get("queries", ()))):
        request = _request(asked, f"{name}: request {number}")
        begun = time.perf_counter()
        verdict = rules.narrow(world.facts(request)).decide(
            request, known, schema if asked.get("validateRequest", True) else None
        )
        outcome.seconds += time.perf_counter() - begun
        outcome.requests += 1
        outcome.denied_by_error += bool(verdict.errors)
        expected = str(asked.get("decision", asked.get("expect", ""))).lower()
        if expected != ("allow" if verdict.allowed else "deny"):
            mismatch = {
                "test": name,
                "request": number,
                "description": str(asked.get("description", "")),
                "expected": expected,
            }
            outcome.wrong.append({**mismatch, "errors": list(verdict.errors)})


def _check_validation(name: str, text: str, schema: Any, expected: bool | None, outcome: Outcome) -> None:
    if schema is None or expected is None:
        return
    found = cedar.validate_policies(text, schema)
    if bool(found) is expected:
        outcome.invalid.append({"test": name, "expected": expected, "problems": [problem for _, problem in found][:3]})


class EntityStore:
    """Entities as plain values, from which the facts of a request are known before it is decided."""

    def __init__(self, items: list[dict[str, Any]]) -> None:
        self._attributes: dict[Uid, dict[str, Any]] = {}
        self._parents: dict[Uid, list[Uid]] = {}
        for item in items:
            uid = _uid(item["uid"])
            self._attributes[uid] = item.get("attrs", {})
            self._parents[uid] = [_uid(parent) for parent in item.get("parents", ())]

    def facts(self, request: dict[str, Any]) -> Facts:
        """The principal's type, the action, and the resource with its ancestors. Those of an action are not known here:
        only a schema has them."""
        resource = _uid(request["resource"])
        plain = {k: v for k, v in self._attributes.get(resource, {}).items() if isinstance(v, str | int | bool)}
        return Facts(
            principal_types=frozenset((_uid(request["principal"])[0],)),
            action=_uid(request["action"]),
            resource=resource,
            resources_above=frozenset(self._above(resource)),
            attributes={} if resource not in self._attributes else plain,
        )

    def _above(self, uid: Uid) -> set[Uid]:
        found: set[Uid] = set()
        waiting = [uid]
        while waiting:
            for parent in self._parents.get(waiting.pop(), ()):
                if parent not in found:
                    found.add(parent)
                    waiting.append(parent)
        return found


def _request(asked: dict[str, Any], where: str) -> dict[str, Any]:
    made: dict[str, Any] = {"context": json.dumps(asked.get("context") or {})}
    for part in ("principal", "action", "resource"):
        said = asked.get(part)
        if said is None:
            hint = "Every request names a principal, an action and a resource."
            raise Invalid(f"the request has no {part}", code="cedar_test", hint=hint, where=where)
        made[part] = _entity(said, where)
    return made


def _entity(said: Any, where: str) -> dict[str, str]:
    if isinstance(said, str):
        kind, found, id = said.rpartition('::"')
        if found and id.endswith('"'):
            return {"type": kind, "id": id[:-1]}
    elif isinstance(said, dict):
        inner = said.get("__entity", said)
        if isinstance(inner.get("type"), str) and isinstance(inner.get("id"), str):
            return {"type": inner["type"], "id": inner["id"]}
    raise Invalid(
        "an entity needs a type and an id", code="cedar_test", hint='Write {"type": ..., "id": ...}.', where=where
    )


def _uid(said: Any) -> Uid:
    found = _entity(said, "entities")
    return found["type"], found["id"]


def _read_referenced(root: Path, test: Path, name: Any) -> str:
    """The text of a file that a test names relative to the folder, the test, or a folder between them."""
    for base in (root, *(parent for parent in test.parents if parent == root or root in parent.parents)):
        path = (base / str(name)).resolve()
        if path.is_file() and root in path.parents:
            return _text(path, root)
    where = test.relative_to(root).as_posix()
    raise Invalid(f"there is no file {name}", code="cedar_test", hint="Put it into the folder.", where=where)


def _text(path: Path, root: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise Invalid("the file is too large", code="cedar_test", hint="Make it smaller.", where=path.name)
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        where = path.relative_to(root).as_posix()
        raise Invalid(f"it cannot be read: {error}", code="cedar_test", hint="Correct it.", where=where) from error


def _json(path: Path, root: Path) -> Any:
    try:
        return json.loads(_text(path, root))
    except (ValueError, RecursionError) as error:
        where = path.relative_to(root).as_posix()
        raise Invalid(f"it is not JSON: {error}", code="cedar_test", hint="Correct it.", where=where) from error
