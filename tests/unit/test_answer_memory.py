"""Large answers that are not streamed have one room in a worker: however many come at once, no more than that is held,
everyone is answered, and each gives back what it had, however it ends."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.contract.h2_server import H2Server
from tests.integration.gateway_stack import parse_reply
from tests.unit.call_rig import BOUND, Rig, call_rig, reliability, wait_until
from tests.unit.raw_upstream import completion_body
from tests.unit.test_gateway_guard import Desk, killed

from groundplan.blueprint.model import Cache, Review
from groundplan.gateway.http.collected_response import CollectedResponse
from groundplan.gateway.http.server_state import MAX_WORKLOAD_SHARE
from groundplan.gateway.surfaces.responses import stored_api as responses_api
from groundplan.gateway.upstream.answer_memory import AnswerMemory, MemoryShare
from groundplan.gateway.upstream.connection import BODY_LIMIT, UpstreamFailure
from groundplan.gateway.upstream.pressure import RANKS

MIB = 1 << 20
USED = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}


class Watched(AnswerMemory):
    """Knows what was held at most."""

    most = 0

    def try_resize(self, share: MemoryShare, size: int, *, forced: bool = False) -> bool:
        taken = super().try_resize(share, size, forced=forced)
        self.most = max(self.most, self.held_bytes)
        return taken


@asynccontextmanager
async def large_answer_rig(
    folder: Path, size: int, limit: int, http: int = 1, *, status: int = 200, ends: bool = True, **more: Any
) -> AsyncIterator[Rig]:
    """A worker whose upstream answers with `size` bytes, of which it does not tell how many there are; `ends`: and are
    the end of it."""
    body = completion_body(pad="a" * size, usage=USED)
    head = b"HTTP/1.1 %d Told\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n" % status

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head + body)
        if not ends:
            await reader.read()
        writer.close()

    settings, names = {"one": {"http": http, **more.pop("more", {})}}, more.pop("names", ["one"])
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server, AsyncExitStack() as stack:
        port = server.sockets[0].getsockname()[1]
        if http == 2:
            port = (await stack.enter_async_context(H2Server(port).listening(None))).port
        async with call_rig(folder, names, ports={"one": port}, more=settings, **more) as rig:
            rig.gateway.answer_memory = Watched(limit)
            yield rig


def full(rig: Rig) -> MemoryShare:
    """The share of somebody who has all of the room, and more."""
    share = MemoryShare(rig.gateway.answer_memory)
    assert rig.gateway.answer_memory.try_resize(share, rig.gateway.answer_memory.limit + 1)
    return share


STEPS = st.sampled_from(["grow", "grow", "grow", "keep", "leave", "end"])


@given(st.lists(st.tuples(st.integers(0, 5), STEPS), min_size=30, max_size=60))  # fewer fill no room
@settings(max_examples=60, deadline=None)
def test_waiting_answers_are_admitted_and_held_bytes_are_exact(steps: list[tuple[int, str]]) -> None:
    async def run() -> None:
        room, limit = AnswerMemory(8 * MIB), 8 * MIB
        shares = [MemoryShare(room, each % 4, whose) for each, whose in enumerate(("a", "b", "a", "", "b", "a"))]
        waits: dict[int, asyncio.Future[None]] = {}
        for who, step in [*steps, *((who, step) for step in ("leave", "end") for who in range(6))]:
            share = shares[who]
            if step == "leave" and who in waits:
                room.cancel_wait(waits.pop(who))
            elif who in waits:
                continue  # it reads nothing meanwhile
            elif step == "grow" and (future := room.wait(share, min(2 * share.size + MIB, BODY_LIMIT))) is not None:
                waits[who] = future
            elif step == "keep":
                share.shrink_to(share.size * 3 // 4)
            elif step == "end":
                share.release()
                share.release()
            waits = {each: future for each, future in waits.items() if not future.done()}
            assert room.held_bytes == sum(each.size for each in shares) <= limit + BODY_LIMIT
            assert room.waiting_count == len(waits)
            for whose in ("a", "b"):
                of = sum(each.size for each in shares if each.workload == whose)
                assert room._workload_bytes.get(whose, 0) == of <= limit * MAX_WORKLOAD_SHARE + 2 * BODY_LIMIT
            if waits:
                ranks = [each.share.rank for each in room._waiters]
                assert ranks == sorted(ranks), "the more important go first"
                assert any(each.size for at, each in enumerate(shares) if at not in waits), "all wait for each other"
        assert (room.held_bytes, room.waiting_count, room._workload_bytes, room._overdrawn_of, room._overdrawn) == (
            0,
            0,
            {},
            {},
            None,
        )

    asyncio.run(run())


async def test_one_workload_never_holds_all_of_the_memory(tmp_path: Path) -> None:
    """However slowly its clients take their answers, those of others are given."""
    async with large_answer_rig(tmp_path, 3 * MIB, 40 * MIB, workloads={"slow": {}, "other": {}}) as rig:
        room = rig.gateway.answer_memory
        taken = [MemoryShare(room, RANKS["normal"], "slow") for _ in range(6)]
        for share in taken[:5]:
            assert room.wait(share, 5 * MIB) is None, "the last of them alone goes beyond what there is for one"
        assert room.wait(taken[5], 5 * MIB) is not None and room.held_bytes == 25 * MIB
        waits = [asyncio.create_task(rig.chat("slow")) for _ in range(2)]
        await wait_until(lambda: room.waiting_count == 3)
        assert [(await rig.chat("other")).status for _ in range(3)] == [200] * 3 and room.waiting_count == 3
        assert room.wait(taken[4], 8 * MIB) is None, "for which the others of its workload wait"
        for share in taken[:4]:
            share.release()
        assert [(await each).status for each in waits] == [200, 200] and taken[5].size == 5 * MIB
        for share in taken:
            share.release()
        assert (room.held_bytes, room.waiting_count) == (0, 0)


@pytest.mark.parametrize("http", [1, 2])
async def test_many_large_answers_are_all_delivered_while_few_are_held(tmp_path: Path, http: int) -> None:
    async with large_answer_rig(tmp_path, 3 * MIB, 12 * MIB, http) as rig:
        replies = await asyncio.gather(*(rig.chat() for _ in range(24)))
        assert [reply.status for reply in replies] == [200] * 24
        assert all(len(reply.body) > 3 * MIB and parse_usage(reply.body) == 3 for reply in replies)
        room: Any = rig.gateway.answer_memory
        assert 6 * MIB < room.most <= 12 * MIB + 8 * MIB and (room.held_bytes, room.waiting_count) == (0, 0)
        await rig.books()


def parse_usage(body: bytes) -> int:
    return int(body.rpartition(b'"completion_tokens": ')[2].partition(b",")[0])


@pytest.mark.parametrize("status", [200, 400])
async def test_a_client_that_reads_nothing_keeps_its_memory_until_it_is_cut_off(tmp_path: Path, status: int) -> None:
    """A refusal may be as large: some servers repeat all that was sent to them."""
    async with large_answer_rig(tmp_path, 16 * MIB, 4 * MIB, status=status) as rig:
        rig.server.limits = replace(rig.server.limits, write_seconds=5.0, body_bytes_per_second=4 * MIB)
        _, writer = await asyncio.open_connection("127.0.0.1", rig.port, limit=1024)
        tracemalloc.start()
        writer.write(rig.request())
        room = rig.gateway.answer_memory
        await wait_until(lambda: any(each.paused is not None for each in rig.server.connections))
        await asyncio.sleep(0)
        assert 16 * MIB < room.held_bytes < 17 * MIB, "what there is of it, all of which waits for its client"
        taken, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert taken < 20 * MIB, "it is there once"
        (slow,) = rig.server.connections
        assert slow.transport is not None and slow.transport.get_write_buffer_size() < MIB
        assert slow.deadline <= rig.server.now() + 5.0
        assert not rig.gateway.loads.of(rig.plan("assistant").deployments_by_name["auto"][0]).running, (
            "it keeps no place there"
        )
        waits = asyncio.create_task(rig.chat())
        await wait_until(lambda: room.waiting_count == 1)
        slow.expire()
        assert (await waits).status == status
        await wait_until(lambda: not rig.gateway.running_calls)
        assert (room.held_bytes, room.waiting_count) == (0, 0)
        writer.close()
        assert {each.outcome for each in await rig.settlements()} == {"ok" if status == 200 else "not_billed"}


async def test_a_security_kill_ends_an_answer_in_delivery(tmp_path: Path) -> None:
    """Its client may take a quarter of an hour for it."""
    async with large_answer_rig(tmp_path, 8 * MIB, 4 * MIB) as rig:
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port, limit=1024)
        writer.write(rig.request())
        await wait_until(lambda: any(each.paused is not None for each in rig.server.connections))
        killed(rig, "workload/assistant")
        assert len(rig.server.connections) == len(rig.gateway.streams) == 1, "answers under way go on"
        killed(rig, "workload/assistant", streams=True)
        await wait_until(lambda: not rig.gateway.running_calls)
        assert (rig.gateway.answer_memory.held_bytes, rig.gateway.streams) == (0, set())
        with suppress(ConnectionError):
            assert len(await reader.read()) < 8 * MIB
        writer.close()


async def test_the_last_memory_is_for_the_most_critical_calls(tmp_path: Path) -> None:
    """Large answers to clients that take them slowly keep out none that matters more."""
    declared = {name: reliability(priority=name) for name in ("low", "critical")}
    async with large_answer_rig(tmp_path, 3 * MIB, 40 * MIB, workloads=declared) as rig:
        room = rig.gateway.answer_memory
        others = [MemoryShare(room, RANKS["low"]) for _ in range(2)]
        assert all(room.try_resize(each, size * MIB) for each, size in zip(others, (26, 4), strict=True))
        waits = asyncio.create_task(rig.chat("low"))
        await wait_until(lambda: room.waiting_count == 1)
        assert (await rig.chat("critical")).status == 200 and room.waiting_count == 1
        room.try_resize(others[0], 38 * MIB, forced=True)
        last = asyncio.create_task(rig.chat("critical"))
        await wait_until(lambda: room.waiting_count == 2)
        others[0].release()
        assert (await last).status == (await waits).status == 200
        others[1].release()
        assert (room.held_bytes, room.waiting_count) == (0, 0)


@pytest.mark.parametrize("http", [1, 2])
@pytest.mark.parametrize("billing", ["bill", "drain"])
async def test_a_client_that_leaves_while_its_answer_waits(tmp_path: Path, http: int, billing: str) -> None:
    more = {"billing_on_cancel": billing}
    async with large_answer_rig(tmp_path, 3 * MIB, MIB, http, more=more) as rig:
        room, others = rig.gateway.answer_memory, full(rig)
        _, writer = await asyncio.open_connection("127.0.0.1", rig.port)
        writer.write(rig.request())
        await wait_until(lambda: room.waiting_count == 1)
        writer.transport.abort()
        await wait_until(lambda: not rig.gateway.running_calls and room.waiting_count == (billing == "drain"))
        others.release()
        await wait_until(lambda: not rig.gateway.background)
        assert (room.held_bytes, room.waiting_count) == (0, 0)
        assert sum((await rig.books()).spent.values()) == (BOUND if billing == "bill" else 3 * 10_000_000)


@pytest.mark.parametrize("how", ["exact", "replay"])
async def test_a_call_sharing_an_answer_does_not_wait_for_a_slow_reader(tmp_path: Path, how: str) -> None:
    """Also who asks again with its Idempotency-Key, since it has lost its connection, which nobody here has noticed."""
    cache = {"cache": Cache(seconds=60, max_bytes=256 * MIB, scope="workload")} if how == "exact" else {}
    async with large_answer_rig(tmp_path, 8 * MIB, 4 * MIB, workloads={"assistant": cache}) as rig:
        asked = rig.request()
        if how == "replay":
            asked = asked.replace(b"\r\n\r\n", b"\r\nidempotency-key: once\r\n\r\n", 1)
        _, writer = await asyncio.open_connection("127.0.0.1", rig.port, limit=1024)
        writer.write(asked)
        await wait_until(lambda: any(each.paused is not None for each in rig.server.connections))
        reader, again = await asyncio.open_connection("127.0.0.1", rig.port)
        again.write(asked)
        reply = parse_reply(await asyncio.wait_for(reader.read(), 5))
        again.close()
        assert reply.status == 200 and len(reply.body) > 8 * MIB
        assert rig.gateway.call_counters.cache_hits == {("assistant", how): 1}
        writer.transport.abort()
        await wait_until(lambda: not rig.gateway.running_calls)
        assert rig.gateway.answer_memory.held_bytes == 0


@pytest.mark.parametrize("how", ["exact", "replay", "stored"])
async def test_a_replayed_answer_is_not_buffered_for_a_client_that_does_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Where over TLS nobody sees it, so that who takes it slowly is cut off as idle."""

    async def stored(*_: object) -> dict[str, str]:
        return {"pad": "a" * 8 * MIB}

    monkeypatch.setattr(responses_api, "answer", stored)
    cache = {"cache": Cache(seconds=60, max_bytes=256 * MIB, scope="workload")} if how == "exact" else {}
    async with large_answer_rig(tmp_path, 8 * MIB, 4 * MIB, workloads={"assistant": cache}) as rig:
        asked = rig.request().replace(b"\r\n\r\n", b"\r\nidempotency-key: once\r\n\r\n", how == "replay")
        if how == "stored":
            asked = b"GET /v1/responses/resp_1 HTTP/1.1\r\nhost: g\r\nauthorization: Bearer assistant\r\n\r\n"
        else:
            reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
            writer.write(asked)
            assert len(await reader.read()) > 8 * MIB
            writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", rig.port, limit=1024)
        tracemalloc.start()
        writer.write(asked)
        await wait_until(lambda: any(each.paused is not None for each in rig.server.connections))
        taken, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert how == "stored" or taken < 4 * MIB, "however many get it, it is there once"
        (slow,) = rig.server.connections
        assert slow.transport is not None and slow.transport.get_write_buffer_size() < MIB
        assert how == "stored" or rig.gateway.call_counters.cache_hits == {("assistant", how): 1}
        assert how != "replay" or not rig.server.held_bytes, "the room for requests is for others"
        if how == "exact":
            again = (await rig.chat()).body
            assert len(json.loads(again)["pad"]) == 8 * MIB and b'"cache":"exact"' in again[-1024:]
        if how != "stored":
            killed(rig, "company", streams=True)
            await wait_until(lambda: not rig.gateway.running_calls)
        writer.transport.abort()


async def test_an_answer_in_review_takes_no_memory(tmp_path: Path) -> None:
    """Which may take hours."""
    async with large_answer_rig(tmp_path, 3 * MIB, 4 * MIB, workloads={"assistant": {"review": Review()}}) as rig:
        rig.gateway.reviews = desk = Desk(lambda _: None)  # type: ignore[assignment]
        desk.decide = lambda _: seen.append(rig.gateway.answer_memory.held_bytes)
        seen: list[int] = []
        assert (await rig.chat()).status == 200
        assert seen == [0] and rig.gateway.answer_memory.held_bytes == 0


async def test_an_answer_without_memory_until_its_deadline_is_no_deployment_failure(tmp_path: Path) -> None:
    """Small ones need none."""
    declared = {"assistant": {"deadline_ms": 300}}
    async with large_answer_rig(tmp_path, 3 * MIB, MIB, workloads=declared) as rig:
        others = full(rig)
        refused = await rig.chat()
        assert refused.status == 503 and b"took all the memory" in refused.body
        assert b"GROUNDPLAN_REQUEST_MEMORY" in refused.body
        assert not rig.gateway.health._failures and rig.gateway.answer_memory.held_bytes == others.size
        others.release()
        assert (await rig.chat()).status == 200
    (tmp_path / "small").mkdir()
    async with large_answer_rig(tmp_path / "small", MIB * 3 // 4, MIB, workloads=declared) as rig:
        full(rig)
        assert (await rig.chat()).status == 200


async def test_waiting_for_memory_is_not_upstream_silence(tmp_path: Path) -> None:
    """Neither of the upstream, which may not be silent for so long, nor of how soon it answers."""
    async with large_answer_rig(tmp_path, 3 * MIB, MIB, more={"idle_ms": 50}) as rig:
        room, others = rig.gateway.answer_memory, full(rig)
        waits = asyncio.create_task(rig.chat())
        await wait_until(lambda: room.waiting_count == 1)
        await asyncio.sleep(0.15)
        others.release()
        assert (await waits).status == 200
        assert (
            not rig.gateway.health._failures
            and not rig.gateway.loads.of(rig.plan("assistant").deployments_by_name["auto"][0])._usual_us
        )


async def test_no_hedge_is_sent_while_an_answer_waits_for_memory(tmp_path: Path) -> None:
    """Which would wait, too, and is paid for."""
    declared = {"assistant": reliability(hedge={"after_ms": 400, "at_most": 1.0})}
    async with large_answer_rig(tmp_path, 3 * MIB, MIB, names=["one", "two"], workloads=declared) as rig:
        room, others = rig.gateway.answer_memory, full(rig)
        waits = asyncio.create_task(rig.chat())
        await wait_until(lambda: room.waiting_count == 1)
        await asyncio.sleep(0.6)
        others.release()
        assert (await waits).status == 200 and rig.models["two"].counted == 0
        assert len(await rig.settlements()) == 1


@pytest.mark.parametrize("http", [1, 2])
@pytest.mark.parametrize("waits", [True, False])
async def test_an_answer_late_after_waiting_for_memory_is_no_deployment_failure(
    tmp_path: Path, http: int, waits: bool
) -> None:
    """A crowd of such would open the breaker of a deployment that is well."""
    declared = {"assistant": {"deadline_ms": 900}}
    async with large_answer_rig(tmp_path, 3 * MIB, MIB, http, ends=False, workloads=declared) as rig:
        room, others = rig.gateway.answer_memory, full(rig) if waits else None
        late = asyncio.create_task(rig.chat())
        if others is not None:
            await wait_until(lambda: room.waiting_count == 1)
            others.release()
        assert ((await late).status, bool(rig.gateway.health._failures)) == (503, not waits)
        assert room.held_bytes == 0


async def test_a_waiting_answer_leaves_the_queue_at_its_deadline() -> None:
    room = AnswerMemory(MIB)
    first, late, next_ = MemoryShare(room), MemoryShare(room), MemoryShare(room)
    assert await first.grow(MIB, 1.0) == first.size == 2 * MIB
    with pytest.raises(UpstreamFailure, match="took all the memory") as caught:
        await late.grow(MIB, 0.01)
    assert (
        late.explains_failure(caught.value.kind)
        and late.explains_failure("cut")
        and not late.explains_failure("timeout")
    )
    assert late.explains_failure("timeout", is_late=True) and not first.explains_failure("timeout", is_late=True)
    waits = asyncio.create_task(next_.grow(MIB, 1.0))
    await asyncio.sleep(0)
    assert (room.waiting_count, late.size) == (1, 0)
    first.release()
    assert await waits == room.held_bytes == 2 * MIB


async def test_a_collected_answer_is_complete_at_once() -> None:
    kept = CollectedResponse()
    await kept.send_large(200, b"{}")
    assert (kept.status, kept.body, kept.ended) == (200, b"{}", True)
