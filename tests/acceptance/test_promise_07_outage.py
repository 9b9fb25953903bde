"""Promise 7: a provider outage is invisible where the workload declares a fallback, also in the middle of a stream.

Real worker processes on a real database; the provider goes down, fails, stalls and is cut while calls are under way.
The second test runs a complete installation whose provider is killed and comes back. Scheduled drills are not covered.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from groundplan.blueprint.model import Reliability
from groundplan.ledger.model import Reservation, Settlement
from groundplan.testing.database import Database
from groundplan.testing.journal import read_segment
from groundplan.testing.scripted import Script, ScriptedModel
from tests.acceptance.field_world import FieldInstallation, run_field_installation
from tests.acceptance.stack import wait_until
from tests.integration.gateway_stack import (
    Stack,
    blueprint,
    deployment,
    installation,
    parse_events,
    scripted_upstream,
    workload,
)

WORDS = " ".join(f"word{n}" for n in range(20))
FAULTS = (
    Script(mode="down"),
    Script(mode="error", status=503),
    Script(mode="error", status=429, retry_after="1"),
    Script(mode="cut", chunk_ms=4),
    Script(mode="malformed", chunk_ms=4),
    Script(mode="no_finish", chunk_ms=4),
    Script(mode="stall_late", chunk_ms=4),
    Script(mode="stall"),
    Script(mode="ok", chunk_ms=4),
)


async def checked_call(stack: Stack, key: str, stream: bool) -> None:
    reply = await stack.chat(key, WORDS, stream=stream, max_tokens=60)
    assert reply.status == 200, reply.body
    if not stream:
        assert reply.json["choices"][0]["message"]["content"] == f"You asked: {WORDS}"
        return
    chunks = [event for event in parse_events(reply.body) if event != "[DONE]"]
    assert not any("error" in chunk for chunk in chunks), reply.body
    text = "".join(c["delta"].get("content") or "" for chunk in chunks for c in chunk["choices"])
    assert text == f"You asked: {WORDS}"
    assert len({chunk["id"] for chunk in chunks}) == 1


async def inject_outages(model: ScriptedModel, stop: asyncio.Event, chance: random.Random) -> None:
    while not stop.is_set():
        model.script = chance.choice(FAULTS)
        await asyncio.sleep(chance.uniform(0.05, 0.3))


async def test_an_outage_at_any_moment_is_invisible(database: Database, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"first_token_ms": 600, "idle_ms": 400}
    async with scripted_upstream("one") as (one, port_one), scripted_upstream("two") as (two, port_two):
        async with installation(database, tmp_path) as stack:
            deployments = [deployment("one", port_one, **settings), deployment("two", port_two)]
            resuming = workload("assistant", ["one", "two"], reliability=Reliability(on_broken_stream="resume"))
            stack.apply(blueprint(1, deployments, [resuming]))
            stack.start(2)
            await stack.wait_until_ready()
            key, stop, chance = stack.key(), asyncio.Event(), random.Random(7)
            two.script = Script(chunk_ms=2)
            outages_task = asyncio.ensure_future(inject_outages(one, stop, chance))
            end = time.monotonic() + 60
            for done in itertools.count(1):
                await asyncio.gather(*(checked_call(stack, key, stream=n % 3 != 0) for n in range(10)))
                if done >= 12 and (has_resumed_stream(journal_records(stack)) or time.monotonic() > end):
                    break
            stop.set()
            await outages_task
            assert one.counted and two.counted > 10, "both upstreams were asked"
            check_journals(stack, one.counted + two.counted)


def check_journals(stack: Stack, counted: int) -> None:
    """Stop the workers; every attempt that an upstream counted must be in a journal, with exactly one settlement."""
    stack.stop()
    records = journal_records(stack)
    reserved = Counter((r.call, r.attempt) for r in records if isinstance(r, Reservation))
    settlements = [r for r in records if isinstance(r, Settlement)]
    assert reserved == Counter((r.call, r.attempt) for r in settlements)
    assert len(reserved) >= counted and max(reserved.values()) == 1
    assert has_resumed_stream(records), "a stream was resumed at the other deployment"


def journal_records(stack: Stack) -> list[Any]:
    """The records in the journals of all workers."""
    return [entry.record for path in sorted(stack.home.journal.glob("*/*.seg")) for entry in read_segment(path)[0]]


def has_resumed_stream(records: list[Any]) -> bool:
    return any(isinstance(r, Settlement) and "resumed" in r.flags and r.outcome == "ok" for r in records)


def test_no_call_fails_while_a_provider_is_killed_away_or_back(tmp_path: Path) -> None:
    with run_field_installation(tmp_path) as field:
        for upstream in (field.one, field.two):
            upstream.control(chunk_ms=20)
        key, stop, problems, phase = field.key("safe"), threading.Event(), list[str](), ["before"]
        done: Counter[str] = Counter()

        def send(number: int) -> None:
            while not stop.is_set():
                during = phase[0]
                problem = call_problem(field, key, stream=number % 2 == 0)
                done[during] += 1
                if problem:
                    problems.append(f"{during}: {problem}")

        senders = [threading.Thread(target=send, args=(number,)) for number in range(8)]
        for sender in senders:
            sender.start()
        try:
            wait_until(lambda: done["before"] > 40, 60, "calls are served before")
            phase[0] = "away"
            field.one.stop()
            wait_until(lambda: done["away"] > 80, 60, "calls are served while it is away")
            phase[0], asked = "back", len(field.one.counted())
            field.one.start()
            field.one.control(chunk_ms=20)
            wait_until(lambda: len(field.one.counted()) > asked + 40, 60, "the provider is asked again")
        finally:
            stop.set()
            for sender in senders:
                sender.join()
        assert not problems, problems
        wait_until(field.all_attempts_settled, 60, "every attempt that a provider counted is in the ledger")
        resumed = field.sql("SELECT count(*) n FROM attempt WHERE 'resumed' = ANY(flags) AND outcome = 'ok'")
        assert resumed[0]["n"] > 0, "streams that were cut in the middle were resumed at the other deployment"
        failed_calls = field.sql("SELECT status, http_status, error_code FROM call WHERE status <> 'ok'")
        assert not failed_calls, failed_calls


def call_problem(field: FieldInstallation, key: str, stream: bool) -> str:
    """Make one call; returns what is wrong with its answer, or an empty string."""
    body = {"model": "auto", "messages": [{"role": "user", "content": WORDS}], "max_tokens": 60, "stream": stream}
    answer = field.post(key, "/v1/chat/completions", body)
    time.sleep(0.01)
    if answer.status != 200:
        return f"{answer.status} {answer.body}"
    if not stream:
        text = answer.body["choices"][0]["message"]["content"]
    else:
        chunks = [json.loads(line[6:]) for line in answer.body.decode().split("\n") if line.startswith("data: {")]
        text = "".join(c["delta"].get("content") or "" for chunk in chunks for c in chunk.get("choices", ()))
        if b"data: [DONE]" not in answer.body:
            return f"no end: {answer.body[-300:]!r}"
    return "" if text == f"You asked: {WORDS}" else text
