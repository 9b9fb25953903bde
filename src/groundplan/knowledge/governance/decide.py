"""Decisions of owners and stewards about documents: approve, reject, retire, supersede, reviewed, and single values.

A decision overrides what source, folder and document declare, may widen it, and is recorded in the audit log. An
approval applies to the content that was seen: other content needs another decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.catalog.fields import is_email
from groundplan.catalog.levels import SENSITIVITIES
from groundplan.core.audit import record
from groundplan.core.errors import Invalid, NotFound
from groundplan.knowledge.deletion import legal_hold_store
from groundplan.knowledge.governance import governed_store as store
from groundplan.knowledge.governance.inherit import STATES

_DAYS = ("valid_from", "valid_until")
_LISTS = ("purposes", "workloads", "residency")
_PEOPLE = ("owner", "steward")
DECIDED = ("state", "sensitivity", *_DAYS, *_LISTS, *_PEOPLE, "licence", "legal_hold", "superseded_by", "reviewed")
"""Fields that may be decided. `reviewed` is the day of the review, from which the next one is counted."""


@dataclass(frozen=True, slots=True)
class DecisionContext:
    """Who decides (`actor` in the audit log, `by` for people), why and when."""

    actor: str
    by: str
    reason: str
    at: datetime


def decide(conn: Connection[Any], document: UUID, name: str, value: Any, context: DecisionContext) -> dict[str, Any]:
    """Decide one field, or withdraw its decision (None), in the caller's transaction; returns the document afterwards.

    A withdrawn value applies until the next ingestion of its source. For a deleted document, only the legal hold of its
    kept versions can be decided. Raises `NotFound` (document_unknown) and `Invalid` (decision_value).
    """
    found = store.read_document(conn, document, lock=True)
    if found is None or (found["deleted_at"] is not None and not _extends_hold(conn, document, name, value)):
        raise NotFound("no such document", code="document_unknown", hint="`groundplan knowledge documents` lists them.")
    parsed = _parse_value(conn, found, name, value)
    decided = {key: each for key, each in found["decided"].items() if key != name}
    columns: dict[str, Any] = {}
    if parsed is not None:
        decided[name] = {
            "value": _json(parsed),
            "by": context.by,
            "at": context.at.isoformat(timespec="seconds"),
            "reason": context.reason,
        }
        if name == "state":
            decided[name]["digest"] = found["digest"]
        if name not in ("reviewed", "superseded_by"):
            columns[name] = parsed
    store.put_decisions(conn, document, decided, columns)
    if name == "superseded_by":
        store.set_superseded(conn, document, parsed)
    elif columns:
        store.put_origin(
            conn, document, name, {"from": f"decision of {context.by}", "at": context.at.isoformat(timespec="seconds")}
        )
    elif parsed is None and name in found["decided"] and name != "reviewed":
        origin = {**found["origins"].get(name, {}), "from": f"decision of {found['decided'][name]['by']}, taken back"}
        store.put_origin(conn, document, name, origin)
    record(
        conn, action="knowledge.decided", actor=context.actor, subject=f"document/{document}", at=context.at,
        detail={"what": name, "value": _json(parsed), "before": _json(found.get(name)), "reason": context.reason,
                "version": found["version"], "digest": found["digest"]},
    )  # fmt: skip
    after = store.read_document(conn, document)
    assert after is not None
    return after


def _extends_hold(conn: Connection[Any], document: UUID, name: str, value: Any) -> bool:
    """Whether the decision is about the legal hold of a deleted document with kept versions."""
    return name == "legal_hold" and isinstance(value, bool) and bool(legal_hold_store.versions(conn, document=document))


def _parse_value(conn: Connection[Any], found: Mapping[str, Any], name: str, value: Any) -> Any:
    """The value parsed for its column; raises `Invalid` (decision_value)."""
    if value is None:
        return None
    if name in ("state", "sensitivity"):
        return _one_of(name, value, STATES if name == "state" else SENSITIVITIES)
    if name in _DAYS or name == "reviewed":
        return _day(name, value)
    if name in _LISTS:
        return _names(name, value)
    if name in _PEOPLE:
        return _email(name, value)
    if name == "licence" and isinstance(value, str) and 0 < len(value.strip()) <= 400:
        return value.strip()
    if name == "legal_hold" and isinstance(value, bool):
        return value
    if name == "superseded_by":
        return _newer_document(conn, found, value)
    raise _invalid_value(name, f"one of {', '.join(DECIDED)}, each in its form")


def _one_of(name: str, value: Any, known: tuple[str, ...]) -> str:
    if value not in known:
        raise _invalid_value(name, f"one of {', '.join(known)}")
    return str(value)


def _email(name: str, value: Any) -> str:
    """An e-mail address in the form that people sign in with."""
    plain = str(value).strip().lower()
    if not is_email(plain):
        raise _invalid_value(name, "an e-mail address like ana@acme.example")
    return plain


def _day(name: str, value: Any) -> date:
    try:
        return date.fromisoformat(str(value))
    except ValueError as error:
        raise _invalid_value(name, "a date like 2027-01-31") from error


def _names(name: str, value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) and each.strip() for each in value):
        raise _invalid_value(name, "a list of names")
    return sorted({each.strip() for each in value})


def _newer_document(conn: Connection[Any], found: Mapping[str, Any], value: Any) -> UUID:
    try:
        newer = store.read_document(conn, UUID(str(value)))
    except ValueError as error:
        raise _invalid_value("superseded_by", "the id of the newer document") from error
    if newer is None or newer["deleted_at"] is not None or newer["id"] == found["id"]:
        raise _invalid_value("superseded_by", "the id of another document that is there")
    if store.is_replaced_by(conn, newer["id"], found["id"]):
        what = "a document that this one does not replace, or reject this one: else neither would be found"
        raise _invalid_value("superseded_by", what)
    return UUID(str(newer["id"]))


def _invalid_value(name: str, what: str) -> Invalid:
    return Invalid(f"`{name}` cannot be that", code="decision_value", hint=f"Give {what}.")


def _json(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date | datetime) else str(value) if isinstance(value, UUID) else value
