"""What identifies a document and its content: its key, the digest of its content, its modification time. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, Final

from groundplan.knowledge.intake.intake_store import StoredDocument
from groundplan.knowledge.parsing.email import SENT
from groundplan.knowledge.parsing.model import Parsed
from groundplan.knowledge.sources.model import Content

LONGEST_NAME: Final = 1000
_DIGEST_PREFIX: Final = "8"
"""Part of every digest; changing it would make all existing approvals lapse."""


def is_valid_key(key: str) -> bool:
    """Whether PostgreSQL can store the key: UTF-8 without NUL, and short enough for an index."""
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return len(key) <= LONGEST_NAME and "\0" not in key


def modification_time(document: StoredDocument | None, content: Content, parsed: Parsed) -> datetime:
    """When a document was changed: as its source says, for a message when it was sent, else when this content was seen
    for the first time. A time in the future, or outside of UTC's range, is ignored."""
    for candidate in (content.modified_at, _sent_time(parsed)):
        if candidate is not None and (moment := _past_utc(candidate)) is not None:
            return moment
    same = (
        document is not None and document.live and document.content is not None and document.content == parsed.content
    )
    return document.modified_at if same and document is not None and document.modified_at else datetime.now(UTC)


def _sent_time(parsed: Parsed) -> datetime | None:
    """The time at which an e-mail says it was sent."""
    sent = parsed.told.get(SENT) if parsed.media == "eml" else None
    return None if sent is None else datetime.fromisoformat(sent)


def _past_utc(moment: datetime) -> datetime | None:
    """The time in UTC; None if it is in the future or before year 1, which the database would store but never
    return."""
    try:
        found = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except OverflowError:
        return None
    return found if found <= datetime.now(UTC) else None


def checks_fingerprint(checks: Sequence[Mapping[str, Any]], today: date) -> str | None:
    """Fingerprint of the checks of tables: it differs where the checks do, and on each day where one of them asks how
    fresh a table is. None: there are no checks."""
    if not checks:
        return None
    day = today.isoformat() if any("fresh" in check for check in checks) else ""
    mark = json.dumps([day, *checks], default=str, sort_keys=True)
    return hashlib.sha256(mark.encode()).hexdigest()[:32]


def has_content(content: Content) -> bool:
    """Whether there is more than white space, so that the bytes tell a document from others."""
    return bool(content.data.strip())


def content_digest(content: Content) -> str:
    """Digest of the bytes, media type and governed values. Independent of processing, since approvals refer to it."""
    mark = json.dumps([_DIGEST_PREFIX, content.media, content.governed_values], default=str, sort_keys=True).encode()
    return hashlib.sha256(mark + b"\0" + content.data).hexdigest()
