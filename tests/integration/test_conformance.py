"""Every answer of every route, whole, in pages, lines and streams, and every error, is of the types of pinned official
clients, strictly: of OpenAI's, Anthropic's and (rerank) Cohere's. On one real worker, with nothing left out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.integration.gateway_stack import Reply, blueprint, deployment, installation, scripted_upstream, workload
from tests.integration.held_answers import ROUTES, TypeCheckingClient, all_forms
from tests.integration.test_batches import BATCH_RATES, input_lines
from tests.integration.test_tasks import FORM, PRICES
from tests.unit.test_multipart import form
from websockets.asyncio.client import connect

from groundplan.blueprint.model import Keep, Rates
from groundplan.core.money import PICO
from groundplan.testing.database import Database
from groundplan.testing.scripted import Script, ScriptedModel

ASKED: Any = [{"role": "user", "content": "Hello there"}]
LOOK = {"name": "look", "description": "Look", "parameters": {"type": "object", "properties": {}}}
PLACES: dict[str, dict[str, Any]] = {
    **PRICES,
    "chat": {"rates": BATCH_RATES},
    "vectors": {"kind": "embeddings"},
    "talker": {"kind": "realtime", "rates": Rates(input=0, output=10 * PICO), "max_output_tokens": 100},
}
FORMS = {
    "POST /v1/images/edits", "POST /v1/images/variations", "POST /v1/audio/transcriptions",
    "POST /v1/audio/translations", "POST /v1/files", "POST /v1/files for Anthropic", "POST /v1/uploads/ID/parts",
}  # fmt: skip
IMAGE, SOUND = ("image", b"\x89PNG", "a.png"), ("file", bytes(96_000), "a.wav")


@dataclass
class World:
    holding: TypeCheckingClient
    model: ScriptedModel

    async def ask(self, route: str, body: Any = None, **more: Any) -> Reply:
        return await self.holding.ask(route, body, **more)

    async def until(self, route: str, id: str, name: str, value: str) -> Any:
        """The JSON of a route, once a field of it has that value."""
        async with asyncio.timeout(60):
            while (told := (await self.ask(route, id=id)).json)[name] != value:  # noqa: ASYNC110 -- has no event
                await asyncio.sleep(0.1)
        return told


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> AsyncIterator[World]:
    async with scripted_upstream("all") as (model, port), installation(database, tmp_path) as stack:
        places = [deployment(name, port, **more) for name, more in PLACES.items()]
        others = [place.name for place in places if place.kind not in ("chat", "embeddings")]
        keep = Keep(content="full", seconds=3600)
        made = workload("assistant", ["chat"], embeddings=["vectors"], also=others, keep=keep)
        stack.apply(blueprint(1, places, [made], limit=100 * PICO))
        stack.start()
        await stack.wait_until_ready()
        yield World(TypeCheckingClient(stack, stack.key()), model)


async def texts(world: World) -> None:
    """Chat, completions, embeddings, moderations, rerank."""
    tools = [{"type": "function", "function": LOOK}]
    for more in ({}, {"n": 2}, {"tools": tools}, {"logprobs": True}):
        await world.ask("POST /v1/chat/completions", {"model": "auto", "messages": ASKED, **more})
        for usage in ({}, {"stream_options": {"include_usage": True}}):
            streamed = {"model": "auto", "messages": ASKED, "stream": True, **usage, **more}
            await world.ask("POST /v1/chat/completions", streamed)
    asked = {"model": "auto", "messages": ASKED, "store": True}
    kept = (await world.ask("POST /v1/chat/completions", asked)).json["id"]
    await world.ask("GET /v1/chat/completions")
    await world.ask("GET /v1/chat/completions/ID", id=kept)
    await world.ask("POST /v1/chat/completions/ID", {"metadata": {"topic": "a"}}, id=kept)
    listed = (await world.ask("GET /v1/chat/completions/ID/messages", id=kept)).json
    assert [each["role"] for each in listed["data"]] == [each["role"] for each in ASKED]
    await world.ask("DELETE /v1/chat/completions/ID", id=kept)
    for stream in (False, True):
        body = {"model": "auto", "prompt": "Where is it?", "stream": stream}
        await world.ask("POST /v1/completions", body)
    await world.ask("POST /v1/embeddings", {"model": "auto", "input": ["a", "b"], "encoding_format": "float"})
    await world.ask("POST /v1/moderations", {"model": "judge", "input": ["hello", "attack at dawn"]})
    documents = ["how to bake bread", "the opening hours"]
    for more in ({}, {"return_documents": True, "top_n": 1}):
        await world.ask("POST /v1/rerank", {"model": "sorter", "query": "hours", "documents": documents, **more})
    await world.ask("POST /v2/rerank", {"model": "sorter", "query": "hours", "documents": documents})


async def media(world: World) -> None:
    """Images and sound."""
    prompt = ("prompt", b"a house", None)
    for stream in (False, True):
        more: dict[str, Any] = {"stream": True, "partial_images": 2} if stream else {"n": 2}
        await world.ask("POST /v1/images/generations", {"model": "token-painter", "prompt": "a house", **more})
        told = (("stream", b"true", None), ("partial_images", b"2", None)) if stream else ()
        edit = form(("model", b"token-painter", None), prompt, *told, IMAGE)
        await world.ask("POST /v1/images/edits", edit, content_type=FORM)
        hear = form(("model", b"scribe", None), *told[:1], SOUND)
        await world.ask("POST /v1/audio/transcriptions", hear, content_type=FORM)
    flat = form(("model", b"painter", None), ("size", b"1024x1024", None), IMAGE)
    await world.ask("POST /v1/images/variations", flat, content_type=FORM)
    heard = form(("model", b"ear", None), SOUND)
    await world.ask("POST /v1/audio/transcriptions", heard, content_type=FORM)
    await world.ask("POST /v1/audio/translations", heard, content_type=FORM)
    reply = await world.ask("POST /v1/audio/speech", {"model": "voice", "input": "hello", "voice": "alloy"})
    assert reply.headers["content-type"] == "audio/mpeg" and reply.body


async def responses(world: World) -> None:
    """Made, streamed, stored, listed, deleted."""
    look = {"type": "function", "strict": False, **LOOK}
    for more in ({}, {"tools": [look]}, {"instructions": "Be brief.", "metadata": {"a": "b"}}):
        for stream in (False, True):
            await world.ask("POST /v1/responses", {"model": "auto", "input": "Where?", "stream": stream, **more})
    items = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Where?"}]},
        {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "here"},
    ]
    kept = (await world.ask("POST /v1/responses", {"model": "auto", "input": items, "tools": [look]})).json["id"]
    await world.ask("POST /v1/responses/input_tokens", {"input": items, "tools": [look]})
    await world.ask("GET /v1/responses/ID", id=kept)
    listed = (await world.ask("GET /v1/responses/ID/input_items", id=kept)).json
    assert len(listed["data"]) == len(items) and listed["has_more"] is False
    await world.ask("POST /v1/responses/ID/cancel", id=kept, status=409)
    assert (await world.ask("DELETE /v1/responses/ID", id=kept)).json["deleted"] is True
    await world.ask("GET /v1/responses/ID", id=kept, status=404)
    for stream in (False, True):
        behind = {"model": "auto", "input": "Where?", "background": True, "stream": stream}
        reply = await world.ask("POST /v1/responses", behind)
    made = json.loads(reply.body.partition(b"data: ")[2].partition(b"\n")[0])["response"]["id"]
    await world.until("GET /v1/responses/ID", made, "status", "completed")
    await world.ask("GET /v1/responses/ID", id=f"{made}?stream=true")
    assert (await world.ask("POST /v1/responses/ID/cancel", id=made)).json["status"] == "completed"


async def messages(world: World) -> None:
    """Anthropic's, with message batches."""
    asked = {"model": "auto", "max_tokens": 20, "messages": ASKED}
    tool = {"name": "look", "description": "Look", "input_schema": {"type": "object", "properties": {}}}
    for more in ({}, {"tools": [tool]}):
        for stream in (False, True):
            await world.ask("POST /v1/messages", {**asked, "stream": stream, **more})
    await world.ask("POST /v1/messages/count_tokens", {"model": "auto", "messages": ASKED})
    listed = (await world.ask("GET /v1/models for Anthropic")).json["data"]
    await world.ask("GET /v1/models/ID for Anthropic", id=listed[0]["id"])
    order = {"requests": [{"custom_id": f"c{n}", "params": asked} for n in range(3)]}
    made, other = [(await world.ask("POST /v1/messages/batches", order)).json["id"] for _ in range(2)]
    await world.ask("POST /v1/messages/batches/ID/cancel", id=other)
    for id in (made, other):
        await world.until("GET /v1/messages/batches/ID", id, "processing_status", "ended")
    await world.ask("GET /v1/messages/batches")
    results = await world.ask("GET /v1/messages/batches/ID/results", id=made)
    assert len(results.body.splitlines()) == 3
    await world.ask("DELETE /v1/messages/batches/ID", id=made)


async def files(world: World) -> None:
    """Models, files and batches."""
    names = [model["id"] for model in (await world.ask("GET /v1/models")).json["data"]]
    assert {"auto", "scripted/chat"} <= set(names)
    await world.ask("GET /v1/models/ID", id="scripted/chat")
    upload = form(("purpose", b"batch", None), ("file", input_lines(3), "calls.jsonl"))
    file = (await world.ask("POST /v1/files", upload, content_type=FORM)).json["id"]
    order = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    world.model.script = Script(tokens=7, latency_ms=500)  # so that none has ended before it is cancelled
    made, other = [(await world.ask("POST /v1/batches", order)).json["id"] for _ in range(2)]
    await world.ask("POST /v1/batches/ID/cancel", id=other)
    world.model.script = Script(tokens=7)
    await world.until("GET /v1/batches/ID", other, "status", "cancelled")
    done = await world.until("GET /v1/batches/ID", made, "status", "completed")
    await world.ask("GET /v1/batches")
    await world.ask("GET /v1/files")
    await world.ask("GET /v1/files/ID", id=done["output_file_id"])
    results = await world.ask("GET /v1/files/ID/content", id=done["output_file_id"])
    assert len(results.body.splitlines()) == 3
    await world.ask("DELETE /v1/files/ID", id=file)
    announced = {"bytes": 8, "filename": "a.pdf", "mime_type": "application/pdf", "purpose": "user_data"}
    id, other = [(await world.ask("POST /v1/uploads", announced)).json["id"] for _ in range(2)]
    part = (
        await world.ask("POST /v1/uploads/ID/parts", form(("data", b"%PDF-1.4", "x")), id=id, content_type=FORM)
    ).json
    await world.ask("POST /v1/uploads/ID/complete", {"part_ids": [part["id"]]}, id=id)
    await world.ask("POST /v1/uploads/ID/cancel", id=other)
    upload = form(("file", b"%PDF-1.4", "a.pdf"))
    file = (await world.ask("POST /v1/files for Anthropic", upload, content_type=FORM)).json["id"]
    await world.ask("GET /v1/files for Anthropic")
    await world.ask("GET /v1/files/ID for Anthropic", id=file)
    await world.ask("DELETE /v1/files/ID for Anthropic", id=file)


async def conversations(world: World) -> None:
    """Every event of a server of realtime: of the session, of what is said to it, of responses, of an error."""
    route, stack = "GET /v1/realtime", world.holding.stack
    url = f"ws://127.0.0.1:{stack.port}/v1/realtime?model=talker"
    headers = {"Authorization": f"Bearer {world.holding.key}"}
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}
    sent: list[dict[str, Any]] = [
        {"type": "session.update", "session": {"type": "realtime", "instructions": "Be short."}},
        {"type": "conversation.item.create", "item": item},
        {"type": "response.create"},
        {"type": "session.update", "session": {"type": "realtime", "prompt": {"id": "pmpt_1"}}},
    ]
    found: set[str] = set()
    async with connect(url, additional_headers=headers, proxy=None) as socket, asyncio.timeout(60):
        for event in sent:
            await socket.send(json.dumps(event))
            ends = {"response.create": "response.done", "session.update": "session.updated"}.get(event["type"])
            ends = "error" if event is sent[-1] else ends
            while ends is not None and ends not in found:
                text = await socket.recv()
                world.holding.check_event(route, text)
                found.add(json.loads(text)["type"])
    assert found >= {
        "session.created", "session.updated", "conversation.item.added", "response.created",
        "response.output_text.delta", "response.done", "error",
    }  # fmt: skip


async def refusals(world: World) -> None:
    """A wrong key is refused in the shape of the API that it came by, whatever was asked."""
    for route in ROUTES:
        body: Any = {"model": "auto"} if route.startswith("POST") else None
        if route in FORMS:
            await world.ask(route, form(SOUND), key="gp_wrong", status=401, content_type=FORM)
        else:
            status = 400 if route == "GET /v1/realtime" else 401  # it is no WebSocket
            await world.ask(route, body, id="none", key="gp_wrong", status=status)
    large = {"model": "auto", "max_tokens": 5, "messages": ASKED, "metadata": {"user_id": "a" * (2 << 20)}}
    for route in ("POST /v1/messages", "POST /v1/chat/completions"):  # which is refused before it is read
        await world.ask(route, large, key="gp_wrong", status=401)


async def test_every_answer_of_every_route_is_of_an_official_type(world: World) -> None:
    world.model.script = Script(tokens=7)
    for part in (texts, media, responses, messages, files, conversations, refusals):
        await part(world)
    assert all_forms() - world.holding.checked_forms == set()
