"""What a line of a batch outlasts before it is sent: budgets that PostgreSQL tells nothing of, or that open calls hold,
where it lost its money with its worker; and a search that is away. After a wait it is searched for again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from tests.unit.call_rig import BOUND, LIMIT, NoMoreGrants, Rig, call_rig, wait_until

from groundplan.blueprint.model import Budget, Cache, Grounding, Guardrails, Limit
from groundplan.core.errors import Denied, Invalid, Unavailable
from groundplan.core.ids import new_id
from groundplan.gateway.batches import batch_calls
from groundplan.gateway.batches.batch_calls import BatchCalls
from groundplan.gateway.batches.batch_store import Batch
from groundplan.gateway.call import search_client
from groundplan.gateway.call.ask import Passage
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.call.serve import serve
from groundplan.gateway.guard.counts import GuardCounts
from groundplan.gateway.http.collected_response import CollectedResponse
from groundplan.gateway.journal.journal import Journal
from groundplan.gateway.policy.catalog import index
from groundplan.gateway.upstream.pressure import RANKS
from groundplan.ledger.model import Charge, Finish, Reservation, Settlement


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_calls, "_LONGEST_WAIT_S", 0.01)


def batch_of(rig: Rig, key: str) -> Batch:
    now = rig.gateway.clock.now()
    return Batch(
        id=new_id(), workload="assistant", key=UUID(key), person="", endpoint="/v1/chat/completions",
        input_file=new_id(), completion_window="24h", metadata=None, status="in_progress", created_at=now,
        expires_at=now, in_progress_at=now, cancelling_at=None, ended_at=None, errors=[], output_file=None,
        error_file=None, total=1, held_usd=0, charges=[["all", "total"]],
    )  # fmt: skip


def body_of(rig: Rig, **more: Any) -> bytes:
    return rig.request(**more).partition(b"\r\n\r\n")[2]


async def run_line(
    rig: Rig, key: str = "", *, held: int = 0, gone: bool = False, begun: Callable[[], None] = lambda: None, **more: Any
) -> CollectedResponse:
    """One line of a batch, and its answer. `held`: what was set aside for it; `gone`: its file is; `begun`: called
    before it is made; `more`: of its body."""
    batch = batch_of(rig, key or next(iter(rig.gateway.live.policy.keys.values())).id)
    calls = BatchCalls(rig.gateway)
    exchange = calls.exchange(batch, new_id(), b"")
    exchange.charges = calls.budgets(batch, rig.gateway.live.catalog)
    if held:
        exchange.reservation, exchange.reserved_amount = (exchange.id_bytes, 0), held
        charges = [Charge(budget.name, period, held) for budget, period in exchange.charges]
        assert rig.slices.reserve(exchange.reservation, charges) is None

    async def body() -> bytes:
        begun()
        if gone:
            raise Unavailable("it is gone", code="file_elsewhere", hint="Send it again.")
        return body_of(rig, **more)

    assert rig.gateway.run_call is not None
    async with asyncio.timeout(20):
        await rig.gateway.run_call(exchange, calls.line_steps(batch, body))
    assert isinstance(exchange.response, CollectedResponse) and rig.slices.open_reservations == 0
    return exchange.response


async def test_a_line_asks_for_its_budgets_as_they_are_declared_when_it_is_made(tmp_path: Path) -> None:
    """It may have waited since another blueprint: with its number, what the one before declares would hold again."""
    asked: list[tuple[int, int]] = []
    async with call_rig(tmp_path, ["one"]) as rig:
        live: Any = rig.gateway.live
        first = live.catalog.blueprint
        lower = [msgspec.structs.replace(budget, limit=2 * BOUND) for budget in first.budgets]
        rig.slices.release("all", "total")

        async def acquire(token: Any, charges: Any, declared: Any, blueprint: int = 0) -> Charge | None:
            asked.append((declared[0].limit, blueprint))
            rig.slices.add_grant("all", "total", charges[0].amount)
            return rig.slices.reserve(token, charges)

        rig.grants.acquire = acquire  # type: ignore[method-assign]

        def begun() -> None:
            live.catalog = index(msgspec.structs.replace(first, number=2, budgets=lower))

        assert (await run_line(rig, begun=begun)).status == 200
        assert asked == [(2 * BOUND, 2)]


@pytest.mark.parametrize("held", [1, BOUND - 1, BOUND])
async def test_what_is_held_for_a_line_is_what_it_may_cost(tmp_path: Path, held: int) -> None:
    """Prices may have risen since its batch was begun: what was set aside goes back, and enough is taken."""
    async with call_rig(tmp_path, ["one"]) as rig:
        assert (await run_line(rig, held=held)).status == 200
        (begun,) = [record for record in await rig.records() if isinstance(record, Reservation)]
        assert [charge.amount for charge in begun.charges] == [BOUND]
        await rig.books()


async def test_a_budget_of_a_key_bounds_what_its_batches_take(tmp_path: Path) -> None:
    """One that is declared no more gives nothing further."""
    async with call_rig(tmp_path, ["one"]) as rig:
        live: Any = rig.gateway.live
        ((digest, key),) = live.policy.keys.items()
        own = Budget(name="own", covers="", limit=5, period="total")
        declared = Budget(name="declared", covers="", limit=6, period="total")
        live.policy = replace(live.policy, keys={digest: replace(key, budget=own)})
        catalog = replace(live.catalog, key_budgets={key.id: (declared,)})
        batch = replace(batch_of(rig, key.id), charges=[[name, "total"] for name in ("own", "declared", "gone")])
        found = BatchCalls(rig.gateway).budgets(batch, catalog)
        assert [(budget.name, budget.limit) for budget, _ in found] == [("own", 5), ("declared", 6), ("gone", 0)]


@pytest.mark.parametrize(
    ("endpoint", "more", "told"),
    [
        ("/v1/chat/completions", {"stream": True}, "streamed"),
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-" + "0" * 32}}]}]},
            "names a file by its id",
        ),
        ("/v1/responses", {"input": "x", "background": True}, "background"),
        ("/v1/responses", {"input": "x", "previous_response_id": "resp_" + "0" * 32}, "goes on with no response"),
    ],
)
async def test_what_cannot_wait_is_no_line_of_a_batch(
    tmp_path: Path, endpoint: str, more: dict[str, Any], told: str
) -> None:
    async with call_rig(tmp_path, ["one"]) as rig:
        (key,) = rig.gateway.live.policy.keys.values()
        calls, batch = BatchCalls(rig.gateway), replace(batch_of(rig, key.id), endpoint=endpoint)
        body = {"model": "auto"} | ({"messages": [{"role": "user", "content": "x"}]} if "input" not in more else {})
        with pytest.raises(Invalid, match=told):
            calls.assess(calls.exchange(batch, new_id(), json.dumps(body | more).encode()), batch)


class Late(NoMoreGrants):
    """A grants that has something the second time; it knows why it had nothing at first."""

    def __init__(self, rig: Rig, *, told: bool, held: int) -> None:
        super().__init__()
        self._rig, self._told, self._held = rig, told, held

    def was_refused_lately(self, name: str, period: str) -> bool:  # noqa: ARG002 -- the protocol's signature
        return self._told

    def unspent(self, name: str, period: str) -> int:  # noqa: ARG002 -- the protocol's signature
        return self._held

    async def acquire(
        self, token: tuple[bytes, int], charges: Sequence[Charge], declared: Any, blueprint: int = 0
    ) -> Charge | None:
        short = await super().acquire(token, charges, declared, blueprint)
        if len(self.requested_budgets) > 1:
            for charge in charges:
                self._rig.slices.add_grant(charge.budget, charge.period, charge.amount)
            return self._rig.slices.reserve(token, charges)
        return short


@pytest.mark.parametrize(
    ("told", "held", "status"), [(False, 0, 200), (True, LIMIT, 200), (True, 0, 429)], ids=["unknown", "held", "spent"]
)
async def test_a_line_waits_for_its_money_where_that_helps(tmp_path: Path, told: bool, held: int, status: int) -> None:
    async with call_rig(tmp_path, ["one"]) as rig:
        rig.slices.release("all", "total")
        rig.gateway.leases = rig.grants = Late(rig, told=told, held=held)
        answer = await run_line(rig)
        assert answer.status == status, answer.body
        assert (len(rig.grants.requested_budgets), rig.models["one"].counted) == ((2, 1) if status == 200 else (1, 0))


@pytest.mark.parametrize("is_refused", [False, True])
async def test_a_waiting_line_of_a_stopped_worker_is_no_call_whose_client_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_refused: bool
) -> None:
    """Another worker makes it, as a call of its own. What is recorded is an attempt that was made."""
    monkeypatch.setattr(batch_calls, "_LONGEST_WAIT_S", 60.0)
    async with call_rig(tmp_path, ["one"]) as rig:
        if is_refused:
            rig.play("one", mode="error", status=429, retry_after="30")
        else:
            rig.slices.release("all", "total")
            rig.grants.connected = False
        (key,) = rig.gateway.live.policy.keys.values()
        calls, batch = BatchCalls(rig.gateway), batch_of(rig, key.id)
        exchange = calls.exchange(batch, new_id(), b"")
        exchange.charges = calls.budgets(batch, rig.gateway.live.catalog)

        async def body() -> bytes:
            return body_of(rig)

        assert rig.gateway.run_call is not None
        line = asyncio.ensure_future(rig.gateway.run_call(exchange, calls.line_steps(batch, body)))
        await wait_until(lambda: exchange.call in calls.waiting_calls)
        calls.stopping = True
        line.cancel()
        with pytest.raises(asyncio.CancelledError):
            await line
        assert rig.slices.open_reservations == 0
        records = await rig.records()
        ends = [(each.status, each.error_code) for each in records if isinstance(each, Finish)]
        assert ends == ([("cancelled", "worker_stopped")] if is_refused else [])
        assert [each.outcome for each in records if isinstance(each, Settlement)] == ["not_billed"] * is_refused


async def test_a_line_that_nothing_was_found_for_asks_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def search(*_given: object, **_more: object) -> bytes:
        return b'{"passages": [], "abstained": true}'

    monkeypatch.setattr(search_client, "ask_search", search)
    workloads = {"assistant": {"grounding": Grounding(sources=["handbook"], floor=0.4)}}
    async with call_rig(tmp_path, ["one"], workloads=workloads) as rig:
        answer = await run_line(rig, held=BOUND)
        told = json.loads(answer.body)
        assert told["choices"][0]["message"]["content"] == "Not found in what you may see."
        assert told["groundplan"]["abstained"] is True and float(told["groundplan"]["cost_usd"]) == 0
        assert rig.models["one"].counted == 0
        assert [each.status for each in await rig.records() if isinstance(each, Finish)] == ["ok"]


@pytest.mark.parametrize("cached", [True, False])
async def test_a_line_that_could_not_be_written_down_is_answered_once_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached: bool
) -> None:
    """By no model either way. The disk was full for a moment: it waited until its batch was over."""
    full, finish, few = ["the disk is full"], Journal.finish, "requests/few"

    async def search(*_given: object, **_more: object) -> bytes:
        return b'{"passages": [], "abstained": true}'

    def written(journal: Journal, record: Finish, *, urgent: bool = False, awaited: bool = False) -> int:
        if full:
            raise Unavailable(full.pop(), code="journal_unavailable", hint="")
        return finish(journal, record, urgent=urgent, awaited=awaited)

    monkeypatch.setattr(search_client, "ask_search", search)
    kept = {"cache": Cache(seconds=99, max_bytes=1 << 20, scope="workload")}
    settings = kept if cached else {"grounding": Grounding(sources=["handbook"], floor=0.4)}
    limits = [Limit(name="few", covers="workload/assistant", type="requests", amount=9, period="day")]
    async with call_rig(tmp_path, ["one"], workloads={"assistant": settings}, limits=limits) as rig:
        day, counters = rig.gateway.clock.now().date().isoformat(), rig.gateway.limit_slices
        counters.add_grant(few, day, 9)
        if cached:
            assert (await rig.chat()).status == 200
        monkeypatch.setattr(Journal, "finish", written)
        assert (await run_line(rig, held=BOUND)).status == 200 and not full
        assert (rig.models["one"].counted, counters.spent(few, day), counters.open_reservations) == (
            cached,
            1 + cached,
            0,
        )
        ends = [(each.status, each.cache) for each in await rig.records() if isinstance(each, Finish)]
        assert ends == ([("ok", "none"), ("ok", "exact")] if cached else [("ok", "none")])


async def test_a_line_waits_for_a_search_that_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    searched = []

    async def ground(gateway: Gateway, exchange: Exchange) -> bool:
        searched.append(exchange.call)
        if len(searched) == 1:
            raise Unavailable("it is away", code="grounding_unavailable", hint="Wait.", retry_after=2.0)
        return True

    monkeypatch.setattr(batch_calls, "ground", ground)
    async with call_rig(tmp_path, ["one"]) as rig:
        answer = await run_line(rig)
        assert (answer.status, len(searched), rig.models["one"].counted) == (200, 2, 1), answer.body


async def test_what_may_not_be_read_any_more_after_a_wait_is_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line may wait for hours for its provider's pause: it is not sent with what was found before."""
    rounds: list[list[str]] = []

    async def ground(gateway: Gateway, exchange: Exchange) -> bool:
        if not rounds:
            exchange.passages = [
                Passage(document="d", path="p", title="t", source="s", start_line=1, end_line=1, text="revoked since")
            ]
        return True

    async def refused_once(gateway: Gateway, exchange: Exchange, course: Any) -> None:
        rounds.append([passage.text for passage in exchange.passages])
        if len(rounds) == 1:
            raise Unavailable("there is no room", code="overloaded", hint="Wait.", retry_after=1.0)
        await serve(gateway, exchange, course)

    monkeypatch.setattr(batch_calls, "ground", ground)
    monkeypatch.setattr(batch_calls, "serve", refused_once)
    async with call_rig(tmp_path, ["one"]) as rig:
        assert (await run_line(rig)).status == 200 and rounds == [["revoked since"], []]


@pytest.mark.parametrize("why", ["key_revoked", "invalid_api_key", "killed", "file_elsewhere"])
async def test_what_was_set_aside_for_a_line_that_is_refused_goes_back(tmp_path: Path, why: str) -> None:
    """Also where nothing was looked at but its key, or not even that."""
    async with call_rig(tmp_path, ["one"]) as rig:
        live: Any = rig.gateway.live
        ((digest, key),) = live.policy.keys.items()
        if why == "key_revoked":
            live.policy = replace(live.policy, keys={digest: replace(key, revoked=True)})
        elif why == "invalid_api_key":
            live.policy = replace(live.policy, keys={})
        elif why == "killed":
            live.policy = replace(live.policy, kills=frozenset({"company"}))
        answer = await run_line(rig, key.id, held=BOUND, gone=why == "file_elsewhere")
        assert json.loads(answer.body)["error"]["code"] == why, answer.body
        assert rig.slices.available("all", "total") == LIMIT
        refused = [record for record in await rig.records() if isinstance(record, Finish)]
        assert [record.error_code for record in refused] == (["killed"] if why == "killed" else [])


async def test_what_a_guardrail_masked_is_in_the_answer_also_after_a_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    async def refused_once(gateway: Gateway, exchange: Exchange, course: Any) -> None:
        tries.append(exchange.request.body)
        if len(tries) == 1:
            raise Unavailable("there is no room", code="overloaded", hint="Wait.", retry_after=1.0)
        await serve(gateway, exchange, course)

    monkeypatch.setattr(batch_calls, "serve", refused_once)
    rules = {"assistant": {"guardrails": Guardrails(input={"personal_data": "mask"}, budget_ms=10_000)}}
    async with call_rig(tmp_path, ["one"], workloads=rules) as rig:
        asked = [{"role": "user", "content": "to ana@acme.example"}]
        answer = json.loads((await run_line(rig, messages=asked)).body)
        assert len(tries) == 2 and b"ana@" not in tries[0] + tries[1]
        assert answer["choices"][0]["message"]["content"] == "You asked: to ana@acme.example"
        (told,) = answer["groundplan"]["guardrails"]
        assert (told["check"], told["done"], told["finds"]) == ("personal_data", "mask", 1)


@pytest.mark.parametrize("done", ["mask", "block"])
async def test_what_a_guardrail_finds_in_a_line_is_counted_once(tmp_path: Path, done: Any) -> None:
    """It is looked at when the batch is checked, and when the line is made; of one that is refused only the first."""
    rules = {"assistant": {"guardrails": Guardrails(input={"personal_data": done}, budget_ms=10_000)}}
    async with call_rig(tmp_path, ["one"], workloads=rules) as rig:
        rig.gateway.guard_counts = counts = GuardCounts("", rig.gateway.clock)
        asked = [{"role": "user", "content": "to ana@acme.example"}]
        (key,) = rig.gateway.live.policy.keys.values()
        calls = BatchCalls(rig.gateway)
        checked = calls.exchange(batch := batch_of(rig, key.id), new_id(), body_of(rig, messages=asked))
        if done == "block":
            with pytest.raises(Denied):
                calls.assess(checked, batch)
        else:
            calls.assess(checked, batch)
            assert (await run_line(rig, messages=asked)).status == 200
        assert [found[:2] for found in counts.waiting.values()] == [(1, 1)]


async def test_a_line_that_waits_for_a_full_worker_is_no_refused_call(tmp_path: Path) -> None:
    async with call_rig(tmp_path, ["one"]) as rig:
        rig.gateway.pressure.level = RANKS["low"]
        line = asyncio.ensure_future(run_line(rig))
        await asyncio.sleep(0.05)
        assert not line.done()
        rig.gateway.pressure.level = len(RANKS)
        assert (await line).status == 200 and rig.gateway.pressure.refused_calls == 0
