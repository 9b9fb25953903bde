"""Background jobs of cost figures: roll deltas up into hourly and daily sums, turn decisions of reviewers into
outcomes, and archive facts older than the hot window as Parquet files."""

from __future__ import annotations

from datetime import date, timedelta

from groundplan.api import hot_window
from groundplan.api.context import Services
from groundplan.core.audit.entry import SYSTEM
from groundplan.core.audit.store import record
from groundplan.core.errors import GroundplanError
from groundplan.core.money import format_numeric
from groundplan.ledger import archive, archive_store, finding_store, opportunity_store, outcome_store, rollup_store

ROLL_UP_SECONDS = 5.0
REVIEWS_SECONDS = 30.0
REVIEWS_KEPT = timedelta(days=7)
"""How long a decision waits for its call to reach the ledger."""
ARCHIVE_SECONDS = 600.0
FORGET_SECONDS = 300.0
ARCHIVE_KIND = "cost.archive"


def roll_up_costs(services: Services) -> int:
    """Add what arrived since the last round to the sums of hours and days; of several control processes one does it.
    Returns the number of deltas."""
    with services.transaction() as conn:
        added = rollup_store.roll_up(conn)
    with services.transaction() as conn:
        rollup_store.summarize_indexes(conn)
    return added


def take_reviews(services: Services) -> int:
    """Turn decisions of reviewers and thumbs of readers into outcomes of their calls; returns how many were new."""
    with services.transaction() as conn:
        return outcome_store.take_reviews(conn, services.clock.now() - REVIEWS_KEPT)


def count_repeated_requests(services: Services) -> int:
    """Count repeated requests of past days, and delete their records; returns how many."""
    with services.transaction() as conn:
        return opportunity_store.roll_up_shared_requests(conn, services.clock.now())


def archive_facts(services: Services) -> int:
    """Archive the days that are older than the hot window and than every running A/B test, each in one or more
    transactions of its own; returns how many days. A failure becomes a finding in the inbox."""
    try:
        count = _archive_days(services)
    except (GroundplanError, OSError) as error:
        hot_window.report_archive_problem(services, ARCHIVE_KIND, "Facts", error)
        raise
    if count is not None:
        with services.transaction() as conn:
            finding_store.withdraw(conn, ARCHIVE_KIND, "company", "", "days leave again")
    return count or 0


def _archive_days(services: Services) -> int | None:
    """As `archive_facts`; None if another process is archiving."""
    url, count, begun = services.settings.archive_url, 0, list[date]()
    while url is not None and count < archive.DAYS_PER_ROUND:
        with services.transaction() as conn:
            before = hot_window.hot_window_start(services, conn)
            if not archive_store.try_lock(conn):
                return None
            if not (days := begun or archive_store.days_to_archive(conn, before, 1)):
                break
            archived = archive.archive_day(conn, url, days[0])
            detail = {"calls": archived.calls, "cost_usd": format_numeric(archived.cost), "url": url}
            record(conn, action="facts.archive", actor=SYSTEM, subject=f"day/{archived.day}", detail=detail)
        begun = [archived.day] if archived.more else []  # the rest of a day that is partly archived comes first
        count += not archived.more
    while _list_older_archives(services):
        pass
    return count


def _list_older_archives(services: Services) -> bool:
    with services.transaction() as conn:
        return archive_store.try_lock(conn) and archive.list_unlisted_part(conn)
