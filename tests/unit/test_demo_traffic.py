"""The traffic of the demo goes on where one workload's answers wait for a reviewer who does not come."""

from __future__ import annotations

from random import Random

from groundplan.testing.judgements import Caller
from groundplan.testing.traffic import next_question

ANALYST, CLERK = Caller("finance-analytics", "a"), Caller("staff-assistant", "b")


def test_first_questions_are_asked_in_their_order_and_once() -> None:
    first = [(ANALYST, "one"), (CLERK, "two")]
    asked = [next_question(first, (), (), {}, Random(1)) for _ in range(3)]
    assert asked == [(ANALYST, "one"), (CLERK, "two"), None] and first == []


def test_a_workload_whose_answers_are_held_keeps_nobody_waiting() -> None:
    first = [(ANALYST, "one"), (CLERK, "two"), (ANALYST, "three")]
    held = {"finance-analytics"}
    assert next_question(first, [ANALYST, CLERK], held, {}, Random(1)) == (CLERK, "two")
    asked = [next_question(first, [ANALYST, CLERK], held, {}, Random(seed)) for seed in range(50)]
    assert {each[0] for each in asked if each is not None} == {CLERK} and None not in asked
    assert first == [(ANALYST, "one"), (ANALYST, "three")], "they are asked once answers are no longer held"
    assert next_question(first, [ANALYST], held, {}, Random(1)) is None
    assert next_question(first, [ANALYST], (), {}, Random(1)) == (ANALYST, "one")
