"""Kept calls asked again of a cheaper deployment: judged, within a budget, proposed with what it is worth."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg_pool import ConnectionPool
from tests.integration.gateway_stack import Stack, blueprint, deployment, installation, scripted_upstream, workload
from tests.integration.test_batch_kill import run_shipper

from groundplan.api.calls import replays
from groundplan.api.context import Services
from groundplan.api.release import Releases
from groundplan.blueprint.experiment import Replay
from groundplan.blueprint.model import Keep, Routing, Workload
from groundplan.core.clock import SystemClock
from groundplan.core.errors import Invalid
from groundplan.core.ids import new_id
from groundplan.core.money import PICO
from groundplan.economics.replay import replay_store as store
from groundplan.economics.replay import service
from groundplan.economics.replay.pairwise import UNASKED, UNREAD, UNREAD_CODE
from groundplan.economics.replay.run import Run
from groundplan.gateway.experiments.replays import PURPOSE
from groundplan.ledger import finding_store
from groundplan.testing.database import Database
from groundplan.testing.scripted import Script, ScriptedModel

NAMES = ("large", "small", "judge")
ACTOR = "operator"
CALLS = 36


@dataclass
class World:
    stack: Stack
    models: dict[str, ScriptedModel]
    services: Services

    def connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.stack.database.urls["control"])

    async def replay(self, **more: Any) -> Run:
        """One run to its end."""
        made = run(**more)
        with self.connect() as conn:
            service.check(made, WORKLOAD)
            assert service.ask(conn, ACTOR, made)
        assert (await asyncio.to_thread(replays.run_next_replay, self.services)) is not None
        return self.found(made.id)

    def found(self, id: UUID) -> Run:
        with self.connect() as conn:
            found = store.find(conn, id)
        assert found is not None
        return found


WORKLOAD = workload("support", list(NAMES), keep=Keep(content="redacted", seconds=86_400))


def run(**more: Any) -> Run:
    values: dict[str, Any] = {
        "id": new_id(), "workload": "support", "current": "large", "candidate": "small", "judge": "judge",
        "budget_usd": Decimal(1), "calls": 200, "asked_by": ACTOR,
    }  # fmt: skip
    return Run(**{**values, **more})


@asynccontextmanager
async def replaying(database: Database, folder: Path) -> AsyncIterator[World]:
    """A gateway that has answered and kept so many calls of two features."""
    async with (
        scripted_upstream("large") as (large, p1),
        scripted_upstream("small") as (small, p2),
        scripted_upstream("judge") as (judge, p3),
        installation(database, folder) as stack,
        run_shipper(stack),
    ):
        places = [deployment(name, port) for name, port in zip(NAMES, (p1, p2, p3), strict=True)]
        stack.apply(blueprint(1, places, [WORKLOAD]))
        large.script, small.script = Script(tokens=20, say="a thorough answer"), Script(say="short")
        judge.script = Script(say="SAME")
        (stack.home.run / "up.json").write_text(
            json.dumps({"gateway": f"http://127.0.0.1:{stack.port}/v1", "control": "http://127.0.0.1:1"})
        )
        stack.start(1)
        await stack.wait_until_ready()
        key = stack.key("support", stack.person("ana@acme.example"))
        for number in range(CALLS):
            feature = "refunds" if number % 3 == 0 else "orders"
            reply = await stack.chat(key, f"question {number}", headers={"groundplan_feature": feature})
            assert reply.status == 200
        async with asyncio.timeout(60):
            while stack.sql("SELECT count(*) FROM content JOIN call ON id = call_id") != [(CALLS,)]:  # noqa: ASYNC110 -- no event
                await asyncio.sleep(0.1)
        settings = database.settings(stack.home.root)
        with ConnectionPool(database.urls["control"], min_size=1, max_size=2, open=True) as pool:
            releases = Releases(stack.home, SystemClock())
            yield World(
                stack,
                {"large": large, "small": small, "judge": judge},
                Services(stack.home, settings, None, False, releases, pool, SystemClock()),
            )


async def test_kept_calls_are_asked_again_and_a_cheaper_model_is_proposed(database: Database, tmp_path: Path) -> None:
    async with replaying(database, tmp_path) as world:
        await _ends_with_its_budget(world)
        await _proposes(world)
        await _survives_its_process(world)
        await _stops_at_a_judge_that_is_not_readable(world)
        await _stops_at_a_judge_that_cannot_be_asked(world)
        await _needs_a_fit_judge(world)
        # keys of people are not good for it, and no caller reaches other deployments by it
        reply = await world.stack.post("/api/replay", world.stack.key("support"), {})
        assert (reply.status, reply.code) == (403, "key_purpose")


async def _ends_with_its_budget(world: World) -> None:
    poor = await world.replay(budget_usd=Decimal("0.0010"))
    assert "has not enough left" in poor.outcome and poor.proposal is None
    with world.connect() as conn:
        found = store.progress(conn, poor.id)
        assert 0 < found["judged"] < CALLS - 10
        assert found.get("skipped", 0) <= 1, "what the judge could not be paid for ends it, or only equal answers go on"
        asked = [each["call_id"] for each in store.calls(conn, poor.id) if each["state"] != "waiting"]
        drawn = sorted(each["call_id"] for each in store.calls(conn, poor.id))
    assert set(asked) != set(drawn[: len(asked)]), "those that were asked are not the oldest"
    assert sum(model.counted for model in world.models.values()) <= CALLS + 3 * 20 + 2


async def _stops_at_a_judge_that_is_not_readable(world: World) -> None:
    """It is told as what it is and asked no more; its pairs are left open."""
    world.models["large"].script = Script(say="That depends.")
    before = world.models["large"].counted
    silent = await world.replay(judge="large", candidate="judge", budget_usd=Decimal(2))
    said = (
        "the judge large gave no readable verdict on 5 pairs in a row: it said 'That depends.' instead of A, B or SAME"
    )
    assert (silent.state, silent.proposal, silent.outcome) == ("failed", None, said)
    error = silent.to_json()["error"]
    assert (error["code"], error["message"]) == (UNREAD_CODE, said) and error["hint"].startswith("Name another judge")
    assert world.models["large"].counted == before + UNREAD, "once a pair, and never again"
    with world.connect() as conn:
        left = store.left_open_by_segment(conn, silent, datetime.now(UTC) - timedelta(days=1))
        assert sum(left.values()) == UNREAD
        assert {each["said"] for each in store.calls(conn, silent.id)} == {None, "That depends."}
        (told,) = finding_store.list_findings(conn, kinds=["cost.judge"])
    assert said in told["message"] and told["hint"] == error["hint"]
    assert (told["subject"], told["detail"]["code"]) == ("workload/support", UNREAD_CODE)


async def _stops_at_a_judge_that_cannot_be_asked(world: World) -> None:
    """So that not all of the kept calls are paid for that nobody judges."""
    said, again = world.models["large"].script, world.models["judge"].script
    world.models["large"].script = Script(mode="down")
    before = world.models["judge"].counted
    silent = await world.replay(judge="large", candidate="judge", budget_usd=Decimal(2))
    assert silent.state == "failed" and silent.outcome.startswith("the judge large could not be asked on 10 pairs")
    error = silent.to_json()["error"]
    assert error["code"] == "judge_unasked" and "key" in error["hint"]
    assert world.models["judge"].counted == before + UNASKED
    world.models["large"].script, world.models["judge"].script = said, again


async def _proposes(world: World) -> None:
    asked, before = world.models["large"].counted, world.models["small"].counted
    done = await world.replay()
    assert (done.state, done.outcome) == ("done", "all were asked")
    proposal = done.proposal
    assert proposal is not None and proposal["judged"] == CALLS, "what was judged before counts"
    new = world.models["small"].counted - before
    assert new < CALLS and world.models["large"].counted == asked, "what was answered is not asked again"
    assert proposal["quality"]["low"] < 1 and proposal["quality"]["value"] > 0.9
    assert proposal["agreement"]["text"].startswith("unknown")
    assert re.search(r"of support calls, saves (less than )?\$0\.\d\d a month", proposal["text"])
    assert proposal["text"].endswith("shadow it")
    await _shipped(world, done, 3 * new)
    _check_ledger(world, done, new)
    with world.connect() as conn:
        (told,) = finding_store.list_findings(conn, kinds=["cost.cheaper_model"])
        assert told["fix"]["experiment"]["type"] == "shadow"
        for row in [each for each in store.calls(conn, done.id) if each["state"] == "judged"][:12]:
            assert store.record_review(conn, done.id, row["call_id"], True, ACTOR)
    again = await world.replay()
    assert world.models["small"].counted == before + new, "nothing new was kept"
    assert again.proposal is not None
    assert again.proposal["agreement"]["text"] == "12 of 12 answers that people reviewed"


async def _survives_its_process(world: World) -> None:
    world.models["small"].script = Script(say="SAME")
    before, made = world.models["judge"].counted, run(candidate="judge", judge="small")
    with world.connect() as conn:
        service.ask(conn, ACTOR, made)
        claimed = store.claim(conn, new_id())
        assert claimed is not None
        assert store.claim(conn, new_id()) is None, "somebody works at it"
        for state in ("running", "waiting"):  # PostgreSQL's clock was two hours fast then
            ahead = "UPDATE replay_run SET state = %s, beat = now() + interval '2 hours' WHERE id = %s"
            conn.execute(ahead, (state, made.id))
            assert store.claim(conn, new_id()) is not None, f"it would stay {state} for two hours"
        store.draw_sample(conn, claimed, datetime.now(UTC) - timedelta(days=1))
        assert store.take_next_call(conn, made.id) is not None
        conn.execute("UPDATE replay_run SET beat = now() - interval '1 hour' WHERE id = %s", (made.id,))
    await asyncio.to_thread(replays.run_next_replay, world.services)
    assert world.found(made.id).state == "done"
    with world.connect() as conn:
        assert store.progress(conn, made.id) == {"judged": CALLS - 1, "skipped": 1}, "what was sent is not sent again"
    assert world.models["judge"].counted == before + CALLS - 1


async def _needs_a_fit_judge(world: World) -> None:
    world.models["large"].script = Script(say="A")
    unfit = await world.replay(judge="large", budget_usd=Decimal(2))
    assert (unfit.state, unfit.proposal) == ("failed", None)
    assert "the judge large contradicted itself" in unfit.outcome and unfit.to_json()["error"]["hint"]
    with world.connect() as conn:
        assert not finding_store.list_findings(conn, kinds=["cost.judge"]), "its verdicts can be read again"


async def _shipped(world: World, done: Run, calls: int) -> None:
    count = "SELECT count(*) FROM call WHERE detail -> 'route' ->> 'experiment' = %s"
    async with asyncio.timeout(60):
        while world.stack.sql(count, str(done.id)) != [(calls,)]:  # noqa: ASYNC110 -- what is waited for has no event
            await asyncio.sleep(0.1)


def _check_ledger(world: World, done: Run, new: int) -> None:
    """Every call of the run is in the ledger, under its own budget, and the key is gone."""
    sql = world.stack.sql
    ((made, of),) = sql(
        """SELECT count(*), count(DISTINCT detail -> 'route' ->> 'of') FROM call
           WHERE detail -> 'route' ->> 'experiment' = %s""",
        str(done.id),
    )
    assert (made, of) == (3 * new, new)
    assert {feature for (feature,) in sql("SELECT DISTINCT detail ->> 'feature' FROM call WHERE status = 'ok'")} == {
        "orders", "refunds", "experiment/replay", "experiment/judge",
    }  # fmt: skip
    ((spent,),) = sql("SELECT sum(cost_usd) FROM charge WHERE budget = %s", f"key/{done.keys[0]}")
    with world.connect() as conn:
        assert store.spent(conn, tuple(done.keys)) == spent <= done.budget_usd
    ((revoked, purpose),) = sql("SELECT revoked_at IS NOT NULL, purpose FROM api_key WHERE id = %s", done.keys[0])
    assert (revoked, purpose) == (True, PURPOSE)
    actions = {action for (action,) in sql("SELECT action FROM audit_entry WHERE subject = 'workload/support'")}
    assert {"replay.asked", "content.replayed"} <= actions


def test_a_night_adds_each_declared_replay_once(database: Database) -> None:
    rule = Replay(candidates=["small", "judge"], judge="judge", budget=PICO)
    declared = WORKLOAD.__class__(**{**{n: getattr(WORKLOAD, n) for n in WORKLOAD.__struct_fields__}, "replay": rule})
    night = datetime(2026, 11, 20, 2, 30, tzinfo=UTC)
    with psycopg.connect(database.urls["control"]) as conn:
        assert service.queue_declared(conn, [declared], night + timedelta(hours=9)) == 0
        assert service.queue_declared(conn, [declared], night) == 2
        assert service.queue_declared(conn, [declared], night + timedelta(hours=1)) == 0
        assert service.queue_declared(conn, [WORKLOAD], night + timedelta(days=1)) == 0
        assert service.queue_declared(conn, [declared], night + timedelta(days=1)) == 2


@pytest.mark.parametrize(
    "wrong", [{"candidate": "elsewhere"}, {"judge": "elsewhere"}, {"candidate": "large"}, {"candidate": "judge"}]
)
def test_what_cannot_be_replayed_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        service.check(replace(run(), **wrong), WORKLOAD)


def judged_run(conn: psycopg.Connection[Any], kept: int, candidate_usd: str = "0.002", **more: Any) -> Run:
    """A run whose calls have been judged; so many candidates' answers were as good."""
    made = run(**more)
    assert service.ask(conn, ACTOR, made)
    conn.cursor().executemany(
        """INSERT INTO replay_call (run, call_id, segment, state, kept, cost_usd, candidate_usd)
           VALUES (%s, %s, '', 'judged', %s, 0.01, %s)""",
        [(made.id, new_id(), number < kept, candidate_usd) for number in range(40)],
    )
    return made


def proposals(conn: psycopg.Connection[Any]) -> list[str]:
    return [each["mark"] for each in finding_store.list_findings(conn, kinds=["cost.cheaper_model"])]


def test_a_proposal_closes_when_a_later_replay_finds_it_worse_or_dearer(database: Database) -> None:
    now = datetime.now(UTC)
    with psycopg.connect(database.urls["control"]) as conn:
        for kept, usd in ((0, "0.002"), (40, "0.5")):
            service.finish(conn, judged_run(conn, 40), {"": 1000.0}, now)
            assert proposals(conn) == ["large>small"]
            conn.execute("UPDATE replay_run SET asked_at = now() - interval '40 days'")
            service.finish(conn, judged_run(conn, kept, usd), {"": 1000.0}, now)
            assert proposals(conn) == []
            conn.execute("UPDATE replay_run SET asked_at = now() - interval '40 days'")


@pytest.mark.parametrize(
    "after",
    [
        [],
        [workload("support", ["other", "small"])],
        [workload("support", ["large", "judge"])],
        [workload("support", ["large", "small"], routing=Routing(barred={"small": "its tone is 70%"}))],
        [workload("support", ["large", "small"], stage="retired")],
    ],
)
def test_a_proposal_that_nobody_can_follow_is_closed(database: Database, after: list[Workload]) -> None:
    with psycopg.connect(database.urls["control"]) as conn:
        service.finish(conn, judged_run(conn, 40), {"": 1000.0}, datetime.now(UTC))
        assert service.close_stale(conn, [WORKLOAD], datetime.now(UTC)) == 0
        assert proposals(conn) == ["large>small"]
        assert service.close_stale(conn, after, datetime.now(UTC)) == 1
        assert proposals(conn) == []


def test_a_proposal_does_not_stand_for_longer_than_its_calls(database: Database) -> None:
    now = datetime.now(UTC)
    with psycopg.connect(database.urls["control"]) as conn:
        older, newer = judged_run(conn, 40), judged_run(conn, 40)
        for each in (older, newer):
            service.finish(conn, each, {"": 1000.0}, now)
        assert service.open_proposals(conn) == {str(newer.id)}, "one click follows the newest alone"
        assert service.close_stale(conn, [WORKLOAD], now + timedelta(days=29)) == 0
        assert service.close_stale(conn, [WORKLOAD], now + timedelta(days=31)) == 1
        assert service.open_proposals(conn) == frozenset()
        (gone,) = finding_store.list_findings(conn, kinds=["cost.cheaper_model"], closed=True)
        assert "no replay has found it for 30 days" in gone["closed_reason"]
        service.finish(conn, judged_run(conn, 40), {"": 1000.0}, now)
        assert proposals(conn) == ["large>small"], "another replay proposes it again"


def test_what_a_replay_proved_is_known_however_many_came_after_it(database: Database) -> None:
    """Ten workloads that replay each night make hundreds in the month for which it counts."""
    now = datetime.now(UTC)
    with psycopg.connect(database.urls["control"]) as conn:
        older, newer = judged_run(conn, 40), judged_run(conn, 40)
        for each in (older, newer):
            service.finish(conn, each, {"": 1000.0}, now)
            conn.execute("UPDATE replay_run SET ended_at = ended_at - interval '1 day'")
        for number in range(101):
            assert store.insert(conn, run(workload=f"other-{number}"))
        assert newer.id not in {each.id for each in store.list_runs(conn)}
        assert [each.id for each in store.newest_proven(conn, now - timedelta(days=30))] == [newer.id]
        assert store.newest_proven(conn, now) == []


def test_calls_that_have_left_keep_no_others_waiting(database: Database) -> None:
    """With a hot window of a week facts leave while a run of a month of kept calls is under way."""
    made = run()
    with psycopg.connect(database.superuser) as conn:
        assert store.insert(conn, made)
        for _ in range(3):
            conn.execute("INSERT INTO replay_call (run, call_id, segment) VALUES (%s, %s, '')", (made.id, new_id()))
        calls = conn.execute("SELECT call_id FROM replay_call ORDER BY md5(call_id::text)").fetchall()
        conn.execute(
            """INSERT INTO call (id, at, workload, endpoint, status, http_status, cost_usd, reserved_usd, blueprint,
                 epoch, detail)
               VALUES (%s, now(), 'support', 'chat.completions', 'ok', 200, 1, 1, 1, gen_random_uuid(), '{}')""",
            calls[1],
        )
        found = store.take_next_call(conn, made.id)
        assert found is not None and found.call == calls[1][0]
        assert store.take_next_call(conn, made.id) is None


def test_whom_a_floor_keeps_out_is_not_replayed(database: Database) -> None:
    barred = workload("support", list(NAMES), keep=WORKLOAD.keep, routing=Routing(barred={"small": "its tone is 70%"}))
    with pytest.raises(Invalid) as told:
        service.check(run(), barred)
    assert told.value.code == "replay_barred"
    rule = Replay(candidates=["small", "judge"], judge="judge", budget=PICO)
    declared = barred.__class__(**{**{n: getattr(barred, n) for n in barred.__struct_fields__}, "replay": rule})
    with psycopg.connect(database.urls["control"]) as conn:
        assert service.queue_declared(conn, [declared], datetime(2026, 11, 20, 2, 30, tzinfo=UTC)) == 1
