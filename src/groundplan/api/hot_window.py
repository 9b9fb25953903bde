"""What leaves the database for an archive: from which day on it stays, and what is told where it cannot leave."""

from __future__ import annotations

from datetime import UTC, date, timedelta
from typing import Any

from psycopg import Connection

from groundplan.api.context import Services
from groundplan.core.errors import GroundplanError, Unavailable
from groundplan.core.words import counted
from groundplan.economics.experiment import experiment_store
from groundplan.ledger import finding_store
from groundplan.ledger.finding import Finding


def since(services: Services, conn: Connection[Any]) -> date:
    """The first day of which nothing leaves: of the hot window, or of the oldest A/B test that runs."""
    hot = services.clock.now().date() - timedelta(days=services.settings.archive_days)
    began = experiment_store.oldest(conn)
    return hot if began is None else min(hot, began.astimezone(UTC).date())


def tell(services: Services, kind: str, what: str, error: GroundplanError | OSError) -> None:
    """A finding of `kind` that `what` ("Facts", "Entries of calls") stays in the database, and why."""
    told = error if isinstance(error, GroundplanError) else _unusable(error)
    older = counted(services.settings.archive_days, "day")
    found = Finding(
        kind=kind,
        subject="company",
        message=f"{what} that are older than {older} stay in the database: {told.message}.",
        hint=told.hint,
        detail={"code": told.code},
    )
    with services.transaction() as conn:
        finding_store.tell(conn, found)


def _unusable(error: OSError) -> GroundplanError:
    """Of the folder in which files are made."""
    return Unavailable(
        f"{error.filename or 'a temporary file'} cannot be written: {error.strerror or type(error).__name__}",
        code="file_unusable",
        hint="Make room there, or name another folder: TMPDIR where `groundplan up` runs.",
    )
