"""Moderations, rerank, images and audio through a real worker, by OpenAI's own client, each at its kind of price."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import cohere
import httpx
import pytest
from openai import (
    APIConnectionError,
    APIError,
    AsyncAzureOpenAI,
    AsyncOpenAI,
    BadRequestError,
    NotFoundError,
    RateLimitError,
)
from openai.types import ImageEditStreamEvent, ImageGenStreamEvent, ImagesResponse, ModerationCreateResponse
from openai.types.audio import Transcription, TranscriptionStreamEvent, TranscriptionVerbose, Translation
from tests.integration import node_client
from tests.integration.gateway_stack import (
    Reply,
    Stack,
    blueprint,
    deployment,
    installation,
    parse_events,
    scripted_upstream,
    workload,
)
from tests.integration.patient import RetryingOpenAIHttpClient
from tests.integration.sdk_types import parse_strictly
from tests.unit.test_multipart import form

from groundplan.blueprint.model import Rates
from groundplan.core.money import PICO
from groundplan.economics.price import FREE
from groundplan.gateway.surfaces.image_forms import MAX_FILES
from groundplan.ledger.model import Finish, Reservation, Settlement
from groundplan.testing.database import Database
from groundplan.testing.journal import read_segment
from groundplan.testing.scripted import Script, ScriptedModel

CENT = PICO // 100
PRICES = {
    "chat": {},
    "judge": {"kind": "moderation", "rates": FREE},
    "looker": {"kind": "moderation", "rates": Rates(input=0, output=0, image=CENT)},
    "sorter": {"kind": "rerank", "rates": Rates(input=PICO, output=0, request=CENT)},
    "painter": {
        "kind": "images",
        "rates": Rates(input=0, output=0, images={"1024x1024": CENT, "1024x1024/hd": 2 * CENT, "512x512": CENT // 2}),
    },
    "token-painter": {"kind": "images", "image_tokens": 60, "rates": Rates(input=PICO, output=100 * PICO)},
    "editor": {"kind": "images", "rates": Rates(input=0, output=0, image=CENT // 4, images={"any": CENT})},
    "boundless": {"kind": "images", "rates": Rates(input=0, output=PICO)},
    "voice": {"kind": "speech", "rates": Rates(input=0, output=0, characters=15 * PICO)},
    "ear": {"kind": "transcription", "audio_seconds": 60, "rates": Rates(input=0, output=0, minute=6 * CENT)},
    "scribe": {"kind": "transcription", "rates": Rates(input=PICO, output=10 * PICO)},
    "whisper": {"kind": "transcription", "audio_seconds": 60, "rates": Rates(input=0, output=0, minute=6 * CENT)},
}


@dataclass
class Setup:
    stack: Stack
    model: ScriptedModel
    key: str
    client: AsyncOpenAI

    async def post(self, path: str, **body: Any) -> Reply:
        return await self.stack.post(path, self.key, body)


@pytest.fixture
async def setup(database: Database, tmp_path: Path) -> AsyncIterator[Setup]:
    async with scripted_upstream("all") as (model, port), installation(database, tmp_path) as stack:
        places = [deployment(name, port, **more) for name, more in PRICES.items()]
        others = [place.name for place in places if place.kind != "chat"]
        stack.apply(blueprint(1, places, [workload("assistant", ["chat"], also=others)], limit=PICO))
        stack.start()
        await stack.wait_until_ready()
        key = stack.key()
        async with AsyncOpenAI(
            base_url=f"http://127.0.0.1:{stack.port}/v1",
            api_key=key,
            max_retries=0,
            http_client=RetryingOpenAIHttpClient(),
        ) as client:
            yield Setup(stack, model, key, client)


def cost(answer: Any) -> str:
    return str(answer.model_extra["groundplan"]["cost_usd"])


async def test_moderations(setup: Setup) -> None:
    answer = await setup.client.moderations.create(input=["hello", "attack at dawn"], model="judge")
    assert [result.flagged for result in answer.results] == [False, True]
    parse_strictly(ModerationCreateResponse, answer.to_json())
    assert answer.results[1].categories.violence and cost(answer) == "0.000000000000"
    assert answer.model_extra is not None and answer.model_extra["groundplan"]["estimated"] is False
    default = await setup.client.moderations.create(input="hello")
    assert not default.results[0].flagged
    with pytest.raises(BadRequestError, match="given by its address"):
        parts: Any = [{"type": "image_url", "image_url": {"url": "http://127.0.0.1/secret.png"}}]
        await setup.client.moderations.create(input=parts, model="judge")
    assert (await setup.post("/v1/moderations", input=[])).code == "input_empty"


async def test_each_image_that_is_moderated_costs_what_its_price_says(setup: Setup) -> None:
    """Its provider reports no usage of it; the estimate says the same."""
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    parts: Any = [{"type": "text", "text": "hello"}, image, image]
    answer = await setup.client.moderations.create(input=parts, model="looker")
    assert cost(answer) == "0.020000000000"
    assert cost(await setup.client.moderations.create(input="hello", model="looker")) == "0.000000000000"


async def test_azures_client_names_the_model_in_the_path(setup: Setup) -> None:
    """Also of a form, of which more than is kept comes before it names another one."""
    async with AsyncAzureOpenAI(
        azure_endpoint=f"http://127.0.0.1:{setup.stack.port}",
        api_key=setup.key,
        api_version="2024-10-21",
        max_retries=0,
    ) as client:
        heard = await client.audio.transcriptions.create(model="scribe", file=("a.wav", b"RIFF" + bytes(999)))
        assert heard.model_extra is not None and heard.model_extra["groundplan"]["deployment"] == "scribe"
        made = await client.images.generate(model="painter", prompt="a cat", size="1024x1024")
        assert cost(made) == "0.010000000000"
    path = "/openai/deployments/scribe/audio/transcriptions"
    for size in (999, 3 << 20):
        body = form(("file", b"RIFF" + bytes(size), "a.wav"), ("model", b"ear", None))
        reply = await setup.stack.ask("POST", path, setup.key, body, content_type=FORM)
        assert reply.status == 200, reply.body
        assert reply.json["groundplan"]["deployment"] == "scribe"


async def test_rerank(setup: Setup) -> None:
    documents = ["how to bake bread", "the opening hours", {"text": "hours of bread"}]
    body = {"model": "sorter", "query": "opening hours", "documents": documents, "top_n": 2, "return_documents": True}
    reply = await setup.post("/v1/rerank", **body)
    assert reply.status == 200, reply.body
    results = reply.json["results"]
    assert [result["index"] for result in results] == [1, 2] and results[0]["relevance_score"] == 1.0
    assert results[1]["document"] == {"text": "hours of bread"}
    # a request, and 12 tokens of a USD a million
    assert reply.json["groundplan"]["cost_usd"] == "0.010012000000"
    many = await setup.post("/v1/rerank", model="sorter", query="q", documents=["d"] * 101)
    assert many.json["groundplan"]["cost_usd"] == "0.020102000000", "two hundreds of documents"
    wrongs: list[dict[str, Any]] = [{"documents": []}, {"query": ""}, {"top_n": 0}, {"documents": [1]}]
    wrongs.append({"documents": [{"text": "x", "image": "http://127.0.0.1/secret.png"}]})
    for wrong in wrongs:
        assert (await setup.post("/v1/rerank", **{**body, **wrong})).status == 400
    setup.model.script = Script(mode="malformed")
    assert (await setup.post("/v1/rerank", **body)).code == "upstream_failed"


@pytest.mark.filterwarnings("ignore:The `__fields__` attribute is deprecated")
async def test_coheres_own_client_is_content(setup: Setup) -> None:
    """Its newer one asks /v2/rerank, the older one need not name a model."""
    url, documents = f"http://127.0.0.1:{setup.stack.port}", ["how to bake bread", "the opening hours"]
    async with cohere.AsyncClientV2(api_key=setup.key, base_url=url) as newer:
        found = await newer.rerank(model="sorter", query="opening hours", documents=documents, top_n=1)
        assert [each.index for each in found.results] == [1]
    async with cohere.AsyncClient(api_key=setup.key, base_url=url) as older:
        told = await older.rerank(query="hours", documents=documents)
        assert {each.index for each in told.results} == {0, 1}


async def test_images_cost_what_their_class_costs(setup: Setup) -> None:
    answer = await setup.client.images.generate(prompt="a house", model="painter", n=3, size="1024x1024")
    assert answer.data is not None and len(answer.data) == 3 and cost(answer) == "0.030000000000"
    assert base64.b64decode(answer.data[0].b64_json or "").startswith(b"\x89PNG")
    parse_strictly(ImagesResponse, answer.to_json())
    fine = await setup.client.images.generate(prompt="a house", model="painter", size="1024x1024", quality="hd")
    assert cost(fine) == "0.020000000000"
    left_open = await setup.client.images.generate(prompt="a house", model="painter")
    assert cost(left_open) == "0.020000000000", "what is left open may be the dearest"
    tokens = await setup.client.images.generate(prompt="a red house", model="token-painter", n=2)
    assert cost(tokens) == "0.010003000000" and tokens.usage is not None and tokens.usage.output_tokens == 100


async def test_what_media_are_likely_to_cost_is_told_beforehand(setup: Setup) -> None:
    asked: dict[str, dict[str, Any]] = {
        "images/generations": {"model": "painter", "prompt": "a house", "n": 3, "size": "512x512"},
        "audio/speech": {"model": "voice", "input": "hello", "voice": "alloy"},
    }
    for path, body in asked.items():
        told = await setup.stack.post(f"/v1/{path}", setup.key, body, groundplan_estimate="1")
        (place,) = told.json["deployments"]
        assert place["likely_usd"] == told.json["most_usd"] != "0.000000000000", "they cost what is asked for"


async def test_images_without_a_bound_are_refused(setup: Setup) -> None:
    for body in (
        {"model": "boundless", "prompt": "x"},
        {"model": "painter", "prompt": "x", "size": "1792x1024"},
    ):
        assert (await setup.post("/v1/images/generations", **body)).code == "image_unpriced"
    with pytest.raises(BadRequestError, match="n is 11"):
        await setup.client.images.generate(prompt="x", model="painter", n=11)
    assert setup.model.counted == 0
    for _ in range(5):
        assert (await setup.post("/v1/images/generations", model="painter", prompt="x", n=10)).status == 200
    with pytest.raises(RateLimitError, match="no room"):
        await setup.client.images.generate(prompt="x", model="painter", n=1)
    assert setup.model.counted == 5, "exactly the budget, never beyond"


async def test_failures_of_images_are_settled_like_those_of_chat(setup: Setup) -> None:
    for mode, code in (("malformed", "upstream_failed"), ("cut", "upstream_failed"), ("error", "upstream_failed")):
        setup.model.script = Script(mode=mode)
        reply = await setup.post("/v1/images/generations", model="painter", prompt="x", size="512x512")
        assert (reply.status, json.loads(reply.body)["error"]["code"]) == (503, code)


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
async def test_edits_and_variations_of_images(setup: Setup) -> None:
    image = ("a.png", base64.b64decode("iVBORw0KGgo="), "image/png")
    edited = await setup.client.images.edit(
        image=[image, image], prompt="brighter", model="painter", size="512x512", n=2
    )
    assert edited.data is not None and len(edited.data) == 2 and cost(edited) == "0.010000000000"
    drawn_on = await setup.client.images.edit(image=image, markup=image, prompt="x", model="painter", size="512x512")
    assert cost(drawn_on) == "0.005000000000"
    varied = await setup.client.images.create_variation(image=image, model="painter", size="1024x1024")
    assert cost(varied) == "0.010000000000"
    for found in (edited, varied):
        parse_strictly(ImagesResponse, found.to_json())
    wanted = form(("model", b"painter", None), ("stream", b"true", None), ("image", b"x", "a.png"))
    reply = await setup.stack.post("/v1/images/variations", setup.key, wanted, content_type=FORM)
    assert "stream is not supported" in reply.json["error"]["message"], "the API has none for variations"
    with pytest.raises(BadRequestError, match="n is 0"):
        await setup.client.images.edit(image=image, prompt="x", model="painter", n=0)
    assert (await setup.post("/v1/images/edits", model="painter")).code == "file_missing"
    counted = setup.model.counted
    for name, size, begun in (("mask", 9, 0), ("markup", 9, 0), ("mask", 2 << 20, 2)):
        alone = form(("model", b"painter", None), ("size", b"512x512", None), (name, bytes(size), "a.png"))
        for path in ("/v1/images/edits", "/v1/images/variations"):
            reply = await setup.stack.post(path, setup.key, alone, content_type=FORM)
            assert (reply.status, reply.code) == (400, "file_missing"), (name, size)
        assert setup.model.counted <= counted + begun, "only a large form is sent before its end is known"
    masked = form(("model", b"painter", None), ("mask", bytes(2 << 20), "a.png"), ("image", b"x", "b.png"))
    assert (await setup.stack.post("/v1/images/edits", setup.key, masked, content_type=FORM)).status == 200
    address = form(("model", b"painter", None), ("image", b"x", "a.png"), ("mask", b"http://127.0.0.1/a.png", None))
    reply = await setup.stack.post("/v1/images/edits", setup.key, address, content_type=FORM)
    assert (reply.status, reply.code) == (400, "field_unsupported"), "an address is no file"
    for name in ("url", "url[]", "image_url[]"):
        address = form(("model", b"painter", None), ("image", b"x", "a.png"), (name, b"http://127.0.0.1/a.png", None))
        reply = await setup.stack.post("/v1/images/edits", setup.key, address, content_type=FORM)
        assert (reply.status, reply.code) == (400, "field_unsupported"), name
    large = (("model", b"painter", None), ("image", bytes(2 << 20), "a.png"))
    behind = form(*large, ("prompt", b"brighter", None), ("size", b"512x512", None), ("n", b"1", None))
    reply = await setup.stack.post("/v1/images/edits", setup.key, behind, content_type=FORM)
    assert reply.status == 200, reply.body
    assert reply.json["groundplan"]["cost_usd"] == "0.005000000000", "as some clients order it, at its own price"
    for quality, price in ((b"hd", "0.020000000000"), (b"auto", "0.020000000000"), (b"low", "0.010000000000")):
        behind = form(large[0], ("size", b"1024x1024", None), large[1], ("quality", quality, None))
        reply = await setup.stack.post("/v1/images/edits", setup.key, behind, content_type=FORM)
        assert reply.status == 200, "a dearer quality was reserved for, or its workload would be stopped"
        assert reply.json["groundplan"]["cost_usd"] == price, quality
    for name, value, code in (
        ("num_images", b"2", "field_unsupported"),
        ("size", b"64x64", "image_unpriced"),
        ("n", b"11", "copies_range"),
    ):
        late = form(*large, (name, value, None))
        reply = await setup.stack.post("/v1/images/edits", setup.key, late, content_type=FORM)
        assert (reply.status, reply.code) == (400, code), name
    for parts, images in (
        ((*large, ("n", b"2", None)), 2),
        ((large[1], ("prompt", b"x" * (65 << 10), None), large[0]), 1),
    ):
        behind = form(("size", b"512x512", None), *parts)
        reply = await setup.stack.post("/v1/images/edits", setup.key, behind, content_type=FORM)
        assert (reply.status, len(reply.json["data"])) == (200, images), "what costs more may come behind, too"
        assert reply.json["groundplan"]["cost_usd"] == f"0.0{5 * images:02}000000000"
    await wait_for_kept_forms(setup.stack, present=False)
    typed = await setup.stack.post("/v1/images/edits", setup.key, {}, content_type="application/json")
    assert (typed.status, typed.code) == (415, "content_type")


async def test_images_that_are_sent_in_cost_what_each_does(setup: Setup) -> None:
    """Also those behind a large one."""
    image = ("a.png", base64.b64decode("iVBORw0KGgo="), "image/png")
    edited = await setup.client.images.edit(image=[image, image], prompt="brighter", model="editor")
    assert cost(edited) == "0.015000000000"
    large = (("model", b"editor", None), ("image[]", bytes(2 << 20), "a.png"))
    behind = form(*large, ("image[]", b"x", "b.png"), ("mask", b"x", "c.png"))
    reply = await setup.stack.post("/v1/images/edits", setup.key, behind, content_type=FORM)
    assert reply.status == 200 and reply.json["groundplan"]["cost_usd"] == "0.017500000000", reply.body
    many = form(*large, *(("image[]", b"x", "b.png") for _ in range(MAX_FILES)))
    reply = await setup.stack.post("/v1/images/edits", setup.key, many, content_type=FORM)
    assert reply.status == 200 and reply.json["groundplan"]["cost_usd"] == "0.055000000000", reply.body
    for name in ("reference_images", "prompt", "n"):
        late = form(*large, (name, b"x", "b.png"))
        reply = await setup.stack.post("/v1/images/edits", setup.key, late, content_type=FORM)
        assert (reply.status, reply.code) == (400, "field_unsupported"), name


async def test_speech_is_passed_on_as_it_comes(setup: Setup) -> None:
    setup.model.script = Script(chunk_ms=40)
    text, lasted = "hello " * 50, list[float]()
    while len(lasted) < 3 and max(lasted, default=0.0) <= 0.1:  # the best of three: the machine may be busy
        pieces = []
        async with setup.client.audio.speech.with_streaming_response.create(
            input=text, model="voice", voice="alloy"
        ) as answer:
            async for piece in answer.iter_bytes():
                pieces.append((asyncio.get_running_loop().time(), piece))
            assert answer.headers["content-type"] == "audio/mpeg" and "groundplan-call-id" in answer.headers
        assert b"".join(piece for _, piece in pieces) == b"".join(bytes([ord(c)]) * 100 for c in text)
        lasted.append(pieces[-1][0] - pieces[0][0])
    assert max(lasted) > 0.1, "it was held back"
    await spent(setup, str(Decimal("0.0045") * len(lasted)))  # 300 characters of 15 USD a million


async def test_speech_that_breaks_does_not_look_complete(setup: Setup) -> None:
    setup.model.script = Script(mode="cut")
    with pytest.raises((APIConnectionError, httpx.RemoteProtocolError)):
        (await setup.client.audio.speech.create(input="hello " * 50, model="voice", voice="alloy")).read()
    await spent(setup, "0.0045")
    for mode in ("empty", "error"):
        setup.model.script = Script(mode=mode)
        reply = await setup.post("/v1/audio/speech", input="hello", model="voice", voice="alloy")
        assert (reply.status, reply.code) == (503, "upstream_failed")
    refused = await setup.post("/v1/audio/speech", input="x", model="voice", voice="alloy", stream_format="ogg")
    assert refused.code == "field_unsupported"


async def test_images_are_shown_while_they_are_made(setup: Setup) -> None:
    ask: Any = {"prompt": "a red house", "model": "token-painter", "stream": True, "partial_images": 2}
    seen = [event async for event in await setup.client.images.generate(**ask)]
    assert [event.type for event in seen] == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    for each in seen:
        parse_strictly(ImageGenStreamEvent, each.to_json())
    assert cost(seen[-1]) == "0.007003000000"  # 50 tokens, 10 for each time that it was shown, three words
    image = ("a.png", base64.b64decode("iVBORw0KGgo="), "image/png")
    edited = [event async for event in await setup.client.images.edit(image=image, **ask)]
    assert [event.type for event in edited] == ["image_edit.partial_image"] * 2 + ["image_edit.completed"]
    for one in edited:
        parse_strictly(ImageEditStreamEvent, one.to_json())
    flat = [event async for event in await setup.client.images.generate(**{**ask, "model": "painter"})]
    assert cost(flat[-1]) == "0.020000000000", "at a price for each image what is shown on the way costs nothing"
    setup.model.script = Script(mode="cut")
    with pytest.raises(APIError, match="broke off"):
        async for _ in await setup.client.images.generate(**ask):
            pass
    await spent(setup, "0.052065")  # and the most of the last one: 180 tokens, 11 bytes and what may be put around them


async def test_speech_in_events(setup: Setup) -> None:
    text, told = "hello " * 50, []
    async with setup.client.audio.speech.with_streaming_response.create(
        input=text, model="voice", voice="alloy", stream_format="sse"
    ) as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        async for line in answer.iter_lines():
            told += [json.loads(line[6:])] if line.startswith("data: ") else []
    assert b"".join(base64.b64decode(each["audio"]) for each in told[:-1])[::100] == text.encode()
    assert told[-1]["type"] == "speech.audio.done" and told[-1]["groundplan"]["cost_usd"] == "0.004500000000"
    await spent(setup, "0.0045")  # by its characters, as it is priced


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")
async def test_transcriptions_cost_their_minutes(setup: Setup) -> None:
    sound = ("a.wav", bytes(96_000), "audio/wav")
    answer = await setup.client.audio.transcriptions.create(file=sound, model="ear", language="en")
    assert answer.text == "I heard 96000 bytes." and cost(answer) == "0.003000000000"  # 3 seconds
    verbose = await setup.client.audio.transcriptions.create(file=sound, model="ear", response_format="verbose_json")
    assert verbose.duration == 3.0 and cost(verbose) == "0.003000000000"
    translated = await setup.client.audio.translations.create(file=sound, model="ear")
    parse_strictly(Transcription, answer.to_json())
    parse_strictly(
        TranscriptionVerbose, verbose.to_json(), our_fields={"groundplan", "task"}
    )  # OpenAI sends it, its type has it not
    parse_strictly(Translation, translated.to_json(), our_fields={"groundplan", "usage"})  # its type has no usage
    assert translated.text == "I heard 96000 bytes."
    text = await setup.client.audio.transcriptions.create(file=sound, model="ear", response_format="text")
    assert text.strip() == "I heard 96000 bytes."
    await spent(setup, "0.069")  # text tells no length, so it costs the longest
    asked = form(("model", b"ear", None), ("response_format", b"text", None), ("file", bytes(96_000), "a.wav"))
    once = {"content_type": FORM, "idempotency_key": "once"}
    replies = [await setup.stack.post("/v1/audio/transcriptions", setup.key, asked, **once) for _ in range(2)]
    assert replies[1].headers["groundplan-replay"] == "true" and replies[1].body == replies[0].body
    assert replies[1].headers["content-type"] == replies[0].headers["content-type"] == "text/plain; charset=utf-8"
    other = await setup.stack.post("/v1/audio/transcriptions", setup.key, asked.replace(b"a.wav", b"b.wav"), **once)
    assert (other.status, other.code) == (409, "idempotency_mismatch")


async def test_a_transcript_is_told_while_it_is_heard_and_costs_its_tokens(setup: Setup) -> None:
    asked = form(("model", b"scribe", None), ("stream", b"true", None), ("file", bytes(96_000), "a.wav"))
    reply = await setup.stack.post("/v1/audio/transcriptions", setup.key, asked, content_type=FORM)
    assert reply.status == 200 and reply.headers["content-type"].startswith("text/event-stream"), reply.body
    told = [parse_strictly(TranscriptionStreamEvent, json.dumps(each)) for each in parse_events(reply.body)]
    assert "".join(each.delta for each in told[:-1]).strip() == told[-1].text == "I heard 96000 bytes."
    assert cost(told[-1]) == "0.000190000000"  # 150 tokens of sound, 4 words
    sound = ("a.wav", bytes(96_000), "audio/wav")
    stream = await setup.client.audio.transcriptions.create(file=sound, model="scribe", stream=True)
    assert [event.type async for event in stream][-1] == "transcript.text.done"
    old = await setup.stack.post(
        "/v1/audio/transcriptions", setup.key, asked.replace(b"scribe", b"whisper"), content_type=FORM
    )
    assert old.json["text"] == "I heard 96000 bytes.", "a model that streams none answers whole"
    await spent(setup, "0.00338")
    setup.model.script = Script(mode="cut")
    reply = await setup.stack.post("/v1/audio/transcriptions", setup.key, asked, content_type=FORM)
    assert parse_events(reply.body)[-1]["error"]["code"] == "stream_broken"
    await spent(setup, "0.052532")  # nobody says how long it was, so it costs the most


async def test_it_may_be_said_behind_a_large_file_that_a_transcript_is_told_while_it_is_heard(setup: Setup) -> None:
    """So clients for Node order a form whose fields are written so: `{file, model, stream}`."""
    size = 3 << 19  # of less than a minute
    for model, path, streams in (
        ("scribe", "transcriptions", True), ("whisper", "transcriptions", False), ("scribe", "translations", False),
    ):  # fmt: skip
        asked = form(("model", model.encode(), None), ("file", bytes(size), "a.wav"), ("stream", b"true", None))
        reply = await setup.stack.post(f"/v1/audio/{path}", setup.key, asked, content_type=FORM)
        assert reply.status == 200, reply.body
        assert reply.headers["content-type"].startswith("text/event-stream") == streams, (model, path)
        told = parse_events(reply.body)[-1] if streams else reply.json
        assert told["text"] == f"I heard {size} bytes." and told["groundplan"]["cost_usd"]


async def test_what_is_reported_in_a_unit_without_a_price_costs_the_most(setup: Setup) -> None:
    """Tokens where minutes have a price, and seconds where tokens have one: taken for nothing, each would be free."""
    sound = ("a.wav", bytes(96_000), "audio/wav")
    seconds = await setup.client.audio.transcriptions.create(file=sound, model="scribe")
    assert cost(seconds) == "0.049152000000" and json.loads(seconds.to_json())["groundplan"]["estimated"] is True
    setup.model.script = Script(usage={"type": "tokens", "input_tokens": 150, "output_tokens": 4, "total_tokens": 154})
    tokens = await setup.client.audio.transcriptions.create(file=sound, model="ear")
    assert cost(tokens) == "0.060000000000" and json.loads(tokens.to_json())["groundplan"]["estimated"] is True
    known = await setup.client.audio.transcriptions.create(file=sound, model="ear", response_format="verbose_json")
    assert cost(known) == "0.003000000000", "its length is told beside them"


async def test_a_form_that_is_wrong_is_told(setup: Setup) -> None:
    sound = ("a.wav", bytes(100), "audio/wav")
    with pytest.raises(NotFoundError):
        await setup.client.audio.transcriptions.create(file=sound, model="voice")
    for parts, code in (
        ([("model", b"ear", None)], "file_missing"),
        ([("file", b"x", "a.wav")], "model_missing"),
        ([("model", b"ear", None), ("model", b"ear", None), ("file", b"x", "a.wav")], "field_twice"),
        ([("model", b"ear", None), ("file", b"x", "a.wav"), ("file", b"x", "a.wav")], "file_missing"),
        ([("file", bytes(2 << 20), "a.wav")], "model_missing"),
        ([("file", bytes(2 << 20), "a.wav"), ("model", b"ear", None), ("model", b"ear", None)], "field_twice"),
        ([("model", b"ear", None), ("file", bytes(2 << 20), "a.wav"), ("model", b"ear", None)], "field_after_file"),
        (
            [("model", b"ear", None), ("file", bytes(2 << 20), "a.wav"), ("response_format", b"odd", None)],
            "field_after_file",
        ),
        (
            [("model", b"ear", None), ("file", b"x", "a.wav"), ("url", b"http://127.0.0.1/x.wav", None)],
            "field_unsupported",
        ),
        (
            [("model", b"ear", None), ("file", bytes(2 << 20), "a.wav"), ("url", b"http://127.0.0.1/x.wav", None)],
            "field_after_file",
        ),
        ([("model", b"ear", None), ("file", bytes(2 << 20), "a.wav"), ("stream", b"odd", None)], "field_after_file"),
        ([("api_base", b"http://127.0.0.1", None), ("model", b"ear", None), ("file", b"x", "a")], "field_unsupported"),
        ([("model", b"ear", None), ("file", bytes(2 << 20), "a"), ("api_base", b"http://a", None)], "field_after_file"),
    ):
        reply = await setup.stack.post("/v1/audio/transcriptions", setup.key, form(*parts), content_type=FORM)
        assert (reply.status, reply.code) == (400, code)
    small = form(("file", b"xyz", "a.wav"), ("model", b"ear", None), ("language", b"en", None))
    reply = await setup.stack.post("/v1/audio/transcriptions", setup.key, small, content_type=FORM)
    assert reply.status == 200, "in a small form the order does not matter"
    await spent(setup, "0.001")


async def test_a_large_upload_takes_no_memory_and_is_tried_once(setup: Setup) -> None:
    pid, size = setup.stack.workers[0].pid, 100 << 20
    before = memory(pid)

    class Sound(io.RawIOBase):
        left, most = size, 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            count = min(len(buffer), self.left)
            Sound.left = self.left = self.left - count
            Sound.most = max(Sound.most, memory(pid))
            return count

    answer = await setup.client.audio.transcriptions.create(
        file=("a.wav", io.BufferedReader(Sound(), 1 << 20)), model="ear", timeout=240, response_format="text"
    )
    assert answer == f"I heard {size} bytes."
    assert max(Sound.most, memory(pid)) - before < 40 << 20
    told = (("model", b"ear", None), ("response_format", b"text", None), ("language", b"en", None))
    behind = form(("file", bytes(3 << 20), "a.wav"), *told)
    reply = await setup.stack.post("/v1/audio/transcriptions", setup.key, behind, content_type=FORM)
    assert (reply.status, reply.body) == (200, b"I heard %d bytes." % (3 << 20)), "as some clients order it"
    assert reply.headers["content-type"].startswith("text/plain") and reply.headers["groundplan-deployment"] == "ear"
    setup.model.script = Script(mode="error", status=500)
    large = form(("model", b"ear", None), ("file", bytes(3 << 20), "a.wav"))
    reply = await setup.stack.post("/v1/audio/transcriptions", setup.key, large, content_type=FORM)
    assert (reply.status, reply.code) == (503, "upstream_failed")


@pytest.mark.parametrize("size", [1 << 10, 3 << 20])
async def test_an_upload_carries_the_trace_context_of_its_caller(setup: Setup, size: int) -> None:
    """Whether it was there as a whole when it was sent on, or came meanwhile."""
    trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    sound = form(("model", b"ear", None), ("file", bytes(size), "a.wav"))
    sent = {"traceparent": f"00-{trace}-{span}-01", "tracestate": "vendor=1"}
    reply = await setup.stack.post("/v1/audio/transcriptions", setup.key, sound, content_type=FORM, **sent)
    assert reply.status == 200 and setup.model.last is not None
    got = setup.model.last.headers
    version, passed_on, parent, flags = got[b"traceparent"].decode().split("-")
    assert (version, passed_on, flags) == ("00", trace, "01") and parent != span
    assert got[b"tracestate"] == b"vendor=1"
    async with asyncio.timeout(30):
        while not (ends := [each for each in records(setup) if isinstance(each, Finish)]):  # noqa: ASYNC110 -- no event
            await asyncio.sleep(0.02)
    steps = [step for step, _ in ends[0].steps]
    assert steps[:4] == ["identify", "receive", "cache", "admit"], "the time of its client is told apart"


async def test_a_client_that_goes_away_in_its_upload_pays_nothing(setup: Setup) -> None:
    """And nothing is kept of a form that had not named its model yet, whose file is on disk until then."""
    model, sound = ("model", b"ear", None), ("file", bytes(3 << 20), "a.wav")
    head = f"POST /v1/audio/transcriptions HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {setup.key}\r\n"
    for parts in ((model, sound), (sound, model)):
        _, writer = await asyncio.open_connection("127.0.0.1", setup.stack.port)
        data = form(*parts)
        writer.write(f"{head}content-type: {FORM}\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data[: 2 << 20])
        await writer.drain()
        if parts[0] == sound:
            await wait_for_kept_forms(setup.stack, present=True)
        else:
            async with asyncio.timeout(30):
                while not any(isinstance(record, Reservation) for record in records(setup)):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        writer.close()
        await spent(setup, "0")
        await wait_for_kept_forms(setup.stack, present=False)


FORM = "multipart/form-data; boundary=xyz"


async def wait_for_kept_forms(stack: Stack, *, present: bool) -> None:
    """Wait until the worker keeps files of forms, or none any more: they are files of HOME without a name."""
    async with asyncio.timeout(30):
        while any(_is_kept_form(each, stack.home.run) for each in _descriptors(stack)) is not present:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def _descriptors(stack: Stack) -> list[Path]:
    return list(Path(f"/proc/{stack.workers[0].pid}/fd").iterdir())


def _is_kept_form(descriptor: Path, folder: Path) -> bool:
    try:
        target = str(descriptor.readlink())
    except OSError:  # closed meanwhile
        return False
    return target.startswith(str(folder)) and target.endswith("(deleted)")


def memory(pid: int) -> int:
    """Bytes that a process has in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def records(setup: Setup) -> list[Any]:
    """Of the journal, as it is now."""
    return [entry.record for path in setup.stack.home.journal.glob("*/*.seg") for entry in read_segment(path)[0]]


async def spent(setup: Setup, usd: str) -> None:
    """What all calls cost together, as the journal says once they are over."""
    end = asyncio.get_running_loop().time() + 30
    while True:
        found = records(setup)
        settled = [record for record in found if isinstance(record, Settlement)]
        made = [record for record in found if isinstance(record, Reservation)]
        if len(settled) == len(made) and made:
            break
        assert asyncio.get_running_loop().time() < end, (made, settled)
        await asyncio.sleep(0.1)
    assert Decimal(sum(record.cost for record in settled)).scaleb(-12) == Decimal(usd)


@node_client.needed
async def test_nodes_official_client_completes_draws_speaks_and_hears(setup: Setup, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{setup.stack.port}/v1"
    found = json.loads(await node_client.run_script("node_tasks.cjs", url, setup.key, str(tmp_path / "a.wav")))
    asked = "You asked: Where is it?"
    assert found == {
        "completion": asked, "text": asked, "images": 2, "cost": "0.020000000000", "edited": 1, "spoken": 500,
        "heard": "string", "written": "I heard 1500000 bytes.", "drawn": 2, "varied": 2, "duration": True,
        "flagged": False,
    }  # fmt: skip
