"""Drawings of traffic and of one call: everything is inside, nothing of a name becomes markup."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from hypothesis import given
from hypothesis import strategies as st

from groundplan.console import receipt
from groundplan.console.traffic_svg import NAME_LENGTH, ROW_HEIGHT, SPARK_HEIGHT, call_waterfall, sparkline

HOSTILE = '"><script>x</script>'
COUNT = st.integers(0, 50)


def step(ok: int, refused: int, failed: int, cancelled: int) -> dict[str, Any]:
    calls = ok + refused + failed + cancelled
    return {"at": "2026-11-25T12:00:00+00:00", "calls": calls, "ok": ok, "refused": refused, "failed": failed}


@given(st.lists(st.tuples(COUNT, COUNT, COUNT, COUNT), max_size=100))
def test_columns_stay_inside_and_their_parts_on_top_of_each_other(counts: list[tuple[int, int, int, int]]) -> None:
    svg = ElementTree.fromstring(sparkline([step(*one) for one in counts]))
    assert len(svg.findall("g")) == sum(1 for one in counts if sum(one))
    for group in svg.findall("g"):
        bottom = float(SPARK_HEIGHT - 1)
        for rect in group.findall("rect"):
            y, height = float(rect.attrib["y"]), float(rect.attrib["height"])
            assert abs(y + height - bottom) < 0.02 and y > 0
            bottom = y
            assert 0 <= float(rect.attrib["x"].rstrip("%")) < 100


def test_a_column_tells_what_each_of_its_colours_counts() -> None:
    assert "<title>12:00:00: 10 calls, 3 failed, 2 refused, 4 cancelled</title>" in sparkline([step(1, 2, 3, 4)])


def test_without_traffic_there_is_an_empty_frame_that_says_so() -> None:
    assert "0 calls" in sparkline([]) and "<rect" not in sparkline([step(0, 0, 0, 0)])


def attempt(number: int, **more: Any) -> dict[str, Any]:
    return {
        "number": number, "deployment": f"d{number}{HOSTILE}", "outcome": "ok", "started_ms": 1.0, "duration_ms": 8.0,
        "connect_ms": 2.0, "first_byte_ms": 5.0, **more,
    }  # fmt: skip


def call(*attempts: dict[str, Any]) -> dict[str, Any]:
    steps = [{"step": "identify", "ms": 0.2}, {"step": "admit", "ms": 1.0}, {"step": "serve", "ms": 9.0}]
    return {"status": "ok", "key_id": "k", "duration_ms": 10.0, "steps": steps, "attempts": list(attempts)}


def test_a_call_is_one_row_for_each_step_and_attempt_on_one_scale() -> None:
    failed = attempt(0, outcome="not_billed", duration_ms=3.0, first_byte_ms=None, connect_ms=None)
    svg = ElementTree.fromstring(
        call_waterfall(call(failed, attempt(1, started_ms=4.0, duration_ms=5.0, first_byte_ms=3.0)))
    )
    assert int(svg.attrib["height"]) == 5 * ROW_HEIGHT
    texts = [text.text for text in svg.findall("text")]
    assert texts[:2] == ["identify", "0.2 ms"] and texts[6] == f"1. d0{HOSTILE}" and texts[7] == "not billed, 3.0 ms"
    rects = [rect for rect in svg.findall("rect") if rect.attrib["class"] != "wf-track"]
    assert [rect.attrib["class"] for rect in rects] == [
        *["wf-step"] * 3, "wf-failed", "wf-connect", "wf-wait", "wf-receive",
    ]  # fmt: skip
    received = rects[-1].attrib
    assert (received["x"], received["width"]) == ("70.000%", "20.000%")
    for rect in rects:
        assert float(rect.attrib["x"].rstrip("%")) + float(rect.attrib["width"].rstrip("%")) <= 100.5


def test_an_answer_whose_first_byte_nobody_timed_is_no_failure() -> None:
    svg = ElementTree.fromstring(call_waterfall(call(attempt(0, outcome="ok", first_byte_ms=None))))
    assert "wf-failed" not in [rect.attrib["class"] for rect in svg.findall("rect")]


def test_what_the_caller_or_a_faster_attempt_ended_is_not_drawn_as_failed() -> None:
    left = attempt(0, outcome="cancelled")
    slower = attempt(1, outcome="cancelled", first_byte_ms=None)
    svg = ElementTree.fromstring(call_waterfall(call(left, slower)))
    drawn = [
        rect.attrib["class"] for rect in svg.findall("rect") if rect.attrib["class"] not in ("wf-track", "wf-step")
    ]
    assert drawn == ["wf-connect", "wf-wait", "wf-receive", "wf-connect", "wf-wait"]
    assert "cancelled, 8.0 ms" in [text.text for text in svg.findall("text")]


def test_the_time_of_a_refusal_is_that_of_the_step_that_refused() -> None:
    """Such as the wait for idle amounts of a budget: completed steps alone would leave it without a bar."""
    steps = [{"step": "identify", "ms": 0.5}, {"step": "cache", "ms": 1.0}]
    refused = {"status": "refused", "key_id": "k", "duration_ms": 251.0, "steps": steps, "attempts": []}
    svg = ElementTree.fromstring(call_waterfall(refused))
    assert [text.text for text in svg.findall("text")][-2:] == ["admit", "refused, 250 ms"]
    assert [each.ms for each in receipt.steps(receipt_facts(refused)) if each.name == "admit"] == [250.0]
    untimed = {**refused, "steps": [], "duration_ms": None}
    assert call_waterfall(untimed) == ""


def receipt_facts(call: dict[str, Any]) -> dict[str, Any]:
    return {
        "who": None, "blueprint": 1, "cache": "none", "passages": [], "error_code": "budget_exhausted", "tool": None,
        "deployment": None, "prompt_tokens": 0, "completion_tokens": 0, **call,
    }  # fmt: skip


def test_a_long_name_leaves_room_for_its_duration() -> None:
    svg = ElementTree.fromstring(call_waterfall(call(attempt(0, deployment="n" * 63))))
    name = svg.findall("text")[-2].text or ""
    assert len(name) == NAME_LENGTH and name.startswith("1. nnn") and name.endswith("…")


def test_a_step_that_is_made_twice_in_a_row_is_one_row() -> None:
    """A call that was answered from the cache looks for its key, then for its answer."""
    told = {"identify": 0.2, "cache": 1.0}
    steps = [{"step": name, "ms": ms} for name, ms in told.items()] + [{"step": "cache", "ms": 4.2}]
    svg = ElementTree.fromstring(call_waterfall({**call(), "duration_ms": 4.2, "steps": steps}))
    assert [text.text for text in svg.findall("text")] == ["identify", "0.2 ms", "cache", "4.0 ms"]


def test_names_never_become_markup() -> None:
    assert "<script" not in call_waterfall(call(attempt(0))) and "&lt;script" in call_waterfall(call(attempt(0)))


def test_a_call_from_before_has_its_steps_only_and_a_refused_one_nothing() -> None:
    old = attempt(0)
    old["started_ms"] = None
    assert call_waterfall(call(old)).count("<text") == 6
    assert call_waterfall({**call(), "duration_ms": None, "steps": []}) == ""
