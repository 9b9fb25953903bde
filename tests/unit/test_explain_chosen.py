"""What is said of an answer: where it came from and why, as its receipt has it."""

from __future__ import annotations

from typing import Any

from groundplan.api.explain import explain_call, explain_source
from groundplan.blueprint.placement import Placement

PLACED = Placement(workload="w", primary="one", fallbacks=["two"], alternatives=[], binding="the cheapest in the EU")


def receipt(deployment: str = "one", *vain: tuple[str, str, int | None], **more: Any) -> dict[str, Any]:
    attempts = [{"deployment": name, "outcome": outcome, "http_status": status} for name, outcome, status in vain]
    last = {"deployment": deployment, "outcome": "ok", "http_status": 200}
    return {
        "status": "ok",
        "cache": "none",
        "route": None,
        "deployment": deployment,
        "attempts": [*attempts, last],
        **more,
    }


def test_where_it_is_placed_and_what_decided_that() -> None:
    assert explain_source(receipt(), PLACED) == ["It is placed at one: the cheapest in the EU."]
    assert explain_source(receipt(), None) == []
    assert explain_source(receipt("vectors", endpoint="embeddings"), PLACED) == [], "it is placed for text"


def test_who_was_asked_in_vain_is_named() -> None:
    assert explain_source(receipt("two", ("one", "failed", 503), ("three", "not_billed", None)), PLACED) == [
        "It is placed at one: the cheapest in the EU.",
        "one was asked and gave no answer: failed (HTTP 503).",
        "three was asked and gave no answer: not billed.",
        "two answered in its place.",
    ]
    assert explain_source(receipt("one", ("one", "failed", 503)), PLACED)[-1] == "one answered when it was asked again."
    nobody = {
        **receipt("one", ("one", "failed", 503)),
        "attempts": [dict(deployment="one", outcome="failed", http_status=None)],
    }
    assert explain_source(nobody, PLACED)[1:] == ["one was asked and gave no answer: failed."]


def attempt(name: str, outcome: str, *flags: str, status: int = 200) -> dict[str, Any]:
    return {"deployment": name, "outcome": outcome, "http_status": status, "flags": list(flags)}


def explain_attempts(*attempts: dict[str, Any], **more: Any) -> list[str]:
    answered = next((each["deployment"] for each in attempts if each["outcome"] == "ok"), attempts[-1]["deployment"])
    return explain_source({**receipt(answered), "attempts": list(attempts), **more}, PLACED)[1:]


def test_a_caller_who_left_is_not_a_deployment_that_gave_no_answer() -> None:
    gone = {"status": "cancelled", "error_code": "client_gone"}
    assert explain_attempts(attempt("one", "cancelled"), **gone) == [
        "one was asked, and the caller disconnected before its answer was complete: cancelled.",
    ]
    slower = {**attempt("one", "cancelled"), "first_byte_ms": None}
    hedge = {**attempt("two", "cancelled", "hedge"), "first_byte_ms": 9.0}
    assert explain_attempts(slower, hedge, **gone) == [
        "one was asked and had said nothing when two answered: cancelled.",
        "two was asked as well, and the caller disconnected before its answer was complete: cancelled.",
    ]


def test_a_stream_that_broke_off_is_not_one_that_gave_no_answer() -> None:
    assert explain_attempts(attempt("one", "failed"), attempt("two", "ok", "resumed")) == [
        "one broke off in the middle of its answer.",
        "two went on from there.",
    ]
    assert explain_attempts(
        attempt("one", "failed"), attempt("two", "failed", "resumed", status=503), attempt("three", "ok", "resumed")
    ) == [
        "one broke off in the middle of its answer.",
        "two was asked and gave no answer: failed (HTTP 503).",
        "three went on from there.",
    ]
    assert explain_attempts(attempt("one", "failed"), error_code="stream_broken") == [
        "one broke off in the middle of its answer."
    ]
    assert explain_attempts(attempt("one", "failed")) == ["one was asked and gave no answer: failed (HTTP 200)."]


def test_of_two_that_were_asked_at_once_it_says_who_was_first() -> None:
    assert explain_attempts(attempt("one", "cancelled", status=0), attempt("two", "ok", "hedge")) == [
        "one was asked and had said nothing when two answered: cancelled.",
        "two, which was asked as well, answered first.",
    ]
    assert explain_attempts(attempt("one", "ok"), attempt("two", "cancelled", "hedge", status=0)) == [
        "two was asked as well and had said nothing when one answered: cancelled.",
    ]
    assert explain_attempts(attempt("one", "ok"), attempt("two", "failed", "hedge", status=500)) == [
        "two was asked as well and gave no answer: failed (HTTP 500).",
    ]


def test_a_call_that_another_took_says_so() -> None:
    assert explain_source(receipt("two"), PLACED)[1:] == ["two answered in its place."]


def test_who_was_not_asked_as_its_breaker_was_open_is_named() -> None:
    after = attempt("three", "ok", "breaker_open:one", "breaker_open:two")
    assert explain_attempts(attempt("four", "failed", "breaker_open:one", status=503), after) == [
        "one was not asked first: its circuit breaker was open.",
        "two was not asked first: its circuit breaker was open.",
        "four was asked and gave no answer: failed (HTTP 503).",
        "three answered in its place.",
    ]


def test_a_router_says_its_own_reason_and_the_cache_asks_nobody() -> None:
    route = {"model": "m", "by": "learned", "reason": "good enough at less"}
    assert explain_source(receipt(route=route), PLACED) == ["m was chosen (learned): good enough at less."]
    (said,) = explain_source({**receipt(route=route), "cache": "exact", "attempts": []}, PLACED)
    assert "the same question" in said
    (said,) = explain_source({**receipt(route=route), "cache": "semantic", "attempts": []}, PLACED)
    assert "a question that means the same" in said


def test_what_the_gateway_asked_itself_was_named_by_no_caller() -> None:
    judging = {**receipt("two"), "of": "0199", "purpose": "cascade"}
    for routes in (True, False):
        (said,) = explain_source(judging, PLACED, routes=routes)
        assert said == "The gateway asked it itself, for call 0199 (cascade)."


def test_a_caller_that_named_a_model_is_told_so() -> None:
    assert explain_source(receipt("two"), PLACED, routes=True) == ["The caller named a model, so none was chosen."]
    assert explain_source(receipt("two", ("one", "failed", 503)), PLACED, routes=True) == [
        "The caller named a model, so none was chosen.",
        "one was asked and gave no answer: failed (HTTP 503).",
        "two answered in its place.",
    ]


def test_whoever_a_cascade_went_on_to_is_named() -> None:
    route = {"model": "m", "by": "cascade", "reason": "one was tried first", "deployment": "one", "answered": "two"}
    assert explain_source(receipt("two", route=route), PLACED) == [
        "m was chosen (cascade): one was tried first.",
        "two answered in its place.",
    ]


def test_a_refusal_names_the_budget_or_limit_without_room() -> None:
    facts = {
        "workload": "w", "at": "t", "blueprint": 1, "who": None, "acting": False, "status": "refused", "attempts": [],
        "error_code": "budget_exhausted", "refusal": "the budget team ($5.00 a month) has no room for this call",
    }  # fmt: skip
    assert explain_call(facts)[1].endswith(
        "Reason: budget_exhausted: the budget team ($5.00 a month) has no room for this call."
    )
    assert explain_call({**facts, "refusal": None})[1].endswith("Reason: budget_exhausted.")


def test_what_its_caller_says_that_it_is_for_and_what_caches_took_off() -> None:
    facts = {
        "workload": "w", "at": "t", "blueprint": 1, "who": None, "acting": False, "status": "ok", "attempts": [],
        "reserved_usd": "2", "cost_usd": "1", "feature": "mail", "ticket": "SUP-1", "saved_usd": "0.000000000000",
        "prefix_saved_usd": "0.000000000003",
    }  # fmt: skip
    assert explain_call(facts)[1] == "Its caller says that it is for the feature mail and the ticket SUP-1."
    told = "Reserved 2 USD, charged 1 USD."
    assert explain_call(facts)[-1] == f"{told} The provider's own cache saved 0.000000000003 USD."
    plain = explain_call(
        {**facts, "feature": None, "ticket": None, "prefix_saved_usd": "0.000000000000", "saved_usd": "3"}
    )
    assert plain[1:] == ["It was answered.", f"{told} The cache saved 3 USD."]


def test_an_estimate_is_no_answer_and_one_that_is_given_again_says_so() -> None:
    facts = {
        "workload": "w", "at": "t", "blueprint": 1, "who": None, "acting": False, "status": "ok", "attempts": [],
        "reserved_usd": "0", "cost_usd": "0", "steps": [{"step": "identify", "ms": 1}, {"step": "estimate", "ms": 2}],
    }  # fmt: skip
    assert explain_call(facts)[1] == "It was estimated, as its caller asked, and not made."
    again = {**receipt(), "attempts": [], "cache": "replay", "endpoint": "chat.completions"}
    told = "It is the answer that the request with the same Idempotency-Key got before; no model was asked."
    assert explain_source(again, PLACED) == [told]


def test_below_its_floor_no_model_was_asked() -> None:
    facts = {**receipt(), "attempts": [], "endpoint": "chat.completions"}
    assert explain_source(facts, PLACED) == [
        "Nothing that was found reached the floor of the workload, so no model was asked."
    ]
    assert explain_source({**facts, "status": "refused"}, PLACED) == ["It is placed at one: the cheapest in the EU."]
    assert explain_source({**facts, "endpoint": "moderations"}, PLACED) == [
        "It is placed at one: the cheapest in the EU."
    ]
