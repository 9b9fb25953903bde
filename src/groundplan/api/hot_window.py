"""The hot window: from which day on facts stay in the database, and findings where older ones cannot be archived."""

from __future__ import annotations

from datetime import UTC, date, timedelta
from typing import Any

from psycopg import Connection

from groundplan.api.context import Services
from groundplan.core.errors import GroundplanError, Unavailable
from groundplan.core.words import quantity
from groundplan.economics.experiment import experiment_store
from groundplan.ledger import finding_store
from groundplan.ledger.finding import Finding


def hot_window_start(services: Services, conn: Connection[Any]) -> date:
    """The first day that stays in the database: of the hot window, or of the oldest running A/B test."""
    hot = services.clock.now().date() - timedelta(days=services.settings.archive_days)
    began = experiment_store.oldest_start(conn)
    return hot if began is None else min(hot, began.astimezone(UTC).date())


def report_archive_problem(services: Services, kind: str, what: str, error: GroundplanError | OSError) -> None:
    """Open a finding of `kind` that `what` ("Facts", "Entries of calls") cannot be archived, and why."""
    cause = error if isinstance(error, GroundplanError) else _file_error(error)
    older = quantity(services.settings.archive_days, "day")
    finding = Finding(
        kind=kind,
        subject="company",
        message=f"{what} that are older than {older} stay in the database: {cause.message}.",
        hint=cause.hint,
        detail={"code": cause.code},
    )
    with services.transaction() as conn:
        finding_store.report(conn, finding)


def _file_error(error: OSError) -> GroundplanError:
    """The error for a file that cannot be written."""
    return Unavailable(
        f"{error.filename or 'a temporary file'} cannot be written: {error.strerror or type(error).__name__}",
        code="file_unusable",
        hint="Make room there, or name another folder: TMPDIR where `groundplan up` runs.",
    )
