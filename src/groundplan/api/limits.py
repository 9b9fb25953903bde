"""Use of each limit and budget, and which are nearly used up. Pure: rows in, JSON out."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from groundplan.blueprint.model import Blueprint, Limit
from groundplan.core.money import format_usd

NEAR_SHARE = 0.8
"""The used share from which a limit or budget counts as nearly used up."""


def limits_json(
    blueprint: Blueprint | None,
    spans: Sequence[Mapping[str, Any]],
    used: Sequence[Mapping[str, Any]],
    who: Mapping[str, str],
) -> dict[str, Any]:
    """Limits and budgets as JSON, the most used first.

    `spans`: what gateways have taken (`store.limit_spans`); `used`: use of budgets (`budgets.current_budget_use`);
    `who`: names for the ids of users, keys and experiments, used in the `title` of a budget. What is taken includes
    what gateways hold: the bound of open calls, and beside it at most an eighth of the rest or the bound of one more
    call, which is given back when others need it.
    """
    declared = {(each.type, each.name, each.period): each for each in blueprint.limits} if blueprint else {}
    counted = {each.name for each in blueprint.workloads if each.calls_per_day is not None} if blueprint else set()
    budgets = {budget.name: budget for budget in blueprint.budgets} if blueprint else {}
    keys = dict(_keys(blueprint)) if blueprint else {}
    limits = [each for span in spans if (each := _limit(declared, counted, keys, span, who)) is not None]
    money = []
    for row in used:
        budget = budgets.get(row["budget"])
        share = _share(Decimal(row["spent_usd"]), Decimal(row["limit_usd"]))
        money.append(
            {
                "budget": row["budget"],
                "title": who.get(row["budget"].rpartition("/")[2], row["budget"]),
                "covers": budget.covers if budget else row["budget"],
                "period": row["period"],
                "hard": budget.hard if budget else True,
                "limit_usd": row["limit_usd"],
                "spent_usd": row["spent_usd"],
                "share": share,
                "near": share >= NEAR_SHARE,
            }
        )
    return {"limits": _most_used_first(limits), "budgets": _most_used_first(money)}


def _keys(blueprint: Blueprint) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield (mark, (name, description)) of each provider key; its use is counted under the mark."""
    for place in blueprint.deployments:
        for index, key in enumerate(place.keys):
            yield (
                f"{place.name}#{key.fingerprint}",
                (f"{place.name}#{index}", f"key {index + 1} of deployment/{place.name}"),
            )


def _limit(
    declared: Mapping[tuple[str, str, str], Limit],
    counted: Collection[str],
    keys: Mapping[str, tuple[str, str]],
    span: Mapping[str, Any],
    who: Mapping[str, str],
) -> dict[str, Any] | None:
    what, name, *each = span["name"].split("/", 2)
    period = "now" if what == "concurrent" else _PERIODS.get(len(span["span"]), "")
    found = declared.get((what, name, period))
    subject = each[0] if each else ""
    owner, _, number = name.partition("#")
    if found is not None:
        covers = found.covers
    elif name in keys:
        name, covers = keys[name]
    elif number and owner in counted:
        name, covers = "calls_per_day", f"workload/{owner}"
    else:
        return None  # of an earlier blueprint
    most = span["amount"] if found is None else found.amount  # also before a gateway asks
    share = _share(Decimal(span["granted"]), Decimal(most))
    return {
        "limit": name,
        "covers": covers,
        "who": who.get(subject, subject) or covers,
        "counts": what,
        "per": period,
        "most": _amount(what, most),
        "taken": _amount(what, span["granted"]),
        "share": share,
        "near": share >= NEAR_SHARE,
        "frees_at": span["ends"],
    }


_PERIODS = {16: "minute", 13: "hour", 10: "day", 7: "month"}


def _amount(what: str, amount: int) -> str | int:
    return format_usd(amount) if what == "cost" else amount


def _share(part: Decimal, whole: Decimal) -> float:
    return round(float(part / whole), 4) if whole else 1.0


def _most_used_first(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: -row["share"])
