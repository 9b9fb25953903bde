"""Savings of the semantic cache, net of look-ups and wrong answers, as each workload prices them. Decides nothing."""

from __future__ import annotations

from datetime import date
from typing import Any

from psycopg import Connection

from groundplan.api import served_blueprint
from groundplan.blueprint.model import Semantic
from groundplan.core.money import format_usd, from_decimal
from groundplan.economics.semantic.net_savings import LookupTotals, net_savings
from groundplan.ledger import semantic_store


def semantic_savings_json(conn: Connection[Any], since: date) -> list[dict[str, Any]]:
    """One row for each workload with semantic matches since that day; amounts are decimal strings."""
    blueprint = served_blueprint.current_or_none(conn)
    declared = {} if blueprint is None else {w.name: w.cache.semantic for w in blueprint.workloads if w.cache}
    found = []
    for row in semantic_store.totals_by_workload(conn, since):
        rule = declared.get(row["workload"]) or Semantic()
        done = LookupTotals(
            row["looked"], row["given"], row["checked"], row["wrong"], row["spent_us"], from_decimal(row["saved_usd"])
        )
        made = net_savings(done, rule.bound, rule.hour, rule.wrong_cost)
        found.append(
            {
                "workload": row["workload"],
                "looked": done.looked,
                "given": done.given,
                "checked": done.checked,
                "found_wrong": done.wrong,
                "wrong_answers": round(made.wrong_answers, 2),
                "saved_usd": format_usd(made.saved),
                "lookups_usd": format_usd(made.lookups),
                "wrong_usd": format_usd(made.wrong),
                "net_usd": format_usd(made.net),
            }
        )
    return found
