"""Converts validation errors of documents into problems with a message, a place and a hint.

Messages name keys only and never repeat values, since an invalid value may be a secret in the wrong place.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from groundplan.catalog.allocation import COVERS
from groundplan.catalog.model import KINDS, Strict
from groundplan.catalog.reader import Document, Path
from groundplan.core.errors import Invalid, Problem, Where
from groundplan.core.words import closest_name

_PATTERNS = {
    r"^[a-z0-9][a-z0-9-]{0,62}$": "Use lower-case letters, digits and hyphens, such as staff-assistant.",
    r"^[A-Z][A-Z0-9-]{1,9}$": "Use capitals, such as EU, US or an ISO country such as NO.",
    r"^[^\x00-\x1f\x7f]+$": "Write one line without control characters.",
    COVERS: "Write company, team/NAME, workload/NAME, deployment/NAME or site/NAME.",
}


def suggestion(word: str, known: Iterable[str], label: str) -> str:
    """Hint for an unknown word: the closest known name, else the first known names."""
    names = sorted(known)
    close = closest_name(word, names)
    if close is not None:
        return f"Did you mean {close}?"
    if not names:
        return f"No {label} is declared."
    return f"Known: {', '.join(names[:12])}{' ...' if len(names) > 12 else ''}."


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
        allowed_keys = _keys_at(model, path[:-1])
        hint = suggestion(str(path[-1]), allowed_keys, "key")
        return Problem(f"unknown key {label[:80]}", "unknown_key", hint, document.where(path, key=True))
    if kind == "missing":
        return Problem(f"{label} is missing", "missing_key", f"Add {label}: ...", document.where(path, key=True))
    where = document.where(path)
    if kind == "literal_error":
        allowed = _allowed_values(str(context.get("expected", "")))
        return Problem(f"{label} has an unknown value", "unknown_value", _value_hint(document, path, allowed), where)
    return Problem(f"{label} is not valid", _code(kind, label), _hint(kind, context, detail["msg"]), where)


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
    if kind == "string_type":
        return "Write text; put numbers and words such as true into quotes."
    if kind == "string_pattern_mismatch":
        return _PATTERNS.get(str(context.get("pattern")), f"It must match {context.get('pattern')}.")
    if kind == "too_short":
        return f"Write at least {context['min_length']} of them."
    if kind == "tuple_type":
        return "Write a list: one line for each, with - before it."
    if kind == "model_type":
        return "Write keys and values below it."
    text = str(context["error"]) if "error" in context else message.removeprefix("Input should be ")
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _keys_at(model: type[BaseModel], path: Path) -> list[str]:
    """Names of the keys allowed in the mapping at `path`."""
    for part in path:
        for name, field in model.model_fields.items():
            if part in (name, field.alias):
                model = next(_models_in(field.annotation), model)
    return [field.alias or name for name, field in model.model_fields.items()]
