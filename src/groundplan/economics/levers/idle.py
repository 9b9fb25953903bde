"""Levers in costs that no call causes: idle capacity, and stored content that nobody reads. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

from groundplan.core.money import to_decimal
from groundplan.economics.allocate.model import CREDIT, IDLE, Line
from groundplan.economics.levers.model import StoredContent
from groundplan.economics.replay.opportunities import Opportunity

IDLE_SHARE = Decimal("0.3")
"""Lowest idle share of a capacity's cost to report."""


def idle_capacity(lines: Sequence[Line], month: Decimal) -> list[Opportunity]:
    """Idle capacity by deployment."""
    found = []
    deployments = sorted({line.deployment for line in lines if line.term == IDLE})
    for name in deployments:
        # a credit does not make capacity less idle
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


def unread_content(kept: StoredContent, lines: Sequence[Line], month: Decimal) -> Iterable[Opportunity]:
    """Prompts and answers whose storage costs money and that nobody has read."""
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
