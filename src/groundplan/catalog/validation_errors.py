"""Converts validation errors of documents into problems with a message, a place and a hint.

Messages name keys only and never repeat values, since an invalid value may be a secret in the wrong place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from groundplan.catalog.model import KINDS, Strict
from groundplan.catalog.reader import Document, Path
from groundplan.catalog.value_hints import FOREIGN_KEYS, PATTERNS
from groundplan.core.errors import Invalid, Problem, Where
from groundplan.core.words import closest_name

_MOST_NAMES = 12
_TYPES = {
    "string_type": "Write text; put numbers and words such as true into quotes.",
    "bool_type": "Write true or false.",
    "int_type": "Write a whole number.",
    "float_type": "Write a number.",
    "dict_type": "Write keys and values below it.",
    "tuple_type": "Write a list: one line for each, with - before it.",
}
"""type of pydantic's error -> hint"""


def suggestion(word: str, known: Iterable[str], label: str) -> str:
    """Hint for an unknown word: the closest known name, else the first known names."""
    names = sorted(name for name in known if name)
    close = closest_name(word, names)
    if close is not None:
        return f"Did you mean {close}?"
    if not names:
        return f"No {label} is declared."
    return f"Known: {_listed(names)}."


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_MOST_NAMES])
    return f"{shown} and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else shown


def sort_problems(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Sort problems by file, line and column, without duplicates; those without a place first."""

    def sort_key(problem: Problem) -> tuple[str, int, int, str]:
        where = problem.where or Where("", 0, 0)
        return where.file, where.line, where.column, problem.message

    return tuple(sorted(dict.fromkeys(problems), key=sort_key))


def error_with_problems(problems: tuple[Problem, ...]) -> Invalid:
    """One error that carries all problems."""
    first = problems[0]
    others = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return Invalid(f"{first.message}{others}", code=first.code, hint=first.hint, where=first.where, problems=problems)


def unknown_kind_problem(document: Document) -> Problem:
    """Problem of a document whose `kind` is missing or unknown."""
    kind = document.value.get("kind")
    if kind is None:
        return Problem("the document has no kind", "kind_missing", f"One of {', '.join(KINDS)}.", document.where())
    return Problem(
        "the kind is not known", "kind_unknown", suggestion(str(kind), KINDS, "kind"), document.where(("kind",))
    )


def duplicate_problem(kind: str, name: str, second: Where, first: Where) -> Problem:
    """Problem of a name that is declared twice."""
    return Problem(
        f"{kind} {name} is declared twice, first at {first}", "duplicate_name", "Rename or remove one.", second
    )


def problems_from_pydantic(model: type[Strict], error: ValidationError, document: Document) -> list[Problem]:
    """One problem for each error of pydantic. A list with invalid items is not also reported as too short."""
    details = error.errors(include_url=False, include_input=False)
    parents = {each["loc"][:size] for each in details for size in range(len(each["loc"]))}
    reported = [each for each in details if each["type"] != "too_short" or each["loc"] not in parents]
    return list(dict.fromkeys(_problem(model, dict(detail), document) for detail in reported))


def _problem(model: type[Strict], detail: dict[str, Any], document: Document) -> Problem:
    path: Path = detail["loc"]
    label = ".".join(part for part in path if isinstance(part, str) and part != "[key]") or "the document"
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        hint = _unknown_key_hint(_model_at(model, path[:-1]), str(path[-1]), str(document.value["kind"]))
        return Problem(f"unknown key {label[:80]}", "unknown_key", hint, document.where(path, key=True))
    if kind == "missing":
        return Problem(f"{label} is missing", "missing_key", f"Add {label}: ...", document.where(path, key=True))
    where = document.where(path)
    if kind == "literal_error":
        allowed = _allowed_values(str(context.get("expected", "")))
        return Problem(f"{label} has an unknown value", "unknown_value", _value_hint(document, path, allowed), where)
    hint = _hint(kind, context, detail["msg"])
    if kind == "model_type":
        hint = f"Write keys and values below it: {_listed(_keys_of(_model_at(model, path)))}."
    return Problem(f"{label} is not valid", _code(kind, label), hint, where)


def _unknown_key_hint(model: type[BaseModel], key: str, kind: str) -> str:
    """Hint for a key that `model` does not have: the one meant, also by another tool's name or a level below."""
    keys = _keys_of(model)
    meant = FOREIGN_KEYS.get(key.lower(), key)
    if meant != key and meant in keys:
        return f"Did you mean {meant}?"
    if close := closest_name(key, keys):
        return f"Did you mean {close}?"
    for name, field in model.model_fields.items():
        if meant in {each for nested in _models_in(field.annotation) for each in _keys_of(nested)}:
            return f"Write it below {field.alias or name}: {meant}."
    more = f"; docs/workspace.md explains those of each {kind}" if len(keys) > _MOST_NAMES else ""
    return f"Known: {_listed(sorted(keys))}{more}."


def _allowed_values(expected: str) -> list[str]:
    return [word.strip().strip("'") for word in expected.replace(" or ", ", ").split(",") if word.strip()]


def _value_hint(document: Document, path: Path, allowed: list[str]) -> str:
    value: Any = document.value
    for part in path:
        value = value[part] if isinstance(value, dict) and part in value else value
    close = closest_name(value, allowed) if isinstance(value, str) else None
    return f"Did you mean {close}?" if close else f"One of: {', '.join(allowed)}."


def _code(kind: str, label: str) -> str:
    if label.rpartition(".")[2] == "key":
        return "secret_not_reference"
    return "wrong_type" if kind.endswith("_type") else "invalid_value"


def _hint(kind: str, context: dict[str, Any], message: str) -> str:
    if kind in _TYPES:
        return _TYPES[kind]
    if kind == "string_pattern_mismatch":
        return PATTERNS.get(str(context.get("pattern")), f"It must match {context.get('pattern')}.")
    if kind == "too_short":
        return f"Write at least {context['min_length']} of them."
    text = str(context["error"]) if "error" in context else message.removeprefix("Input should be ")
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _model_at(model: type[BaseModel], path: Path) -> type[BaseModel]:
    """The model of the mapping at `path`."""
    for part in path:
        for name, field in model.model_fields.items():
            if part in (name, field.alias):
                model = next(_models_in(field.annotation), model)
                break
    return model


def _keys_of(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]
