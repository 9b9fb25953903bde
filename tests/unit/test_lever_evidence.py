"""What replays and experiments showed of a cheaper model stands beside what it would save, and bounds it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from tests.unit.test_opportunities import PLACES, WORKLOADS, spent

from groundplan.economics.experiment.record import ExperimentRecord, blocking_experiment
from groundplan.economics.levers.evidence import trial_evidence
from groundplan.economics.replay.opportunities import Opportunity, found
from groundplan.economics.replay.run import Run

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
SINCE = NOW - timedelta(days=30)
QUALITY = {"value": 0.65, "low": 0.62, "high": 0.7, "level": 0.95}


def run(at: datetime = NOW, **more: Any) -> Run:
    proposal = {"quality": QUALITY, "known": False, "worse": [{"segment": "refunds"}]}
    settings: dict[str, Any] = {"state": "done", "proposal": proposal, "ended_at": at, **more}
    return Run(
        id=UUID(int=1), workload="support", current="large", candidate="small", judge="other", budget_usd=Decimal(1),
        calls=200, asked_by="ana", **settings,
    )  # fmt: skip


def experiment(outcome: str, type: str = "shadow", at: datetime | None = NOW, **more: Any) -> ExperimentRecord:
    settings: dict[str, Any] = {
        "state": "ended", "figures": {"quality": {**QUALITY, "high": 0.8}}, "candidate": "small", **more,
    }  # fmt: skip
    return ExperimentRecord(
        id=UUID(int=2), name="try", workload="support", type=type, judge="", share=1000,
        split="person", tolerance=0.1, guard_tolerance=0.05, budget_usd=Decimal(1), until=NOW, reason="r",
        asked_by="ana", outcome=outcome, outcome_reason="as it was found", ended_at=at, **settings,
    )  # fmt: skip


def lever(runs: list[Run], experiments: list[ExperimentRecord]) -> Opportunity:
    (found_one,) = found([spent()], WORKLOADS, PLACES, 30, shown=trial_evidence(runs, experiments, SINCE))
    return found_one


PLAIN = lever([], [])


def test_what_a_replay_found_is_told_and_counts_for_as_many_calls() -> None:
    told = lever([run()], [])
    assert "unknown until a replay" in PLAIN.proof and "unknown" not in told.proof
    assert "as good on 65% of its calls (62% to 70%), as its judge alone says, worse on refunds" in told.proof
    assert told.saves_usd == PLAIN.saves_usd * Decimal("0.7")


@pytest.mark.parametrize(
    ("outcome", "type", "most", "words"),
    [
        ("worse", "shadow", "0.8", "found it worse: as it was found; a router may still"),
        ("worse", "ab", "1", "the A/B test try, ended on 2026-11-28, found it worse"),
        ("guard", "shadow", "0.8", "found it not good enough"),
        ("kept", "shadow", "1", "found it good enough: as it was found; let it take the calls"),
    ],
)
def test_what_an_experiment_found_is_told(outcome: str, type: str, most: str, words: str) -> None:
    told = lever([], [experiment(outcome, type)])
    assert words in told.proof and told.tried, "no shadow is offered of what an experiment has decided about"
    assert told.saves_usd == PLAIN.saves_usd * Decimal(most)


def test_the_newest_verdict_counts_and_what_has_none_shows_nothing() -> None:
    older = NOW - timedelta(days=3)
    proof = lever([run(older)], [experiment("worse", "ab")]).proof
    assert proof.index("A/B test") < proof.index("a replay") and proof.endswith(
        "; a router may still send it those that it answers as well"
    )
    nightly = lever([run()], [experiment("worse", "ab", older)])
    assert nightly.proof.index("a replay") < nightly.proof.index("A/B test") and nightly.tried
    assert nightly.proof.endswith("a router may still send it those that it answers as well"), "no shadow once more"
    both = lever([run()], [experiment("worse", at=older)])
    assert both.saves_usd == PLAIN.saves_usd * Decimal("0.7"), "no more than either showed"
    twice = lever([], [experiment("kept"), experiment("worse", "ab", older)])
    assert "worse" not in twice.proof, "of two experiments the newer"
    for nothing in (experiment("budget"), experiment("expired"), experiment("", state="refused", at=NOW)):
        assert lever([], [nothing]) == PLAIN
    assert not PLAIN.tried and not lever([run()], []).tried
    assert lever([run(proposal=None)], []) == PLAIN and lever([run(state="failed")], []) == PLAIN
    assert lever([run(SINCE - timedelta(days=1))], []) == PLAIN, "what it was judged by is older than what is kept"
    assert lever([replace(run(), candidate="other")], []) == PLAIN


@pytest.mark.parametrize(
    ("state", "words"),
    [("running", "the shadow try of small runs until"), ("asked", "the shadow try of small waits for its approval")],
)
def test_what_is_being_tried_is_not_offered_once_more(state: str, words: str) -> None:
    """Also where it began before what is looked at."""
    before = SINCE - timedelta(days=9)
    told = lever([], [experiment("", state=state, at=None, began_at=before, asked_at=before)])
    assert told.proof.startswith(words) and told.tried and told.saves_usd == PLAIN.saves_usd


def test_what_another_one_keeps_from_beginning_is_not_offered_but_said() -> None:
    runs = experiment("", state="running", at=None, candidate="other").standing
    assert runs == "the shadow try of other runs until 2026-11-28"
    (told,) = found([spent()], WORKLOADS, PLACES, 30, runs={"support": runs})
    assert (told.waits, told.tried) == (runs, False)
    assert told.proof == f"{PLAIN.proof}; {runs}, and no other is tried beside it"
    (same,) = found(
        [spent()],
        WORKLOADS,
        PLACES,
        30,
        shown=trial_evidence([], [experiment("kept")], SINCE),
        runs={"support": runs},
    )
    assert same.waits == "", "it has been decided about anyway"
    (elsewhere,) = found([spent()], WORKLOADS, PLACES, 30, runs={"hr": runs})
    assert elsewhere == PLAIN


def test_what_is_in_the_way_is_whatever_runs_or_the_same_that_waits() -> None:
    running = experiment("", state="running", at=None, candidate="other")
    waiting = experiment("", state="asked", at=None)
    assert blocking_experiment([waiting, running], "support", "small") is running
    assert blocking_experiment([waiting], "support", "small") is waiting
    assert (
        blocking_experiment([waiting], "support", "other") is None
        and blocking_experiment([running], "hr", "other") is None
    )
