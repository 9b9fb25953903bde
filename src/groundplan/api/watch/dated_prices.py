"""Background check: a dated price is served from its day on, without another `apply`.

Within seconds of a new day or blueprint, a blueprint with the same content at the day's prices is made. Until then
calls cost what they did on the day before.
"""

from __future__ import annotations

from datetime import date

from groundplan.api.context import Services
from groundplan.api.store import current_number

LOOK_SECONDS = 5.0


class DatedPrices:
    """Remembers the last (day, blueprint) for which all prices are in force."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._checked: tuple[date, int] | None = None

    def apply_due_prices(self) -> int | None:
        """Make a blueprint where prices begin; returns its number. Idempotent."""
        with self._services.transaction() as conn:
            number, today = current_number(conn), self._services.clock.now().date()
            if number is None or (today, number) == self._checked:
                return None
            new_number = self._services.releases.reprice(conn)
        self._checked = (today, new_number or number)
        return new_number
