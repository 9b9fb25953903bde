"""Exceptions from rules, reviews and kills against a real database: who may, what is recorded, what gateways read."""

from __future__ import annotations

import asyncio
import gc
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn
from uuid import UUID

import psycopg
import pytest
from tests.unit.test_gateway_mcp import call_tool, error_code, mcp_rig

from groundplan.blueprint.model import Review
from groundplan.core.audit.keys import create_keys
from groundplan.core.audit.subject import SubjectKeys
from groundplan.core.clock import SystemClock
from groundplan.core.errors import Conflict, Denied, GroundplanError, Invalid, Unavailable
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.gateway.budgets.leases import Slices
from groundplan.gateway.guard.counts import GuardCounts
from groundplan.gateway.guard.reviews import Reviews
from groundplan.gateway.policy.live import LiveView
from groundplan.governance import approvals
from groundplan.governance import service as governance
from groundplan.governance.approvals import Answer, Approver
from groundplan.governance.guardrails import count_store
from groundplan.governance.model import Change
from groundplan.governance.policy import exceptions
from groundplan.governance.policy.exceptions_model import ExceptionRequest
from groundplan.governance.review import service, store
from groundplan.governance.review.model import ReviewDecision, Reviewer
from groundplan.governance.store import policy_number
from groundplan.governance.validity import Term
from groundplan.identity import service as identity
from groundplan.testing.database import Database

NOW = datetime.now(UTC)
A, B, REX = (f"person:{new_id()}" for _ in range(3))


def connect(database: Database) -> psycopg.Connection[Any]:
    return psycopg.connect(database.urls["control"])


def company(conn: psycopg.Connection[Any]) -> dict[str, str]:
    """Two people with a duty each; actors by name."""
    for name in ("sam", "cleo"):
        identity.add_person(conn, "operator", f"{name}@acme.example", name.title())
    identity.nominate(
        conn, "operator", "company", {"security": ["sam@acme.example"], "compliance": ["cleo@acme.example"]}
    )
    return {name: f"person:{identity.find_person(conn, f'{name}@acme.example').id}" for name in ("sam", "cleo")}


def request_exception(conn: psycopg.Connection[Any], actor: str = A, **more: Any) -> Any:
    wanted = ExceptionRequest("r", "w", None, NOW + timedelta(days=1), "a trial")
    return exceptions.request_exception(conn, actor, replace(wanted, **more), seats=1, now=NOW)


def agree(
    conn: psycopg.Connection[Any], actor: str, id: UUID, separation: str = "enforced", at: datetime = NOW
) -> Change:
    """As a release does it, without a blueprint."""
    who = Approver(UUID(actor.removeprefix("person:")), "passkey")
    change = approvals.approve(conn, who, id, Answer(), separation=separation, at=at)
    if change.is_complete:
        assert change.own_end_date is not None
        governance.apply_change(conn, change, None, Term(change.own_end_date, change.own_end_date), at=at)
    return change


async def policy_of(database: Database, tmp_path: Path) -> Any:
    """What a worker reads."""
    home = Home(tmp_path / "home")
    home.create()
    view = LiveView(database.urls["gateway"], home, new_id(), SystemClock(), Slices())
    connection = await psycopg.AsyncConnection.connect(database.urls["gateway"], autocommit=True)
    async with connection:
        await view._load_policy(connection, None)
    return view.policy


async def test_an_exception_applies_once_both_duties_agreed_until_it_ends(database: Database, tmp_path: Path) -> None:
    with connect(database) as conn:
        who = company(conn)
        made = request_exception(conn, who["sam"])
        assert request_exception(conn, who["cleo"]).id == made.id, "the same one is asked for once"
        with pytest.raises(Denied, match="You asked for"):
            agree(conn, who["sam"], made.id)
        other = request_exception(conn, A, person=identity.find_person(conn, "cleo@acme.example"))
        assert not agree(conn, who["sam"], other.id).is_complete
        assert exceptions.get_exception(conn, other.id).waits_for == ["compliance"]
    assert (await policy_of(database, tmp_path)).exceptions == ()
    with connect(database) as conn:
        assert agree(conn, who["cleo"], other.id).is_complete
        number = policy_number(conn)
    policy = await policy_of(database, tmp_path)
    assert policy.number == number
    (held,) = policy.exceptions
    assert (held.rule, held.workload, held.person) == ("r", "w", "cleo@acme.example")
    with connect(database) as conn:
        with pytest.raises(Conflict):
            exceptions.check_undecided(conn, other.id, NOW)
        change, lost = approvals.withdraw(conn, who["cleo"], other.id, at=NOW)
        assert lost and change.state == "withdrawn" and policy_number(conn) > number
    assert (await policy_of(database, tmp_path)).exceptions == ()
    with connect(database) as conn:
        rows = conn.execute(
            "SELECT action, body::text FROM audit_entry WHERE subject = %s ORDER BY id", (f"change/{other.id}",)
        ).fetchall()
        told = exceptions.get_exception(conn, other.id).to_json(NOW)
    assert [row[0] for row in rows] == ["change.requested", "change.approved", "change.approved", "approval.withdrawn"]
    assert not any("cleo@acme.example" in str(row[1]) for row in rows), "no personal data in the log"
    assert (told["state"], told["decided_by"], told["ended_by"]) == ("ended", who["cleo"], who["cleo"])


async def test_a_permitted_person_ends_an_exception_approved_by_others(database: Database, tmp_path: Path) -> None:
    with connect(database) as conn:
        who = company(conn)
        made = request_exception(conn)
        for name in who.values():
            agree(conn, name, made.id)
    assert len((await policy_of(database, tmp_path)).exceptions) == 1
    with connect(database) as conn:
        exceptions.end_exception(conn, B, made.id, NOW)
        assert exceptions.get_exception(conn, made.id).to_json(NOW)["ended_by"] == B
        with pytest.raises(Conflict):
            exceptions.end_exception(conn, B, made.id, NOW)
    assert (await policy_of(database, tmp_path)).exceptions == ()


@pytest.mark.parametrize("more", [{"until": NOW}, {"until": NOW + timedelta(days=400)}, {"reason": " "}])
def test_an_exception_ends_and_has_a_reason(database: Database, more: dict[str, Any]) -> None:
    with connect(database) as conn, pytest.raises(Invalid):
        request_exception(conn, **more)


def test_an_expired_exception_is_not_approved_and_a_lone_person_may_approve(database: Database) -> None:
    with connect(database) as conn:
        who = company(conn)
        late = request_exception(conn, until=NOW + timedelta(seconds=1))
        with pytest.raises(Conflict, match="over"):
            exceptions.check_undecided(conn, late.id, NOW + timedelta(minutes=1))
        with pytest.raises(Conflict, match="over"):
            agree(conn, who["sam"], late.id, at=NOW + timedelta(days=2))
        conn.execute("UPDATE person SET active = false WHERE email = 'cleo@acme.example'")
        identity.nominate(
            conn, "operator", "company", {each: ["sam@acme.example"] for each in ("security", "compliance")}
        )
        alone = request_exception(conn, who["sam"])
        assert agree(conn, who["sam"], alone.id, separation="solo").is_complete


async def test_a_security_kill_is_distinguished(database: Database, tmp_path: Path) -> None:
    with connect(database) as conn:
        identity.kill(conn, "operator", "model/openai/gpt", "why")
        identity.kill(conn, "operator", "provider/openai", "why", streams=True)
        identity.kill(conn, "operator", "tool/look", "why")
    policy = await policy_of(database, tmp_path)
    assert policy.kills == {"model/openai/gpt", "provider/openai", "tool/look"}
    assert policy.severed == {"provider/openai"} and policy.tools_stopped


# reviews -------------------------------------------------------------------------------------------------------------


class Queue:
    """A worker's desk and the control process, on one database."""

    def __init__(self, database: Database, tmp_path: Path) -> None:
        self.home = Home(tmp_path / "home")
        self.home.create()
        create_keys(self.home)
        self.database = database
        self.desk = Reviews(self.home, database.urls["gateway"], new_id())
        with connect(database) as conn:
            identity.add_person(conn, "operator", "ana@acme.example", "Ana")
            self.person = identity.find_person(conn, "ana@acme.example").id

    def exchange(self, **rule: Any) -> Any:
        masks = SimpleNamespace(restore=lambda text: text.replace("<email_1>", "x@y.example"))
        return SimpleNamespace(
            call=new_id(), person=str(self.person), key=SimpleNamespace(id=str(new_id())),
            workload=SimpleNamespace(name="w", review=Review(**rule)), deployment=SimpleNamespace(name="gpt"),
            ask=SimpleNamespace(query="who is <email_1>?"), guard=SimpleNamespace(masks=masks),
        )  # fmt: skip

    async def hold(self, exchange: Any) -> str:
        try:
            await self.desk.hold(exchange, "the answer")
        except GroundplanError as error:
            return error.code
        return "sent"

    async def waiting(self) -> Any:
        """The one that waits."""
        for _ in range(2000):
            with connect(self.database) as conn:
                if found := store.queue(conn, waiting=True):
                    return found[0]
            await asyncio.sleep(0.02)
        raise AssertionError("nothing waits")


@pytest.mark.parametrize(("release", "outcome"), [(True, "sent"), (False, "review_refused")])
async def test_an_answer_waits_for_review_and_the_minutes_are_recorded(
    database: Database, tmp_path: Path, release: bool, outcome: str
) -> None:
    queue = Queue(database, tmp_path)
    task = asyncio.create_task(queue.hold(queue.exchange(by=["rex@acme.example"])))
    held = await queue.waiting()
    assert (held.workload, held.subject, held.person, held.reviewers) == (
        "w", "gpt", "ana@acme.example", ["rex@acme.example"],
    )  # fmt: skip
    assert held.due_at - held.at == timedelta(milliseconds=Review().within_ms), "both by one clock"
    assert "the answer" not in (held.said or "") and "who is" not in (held.asked or "")
    with connect(database) as conn:
        texts = service.read_texts(conn, SubjectKeys.of(queue.home), REX, held)
        assert texts == {"asked": "who is x@y.example?", "said": "the answer"}
        with pytest.raises(Denied, match="themselves"):
            service.decide(conn, Reviewer(A, "ana@acme.example"), held, ReviewDecision(True, ""), NOW)
    assert not task.done()
    with connect(database) as conn:
        ruling = ReviewDecision(release, "why", 2.5)
        service.decide(conn, Reviewer(REX, "rex@acme.example"), service.find(conn, held.id), ruling, NOW)
    assert await asyncio.wait_for(task, 60) == outcome
    with connect(database) as conn:
        after = service.find(conn, held.id)
        assert (after.asked, after.said, float(after.minutes or 0)) == (None, None, 2.5)
        assert store.minutes_by_workload(conn, NOW - timedelta(days=1))[0][:2] == ("w", 1)
        with pytest.raises(Conflict):
            service.decide(conn, Reviewer("operator", None), after, ReviewDecision(True, "", 1), NOW)
        actions = [
            row[0] for row in conn.execute("SELECT action FROM audit_entry WHERE action LIKE 'review%%' ORDER BY id")
        ]
    assert actions == ["review.read", f"review.{'released' if release else 'refused'}"]
    await queue.desk.close()


@pytest.mark.parametrize(("after", "outcome"), [(False, "review_timeout"), (True, "sent")])
async def test_an_answer_not_reviewed_in_time_ends_as_declared(
    database: Database, tmp_path: Path, after: bool, outcome: str
) -> None:
    queue = Queue(database, tmp_path)
    assert await queue.hold(queue.exchange(within_ms=300, release_after=after)) == outcome
    with connect(database) as conn:
        (held,) = store.queue(conn, waiting=False)
    assert (held.state, held.said) == ("lapsed", None)
    await queue.desk.close()


async def test_a_disconnecting_caller_leaves_the_review_queue(database: Database, tmp_path: Path) -> None:
    queue = Queue(database, tmp_path)
    task = asyncio.create_task(queue.hold(queue.exchange()))
    held = await queue.waiting()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    for _ in range(600):
        with connect(database) as conn:
            if service.find(conn, held.id).state != "waiting":
                break
        await asyncio.sleep(0.1)
    with connect(database) as conn:
        assert service.find(conn, held.id).state == "gone"
        with pytest.raises(Conflict):
            service.decide(conn, Reviewer("operator", None), held, ReviewDecision(True, "", 1), NOW)
    await queue.desk.close()


async def test_reviews_of_a_dead_worker_are_closed(database: Database, tmp_path: Path) -> None:
    queue = Queue(database, tmp_path)
    task = asyncio.create_task(queue.hold(queue.exchange()))
    held = await queue.waiting()
    with connect(database) as conn:
        assert store.expire_unanswered(conn) == 0
        conn.execute("UPDATE held_call SET due_at = now() - interval '2 minutes'")
        assert store.expire_unanswered(conn) == 1
        after = service.find(conn, held.id)
    assert (after.state, after.asked, after.said) == ("lapsed", None, None)
    assert await asyncio.wait_for(task, 60) == "review_timeout"
    await queue.desk.close()


async def test_without_a_database_no_answer_is_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path / "home")
    home.create()
    create_keys(home)
    desk = Reviews(home, "postgresql://127.0.0.1:1/none", new_id())
    with pytest.raises(GroundplanError) as caught:
        await desk.in_thread(lambda conn: conn)
    assert caught.value.code == "review_unavailable"
    tried: list[object] = []

    async def away(work: object) -> NoReturn:
        tried.append(work)
        raise Unavailable("it is away", code="review_unavailable", hint="Wait.")

    desk._abandoned |= {new_id() for _ in range(3)}
    monkeypatch.setattr(desk, "in_thread", away)
    await desk.close()
    assert len(tried) == 1, "a worker that ends waits two seconds for each"


async def test_a_caller_disconnecting_while_its_review_cannot_be_created_leaves_nothing(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, lost = Queue(database, tmp_path), list[object]()
    asyncio.get_running_loop().set_exception_handler(lambda _, told: lost.append(told))
    began, go = asyncio.Event(), asyncio.Event()

    async def away(_: object) -> NoReturn:
        began.set()
        await go.wait()
        raise Unavailable("it is away", code="review_unavailable", hint="Wait.")

    with monkeypatch.context() as patch:
        patch.setattr(queue.desk, "in_thread", away)
        task = asyncio.create_task(queue.hold(queue.exchange()))
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go.set()
        await asyncio.sleep(0.01)
    gc.collect()
    await queue.desk.close()
    assert not lost, "an exception that nobody asked for"


async def test_guardrail_findings_are_counted_once(database: Database) -> None:
    counts, call = GuardCounts(database.urls["gateway"], SystemClock()), new_id()
    counts.add(call, "w", {("input", "secrets", "block"): 1}, shadow=False)
    counts.add(call, "w", {("input", "secrets", "block"): 3}, shadow=False)
    await counts.flush()
    counts.add(call, "w", {("input", "secrets", "block"): 3}, shadow=False)  # as of an answer that takes minutes
    counts.add(new_id(), "w", {("input", "secrets", "block"): 2}, shadow=False)
    await counts.flush()
    with connect(database) as conn:
        (row,) = count_store.guardrail_counts(conn, datetime.now(UTC).date() - timedelta(days=1))
    assert (row["calls"], row["finds"], row["check"]) == (2, 5, "secrets")


# dangerous tools -----------------------------------------------------------------------------------------------------


async def test_a_dangerous_tool_is_used_once_for_each_approval(database: Database, tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.create()
    create_keys(home)
    async with mcp_rig(tmp_path, dangerous=["delete_*"]) as (rig, model):
        rig.gateway.clock = SystemClock()
        desk = rig.gateway.reviews = Reviews(home, database.urls["gateway"], rig.gateway.epoch)
        refused = await call_tool(rig, "crm__delete_all", table="x")
        assert error_code(refused) == "approval_required" and model.used == []
        retry = refused["structuredContent"]["error"]["retry_id"]
        assert f"groundplan_retry_id={retry}" in refused["content"][0]["text"], (
            "which is all that most models are given"
        )
        assert (
            error_code(await call_tool(rig, "crm__delete_all", table="x", groundplan_retry_id=retry))
            == "approval_required"
        )
        with connect(database) as conn:
            (held,) = store.queue(conn, waiting=True)
            texts = service.read_texts(conn, SubjectKeys.of(home), REX, held)
            assert (held.kind, held.subject, texts["asked"]) == ("tool", "crm/delete_all", '{\n  "table": "x"\n}')
            service.decide(conn, Reviewer(REX, None), held, ReviewDecision(True, ""), datetime.now(UTC))
        for table in ("y", "x z"):
            assert (
                error_code(await call_tool(rig, "crm__delete_all", table=table, groundplan_retry_id=retry))
                == "approval_other"
            )
        assert model.used == []
        live: Any = rig.gateway.live
        before, (digest, key) = live.policy, next(iter(live.policy.keys.items()))
        other = str(new_id())
        keys = {**before.keys, digest: replace(key, person=other)}
        live.policy = replace(before, keys=keys, active=before.active | {other})
        assert (
            error_code(await call_tool(rig, "crm__delete_all", table="x", groundplan_retry_id=retry))
            == "approval_other"
        ), "who approved it saw for whom"
        for line, told in (((), "approval_other"), ((key.id,), "")):
            new = replace(key, id=str(new_id()), family=key.id if line else "", line=line)
            live.policy = replace(before, keys={**before.keys, digest: new})
            if told:
                assert error_code(await call_tool(rig, "crm__delete_all", table="x", groundplan_retry_id=retry)) == told
        done = await call_tool(
            rig, "crm__delete_all", table="x", groundplan_retry_id=retry
        )  # with the key it was rotated to
        assert done["isError"] is False and model.used == [("delete_all", {"table": "x"})]
        assert (
            error_code(await call_tool(rig, "crm__delete_all", table="x", groundplan_retry_id=retry))
            == "approval_refused"
        )
        assert error_code(await call_tool(rig, "crm__delete_all", table="x", groundplan_retry_id="no")) == "retry_id"
        assert len(model.used) == 1
        await desk.close()


async def test_a_refused_tool_says_why(database: Database, tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.create()
    create_keys(home)
    async with mcp_rig(tmp_path, dangerous=["delete_all"]) as (rig, model):
        rig.gateway.clock = SystemClock()
        desk = rig.gateway.reviews = Reviews(home, database.urls["gateway"], rig.gateway.epoch)
        retry = (await call_tool(rig, "crm__delete_all"))["structuredContent"]["error"]["retry_id"]
        with connect(database) as conn:
            (held,) = store.queue(conn, waiting=True)
            service.decide(conn, Reviewer(REX, None), held, ReviewDecision(False, "never", 1), datetime.now(UTC))
        refused = await call_tool(rig, "crm__delete_all", groundplan_retry_id=retry)
        assert error_code(refused) == "approval_refused" and "never" in refused["content"][0]["text"]
        assert model.used == []
        await desk.close()
