"""What one caller sends that takes long to look at makes nobody else wait: others are answered meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from tests.integration.gateway_stack import deployment
from tests.unit.call_rig import Rig, call_rig, wait_until
from tests.unit.test_batch_waits import batch_of, body_of

from groundplan.blueprint import model as bp
from groundplan.core.errors import Denied
from groundplan.core.ids import new_id
from groundplan.gateway.batches.batch_calls import BatchCalls
from groundplan.gateway.caching import cache, cache_key
from groundplan.gateway.call import steps
from groundplan.gateway.call.attempts import prepare
from groundplan.gateway.call.attempts.upstream_request import encode_request
from groundplan.gateway.call.delivery.stream import BURST_BYTES, Streaming
from groundplan.gateway.guard import run
from groundplan.gateway.http import strict_json
from groundplan.gateway.offload import CHECKED_BYTES, READ_BYTES
from groundplan.gateway.surfaces import body as bodies
from groundplan.gateway.upstream.connection import UpstreamConnection
from groundplan.governance.guardrails.checks import Checks

GUARDED = {"assistant": {"guardrails": bp.Guardrails(input={"personal_data": "mask"}, budget_ms=60_000)}}
MASKED = ["input", "personal_data", "mask"]


class Held:
    """Stands in for a function, which it calls once somebody says so, if `is_long` is true of what it is given."""

    def __init__(self, work: Callable[..., Any], is_long: Callable[..., bool]) -> None:
        self._work, self._is_long = work, is_long
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, *given: Any, **named: Any) -> Any:
        if self._is_long(*given):
            self.begun.set()
            assert self.go.wait(20), "nobody else had a turn"
        return self._work(*given, **named)


def body_held(monkeypatch: pytest.MonkeyPatch) -> Held:
    held = Held(strict_json.check_complexity, lambda body: len(body) > READ_BYTES)
    monkeypatch.setattr(bodies, "check_complexity", held)
    return held


def text_held(monkeypatch: pytest.MonkeyPatch, size: int = CHECKED_BYTES) -> Held:
    monkeypatch.setattr(run, "CHECKED_BYTES", size)
    held = Held(Checks.find_hits, lambda _, text: len(text) > size)
    monkeypatch.setattr(Checks, "find_hits", lambda self, text, **more: held(self, text, **more))
    return held


async def others_are_answered(rig: Rig, held: Held, text: str, say: str = "short") -> dict[str, Any]:
    """What a long call is told at last; others are answered before, who are told what the model says then."""
    long = asyncio.create_task(rig.chat(messages=[{"role": "user", "content": text}], max_tokens=900))
    await wait_until(held.begun.is_set)
    rig.play("one", say=say)
    for _ in range(3):
        assert (await rig.chat(messages=[{"role": "user", "content": "short"}], max_tokens=20)).status == 200
    assert not long.done()
    held.go.set()
    reply = await long
    assert reply.status == 200, reply.body
    told: dict[str, Any] = reply.json["groundplan"]
    return told


async def test_guardrails_look_at_a_long_text_while_others_are_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = text_held(monkeypatch)
    async with call_rig(tmp_path, ("one",), workloads=GUARDED) as rig:
        told = await others_are_answered(rig, held, "ana@acme.example " * 2000)
        assert [[each[name] for name in ("place", "check", "done")] for each in told["guardrails"]] == [MASKED]
        request = rig.models["one"].last
        assert request is not None and b"ana@" not in request.body and b"<email_1>" in request.body
        await rig.books()


async def test_a_long_body_is_read_while_others_are_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = body_held(monkeypatch)
    async with call_rig(tmp_path, ("one",)) as rig:
        await others_are_answered(rig, held, "word " * 150_000)
        await rig.books()


@pytest.mark.parametrize("done", ["mask", "block"])
async def test_a_long_line_of_a_batch_is_looked_at_while_others_are_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, done: str
) -> None:
    held = text_held(monkeypatch)
    rules = bp.Guardrails(input={"personal_data": done}, budget_ms=60_000)
    async with call_rig(tmp_path, ("one",), workloads={"assistant": {"guardrails": rules}}) as rig:
        (key,) = rig.gateway.live.policy.keys.values()
        calls, batch = BatchCalls(rig.gateway), batch_of(rig, key.id)
        body = body_of(rig, messages=[{"role": "user", "content": "ana@acme.example " * 2000}])
        line = calls.exchange(batch, new_id(), body)
        assessing = asyncio.create_task(calls.assess_off_loop(line, batch))
        await wait_until(held.begun.is_set)
        assert (await rig.chat(messages=[{"role": "user", "content": "short"}], max_tokens=20)).status == 200
        assert not assessing.done()
        held.go.set()
        if done == "block":
            with pytest.raises(Denied, match="personal data"):
                await assessing
        else:
            assert await assessing and b"<email_1>" in line.request.body
        await rig.books()


async def test_guardrails_look_at_a_long_answer_while_others_are_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = text_held(monkeypatch, 1000)
    rules = bp.Guardrails(output={"personal_data": "mask"}, budget_ms=60_000)
    async with call_rig(tmp_path, ("one",), workloads={"assistant": {"guardrails": rules}}) as rig:
        rig.play("one", say=("ana@acme.example " + "x" * 100 + " ") * 100)
        told = await others_are_answered(rig, held, "tell me all")
        assert [[each[name] for name in ("place", "check")] for each in told["guardrails"]] == [["output", MASKED[1]]]
        await rig.books()


async def test_a_long_body_is_made_what_its_upstream_takes_while_others_are_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(encode_request, lambda exchange, *_: exchange.ask.size > READ_BYTES)
    monkeypatch.setattr(prepare, "encode_request", held)
    async with call_rig(tmp_path, ("one",)) as rig:
        await others_are_answered(rig, held, "word " * 150_000)
        await rig.books()


async def test_a_long_body_is_compared_while_others_are_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(cache_key.body_digest, lambda exchange, _: len(exchange.request.body) > READ_BYTES)
    monkeypatch.setattr(cache_key, "body_digest", held)
    rules = {"assistant": {"cache": bp.Cache(seconds=60, max_bytes=1 << 20, scope="workload")}}
    async with call_rig(tmp_path, ("one",), workloads=rules) as rig:
        await others_are_answered(rig, held, "word " * 150_000)
        again = await rig.chat(messages=[{"role": "user", "content": "word " * 150_000}], max_tokens=900)
        assert again.json["groundplan"]["cache"] == "exact"
        await rig.books()


class Seen:
    """A relay that passes events on, and who had a turn between."""

    usage, done, complete, output_bytes = None, False, False, 0

    def __init__(self) -> None:
        self.turns = 0
        self.at: list[int] = []

    def feed(self, data: bytes) -> bytes:
        self.at.append(self.turns)
        return data + b"\n"

    def closing_events(self, facts: bytes) -> bytes:
        return facts

    def error_event(self, reason: str, call_id: str) -> bytes:
        return f"{reason}{call_id}".encode()


@pytest.mark.parametrize("size", [200, 40_000])
async def test_others_have_a_turn_while_a_burst_of_events_is_looked_at(size: int) -> None:
    """A proxy in front of a model may give all of its answer at once."""
    seen = Seen()
    place = deployment("one", 1)
    stream = Streaming(cast(UpstreamConnection, None), place, seen)
    events = [b"%d%b" % (number, b"x" * size) for number in range(600_000 // size)]

    async def others() -> None:
        while True:
            seen.turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    out = await stream._feed_in_parts(b"".join(b"data: %b\n\n" % each for each in events))
    beside.cancel()
    assert out == b"".join(each + b"\n" for each in events)
    most = max(seen.at.count(turn) for turn in set(seen.at))
    assert most <= BURST_BYTES // size + 1 and len(set(seen.at)) >= 10


async def test_whoever_leaves_while_it_is_looked_at_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = body_held(monkeypatch)
    async with call_rig(tmp_path, ("one",)) as rig:
        long = asyncio.create_task(rig.chat(messages=[{"role": "user", "content": "word " * 150_000}], max_tokens=20))
        await wait_until(held.begun.is_set)
        long.cancel()
        await wait_until(lambda: not rig.gateway.running_calls)
        held.go.set()
        assert (await rig.chat(messages=[{"role": "user", "content": "short"}], max_tokens=20)).status == 200
        assert rig.models["one"].counted == 1
        await rig.books()


@pytest.mark.parametrize("where", ["read", "compared"])
async def test_the_wait_for_a_thread_is_part_of_a_calls_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """There are few threads, and other long bodies may be before it."""

    async def wait_first(work: Callable[[], Any], *, checks: bool = False) -> Any:
        await asyncio.sleep(0.35)
        return work()

    monkeypatch.setattr(steps if where == "read" else cache_key, "in_thread", wait_first)
    monkeypatch.setattr(steps, "READ_BYTES", 0 if where == "read" else READ_BYTES)
    monkeypatch.setattr(cache, "is_long", lambda _: where == "compared")
    kept = bp.Cache(seconds=60, max_bytes=1 << 20, scope="workload")
    async with call_rig(tmp_path, ("one",), workloads={"assistant": {"deadline_ms": 300, "cache": kept}}) as rig:
        reply = await rig.chat()
        assert reply.code == "upstream_failed" and b"its deadline was over" in reply.body
        assert rig.models["one"].counted == 0
        await rig.books()
