"""What the gateway adds to a model's answer: the `groundplan` object (the facts), and header lines.

Decides nothing. Header values are made of the gateway's own names only; nothing of a request is reflected into a
header.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import msgspec

from groundplan.blueprint.model import Deployment, Workload
from groundplan.core.money import format_usd
from groundplan.gateway.call.ask import Passage
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.policy.catalog import Catalog

_CACHED_AMOUNTS = 256
"""Amounts cached as text: an answer has each in a header and in its body, and costs are often the same."""
_UNSAFE = re.compile(r"[^\x21-\x7e]")
_MOMENTARY_PREFIXES = (b"groundplan-budget-", b"x-ratelimit-", b"anthropic-ratelimit-")
_encode = msgspec.json.Encoder().encode


def header_value(text: str) -> bytes:
    """ASCII of a name; anything that could end or confuse a header line becomes `?`."""
    return _UNSAFE.sub("?", text).encode("ascii")


@lru_cache(_CACHED_AMOUNTS)
def _usd(amount: int) -> bytes:
    return format_usd(amount).encode("ascii")


class AnswerConstants(msgspec.Struct, frozen=True, array_like=True):
    """What every answer of one workload by one deployment has in common, built once for each blueprint."""

    lines: bytes
    """Header lines."""
    json: bytes
    """Members of the `groundplan` object, with a comma before and none after."""


def answer_constants(exchange: Exchange) -> AnswerConstants:
    """The constants of a call's answer."""
    deployment, plan = exchange.deployment, exchange.plan
    if plan is not None and deployment is not None:
        known = plan.answer_headers.get(deployment.name)
        if known is not None and known[0] is deployment:
            found: AnswerConstants = known[1]
            return found
    made = _make_constants(exchange.workload, deployment, exchange.catalog)
    if plan is not None and deployment is not None:
        plan.answer_headers[deployment.name] = (deployment, made)
    return made


def _make_constants(
    workload: Workload | None, deployment: Deployment | None, catalog: Catalog | None
) -> AnswerConstants:
    lines = [b"groundplan-workload: %b\r\n" % header_value(workload.name)] if workload else []
    if deployment is not None:
        lines.append(b"groundplan-model: %b\r\n" % header_value(deployment.model))
        lines.append(b"groundplan-deployment: %b\r\n" % header_value(deployment.name))
        lines.append(b"groundplan-site: %b\r\n" % header_value(deployment.site))
    if catalog is not None:
        lines.append(b"groundplan-blueprint: %d\r\n" % catalog.number)
    constants = {
        "workload": workload.name if workload else None,
        "model": deployment.model if deployment else None,
        "deployment": deployment.name if deployment else None,
        "site": deployment.site if deployment else None,
        "blueprint": catalog.number if catalog is not None else 0,
    }
    return AnswerConstants(b"".join(lines), b"," + _encode(constants)[1:-1])


def headers(exchange: Exchange, *, cost: bool, known: AnswerConstants | None = None) -> bytes:
    """`groundplan-*` lines with what is known now. `known`: its `answer_constants`, where that was looked up."""
    id, known = exchange.id, known or answer_constants(exchange)
    # joined, which takes two thirds of what `%` does
    parts = [b"groundplan-call-id: ", id, b"\r\n", exchange.interface.id_header, b": ", id, b"\r\n", known.lines]
    if cost:
        parts += (b"groundplan-cost-usd: ", _usd(exchange.cost), b"\r\n")
    if exchange.cache_result in ("exact", "semantic"):
        parts += (b"groundplan-cache: ", exchange.cache_result.encode("ascii"))
        parts += (b"\r\ngroundplan-saved-usd: ", _usd(exchange.saved_cost), b"\r\n")
    if exchange.remaining_budget is not None:
        parts += (b"groundplan-budget-remaining-usd: ", _usd(exchange.remaining_budget), b"\r\n")
    if exchange.crossed_budgets:
        parts += (b"groundplan-budget-crossed: ", header_value(",".join(exchange.crossed_budgets)), b"\r\n")
    if exchange.limit_use is not None:
        parts.append(exchange.limit_use.header_lines)
    return b"".join(parts)


def error_headers(exchange: Exchange) -> bytes:
    """Header lines for the error of a call that was sent: the last deployment, and the cost nevertheless."""
    return b"%bgroundplan-cost-usd: %b\r\n" % (answer_constants(exchange).lines, _usd(exchange.cost))


def split_replayed_headers(lines: bytes) -> tuple[bytes, bytes]:
    """(header lines that also hold when an answer is replayed, those with what was left of budgets and limits)."""
    last, now = b"", b""
    for line in lines.splitlines(keepends=True):
        if line.startswith(_MOMENTARY_PREFIXES):
            now += line
        else:
            last += line
    return last, now


def facts(exchange: Exchange, remaining: int | None, known: AnswerConstants | None = None) -> bytes:
    """The `groundplan` object of a settled call; `known` as in `headers`."""
    known = known or answer_constants(exchange)
    parts = [
        b'{"call_id":"', exchange.id, b'"', known.json, b',"cost_usd":"', _usd(exchange.cost), b'","estimated":',
        b"true" if exchange.estimated else b"false", b',"cache":"', exchange.cache_result.encode("ascii"),
        b'","sources":', _encode([_source(passage) for passage in exchange.passages]) if exchange.passages else b"[]",
    ]  # fmt: skip
    if remaining is None:
        parts.append(b',"budget_remaining_usd":null')
    else:
        parts += (b',"budget_remaining_usd":"', _usd(remaining), b'"')
    if exchange.cache_result in ("exact", "semantic"):
        parts += (b',"saved_usd":"', _usd(exchange.saved_cost), b'"')
    if exchange.grounding_notes is not None:
        parts.append(exchange.grounding_notes.json_members())
    if exchange.guard is not None:
        parts += (b',"guardrails":', _encode(exchange.guard.report()))
    deployment, ask = exchange.deployment, exchange.ask
    if ask is not None and deployment is not None and (exchange.interface.has_extra_facts or ask.left_out):
        noted = _encode(exchange.interface.extra_facts(ask, deployment))[1:-1]
        if noted:
            parts += (b",", noted)
    parts.append(b"}")
    return b"".join(parts)


def _source(passage: Passage) -> dict[str, Any]:
    return {
        "document": passage.document, "path": passage.path, "title": passage.title, "source": passage.source,
        "start_line": passage.start_line, "end_line": passage.end_line, "text": passage.text,
        "version": passage.version, "start_char": passage.start_char, "end_char": passage.end_char,
        **({"head": passage.head} if passage.head else {}),
    }  # fmt: skip
