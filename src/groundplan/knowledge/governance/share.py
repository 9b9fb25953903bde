"""Shares documents by links: created by people who answer for them, opened by people who are signed in, withdrawn with
immediate effect.

Knowing a link grants nothing: a person opens it, and access is decided at each query, as for any reader; a denial wins.
Restricted documents cannot be shared by link, nor read by a link from before they became restricted. The word of a link
is shown once and not stored.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from psycopg import Connection

from groundplan.core.audit import record
from groundplan.core.errors import Invalid, NotFound
from groundplan.knowledge.governance import governed_store, share_store

MAX_LINK_DAYS: Final = 90
_PREFIX = "gpl_"


@dataclass(frozen=True, slots=True)
class LinkActor:
    """Who acts (`actor` in the audit log, and the person), and when."""

    actor: str
    person: UUID | None
    at: datetime


@dataclass(frozen=True, slots=True)
class NewLink:
    """A new link. `word` opens it and is not stored."""

    name: str
    word: str
    until: date


def create_link(conn: Connection[Any], document: UUID, until: date, reason: str, by: LinkActor) -> NewLink:
    """Create a link to a document. Raises `NotFound` (document_unknown), `Invalid` (link_until, link_restricted)."""
    found = governed_store.read_document(conn, document)
    if found is None or found["deleted_at"] is not None:
        raise NotFound("no such document", code="document_unknown", hint="`groundplan knowledge documents` lists them.")
    today = by.at.date()
    if not today <= until <= today + timedelta(days=MAX_LINK_DAYS):
        raise Invalid(
            f"{until} is no last day of a link", code="link_until",
            hint=f"Name a day from today on, at most {MAX_LINK_DAYS} days ahead.",
        )  # fmt: skip
    if found["sensitivity"] in (None, "restricted"):
        raise Invalid(
            f"{found['path']} is restricted and is not shared by link", code="link_restricted",
            hint="Name its readers in its source, folder or front matter instead.",
        )  # fmt: skip
    link = NewLink(secrets.token_hex(6), _PREFIX + secrets.token_urlsafe(24), until)
    share_store.put_link(conn, document, link.name, _digest(link.word), until, by.person, reason)
    _record(conn, "knowledge.shared", document, by, link=link.name, until=until.isoformat(), reason=reason)
    return link


def open_link(conn: Connection[Any], word: str, by: LinkActor) -> UUID:
    """Open a link; returns the document that the person may read from now on. Raises `NotFound` (link_unknown), also
    for an expired link."""
    found = share_store.find_link(conn, _digest(word.strip()))
    if found is None or by.person is None:
        raise NotFound(
            "there is no such link, or it is over", code="link_unknown", hint="Ask whoever sent it for a new one."
        )
    name, document = found
    if share_store.add_holder(conn, name, by.person):
        _record(conn, "knowledge.link_opened", document, by, link=name)
    return document


def withdraw_link(conn: Connection[Any], document: UUID, name: str, by: LinkActor) -> None:
    """Withdraw a link: it grants nothing from the next query on. Raises `NotFound` (link_unknown)."""
    if not share_store.end_link(conn, document, name):
        raise NotFound(
            f"the document has no link {name} that holds", code="link_unknown",
            hint="`groundplan knowledge links` lists them.",
        )  # fmt: skip
    _record(conn, "knowledge.link_withdrawn", document, by, link=name)


def _record(conn: Connection[Any], action: str, document: UUID, by: LinkActor, **detail: str) -> None:
    record(conn, action=action, actor=by.actor, subject=f"document/{document}", detail=detail, at=by.at)


def _digest(word: str) -> bytes:
    return hashlib.sha256(word.encode()).digest()
