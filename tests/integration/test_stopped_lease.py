"""A call was admitted, and its worker stood still before it was sent: live policy is confirmed first, or nothing is
sent. Real processes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.integration.gateway_stack import GROUNDING, Stack
from tests.integration.test_stopped_worker import JSON_ANSWER, PhasedUpstream, gateway, pause_worker

from groundplan.core.endpoints import announce
from groundplan.core.ids import new_id
from groundplan.testing.database import Database


@asynccontextmanager
async def searching(stack: Stack, upstream: PhasedUpstream) -> AsyncIterator[None]:
    """A search service that says what `far` does."""
    server = await asyncio.start_server(upstream.answer, "127.0.0.1", 0)
    announce(stack.home, "search", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "token")
    yield
    server.close()
    for writer in upstream.writers:
        writer.close()


KILL = "INSERT INTO kill_switch (id, scope, reason, by) VALUES (%s, %s, 'test', 'operator')"
FOUND = b'{"passages":[]}'
SEARCHED = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(FOUND), FOUND)


@pytest.mark.parametrize("killed", [True, False])
async def test_nothing_is_sent_after_the_policy_lease_ran_out_during_admission(
    database: Database, tmp_path: Path, killed: bool
) -> None:
    """Of a workload without grace. What was stopped meanwhile stays stopped; without such a stop the lease is renewed,
    and nobody sees anything."""
    model, search = PhasedUpstream(JSON_ANSWER), PhasedUpstream(during_stop=(SEARCHED,))
    workload_settings = {"grounding": GROUNDING, "grace_ms": 0}
    async with gateway(database, tmp_path, model, workload=workload_settings) as (stack, _), searching(stack, search):
        key = stack.key("assistant", stack.person("ana@acme.example"))

        task = asyncio.ensure_future(stack.chat(key))
        await asyncio.wait(
            [task, asyncio.ensure_future(search.request_received.wait())], return_when=asyncio.FIRST_COMPLETED
        )
        assert not task.done(), task.result()
        await asyncio.sleep(0.05)

        def meanwhile() -> None:
            search.stopped.set()
            if killed:
                stack.policy("kill", "deployment/d0", KILL, new_id(), "deployment/d0")

        await pause_worker(stack, meanwhile, 2.0)
        reply = await task
        assert reply.status == (503 if killed else 200), reply.body
        assert model.counted == (0 if killed else 1)
