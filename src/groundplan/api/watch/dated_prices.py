"""Beside the requests: a price that begins on a day is served from that day on, without another `apply`.

Looked at when a day or a blueprint is new, within seconds; it makes a blueprint of the same content at the day's
prices. Until then calls cost what they did on the day before.
"""

from __future__ import annotations

from datetime import date

from groundplan.api.context import Services
from groundplan.api.store import current_number

LOOK_SECONDS = 5.0


class Looking:
    """Remembers of which day and blueprint it knows that nothing is to be done."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._seen: tuple[date, int] | None = None

    def look(self) -> int | None:
        """The number of the blueprint that was made. Looking twice is looking once."""
        with self._services.transaction() as conn:
            number, today = current_number(conn), self._services.clock.now().date()
            if number is None or (today, number) == self._seen:
                return None
            made = self._services.releases.reprice(conn)
        self._seen = (today, made or number)
        return made
