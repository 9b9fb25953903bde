"""A workload's guardrails on what passes through `/mcp`: arguments of callers, and what servers answer.

What a server says is text from elsewhere, so it passes the checks for passages; `resources` knows the form of contents.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.guard import presidio
from groundplan.gateway.guard.relay import refusal_error
from groundplan.gateway.mcp.resources import ContentChecker, Kind, checked_result
from groundplan.gateway.mcp.use import McpUse
from groundplan.governance.guardrails.guard import Findings, Guard, checked_passage, rewrite_texts
from groundplan.governance.guardrails.masks import Masks
from groundplan.governance.guardrails.model import Refusal
from groundplan.governance.guardrails.window import Refused


async def check_arguments(gateway: Gateway, use: McpUse) -> None:
    """Block arguments that the workload's input guardrails block; nothing is masked, since a tool needs values. Raises
    `Denied`."""
    guard = _guard_of(use.exchange)
    if guard is None or not guard.checks_input or guard.shadow:
        return
    checked_texts = [*use.caller_texts, *_texts_in(use.arguments)]

    def refuse_blocked(text: str, own: bool) -> str:
        for hit in guard.input.find_hits(text, inject=not own):
            if hit.action == "block":
                raise Refused(Refusal("input", hit.check, hit.kind))
        return text

    try:
        rewrite_texts({"text": checked_texts}, refuse_blocked)
        if guard.presidio_input == "block":
            kinds = await presidio.find_personal_data(gateway, use.exchange.id, "\n".join(checked_texts))
            if kinds is None and not guard.fail_open:
                raise Refused(Refusal("input", "failed", "presidio"))
            if kinds:
                raise Refused(Refusal("input", "presidio", kinds[0]))
    except Refused as refused:
        raise refusal_error(refused.refusal) from refused


def checked_tool_result(use: McpUse, result: dict[str, Any]) -> dict[str, Any]:
    """A tool's result after the checks for passages."""
    guard = _guard_of(use.exchange)
    if guard is None or guard.passages.is_empty:
        return result
    findings = Findings()
    check_text = _passage_check(guard, findings)
    content = result.get("content")
    checker = ContentChecker(check_text) if guard.shadow else ContentChecker(check_text, guard.unchecked)
    kept = [checker.check_part(each) for each in content] if isinstance(content, list) else []
    checked = {**result, "content": kept}
    if use.server is not None:  # the gateway's own tool repeats its content there
        for text in _texts_in(result.get("structuredContent")):
            check_text(text)
    if findings.counts and not guard.shadow:
        checked.pop("structuredContent", None)
    return checked


def checked_entry(exchange: Exchange, kind: Kind, server: str, found: dict[str, Any]) -> dict[str, Any]:
    """A server's resource or prompt, with the names that callers use, after the checks for passages."""
    guard = _guard_of(exchange)
    if guard is None or guard.passages.is_empty or guard.shadow:
        return dict(checked_result(kind, server, found, ContentChecker(str)))
    checker = ContentChecker(_passage_check(guard, Findings()), guard.unchecked)
    return dict(checked_result(kind, server, found, checker))


def checked_error(exchange: Exchange, message: str) -> str:
    """A server's error message after the checks for passages."""
    guard = _guard_of(exchange)
    if guard is None or guard.passages.is_empty:
        return message
    return _passage_check(guard, Findings())(message)


def _guard_of(exchange: Exchange) -> Guard | None:
    return exchange.plan.guard if exchange.plan is not None else None


def _passage_check(guard: Guard, findings: Findings) -> Callable[[str], str]:
    """A check of single texts that adds to `findings` and shares its masks among them."""
    masks = Masks()

    def check_text(text: str) -> str:
        checked = checked_passage(guard, text, masks, findings)
        return "(left out by a guardrail)" if checked is None else checked

    return check_text


def _texts_in(value: Any) -> list[str]:
    """All texts in a JSON value, with names and numbers, which are often data."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for name, each in value.items() for text in (name, *_texts_in(each))]
    if isinstance(value, list):
        return [text for each in value for text in _texts_in(each)]
    return [str(value)] if isinstance(value, int | float) and not isinstance(value, bool) else []
