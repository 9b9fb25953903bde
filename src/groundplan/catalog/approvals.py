"""Terms of approvals: a block of the company. Types only."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

from groundplan.catalog.base import Strict
from groundplan.catalog.fields import LIST, Percent, list_schema

Kind = Literal["model", "prompt", "data", "rollout", "evidence"]


class Approvals(Strict):
    """How long approvals are valid, and who must give them. Earlier approvals keep the end that they were given."""

    valid_days: Annotated[int, Field(ge=1, le=3650)] = 365
    """Days until an approval ends and has to be renewed; announced 30, 7 and 1 days ahead."""
    grace_days: Annotated[int, Field(ge=0, le=90)] = 0
    """Days that production goes on after its approval has ended, with a finding; never for restricted data."""
    seats: Annotated[int, Field(ge=1, le=9)] = 1
    """Number of different people who must approve production. A person with several duties counts once."""
    parts: Annotated[tuple[Kind, ...], LIST, list_schema({"enum": list(get_args(Kind))})] = ("model", "prompt", "data")
    """What needs an approval of its own before production uses it: each model version, prompt, and source for a
    purpose; `rollout`: to which audience production goes; `evidence`: what a person gives as evidence for a control.
    What is left out is covered by the approval of the workload; evidence counts at once then."""
    price_band: Percent = 0.2
    """How far the price of a deployment may rise above that of when its model was approved; beyond it the approval
    lapses. Lower prices, and how much is used, are no part of it."""
    remind_days: Annotated[int, Field(ge=1, le=90)] = 3
    """Days between reminders to people whose approval is needed."""
