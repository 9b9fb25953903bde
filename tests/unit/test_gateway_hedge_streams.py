"""Two attempts of one stream at once, beside what else looks at streams: guardrails, and going on with a broken one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.call_rig import BOUND, Rig, call_rig, read_records, reliability, upstream, wait_until
from tests.unit.raw_upstream import ANSWER, DONE, END, HI, ROLE, STREAM_HEAD, chunk, encode_events, tcp_server
from tests.unit.test_gateway_resume_surfaces import SURFACES, TEXT

from groundplan.blueprint.model import Guardrails
from groundplan.gateway.call.attempts import race
from groundplan.gateway.guard.counts import GuardCounts
from groundplan.ledger.model import Settlement

HEDGE = {"after_ms": 40, "at_most": 1.0}
ENGLISH = "this is not the language that you and I have to use"
Steps = Sequence[bytes | asyncio.Event]


@dataclass
class Raw:
    """An upstream of bytes that waits where it is told to; after its last step it is silent, unless it `closes`."""

    steps: Steps
    closes: bool = False
    port: int = 0
    asked: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        for step in self.steps:
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
            else:
                await step.wait()
        if not self.closes:
            await self.over.wait()


@asynccontextmanager
async def raw(steps: Steps, *, closes: bool = False) -> AsyncIterator[Raw]:
    made = Raw(steps, closes)
    async with tcp_server(made.serve) as made.port:
        try:
            yield made
        finally:
            made.over.set()


def guarded(hedge: dict[str, Any] | None = HEDGE, **rules: Any) -> dict[str, dict[str, Any]]:
    return {"assistant": {**reliability(hedge=hedge), "guardrails": Guardrails(budget_ms=10_000, **rules)}}


# guardrails ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "said", "status"),
    [
        ({"output_languages": ["de"]}, ENGLISH, 403),
        ({"schema": '{"type": "object"}'}, '{"a": 1}', 200),
        ({"schema": '{"type": "object"}'}, "no object", 403),
    ],
)
async def test_checks_apply_to_the_winning_answer(
    tmp_path: Path, rules: dict[str, Any], said: str, status: int
) -> None:
    """Both stream when the first one goes on: what is judged is what it says, not the silence of the other one."""
    go = asyncio.Event()
    answer = (STREAM_HEAD, go, encode_events(ROLE, chunk({"content": said}), END, DONE))
    async with raw(answer, closes=True) as one, raw([STREAM_HEAD]) as two:
        at = {"one": one.port, "two": two.port}
        async with call_rig(tmp_path, workloads=guarded(**rules), ports=at) as rig:
            asked = asyncio.ensure_future(rig.stream(max_tokens=200))
            await wait_until(lambda: two.asked == 1)
            await asyncio.sleep(0.1)  # so that the head of its answer is read
            go.set()
            stream = await asked
            assert stream.status == status, stream.raw
            assert status == 403 or (stream.text, stream.done) == (said, True)
            await rig.books()


async def test_a_hedge_refused_by_a_check_is_no_deployment_failure(tmp_path: Path) -> None:
    go = asyncio.Event()
    refused = (STREAM_HEAD, encode_events(chunk({"role": "assistant", "content": "project falcon " * 20})))
    async with raw((STREAM_HEAD, go, encode_events(*ANSWER)), closes=True) as one, raw(refused) as two:
        at, rules = {"one": one.port, "two": two.port}, guarded(deny_output=["project falcon"], hold_bytes=16)
        async with call_rig(tmp_path, workloads=rules, ports=at) as rig:
            asked = asyncio.ensure_future(rig.stream(max_tokens=200))
            folder = rig.gateway.journal.folder
            rig.gateway.guard_counts = counts = GuardCounts("", rig.gateway.clock)
            await wait_until(lambda: any(isinstance(each, Settlement) for each in read_records(folder)))
            go.set()
            stream = await asked
            assert (stream.status, stream.text, stream.done) == (200, "Hi there", True)
            assert stream.facts["guardrails"] == [] and not counts.waiting, "of an answer that nobody got"
            assert "two" not in rig.gateway.health._windows, "its breaker counted an answer that was refused"
            await rig.books()


@pytest.mark.parametrize("before", [b"", encode_events(ROLE, HI)], ids=["nothing", "a part"])
async def test_comments_do_not_count_as_the_start_of_an_answer(tmp_path: Path, before: bytes) -> None:
    """An upstream that only keeps its connection open is given up, also where nothing leaves before the whole is
    there."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(STREAM_HEAD + before)
        while not writer.is_closing():
            await asyncio.sleep(0.05)
            writer.write(b": still here\n\n")

    short = {"one": {"first_token_ms": 300, "idle_ms": 300}}
    rules = guarded(None, output_languages=["en"])
    async with tcp_server(serve) as port, asyncio.timeout(10):
        async with call_rig(tmp_path, more=short, workloads=rules, ports={"one": port}) as rig:
            stream = await rig.stream()
            assert (stream.status, stream.facts["deployment"], stream.done) == (200, "two", True)
            assert [s.outcome for s in await rig.settlements()] == ["failed", "ok"]


async def test_held_back_text_counts_as_progress(tmp_path: Path) -> None:
    """Slow, but never silent for too long: nothing of it leaves before the whole is there."""
    steps: list[bytes | asyncio.Event] = [STREAM_HEAD, encode_events(ROLE)]
    waits = [asyncio.Event() for _ in range(6)]
    for wait in waits:
        steps += [wait, encode_events(chunk({"content": "word "}))]
    async with raw([*steps, encode_events(END, DONE)], closes=True) as one:
        slow = {"one": {"first_token_ms": 600, "idle_ms": 600}}
        rules = guarded(None, output_languages=["en"])
        async with call_rig(tmp_path, ["one"], more=slow, workloads=rules, ports={"one": one.port}) as rig:
            asked = asyncio.ensure_future(rig.stream())
            for wait in waits:
                await asyncio.sleep(0.2)
                wait.set()
            stream = await asked
            assert (stream.status, stream.text) == (200, "word " * 6)


# going on with a broken stream ---------------------------------------------------------------------------------------


@dataclass
class Gate:
    """A way to an upstream on which so many events of an answer pass, and the others once it is opened."""

    port: int = 0
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    opened: asyncio.Event = field(default_factory=asyncio.Event)


@asynccontextmanager
async def gate(port: int, passing: int) -> AsyncIterator[Gate]:
    made = Gate()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_connection("127.0.0.1", port)
        sending = asyncio.ensure_future(passed_on(reader, outer))
        try:
            passed, rest = 0, b""
            while data := await inner.read(65536):
                rest += data
                while not made.opened.is_set() and b"\n\n" in rest:
                    if passed == passing:
                        made.reached.set()
                        await made.opened.wait()
                        break
                    event, _, rest = rest.partition(b"\n\n")
                    writer.write(event + b"\n\n")
                    passed += 1
                if made.opened.is_set():
                    writer.write(rest)
                    rest = b""
        finally:
            sending.cancel()
            outer.close()

    async with tcp_server(serve) as made.port:
        yield made


async def passed_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)


@pytest.mark.parametrize(("kind", "begun"), [("responses", 3), ("messages", 2), ("completions", 0)])
async def test_a_stream_resumed_by_two_attempts_is_complete(tmp_path: Path, kind: str, begun: int) -> None:
    """The hedge begins while so many events of the rest have come from the first one, which then says it."""
    surface, names = SURFACES[kind], ("one", "two", "three")
    rules = {"assistant": reliability(on_broken_stream="resume", hedge={"after_ms": 200, "at_most": 1.0})}
    async with AsyncExitStack() as stack:
        models = {name: await stack.enter_async_context(upstream(name)) for name in names[1:]}
        gates = {
            name: await stack.enter_async_context(gate(models[name][2], passing))
            for name, passing in (("two", begun), ("three", min(1, begun)))
        }
        for model, _, _ in models.values():
            model.script.chunk_ms = 2
        more = {name: surface.settings for name in names}
        at = {name: each.port for name, each in gates.items()}
        rig: Rig = await stack.enter_async_context(call_rig(tmp_path, names, more=more, workloads=rules, ports=at))
        rig.play("one", mode="cut", at=surface.leading_events + 2, chunk_ms=3)
        asked = asyncio.ensure_future(surface.stream(rig))
        for each in gates.values():
            await asyncio.wait_for(each.reached.wait(), 20)
        await asyncio.sleep(0.1)
        gates["two"].opened.set()
        got = await asked
        assert got.status == 200 and surface.text(got) == TEXT
        surface.check_complete(got)
        assert got.facts["deployment"] == "two"
        found = sorted(await rig.settlements(), key=lambda s: s.attempt)
        assert [s.flags for s in found][1:] == [["resumed"], ["resumed", "hedge", "no_usage"]]
        await rig.books()


@pytest.mark.parametrize(("winner", "loser"), [("one", "two"), ("two", "one")])
async def test_a_broken_stream_may_be_resumed_by_the_loser_of_the_race(tmp_path: Path, winner: str, loser: str) -> None:
    """It did not fail, it was only not the first: where there are two deployments nobody else is left."""
    rules = {"assistant": reliability(on_broken_stream="resume", hedge=HEDGE)}
    async with call_rig(tmp_path, workloads=rules) as rig:
        gates = {name: rig.hold(name) for name in ("one", "two")}
        rig.play(winner, mode="cut", at=2, chunk_ms=3)
        asked = asyncio.ensure_future(rig.stream())
        await wait_until(lambda: rig.models["two"].counted == 1)
        gates[winner].release()
        await wait_until(lambda: rig.models[loser].counted == 2)
        for _ in range(2):  # one is for the first, which nobody reads any more
            gates[loser].release()
        stream = await asked
        assert (stream.text, stream.errors, stream.done) == ("You asked: a b c d", [], True), stream.raw
        assert stream.facts["deployment"] == loser
        found = sorted(await rig.settlements(), key=lambda s: s.attempt)
        assert sorted(s.outcome for s in found[:2]) == ["cancelled", "failed"] and found[2].outcome == "ok"
        await rig.books()


@pytest.mark.parametrize(("script", "flags"), [({"tokens": 20}, ["hedge"]), ({"mode": "cut"}, ["hedge", "no_usage"])])
async def test_a_drained_loser_keeps_its_bound_while_the_stream_is_resumed(
    tmp_path: Path, script: dict[str, Any], flags: list[str]
) -> None:
    """It was asked for the whole answer, of which the rest may cost less: it is not above its bound, nor charged
    less."""
    rules = {"assistant": reliability(on_broken_stream="resume", hedge=HEDGE)}
    more = {"two": {"billing_on_cancel": "drain"}}
    async with call_rig(tmp_path, ("one", "two"), more=more, workloads=rules) as rig:
        gates = {name: rig.hold(name) for name in ("one", "two")}
        rig.play("one", mode="cut", at=2, chunk_ms=3)
        rig.play("two", times=1, **script)
        asked = asyncio.ensure_future(rig.stream())
        await wait_until(lambda: rig.models["two"].counted == 1)
        gates["one"].release()
        await wait_until(lambda: rig.models["two"].counted == 2)
        gates["two"].release()
        await wait_until(lambda: not rig.gateway.background)
        gates["two"].release()
        stream = await asked
        assert stream.done and not stream.errors, stream.raw
        assert not rig.gateway.live.policy.kills, "the workload is stopped, as if a bound had been exceeded"
        loser = next(s for s in await rig.settlements() if s.attempt == 1)
        assert (loser.outcome, loser.cost, loser.flags) == ("cancelled", BOUND, flags)
        await rig.books()


async def test_a_broken_stream_is_not_resumed_by_the_attempt_that_failed(tmp_path: Path) -> None:
    rules = {"assistant": reliability(on_broken_stream="resume", hedge=HEDGE)}
    async with call_rig(tmp_path, workloads=rules) as rig:
        gate = rig.hold("one")
        rig.play("one", mode="cut", at=2, chunk_ms=3)
        rig.play("two", mode="error", status=503)
        asked = asyncio.ensure_future(rig.stream())
        await wait_until(lambda: "two" in rig.gateway.health._failures)
        gate.release()
        stream = await asked
        assert not stream.done and [error["code"] for error in stream.errors] == ["stream_broken"]
        assert rig.models["two"].counted == 1
        await rig.books()


async def test_a_hedge_started_as_its_client_disconnects_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit was asked for it meanwhile. It is journalled by then, and nobody else would settle it."""
    loop, go, ended = asyncio.get_running_loop(), asyncio.Event(), list[str]()

    async def second(*_: object) -> object:
        await go.wait()
        return SimpleNamespace(cancel=lambda: ended.append("hedge"))

    monkeypatch.setattr(race, "_begin_hedge", second)
    gateway: Any = SimpleNamespace(loop=loop)
    exchange: Any = SimpleNamespace(limit_use=object())
    first: Any = (loop.create_future(), None)
    call = loop.create_task(race._begin_hedge_while_waiting(gateway, exchange, [], first))
    for _ in range(3):
        await asyncio.sleep(0)
    go.set()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert ended == ["hedge"]
