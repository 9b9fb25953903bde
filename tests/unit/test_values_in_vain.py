"""Values that would let nothing happen, or be taken for others: refused with their place."""

from __future__ import annotations

import pytest
from tests.unit.test_release_plan import BASE

from groundplan.catalog.check import validate_files
from groundplan.core.errors import Invalid


@pytest.mark.parametrize(
    ("old", "new", "hint"),
    [
        ("stage: pilot", "stage: pilot\nlimits: {deadline: 0ms}", "Write from 1ms to 366d."),
        ("stage: pilot", "stage: pilot\nreliability: {deadline: 0s}", "Write from 1ms to 366d."),
        ("stage: pilot", "stage: pilot\nreliability: {deadline: 400d}", "Write from 1ms to 366d."),
        ("stage: pilot", "stage: pilot\nreliability: {hedge: {at_most: 0%}}", "Greater than 0."),
        ("stage: pilot", "stage: pilot\nlimits: {max_output: 0}", "Greater than or equal to 1."),
        ("stage: pilot", "stage: pilot\nreview: {before_sending: true, share: 0%}", "Greater than 0."),
        ("stage: pilot", "stage: pilot\nreview: {before_sending: true, share: 0.004%}", "steps of 0.01%"),
        ("stage: pilot", "stage: pilot\nkeep: {content: full, share: 0.004%}", "steps of 0.01%"),
        ("name: gpt-eu\n", "name: gpt-eu\ntimeouts: {idle: 0ms}\n", "Write from 1ms to 366d."),
        ("name: gpt-eu\n", "name: gpt-eu\ncontext: 0\n", "Greater than or equal to 1."),
        ("name: gpt-eu\n", "name: gpt-eu\nmax_output: 0\n", "Greater than or equal to 1."),
        ("name: gpt-eu\n", "name: gpt-eu\naudio: 0s\n", "Write from 1ms to 366d."),
        ("name: gpt-eu\n", "name: gpt-eu\nimage_tokens: 200M\n", "Less than or equal to 100000000."),
        ("stage: pilot", "stage: pilot\nlimits: {max_output: 9007199254740991}", "Less than or equal to 100000000."),
    ],
)
def test_a_value_that_lets_nothing_happen_or_would_be_taken_for_another_is_refused(
    old: str, new: str, hint: str
) -> None:
    assert old in BASE
    with pytest.raises(Invalid) as caught:
        validate_files({"a.yaml": BASE.replace(old, new, 1)})
    (problem,) = caught.value.problems
    assert problem.where is not None and hint in problem.hint


def test_a_tool_is_at_no_local_service() -> None:
    tool = "kind: tool\nname: crm\nurl: local:embedded\nowner: ana@acme.example\nworkloads: [assistant]\n"
    with pytest.raises(Invalid) as caught:
        validate_files({"a.yaml": f"{BASE}---\n{tool}"})
    assert [each.where is not None and each.where.line for each in caught.value.problems] == [BASE.count("\n") + 4]
