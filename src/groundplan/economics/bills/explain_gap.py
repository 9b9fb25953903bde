"""One gap between a bill's amount and the ledger's, split into parts that add up to it exactly.

Knows sums of one group only: which lines and calls belong together is `match`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from groundplan.blueprint.model import Rates
from groundplan.core.money import format_plain

_PICO = Decimal("0.000000000001")
_MILLION = Decimal(1_000_000)
_RATE = Decimal("0.000001")


@dataclass(frozen=True, slots=True)
class Side:
    """One side's figures of a group. Tokens: None if it has none; input includes cached tokens."""

    usd: Decimal
    input: int | None
    output: int | None
    count: int
    """Lines, or attempts."""
    rounded: Decimal = Decimal(0)
    """The most that rounding of its lines can come to."""
    estimated: Decimal | None = None
    """USD of attempts whose provider reported no usage; None: there are none."""
    open: bool = False
    not_billed: bool = False
    classes: Mapping[str, tuple[Decimal, int]] = field(default_factory=dict)
    """Class of tokens -> (USD, tokens) where lines are by class."""


@dataclass(frozen=True, slots=True)
class GapPart:
    """One part of the gap."""

    kind: str
    amount: Decimal
    note: str


def explain_gap(bill: Side, ledger: Side, rates: Rates | None) -> list[GapPart]:
    """The parts of `bill - ledger`; empty without a gap. Needs enough decimal precision in the context: amounts stay
    exact."""
    gap = bill.usd - ledger.usd
    if not gap:
        return []
    if not ledger.count:
        return [GapPart("bill_line_without_call", gap, "")]
    if not bill.count:
        return [GapPart("call_without_bill_line", gap, "")]
    if ledger.open:
        return [GapPart("open_reservation", gap, "the bill has what the call really came to")]
    if ledger.not_billed:
        return [GapPart("billed_failure", gap, "ask the provider why, or book it")]
    if abs(gap) <= bill.rounded + _PICO * ledger.count and not _tokens_differ(bill, ledger):
        return [GapPart("rounding", gap, "")]
    if bill.input is None and bill.output is None:
        kind = "estimated" if _is_explained_by_estimates(ledger, gap) else "unexplained"
        return [GapPart(kind, gap, _factor(bill.usd, ledger.usd))]
    return _explain_by_tokens(bill, ledger, rates, gap)


def _explain_by_tokens(bill: Side, ledger: Side, rates: Rates | None, gap: Decimal) -> list[GapPart]:
    usage = value_of_tokens(bill, ledger, rates)
    found = []
    if usage:
        told = (
            f"{_count(bill.input)}/{_count(bill.output)} tokens in/out on the bill, {ledger.input}/{ledger.output} here"
        )
        found.append(GapPart("estimated" if _is_explained_by_estimates(ledger, usage) else "tokens", usage, told))
    rest = gap - usage
    if not rest:
        return found
    if abs(rest) <= bill.rounded + _PICO * (ledger.count + 1):
        return [*found, GapPart("rounding", rest, "")]
    return [*found, GapPart("price", rest, price_that_explains(bill, ledger.usd + usage, rates))]


def _is_explained_by_estimates(ledger: Side, amount: Decimal) -> bool:
    """Whether what was estimated may explain so much: one small estimate among many calls does not."""
    return ledger.estimated is not None and (abs(amount) <= ledger.estimated or ledger.estimated == ledger.usd)


def _tokens_differ(bill: Side, ledger: Side) -> bool:
    return (bill.input is not None and bill.input != ledger.input) or (
        bill.output is not None and bill.output != ledger.output
    )


def value_of_tokens(bill: Side, ledger: Side, rates: Rates | None) -> Decimal:
    """What the tokens that the bill has more (or fewer) are worth here, to the picodollar."""
    more_in = 0 if bill.input is None else bill.input - (ledger.input or 0)
    more_out = 0 if bill.output is None else bill.output - (ledger.output or 0)
    if not more_in and not more_out:
        return Decimal(0)
    if rates is not None:
        return (Decimal(more_in * rates.input + more_out * rates.output) * _PICO / _MILLION).quantize(_PICO)
    total = (ledger.input or 0) + (ledger.output or 0)
    return (ledger.usd * (more_in + more_out) / total).quantize(_PICO) if total else Decimal(0)


def price_that_explains(bill: Side, expected: Decimal, rates: Rates | None) -> str:
    """Which price would make the bill right, in words."""
    if bill.classes:
        told = (
            f"{name.replace('_', ' ')} at {_per_million(usd, tokens)} USD/Mtok"
            for name, (usd, tokens) in sorted(bill.classes.items())
        )
        return f"the bill charges {', '.join(told)}"
    words = [_factor(bill.usd, expected)]
    if rates is not None and bill.output and bill.input is not None:
        left = bill.usd - Decimal(bill.input * rates.input) * _PICO / _MILLION
        if left >= 0:
            words.append(f"output at {_per_million(left, bill.output)} USD/Mtok would explain it")
    elif bill.input and not bill.output:
        words.append(f"input at {_per_million(bill.usd, bill.input)} USD/Mtok would explain it")
    if rates is not None and bill.input:
        left = bill.usd - Decimal((bill.output or 0) * rates.output) * _PICO / _MILLION
        if left >= 0 and bill.output:
            words.append(f"or input at {_per_million(left, bill.input)} USD/Mtok")
    return "; ".join(word for word in words if word)


def _per_million(usd: Decimal, tokens: int) -> str:
    return format_plain((usd * _MILLION / tokens).quantize(_RATE))


def _factor(bill: Decimal, expected: Decimal) -> str:
    """`the bill is 0.5 times the ledger`: a batch or discounted price shows like this."""
    if not expected:
        return ""
    factor = (bill / expected).quantize(Decimal("0.0001"))
    return f"the bill is {factor.normalize():,f} times the ledger"


def _count(tokens: int | None) -> str:
    return "?" if tokens is None else str(tokens)
