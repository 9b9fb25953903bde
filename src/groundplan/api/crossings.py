"""Beside the requests: a finding for each budget that only warns and was crossed, once for each of its periods."""

from __future__ import annotations

import logging
import threading
from decimal import Decimal

import psycopg

from groundplan.api import store
from groundplan.api.context import Services
from groundplan.api.served import current_or_none
from groundplan.core.errors import GroundplanError
from groundplan.core.money import parse_usd, short_usd
from groundplan.ledger import queries

log = logging.getLogger("groundplan.api.crossings")
LOOK_SECONDS = 5.0


class Crossings:
    """Looks every few seconds while there are such budgets."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="crossings", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            try:
                self.look()
            except (GroundplanError, psycopg.Error) as error:
                log.warning("budgets cannot be looked at now: %s", error.__class__.__name__)

    def look(self) -> int:
        """Tell what is newly crossed; how many that were."""
        with self._services.transaction() as conn:
            blueprint = current_or_none(conn)
            soft = {b.name for b in blueprint.budgets if not b.hard} if blueprint else set()
            if not soft:
                return 0
            crossed = [
                (row["budget"], row["period"], _message(row))
                for row in queries.budget_use(conn, self._services.clock.now())
                if row["budget"] in soft and Decimal(row["spent_usd"]) > Decimal(row["limit_usd"])
            ]
            return store.tell_crossed_budgets(conn, crossed)


def _message(row: dict[str, str]) -> str:
    spent, limit = short_usd(parse_usd(row["spent_usd"])), short_usd(parse_usd(row["limit_usd"]))
    return f"The budget {row['budget']} is crossed in {row['period']}: {spent} of {limit} were spent."
