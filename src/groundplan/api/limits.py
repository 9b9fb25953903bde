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
    `who`: names for the ids of users, keys and experiments, used in the `title` of a budget. The taken amount includes
    what gateways hold: the bound of open calls, and in addition at most an eighth of the rest or the bound of one more
    call, which is given back when others need it.
    """
    declared = {(item.type, item.name, item.period): item for item in blueprint.limits} if blueprint else {}
    counted = {item.name for item in blueprint.workloads if item.calls_per_day is not None} if blueprint else set()
    budgets = {budget.name: budget for budget in blueprint.budgets} if blueprint else {}
    keys = dict(_keys(blueprint)) if blueprint else {}
    limits = [item for span in spans if (item := _limit(declared, counted, keys, span, who)) is not None]
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
    for deployment in blueprint.deployments:
        for index, key in enumerate(deployment.keys):
            yield (
                f"{deployment.name}#{key.fingerprint}",
                (f"{deployment.name}#{index}", f"key {index + 1} of deployment/{deployment.name}"),
            )


def _limit(
    declared: Mapping[tuple[str, str, str], Limit],
    counted: Collection[str],
    keys: Mapping[str, tuple[str, str]],
    span: Mapping[str, Any],
    who: Mapping[str, str],
) -> dict[str, Any] | None:
    kind, name, *subject_parts = span["name"].split("/", 2)
    period = "now" if kind == "concurrent" else _PERIODS.get(len(span["span"]), "")
    limit = declared.get((kind, name, period))
    subject = subject_parts[0] if subject_parts else ""
    owner, _, number = name.partition("#")
    if limit is not None:
        covers = limit.covers
    elif name in keys:
        name, covers = keys[name]
    elif number and owner in counted:
        name, covers = "calls_per_day", f"workload/{owner}"
    else:
        return None  # a limit of an earlier blueprint
    amount = span["amount"] if limit is None else limit.amount  # the declared amount, which gateways may not use yet
    share = _share(Decimal(span["granted"]), Decimal(amount))
    return {
        "limit": name,
        "covers": covers,
        "who": who.get(subject, subject) or covers,
        "counts": kind,
        "per": period,
        "most": _amount(kind, amount),
        "taken": _amount(kind, span["granted"]),
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
