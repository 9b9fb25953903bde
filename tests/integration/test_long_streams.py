"""Streams that are longer than a drain: a stop ends them with an error event, a reload lets them last."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest
from tests.integration.gateway_stack import parse_events
from tests.integration.zero_downtime import Traffic, is_alive, open_stream, reload_workers, run_workers, wait_until

from groundplan.gateway.http.server import Response
from groundplan.testing import scripted as scripted_model
from groundplan.testing.database import Database
from groundplan.testing.scripted import Script
from groundplan.testing.scripted_stream import Frames


async def test_a_stream_that_outlives_the_drain_ends_with_an_error_event(database: Database, tmp_path: Path) -> None:
    async with run_workers(database, tmp_path, drain=3.0) as run:
        run.model.script = Script(chunk_ms=200, tokens=500)
        traffic = Traffic(run.listeners.public.getsockname()[1], run.stack.key())
        reader, writer = await asyncio.open_connection("127.0.0.1", traffic.port)
        before = run.model.counted
        asking = asyncio.create_task(traffic.ask(reader, writer, stream=True))
        await wait_until(lambda: run.model.counted > before)
        run.supervising.cancel()
        await asyncio.to_thread(run.supervisor.close)
        status, body, _ = await asking
        writer.close()
        assert status == 200
        said = parse_events(body)
        assert "stopped" in said[-1]["error"]["message"], said[-2:]


@pytest.mark.timeout(180)
async def test_a_stream_far_longer_than_the_drain_lasts_through_a_reload(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = asyncio.Event()

    async def until_over(response: Response, answer: Frames, mode: str, pause: float, at: int | None) -> None:
        head = response.start(200, b"content-type: text/event-stream\r\n")
        for part in answer.parts():
            response.write(part, head)
            head = b""
            with suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), pause)
        response.end(b"".join([*answer.ending(), answer.done()]))

    monkeypatch.setattr(scripted_model, "stream", until_over)
    async with run_workers(database, tmp_path, drain=3.0) as run:
        traffic, asking = await open_stream(run, 200, chunk_ms=1000, tokens=200)
        before = run.pids()
        reload_state = await reload_workers(run)
        assert reload_state["state"] == "done", (reload_state, run.notices)
        await asyncio.sleep(2 * 3.0)
        # new calls are the successors'; one of the old workers has the stream, the other one nothing to stay for
        await wait_until(lambda: sum(is_alive(pid) for pid in before.values()) == 1)
        run.model.script = Script()
        reader, writer = await asyncio.open_connection("127.0.0.1", traffic.port)
        assert (await traffic.ask(reader, writer, stream=False))[0] == 200
        writer.close()
        assert not asking.done()
        over.set()
        status, body, _ = await asking
        said = parse_events(body)
        assert status == 200 and said[-1] == "[DONE]" and b'"error"' not in body, said[-2:]
        assert len(said) > 200
        await wait_until(lambda: not any(is_alive(pid) for pid in before.values()))
