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
    rows_json = []
    for row in semantic_store.totals_by_workload(conn, since):
        rule = declared.get(row["workload"]) or Semantic()
        totals = LookupTotals(
            row["looked"], row["given"], row["checked"], row["wrong"], row["spent_us"], from_decimal(row["saved_usd"])
        )
        savings = net_savings(totals, rule.bound, rule.hour, rule.wrong_cost)
        rows_json.append(
            {
                "workload": row["workload"],
                "looked": totals.looked,
                "given": totals.given,
                "checked": totals.checked,
                "found_wrong": totals.wrong,
                "wrong_answers": round(savings.wrong_answers, 2),
                "saved_usd": format_usd(savings.saved),
                "lookups_usd": format_usd(savings.lookups),
                "wrong_usd": format_usd(savings.wrong),
                "net_usd": format_usd(savings.net),
            }
        )
    return rows_json
