"""Background check: a finding for each soft budget that was crossed, once per period, until the period is over."""

from __future__ import annotations

from decimal import Decimal

from groundplan.api import store
from groundplan.api.budgets import current_budget_use
from groundplan.api.context import Services
from groundplan.api.served_blueprint import current_or_none
from groundplan.core.money import from_usd_text, short_usd
from groundplan.core.words import format_period

LOOK_SECONDS = 5.0


def update_findings(services: Services) -> int:
    """Update the findings; returns how many are new. Cheap where no budget is soft."""
    with services.transaction() as conn:
        blueprint = current_or_none(conn)
        soft = {b.name for b in blueprint.budgets if not b.hard} if blueprint else set()
        # budgets of keys, of which there may be very many, are hard
        used = current_budget_use(conn, blueprint, services.clock.now(), near=1.0) if soft else []
        crossed = [
            (row["budget"], row["period"], _message(row))
            for row in used
            if row["budget"] in soft and Decimal(row["spent_usd"]) > Decimal(row["limit_usd"])
        ]
        return store.update_crossed_budget_findings(conn, crossed)


def _message(row: dict[str, str]) -> str:
    spent, limit = short_usd(from_usd_text(row["spent_usd"])), short_usd(from_usd_text(row["limit_usd"]))
    return f"The budget {row['budget']} is crossed ({format_period(row['period'])}): {spent} of {limit} were spent."
