"""Findings about a single document from its attributes: age, owner, metadata, unread parts, readers, content. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from datetime import date
from typing import Final

from groundplan.core.words import quantity
from groundplan.knowledge.governance.inherit import add_days
from groundplan.knowledge.quality.model import KINDS, AssessedDocument
from groundplan.ledger.finding import Finding

YEAR_DAYS = 365
_KIND_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "email": ("e-mail address", "e-mail addresses"),
    "iban": ("IBAN",),
    "card": ("card number",),
    "national_id": ("national identity number",),
    "phone": ("phone number",),
    "ip": ("IP address", "IP addresses"),
    "mac": ("MAC address", "MAC addresses"),
    "crypto": ("crypto wallet",),
    "groundplan_key": ("Groundplan API key",),
    "aws_key": ("AWS key",),
    "github_token": ("GitHub token",),
    "api_key": ("API key",),
    "jwt": ("signed token (JWT)", "signed tokens (JWT)"),
    "private_key": ("private key",),
}
"""Singular and plural names of the kinds of personal data and secrets."""


def finding(
    document: AssessedDocument, kind: str, message: str, hint: str, mark: str = "", quote: str = "", **detail: object
) -> Finding:
    """A finding about a document, for the person who answers for it."""
    fix = detail.pop("fix", None)
    return Finding(
        kind=kind, subject=document.subject, message=message, hint=hint, severity=KINDS[kind].severity,
        owner=document.responsible,
        mark=mark, quote=quote, detail={"document": str(document.id), **detail},
        fix=fix if isinstance(fix, dict) else None,
    )  # fmt: skip


def document_findings(document: AssessedDocument, today: date, known_readers: Set[str]) -> Iterator[Finding]:
    """All findings about a document by itself."""
    yield from _age_findings(document, today)
    yield from _owner_findings(document, known_readers)
    yield from _metadata_findings(document)
    yield from _unread_findings(document)
    yield from _reader_findings(document, known_readers)
    yield from _content_findings(document)


def review_due(document: AssessedDocument) -> date | None:
    """The day by which a document is to be reviewed: its own `review_by`, else `review_days` after its last change or
    review. None: no review is due.

    After a review later than `review_by` the next one is due after `review_days`, or else a year.
    """
    decided_on = document.decided.get("reviewed", {}).get("value")
    reviewed = date.fromisoformat(decided_on) if decided_on else None
    if document.review_by is not None and (reviewed is None or reviewed < document.review_by):
        return document.review_by
    if reviewed is not None:
        return add_days(reviewed, document.review_days or YEAR_DAYS)
    if document.review_days is None or document.modified_at is None:
        return None
    return add_days(document.modified_at.date(), document.review_days)


def _age_findings(document: AssessedDocument, today: date) -> Iterator[Finding]:
    if document.is_settled:
        return
    day = review_due(document)
    if day is not None and day < today:
        yield finding(
            document, "knowledge.stale", f"{document.path} was to be reviewed by {day.isoformat()}",
            "Review it and set `review_by` to the next date, or delete it.",
            days=(today - day).days, fix={"do": "review", "document": str(document.id)},
        )  # fmt: skip
    if document.valid_until is not None and document.valid_until < today:
        yield finding(
            document,
            "knowledge.expired",
            f"{document.path} was valid until {document.valid_until.isoformat()} and is not retrieved",
            "Extend `valid_until`, or delete it.",
        )


def _owner_findings(document: AssessedDocument, known: Set[str]) -> Iterator[Finding]:
    """A missing owner, or an owner of its own who is not known or has left; the source's owner is not checked here."""
    if not document.owner:
        yield finding(
            document, "knowledge.owner", f"nobody owns {document.path}", "Write `owner: ana@acme.example` into it."
        )
    elif document.owner != document.source_owner and document.owner not in known:
        yield finding(
            document, "knowledge.owner", f"nobody owns {document.path}: {document.owner} is nobody here, or has left",
            "Write into it, or decide, who answers for it now: `owner: ana@acme.example`.",
        )  # fmt: skip


def _metadata_findings(document: AssessedDocument) -> Iterator[Finding]:
    for key, near in document.declared.get("unknown", {}).items():
        yield finding(
            document, "knowledge.metadata", f"{document.path} says `{key}`, which means nothing; perhaps `{near}`",
            f"Write `{near}` instead.", mark=key,
        )  # fmt: skip
    for text in document.declared.get("ignored", ()):
        yield finding(
            document,
            "knowledge.metadata",
            f"{document.path}: {text}, and is not followed",
            "A document can only narrow what holds for its source; its owner or steward may decide otherwise.",
            mark=text,
        )


def _unread_findings(document: AssessedDocument) -> Iterator[Finding]:
    for note in document.notes:
        yield finding(
            document, "knowledge.incomplete", f"{document.path} is searched only in part: {note}",
            "Mend the file, or put what is missing beside it as text.", mark=note,
        )  # fmt: skip


def _reader_findings(document: AssessedDocument, known: Set[str]) -> Iterator[Finding]:
    # `source/NAME` stands for the holders of a grant on its source; a grant on another source gives no access here
    granted = f"source/{document.source}"
    named = {name for name in document.readers if not name.startswith("link/") and name not in (granted, "public")}
    own = named & set(document.declared.get("named", ()))
    for name in sorted(own - known):
        yield finding(
            document,
            "knowledge.reader_unknown",
            f"{document.path} names '{name}' as a reader, who is no group, team or person",
            "Nobody reads it by that name. Correct it, or add the group.",
            mark=name,
        )
    if not document.readers or (named and not named & known and granted not in document.readers):
        yield finding(
            document, "knowledge.nobody", f"nobody may read {document.path}: none of its readers exists any more",
            "Name a group or person that exists, or delete it.",
        )  # fmt: skip


def counts_text(found: Mapping[str, int]) -> str:
    """`1 card number, 2 e-mail addresses`."""
    return ", ".join(quantity(count, *_KIND_NAMES[kind]) for kind, count in sorted(found.items()))


def _content_findings(document: AssessedDocument) -> Iterator[Finding]:
    personal = {kind: count for kind, count in (document.personal or {}).items() if not kind.startswith("!")}
    secrets = {kind[1:]: count for kind, count in (document.personal or {}).items() if kind.startswith("!")}
    if secrets:
        what = counts_text(secrets)
        yield finding(
            document, "knowledge.secret", f"{document.path} holds what looks like a secret: {what}",
            "Withdraw the secret where it is from, then take it out of the document.", counts=secrets,
            fix={"do": "reject", "document": str(document.id)},
        )  # fmt: skip
    if personal and document.sensitivity in ("public", "internal"):
        what = counts_text(personal)
        yield finding(
            document, "knowledge.personal_data",
            f"{document.path} is {document.sensitivity} and holds personal data: {what}",
            "Take it out, or raise its `sensitivity` to confidential.", counts=personal, whose=document.owners,
            fix={"do": "sensitivity", "to": "confidential", "document": str(document.id)},
        )  # fmt: skip
    checked = document.checked or {}
    for code, message, hint in checked.get("structure", ()):
        yield finding(document, "knowledge.structure", f"{document.path}: {message}", hint, mark=code)
    for word, title, count in checked.get("glossary", ()):
        yield finding(
            document, "knowledge.glossary",
            f"{document.path} says '{word}' {quantity(count, 'time')}, where '{title}' is meant",
            f"Write '{title}'. The glossary says why.", mark=word, count=count,
        )  # fmt: skip
