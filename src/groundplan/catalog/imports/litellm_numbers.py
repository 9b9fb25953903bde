"""Numbers of one entry of LiteLLM's `model_list`: context, timeouts, rates, as fields of a deployment, its workload and
its limit, each with a finding. Prices are read by `litellm_prices`.
"""

from __future__ import annotations

from collections.abc import Container
from decimal import Decimal
from typing import Any

from groundplan.catalog.fields import MOST_TOKENS
from groundplan.catalog.imports.node import Node
from groundplan.catalog.imports.verdict import CARRIED, CHANGED, NO_EQUAL, Finding
from groundplan.core.money import format_plain

_MOST_USD = Decimal(9_000_000)
_SMALLEST = Decimal("0.000000000001")
_DEFAULT_OUTPUT = 16_384
PERIODS = {
    "1d": "day", "24h": "day", "daily": "day", "30d": "month", "1mo": "month", "31d": "month", "monthly": "month",
    "7d": "week", "1w": "week", "weekly": "week", "90d": "quarter",
    "365d": "year", "1y": "year", "12mo": "year", "yearly": "year",
}  # fmt: skip
"""LiteLLM's duration -> period here."""
_LIMITED = frozenset({"rpm", "tpm", "max_parallel_requests", "max_budget"})
_WEIGHED = "; LiteLLM's shuffle goes on above it, unless a pre-call check is enabled"
_EQUIVALENTS = {
    "rpm": "requests: of a limit of the deployment, exact across gateways" + _WEIGHED,
    "tpm": "tokens: of a limit of the deployment, exact across gateways" + _WEIGHED,
    "max_parallel_requests": "concurrent: of a limit of the deployment, exact across gateways",
    "weight": "weight: of the deployment",
    "order": "the order of deployments of the workload",
    "timeout": "limits.deadline of the workload, for all attempts of a call together; in LiteLLM each has that time",
    "stream_timeout": "timeouts.first_token of the deployment",
    "num_retries": "limits.attempts of the workload",
    "max_retries": "limits.attempts of the workload",
    "max_tokens": "limits.max_output of the workload, max_output of the deployment",
    "max_completion_tokens": "limits.max_output of the workload",
    "max_input_tokens": "context of the deployment",
    "max_output_tokens": "max_output of the deployment",
}
"""LiteLLM's key -> its equivalent here."""
_DIFFERENT = frozenset({"order", "rpm", "tpm", "timeout"})
"""Those of which the equivalent is not the same."""


def _tokens(number: Decimal | int) -> int:
    """Clamped to what a declaration accepts."""
    return max(1, min(int(number), MOST_TOKENS))


class Numbers:
    """Reads numbers and collects findings."""

    def __init__(self, findings: list[Finding]) -> None:
        self._findings = findings

    def size_fields(self, params: Node, info: Node | None) -> dict[str, Any]:
        """`context`, `max_output` and `timeouts` of a deployment."""
        found: dict[str, Any] = {}
        most = self.number(info, "max_input_tokens") if info else None
        output = self.number(info, "max_output_tokens") if info else None
        either = self.number(info, "max_tokens") if info and not output else None  # of an answer, or all that fits
        if most:
            found["context"] = _tokens(most + (output or either or 0))
        answer = _tokens(output or min(either or _DEFAULT_OUTPUT, _DEFAULT_OUTPUT))
        found["max_output"] = min(answer, found.get("context", answer))
        wait = self.milliseconds(params, "stream_timeout")
        if wait is not None:
            found["timeouts"] = {"first_token": f"{wait}ms"}
        return found

    def number(self, node: Node | None, key: str) -> Decimal | None:
        """The number at a key, with a finding; None if there is none."""
        value = node.get(key) if node else None
        number = value.number() if value else None
        if value is not None and number is not None:
            self._add_finding(CHANGED if key in _DIFFERENT else CARRIED, key, _EQUIVALENTS[key], "", value)
        return number

    def milliseconds(self, params: Node, key: str) -> int | None:
        """Milliseconds of a time in seconds, clamped to a millisecond and a day."""
        number = self.number(params, key)
        return max(1, min(-int(-number * 1000 // 1), 86_400_000)) if number else None

    def attempts(self, params: Node) -> int | None:
        """Number of attempts of a call."""
        found = [self.number(params, key) for key in ("num_retries", "max_retries")]
        retries = [number for number in found if number is not None]
        return min(int(retries[0]) + 1, 10) if retries else None

    def max_output(self, params: Node) -> int | None:
        """Maximum number of tokens of one answer."""
        number = self.number(params, "max_tokens") or self.number(params, "max_completion_tokens")
        return _tokens(number) if number else None

    def limit_fields(self, params: Node, keys: Container[str] = _LIMITED) -> dict[str, Any]:
        """Fields of a `limit` for this deployment: rates, concurrent calls and cost."""
        found: dict[str, Any] = {}
        for key, name, unit in (("rpm", "requests", "/minute"), ("tpm", "tokens", "/minute"),
                                ("max_parallel_requests", "concurrent", "")):  # fmt: skip
            number = self.number(params, key) if key in keys else None
            if number is not None and number >= 1:
                found[name] = f"{int(number)}{unit}" if unit else int(number)
        money = params.get("max_budget") if "max_budget" in keys else None
        lasts = params.get("budget_duration")
        amount = money.number() if money else None
        period = PERIODS.get((lasts.text() or "").strip().lower()) if lasts else None
        if money is not None and amount:
            if period in ("day", "month") and amount < _MOST_USD:
                found["cost"] = f"{format_plain(amount.quantize(_SMALLEST))} USD/{period}"
                self._add_finding(CARRIED, "max_budget", "cost: of a limit of this deployment", "", money)
            else:
                here = "the cost of a deployment can be limited for a minute, hour, day or month"
                self._add_finding(NO_EQUAL, "max_budget", here, "Write kind: limit, covers: deployment/NAME.", money)
        return found

    def _add_finding(self, state: str, what: str, here: str, todo: str, node: Node) -> None:
        self._findings.append(Finding(state, what, here, todo, node.where))
