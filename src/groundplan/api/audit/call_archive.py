"""Archives audit entries of calls to files once the facts of the calls are archived, one range of the log at a time.

The file is written first; rows are locked only for the second or two in which they are deleted. After a failure they
are still there, and the next round writes the same file again.
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
MAX_RANGES: Final = 64
"""The most ranges of one round: enough for 7,000 calls a second."""
KIND: Final = "audit.archive"


def archive_entries(services: Services, span: int = archive.SPAN) -> int:
    """Archive every range that may be archived; returns how many. A failure becomes a finding in the inbox."""
    count = 0
    try:
        while services.settings.archive_url is not None and count < MAX_RANGES and _archive_range(services, span):
            count += 1
    except (GroundplanError, OSError) as error:
        hot_window.report_archive_problem(services, KIND, "Entries of calls", error)
        raise
    with services.transaction() as conn:
        finding_store.withdraw(conn, KIND, "company", "", "entries leave again")
    return count


def _archive_range(services: Services, span: int) -> bool:
    """Archive one range; False if none may be archived now, or another process archives. While the file is written,
    the transaction holds only the archive lock."""
    url = services.settings.archive_url
    assert url is not None
    with services.transaction() as conn:
        if not facts.try_lock(conn):
            return False
        first = archive_store.archived_until(conn)[0]
        until = first + span
        before = datetime.combine(hot_window.hot_window_start(services, conn), time(), UTC)
        sent = services.settings.siem_url is None or siem_store.sent_position(conn) >= until
        if not (
            sent and archive_store.is_ready(conn, first, until, before) and facts.are_calls_archived(conn, first, until)
        ):
            return False
        if archive.log_size(services.home.audit) < until:
            return False  # another HOME writes the log
        key = load_public(services.home, "checkpoint").public_bytes_raw()
        archived = archive.write_range(conn, services.home.audit, key, url, first, span)
        moved = archive_store.move_out(conn, archived)
        detail = {
            "first": first,
            "until": until,
            "gone": moved,
            "url": url,
            "file": archived.file,
            "sha256": archived.sha256,
        }
        record(conn, action="audit.archive", actor=SYSTEM, subject=f"entries/{first}", detail=detail)
    return True
