"""What a document is known again by: its name, the digest of its content, and when that was changed. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, Final

from groundplan.knowledge.intake.intake_store import Known
from groundplan.knowledge.parsing.email import SENT
from groundplan.knowledge.parsing.model import Parsed
from groundplan.knowledge.sources.model import Content

LONGEST_NAME: Final = 1000
_ALWAYS: Final = "8"
"""What digests begin with; with another one all approvals that there are would lapse."""


def nameable(key: str) -> bool:
    """Whether PostgreSQL takes the key: UTF-8 without NUL, and not so long that no index holds it."""
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return len(key) <= LONGEST_NAME and "\0" not in key


def changed_at(one: Known | None, content: Content, parsed: Parsed) -> datetime:
    """When it was changed: as its source says, of a message when it was sent, else when this content was seen here for
    the first time. What a source says is not taken of a day that is still to come, or that UTC does not have."""
    for told in (content.modified_at, _sent(parsed)):
        if told is not None and (moment := _come(told)) is not None:
            return moment
    same = one is not None and one.live and one.content is not None and one.content == parsed.content
    return one.modified_at if same and one is not None and one.modified_at else datetime.now(UTC)


def _sent(parsed: Parsed) -> datetime | None:
    """When a message says that it was sent."""
    said = parsed.told.get(SENT) if parsed.media == "eml" else None
    return None if said is None else datetime.fromisoformat(said)


def _come(moment: datetime) -> datetime | None:
    """In UTC, where it has come: the database would keep a year before the first, and never give it again."""
    try:
        found = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except OverflowError:
        return None
    return found if found <= datetime.now(UTC) else None


def checks_mark(checks: Sequence[Mapping[str, Any]], today: date) -> str | None:
    """What tables are looked at by: another one where the checks are others, or on another day where one of them asks
    how fresh a table is. None: by no checks."""
    if not checks:
        return None
    day = today.isoformat() if any("fresh" in check for check in checks) else ""
    mark = json.dumps([day, *checks], default=str, sort_keys=True)
    return hashlib.sha256(mark.encode()).hexdigest()[:32]


def says_something(content: Content) -> bool:
    """Whether its bytes tell it from others: all empty files have the same."""
    return bool(content.data.strip())


def digest_of(content: Content) -> str:
    """Of the bytes and what is told of them; the same however they are processed, since approvals are about it."""
    mark = json.dumps([_ALWAYS, content.media, content.told], default=str, sort_keys=True).encode()
    return hashlib.sha256(mark + b"\0" + content.data).hexdigest()
