"""The checker of the chaos suite finds each kind of fault, and nothing where all is right."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.acceptance.chaos_books import (
    Attempt,
    Books,
    Call,
    Charge,
    ClientResult,
    Disruption,
    Limit,
    LimitMinute,
    Period,
    faults,
    unreleased_grants,
)

BUDGETS = frozenset({"company", "team"})
GOOD = Books(
    attempts=(
        Attempt("a", 1, "settled", "not_billed", 0, 50),
        Attempt("a", 2, "settled", "ok", 30, 50),
        Attempt("b", 1, "crashed", "crashed", 50, 50, True, ("crash",)),
        Attempt("c", 1, "settled", "failed", 50, 50, True),
    ),
    calls=(
        Call("a", "w", "ok", 30),
        Call("b", "w", "crashed", 50),
        Call("c", "w", "failed", 50),
        Call("d", "w", "refused", 0),
    ),
    charges=tuple(
        Charge(call, number, budget, "2026-11", cost)
        for call, number, cost in (("a", 1, 0), ("a", 2, 30), ("b", 1, 50), ("c", 1, 50))
        for budget in BUDGETS
    ),
    periods=(Period("company", "2026-11", 200, 150), Period("team", "2026-11", 130, 130)),
    audited=("a", "b", "c", "d"),
    counted=("a-2", "c-1"),
    client_results=(
        ClientResult("w", 200, "", "a"),
        ClientResult("w", 429, "budget_exhausted", "d"),
        ClientResult("w", 0, replica="first", begun=91.0, ended=100.4),
    ),
    disruptions=(Disruption("first", "kill", "worker", 100.0, 100.0),),
    covers={"w": BUDGETS},
    may_refuse={"w": frozenset({"budget_exhausted"}), "counted": frozenset({"rate_limit_exceeded"})},
)


def test_correct_books_have_no_faults() -> None:
    assert faults(GOOD) == []
    assert unreleased_grants(GOOD) == ["budget company 2026-11: 20 are held by nobody"]


def attempts(index: int, **changes: Any) -> tuple[Attempt, ...]:
    return (*GOOD.attempts[:index], replace(GOOD.attempts[index], **changes), *GOOD.attempts[index + 1 :])


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"counted": ("a-2", "c-1", "e-1")}, "attempt e-1, which an upstream counted, has 0 rows"),
        ({"counted": ("a-2", "a-2", "c-1")}, "the upstreams were asked a-2 more than once"),
        ({"attempts": (*GOOD.attempts, GOOD.attempts[0])}, "attempt a-1 has more than one row"),
        ({"counted": ("c-1",)}, "attempt a-2 has an answer that no upstream gave"),
        ({"attempts": attempts(2, flags=())}, "attempt b-1 of a crash is not flagged and at its bound"),
        ({"attempts": attempts(2, reserved=60)}, "attempt b-1 of a crash is not flagged and at its bound"),
        ({"attempts": attempts(2, state="open")}, "attempt b-1 is still open"),
        (
            {"attempts": attempts(3, estimated=False), "counted": ("a-2",)},
            "attempt c-1 costs something, was counted by nobody and is not marked as estimated",
        ),
        ({"attempts": attempts(0, cost=1)}, "attempt a-1 was not billed and costs something"),
        ({"audited": ("a", "b", "c")}, "call d has 0 entries in the audit log"),
        ({"audited": ("a", "b", "c", "d", "d")}, "call d has 2 entries in the audit log"),
        (
            {"audited": ("a", "b", "c", "d", "e")},
            "the audit log has an entry of call e, which is not in the ledger",
        ),
        ({"calls": GOOD.calls[:2] + GOOD.calls[3:]}, "call c has attempts and no row"),
        ({"calls": (replace(GOOD.calls[0], cost=31), *GOOD.calls[1:])}, "call a costs 31, its attempts 30"),
        ({"charges": GOOD.charges[2:]}, "attempt a-1 is not charged to company, team"),
        ({"charges": (*GOOD.charges, replace(GOOD.charges[0], period="2026-12"))}, "more than once"),
        ({"charges": (*GOOD.charges[:-1], replace(GOOD.charges[-1], cost=49))}, "attempt c-1 costs 50"),
        ({"charges": (*GOOD.charges, Charge("e", 1, "team", "2026-11", 0))}, "attempt e-1 is charged and has no row"),
        (
            {"periods": (GOOD.periods[0], replace(GOOD.periods[1], limit=129))},
            "budget team 2026-11 has a limit of 129 and 130 were spent",
        ),
        (
            {"periods": (replace(GOOD.periods[0], granted=201), GOOD.periods[1])},
            "budget company 2026-11 has a limit of 200 and 201 are granted",
        ),
        (
            {"periods": (GOOD.periods[0], replace(GOOD.periods[1], granted=129))},
            "budget team 2026-11: 130 were spent of 129 that were granted",
        ),
        ({"periods": GOOD.periods[:1]}, "budget team 2026-11 was charged 130 and granted nothing"),
        (
            {"client_results": (ClientResult("w", 0, replica="second", ended=100.4),)},
            "a connection of w to second broke",
        ),
        ({"client_results": (ClientResult("w", 0, replica="first", ended=101.1),)}, "a connection of w to first broke"),
        ({"client_results": (ClientResult("w", 0, replica="first", ended=98.9),)}, "a connection of w to first broke"),
        ({"disruptions": (Disruption("first", "pause", "worker", 100.0, 101.0),)}, "a connection of w to first broke"),
        ({"disruptions": (Disruption("first", "kill", "shipper", 100.0, 100.0),)}, "a connection of w to first broke"),
        (
            {"client_results": (ClientResult("w", 502, "upstream_failed", "c"),)},
            "a client of w got 502 upstream_failed",
        ),
        (
            {"client_results": (ClientResult("w", 200, "stream_broken", "a", "stream"),)},
            "a client of w got 200 stream_broken",
        ),
        ({"client_results": (ClientResult("w", 500),)}, "a client of w got 500 without a code"),
        ({"client_results": (ClientResult("w", 200, "", "e"),)}, "which is not in the ledger"),
        ({"client_results": (ClientResult("w", 200, "", "c"),)}, "which is in the ledger as failed"),
    ],
)
def test_each_kind_of_fault_is_found(changes: dict[str, Any], fault: str) -> None:
    found = faults(replace(GOOD, **changes))
    assert any(fault in line for line in found), found


AWAY = Disruption("database", "pause", "server", 10.0, 12.0)
KILLED = Disruption("first", "kill", "worker", 10.0, 10.0)


def is_expected_refusal(
    code: str, at: float, *disruptions: Disruption, workload: str = "w", replica: str = "first"
) -> bool:
    """Whether a refusal that took 0.1 s and ended at `at` is expected during these disruptions."""
    result = ClientResult(workload, 503, code, "d", replica=replica, begun=at - 0.1, ended=at)
    return not faults(
        replace(
            GOOD,
            client_results=(result,),
            disruptions=disruptions,
            restricted=frozenset({"secret"}),
            grounded=frozenset({"sourced"}),
        )
    )


@pytest.mark.parametrize(
    ("code", "workload", "disruptions", "expected_at", "unexpected_at"),
    [
        ("budget_unreachable", "ample", (AWAY,), (9.5, 11.0, 14.9), (8.0, 15.2)),
        ("budget_unreachable", "ample", (KILLED,), (10.5, 12.9), (8.5, 13.2)),
        ("budget_unreachable", "w", (), (8.0,), ()),
        ("policy_lease_expired", "secret", (AWAY,), (9.5, 14.9), (8.0, 15.2)),
        ("policy_lease_expired", "w", (AWAY,), (), (9.5, 11.0, 14.9)),
        ("not_ready", "w", (KILLED,), (10.5, 14.9), (9.9, 15.2)),
        ("not_ready", "w", (AWAY,), (), (11.0,)),
        ("not_ready", "w", (KILLED, replace(AWAY, begin=14.0, end=18.0)), (14.9, 22.9), (23.2,)),
        ("not_ready", "w", (replace(KILLED, what="control"), AWAY), (), (11.0,)),
        ("not_ready", "w", (replace(KILLED, way="pause", end=11.0),), (), (11.0,)),
        ("budget_exhausted", "secret", (AWAY, KILLED), (), (11.0,)),
        ("grounding_unavailable", "sourced", (AWAY,), (9.5, 14.9), (8.0, 15.2)),
        ("grounding_unavailable", "w", (AWAY,), (), (11.0,)),
        ("grounding_unavailable", "sourced", (KILLED,), (), (10.5,)),
        ("grounding_unavailable", "sourced", (replace(KILLED, what="up", end=14.0),), (10.5, 16.9), (8.0, 17.2)),
        ("rate_limit_exceeded", "counted", (), (8.0,), ()),
        ("rate_limit_exceeded", "w", (), (), (8.0,)),
        ("limit_unreachable", "counted", (AWAY,), (9.5, 14.9), (8.0, 15.2)),
        ("limit_unreachable", "counted", (KILLED,), (10.5,), (8.5, 13.2)),
        ("limit_unreachable", "w", (AWAY,), (), (11.0,)),
    ],
)
def test_a_refusal_is_expected_only_during_its_cause(
    code: str,
    workload: str,
    disruptions: tuple[Disruption, ...],
    expected_at: tuple[float, ...],
    unexpected_at: tuple[float, ...],
) -> None:
    assert [is_expected_refusal(code, at, *disruptions, workload=workload) for at in expected_at] == [True] * len(
        expected_at
    )
    assert [is_expected_refusal(code, at, *disruptions, workload=workload) for at in unexpected_at] == [False] * len(
        unexpected_at
    )
    if KILLED in disruptions and AWAY not in disruptions and len(disruptions) == 1:
        elsewhere = [
            is_expected_refusal(code, at, *disruptions, workload=workload, replica="second") for at in expected_at
        ]
        assert not any(elsewhere), "another replica was disrupted"


SOURCED = replace(GOOD, grounded=frozenset({"w"}), calls=(replace(GOOD.calls[0], sources=1), *GOOD.calls[1:]))
GONE = replace(AWAY, away=(10.0, 11.9))


def answer(kind: str, begun: float, ended: float) -> ClientResult:
    return ClientResult("w", 200, "", "a", kind, kind == "abort", begun=begun, ended=ended)


@pytest.mark.parametrize("kind", ["json", "stream", "abort"])
def test_an_answer_from_sources_while_the_database_is_away_is_a_fault(kind: str) -> None:
    def faults_of(begun: float, ended: float, disruption: Disruption = GONE, call_kind: str = kind) -> list[str]:
        return faults(replace(SOURCED, client_results=(answer(call_kind, begun, ended),), disruptions=(disruption,)))

    assert faults_of(10.6, 11.8) == [f"a client of w has an answer from sources ({kind}) while the database was away"]
    assert faults_of(10.4, 11.8) == [], "a remaining process of the killed server may have answered it"
    assert faults_of(10.6, 12.0) == [], "the server was back"
    assert faults_of(10.6, 11.8, replace(GONE, part="first")) == [] == faults_of(10.6, 11.8, AWAY)
    assert faults_of(10.6, 11.8, call_kind="embeddings") == []


@pytest.mark.parametrize(("kind", "fault"), [("json", True), ("stream", True), ("embeddings", False)])
def test_a_grounded_answer_without_a_source_is_a_fault(kind: str, fault: bool) -> None:
    bare = replace(SOURCED, calls=GOOD.calls, client_results=(answer(kind, 1.0, 2.0),))
    assert ("rests on no source" in str(faults(bare))) == fault
    assert faults(replace(bare, calls=SOURCED.calls)) == []


NOON = datetime(2026, 11, 26, 12, 0, 30, tzinfo=UTC).timestamp()
MINUTE = "2026-11-26T12:00"
LIMITED = Books(
    attempts=(
        Attempt("a", 1, "settled", "ok", 30, 50, tokens=12),
        Attempt("b", 1, "settled", "failed", 50, 50, True, tokens=40),
        Attempt("b", 2, "settled", "ok", 30, 50, tokens=12),
        Attempt("c", 1, "settled", "ok", 30, 50, tokens=12),
    ),
    calls=(
        Call("a", "w", "ok", 30, key="k", begun=NOON, last_attempt=NOON + 1),
        Call("b", "w", "ok", 80, key="l", begun=NOON + 28, last_attempt=NOON + 29.9),
        Call("c", "w", "ok", 30, key="k", begun=NOON + 29.9, last_attempt=NOON + 30.1),
        Call("d", "w", "refused", 0, key="k", begun=NOON + 2, last_attempt=NOON + 2),
    ),
    audited=("a", "b", "c", "d"),
    counted=("a-1", "b-1", "b-2", "c-1"),
    limits=(
        Limit("r", "workload/w", "requests", 2),
        Limit("t", "workload/w", "tokens", 64),
        Limit("c", "workload/w", "cost", 110),
        Limit("own", "key/k", "requests", 1),
    ),
    limit_minutes=(
        LimitMinute("requests/r", MINUTE, 2, 2),
        LimitMinute("tokens/t", MINUTE, 64, 64),
        LimitMinute("cost/c", MINUTE, 110, 110),
        LimitMinute("requests/own", MINUTE, 1, 1),
    ),
)


def test_limits_that_are_fully_used_have_no_faults() -> None:
    assert faults(LIMITED) == []


@pytest.mark.parametrize("place", range(4))
def test_use_beyond_a_limit_or_beyond_its_grants_is_a_fault(place: int) -> None:
    limit, span = LIMITED.limits[place], LIMITED.limit_minutes[place]
    smaller = (*LIMITED.limits[:place], replace(limit, amount=limit.amount - 1), *LIMITED.limits[place + 1 :])
    told = f"{span.amount} were used"
    (fault,) = faults(replace(LIMITED, limits=smaller))
    assert fault == f"limit {limit.name} {MINUTE} is {limit.amount - 1} {limit.counts} and {told}"
    fewer = (
        *LIMITED.limit_minutes[:place],
        replace(span, granted=span.granted - 1),
        *LIMITED.limit_minutes[place + 1 :],
    )
    (fault,) = faults(replace(LIMITED, limit_minutes=fewer))
    assert f"were used of {span.granted - 1} that were granted" in fault
    more = (*LIMITED.limit_minutes[:place], replace(span, granted=span.amount + 1), *LIMITED.limit_minutes[place + 1 :])
    assert faults(replace(LIMITED, limit_minutes=more)) == [
        f"limit {span.name} {MINUTE} is {span.amount} and {span.amount + 1} are granted"
    ]


def test_a_call_at_the_turn_of_a_minute_is_counted_in_neither() -> None:
    inside = replace(LIMITED.calls[2], begun=NOON + 27)
    earlier = replace(inside, last_attempt=NOON + 29)
    for call, count in ((inside, 0), (earlier, 4)):
        calls = (*LIMITED.calls[:2], call, LIMITED.calls[3])
        assert len(faults(replace(LIMITED, calls=calls))) == count
