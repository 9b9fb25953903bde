"""One entry of the audit log and its bytes (RFC 8785 JSON), which are what the tree hashes.

Does not store anything, and does not protect personal data: seal such fields first (`subject.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import rfc8785

from groundplan.core.canonical import canonical
from groundplan.core.errors import Invalid

OPERATOR = "operator"
SYSTEM = "system"
MAX_BYTES = 65_535
"""An entry bundle of C2SP tlog-tiles gives each entry's length in 16 bits."""

_ACTOR = re.compile(r"operator|system|(person|gateway):[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_KEYS = frozenset({"id", "at", "action", "actor", "subject", "detail"})


def person_actor(person: UUID) -> str:
    """The actor of something that a person did."""
    return f"person:{person}"


def gateway_actor(epoch: UUID) -> str:
    """The actor of something that a gateway worker did."""
    return f"gateway:{epoch}"


@dataclass(frozen=True, slots=True)
class Entry:
    """What happened (`action`), who did it (`actor`), to what (`subject`), and whatever else matters (`detail`, JSON).

    Amounts of money in `detail` are strings; integers stay within ±2^53. `at` is aware.
    """

    id: UUID
    at: datetime
    action: str
    actor: str
    subject: str
    detail: Mapping[str, Any]

    def encode(self) -> bytes:
        """The bytes that are stored and hashed.

        Raises `Invalid`: `audit_actor`, `audit_time`, `audit_detail` (no JSON), `audit_too_large` (> `MAX_BYTES`).
        """
        if not _ACTOR.fullmatch(self.actor):
            raise Invalid(
                f"no actor of the audit log: {self.actor!r}",
                code="audit_actor",
                hint="Use operator, system, person:<uuid> or gateway:<uuid>.",
            )
        if self.at.tzinfo is None:
            raise Invalid("the time of an audit entry has no zone", code="audit_time", hint="Use an aware UTC time.")
        body = {
            "id": str(self.id),
            "at": self.at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "action": self.action,
            "actor": self.actor,
            "subject": self.subject,
            "detail": self.detail,
        }
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


def decode(data: bytes) -> Entry:
    """The entry in `data`; raises `Invalid` (`audit_unreadable`) where it is none."""
    try:
        body = json.loads(data)
        if not isinstance(body, dict) or body.keys() != _KEYS or not isinstance(body["detail"], dict):
            raise ValueError("not the fields of an entry")
        return Entry(
            id=UUID(body["id"]),
            at=datetime.fromisoformat(body["at"]),
            action=str(body["action"]),
            actor=str(body["actor"]),
            subject=str(body["subject"]),
            detail=body["detail"],
        )
    except (ValueError, TypeError, AttributeError) as error:
        raise Invalid(
            f"an audit entry cannot be read: {error}", code="audit_unreadable", hint="Run `groundplan audit verify`."
        ) from error
