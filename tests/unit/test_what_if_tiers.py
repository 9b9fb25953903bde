"""A scenario with other contexts prices each call by the tier that its changed prompt has, in both directions."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from fractions import Fraction

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from groundplan.blueprint.model import PriceWindow, Rates
from groundplan.economics import price
from groundplan.economics.forecast.scenario import CallGroup, Change, what_if
from groundplan.economics.forecast.tiers import rates_for_prompt, tier_edges
from groundplan.economics.terms.split import explain_cost, split_cost
from groundplan.ledger.model import Usage

FACTORS = st.sampled_from(["0", "0.25", "0.5", "0.75", "1", "1.25", "1.5", "2", "4", "40"])
FACTOR = {text: Fraction(text) for text in ("0", "0.25", "0.5", "0.75", "1", "1.25", "1.5", "2", "4", "40")}


@st.composite
def rates(draw: st.DrawFn) -> Rates:
    """Two tiers, each at least as dear as the one before; a price of what is read from a cache in all or in none."""
    made: Rates | None = None
    limits = sorted(draw(st.sets(st.integers(1, 400).map(lambda each: 4 * each), min_size=2, max_size=2)))
    steps = sorted(draw(st.lists(st.integers(1, 10**12), min_size=3, max_size=3)))
    cached = draw(st.booleans())
    for place in (2, 1, 0):
        into = steps[place]
        made = Rates(
            input=into, output=3 * into, cache_read=into // 4 if cached else None, request=1 + into // 1000,
            long=made, long_above=limits[place] if place < 2 else 0,
        )  # fmt: skip
    assert made is not None
    return made


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    into, out = 4 * draw(st.integers(0, 500)), draw(st.integers(0, 300))
    return Usage(input=into, cache_read=4 * draw(st.integers(0, into // 4)), output=out, reasoning=out // 3)


def parts_of(calls: Sequence[Usage], own: Rates, other: Rates | None, factor: Fraction) -> list[CallGroup]:
    """As they are read: by class, and by the edges that a prompt has more tokens than."""
    found = []
    limits = tier_edges(own, other, factor)
    for usage in calls:
        cost = price.cost(own, usage)
        place = bisect_left(limits, usage.input)
        prompt = limits[place - 1] + 1 if place else None
        for name, (count, amount) in split_cost(own, usage, cost).items():
            known = None if prompt is None else own
            found.append(
                CallGroup(name, count, amount, tier=explain_cost(own, usage, cost)[1], prompt=prompt, own=known)
            )
    return found


def longer(usage: Usage, factor: Fraction) -> Usage:
    return msgspec.structs.replace(usage, input=int(usage.input * factor), cache_read=int(usage.cache_read * factor))


@given(rates(), st.lists(usages(), max_size=8), FACTORS)
def test_each_call_costs_what_its_changed_prompt_would(own: Rates, calls: list[Usage], text: str) -> None:
    factor = FACTOR[text]
    made = what_if(parts_of(calls, own, None, factor), Change(context=float(text)))
    direct = sum(price.cost(own, longer(usage, factor)) for usage in calls)
    # an amount of the ledger is rounded up by less than a picodollar for each of a call's classes, and grows with it
    slack = sum(10 * (1 + factor) * Fraction(_dearest(own), own.input) + 10 for _ in calls)
    assert abs(made.after - direct) <= slack
    assert made.before == sum(price.cost(own, usage) for usage in calls)


@given(rates(), st.lists(usages(), max_size=8))
def test_the_same_context_costs_what_was_spent(own: Rates, calls: list[Usage]) -> None:
    made = what_if(parts_of(calls, own, None, Fraction(1)), Change())
    spent = sum(price.cost(own, usage) for usage in calls)
    assert (made.before, made.after, made.steps) == (spent, spent, ())


@given(rates(), st.lists(usages(), max_size=8), FACTORS, FACTORS)
def test_a_longer_context_never_costs_less(own: Rates, calls: list[Usage], one: str, two: str) -> None:
    less, more = sorted([one, two], key=float)
    costs = [
        what_if(parts_of(calls, own, None, FACTOR[text]), Change(context=float(text))).after for text in (less, more)
    ]
    assert costs[0] <= costs[1]


@given(rates(), rates(), st.lists(usages(), max_size=8), FACTORS)
def test_another_model_has_its_own_tiers(own: Rates, other: Rates, calls: list[Usage], text: str) -> None:
    factor = FACTOR[text]
    made = what_if(parts_of(calls, own, other, factor), Change(context=float(text), rates=other))
    direct = sum(price.cost(other, longer(usage, factor)) for usage in calls)
    assert abs(made.after - direct) <= 10 * len(calls)


def _dearest(own: Rates) -> int:
    while own.long is not None:
        own = own.long
    return own.output


LONG = Rates(input=20, output=40)
OWN = Rates(input=10, output=20, long=LONG, long_above=1000)


def test_lengths_at_which_a_tier_changes() -> None:
    assert tier_edges(OWN, None, Fraction(1)) == () and tier_edges(Rates(input=1, output=1), None, Fraction(9)) == ()
    assert tier_edges(OWN, None, Fraction(2)) == (500, 1000) and tier_edges(OWN, None, Fraction(3)) == (333, 1000)
    assert tier_edges(OWN, None, Fraction(0)) == (1000,) and tier_edges(OWN, None, Fraction(1, 10**300))[-1] == 1 << 60
    other = msgspec.structs.replace(OWN, long_above=300)
    assert tier_edges(OWN, other, Fraction(1)) == (300, 1000) and tier_edges(OWN, other, Fraction(2)) == (
        150,
        500,
        1000,
    )
    batch = msgspec.structs.replace(OWN, batch=msgspec.structs.replace(OWN, long_above=70))
    night = msgspec.structs.replace(batch, windows=[PriceWindow(start=0, end=1440, rates=other)])
    assert tier_edges(night, None, Fraction(2)) == (35, 70, 150, 300, 500, 1000)
    assert rates_for_prompt(batch, "batch long", Fraction(70)).input == 10
    assert rates_for_prompt(batch, "batch", Fraction(71)).input == 20
    assert rates_for_prompt(night, "long by time", Fraction(299)).input == 10
