"""The texts that a workload adds to each prompt, its own and the passages that may be found, are part of what is
reserved: a hard budget has no room for a call that fits only without them."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.integration.gateway_stack import Reply, parse_reply
from tests.unit.call_rig import Rig, call_rig

from groundplan.blueprint.model import Grounding, Rates
from groundplan.core.money import PICO, from_decimal
from groundplan.ledger.model import Reservation

PROMPT = "Answer briefly, and in the language of the question. " * 40
TOKEN = PICO // 1_000_000
"""The price of an input token, in picodollars."""
PRICED = {"one": {"rates": Rates(input=PICO, output=10 * PICO)}}
BODIES: dict[str, dict[str, Any]] = {
    "chat/completions": {"messages": [{"role": "user", "content": "a b c d"}], "max_tokens": 20},
    "responses": {"input": "a b c d", "max_output_tokens": 20},
    "completions": {"prompt": "a b c d", "max_tokens": 20},
    "messages": {"messages": [{"role": "user", "content": "a b c d"}], "max_tokens": 20},
}


async def post(rig: Rig, path: str, headers: str = "") -> Reply:
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    body = json.dumps({"model": "auto", **BODIES[path]}).encode()
    head = f"POST /v1/{path} HTTP/1.1\r\nhost: g\r\nauthorization: Bearer assistant\r\nconnection: close\r\n{headers}"
    writer.write(head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body)
    try:
        return parse_reply(await asyncio.wait_for(reader.read(), 20))
    finally:
        writer.close()


async def reserved(rig: Rig, path: str) -> int:
    """Picodollars that were reserved for one such call."""
    reply = await post(rig, path)
    assert reply.status == 200, reply.body
    (made,) = [record for record in await rig.records() if isinstance(record, Reservation)]
    return made.bound


@pytest.mark.parametrize("path", BODIES)
async def test_the_prompt_of_a_workload_is_reserved_with_each_call(tmp_path: Path, path: str) -> None:
    found = []
    for number, prompt in enumerate((None, PROMPT)):
        workloads = {"assistant": {"system_prompt": prompt}}
        async with call_rig(tmp_path / str(number), ["one"], more=PRICED, workloads=workloads) as rig:
            found.append(await reserved(rig, path))
    assert found[1] - found[0] >= len(PROMPT.encode()) * TOKEN


async def estimated(folder: Path, path: str, **settings: Any) -> int:
    async with call_rig(folder, ["one"], more=PRICED, workloads={"assistant": settings}) as rig:
        reply = await post(rig, path, "groundplan-estimate: 1\r\n")
        assert reply.status == 200, reply.body
        return from_decimal(Decimal(reply.json["most_usd"]))


@pytest.mark.parametrize("path", ["chat/completions", "responses", "messages"])
async def test_the_most_that_passages_may_add_is_reserved_with_each_call(tmp_path: Path, path: str) -> None:
    without = await estimated(tmp_path / "without", path)
    for size in (2000, 6000):
        grounding = Grounding(sources=["handbook"], max_bytes=size)
        found = await estimated(tmp_path / str(size), path, grounding=grounding)
        assert size * TOKEN <= found - without < 1.2 * size * TOKEN
