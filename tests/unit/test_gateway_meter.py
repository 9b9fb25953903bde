"""Prices to the picodollar, and bounds that no usage within them exceeds."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from groundplan.blueprint.model import Rates
from groundplan.gateway.call import meter, settle
from groundplan.ledger.model import Usage

rate = st.integers(0, 10**14)
tokens = st.integers(0, 10**6)
rates = st.builds(
    Rates,
    input=rate,
    output=rate,
    cache_read=st.none() | rate,
    cache_write=st.none() | rate,
    reasoning=st.none() | rate,
    input_audio=st.none() | rate,
    output_audio=st.none() | rate,
    request=rate,
)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    read, write, audio, plain = draw(tokens), draw(tokens), draw(tokens), draw(tokens)
    reasoning, spoken, said = draw(tokens), draw(tokens), draw(tokens)
    return Usage(
        input=read + write + audio + plain, output=reasoning + spoken + said, cache_read=read, cache_write=write,
        reasoning=reasoning, input_audio=audio, output_audio=spoken,
    )  # fmt: skip


def either(own: int | None, parent: int) -> int:
    return parent if own is None else own


@given(usages(), rates)
def test_cost_is_exact_and_rounded_up_once(usage: Usage, price: Rates) -> None:
    exact = Fraction(
        (usage.input - usage.cache_read - usage.cache_write - usage.input_audio) * price.input
        + usage.cache_read * either(price.cache_read, price.input)
        + usage.cache_write * either(price.cache_write, price.input)
        + usage.input_audio * either(price.input_audio, price.input)
        + (usage.output - usage.reasoning - usage.output_audio) * price.output
        + usage.reasoning * either(price.reasoning, price.output)
        + usage.output_audio * either(price.output_audio, price.output),
        1_000_000,
    )
    cost = meter.cost(usage, price) - price.request
    assert 0 <= cost - exact < 1


@given(usages(), rates)
def test_no_usage_within_its_bound_costs_more_than_the_bound(usage: Usage, price: Rates) -> None:
    assert meter.cost(usage, price) <= meter.bound(price, usage.input, usage.output)


def test_contradictory_and_impossible_reports() -> None:
    price = Rates(input=1_000_000, output=2_000_000)
    assert meter.cost(Usage(input=5, cache_read=9), price) == 9
    assert meter.ReportedUsage(prompt_tokens=-1).usage() is None
    assert meter.ReportedUsage(completion_tokens=1 << 50).usage() is None
    assert meter.ReportedUsage(prompt_tokens=3, completion_tokens=4).usage() == Usage(input=3, output=4)


def test_a_feature_is_a_short_name() -> None:
    assert settle.feature_of(b"refund-form/v2") == "refund-form/v2"
    for odd in (None, b"", b"two words", b"a" * 65, b"=cmd()", "caf\u00e9".encode()):
        assert settle.feature_of(odd) == ""
