"""What a workspace declares of the days to come, for forecasts and budgets' ends. No holidays are known here."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from groundplan.catalog.base import Strict
from groundplan.catalog.fields import LIST, Date, Line, list_schema

Country = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]


class CalendarRule(Strict):
    """Days with less traffic than the weekday has."""

    countries: Annotated[
        tuple[Country, ...], LIST, Field(max_length=20), list_schema({"type": "string", "examples": ["NO"]})
    ] = ()
    """ISO codes of countries whose public holidays count."""
    holidays: Annotated[
        tuple[Date, ...], LIST, Field(max_length=400), list_schema({"type": "string", "examples": ["2026-12-24"]})
    ] = ()
    """Further days, such as those on which the company is closed."""


class LaunchRule(Strict):
    """A change of traffic from a day on."""

    day: Date
    """The first day of it."""
    factor: Annotated[float, Field(gt=0, le=1000)]
    """Factor of traffic from then on: 2 for a launch, 0.5 for an end."""
    name: Line | None = None
    """What it is."""


def _once(launches: tuple[LaunchRule, ...]) -> tuple[LaunchRule, ...]:
    twice = [day for day, count in Counter(each.day for each in launches).items() if count > 1]
    if twice:
        raise ValueError(f"two launches are on {min(twice)}: write one, with the factor of both")
    return launches


Launches = Annotated[tuple[LaunchRule, ...], LIST, Field(max_length=50), AfterValidator(_once)]
