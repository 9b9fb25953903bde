"""Embeddings: who may answer, and what an answer has to be."""

from __future__ import annotations

import asyncio
import json
import struct
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.integration.gateway_stack import deployment
from tests.unit.call_rig import call_rig
from tests.unit.raw_upstream import json_response, raw_upstream_rig
from tests.unit.raw_upstream import post as post

from groundplan.blueprint.model import Deployment, Rates
from groundplan.core.endpoints import announce
from groundplan.core.errors import Invalid
from groundplan.core.home import Home
from groundplan.core.money import PICO
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.http.server import Request
from groundplan.gateway.surfaces.embeddings import EMBEDDINGS
from groundplan.gateway.upstream.providers import SERVICE


def read_ask(**more: Any) -> Ask:
    body = {"model": "auto", "input": ["a", "b"], **more}
    return EMBEDDINGS.read(Request(0.0, body=json.dumps(body).encode()))


def embedding_deployment(model: str, name: str, **more: Any) -> Deployment:
    return msgspec.structs.replace(deployment(name, 1, kind="embeddings", **more), model=model)


def test_token_inputs_go_to_deployments_that_accept_them() -> None:
    """They were sent as so many texts, the numbers themselves, to whoever speaks another API."""
    plain, google = embedding_deployment("m/one", "plain"), embedding_deployment("m/one", "google", api="gemini")
    for tokens in ([1, 2], [[1, 2], [3]], ["a", [3]]):
        assert EMBEDDINGS.eligible_deployments(read_ask(input=tokens), (google, plain)) == (plain,)
        with pytest.raises(Invalid, match="tokens cannot be said in the API of gemini"):
            EMBEDDINGS.eligible_deployments(read_ask(input=tokens), (google,))


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://api.voyageai.com/v1", "output_dimension"),
        ("https://api.mistral.ai/v1", "output_dimension"),
        ("https://api.openai.com/v1", "dimensions"),
    ],
)
def test_the_vector_dimension_is_requested_in_each_apis_terms(url: str, name: str) -> None:
    place, ask = msgspec.structs.replace(embedding_deployment("m/one", "one"), url=url), read_ask(dimensions=8)
    sent = json.loads(EMBEDDINGS.codec(place).request_body(ask, place, 0, []))
    assert sent == {"model": "up-one", "input": ["a", "b"], name: 8}


@pytest.mark.parametrize("more", [{"modality": "image"}, {"modality": ["image"]}, {"instances": [{"image": {}}]}])
def test_only_texts_are_embedded(more: dict[str, Any]) -> None:
    """Infinity fetches each `input` of such a modality, wherever it is."""
    with pytest.raises(Invalid):
        read_ask(input="http://127.0.0.1/secret.png", **more)
    assert read_ask(modality="text").messages == 2


def test_parameters_per_text_count_with_each_text() -> None:
    """Mixedbread puts its `prompt` in front of every input, Voyage words of its own for an `input_type`."""
    one, plain, more = embedding_deployment("m/one", "one"), read_ask(), read_ask(prompt="p" * 98, dimensions=8)
    assert EMBEDDINGS.cost_bound(more, one, 0, 0) == EMBEDDINGS.cost_bound(plain, one, 0, 0)  # no price by tokens
    size = len(more.body)
    assert (more.size, plain.size) == (size + 100, len(plain.body))
    assert read_ask(input=[[1, 2], [3]], prompt="p" * 98).extra_tokens == 3 + 200


NAN, MINUS_NAN = (b64encode(struct.pack("<4I", *[bits] * 4)).decode() for bits in (0x7FC00000, 0xFFC00000))


@pytest.mark.parametrize("bad", [[None, None], NAN, MINUS_NAN, "missing"])
async def test_invalid_vectors_cause_a_fallback(tmp_path: Path, bad: Any) -> None:
    """llama.cpp that is not well answers so until it is started again, llama-box had one vector for several texts."""
    rows: list[Any] = [{"index": 0, "embedding": [0.5, 0.25]}, {"index": 1, "embedding": bad}][: 1 + (bad != "missing")]
    answer = msgspec.json.encode({"object": "list", "data": rows, "usage": {"prompt_tokens": 2}})
    more: dict[str, dict[str, Any]] = {name: {"kind": "embeddings"} for name in ("one", "two")}
    workloads = {"assistant": {"embeddings": ["one", "two"]}}
    async with raw_upstream_rig(
        tmp_path, json_response(answer), has_fallback=True, more=more, workloads=workloads
    ) as rig:
        rig.change_deployment("two", model="scripted/one")
        packed = {"encoding_format": "base64"} if bad in (NAN, MINUS_NAN) else {}
        reply = await post(rig, "/v1/embeddings", {"model": "auto", "input": ["a", "b"], **packed})
        assert reply.status == 200 and len(reply.json["data"]) == 2, reply.body
        assert reply.json["groundplan"]["deployment"] == "two"
        assert [each.outcome for each in await rig.settlements()] == ["failed", "ok"]


@pytest.mark.parametrize("tokens", [7, 0])
async def test_texts_answered_before_a_refusal_are_charged(tmp_path: Path, tokens: int) -> None:
    """Some providers are asked for them one after another; 0: nobody counted."""
    refusal = {"message": "gemini: no", "type": "invalid_request_error", "code": "x", "billed_tokens": tokens}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(json_response(json.dumps({"error": refusal}).encode(), b"400 Bad Request"))
        await writer.drain()
        writer.close()

    more = {"one": {"kind": "embeddings", "api": "gemini", "rates": Rates(input=PICO, output=0)}}
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, call_rig(tmp_path, ["one"], more=more, workloads={"assistant": {"embeddings": ["one"]}}) as rig:
        announce(Home(tmp_path), SERVICE, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "a-token")
        reply = await post(rig, "/v1/embeddings", {"model": "auto", "input": ["a" * 100, "b"]})
        assert (reply.status, reply.json["error"].get("billed_tokens")) == (400, tokens), reply.body
        (only,) = await rig.settlements()
        assert (only.outcome, only.http_status, only.estimated) == ("failed", 400, not tokens)
        assert only.cost == tokens * 1_000_000 if tokens else only.cost > 0
        await rig.books()


def test_base64_encoding_is_returned_if_requested() -> None:
    """Clients for Node take numbers in its place for bytes: nothing but zeros, a quarter of them."""
    codec, body = EMBEDDINGS.codec(embedding_deployment("m/one", "one")), read_ask(encoding_format="base64")
    rows = [{"object": "embedding", "embedding": [0.5, -0.25], "index": 0}, {"index": 1, "embedding": [1, 0]}]
    told = {"object": "list", "data": rows, "model": "m", "usage": {"prompt_tokens": 2}}
    found = json.loads(codec.parse_answer(json.dumps(told).encode(), body).data)
    vectors = [struct.unpack("<2f", b64decode(row.pop("embedding"))) for row in found["data"]]
    assert vectors == [(0.5, -0.25), (1.0, 0.0)]
    assert found == told | {"data": [{"object": "embedding", "index": 0}, {"index": 1}]}
    for data in (
        json.dumps({"data": [{"embedding": "AAAAPw=="}] * 2}),
        json.dumps({"data": [{"embedding": [[1]]}] * 2}),
    ):
        assert codec.parse_answer(data.encode(), body).data == data.encode()
    assert (
        codec.parse_answer(json.dumps(told).encode(), read_ask(encoding_format="float")).data
        == json.dumps(told).encode()
    )


@pytest.mark.parametrize(
    "row",
    [
        {"embedding": [1, -1]},
        {"embedding": "AACAPwAAAAA="},
        {"embeddings": [[0.5], [0.25]]},
        {"embedding": {"x": None}},
    ],
)
def test_vectors_of_any_number_type_are_accepted(row: dict[str, Any]) -> None:
    answer = msgspec.json.encode({"data": [row] * 4, "usage": None, "ids": [None, None]})
    assert EMBEDDINGS.codec(embedding_deployment("m/one", "one")).parse_answer(answer, read_ask()).data == answer


def test_no_fallback_to_another_embedding_model() -> None:
    """Whoever keeps vectors of two models compares what compares with nothing, and nobody tells."""
    first, other, same = (
        embedding_deployment("m/one", "first"),
        embedding_deployment("m/two", "other"),
        embedding_deployment("m/one", "same"),
    )
    assert EMBEDDINGS.eligible_deployments(read_ask(), (first, other, same)) == (first, same)
    assert EMBEDDINGS.eligible_deployments(read_ask(), (other, first, same)) == (other,)
    google = embedding_deployment("m/one", "google", api="gemini")
    assert EMBEDDINGS.eligible_deployments(read_ask(task="x"), (google, other, same)) == (same,)
    with pytest.raises(Invalid, match="task cannot be said"):
        EMBEDDINGS.eligible_deployments(read_ask(task="x"), (google, other))
