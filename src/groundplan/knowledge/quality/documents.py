"""What is wrong with one document by what is known of it: age, owner, metadata, unread parts, readers. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from datetime import date
from typing import Final

from groundplan.core.words import quantity
from groundplan.knowledge.governance.inherit import add_days
from groundplan.knowledge.quality.model import KINDS, AssessedDocument
from groundplan.ledger.finding import Finding

YEAR_DAYS = 365
_CALLED: Final[Mapping[str, tuple[str, ...]]] = {
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
"""Kinds of personal data and secrets, of one and of several."""


def finding(
    look: AssessedDocument, kind: str, message: str, hint: str, mark: str = "", quote: str = "", **detail: object
) -> Finding:
    """A finding about a document, for whoever answers for it."""
    fix = detail.pop("fix", None)
    return Finding(
        kind=kind, subject=look.subject, message=message, hint=hint, severity=KINDS[kind].severity,
        owner=look.responsible,
        mark=mark, quote=quote, detail={"document": str(look.id), **detail}, fix=fix if isinstance(fix, dict) else None,
    )  # fmt: skip


def document_findings(look: AssessedDocument, today: date, known_readers: Set[str]) -> Iterator[Finding]:
    """Everything that can be said of a document by itself."""
    yield from _age(look, today)
    yield from _owner(look, known_readers)
    yield from _metadata(look)
    yield from _parts(look)
    yield from _readers(look, known_readers)
    yield from _content(look)


def review_due(look: AssessedDocument) -> date | None:
    """The day by which a document is to be looked at: its own word, else so long after it was changed or reviewed.

    A review after that day counts: the next is due as its source says, else in a year.
    """
    said = look.decided.get("reviewed", {}).get("value")
    reviewed = date.fromisoformat(said) if said else None
    if look.review_by is not None and (reviewed is None or reviewed < look.review_by):
        return look.review_by
    if reviewed is not None:
        return add_days(reviewed, look.review_days or YEAR_DAYS)
    if look.review_days is None or look.modified_at is None:
        return None
    return add_days(look.modified_at.date(), look.review_days)


def _age(look: AssessedDocument, today: date) -> Iterator[Finding]:
    if look.is_settled:
        return
    day = review_due(look)
    if day is not None and day < today:
        yield finding(
            look, "knowledge.stale", f"{look.path} was to be reviewed by {day.isoformat()}",
            "Review it and set `review_by` to the next date, or delete it.",
            days=(today - day).days, fix={"do": "review", "document": str(look.id)},
        )  # fmt: skip
    if look.valid_until is not None and look.valid_until < today:
        yield finding(
            look,
            "knowledge.expired",
            f"{look.path} was valid until {look.valid_until.isoformat()} and is not retrieved",
            "Extend `valid_until`, or delete it.",
        )


def _owner(look: AssessedDocument, known: Set[str]) -> Iterator[Finding]:
    """An owner of its own who is nobody here, or has left; that of the source is the source's matter."""
    if not look.owner:
        yield finding(look, "knowledge.owner", f"nobody owns {look.path}", "Write `owner: ana@acme.example` into it.")
    elif look.owner != look.source_owner and look.owner not in known:
        yield finding(
            look, "knowledge.owner", f"nobody owns {look.path}: {look.owner} is nobody here, or has left",
            "Write into it, or decide, who answers for it now: `owner: ana@acme.example`.",
        )  # fmt: skip


def _metadata(look: AssessedDocument) -> Iterator[Finding]:
    for key, near in look.declared.get("unknown", {}).items():
        yield finding(
            look, "knowledge.metadata", f"{look.path} says `{key}`, which means nothing; perhaps `{near}`",
            f"Write `{near}` instead.", mark=key,
        )  # fmt: skip
    for text in look.declared.get("ignored", ()):
        yield finding(
            look,
            "knowledge.metadata",
            f"{look.path}: {text}, and is not followed",
            "A document can only narrow what holds for its source; its owner or steward may decide otherwise.",
            mark=text,
        )


def _parts(look: AssessedDocument) -> Iterator[Finding]:
    for note in look.notes:
        yield finding(
            look, "knowledge.incomplete", f"{look.path} is searched only in part: {note}",
            "Mend the file, or put what is missing beside it as text.", mark=note,
        )  # fmt: skip


def _readers(look: AssessedDocument, known: Set[str]) -> Iterator[Finding]:
    # whoever has a grant on its source; one on another opens nothing here, so its name is nobody's
    granted = f"source/{look.source}"
    named = {name for name in look.readers if not name.startswith("link/") and name not in (granted, "public")}
    own = named & set(look.declared.get("named", ()))
    for name in sorted(own - known):
        yield finding(
            look,
            "knowledge.reader_unknown",
            f"{look.path} names '{name}' as a reader, who is no group, team or person",
            "Nobody reads it by that name. Correct it, or add the group.",
            mark=name,
        )
    if not look.readers or (named and not named & known and granted not in look.readers):
        yield finding(
            look, "knowledge.nobody", f"nobody may read {look.path}: none of its readers exists any more",
            "Name a group or person that exists, or delete it.",
        )  # fmt: skip


def counts_text(found: Mapping[str, int]) -> str:
    """`1 card number, 2 e-mail addresses`."""
    return ", ".join(quantity(count, *_CALLED[kind]) for kind, count in sorted(found.items()))


def _content(look: AssessedDocument) -> Iterator[Finding]:
    personal = {kind: count for kind, count in (look.personal or {}).items() if not kind.startswith("!")}
    secrets = {kind[1:]: count for kind, count in (look.personal or {}).items() if kind.startswith("!")}
    if secrets:
        what = counts_text(secrets)
        yield finding(
            look, "knowledge.secret", f"{look.path} holds what looks like a secret: {what}",
            "Withdraw the secret where it is from, then take it out of the document.", counts=secrets,
            fix={"do": "reject", "document": str(look.id)},
        )  # fmt: skip
    if personal and look.sensitivity in ("public", "internal"):
        what = counts_text(personal)
        yield finding(
            look, "knowledge.personal_data", f"{look.path} is {look.sensitivity} and holds personal data: {what}",
            "Take it out, or raise its `sensitivity` to confidential.", counts=personal, whose=look.owners,
            fix={"do": "sensitivity", "to": "confidential", "document": str(look.id)},
        )  # fmt: skip
    checked = look.checked or {}
    for code, message, hint in checked.get("structure", ()):
        yield finding(look, "knowledge.structure", f"{look.path}: {message}", hint, mark=code)
    for word, title, count in checked.get("glossary", ()):
        yield finding(
            look, "knowledge.glossary",
            f"{look.path} says '{word}' {quantity(count, 'time')}, where '{title}' is meant",
            f"Write '{title}'. The glossary says why.", mark=word, count=count,
        )  # fmt: skip
