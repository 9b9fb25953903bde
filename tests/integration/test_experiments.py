"""Experiments from their begin to their end: on real facts, with approvals, and while workers are killed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import numpy as np
import psycopg
import pytest
from psycopg.types.json import Jsonb
from tests.integration.gateway_stack import Stack, blueprint, deployment, installation, scripted_upstream, workload
from tests.integration.test_batch_kill import UNRECOVERED, run_shipper

from groundplan.blueprint.experiment import DeclaredExperiment
from groundplan.blueprint.model import Routing
from groundplan.core.audit.store import list_entries
from groundplan.core.errors import Conflict, Denied, GroundplanError, Invalid
from groundplan.core.ids import new_id
from groundplan.core.money import PICO
from groundplan.economics.experiment import experiment_store as store
from groundplan.economics.experiment import service
from groundplan.economics.experiment.record import ExperimentRecord, blocking_experiment
from groundplan.economics.experiment.sequential import Tally
from groundplan.economics.experiment.verdict import CANDIDATE, CONTROL, Rule, ab_verdict
from groundplan.ledger import finding_store
from groundplan.testing.database import Database
from groundplan.testing.scripted import Script

NOW = datetime.now(UTC)
ANA, SAM = f"person:{new_id()}", f"person:{new_id()}"
WORKLOAD = workload("support", ["large", "small", "other"], stage="production")


def recorded(**more: Any) -> ExperimentRecord:
    values: dict[str, Any] = {
        "id": new_id(), "name": "small", "workload": "support", "type": "ab", "candidate": "small", "judge": "",
        "share": 5000, "split": "person", "tolerance": 0.05, "guard_tolerance": 0.05, "budget_usd": Decimal(5),
        "until": NOW + timedelta(days=10), "reason": "cheaper", "asked_by": ANA, "state": "asked",
    }  # fmt: skip
    return ExperimentRecord(**{**values, **more})


@contextmanager
def control(database: Database) -> Iterator[psycopg.Connection[Any]]:
    """One transaction of the control process."""
    with psycopg.connect(database.urls["control"]) as conn:
        yield conn


def arms(database: Database, tried: UUID, units: int, rate: dict[str, float], seed: int = 1) -> None:
    """Calls of both arms and what people said of them, as the journal's shipper and callers would write them."""
    dice, calls, outcomes = random.Random(seed), [], []
    for number in range(units):
        arm = CANDIDATE if number % 2 else CONTROL
        for _ in range(dice.randint(1, 4)):
            call = new_id()
            route = {"experiment": str(tried), "arm": arm, "unit": f"u{number}", "trial": "small"}
            detail = {"route": route, "feature": "refunds" if number % 5 == 0 else "orders"}
            calls.append((call, Jsonb(detail)))
            outcomes.append((new_id(), call, dice.random() < rate[arm]))
    with psycopg.connect(database.superuser) as conn, conn.cursor() as cursor:
        cursor.executemany(
            """INSERT INTO call (id, at, workload, endpoint, status, http_status, cost_usd, reserved_usd, blueprint,
                 epoch, duration_ms, detail) VALUES (%s, now(), 'support', 'chat.completions', 'ok', 200, 0.001, 0, 1,
                 gen_random_uuid(), 100, %s)""",
            calls,
        )
        cursor.executemany("INSERT INTO outcome (id, call_id, accepted, by) VALUES (%s, %s, %s, 'key:k')", outcomes)


def test_harm_ends_it_with_a_finding_and_an_entry(database: Database) -> None:
    with control(database) as conn:
        made, number = service.ask(conn, ANA, recorded(), waits=False, now=NOW)
    assert number is not None and made.state == "running"
    arms(database, made.id, 400, {CONTROL: 0.9, CANDIDATE: 0.5})
    with control(database) as conn:
        (ended,) = service.evaluate_running(conn, NOW)
        assert ended.number > number, "gateways hear of it as of any change of live policy"
    with control(database) as conn:
        found = service.get_experiment(conn, made.id)
        assert (found.state, found.outcome, found.ended_by) == ("ended", "worse", "system")
        quality = found.figures["quality"]
        assert quality["low"] < -0.4 < quality["high"] < -0.05 and quality["count"] == 200
        assert set(found.figures["segments"]) == {"orders", "refunds"}
        assert [each["count"] for each in store.looks(conn, made.id)] == [200]
        (told,) = finding_store.list_findings(conn, kinds=["cost.experiment"])
        assert told["severity"] == "medium" and "worse" in told["message"]
        assert [e.entry.action for e in list_entries(conn, subject="workload/support")] == [
            "experiment.ended", "experiment.started",
        ]  # fmt: skip
        assert service.evaluate_running(conn, NOW) == []
        with pytest.raises(Conflict, match="ended already"):
            service.stop(conn, ANA, made.id, "again")


def test_two_control_processes_end_it_once(database: Database) -> None:
    with control(database) as conn:
        made, _ = service.ask(conn, ANA, recorded(), waits=False, now=NOW)
    arms(database, made.id, 300, {CONTROL: 0.9, CANDIDATE: 0.4})

    def looks(_: int) -> int:
        with control(database) as conn:
            return len(service.evaluate_running(conn, NOW))

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(looks, range(8))) == 1
    with control(database) as conn:
        ends = [e for e in list_entries(conn, subject="workload/support") if e.entry.action == "experiment.ended"]
        assert len(ends) == 1
        assert len(finding_store.list_findings(conn, kinds=["cost.experiment"])) == 1


def test_a_guard_ends_it_although_quality_is_not_decided(database: Database) -> None:
    with control(database) as conn:
        made, _ = service.ask(conn, ANA, recorded(), waits=False, now=NOW)
    arms(database, made.id, 300, {CONTROL: 0.8, CANDIDATE: 0.8})
    with psycopg.connect(database.superuser) as conn:
        conn.execute("UPDATE call SET status = 'failed' WHERE detail -> 'route' ->> 'arm' = 'candidate'")
    with control(database) as conn:
        (ended,) = service.evaluate_running(conn, NOW)
        found = service.get_experiment(conn, ended.experiment.id)
        assert found.outcome == "guard" and "answered fell" in found.outcome_reason


def judged_pairs(database: Database, tried: UUID, said: list[tuple[float | None, str | None]]) -> None:
    with psycopg.connect(database.superuser) as conn:
        for number, (score, told) in enumerate(said):
            conn.execute(
                """INSERT INTO experiment_pair (experiment, call_id, beside_call, at, basis, score, answered, said)
                   VALUES (%s, %s, %s, now() + %s * interval '1 second', 'judge', %s, true, %s)""",
                (tried, new_id(), new_id(), number, score, told),
            )


def test_a_judge_that_says_nothing_readable_ends_its_shadow(database: Database) -> None:
    """Equal answers that need no judge, and times at which it could not be asked, are not in between."""
    with control(database) as conn:
        made, _ = service.ask(conn, ANA, recorded(type="shadow", judge="other"), waits=False, now=NOW)
    quiet: tuple[float | None, str | None] = (None, "")
    judged_pairs(database, made.id, [(1.0, "A B"), *[quiet] * 4, (1.0, None), (None, None)])
    with control(database) as conn:
        assert service.evaluate_running(conn, NOW) == []
        found = service.get_experiment(conn, made.id)
        assert found.figures["left"] == "the judge other gave no readable verdict on 4 and no answer on 1"
        assert (found.figures["pairs"]["compared"], found.to_json()["error"]) == (2, None)
    judged_pairs(database, made.id, [(None, None)] * 20 + [(None, "Both … are")])
    with control(database) as conn:
        (ended,) = service.evaluate_running(conn, NOW)
        found = service.get_experiment(conn, ended.experiment.id)
        said = (
            "the judge other gave no readable verdict on 5 pairs in a row: it said 'Both … are' instead of A, B or SAME"
        )
        assert (found.outcome, found.outcome_reason) == ("judge", said)
        error = found.to_json()["error"]
        assert (error["code"], error["message"]) == ("judge_unreadable", said)
        (told,) = finding_store.list_findings(conn, kinds=["cost.experiment"])
        assert told["severity"] == "medium" and said in told["message"] and told["hint"] == error["hint"]


def test_a_judge_that_cannot_be_asked_is_told_and_ends_its_shadow_after_a_day(database: Database) -> None:
    with control(database) as conn:
        made, _ = service.ask(conn, ANA, recorded(type="shadow", judge="other"), waits=False, now=NOW)
        begun = service.get_experiment(conn, made.id).asked_at
    assert begun is not None
    away: tuple[float | None, str | None] = (None, None)
    judged_pairs(database, made.id, [(1.0, "A B"), (1.0, None), *[away] * 4])
    with control(database) as conn:
        assert service.evaluate_running(conn, begun) == []
        assert finding_store.list_findings(conn, kinds=["cost.experiment"]) == []
    judged_pairs(database, made.id, [away])
    with psycopg.connect(database.superuser) as conn:
        conn.execute("UPDATE experiment_pair SET at = at + interval '10 seconds' WHERE score IS NULL")
        conn.execute(
            """INSERT INTO call (id, at, workload, endpoint, status, http_status, error_code, cost_usd, reserved_usd,
                 blueprint, epoch, detail) VALUES (%s, now() + interval '5 seconds', 'support', 'chat.completions',
                 'failed', 502, 'upstream_failed', 0, 0, 1, %s, %s)""",
            (new_id(), new_id(), Jsonb({"feature": "experiment/judge", "route": {"experiment": str(made.id)}})),
        )
    with control(database) as conn:
        assert service.evaluate_running(conn, begun) == []
        (told,) = finding_store.list_findings(conn, kinds=["cost.experiment"])
        assert (told["kind"], told["severity"]) == ("cost.experiment.judge", "medium")
        assert "the judge other could not be asked on 5 pairs in a row" in told["message"]
        assert "(upstream_failed)" in told["message"] and "name another judge" in told["hint"]
    judged_pairs(database, made.id, [away] * 20 + [(1.0, "B A")])
    with control(database) as conn:
        assert service.evaluate_running(conn, begun) == []
        assert finding_store.list_findings(conn, kinds=["cost.experiment"]) == [], "it answers again"
    with psycopg.connect(database.superuser) as conn:
        conn.execute("UPDATE experiment_pair SET at = at - interval '2 days'")
    judged_pairs(database, made.id, [away] * 5)
    with control(database) as conn:
        assert service.evaluate_running(conn, begun) == []
        (ended,) = service.evaluate_running(conn, begun + timedelta(days=1, minutes=1))
        found = service.get_experiment(conn, ended.experiment.id)
        assert found.outcome == "unasked" and "on 5 pairs in a row" in found.outcome_reason
        error = found.to_json()["error"]
        assert error is not None and error["code"] == "judge_unasked"
        service.evaluate_running(conn, begun)
        assert [each["kind"] for each in finding_store.list_findings(conn, kinds=["cost.experiment"])] == [
            "cost.experiment"
        ]


def test_a_shadow_ends_when_what_is_left_of_its_budget_is_too_little(database: Database) -> None:
    """It never reaches the budget itself: before each answer the most that it may cost is reserved."""
    with control(database) as conn:
        made, _ = service.ask(conn, ANA, recorded(type="shadow"), waits=False, now=NOW)
        now = service.get_experiment(conn, made.id).asked_at
    assert now is not None
    ends = [(300, "ok", None), (200, "refused", "budget_exhausted"), (120, "ok", None)]
    ends += [(each, "refused", "budget_exhausted") for each in (90, 60)]
    with psycopg.connect(database.superuser) as conn:
        for ago, status, code in ends:
            beside_call(conn, made.id, now - timedelta(seconds=ago), status, code)
    with control(database) as conn:
        assert service.evaluate_running(conn, now) == []
    with psycopg.connect(database.superuser) as conn:
        beside_call(conn, made.id, now - timedelta(seconds=30), "refused", "budget_exhausted")
    with control(database) as conn:
        assert service.evaluate_running(conn, now - timedelta(seconds=40)) == []
        (ended,) = service.evaluate_running(conn, now)
        found = service.get_experiment(conn, ended.experiment.id)
        assert found.outcome == "budget" and found.outcome_reason.startswith("what is left of its budget of $5.00")


def beside_call(conn: psycopg.Connection[Any], tried: UUID, at: datetime, status: str, code: str | None) -> None:
    conn.execute(
        """INSERT INTO call (id, at, workload, endpoint, status, http_status, error_code, cost_usd, reserved_usd,
             blueprint, epoch, detail) VALUES (%s, %s, 'support', 'chat.completions', %s, 429, %s, 0, 0, 1, %s, %s)""",
        (new_id(), at, status, code, new_id(), Jsonb({"route": {"experiment": str(tried), "of": "c"}})),
    )


@pytest.mark.parametrize(
    ("kind", "judge", "asks"), [("shadow", "", True), ("shadow", "other", False), ("ab", "", False)]
)
def test_what_is_compared_by_likeness_needs_the_search_service_while_it_runs(
    database: Database, kind: str, judge: str, asks: bool
) -> None:
    with control(database) as conn:
        made, _ = service.ask(conn, ANA, recorded(type=kind, judge=judge), waits=False, now=NOW)
        assert store.has_unjudged(conn) is asks
        service.stop(conn, ANA, made.id, "enough")
        assert not store.has_unjudged(conn)


def test_what_is_usual_is_told_by_calls_that_the_candidate_did_not_take(database: Database) -> None:
    """Where nothing was known before it began, the candidate's own calls would make what is slow and dear usual."""
    with control(database) as conn:
        made, _ = service.ask(conn, ANA, recorded(), waits=False, now=NOW)
        assert made.slow_ms is None
    arms(database, made.id, 60, {CONTROL: 0.8, CANDIDATE: 0.8})
    with psycopg.connect(database.superuser) as conn:
        slow = "UPDATE call SET duration_ms = 9000, cost_usd = 1 WHERE detail -> 'route' ->> 'arm' = 'candidate'"
        conn.execute(slow)
    with control(database) as conn:
        service.evaluate_running(conn, NOW)
        found = service.get_experiment(conn, made.id)
        assert (found.slow_ms, found.dear_usd) == (100, Decimal("0.004"))


def test_what_is_usual_is_told_by_calls_of_callers(database: Database) -> None:
    """Judges of guardrails answer in a word: with them half of what is usual would count as slow and dear."""
    with control(database) as conn:
        made, _ = service.ask(conn, ANA, recorded(), waits=False, now=NOW)
    arms(database, made.id, 60, {CONTROL: 0.8, CANDIDATE: 0.8})
    with psycopg.connect(database.superuser) as conn:
        conn.execute(
            """INSERT INTO call (id, at, workload, endpoint, status, http_status, cost_usd, reserved_usd, blueprint,
                 epoch, duration_ms, detail)
               SELECT gen_random_uuid(), now(), workload, endpoint, 'ok', 200, 0.00001, 0, 1, gen_random_uuid(), 1,
                 jsonb_build_object('of', id, 'purpose', 'guardrail') FROM call"""
        )
    with control(database) as conn:
        service.evaluate_running(conn, NOW)
        found = service.get_experiment(conn, made.id)
        assert (found.slow_ms, found.dear_usd) == (100, Decimal("0.004"))


def test_a_candidate_that_nobody_waits_for_is_stopped(database: Database) -> None:
    """Callers that give up have no answer that could be late; those who give up sooner say nothing of it."""
    with control(database) as conn:
        made, _ = service.ask(conn, ANA, recorded(), waits=False, now=NOW)
    arms(database, made.id, 300, {CONTROL: 0.8, CANDIDATE: 0.8})
    gave_up = "UPDATE call SET status = 'cancelled', duration_ms = %s WHERE detail -> 'route' ->> 'arm' = 'candidate'"
    with psycopg.connect(database.superuser) as conn:
        conn.execute("UPDATE experiment SET slow_ms = 1000, dear_usd = 0.004")
        conn.execute(gave_up, (900,))
    with control(database) as conn:
        assert not service.evaluate_running(conn, NOW)
    with psycopg.connect(database.superuser) as conn:
        conn.execute(gave_up, (60_000,))
    with control(database) as conn:
        (ended,) = service.evaluate_running(conn, NOW)
        found = service.get_experiment(conn, ended.experiment.id)
        assert found.outcome == "guard" and "in time fell" in found.outcome_reason


@pytest.mark.parametrize(("budget", "ends"), [("0.060", True), ("5", False)])
def test_an_ab_test_ends_when_its_candidate_has_cost_its_budget(database: Database, budget: str, ends: bool) -> None:
    with control(database) as conn:
        made, _ = service.ask(conn, ANA, recorded(budget_usd=Decimal(budget)), waits=False, now=NOW)
    arms(database, made.id, 60, {CONTROL: 0.9, CANDIDATE: 0.9})
    with psycopg.connect(database.superuser) as conn:
        cost = "SELECT sum(cost_usd) FROM call WHERE detail -> 'route' ->> 'arm' = 'candidate'"
        row = conn.execute(cost).fetchone()
        assert row is not None and Decimal("0.060") <= row[0] < Decimal("0.120")
    with control(database) as conn:
        assert len(service.evaluate_running(conn, NOW)) == ends
        found = service.get_experiment(conn, made.id)
        assert found.outcome == ("budget" if ends else "")
        assert Decimal(found.figures["spent_usd"]) == row[0], (
            "what the candidate answered, and nothing of the other arm"
        )


def test_one_that_runs_is_looked_at_however_many_came_after_it(database: Database) -> None:
    """A company of many workloads begins hundreds in the half year that one of them may run."""
    with control(database) as conn:
        made, _ = service.ask(conn, ANA, recorded(), waits=False, now=NOW)
        for number in range(210):
            assert store.insert(conn, recorded(workload=f"other-{number}", state="ended"))
        assert store.list_experiments(conn)[0].id == made.id and len(store.list_experiments(conn)) == 200
        assert [each.id for each in store.recent(conn, NOW)] == [made.id]
    arms(database, made.id, 400, {CONTROL: 0.9, CANDIDATE: 0.5})
    with control(database) as conn:
        assert [each.experiment.id for each in service.evaluate_running(conn, NOW)] == [made.id]
        assert service.get_experiment(conn, made.id).outcome == "worse"


def test_what_a_cache_gives_to_the_arm_with_more_callers_harms_no_candidate(database: Database) -> None:
    """Of nine in ten callers many ask what another one asked; what a model answered is alike in both arms."""
    with control(database) as conn:
        made, _ = service.ask(conn, ANA, recorded(), waits=False, now=NOW)
    arms(database, made.id, 400, {CONTROL: 0.8, CANDIDATE: 0.8})
    with psycopg.connect(database.superuser) as conn:
        conn.execute("UPDATE experiment SET slow_ms = 1000, dear_usd = 0.004")
        conn.execute("UPDATE call SET duration_ms = 1200 WHERE hashtext(id::text || 'slow') % 10 = 0")
        conn.execute(
            """UPDATE call SET cache = 'exact', cost_usd = 0, duration_ms = 1
               WHERE detail -> 'route' ->> 'arm' = 'control' AND hashtext(id::text) % 2 = 0"""
        )
    with control(database) as conn:
        assert service.evaluate_running(conn, NOW) == [], service.get_experiment(conn, made.id).outcome_reason
        guards = service.get_experiment(conn, made.id).figures["guards"]
        assert guards["cheap"]["value"] == pytest.approx(0) and guards["answered"]["count"] < 200


def test_a_segment_keeps_its_place_when_others_come(database: Database) -> None:
    with control(database) as conn:
        made, _ = service.ask(conn, ANA, recorded(), waits=False, now=NOW)
    arms(database, made.id, 60, {CONTROL: 0.9, CANDIDATE: 0.9})
    with control(database) as conn:
        service.evaluate_running(conn, NOW)
        found = service.get_experiment(conn, made.id)
        assert found.figures["order"] == ["orders", "refunds"]
        assert service.segment_order(found, ["zeta", "refunds", "alpha"]) == ["orders", "refunds", "alpha", "zeta"]
        many = service.segment_order(found, [f"call-{number:04}" for number in range(2000)])
        assert (many[:3], len(many)) == (["orders", "refunds", "call-0000"], service.SEGMENTS)


def test_what_is_asked_for_waits_for_somebody_else(database: Database) -> None:
    with control(database) as conn:
        made, number = service.ask(conn, ANA, recorded(), waits=True, now=NOW)
        assert number is None and made.state == "asked"
        assert store.lock_running(conn) == []
        with pytest.raises(Denied, match="their own"):
            service.decide(conn, ANA, made.id, approve=True, reason="", now=NOW, served=[WORKLOAD])
    without = msgspec.structs.replace(WORKLOAD, deployments=[WORKLOAD.deployments[0]])
    retired = msgspec.structs.replace(WORKLOAD, stage="retired")
    for served, code in (
        ([], "workload_unknown"),
        ([without], "experiment_outside"),
        ([retired], "workload_not_running"),
    ):
        with control(database) as conn, pytest.raises(GroundplanError) as refused:
            service.decide(conn, SAM, made.id, approve=True, reason="go", now=NOW, served=served)
        assert refused.value.code == code
    with control(database) as conn:
        assert service.get_experiment(conn, made.id).state == "asked"
        service.decide(conn, SAM, made.id, approve=True, reason="go", now=NOW, served=[WORKLOAD])
        assert [each.id for each in store.lock_running(conn)] == [made.id]
        with pytest.raises(Conflict, match="the A/B test small of small runs until"):
            service.ask(conn, ANA, recorded(name="more"), waits=False, now=NOW)
        second, _ = service.ask(conn, ANA, recorded(name="more"), waits=True, now=NOW)
        service.decide(conn, SAM, second.id, approve=False, reason="not now", now=NOW)
        assert service.get_experiment(conn, second.id).state == "refused"


def test_what_nobody_approves_until_its_last_day_waits_no_longer(database: Database) -> None:
    with control(database) as conn:
        made, _ = service.ask(conn, ANA, recorded(), waits=True, now=NOW)
        assert (
            service.evaluate_running(conn, NOW) == []
            and blocking_experiment(store.open_experiments(conn), "support", "small") is not None
        )
    for _ in range(2):
        with control(database) as conn:
            assert service.evaluate_running(conn, made.until) == []
    with control(database) as conn:
        found = service.get_experiment(conn, made.id)
        assert (found.state, found.decided_reason) == ("refused", service.LATE)
        assert blocking_experiment(store.open_experiments(conn), "support", "small") is None
        told = [each.entry.action for each in list_entries(conn, subject="workload/support")]
        assert told.count("experiment.refused") == 1


def test_a_declared_one_begins_once_and_goes_with_its_declaration(database: Database) -> None:
    rule = DeclaredExperiment(name="small", type="shadow", candidate="small", share=1000, budget=PICO)
    declared = WORKLOAD.__class__(**{**_fields(WORKLOAD), "experiment": rule})
    with control(database) as conn:
        assert service.apply_declared(conn, [declared], 3, NOW) == 1
        assert service.apply_declared(conn, [declared], 4, NOW) == 0
        (running,) = store.lock_running(conn)
        assert (running.blueprint, running.candidate, running.budget_usd) == (3, "small", Decimal(1))
        assert service.apply_declared(conn, [WORKLOAD], 5, NOW) == 1
        assert service.get_experiment(conn, running.id).outcome == "withdrawn"
        assert service.apply_declared(conn, [declared], 6, NOW) == 0, "what has ended does not begin again by itself"


def test_a_declaration_waits_while_something_else_is_tried(database: Database) -> None:
    rule = DeclaredExperiment(name="small", type="shadow", candidate="small", share=1000, budget=PICO)
    declared = WORKLOAD.__class__(**{**_fields(WORKLOAD), "experiment": rule})
    with control(database) as conn:
        made, number = service.ask(conn, ANA, recorded(), waits=False, now=NOW)
        assert service.apply_declared(conn, [declared], 3, NOW) == 0
        assert conn.execute("SELECT number FROM policy_epoch").fetchone() == (number,), "gateways have nothing to read"
        service.stop(conn, ANA, made.id, "enough")
        assert service.apply_declared(conn, [declared], 3, NOW) == 1


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__struct_fields__}


@pytest.mark.parametrize(
    "wrong",
    [
        {"candidate": "elsewhere"}, {"candidate": "large"}, {"type": "shadow", "judge": "small"}, {"judge": "other"},
        {"until": NOW - timedelta(days=1)}, {"until": NOW + timedelta(days=400)},
    ],
)  # fmt: skip
def test_what_cannot_be_tried_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        service.check(replace(recorded(), **wrong), WORKLOAD, NOW)
    service.check(recorded(type="shadow", judge="other"), WORKLOAD, NOW)


def test_looking_daily_at_people_who_call_often_finds_nothing_that_is_not_there() -> None:
    """Arms are drawn by person and people differ, so each person counts once: calls would end it by chance."""
    dice = np.random.default_rng(3)
    wrong = {"people": 0, "calls": 0}
    for _ in range(60):
        taste = {CONTROL: dice.beta(2, 1, 200), CANDIDATE: dice.beta(2, 1, 200)}
        totals = {arm: np.zeros((200, 2)) for arm in taste}
        ends = dict.fromkeys(wrong, False)
        for _ in range(20):
            for arm, shares in taste.items():
                made = dice.poisson(3, 200)
                totals[arm] += np.stack([dice.binomial(made, shares), made], axis=1)
            seen = {arm: t[t[:, 1] > 0] for arm, t in totals.items()}
            by_person = {arm: _tally(t[:, 0] / t[:, 1]) for arm, t in seen.items()}
            by_call = {arm: Tally(int(t[:, 1].sum()), t[:, 0].sum(), t[:, 0].sum()) for arm, t in seen.items()}
            rule = Rule("x", 0.5, tolerance=0.0)
            ends["people"] |= ab_verdict(rule, by_person).state in ("better", "worse")
            ends["calls"] |= ab_verdict(rule, by_call).state in ("better", "worse")
        wrong = {name: count + ends[name] for name, count in wrong.items()}
    assert wrong["people"] <= 5, wrong
    assert wrong["calls"] > wrong["people"], "the test can tell a wrong way from the right one"


def _tally(values: Any) -> Tally:
    return Tally(len(values), float(values.sum()), float((values**2).sum()))


async def test_every_attempt_has_its_one_row_whatever_is_killed(database: Database, tmp_path: Path) -> None:
    await killed(database, tmp_path, kills=1, people=2)


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_the_same_for_minutes(database: Database, tmp_path: Path) -> None:
    await killed(database, tmp_path, kills=60, people=8)


async def killed(database: Database, folder: Path, *, kills: int, people: int) -> None:
    """Calls of several people while workers are killed: one workload in shadow, one with two arms."""
    dice = random.Random(7)
    async with (
        scripted_upstream("one") as (one, first),
        scripted_upstream("two") as (two, second),
        installation(database, folder) as stack,
        run_shipper(stack),
    ):
        places = [deployment("one", first), deployment("two", second)]
        tasks = [workload(name, ["one", "two"], deadline_ms=5_000) for name in ("shadowed", "split")]
        stack.apply(blueprint(1, places, tasks, limit=1000 * PICO))
        one.script, two.script = Script(tokens=10, latency_ms=15), Script(tokens=10, latency_ms=40)
        budget = Decimal("0.0030") * (kills + 2)
        shadow = recorded(workload="shadowed", candidate="two", type="shadow", share=10_000, budget_usd=budget)
        with control(database) as conn:
            service.ask(conn, ANA, shadow, waits=False, now=NOW)
            split, _ = service.ask(conn, ANA, recorded(workload="split", candidate="two"), waits=False, now=NOW)
        stack.start(2)
        await stack.wait_until_ready()
        keys = [
            stack.key(name, stack.person(f"{name}{number}@acme.example"))
            for name in ("shadowed", "split")
            for number in range(people)
        ]
        answered = await _traffic(stack, keys, dice, kills)
        await asyncio.to_thread(stack.stop)
        async with asyncio.timeout(60):
            while stack.sql(UNRECOVERED):  # noqa: ASYNC110 -- what is waited for has no event
                await asyncio.sleep(0.2)
        assert answered > 10
        _check_books(stack, one.counted + two.counted, shadow.id, budget)
        _check_arms(stack)
        with control(database) as conn:
            assert store.pair_counts(conn, shadow.id)["pairs"] > 5
            assert service.current_verdict(conn, shadow, NOW).guards["answered"].count > 5
            seen = store.tallies(conn, split).get(("quality", ""), {})
            told = """SELECT count(DISTINCT c.person_id) FROM outcome o JOIN call c ON c.id = o.call_id
                WHERE c.workload = 'split' AND c.detail -> 'route' ? 'arm'"""
            assert [(sum(tally.count for tally in seen.values()),)] == stack.sql(told), "each person counts once"


async def _traffic(stack: Stack, keys: list[str], dice: random.Random, kills: int) -> int:
    """Everybody asks, one after the other; now and then a worker dies. How many were answered."""
    answered, over = 0, asyncio.Event()

    async def asks(key: str) -> None:
        nonlocal answered
        calls = 0
        while not over.is_set():
            try:
                reply = await stack.chat(key, f"question {dice.random()}", stream=dice.random() < 0.3)
                answered += reply.status == 200
                if reply.status == 200 and "json" in reply.headers.get("content-type", "") and not calls % 8:
                    call = reply.json["groundplan"]["call_id"]
                    body = {"call_id": call, "id": call, "accepted": True, "label": "thumb up"}
                    for _ in range(10):  # a call is known once it was shipped
                        if (await stack.post("/api/outcomes", key, body)).status != 404:
                            break
                        await asyncio.sleep(0.2)
                calls += 1
            except (OSError, ValueError, IndexError, TimeoutError):
                await asyncio.sleep(0.05)

    callers = [asyncio.create_task(asks(key)) for key in keys]
    for _ in range(kills):
        await asyncio.sleep(dice.uniform(0.8, 1.6))
        victim = stack.workers.pop(dice.randrange(len(stack.workers)))
        victim.kill()
        await asyncio.to_thread(victim.wait)
        stack.start(1)
    await asyncio.sleep(1.2)
    async with asyncio.timeout(60):  # on a busy machine it takes longer until there is enough to look at
        while answered <= 10 or stack.sql("SELECT count(*) > 5 FROM experiment_pair") != [(True,)]:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    over.set()
    await asyncio.gather(*callers)
    return answered


def _check_books(stack: Stack, counted: int, experiment: UUID, budget: Decimal) -> None:
    ((rows, distinct),) = stack.sql("SELECT count(*), count(DISTINCT (call_id, number)) FROM attempt")
    ((still_open,),) = stack.sql("SELECT count(*) FROM attempt WHERE state = 'open'")
    ((answered,),) = stack.sql("SELECT count(*) FROM attempt WHERE outcome = 'ok'")
    assert rows == distinct and not still_open
    assert answered <= counted <= rows, "an attempt that was counted upstream has no row, or an answer was made up"
    ((orphans,),) = stack.sql("SELECT count(*) FROM attempt a LEFT JOIN call c ON c.id = a.call_id WHERE c.id IS NULL")
    assert not orphans
    for name, granted, limit, spent in stack.sql(
        """SELECT p.budget, p.granted_usd, p.limit_usd, (SELECT coalesce(sum(c.cost_usd), 0) FROM charge c
             WHERE c.budget = p.budget AND c.period = p.period) FROM budget_period p"""
    ):
        assert spent == granted <= limit, f"{name}: money is held for nothing, or was spent twice"
    ((own,),) = stack.sql("SELECT coalesce(sum(cost_usd), 0) FROM charge WHERE budget = %s", f"experiment/{experiment}")
    assert own <= budget
    ((pairs, known),) = stack.sql(
        """SELECT count(*), count(s.id) FROM experiment_pair p LEFT JOIN call b ON b.id = p.beside_call
           LEFT JOIN call s ON s.id = p.call_id AND b.detail -> 'route' ->> 'of' = s.id::text"""
    )
    assert pairs == known, "a fact about answers that are not in the ledger"


def _check_arms(stack: Stack) -> None:
    moved = stack.sql(
        """SELECT person_id FROM call WHERE workload = 'split' AND detail -> 'route' ? 'arm'
           GROUP BY person_id HAVING count(DISTINCT detail -> 'route' ->> 'arm') > 1"""
    )
    assert not moved, "somebody changed arms"
    arms = stack.sql("SELECT DISTINCT detail -> 'route' ->> 'arm', workload FROM call WHERE detail -> 'route' ? 'arm'")
    assert ("candidate", "shadowed") in arms and any(workload == "split" for _, workload in arms)


def test_whom_a_floor_keeps_out_is_not_tried(database: Database) -> None:
    barred = WORKLOAD.__class__(**{**_fields(WORKLOAD), "routing": Routing(barred={"small": "its tone is 70%"})})
    with pytest.raises(Invalid) as told:
        service.check(recorded(), barred, NOW)
    assert told.value.code == "experiment_barred"
    rule = DeclaredExperiment(name="small", type="shadow", candidate="small", share=1000, budget=PICO)
    declared = WORKLOAD.__class__(**{**_fields(barred), "experiment": rule})
    with control(database) as conn:
        assert service.apply_declared(conn, [declared], 3, NOW) == 0
