"""Known future days of a forecast: holidays and launches that the workspace declares or a request adds. Decides
nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Any

from groundplan.blueprint.calendar import Calendar
from groundplan.blueprint.calendar import Launch as Declared
from groundplan.core.errors import Invalid
from groundplan.economics.forecast.model import Launch, Series

Row = dict[str, Any]
SHARE_DAYS = 28
"""Days before the launch of a workload by which its share of a sum is measured."""


@dataclass(frozen=True, slots=True)
class KnownDays:
    """Countries with public holidays, further `holidays` (ISO dates), and launches; a launch without a workload applies
    to every forecast. `notes` say what could not be taken into account."""

    countries: tuple[str, ...] = ()
    holidays: tuple[str, ...] = ()
    launches: tuple[Declared, ...] = ()
    notes: tuple[str, ...] = ()


def declared_days(calendar: Calendar) -> KnownDays:
    """The known days of a blueprint. A country whose holidays are unknown is left out, with a note."""
    notes, countries = [], []
    for country in calendar.countries:
        try:
            public_holidays(country, 2000)
        except Invalid as error:
            notes.append(f"{error.message}, so that they are left out: {error.hint}".rstrip("."))
        else:
            countries.append(country)
    return KnownDays(tuple(countries), tuple(calendar.holidays), tuple(calendar.launches), tuple(dict.fromkeys(notes)))


def with_additions(known: KnownDays, countries: Sequence[str], launches: Sequence[Declared]) -> KnownDays:
    """Known days with further countries and launches. Raises `Invalid` (`country_unknown`, `extra_missing`)."""
    more = [country.upper() for country in countries]
    for country in more:
        public_holidays(country, 2000)
    together = tuple(dict.fromkeys((*known.countries, *more)))
    return replace(known, countries=together, launches=(*known.launches, *launches))


def with_known_days(
    past: Series, known: KnownDays, rows: Sequence[Row], workload: str | None, value: Callable[[Row], float]
) -> Series:
    """The series with its holidays and launches. `rows`: the parts of the series, by day and workload."""
    first, last = past.start.year, past.at(len(past.values)).year + 2
    countries_by_day: dict[str, list[str]] = {}
    for country in sorted(known.countries):
        for day in {day for year in range(first, last) for day in public_holidays(country, year)}:
            countries_by_day.setdefault(day, []).append(country)
    today = past.at(len(past.values)).date()
    launches = []
    for launch in known.launches:
        at = datetime.combine(date.fromisoformat(launch.day), time(), UTC)
        if launch.workload in ("", workload):
            launches.append(Launch(at, launch.factor, launch.name))
        elif workload is None and (share := _share(rows, launch.workload, min(at.date(), today), value)) > 0:
            launches.append(Launch(at, 1 + share * (launch.factor - 1), launch.name or launch.workload))
    holidays_named = frozenset((day, " ".join(countries)) for day, countries in countries_by_day.items())
    return replace(
        past, holidays=frozenset({*countries_by_day, *known.holidays}), whose=holidays_named, launches=tuple(launches)
    )


def known_days_json(known: KnownDays, workload: str | None) -> dict[str, Any]:
    """The known days that a forecast uses, in the shape in which they are declared."""
    return {
        "countries": list(known.countries),
        "holidays": list(known.holidays),
        "launches": [
            {
                "workload": launch.workload or None,
                "day": launch.day,
                "factor": launch.factor,
                "name": launch.name or None,
            }
            for launch in known.launches
            if workload is None or launch.workload in ("", workload)
        ],
    }


def _share(rows: Sequence[Row], workload: str, before: date, value: Callable[[Row], float]) -> float:
    """The share of a workload in all rows of the days before `before`."""
    since = before - timedelta(days=SHARE_DAYS)
    recent = [row for row in rows if since <= row["day"] < before]
    total = sum(map(value, recent))
    return sum(value(row) for row in recent if row["workload"] == workload) / total if total else 0.0


@lru_cache(maxsize=512)
def public_holidays(country: str, year: int) -> tuple[str, ...]:
    """ISO dates of a country's public holidays, where the library is installed. Raises `Invalid`."""
    try:
        import holidays  # noqa: PLC0415 -- an extra
    except ImportError as error:
        raise Invalid(
            "holidays need an optional package", code="extra_missing", hint="pip install 'groundplan[economics]'"
        ) from error
    try:
        days = holidays.country_holidays(country, years=year)
    except (NotImplementedError, TypeError) as error:  # a name of that library which is no country cannot be called
        raise Invalid(
            f"the holidays of '{country[:20]}' are not known",
            code="country_unknown",
            hint="Use an ISO country code such as NO or SE.",
        ) from error
    return tuple(sorted(day.isoformat() for day in days))
