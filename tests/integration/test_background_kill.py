"""Responses in the background while workers are killed and PostgreSQL lets go of everybody: none is sent twice, each
comes to an end, every attempt is in one row, and nothing is held for ever."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import psycopg
import pytest
from tests.integration.gateway_stack import Reply, Stack, blueprint, deployment, installation, workload
from tests.integration.test_background import KEEP, OVER
from tests.integration.test_batch_kill import UNRECOVERED, run_shipper
from tests.integration.test_responses import RATES

from groundplan.blueprint.model import Limit
from groundplan.gateway.http.errors import refusal_body
from groundplan.gateway.http.server import Request, Response, Server
from groundplan.testing.database import Database

OPEN = "SELECT id, status FROM background_response WHERE status IN ('queued', 'in_progress')"
COUNT = 16
SLOTS = Limit(name="slots", covers="workload/keeper", type="concurrent", amount=4, period="now")


@dataclass
class Asked:
    """A chat that says ten words in half a second, and counts how often it was asked what."""

    times: Counter[str] = field(default_factory=Counter)

    async def handle(self, request: Request, response: Response) -> None:
        self.times[json.loads(request.body)["messages"][-1]["content"]] += 1
        head = response.start(200, b"content-type: text/event-stream\r\n")
        chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        for number in range(10):
            choice = {"index": 0, "delta": {"content": "word "}, "finish_reason": "stop" if number == 9 else None}
            response.write(b"data: %b\n\n" % json.dumps({**chunk, "choices": [choice]}).encode(), head)
            head = b""
            await asyncio.sleep(0.05)
        usage = {"prompt_tokens": 3, "completion_tokens": 10, "total_tokens": 13}
        response.write(b"data: %b\n\n" % json.dumps({**chunk, "choices": [], "usage": usage}).encode())
        response.end(b"data: [DONE]\n\n")


async def ask_if_served(stack: Stack, method: str, path: str, key: str, body: bytes = b"") -> Reply | None:
    """None where no worker answers, or none can reach PostgreSQL."""
    try:
        reply = await stack.ask(method, path, key, body)
    except (OSError, ValueError, IndexError, TimeoutError):
        return None
    return None if reply.status in (0, 401, 503) else reply  # a worker that has just begun knows no key yet


async def ask(stack: Stack, key: str, dice: random.Random, number: int) -> str:
    """Ask for one until it is acknowledged, and cancel each fourth, and follow each fourth; its id."""
    reply: Reply | None = None
    for again in range(1000):
        await asyncio.sleep(dice.uniform(0, 0.4))
        asked = {"model": "auto", "input": f"q{number}-{again}", "background": True, "max_output_tokens": 50}
        reply = await ask_if_served(stack, "POST", "/v1/responses", key, json.dumps(asked).encode())
        if reply is not None:
            break
    assert reply is not None and reply.status == 200, reply
    id = str(reply.json["id"])
    if number % 4 == 0:
        await asyncio.sleep(dice.uniform(0, 1))
        await ask_if_served(stack, "POST", f"/v1/responses/{id}/cancel", key)
    elif number % 4 == 1:
        await ask_if_served(stack, "GET", f"/v1/responses/{id}?stream=true", key)
    return id


async def end_of(stack: Stack, key: str, id: str) -> str:
    """What one came to, as its caller is told."""
    while True:
        reply = await ask_if_served(stack, "GET", f"/v1/responses/{id}", key)
        if reply is not None and reply.json["status"] in OVER:
            break
        await asyncio.sleep(0.2)
    if reply.json["status"] == "failed":
        assert reply.json["groundplan"]["code"] == "background_interrupted", reply.body
    return str(reply.json["status"])


async def chaos(
    database: Database, folder: Path, dice: random.Random, harms: list[Callable[[Stack], None]], *, rounds: int = 4
) -> Counter[str]:
    """Ask, cancel and follow, beside `harms` that are done to it, and look at what came of it; how often each end."""
    upstream, loop = Asked(), asyncio.get_running_loop()
    async with AsyncExitStack() as opened:
        server = Server(upstream.handle, refusal_body, loop)
        listener = await loop.create_server(server.create_connection, "127.0.0.1", 0)
        opened.push_async_callback(server.drain, 0.2)
        opened.callback(listener.close)
        stack = await opened.enter_async_context(installation(database, folder))
        await opened.enter_async_context(run_shipper(stack))
        place = deployment("one", listener.sockets[0].getsockname()[1], rates=RATES, billing_on_cancel="generated")
        made = blueprint(1, [place], [workload("keeper", ["one"], keep=KEEP, attempts=1)])
        stack.apply(msgspec.structs.replace(made, limits=[SLOTS]))
        stack.start(2)
        await stack.wait_until_ready()
        key = stack.key("keeper")
        async with asyncio.timeout(120), asyncio.TaskGroup() as group:
            asking = [group.create_task(ask(stack, key, dice, number)) for number in range(COUNT)]
            for _ in range(rounds):
                await asyncio.sleep(dice.uniform(0.1, 0.7))
                dice.choice(harms)(stack)
        async with asyncio.timeout(120):
            ends = Counter([await end_of(stack, key, each.result()) for each in asking])
            while stack.sql(OPEN):  # noqa: ASYNC110 -- also of those whose acknowledgement was lost
                await asyncio.sleep(0.2)
        await asyncio.to_thread(stack.stop)
        async with asyncio.timeout(60):
            while stack.sql(UNRECOVERED):  # noqa: ASYNC110 -- what is waited for has no event
                await asyncio.sleep(0.2)
        check(stack, upstream.times)
        return ends


def check(stack: Stack, times: Counter[str]) -> None:
    assert not [text for text, count in times.items() if count > 1], "sent twice"
    assert stack.sql(OPEN) == []
    ((attempts, crashed, spent),) = stack.sql(
        "SELECT count(*), count(*) FILTER (WHERE state = 'crashed'), coalesce(sum(cost_usd), 0) FROM attempt"
    )
    assert times.total() <= attempts <= times.total() + crashed, (times, attempts, crashed)
    assert stack.sql("SELECT a.call_id FROM attempt a LEFT JOIN call c ON c.id = a.call_id WHERE c.id IS NULL") == []
    ((granted,),) = stack.sql("SELECT granted_usd FROM budget_period WHERE budget = 'all'")
    assert granted == spent, "money is held for nothing, or was spent twice"


def kill_one(dice: random.Random) -> Callable[[Stack], None]:
    def kill(stack: Stack) -> None:
        victim = dice.randrange(len(stack.workers))
        stack.workers[victim].kill()
        stack.workers.pop(victim).wait()
        stack.start(1)

    return kill


def let_go(stack: Stack) -> None:
    """PostgreSQL ends every session of the gateways, whatever they are at."""
    with psycopg.connect(stack.database.superuser, autocommit=True) as conn:
        conn.execute(
            """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid()"""
        )


@pytest.mark.parametrize("seed", [1])
async def test_no_response_is_sent_twice_and_each_ends_despite_kills(
    database: Database, tmp_path: Path, seed: int
) -> None:
    dice = random.Random(seed)
    ends = await chaos(database, tmp_path, dice, [kill_one(dice), kill_one(dice), let_go])
    assert ends["completed"] and ends.total() == COUNT, ends
