"""Spreading the book over what only calls know loses and makes nothing, and tells what was measured as it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from groundplan.economics.allocate.breakdown import NO_KEY, spread
from groundplan.economics.allocate.model import Line

lines = st.lists(
    st.builds(
        Line,
        term=st.sampled_from(["input", "platform"]),
        workload=st.sampled_from(["a", "b", ""]),
        amount=st.integers(0, 10**15),
        basis=st.sampled_from(["measured", "allocated", "estimated"]),
        rule=st.just(""),
        source=st.just(""),
        allocation=st.sampled_from(["", "rack"]),
        deployment=st.sampled_from(["", "gpu", "cloud"]),
        site=st.sampled_from(["", "here"]),
    ),
    max_size=8,
)
weights = st.dictionaries(
    st.sampled_from(["a", "b"]), st.dictionaries(st.sampled_from(["x", "y", ""]), st.integers(0, 10**12), max_size=3)
)


@given(lines, weights)
def test_every_sum_is_that_of_the_lines(made: list[Line], by: dict[str, dict[str, int]]) -> None:
    found = listed(spread(made, by, {"deployment/gpu": by}))
    for basis in ("measured", "allocated", "estimated"):
        assert sum(a for _, b, a in found if b == basis) == sum(line.amount for line in made if line.basis == basis)


def listed(sums: Mapping[Any, Mapping[str, int]]) -> list[tuple[str, str, int]]:
    return sorted((key, basis, amount) for basis, mine in sums.items() for key, amount in mine.items() if amount)


def line(workload: str, amount: int, basis: str = "measured", term: str = "input") -> Line:
    return Line(term=term, workload=workload, amount=amount, basis=basis, rule="", source="")  # type: ignore[arg-type]


def test_what_calls_cost_is_told_to_the_picodollar_and_the_rest_follows() -> None:
    made = [line("a", 7), line("a", 6, term="output"), line("a", 100, "allocated"), line("b", 5), line("", 4)]
    assert listed(spread(made, {"a": {"search": 12, "summary": 1}, "gone": {"x": 9}}, {})) == [
        (NO_KEY, "measured", 9), ("search", "allocated", 92), ("search", "measured", 12), ("summary", "allocated", 8),
        ("summary", "measured", 1),
    ]  # fmt: skip


def test_own_hardware_is_told_by_the_tokens_that_were_made_on_it() -> None:
    own = replace(line("a", 100, "allocated", "capacity"), allocation="rack", deployment="gpu", site="here")
    room = replace(line("a", 10, "allocated", "energy"), allocation="room", site="here")
    paid = replace(line("a", 50), deployment="cloud", site="there")
    calls = {"a": {"paid": 50}}
    there = {"deployment/gpu": {"a": {"local": 3, "paid": 1}}, "site/here": {"a": {"local": 1}}}
    assert listed(spread([own, room, paid], calls, there)) == [
        ("local", "allocated", 85), ("paid", "allocated", 25), ("paid", "measured", 50),
    ]  # fmt: skip
    assert listed(spread([own], calls, {})) == [("paid", "allocated", 100)], "where nothing is known of the place"
    measured = replace(own, allocation="", basis="measured")
    assert listed(spread([measured], calls, there)) == [("paid", "measured", 100)], "what attempts cost is their calls'"
