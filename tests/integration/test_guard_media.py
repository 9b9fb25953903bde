"""Guardrails beyond text on a real gateway: what is spoken, heard, drawn and said in a conversation is looked at where
it can be, and refused by name where it cannot."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI, PermissionDeniedError
from tests.integration.gateway_stack import (
    RATES,
    Stack,
    blueprint,
    deployment,
    installation,
    scripted_upstream,
    workload,
)
from tests.integration.patient import RetryingOpenAIHttpClient
from tests.integration.test_realtime import close_code, read_until, send_message
from websockets.exceptions import InvalidStatus

from groundplan.blueprint.model import Cache, Guardrails, Review
from groundplan.testing.database import Database
from groundplan.testing.scripted import Script, ScriptedModel

EMAIL = "ana@acme.example"
SECRET = "sk-" + "proj-" + "abcdefghijklmnopqrstuvwx"
SOUND = ("call.wav", b"\0" * 3200, "audio/wav")
PLACES = ("talker", "voice", "ear", "brush")
IN = Guardrails(input={"personal_data": "mask", "secrets": "block"})
OUT = Guardrails(output={"secrets": "block", "personal_data": "mask"})
BOTH = Guardrails(input=IN.input, output=OUT.output, unchecked=["audio", "image"])
RULES: dict[str, dict[str, Any]] = {
    "inward": {"guardrails": IN},
    "outward": {"guardrails": OUT},
    "declared": {"guardrails": BOTH, "cache": Cache(seconds=3600, max_bytes=1 << 20, scope="workload")},
    "shadow": {"guardrails": Guardrails(input=IN.input, output=OUT.output, shadow=True)},
    "judged": {"guardrails": Guardrails(schema='{"type": "object"}')},
    "reviewed": {"review": Review()},
    "personal": {"guardrails": Guardrails(presidio_input="block")},
}


@dataclass
class World:
    stack: Stack
    model: ScriptedModel
    keys: dict[str, str]

    clients: dict[str, AsyncOpenAI]

    def client(self, name: str) -> AsyncOpenAI:
        return self.clients[name]

    @property
    def seen(self) -> str:
        assert self.model.last is not None
        return self.model.last.body.decode()


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> AsyncIterator[World]:
    async with scripted_upstream("all") as (model, port), installation(database, tmp_path) as stack:
        kinds = dict(zip(PLACES, ("realtime", "speech", "transcription", "images"), strict=True))
        free = {"rates": RATES.__class__(input=0, output=0, source="declared free")}
        places = [deployment(name, port, kind=kind, max_output_tokens=100, **free) for name, kind in kinds.items()]
        places.append(deployment("chat", port, accepts=["image"], image_tokens=10))
        stack.apply(
            blueprint(1, places, [workload(name, ["chat"], also=list(PLACES), **more) for name, more in RULES.items()])
        )
        stack.start()
        await stack.wait_until_ready()
        keys, at = {name: stack.key(name) for name in RULES}, f"127.0.0.1:{stack.port}/v1"
        async with AsyncExitStack() as opened:
            clients = {}
            for name, key in keys.items():
                made = AsyncOpenAI(
                    base_url=f"http://{at}",
                    websocket_base_url=f"ws://{at}",
                    api_key=key,
                    max_retries=0,
                    http_client=RetryingOpenAIHttpClient(),
                )
                clients[name] = await opened.enter_async_context(made)
            yield World(stack, model, keys, clients)


async def refused(awaited: Any) -> tuple[str, str]:
    """Code and message of a call that is refused."""
    with pytest.raises(PermissionDeniedError) as caught:
        await awaited
    body: Any = caught.value.body
    return str(body["code"]), str(body["message"])


async def test_what_is_spoken_heard_and_drawn(world: World) -> None:
    inward, outward, declared = (world.client(name) for name in ("inward", "outward", "declared"))
    voice: dict[str, Any] = {"model": "voice", "voice": "alloy"}
    sound = await inward.audio.speech.create(input=f"Write to {EMAIL}", **voice)
    assert sound.content and EMAIL not in world.seen and "<email_1>" in world.seen
    code, _ = await refused(inward.audio.speech.create(input=f"use {SECRET}", **voice))
    assert code == "guardrail_secrets"
    code, _ = await refused(outward.audio.speech.create(input=f"use {SECRET}", **voice))
    assert code == "guardrail_secrets", "what is spoken is an answer, too"
    await outward.audio.speech.create(input=f"Write to {EMAIL}", **voice)
    assert EMAIL not in world.seen
    code, told = await refused(world.client("judged").audio.speech.create(input="hello", **voice))
    assert code == "guardrail_unchecked" and "(audio)" in told

    prompt = f"a portrait of {EMAIL}"
    await inward.images.generate(model="brush", prompt=prompt)
    assert EMAIL not in world.seen and "<email_1>" in world.seen
    code, told = await refused(outward.images.generate(model="brush", prompt="a house"))
    assert code == "guardrail_unchecked"
    assert told.startswith("the answer has what no check of this workload can look at (image). Leave it out")
    code, told = await refused(inward.images.edit(model="brush", prompt="a house", image=b"x"))
    assert code == "guardrail_unchecked" and told.startswith("the request has what no check")
    assert (await declared.images.generate(model="brush", prompt="a house")).data
    code, _ = await refused(world.client("reviewed").images.generate(model="brush", prompt="a house"))
    assert code == "review_unsupported"
    assert (await world.client("shadow").images.generate(model="brush", prompt=prompt)).data

    code, _ = await refused(inward.audio.transcriptions.create(model="ear", file=SOUND))
    assert code == "guardrail_unchecked"
    seen = await declared.audio.transcriptions.create(model="ear", file=SOUND, prompt=f"for {EMAIL}")
    assert EMAIL not in seen.text
    code, _ = await refused(declared.audio.transcriptions.create(model="ear", file=SOUND, prompt=f"use {SECRET}"))
    assert code == "guardrail_secrets", "what is sent beside sound is looked at"
    for name in ("declared", "reviewed"):
        code, _ = await refused(world.client(name).audio.transcriptions.create(model="ear", file=SOUND, stream=True))
        assert code == "guardrail_unchecked"
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    question: Any = [{"role": "user", "content": [{"type": "text", "text": "what is this?"}, picture]}]
    code, _ = await refused(inward.chat.completions.create(model="chat", messages=question, max_tokens=20))
    assert code == "guardrail_unchecked"
    assert await declared.chat.completions.create(model="chat", messages=question, max_tokens=20)


async def test_a_guarded_answer_is_made_anew_and_a_replay_gives_what_was_checked(world: World) -> None:
    """Neither a cache nor an idempotent replay gets round the checks."""
    world.model.script = Script(say=f"ask {EMAIL} about it")
    before = world.model.counted
    for _ in range(2):
        reply = await world.stack.chat(world.keys["declared"], "who knows?")
        assert reply.status == 200 and EMAIL.encode() not in reply.body and reply.json["groundplan"]["cache"] == "none"
    assert world.model.counted == before + 2, "declared as cached, made anew all the same"
    first = await world.stack.chat(world.keys["declared"], "who?", headers={"idempotency-key": "once"})
    again = await world.stack.chat(world.keys["declared"], "who?", headers={"idempotency-key": "once"})
    assert again.headers["groundplan-replay"] == "true" and again.body == first.body
    assert EMAIL.encode() not in again.body


async def test_conversations_are_checked_both_ways(world: World) -> None:
    model = "talker"
    async with world.client("inward").realtime.connect(model=model) as talk:
        await send_message(talk, f"I am {EMAIL}")
        text, _ = await read_until(talk)
        assert text == f"You said: I am {EMAIL}", "the model saw a stand-in, the caller gets the value back"
        await send_message(talk, f"use {SECRET}")
        assert (await read_until(talk, "error"))[1].error.code == "guardrail_secrets"
        await talk.input_audio_buffer.append(audio="AAAA")
        _, error = await read_until(talk, "error")
        assert error.error.code == "guardrail_unchecked" and "audio" in error.error.message
    text_only: Any = {"type": "realtime", "output_modalities": ["text"]}
    async with world.client("outward").realtime.connect(model=model) as talk:
        await send_message(talk, "hello")
        _, error = await read_until(talk, "error")
        assert error.error.code == "guardrail_unchecked", "it would answer with sound"
        await talk.session.update(session=text_only)
        await send_message(talk, "a long and harmless story about pumps " * 12)
        text, _ = await read_until(talk)
        assert text == ("You said: " + "a long and harmless story about pumps " * 12).strip(), "nothing is lost"
        await send_message(talk, f"write to {EMAIL} soon")
        text, _ = await read_until(talk)
        assert EMAIL not in text and text.startswith("You said: write to")
        await send_message(talk, f"use {SECRET} " + "and more " * 60)
        text, error = await read_until(talk, "error")
        assert error.error.code == "guardrail_secrets" and SECRET[:8] not in text
        assert await close_code(talk) == 1008
    async with world.client("declared").realtime.connect(model=model) as talk:
        await send_message(talk, "hello")
        assert (await read_until(talk))[0] == "You said: hello"
    for name, code in (
        ("judged", "guardrail_unchecked"), ("reviewed", "review_unsupported"), ("personal", "guardrail_unchecked"),
    ):  # fmt: skip
        with pytest.raises(InvalidStatus) as caught:
            async with world.client(name).realtime.connect(model=model):
                pass
        body = caught.value.response.body
        assert caught.value.response.status_code == 403 and body is not None and code in body.decode()
