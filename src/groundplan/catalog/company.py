"""The company as a whole.

One pydantic model per kind; text with units is parsed on the way in. The sentence below a field describes it in
the JSON Schema. Rules between documents are `check`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from groundplan.catalog.approvals import Approvals
from groundplan.catalog.base import Strict
from groundplan.catalog.calendar import CalendarRule
from groundplan.catalog.currency import Code, CurrencyRule
from groundplan.catalog.demand import PlacementPolicy
from groundplan.catalog.fields import (
    Line,
    Name,
    Networks,
    Secret,
    Unlimited,
)
from groundplan.catalog.index import IndexRule
from groundplan.catalog.levels import Sensitivity
from groundplan.catalog.people import Owners
from groundplan.catalog.transport import ProxyUrl

MOST_DAYS = 36_500
"""A hundred years: the calendar ends somewhere."""


def _days(count: int | None) -> int | None:
    if count is not None and count > MOST_DAYS:
        raise ValueError(f"write at most {MOST_DAYS}, or unlimited")
    return count


class Caps(Strict):
    """Up to here an experiment or a pilot needs no approval; raising these later needs one."""

    people: Unlimited = 25
    """Maximum number of people who may use one experiment or pilot."""
    calls_per_day: Unlimited = 1000
    """Maximum number of calls a day of one experiment or pilot."""
    days: Annotated[Unlimited, AfterValidator(_days)] = 90
    """Maximum number of days that an experiment or pilot runs."""
    sensitivity: Sensitivity = "internal"
    """The most sensitive data of an experiment or pilot."""


class CompanyDoc(Strict):
    """The company: once in each workspace."""

    kind: Literal["company"] = "company"
    name: Name
    title: Line | None = None
    format: Literal[1] = 1
    """Version of this file format."""
    separation: Literal["solo", "enforced"] = "enforced"
    """solo: one person holds every duty, approvals are marked so; enforced: nobody approves their own change."""
    caps: Caps = Caps()
    owners: Owners = Owners()
    """Holders of duties for the company as a whole."""
    trusted_proxies: Networks = ()
    """Networks of the proxies in front of the gateways, whose X-Forwarded-For says where a call comes from."""
    proxy: ProxyUrl | None = None
    """Proxy to every deployment that is not local and names none itself."""
    proxy_key: Secret | None = None
    """`user:password` for that proxy: `env:NAME` or `file:/path`."""
    approvals: Approvals = Approvals()
    placement: PlacementPolicy = PlacementPolicy()
    currencies: dict[Code, CurrencyRule] = Field(default_factory=dict)
    """Currencies besides USD in which prices and allocations may be written, with dated rates."""
    index: IndexRule = IndexRule()
    calendar: CalendarRule = CalendarRule()
    """Holidays, for forecasts of traffic and budgets."""
