"""Calls written into declared files: only they change, and what is read again says so."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.catalog.edit import replace_traffic
from groundplan.catalog.loader import load_files

COMPANY = "kind: company\nname: acme\nformat: 1\n"
BLOCK = """# what staff ask
kind: workload
name: {name}
purpose: Answer questions
stage: pilot
traffic:            # as counted in spring
  prompt_tokens: 900
  calls: "200/day"  # a day
  completion_tokens: 200
"""
FLOW = """kind: workload
stage: pilot
purpose: Answer questions
name: {name}   # flow
traffic: {{calls: 200/day, prompt_tokens: 900, peak: 3}}
"""
NONE = "  kind: workload\n  name: {name}\n  stage: pilot\n  purpose: Answer questions"


def write_traffic(shapes: list[str], calls: dict[str, float]) -> tuple[str, str]:
    documents = [shape.format(name=f"w{number}") for number, shape in enumerate(shapes)]
    files = {"company.yaml": COMPANY, "w.yaml": "\n---\n".join(documents) + "\n"}
    found = replace_traffic(files, load_files(files), calls)
    assert found["company.yaml"] == COMPANY
    return files["w.yaml"], found["w.yaml"]


@given(st.lists(st.sampled_from([BLOCK, FLOW, NONE]), min_size=1, max_size=4), st.floats(0.1, 1e7))
def test_what_is_read_again_has_the_calls_and_nothing_else_differs(shapes: list[str], calls: float) -> None:
    wanted = {f"w{number}": calls + number for number in range(len(shapes))}
    before, after = write_traffic(shapes, wanted)
    again = load_files({"company.yaml": COMPANY, "w.yaml": after}).workloads
    old = load_files({"company.yaml": COMPANY, "w.yaml": before}).workloads
    for name, value in wanted.items():
        traffic = again[name].traffic
        assert traffic is not None and float(traffic.calls.per_month) == pytest.approx(max(1, round(value)) * 30)
        assert again[name].model_copy(update={"traffic": None}) == old[name].model_copy(update={"traffic": None})
        if old[name].traffic is not None:
            assert traffic.prompt_tokens == 900
    assert after.count("#") == before.count("#")


def test_only_those_that_are_named_change() -> None:
    before, after = write_traffic([BLOCK, FLOW, FLOW], {"w1": 7.0})
    lines = [(a, b) for a, b in zip(before.split("\n"), after.split("\n"), strict=True) if a != b]
    assert lines == [(
        "traffic: {calls: 200/day, prompt_tokens: 900, peak: 3}", "traffic: {calls: 7/day, prompt_tokens: 900, peak: 3}"
    )]  # fmt: skip
