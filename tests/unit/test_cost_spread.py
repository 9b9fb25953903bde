"""Spreading the book over what only calls know loses and makes nothing, and tells what was measured as it was."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from groundplan.economics.allocate.model import Line
from groundplan.economics.allocate.spread import NONE, spread

lines = st.lists(
    st.builds(
        Line,
        term=st.sampled_from(["input", "platform"]),
        workload=st.sampled_from(["a", "b", ""]),
        amount=st.integers(0, 10**15),
        basis=st.sampled_from(["measured", "allocated", "estimated"]),
        rule=st.just(""),
        source=st.just(""),
    ),
    max_size=8,
)
weights = st.dictionaries(
    st.sampled_from(["a", "b"]), st.dictionaries(st.sampled_from(["x", "y", ""]), st.integers(0, 10**12), max_size=3)
)


@given(lines, weights)
def test_every_sum_is_that_of_the_lines(made: list[Line], by: dict[str, dict[str, int]]) -> None:
    found = spread(made, by)
    for basis in ("measured", "allocated", "estimated"):
        assert sum(a for _, b, a in found if b == basis) == sum(line.amount for line in made if line.basis == basis)


def line(workload: str, amount: int, basis: str = "measured", term: str = "input") -> Line:
    return Line(term=term, workload=workload, amount=amount, basis=basis, rule="", source="")  # type: ignore[arg-type]


def test_what_calls_cost_is_told_to_the_picodollar_and_the_rest_follows() -> None:
    made = [line("a", 7), line("a", 6, term="output"), line("a", 100, "allocated"), line("b", 5), line("", 4)]
    assert spread(made, {"a": {"search": 12, "summary": 1}, "gone": {"x": 9}}) == [
        (NONE, "measured", 9), ("search", "allocated", 92), ("search", "measured", 12), ("summary", "allocated", 8),
        ("summary", "measured", 1),
    ]  # fmt: skip
