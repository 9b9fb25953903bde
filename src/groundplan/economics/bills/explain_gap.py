"""Splits the gap between a bill's amount and the ledger's into parts that add up to it exactly.

Knows the sums of one group only; `match` decides which lines and calls belong together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from groundplan.blueprint.model import Rates
from groundplan.core.money import format_plain

_PICO = Decimal("0.000000000001")
_MILLION = Decimal(1_000_000)
_RATE_STEP = Decimal("0.000001")


@dataclass(frozen=True, slots=True)
class Side:
    """Sums of one group, on the bill's or the ledger's side. Tokens are None where the side has no counts of them;
    input includes cached tokens."""

    usd: Decimal
    input: int | None
    output: int | None
    count: int
    """Number of lines or attempts."""
    rounded: Decimal = Decimal(0)
    """The most in USD that rounding of the lines can come to."""
    estimated: Decimal | None = None
    """USD of attempts whose provider reported no usage; None: there are none."""
    open: bool = False
    """Whether an attempt is not settled."""
    not_billed: bool = False
    """Whether all attempts failed without a cost in the ledger."""
    classes: Mapping[str, tuple[Decimal, int]] = field(default_factory=dict)
    """Class of tokens -> (USD, tokens), of lines for one class."""


@dataclass(frozen=True, slots=True)
class GapPart:
    """One part of a gap: `amount` in exact USD, `kind` one of `model.EXPLANATION_KINDS`."""

    kind: str
    amount: Decimal
    note: str


def explain_gap(bill: Side, ledger: Side, rates: Rates | None) -> list[GapPart]:
    """Parts of `bill - ledger`; empty without a gap. Amounts stay exact only if the decimal context has enough
    precision."""
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
        return [GapPart(kind, gap, _factor_note(bill.usd, ledger.usd))]
    return _explain_by_tokens(bill, ledger, rates, gap)


def _explain_by_tokens(bill: Side, ledger: Side, rates: Rates | None, gap: Decimal) -> list[GapPart]:
    token_gap = value_of_token_gap(bill, ledger, rates)
    parts = []
    if token_gap:
        counts = f"{_format_count(bill.input)}/{_format_count(bill.output)}"
        note = f"{counts} tokens in/out on the bill, {ledger.input}/{ledger.output} here"
        parts.append(
            GapPart("estimated" if _is_explained_by_estimates(ledger, token_gap) else "tokens", token_gap, note)
        )
    remainder = gap - token_gap
    if not remainder:
        return parts
    if abs(remainder) <= bill.rounded + _PICO * (ledger.count + 1):
        return [*parts, GapPart("rounding", remainder, "")]
    return [*parts, GapPart("price", remainder, explaining_price(bill, ledger.usd + token_gap, rates))]


def _is_explained_by_estimates(ledger: Side, amount: Decimal) -> bool:
    """Whether estimated attempts may explain this amount: one small estimate among many calls does not."""
    return ledger.estimated is not None and (abs(amount) <= ledger.estimated or ledger.estimated == ledger.usd)


def _tokens_differ(bill: Side, ledger: Side) -> bool:
    return (bill.input is not None and bill.input != ledger.input) or (
        bill.output is not None and bill.output != ledger.output
    )


def value_of_token_gap(bill: Side, ledger: Side, rates: Rates | None) -> Decimal:
    """USD at the ledger's rates of the tokens that the bill has more (or fewer) than the ledger, to the picodollar;
    without rates at the ledger's average price."""
    more_in = 0 if bill.input is None else bill.input - (ledger.input or 0)
    more_out = 0 if bill.output is None else bill.output - (ledger.output or 0)
    if not more_in and not more_out:
        return Decimal(0)
    if rates is not None:
        return (Decimal(more_in * rates.input + more_out * rates.output) * _PICO / _MILLION).quantize(_PICO)
    ledger_tokens = (ledger.input or 0) + (ledger.output or 0)
    return (ledger.usd * (more_in + more_out) / ledger_tokens).quantize(_PICO) if ledger_tokens else Decimal(0)


def explaining_price(bill: Side, expected: Decimal, rates: Rates | None) -> str:
    """Note on the price that would make the bill right."""
    if bill.classes:
        class_prices = (
            f"{name.replace('_', ' ')} at {_per_million(usd, tokens)} USD/Mtok"
            for name, (usd, tokens) in sorted(bill.classes.items())
        )
        return f"the bill charges {', '.join(class_prices)}"
    notes = [_factor_note(bill.usd, expected)]
    if rates is not None and bill.output and bill.input is not None:
        remainder = bill.usd - Decimal(bill.input * rates.input) * _PICO / _MILLION
        if remainder >= 0:
            notes.append(f"output at {_per_million(remainder, bill.output)} USD/Mtok would explain it")
    elif bill.input and not bill.output:
        notes.append(f"input at {_per_million(bill.usd, bill.input)} USD/Mtok would explain it")
    if rates is not None and bill.input:
        remainder = bill.usd - Decimal((bill.output or 0) * rates.output) * _PICO / _MILLION
        if remainder >= 0 and bill.output:
            notes.append(f"or input at {_per_million(remainder, bill.input)} USD/Mtok")
    return "; ".join(note for note in notes if note)


def _per_million(usd: Decimal, tokens: int) -> str:
    return format_plain((usd * _MILLION / tokens).quantize(_RATE_STEP))


def _factor_note(bill: Decimal, expected: Decimal) -> str:
    """`the bill is 0.5 times the ledger`: a batch or discounted price shows like this."""
    if not expected:
        return ""
    factor = (bill / expected).quantize(Decimal("0.0001"))
    return f"the bill is {factor.normalize():,f} times the ledger"


def _format_count(tokens: int | None) -> str:
    return "?" if tokens is None else str(tokens)
