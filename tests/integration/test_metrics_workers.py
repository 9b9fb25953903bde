"""One scrape of a real installation with two workers, also when one of them is killed."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from tests.integration.gateway_stack import Stack, blueprint, deployment, installation, scripted_upstream, workload
from tests.unit.test_metrics import parse_metrics, total

from groundplan.testing.database import Database


async def scraped(stack: Stack) -> bytes:
    return (await stack.ask("GET", "/metrics", None)).body


def workers(text: bytes) -> dict[str, float]:
    """Slot -> 1 where that worker answered."""
    return {
        dict(labels)["worker"]: value for labels, value in parse_metrics(text)["groundplan_gateway_worker_up"].items()
    }


async def test_one_address_tells_of_all_workers_and_names_the_one_that_is_gone(
    database: Database, tmp_path: Path
) -> None:
    async with scripted_upstream("one") as (_, port):
        async with installation(database, tmp_path) as stack:
            stack.apply(blueprint(1, [deployment("one", port)], [workload("assistant", ["one"])]))
            stack.start(2)
            await stack.wait_until_ready()
            key = stack.key()
            replies = await asyncio.gather(*(stack.chat(key, stream=number % 2 == 0) for number in range(20)))
            assert {reply.status for reply in replies} == {200}
            async with asyncio.timeout(30):  # one that is slow to answer is told as down
                while (up := workers(text := await scraped(stack))) != {"0": 1, "1": 1}:
                    assert set(up) == {"0", "1"}
            found = parse_metrics(text)
            assert {dict(labels)["worker"] for labels in found["groundplan_gateway_running"]} == {"0", "1"}
            assert total(found["groundplan_gateway_calls_total"], status="ok") == 20
            assert total(found["groundplan_gateway_streams"]) == 0
            spent = stack.sql("SELECT sum(granted_usd) FROM budget_slice")
            assert total(found["groundplan_gateway_cost_usd_total"]) > 0 and spent
            refused = await stack.ask("GET", "/metrics", None, x_forwarded_for="203.0.113.9")
            assert refused.status == 403 and refused.code == "metrics_denied"
            stack.workers[1].send_signal(signal.SIGKILL)
            stack.workers[1].wait()
            async with asyncio.timeout(30):
                while (up := workers(text := await scraped(stack))) != {"0": 1, "1": 0}:
                    assert set(up) == {"0", "1"} and not up["1"]
            found = parse_metrics(text)
            assert total(found["groundplan_gateway_calls_total"], status="ok") == 20, "what it told is not taken back"
            assert total(found["groundplan_gateway_call_duration_seconds_count"]) == 20
            assert key.encode() not in text
