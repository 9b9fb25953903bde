"""What a document is known again by: its name, the digest of its content, and when that was changed. Pure."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Final

from groundplan.knowledge.intake.intake_store import Known
from groundplan.knowledge.parsing.model import Parsed
from groundplan.knowledge.sources.model import Content

LONGEST_NAME: Final = 1000


def nameable(key: str) -> bool:
    """Whether PostgreSQL takes the key: UTF-8 without NUL, and not so long that no index holds it."""
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return len(key) <= LONGEST_NAME and "\0" not in key


def changed_at(one: Known | None, content: Content, parsed: Parsed) -> datetime:
    """When it was changed: as its source says, else when this content was seen here for the first time."""
    if content.modified_at is not None:
        return content.modified_at
    same = one is not None and one.live and one.content is not None and one.content == parsed.content
    return one.modified_at if same and one is not None and one.modified_at else datetime.now(UTC)


def digest_of(content: Content, processing: str) -> str:
    """Of the bytes, what is told of them, and how they are processed."""
    mark = json.dumps([processing, content.media, content.told], default=str, sort_keys=True).encode()
    return hashlib.sha256(mark + b"\0" + content.data).hexdigest()
