"""Entries of calls leave the database for files once their facts have: a range of the log at a time, from its front on.

The file comes first and takes its time; rows are locked for the second or two in which they go. What breaks off leaves
them where they are, and the next round writes the same file again.
"""

from __future__ import annotations

from datetime import UTC, datetime, time
from typing import Final

from groundplan.api import hot_window
from groundplan.api.audit import siem_store
from groundplan.api.context import Services
from groundplan.core.audit import archive, archive_store
from groundplan.core.audit.entry import SYSTEM
from groundplan.core.audit.keys import load_public
from groundplan.core.audit.store import record
from groundplan.core.errors import GroundplanError
from groundplan.ledger import archive_store as facts
from groundplan.ledger import finding_store

KEEP_SECONDS = 600.0
AT_ONCE: Final = 64
"""Ranges of one round: what 7,000 calls a second make until the next one."""
KIND: Final = "audit.archive"


def keep(services: Services, span: int = archive.SPAN) -> int:
    """Let every range leave that may; how many did. What keeps them from leaving is told in the inbox."""
    done = 0
    try:
        while services.settings.archive_url is not None and done < AT_ONCE and _leave(services, span):
            done += 1
    except (GroundplanError, OSError) as error:
        hot_window.tell(services, KIND, "Entries of calls", error)
        raise
    with services.transaction() as conn:
        finding_store.withdraw(conn, KIND, "company", "", "entries leave again")
    return done


def _leave(services: Services, span: int) -> bool:
    """One range; False where none may leave now, or somebody else archives. Until the file is there the transaction
    has but that lock."""
    url = services.settings.archive_url
    assert url is not None
    with services.transaction() as conn:
        if not facts.lock(conn):
            return False
        first = archive_store.upto(conn)[0]
        until = first + span
        before = datetime.combine(hot_window.since(services, conn), time(), UTC)
        sent = services.settings.siem_url is None or siem_store.position(conn) >= until
        if not (sent and archive_store.ready(conn, first, until, before) and facts.calls_left(conn, first, until)):
            return False
        if archive.size_of(services.home.audit) < until:
            return False  # another HOME writes the log
        key = load_public(services.home, "checkpoint").public_bytes_raw()
        made = archive.write(conn, services.home.audit, key, url, first, span)
        gone = archive_store.leave(conn, made)
        detail = {"first": first, "until": until, "gone": gone, "url": url, "file": made.file, "sha256": made.sha256}
        record(conn, action="audit.archive", actor=SYSTEM, subject=f"entries/{first}", detail=detail)
    return True
