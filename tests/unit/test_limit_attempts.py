"""What the limits that cover a caller count of the attempts of a call: each one takes the most that it may use before
it is sent, what it used is counted, and what was not used serves others."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from tests.unit.call_rig import BOUND, Rig, call_rig, read_records, reliability, wait_until

from groundplan.blueprint.model import Limit, ProviderKey
from groundplan.core.ids import new_id
from groundplan.economics.price import FREE
from groundplan.gateway.batches.batch_calls import BatchCalls
from groundplan.gateway.batches.batch_store import Batch
from groundplan.ledger.model import Settlement

COVERS = "workload/assistant"
LIMITS = [
    Limit(name="few", covers=COVERS, type="requests", amount=100, period="day"),
    Limit(name="money", covers=COVERS, type="cost", amount=100 * BOUND, period="day"),
    Limit(name="words", covers=COVERS, type="tokens", amount=100_000, period="day"),
]
HEDGED: dict[str, Any] = {"hedge": {"after_ms": 40, "at_most": 1.0}}


@asynccontextmanager
async def limited(folder: Path, room: int, *own: Limit, **settings: Any) -> AsyncIterator[Rig]:
    """A worker that holds so many picodollars of the limit of cost, and enough of the others, also of deployments' own;
    nobody lends it more."""
    drained = {"one": {"billing_on_cancel": "drain"}} if settings.pop("drain", False) else None
    limits = [*LIMITS, *own]
    async with call_rig(folder, more=drained, workloads={"assistant": reliability(**settings)}, limits=limits) as rig:
        for limit in limits:
            rig.gateway.limit_slices.add_grant(name(limit), day(rig), room if limit.name == "money" else limit.amount)
        yield rig


def name(limit: Limit) -> str:
    return f"{limit.type}/{limit.name}"


def day(rig: Rig) -> str:
    return rig.gateway.clock.now().date().isoformat()


async def check_counts(rig: Rig, room: int) -> None:
    """Every limit has counted what the journal says, holds nothing more of it, and was not exceeded."""
    settlements, counters = await rig.settlements(), rig.gateway.limit_slices
    used = {
        "few": 1,
        "words": sum(each.usage.input + each.usage.output for each in settlements),
        "money": sum(each.cost for each in settlements),
    }
    assert {limit.name: counters.spent(name(limit), day(rig)) for limit in LIMITS} == used
    assert counters.open_reservations == 0
    assert counters.available("cost/money", day(rig)) == room - used["money"] >= 0


@pytest.mark.parametrize(("room", "status"), [(2 * BOUND - 1, 429), (2 * BOUND, 200)])
@pytest.mark.parametrize("stream", [False, True])
async def test_after_a_billed_attempt_the_next_needs_room_in_the_limit(
    tmp_path: Path, room: int, status: int, stream: bool
) -> None:
    async with limited(tmp_path, room) as rig:
        rig.play("one", mode="error", status=502)
        reply = await rig.chat(stream=stream)
        assert (reply.status, rig.models["two"].counted) == (status, int(status == 200))
        if status == 429:
            assert (reply.code, reply.json["error"]["limit"]) == ("rate_limit_exceeded", "money")
        await check_counts(rig, room)


@pytest.mark.parametrize(("failing", "status"), [(["one"], 200), (["one", "two"], 503)])
async def test_an_unbilled_attempts_reservation_passes_to_the_next(
    tmp_path: Path, failing: list[str], status: int
) -> None:
    async with limited(tmp_path, BOUND) as rig:
        for each in failing:
            rig.play(each, mode="error", status=503)
        answer = await rig.chat()
        assert (answer.status, answer.headers["groundplan-deployment"]) == (status, "two")
        assert rig.grants.requested_budgets == []
        await check_counts(rig, BOUND)


@pytest.mark.parametrize(("room", "sent"), [(2 * BOUND - 1, 0), (2 * BOUND, 1)])
async def test_a_hedge_uses_only_the_held_slice_of_a_limit(tmp_path: Path, room: int, sent: int) -> None:
    async with limited(tmp_path, room, **HEDGED) as rig:
        one = rig.hold("one")
        asked = asyncio.create_task(rig.chat())
        if not sent:
            await wait_until(lambda: rig.models["one"].counted == 1)
            await asyncio.sleep(0.15)  # a hedge would be sent after 0.04
            one.release()
        assert (await asked).status == 200
        assert rig.models["two"].counted == sent and rig.grants.requested_budgets == []
        await check_counts(rig, room)


async def test_where_the_first_of_two_was_not_billed_the_next_one_goes_on_with_what_it_held(tmp_path: Path) -> None:
    """`one` fails while its hedge runs and fails, too, billed: the third attempt needs no more than was taken."""
    room = 2 * BOUND
    async with limited(tmp_path, room, same=1, backoff_ms=1, **HEDGED) as rig:
        rig.play("one", mode="error", status=503, times=1)
        rig.play("two", mode="error", status=502, times=1)
        one, two = rig.hold("one"), rig.hold("two")
        asked = asyncio.create_task(rig.chat())
        await wait_until(lambda: rig.models["two"].counted == 1)
        one.release()
        folder = rig.gateway.journal.folder
        await wait_until(lambda: any(isinstance(each, Settlement) for each in read_records(folder)))
        for gate in (one, two, one, two):
            gate.release()
        assert (await asked).status in (200, 503)
        await check_counts(rig, room)


async def test_limits_of_a_deployment_are_counted_and_released_if_held_locally(tmp_path: Path) -> None:
    kinds = {"requests": 3, "tokens": 100_000, "cost": 100 * BOUND, "concurrent": 1}
    own = [
        Limit(
            name=kind, covers="deployment/one", type=kind, amount=most, period="now" if kind == "concurrent" else "day"
        )
        for kind, most in kinds.items()
    ]
    async with call_rig(tmp_path, workloads={"assistant": reliability()}, limits=own) as rig:
        counters = rig.gateway.limit_slices
        for limit in own:
            counters.add_grant(name(limit), "now" if limit.type == "concurrent" else day(rig), limit.amount)
        served = [(await rig.chat()).headers["groundplan-deployment"] for _ in range(4)]
        assert served == ["one", "one", "one", "two"] and counters.open_reservations == 0
        settled = [each for each in await rig.settlements() if each.cost][:3]
        assert {kind: counters.spent(f"{kind}/{kind}", day(rig)) for kind in ("requests", "tokens", "cost")} == {
            "requests": 3,
            "tokens": sum(each.usage.input + each.usage.output for each in settled),
            "cost": sum(each.cost for each in settled),
        }
        assert counters.available("concurrent/concurrent", "now") == 1


async def test_a_call_takes_the_tokens_of_whichever_deployment_may_use_most(tmp_path: Path) -> None:
    taken = set()
    for shorter in ("", "one", "two"):
        more = {shorter: {"max_output_tokens": 5}} if shorter else {}
        async with call_rig(tmp_path / f"home{shorter}", more=more, limits=LIMITS[2:]) as rig:
            rig.gateway.limit_slices.add_grant("tokens/words", day(rig), 100_000)
            one = rig.hold("one")
            asked = asyncio.create_task(rig.chat())
            await wait_until(lambda model=rig.models["one"]: model.counted == 1)  # type: ignore[misc]
            taken.add(rig.gateway.limit_slices.reserved_by_key()["tokens/words", day(rig)])
            one.release()
            assert (await asked).status == 200
    assert len(taken) == 1


async def test_tokens_that_cost_nothing_are_counted(tmp_path: Path) -> None:
    async with call_rig(tmp_path, ["one"], more={"one": {"rates": FREE}}, limits=LIMITS[2:]) as rig:
        rig.gateway.limit_slices.add_grant("tokens/words", day(rig), 100_000)
        assert (await rig.chat()).status == 200
        (only,) = await rig.settlements()
        used = only.usage.input + only.usage.output
        assert rig.gateway.limit_slices.spent("tokens/words", day(rig)) == used > only.cost == 0


async def test_a_rotated_key_continues_the_count_of_its_predecessor(tmp_path: Path) -> None:
    each = Limit(name="each", covers="key", type="requests", amount=2, period="day")
    async with call_rig(tmp_path, ["one"], limits=[each]) as rig:
        keys = rig.gateway.live.policy.keys
        (first,) = keys.values()
        other = str(new_id())
        line = frozenset((first.id, other))
        keys[hashlib.sha256(b"rotated").digest()] = replace(first, id=other, family=first.id, line=line)
        rig.gateway.limit_slices.add_grant(f"requests/each/{first.id}", day(rig), 2)
        assert [(await rig.chat(key)).status for key in ("assistant", "rotated", "rotated")] == [200, 200, 429]
        assert rig.gateway.limit_slices.spent(f"requests/each/{first.id}", day(rig)) == 2


async def test_provider_key_limits_are_counted_beside_the_callers(tmp_path: Path) -> None:
    for each in "ab":
        (tmp_path / each).write_text(each)
    keys = [
        ProviderKey(key=f"file:{tmp_path / each}", requests=[(1, "day")], tokens=[(100_000, "day")]) for each in "ab"
    ]
    own = [f"one#{key.fingerprint}" for key in keys]
    async with call_rig(
        tmp_path / "home", ["one"], more={"one": {"keys": keys}}, workloads={"assistant": reliability()}, limits=LIMITS
    ) as rig:
        counters = rig.gateway.limit_slices
        held = {name(limit): limit.amount for limit in LIMITS}
        held |= {f"tokens/{each}": 100_000 for each in own} | {f"requests/{each}": 1 for each in own}
        for each, amount in held.items():
            counters.add_grant(each, day(rig), amount)
        replies = [await rig.chat() for _ in range(3)]
        assert [reply.status for reply in replies] == [200, 200, 429]
        assert replies[2].json["error"]["covers"].endswith("of deployment/one")
        used = [each.usage.input + each.usage.output for each in await rig.settlements() if each.cost]
        assert [counters.spent(f"tokens/{each}", day(rig)) for each in own] == used and len(used) == 2
        assert [counters.spent(f"requests/{each}", day(rig)) for each in own] == [1, 1]
        assert counters.spent("tokens/words", day(rig)) == sum(used) and counters.spent("requests/few", day(rig)) == 2
        assert counters.open_reservations == 0


@pytest.mark.parametrize("order", ["minute first", "day first"])
@pytest.mark.parametrize("places", ["keys", "deployments"])
async def test_a_refusal_names_the_limit_of_its_deployments_that_frees_first(
    tmp_path: Path, places: str, order: str
) -> None:
    """Any key and any deployment can serve the call, so a client was told to wait for tomorrow where one had room again
    within the minute. What a single key needs is all of its limits."""
    minute, day_long = [(1, "minute")], [(1, "minute"), (1, "day")]
    periods = [minute, day_long] if order == "minute first" else [day_long, minute]
    limits = [LIMITS[0]]
    names, more = ["one", "two"], None
    if places == "keys":
        for each in "ab":
            (tmp_path / each).write_text(each)
        keys = [
            ProviderKey(key=f"file:{tmp_path / each}", requests=requests)
            for each, requests in zip("ab", periods, strict=True)
        ]
        names, more = ["one"], {"one": {"keys": keys}}
    else:
        limits += [
            Limit(name=f"{name}-{period}", covers=f"deployment/{name}", type="requests", amount=most, period=period)
            for name, requests in zip(names, periods, strict=True)
            for most, period in requests
        ]
    async with call_rig(
        tmp_path / "home", names, more=more, workloads={"assistant": reliability()}, limits=limits
    ) as rig:
        rig.gateway.limit_slices.add_grant("requests/few", day(rig), 1)
        reply = await rig.chat()
        assert (reply.status, reply.json["error"]["per"]) == (429, "minute")
        assert (reply.headers["retry-after"], reply.headers["x-ratelimit-reset-requests"]) == ("60", "1m0s")
        assert rig.gateway.limit_slices.open_reservations == 0


@pytest.mark.parametrize(
    ("period", "other", "told"),
    [
        ("day", "failed", (503, "1")),
        ("day", "rests", (503, "20")),
        ("minute", "failed", (429, "60")),
        ("day", "", (429, None)),
    ],
)
async def test_a_call_does_not_wait_for_a_limit_if_another_deployment_answers_sooner(
    tmp_path: Path, period: str, other: str, told: tuple[int, str | None]
) -> None:
    """Whoever failed for a moment was not to be asked again before the next day, in which the first has room again."""
    limit = Limit(name="first", covers="deployment/one", type="requests", amount=1, period=period)
    names = ["one", "two"] if other else ["one"]
    async with call_rig(tmp_path, names, workloads={"assistant": reliability()}, limits=[limit, LIMITS[0]]) as rig:
        rig.gateway.limit_slices.add_grant("requests/few", day(rig), 1)
        if other == "rests":
            rig.gateway.health.record_failure("two", asyncio.get_running_loop().time(), 20.0)
        elif other:
            rig.play("two", mode="error", status=503)
        reply = await rig.chat()
        assert (reply.status, reply.headers.get("retry-after")) == told
        assert reply.code == {503: "upstream_failed", 429: "rate_limit_exceeded"}[reply.status]
        assert rig.gateway.limit_slices.open_reservations == 0
        used = rig.gateway.limit_slices.spent("requests/few", day(rig))
        assert used == rig.models[names[-1]].counted == int(other == "failed"), "what was never sent uses nothing"


@pytest.mark.parametrize(("period", "told"), [("day", (503, "20")), ("minute", (429, "60"))])
async def test_a_call_does_not_wait_for_the_limit_of_a_key_if_another_key_rests_for_less_time(
    tmp_path: Path, period: str, told: tuple[int, str]
) -> None:
    """The provider was busy with one key for a moment, and a client was to wait for tomorrow's limit of another."""
    for each in "ab":
        (tmp_path / each).write_text(each)
    resting, used_up = (f"file:{tmp_path / each}" for each in "ab")
    keys = [ProviderKey(key=resting), ProviderKey(key=used_up, requests=[(1, period)])]
    async with call_rig(
        tmp_path / "home", ["one"], more={"one": {"keys": keys}}, workloads={"assistant": reliability()}
    ) as rig:
        deployment = rig.plan("assistant").deployments_by_name["one"][0]
        rig.gateway.targets.key_pool(deployment).record_refusal(0, 429, asyncio.get_running_loop().time(), 20.0)
        reply = await rig.chat()
        assert (reply.status, reply.headers.get("retry-after")) == told
        assert rig.models["one"].counted == rig.gateway.limit_slices.open_reservations == 0


@pytest.mark.parametrize("leaves", [False, True])
async def test_nobody_waits_until_a_hedge_may_be_sent(tmp_path: Path, leaves: bool) -> None:
    """The limit of its deployment has to be asked for when the first one answers, or the client leaves: it holds
    nothing while the call goes on, and after it."""
    few = Limit(name="few", covers="deployment/two", type="concurrent", amount=1, period="now")
    async with call_rig(tmp_path, workloads={"assistant": reliability(**HEDGED)}, limits=[few]) as rig:
        rig.play("one", tokens=20, chunk_ms=20)
        one, counters = rig.hold("one"), rig.gateway.limit_slices
        waiting, left = asyncio.Event(), asyncio.Event()

        async def lend(*_: Any) -> str | None:
            waiting.set()
            try:
                await asyncio.sleep(3600)
            finally:
                left.set()
            return None

        rig.grants.acquire = lend  # type: ignore[method-assign, assignment]
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(rig.request(stream=True))
        await asyncio.wait_for(waiting.wait(), 30)
        if leaves:
            writer.transport.abort()
        else:
            one.release()
            assert (await asyncio.wait_for(reader.readuntil(b"chat.completion.chunk"), 30)).startswith(b"HTTP/1.1 200")
        await asyncio.wait_for(left.wait(), 30)
        for _ in range(20):
            await asyncio.sleep(0)
        assert (rig.models["two"].counted, counters.open_reservations) == (0, 0)
        writer.transport.abort()
        await wait_until(lambda: rig.gateway.running_calls == 0)
        await rig.books()


async def test_a_hedge_that_has_no_place_in_the_end_gives_back_what_was_fetched_for_it(tmp_path: Path) -> None:
    few = Limit(name="few", covers="deployment/two", type="concurrent", amount=1, period="now")
    async with call_rig(tmp_path, workloads={"assistant": reliability(**HEDGED)}, limits=[few]) as rig:
        catalog, one, counters = rig.gateway.live.catalog, rig.hold("one"), rig.gateway.limit_slices
        assert catalog is not None
        load = rig.gateway.loads.of(catalog.blueprint.deployments[1])

        async def lend(token: Any, charges: Any, *_: Any) -> None:
            counters.add_grant("concurrent/few", "now", 1)
            assert counters.reserve(token, charges) is None
            load.limit = 0  # others have filled it meanwhile

        rig.grants.acquire = lend  # type: ignore[method-assign, assignment]
        asked = asyncio.create_task(rig.chat())
        await wait_until(lambda: load.limit == 0)
        assert (counters.open_reservations, counters.available("concurrent/few", "now")) == (0, 1)
        one.release()
        assert (await asked).headers["groundplan-deployment"] == "one" and rig.models["two"].counted == 0
        await rig.books()


@pytest.mark.parametrize(("stream", "status"), [(False, 200), (True, 200), (False, 503)])
async def test_a_drained_attempt_is_counted_at_its_end(tmp_path: Path, stream: bool, status: int) -> None:
    """Also where it turns out that nothing is billed, and nobody comes after it."""
    room, own = 2 * BOUND, Limit(name="own", covers="deployment/one", type="cost", amount=9 * BOUND, period="day")
    async with limited(tmp_path, room, own, drain=True, **HEDGED) as rig:
        rig.play("one", tokens=7, mode="ok" if status == 200 else "error", status=status)
        one = rig.hold("one")
        reply = await rig.chat(stream=stream)
        assert reply.status == 200 and rig.models["two"].counted == 1
        counters = rig.gateway.limit_slices
        held = counters.reserved_by_key()
        assert counters.open_reservations == 2 and held["cost/money", day(rig)] == held["cost/own", day(rig)] == BOUND
        one.release()
        await wait_until(lambda: not rig.gateway.background)
        await check_counts(rig, room)
        assert counters.spent("cost/own", day(rig)) == next(e.cost for e in await rig.settlements() if not e.attempt)


@pytest.mark.parametrize("room", [BOUND + 1, 3 * BOUND])
async def test_a_resumed_stream_uses_the_limit_for_its_rest(tmp_path: Path, room: int) -> None:
    async with limited(tmp_path, room, on_broken_stream="resume") as rig:
        rig.play("one", mode="cut", chunk_ms=3)
        stream = await rig.stream()
        if room > BOUND + 1:
            assert stream.done and not stream.errors and rig.models["two"].counted == 1
        else:
            (error,) = stream.errors
            assert error["code"] == "stream_broken" and "the limit money" in error["message"]
            assert rig.models["two"].counted == 0 and stream.text
        await check_counts(rig, room)


@pytest.mark.parametrize(("requests", "ordered"), [([(5, "day")], False), ([], True)])
async def test_a_line_of_a_batch_is_ordered_only_with_a_key_that_has_no_limits_of_its_own(
    tmp_path: Path, requests: list[tuple[int, str]], ordered: bool
) -> None:
    """What a provider makes by itself nobody counts in time; made as a call, each line takes its own."""
    keys = [ProviderKey(key="env:FIRST", requests=requests), ProviderKey(key="env:SECOND")]
    async with call_rig(tmp_path, ["one"], more={"one": {"serves": ["batches"], "keys": keys}}) as rig:
        (key,) = rig.gateway.live.policy.keys.values()
        now = rig.gateway.clock.now()
        batch = Batch(
            id=new_id(), workload="assistant", key=UUID(key.id), person="", endpoint="/v1/chat/completions",
            input_file=new_id(), completion_window="24h", metadata=None, status="in_progress", created_at=now,
            expires_at=now, in_progress_at=now, cancelling_at=None, ended_at=None, errors=[], output_file=None,
            error_file=None, total=1, held_usd=0, charges=[],
        )  # fmt: skip
        calls = BatchCalls(rig.gateway)
        exchange = calls.exchange(batch, new_id(), rig.request().partition(b"\r\n\r\n")[2])
        calls.assess(exchange, batch)
        assert (calls.provider_deployment(exchange) is not None) == ordered
