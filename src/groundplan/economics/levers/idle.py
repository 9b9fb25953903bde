"""Levers in what costs without being asked: capacity that stands idle, and kept content that nobody reads. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

from groundplan.core.money import to_decimal
from groundplan.economics.allocate.model import CREDIT, IDLE, Line
from groundplan.economics.levers.model import Content
from groundplan.economics.replay.opportunities import Opportunity

IDLE_SHARE = Decimal("0.3")
"""Of a capacity's cost from which on its idle part is told."""


def idle_capacity(lines: Sequence[Line], month: Decimal) -> list[Opportunity]:
    """By deployment: what its capacity costs and nobody used."""
    found = []
    deployments = sorted({line.deployment for line in lines if line.term == IDLE})
    for name in deployments:
        # what is taken off is no less idle
        mine = [line for line in lines if line.deployment == name and line.basis != "measured" and line.term != CREDIT]
        idle = sum(line.amount for line in mine if line.term == IDLE)
        whole = sum(line.amount for line in mine)
        share = Decimal(idle) / whole if whole else Decimal(0)
        if share < IDLE_SHARE:
            continue
        found.append(
            Opportunity(
                "idle capacity",
                "",
                to_decimal(idle) * month,
                f"put more work on {name}, or give capacity of it up",
                f"{share:.0%} of what {name} costs stood idle, by the tokens that were made there",
                "medium",
                "keep what peaks and a failover need: `groundplan placement stress` shows it",
            )
        )
    return found


def unread_content(kept: Content, lines: Sequence[Line], month: Decimal) -> Iterable[Opportunity]:
    """Prompts and answers that are kept and paid for, of which nobody read one."""
    paid = sum(line.amount for line in lines if line.workload == kept.workload and line.term == "logs")
    if kept.reads or not kept.calls or not paid:
        return
    yield Opportunity(
        "logs nobody reads",
        kept.workload,
        to_decimal(paid) * month,
        "keep: {content: none}, or keep it for fewer days",
        f"{kept.gigabytes:.3g} GB of {kept.calls} calls are kept, and nobody read one in these days",
        "small",
        "laws or contracts may ask for them; receipts and proofs stay without content",
    )
