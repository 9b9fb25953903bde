"""Look-ups by meaning are a term of their own, taken out of what carries them: no sum changes, and nothing is twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from groundplan.core.money import PICO
from groundplan.economics.allocate.model import LookupCost, Part
from groundplan.economics.allocate.semantic_lookup import LOOKUP, separate_lookups

HOUR = 3_600_000_000
lines = st.lists(
    st.builds(
        Part,
        term=st.sampled_from(["input", "platform"]),
        workload=st.sampled_from(["a", "b", ""]),
        team=st.just("care"),
        deployment=st.just(""),
        site=st.just(""),
        allocation=st.sampled_from(["one", "two"]),
        version=st.integers(1, 3),
        amount=st.integers(1, 10**15),
        basis=st.sampled_from(["measured", "allocated"]),
        rule=st.sampled_from(["by calls (allocation one)", "by cost (allocation two)"]),
        source=st.just("contract"),
    ),
    max_size=8,
)
looked = st.dictionaries(
    st.sampled_from(["a", "b", "c"]),
    st.builds(LookupCost, workload=st.just(""), spent_us=st.integers(0, 10**13), hourly_price=st.integers(0, 10**12)),
)


def total_of(workload: str, made: list[Part]) -> int:
    return sum(line.amount for line in made if line.workload == workload)


@given(lines, looked)
def test_a_workload_carries_its_look_ups_once(made: list[Part], asked: dict[str, LookupCost]) -> None:
    named = {name: LookupCost(name, each.spent_us, each.hourly_price) for name, each in asked.items()}
    found = separate_lookups(made, named)
    for name in ("a", "b", "c", ""):
        due = named[name].cost if name in named else 0
        carried = sum(line.amount for line in made if line.workload == name and line.term == "platform")
        assert total_of(name, found) == total_of(name, made) + max(0, due - carried)
        assert sum(line.amount for line in found if line.workload == name and line.term == LOOKUP) == due
        measured = [line for line in made if line.workload == name and line.term == "input"]
        assert [line for line in found if line.workload == name and line.term == "input"] == measured
    assert all(line.amount > 0 for line in found)


def test_it_says_how_it_came_about() -> None:
    carried = Part("platform", "a", "care", "allocated", "by calls (allocation p)", "contract", "", "", "p", 1, PICO)
    rest, look = separate_lookups([carried], {"a": LookupCost("a", HOUR // 2, PICO // 10)})
    assert (rest.amount, look.amount, look.basis, look.team) == (PICO - PICO // 20, PICO // 20, "estimated", "care")
    assert look.units == 1800
    assert look.rule == "s of look-ups x $0.100 an hour, part of what is carried by calls (allocation p)"
    (alone,) = separate_lookups([], {"a": LookupCost("a", HOUR, PICO // 10, "care")})
    assert alone.rule.endswith("which no allocation of the platform carries") and alone.team == "care"
