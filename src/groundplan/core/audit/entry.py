"""One entry of the audit log and its bytes (RFC 8785 JSON), which are what the tree hashes.

Does not store anything, and does not protect personal data: seal such fields first (`subject.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

import msgspec
import rfc8785

from groundplan.core.canonical import canonical
from groundplan.core.errors import Invalid

OPERATOR = "operator"
SYSTEM = "system"
MAX_BYTES = 65_535
"""An entry bundle of C2SP tlog-tiles gives each entry's length in 16 bits."""

_ACTOR = re.compile(r"operator|system|(person|gateway|service):[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_KEYS = frozenset({"id", "at", "action", "actor", "subject", "detail"})
_ACTING = "acting"


def person_actor(person: UUID) -> str:
    """The `actor` text for a person."""
    return f"person:{person}"


@lru_cache(maxsize=256)
def gateway_actor(epoch: UUID) -> str:
    """The `actor` text for a gateway worker."""
    return f"gateway:{epoch}"


def service_actor(token: UUID) -> str:
    """The `actor` text for a program that uses a service token."""
    return f"service:{token}"


class ActingAs(str):
    """The actor while somebody acts as a person in a demo: the text names that person, `by` names the real actor.

    It is a `str` like any other actor, so that code which records an action also records that the caller was acting.
    """

    __slots__ = ("by",)
    by: str

    def __new__(cls, actor: str, by: str) -> ActingAs:
        made = super().__new__(cls, actor)
        made.by = by
        return made


@dataclass(frozen=True, slots=True)
class Acting:
    """Marks an entry that was made while acting as somebody in a demo; such an entry is no evidence.

    `by` is the real actor. `actor` is the person acted as, where the entry itself names another actor (the entry of a
    call names its gateway).
    """

    by: str
    actor: str | None = None

    def to_json(self) -> dict[str, Any]:
        """`{"by", "demo": true, "as"?}`, as it stands in the entry."""
        named = {} if self.actor is None else {"as": self.actor}
        return {"by": self.by, "demo": True, **named}


def acting_as(actor: str) -> Acting | None:
    """Return the mark that an entry by this actor must carry; None unless the actor acts as somebody else."""
    return Acting(str(actor.by)) if isinstance(actor, ActingAs) else None


class Entry(msgspec.Struct, frozen=True):
    """One entry: what happened (`action`), who did it (`actor`), to what (`subject`), and further `detail` (JSON).

    Amounts of money in `detail` are strings; integers stay within ±2^53. `at` is aware. Only an entry that was made
    while acting as somebody in a demo has the field `acting`.
    """

    id: UUID
    at: datetime
    action: str
    actor: str
    subject: str
    detail: Mapping[str, Any]
    acting: Acting | None = None

    def encode(self) -> bytes:
        """Return the bytes that are stored and hashed.

        Raises `Invalid`: `audit_actor`, `audit_time`, `audit_detail` (no JSON), `audit_too_large` (> `MAX_BYTES`).
        """
        for actor in (self.actor,) if self.acting is None else self._actors():
            if not _ACTOR.fullmatch(actor):
                raise Invalid(
                    f"no actor of the audit log: {actor!r}",
                    code="audit_actor",
                    hint="Use operator, system, person:<uuid>, gateway:<uuid> or service:<uuid>.",
                )
        if self.at.tzinfo is None:
            raise Invalid("the time of an audit entry has no zone", code="audit_time", hint="Use an aware UTC time.")
        body = {
            "id": str(self.id),
            "at": f"{self.at.astimezone(UTC).isoformat(timespec='microseconds')[:-6]}Z",
            "action": self.action,
            "actor": str(self.actor),
            "subject": self.subject,
            "detail": self.detail,
        }
        if self.acting is not None:
            body[_ACTING] = self.acting.to_json()
        try:
            data = canonical(body)
        except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
            raise Invalid(
                f"the detail of {self.action} is no JSON value: {error}",
                code="audit_detail",
                hint="Give text, booleans, lists, objects and integers within ±2^53; money and ids as text.",
            ) from error
        if len(data) > MAX_BYTES:
            raise Invalid(
                f"the audit entry {self.action} is {len(data)} bytes long, at most {MAX_BYTES} are possible",
                code="audit_too_large",
                hint="Record the digest of what is large and store it elsewhere.",
            )
        return data

    def _actors(self) -> Iterator[str]:
        yield self.actor
        if self.acting is not None:
            yield self.acting.by
            if self.acting.actor is not None:
                yield self.acting.actor


def decode(data: bytes) -> Entry:
    """Decode an entry. Raises `Invalid` (`audit_unreadable`)."""
    try:
        body = json.loads(data)
        if not isinstance(body, dict) or body.keys() - {_ACTING} != _KEYS or not isinstance(body["detail"], dict):
            raise ValueError("not the fields of an entry")
        return Entry(
            id=UUID(body["id"]),
            at=datetime.fromisoformat(body["at"]),
            action=str(body["action"]),
            actor=str(body["actor"]),
            subject=str(body["subject"]),
            detail=body["detail"],
            acting=_acting(body[_ACTING]) if _ACTING in body else None,
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise Invalid(
            f"an audit entry cannot be read: {error}", code="audit_unreadable", hint="Run `groundplan audit verify`."
        ) from error


def _acting(value: object) -> Acting:
    """The inverse of `Acting.to_json`. Raises `ValueError`."""
    if not isinstance(value, dict) or value.keys() - {"as"} != {"by", "demo"} or value["demo"] is not True:
        raise ValueError("not the fields of acting")
    actor = value.get("as")
    return Acting(str(value["by"]), None if actor is None else str(actor))
