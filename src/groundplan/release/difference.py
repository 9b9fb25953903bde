"""Differences between two blueprints, field by field, as text for people. Decides nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from groundplan.blueprint import model as bp
from groundplan.catalog.units import format_like
from groundplan.core.canonical import digest
from groundplan.core.money import PICO, format_plain, to_decimal
from groundplan.core.words import display_value
from groundplan.release.compile.grants import GRANT_FIELDS, format_grants, grant_changes
from groundplan.release.model import Difference, Field

_PARTS = ("site", "deployment", "source", "workload", "budget", "workflow", "term")
_MAX_TEXT = 120
_MONEY_FIELDS = frozenset(
    {
        "limit", "amount", "rate", "max_cost_per_call", "experiment.budget", "replay.budget", "routing.second",
        "cache.semantic.wrong_cost", "cache.semantic.hour", "cost_per_case",
    }
)  # fmt: skip
"""Fields in picodollars, shown in dollars."""
_SHARE_FIELDS = frozenset({"experiment.share", "keep.share", "review.share"})
"""Fields in ten-thousandths, shown in percent."""
_FRACTION_FIELDS = frozenset(
    {
        "cache.semantic.bound", "cache.semantic.check", "experiment.guard_tolerance", "experiment.tolerance",
        "needs.quality", "price_band", "reliability.hedge.at_most", "routing.cascade.confidence", "routing.floor",
        "routing.keep",
    }
)  # fmt: skip
"""Fields from 0 to 1, shown in percent."""
_DECLARED_NAMES = {
    "audio_seconds": "audio", "batch_concurrent": "batches.concurrent", "cache.max_bytes": "cache.max_size",
    "cache.seconds": "cache.ttl", "cache.semantic.bound": "cache.semantic.wrong_at_most",
    "cache.semantic.hour": "cache.semantic.processor", "cache.semantic.wrong_cost": "cache.semantic.wrong_costs",
    "connect_ms": "timeouts.connect", "file_bytes": "files.max_size", "first_token_ms": "timeouts.first_token",
    "grounding.max_bytes": "grounding.max_size", "guardrails.hold_bytes": "guardrails.hold_back",
    "guardrails.max_input_bytes": "guardrails.input.max_size",
    "guardrails.max_output_bytes": "guardrails.output.max_size", "idle_ms": "timeouts.idle", "keep.seconds": "keep.for",
    "max_output_tokens": "max_output", "reliability.backoff_ms": "reliability.retries.backoff",
    "reliability.max_backoff_ms": "reliability.retries.max_backoff", "reliability.same": "reliability.retries.same",
}  # fmt: skip
"""Field of a blueprint -> its name in the workspace, where that differs."""
_PRICE_UNITS = {
    "request": "", "image": "", "search": "", "minute": "/minute", "characters": "/Mchar", "long_above": "",
    "flagged": "", "shortest": "",
}  # fmt: skip
"""Field of a price that is not per million tokens -> its unit; a value of 0 is not shown."""


def differences(old: bp.Blueprint | None, new: bp.Blueprint) -> tuple[Difference, ...]:
    """All differences between two blueprints, by kind and name; number and placements are not compared."""
    found: list[Difference] = []
    before = _company_texts(old) if old else {}
    company = field_differences(before, _company_texts(new))
    if company:
        found.append(Difference("changed" if old else "added", "company", company))
    for part in _PARTS:
        found += _part_differences(part, getattr(old, f"{part}s") if old else [], getattr(new, f"{part}s"))
    found += _named_differences("limit", _limit_texts(old) if old else {}, _limit_texts(new))
    found += _part_differences("allocation", old.allocations if old else [], new.allocations)
    found += _part_differences("policy", old.policies if old else [], new.policies)
    found += _part_differences("tool", old.tools if old else [], new.tools)
    found += _part_differences("framework", old.frameworks if old else [], new.frameworks)
    return tuple(found)


def field_differences(old: dict[str, str], new: dict[str, str]) -> tuple[Field, ...]:
    """The fields whose texts differ, in the order of their names."""
    return tuple(
        Field(name, old.get(name), new.get(name)) for name in sorted({*old, *new}) if old.get(name) != new.get(name)
    )


def struct_differences(old: msgspec.Struct | None, new: msgspec.Struct) -> tuple[Field, ...]:
    """The fields that differ between two structs of the same kind, and who gains and who loses by their grants."""
    people: list[Field] = []
    for field in GRANT_FIELDS:
        had, has = getattr(old, field, []), getattr(new, field, [])
        gains, loses = grant_changes(field, had, has) if had != has else ("", "")
        people += [Field(f"{field}: gained by", None, gains)] if gains else []
        people += [Field(f"{field}: lost by", loses, None)] if loses else []
    return (*field_differences(field_texts(old) if old is not None else {}, field_texts(new)), *people)


def field_texts(value: msgspec.Struct) -> dict[str, str]:
    """Field -> one line of text, for every field of a struct; nested ones as `outer.inner`; empty ones are left out."""
    return dict(_flatten("", msgspec.to_builtins(value)))


def _company_texts(blueprint: bp.Blueprint) -> dict[str, str]:
    texts = {"company": blueprint.company, "separation": blueprint.separation}
    owners = {f"owners.{duty}": ", ".join(people) for duty, people in blueprint.owners.items()}
    texts |= {"approvals.parts": ", ".join(blueprint.approved_parts)} if blueprint.approved_parts else {}
    if blueprint.approval_terms is not None:
        texts |= {f"approvals.{name}": value for name, value in field_texts(blueprint.approval_terms).items()}
    texts |= _calendar_texts(blueprint.calendar) | _currency_texts(blueprint)
    texts |= {"trusted_proxies": ", ".join(blueprint.trusted_proxies)} if blueprint.trusted_proxies else {}
    if blueprint.index != bp.Index():
        texts |= {f"index.{name}": value for name, value in field_texts(blueprint.index).items()}
    texts |= {f"review_days.{source}": str(days) for source, days in blueprint.review_days.items()}
    texts |= {f"cost_per_outcome.{name}": _usd(amount) for name, amount in blueprint.may_cost.items()}
    texts |= {f"cost_center.{team}": center for team, center in blueprint.cost_centers.items()}
    return texts | owners | {f"caps.{key}": value for key, value in field_texts(blueprint.caps).items()}


def _calendar_texts(calendar: bp.Calendar) -> dict[str, str]:
    days = {name: ", ".join(getattr(calendar, name)) for name in ("countries", "holidays")}
    texts = {f"calendar.{name}": text for name, text in days.items() if text}
    return texts | {
        f"launches.{each.workload}.{each.day}": f"{each.factor:g} times as much{f', {each.name}' if each.name else ''}"
        for each in calendar.launches
    }


def _currency_texts(blueprint: bp.Blueprint) -> dict[str, str]:
    return {
        f"currencies.{code}.{each.since}": _usd(each.rate)
        for code, rates in blueprint.currencies.items()
        for each in rates
    }


def _limit_texts(blueprint: bp.Blueprint) -> dict[str, dict[str, str]]:
    """Limit -> its fields: `covers`, and each amount as `type.period`."""
    found: dict[str, dict[str, str]] = {}
    for each in blueprint.limits:
        amount = _usd(each.amount) if each.type == "cost" else str(each.amount)
        found.setdefault(each.name, {"covers": each.covers})[f"{each.type}.{each.period}"] = amount
    return found


def _named_differences(kind: str, old: dict[str, dict[str, str]], new: dict[str, dict[str, str]]) -> list[Difference]:
    found: list[Difference] = []
    for name in sorted({*old, *new}):
        if old.get(name) == new.get(name):
            continue
        what = "added" if name not in old else "removed" if name not in new else "changed"
        changed = () if what == "removed" else field_differences(old.get(name, {}), new[name])
        found.append(Difference(what, f"{kind}/{name}", changed))
    return found


def _part_differences(kind: str, old: Sequence[Any], new: Sequence[Any]) -> list[Difference]:
    before = {item.name: item for item in old}
    after = {item.name: item for item in new}
    found: list[Difference] = []
    for name in sorted({*before, *after}):
        subject = f"{kind}/{name}"
        if name not in before:
            found.append(Difference("added", subject, field_differences({}, field_texts(after[name]))))
        elif name not in after:
            found.append(Difference("removed", subject))
        elif before[name] != after[name]:
            found.append(Difference("changed", subject, struct_differences(before[name], after[name])))
    return found


def _flatten(name: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, dict):
        inner = [pair for key, item in value.items() for pair in _flatten(f"{name}.{key}" if name else key, item)]
        return [pair for pair in inner if pair[0] != "name"]
    if value is None or value in ([], "") or (value == 0 and _is_unset(name)):
        return []
    if name.startswith("rates.") and name.endswith(".windows"):
        return [
            pair
            for each in value
            for pair in _flatten(f"{name.removesuffix('.windows')}.{_hours_text(each)}", each["rates"])
        ]
    return [(_DECLARED_NAMES.get(name, name).removesuffix("_ms"), _value_text(name, value))]


def _is_unset(name: str) -> bool:
    """Whether a value of 0 means the same as no value."""
    return name.startswith("rates.") and (name.startswith("rates.then.") or name.rpartition(".")[2] in _PRICE_UNITS)


def _hours_text(window: dict[str, Any]) -> str:
    """A window of the day as text: `22:00-06:00`."""
    return "-".join(f"{minutes // 60:02d}:{minutes % 60:02d}" for minutes in (window["start"], window["end"]))


def _value_text(name: str, value: Any) -> str:
    if isinstance(value, list) and name in GRANT_FIELDS:
        return format_grants(msgspec.convert(value, list[bp.Grant]))
    if isinstance(value, list | bool):
        return display_value(value)
    if isinstance(value, int) and name in _MONEY_FIELDS:
        return f"{_usd(value)}{'/hour' if name == 'cache.semantic.hour' else ''}"
    if name.endswith("_ms"):
        return str(format_like(value, "800ms"))
    if name in ("cache.seconds", "keep.seconds", "audio_seconds"):
        return str(format_like(value * 1000, "800ms"))
    if name.endswith("_bytes") and name != "guardrails.hold_bytes":
        return str(format_like(value, "8 kB"))
    if name in _SHARE_FIELDS or name in _FRACTION_FIELDS or name.startswith("routing.quality."):
        return str(format_like(value / 10_000 if name in _SHARE_FIELDS else value, "5%"))
    if isinstance(value, int) and name.startswith("rates."):
        last = "image" if ".images." in name else name.rpartition(".")[2]
        counts = {"long_above": "tokens", "shortest": "seconds"}
        return f"{value} {counts[last]}" if last in counts else f"{_usd(value)}{_PRICE_UNITS.get(last, '/Mtok')}"
    text = str(value)
    if len(text) <= _MAX_TEXT:
        return text
    return f"{text[:_MAX_TEXT].rstrip()}… ({len(text)} characters, SHA-256 {digest(text.encode())[:8]})"


def _usd(amount: int) -> str:
    return f"{format_plain(to_decimal(amount)) if amount % PICO else amount // PICO} USD"
