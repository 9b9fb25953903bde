"""Each other provider's API, spoken in both directions, checked against the pinned official SDKs' types.

Its official client builds the request from ours and reads an answer in its wire format, which becomes OpenAI's.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.completion_create_params import CompletionCreateParamsBase
from tests.closing import close
from tests.integration.sdk_types import parse_strictly

from groundplan.blueprint.model import RateDetails, Rates
from groundplan.economics import price
from groundplan.economics.prices.provider_usage import ChatUsage
from groundplan.gateway.http.errors import refusal_body
from groundplan.gateway.http.server import Request, Response, Server
from groundplan.gateway.upstream.providers import _MISTRAL_MODELS, _VERTEX_OPENAI_MODELS, EMBEDDING_APIS, ProviderTarget
from groundplan.gateway.upstream.translation.blocking_clients import ContextThreadPool
from groundplan.gateway.upstream.translation.failures import ProviderFailure
from groundplan.gateway.upstream.translation.translate import READ_TIMEOUT_SECONDS, ProviderClients

pytestmark = [
    pytest.mark.skipif(find_spec("any_llm") is None, reason="needs groundplan[providers]"),
    pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The `__fields__` attribute is deprecated"),
]
"""What Google's and Cohere's own clients do to others."""
SECRET = "sk-secret"
USED = (11, 4)
"""Tokens of prompt and answer that every provider reports."""
DATA = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
"""A PNG of one pixel."""
IMAGE = f"data:image/png;base64,{DATA}"
TOOL: Any = {
    "type": "function",
    "function": {"name": "look", "description": "Look", "parameters": {"type": "object", "properties": {}}},
}
OPENAI_USAGE: dict[str, Any] = {"prompt_tokens": USED[0], "completion_tokens": USED[1], "total_tokens": sum(USED)}
CACHED = {**OPENAI_USAGE, "prompt_tokens_details": {"cached_tokens": 3}}
CALL = {"id": "call00001", "type": "function", "function": {"name": "look", "arguments": '{"what": "it"}'}}
LLAMA = "meta/llama-4-scout"
PATHS = {"groq": "/openai/v1", "vertexai": "/v1/projects/p/locations/europe-west1"}
"""What operators write behind the host, where it is anything."""


@dataclass
class Wire:
    """One HTTP server that answers as all of them do, by their paths. `tool`: answers call one; `thought`: what
    Cohere's models think before; `end`: how answers end otherwise; `refusal`: what one of OpenAI's says instead;
    `drawn`: tokens of images in an answer of Gemini's."""

    port: int = 0
    tool: bool = False
    thought: str = ""
    end: str = ""
    refusal: str = ""
    drawn: int = 0
    unfit: str = ""
    """A text that is refused."""
    asked: list[tuple[str, dict[str, Any], dict[bytes, bytes]]] = field(default_factory=list)

    @property
    def body(self) -> dict[str, Any]:
        return self.asked[-1][1]

    async def handle(self, request: Request, response: Response) -> None:
        path = request.target.decode()
        if path == "/token":
            token = {"access_token": "adc-token", "expires_in": 3600, "token_type": "Bearer"}
            response.send(200, json.dumps(token).encode())
            return
        body = json.loads(request.body)
        self.asked.append((path, body, dict(request.headers)))
        if self.unfit and self.unfit in json.dumps(body):
            response.send(400, json.dumps({"message": "no", "error": {"code": 400, "message": "no"}}).encode())
            return
        kind, found = self._answer(path, body)
        if isinstance(found, bytes):
            response.end(found, response.start(200, b"content-type: %b\r\n" % kind))
        else:
            response.send(200, json.dumps(found).encode())

    def _answer(self, path: str, body: dict[str, Any]) -> tuple[bytes, Any]:
        if "embed" in path.lower() or path.endswith(("/invoke", ":predict")):
            return b"", self._embedded(path, body)
        if "converse" in path:
            return self._bedrock(path)
        if path == "/v2/chat":
            return self._cohere(body)
        if "enerateContent" in path:
            return self._vertex(path)
        if path == "/v1/messages":
            return b"", self._anthropic()
        if path == "/api/chat":
            message: dict[str, Any] = {"role": "assistant", "content": "You asked."}
            counts = {"prompt_eval_count": USED[0], "eval_count": USED[1], "created_at": "2026-01-01T00:00:00Z"}
            return b"", {"model": "m", "message": message, "done": True, "done_reason": "stop", **counts}
        return self._openai(body)

    def _embedded(self, path: str, body: dict[str, Any]) -> Any:
        if path == "/v2/embed":
            meta = {"billed_units": {"input_tokens": USED[0]}}
            rows = [[0.5, 0.25] for _ in body["texts"]]
            return {"id": "e", "embeddings": {"float": rows}, "texts": body["texts"], "meta": meta}
        if path == "/api/embed":
            return {"model": "m", "embeddings": [[0.5, 0.25]], "prompt_eval_count": USED[0]}
        if path.endswith("/invoke"):
            return {"embedding": [0.5, 0.25], "inputTextTokenCount": USED[0]}
        if path.endswith(":predict"):
            row = {"embeddings": {"values": [0.5, 0.25], "statistics": {"token_count": USED[0], "truncated": False}}}
            return {"predictions": [row for _ in body["instances"]]}
        if "mbedContent" in path:
            return {"embeddings": [{"values": [0.5, 0.25]}], "embedding": {"values": [0.5, 0.25]}}
        inputs = body["input"] if isinstance(body["input"], list) else [body["input"]]
        data = [{"object": "embedding", "index": n, "embedding": [0.5, 0.25]} for n in range(len(inputs))]
        usage = {"prompt_tokens": USED[0], "total_tokens": USED[0]}
        return {"id": "e", "object": "list", "model": "m", "data": data, "usage": usage}

    def _openai(self, body: dict[str, Any]) -> tuple[bytes, Any]:
        """Groq, Azure and Mistral."""
        reason = self.end or ("tool_calls" if self.tool else "stop")
        base = {"id": "x", "created": 1, "model": "m"}
        if not body.get("stream"):
            message: dict[str, Any] = {"role": "assistant", "content": None if self.tool else "You asked."}
            if self.tool:
                message["tool_calls"] = [CALL]
            if self.refusal:
                message |= {"content": None, "refusal": self.refusal}
            choice = {"index": 0, "message": message, "finish_reason": reason}
            return b"", {**base, "object": "chat.completion", "choices": [choice], "usage": CACHED}
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": "You "}, {"content": "asked."}]
        if self.tool:
            deltas = [{"role": "assistant", "content": "", "tool_calls": [{**CALL, "index": 0}]}]
        if self.refusal:
            deltas = [{"role": "assistant"}, {"refusal": self.refusal}]
        deltas.append({})  # how OpenAI's models, Groq's and Mistral's end
        chunks = []
        for delta in deltas:
            last = delta is deltas[-1]
            choice = {"index": 0, "delta": delta, "finish_reason": reason if last else None}
            groq = last and body["model"] == "up-groq"
            more: dict[str, Any] = {"x_groq": {"id": "q", "usage": OPENAI_USAGE}} if groq else {}
            if last and (body.get("stream_options") or body["model"] not in ("up-azure", LLAMA)):
                more["usage"] = CACHED  # Azure tells it to whom asks for it, and so does Vertex AI of others' models
            chunks.append({**base, "object": "chat.completion.chunk", "choices": [choice], **more})
        return b"text/event-stream", _sse(chunks) + b"data: [DONE]\n\n"

    def _cohere(self, body: dict[str, Any]) -> tuple[bytes, Any]:
        billed = {"input_tokens": USED[0], "output_tokens": USED[1]}
        usage = {"billed_units": billed, "tokens": {**billed, "input_tokens": USED[0] + 487}, "cached_tokens": 3}
        reason = self.end or ("TOOL_CALL" if self.tool else "COMPLETE")
        if not body.get("stream"):
            message: dict[str, Any] = {"role": "assistant", "content": [{"type": "text", "text": "You asked."}]}
            if self.tool:
                thoughts = [{"type": "thinking", "thinking": self.thought}] if self.thought else []
                message = {"role": "assistant", "tool_plan": "I look.", "tool_calls": [CALL], "content": thoughts}
            return b"", {"id": "c", "finish_reason": reason, "message": message, "usage": usage}
        events: list[dict[str, Any]] = [
            {"type": "message-start", "id": "c", "delta": {"message": {"role": "assistant", "content": []}}}
        ]
        if self.tool:
            empty = {**CALL, "function": {"name": "look", "arguments": ""}}
            piece = {"function": {"arguments": '{"what": "it"}'}}
            events += [
                *({"type": "tool-plan-delta", "delta": {"message": {"tool_plan": text}}} for text in ("I ", "look.")),
                {"type": "tool-call-start", "index": 0, "delta": {"message": {"tool_calls": empty}}},
                {"type": "tool-call-delta", "index": 0, "delta": {"message": {"tool_calls": piece}}},
                {"type": "tool-call-end", "index": 0},
            ]
        else:
            start = {"message": {"content": {"type": "text", "text": ""}}}
            events.append({"type": "content-start", "index": 0, "delta": start})
            for text in ("You ", "asked."):
                delta = {"message": {"content": {"text": text}}}
                events.append({"type": "content-delta", "index": 0, "delta": delta})
            events.append({"type": "content-end", "index": 0})
        events.append({"type": "message-end", "id": "c", "delta": {"finish_reason": reason, "usage": usage}})
        named = [b"event: %b\n" % event["type"].encode() + _sse([event]) for event in events]
        return b"text/event-stream", b"".join(named)

    def _bedrock(self, path: str) -> tuple[bytes, Any]:
        usage = {"inputTokens": USED[0], "outputTokens": USED[1], "totalTokens": sum(USED)}
        reason = self.end or ("tool_use" if self.tool else "end_turn")
        use = {"toolUseId": "t1", "name": "look"}
        if not path.endswith("-stream"):
            content = [{"toolUse": {**use, "input": {"what": "it"}}}] if self.tool else [{"text": "You asked."}]
            message = {"message": {"role": "assistant", "content": content}}
            return b"", {"output": message, "stopReason": reason, "usage": usage, "metrics": {"latencyMs": 1}}
        events: list[tuple[str, dict[str, Any]]] = [("messageStart", {"role": "assistant"})]
        if self.tool:
            events.append(("contentBlockStart", {"contentBlockIndex": 0, "start": {"toolUse": use}}))
            delta: Any = {"toolUse": {"input": '{"what": "it"}'}}
            events.append(("contentBlockDelta", {"contentBlockIndex": 0, "delta": delta}))
        else:
            for text in ("You ", "asked."):
                events.append(("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": text}}))
        events += [
            ("contentBlockStop", {"contentBlockIndex": 0}),
            ("messageStop", {"stopReason": reason}),
            ("metadata", {"usage": usage, "metrics": {"latencyMs": 1}}),
        ]
        return b"application/vnd.amazon.eventstream", b"".join(_frame(name, value) for name, value in events)

    def _vertex(self, path: str) -> tuple[bytes, Any]:
        parts: list[dict[str, Any]] = [{"text": "You "}, {"text": "asked."}]
        if self.tool:
            parts = [{"functionCall": {"name": "look", "args": {"what": "it"}}}]
        if self.end:
            parts = [{}]
        usage: dict[str, Any] = {
            "promptTokenCount": USED[0],
            "candidatesTokenCount": USED[1],
            "totalTokenCount": sum(USED),
        }

        if self.drawn:
            told = [{"modality": "TEXT", "tokenCount": USED[1]}, {"modality": "IMAGE", "tokenCount": self.drawn}]
            usage = {**usage, "candidatesTokenCount": USED[1] + self.drawn, "candidatesTokensDetails": told}

        def answer(some: list[dict[str, Any]], reason: str | None) -> dict[str, Any]:
            candidate: dict[str, Any] = {"content": {"role": "model", "parts": some}, "index": 0}
            if reason is not None:
                candidate["finishReason"] = reason
            return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "g", "responseId": "r1"}

        if "streamGenerateContent" not in path:
            return b"", answer(parts, self.end or "STOP")
        each = [answer([part], self.end or "STOP" if part is parts[-1] else None) for part in parts]
        return b"text/event-stream", _sse(each)

    @staticmethod
    def _anthropic() -> dict[str, Any]:
        usage = {"input_tokens": USED[0], "output_tokens": USED[1]}
        content = [{"type": "text", "text": "You asked."}]
        return {
            "id": "m", "type": "message", "role": "assistant", "model": "c", "content": content,
            "stop_reason": "end_turn", "stop_sequence": None, "usage": usage,
        }  # fmt: skip


def _sse(events: list[Any]) -> bytes:
    return b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events)


def _frame(name: str, value: dict[str, Any]) -> bytes:
    """One event as Amazon's binary streams have it."""
    told = {":event-type": name, ":content-type": "application/json", ":message-type": "event"}
    headers = b"".join(
        bytes([len(key)]) + key.encode() + b"\x07" + struct.pack(">H", len(text)) + text.encode()
        for key, text in told.items()
    )
    payload = json.dumps(value).encode()
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    body = prelude + struct.pack(">I", crc32(prelude)) + headers + payload
    return body + struct.pack(">I", crc32(body))


@functools.cache
def machine_key() -> str:
    """Of a service account, the same for all: to make one takes longer than a test."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    none = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, none).decode()


@asynccontextmanager
async def spoken(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[ProviderClients, Wire]]:
    """The library, and a wire on loopback; Vertex AI's credentials are a file whose tokens come from there, too."""
    wire, loop = Wire(), asyncio.get_running_loop()
    server = Server(wire.handle, refusal_body, loop)
    listener = await loop.create_server(server.create_connection, "127.0.0.1", 0)
    wire.port = listener.sockets[0].getsockname()[1]
    account = {
        "type": "service_account", "project_id": "p", "private_key_id": "1", "private_key": machine_key(),
        "client_email": "a@b.example", "client_id": "1", "token_uri": f"http://127.0.0.1:{wire.port}/token",
    }  # fmt: skip
    (folder / "account.json").write_text(json.dumps(account))
    (folder / "secret").write_text(SECRET)
    for name, value in {
        "GOOGLE_APPLICATION_CREDENTIALS": str(folder / "account.json"),
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    providers = ProviderClients()
    try:
        yield providers, wire
    finally:
        await providers.close()
        await close(listener, server)


def place(api: str, wire: Wire, folder: Path) -> ProviderTarget:
    url = f"http://127.0.0.1:{wire.port}{PATHS.get(api, '')}"
    return ProviderTarget("d", api, url, None if api == "vertexai" else f"file:{folder / 'secret'}")


def request_body(api: str, content: Any = "Where is it?", **more: Any) -> bytes:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": content}]
    return json.dumps({"model": f"up-{api}", "messages": messages, "max_tokens": 20, **more}).encode()


async def complete_chat(providers: ProviderClients, where: ProviderTarget, body: bytes) -> ChatCompletion:
    found = await providers.chat(where, body)
    assert isinstance(found, bytes)
    made: ChatCompletion = parse_strictly(ChatCompletion, found)
    return made


async def streamed(providers: ProviderClients, where: ProviderTarget, body: bytes) -> list[ChatCompletionChunk]:
    found = await providers.chat(where, body)
    assert not isinstance(found, bytes)
    return [parse_strictly(ChatCompletionChunk, chunk) async for chunk in found]


def part(kind: str, **image: str) -> Any:
    """One message with one part of that kind."""
    return [{"role": "user", "content": [{"type": kind, "image_url": {"url": IMAGE, **image}}]}]


OTHERS = ["groq", "cohere", "bedrock", "azure", "vertexai"]


async def test_each_provider_is_asked_and_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with spoken(tmp_path, monkeypatch) as (providers, wire):
        for api in OTHERS:
            where = place(api, wire, tmp_path)
            answer = await complete_chat(providers, where, request_body(api, temperature=0.5))
            assert answer.choices[0].message.content == "You asked." and answer.choices[0].finish_reason == "stop", api
            assert answer.id and answer.model, f"{api}: every answer has an id and a model"
            assert answer.usage is not None
            assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == USED, api
            assert wire.asked, f"{api} was asked somewhere else than at its declared address"
            told = request_body(api, stream=True, stream_options={"include_usage": True})  # as gateways ask
            chunks = await streamed(providers, where, told)
            text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
            assert text == "You asked.", (api, chunks)
            ends = [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason]
            assert ends == ["stop"], api
            last = chunks[-1].usage
            assert last is not None and (last.prompt_tokens, last.completion_tokens) == USED, api
        check_requests({path: (body, headers) for path, body, headers in wire.asked})


@pytest.mark.parametrize(("key", "told"), [(True, b"Bearer sk-secret"), (False, None)])
async def test_ollama_gets_its_declared_key_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: bool, told: bytes | None
) -> None:
    """The library sends none, and Ollama's own client what the environment has."""
    monkeypatch.setenv("OLLAMA_API_KEY", "sk-of-somebody-else")
    async with spoken(tmp_path, monkeypatch) as (providers, wire):
        where = place("ollama", wire, tmp_path)
        await complete_chat(
            providers, where if key else msgspec.structs.replace(where, key=None), request_body("ollama")
        )
        assert wire.asked[-1][2].get(b"authorization") == told


@pytest.mark.parametrize(("declared", "asked_at"), [("", "v1beta"), ("/v1beta", "v1beta"), ("/v1/", "v1")])
@pytest.mark.parametrize("trace", [False, True])
async def test_gemini_is_asked_at_the_version_of_its_api_that_its_address_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, declared: str, asked_at: str, trace: bool
) -> None:
    """Google's client asks at v1 otherwise, which has fewer models."""
    async with spoken(tmp_path, monkeypatch) as (providers, wire):
        where = place("gemini", wire, tmp_path)
        where = msgspec.structs.replace(where, url=where.url + declared)
        await providers.chat(where, request_body("gemini"), TRACE if trace else {})
        assert wire.asked[-1][0] == f"/{asked_at}/models/up-gemini:generateContent"


async def test_what_cohere_plans_and_thinks_before_it_calls_a_tool_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library tells the plan in whole answers only, and thoughts in streams only."""
    async with spoken(tmp_path, monkeypatch) as (providers, wire):
        wire.tool, wire.thought, where = True, "Look for it.", place("cohere", wire, tmp_path)
        body = await providers.chat(where, request_body("cohere", tools=[TOOL]))
        assert isinstance(body, bytes)
        message = json.loads(body)["choices"][0]["message"]
        assert message["content"] == "I look." and message["reasoning_content"] == wire.thought
        chunks = await streamed(providers, where, request_body("cohere", tools=[TOOL], stream=True))
        assert "".join(each.choices[0].delta.content or "" for each in chunks if each.choices) == "I look."


@pytest.mark.parametrize(
    ("api", "end"),
    [
        ("cohere", "ERROR"), ("cohere", "TIMEOUT"), ("mistral", "error"),
        ("gemini", "MALFORMED_FUNCTION_CALL"), ("vertexai", "OTHER"), ("bedrock", "malformed_tool_use"),
    ],
)  # fmt: skip
async def test_an_answer_that_a_provider_did_not_finish_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, api: str, end: str
) -> None:
    async with spoken(tmp_path, monkeypatch) as (providers, wire):
        wire.end, where = end, place(api, wire, tmp_path)
        with pytest.raises(ProviderFailure) as caught:
            await complete_chat(providers, where, request_body(api))
        assert caught.value.status == 502 and end in caught.value.body.decode()
        if api in ("gemini", "vertexai"):  # without an end a stream is a broken one
            chunks = await streamed(providers, where, request_body(api, stream=True))
            assert all(each.choices[0].finish_reason is None for each in chunks if each.choices)
        else:
            with pytest.raises(ProviderFailure, match="502"):
                await streamed(providers, where, request_body(api, stream=True))


@pytest.mark.parametrize(
    ("api", "end", "told"),
    [
        ("bedrock", "max_tokens", "length"), ("bedrock", "end_turn", "tool_calls"),
        ("cohere", "MAX_TOKENS", "length"), ("cohere", "COMPLETE", "tool_calls"),
    ],
)  # fmt: skip
async def test_a_call_in_an_answer_that_ended_otherwise_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, api: str, end: str, told: str
) -> None:
    """As in streams: the library leaves it out of whole answers."""
    async with spoken(tmp_path, monkeypatch) as (providers, wire):
        wire.tool, wire.end, where = True, end, place(api, wire, tmp_path)
        (choice,) = (await complete_chat(providers, where, request_body(api, tools=[TOOL]))).choices
        (call,) = choice.message.tool_calls or []
        assert call.type == "function" and call.function.name == "look" and choice.finish_reason == told
        chunks = await streamed(providers, where, request_body(api, tools=[TOOL], stream=True))
        assert [each.choices[0].finish_reason for each in chunks if each.choices][-1] == told


async def test_of_two_caps_the_smaller_one_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with spoken(tmp_path, monkeypatch) as (providers, wire):
        for most, told in ((10, 10), (50, 20)):
            await complete_chat(
                providers, place("cohere", wire, tmp_path), request_body("cohere", max_completion_tokens=most)
            )
            assert wire.body["max_tokens"] == told


@pytest.mark.parametrize("stream", [False, True])
async def test_azure_is_told_the_cap_in_the_field_that_the_model_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    """Reasoning models refuse every request with `max_tokens`; the gateway sends the field of the deployment."""
    async with spoken(tmp_path, monkeypatch) as (providers, wire):
        for field, other in (("max_completion_tokens", "max_tokens"), ("max_tokens", "max_completion_tokens")):
            body = request_body("azure", **{field: 10, other: None}, stream=stream)
            await (streamed if stream else complete_chat)(providers, place("azure", wire, tmp_path), body)
            assert (wire.body[field], other in wire.body) == (10, False)


async def test_that_a_model_at_azure_refused_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with spoken(tmp_path, monkeypatch) as (providers, wire):
        wire.refusal, where = "I cannot.", place("azure", wire, tmp_path)
        assert (await complete_chat(providers, where, request_body("azure"))).choices[0].message.refusal == "I cannot."
        chunks = await streamed(providers, where, request_body("azure", stream=True))
        assert "".join(each.choices[0].delta.refusal or "" for each in chunks if each.choices) == "I cannot."


@pytest.mark.parametrize("stream", [False, True])
async def test_images_that_gemini_draws_in_an_answer_are_charged_as_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    async with spoken(tmp_path, monkeypatch) as (providers, wire):
        wire.drawn, where = 1290, place("gemini", wire, tmp_path)
        made = await providers.chat(where, request_body("gemini", stream=stream))
        last = made if isinstance(made, bytes) else [chunk async for chunk in made][-1]
        found = msgspec.convert(json.loads(last)["usage"], ChatUsage).usage()
        assert found is not None and found.details is not None
        assert (found.output, found.details.output_image) == (1294, 1290)
        rates = Rates(input=0, output=2_500_000, details=RateDetails(output_image=30_000_000))
        assert price.cost(rates, found) == 1290 * 30 + 10


@pytest.mark.parametrize("api", ["gemini", "vertexai"])
async def test_an_answer_of_gemini_without_a_word_is_an_empty_one_with_an_id_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, api: str
) -> None:
    """The library tells no choice, which clients take for granted, and one id for all answers."""
    async with spoken(tmp_path, monkeypatch) as (providers, wire):
        wire.end, where = "STOP", place(api, wire, tmp_path)
        answers = [await complete_chat(providers, where, request_body(api)) for _ in range(2)]
        for answer in answers:
            (choice,) = answer.choices
            assert (choice.message.content, choice.finish_reason) == ("", "stop")
        assert len({answer.id for answer in answers}) == 2


async def test_what_cohere_bills_is_charged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library tells what its model read, with Cohere's own words before each prompt, which nobody pays."""
    async with spoken(tmp_path, monkeypatch) as (providers, wire):
        where = place("cohere", wire, tmp_path)
        answer = await complete_chat(providers, where, request_body("cohere"))
        chunks = await streamed(providers, where, request_body("cohere", stream=True))
        for usage in (answer.usage, chunks[-1].usage):
            assert usage is not None and usage.prompt_tokens_details is not None
            assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (*USED, sum(USED))
            assert usage.prompt_tokens_details.cached_tokens == 3


async def test_an_answer_of_mistral_that_fills_its_context_ends_as_openai_tells_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with spoken(tmp_path, monkeypatch) as (providers, wire):
        wire.end, where = "model_length", place("mistral", wire, tmp_path)
        assert (await complete_chat(providers, where, request_body("mistral"))).choices[0].finish_reason == "length"
        chunks = await streamed(providers, where, request_body("mistral", stream=True))
        assert [each.choices[0].finish_reason for each in chunks if each.choices][-1] == "length"


async def test_what_azure_read_from_its_cache_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library leaves it out, and it was charged as if it had been read anew."""
    async with spoken(tmp_path, monkeypatch) as (providers, wire):
        where = place("azure", wire, tmp_path)
        answer = await complete_chat(providers, where, request_body("azure"))
        chunks = await streamed(
            providers, where, request_body("azure", stream=True, stream_options={"include_usage": True})
        )
        for usage in (answer.usage, chunks[-1].usage):
            assert usage is not None and usage.prompt_tokens_details is not None
            assert (usage.prompt_tokens, usage.prompt_tokens_details.cached_tokens) == (USED[0], 3)


def check_requests(asked: dict[str, Any]) -> None:
    """What each of them was sent, as its API has it."""
    body, headers = asked["/openai/v1/chat/completions"]
    assert headers[b"authorization"] == b"Bearer sk-secret" and body["max_tokens"] == 20
    body, headers = asked["/v2/chat"]
    assert headers[b"authorization"] == b"Bearer sk-secret" and body["messages"][0]["role"] == "system"
    body, headers = asked["/model/up-bedrock/converse"]
    assert headers[b"authorization"] == b"Bearer sk-secret"
    assert body["system"] == [{"text": "Be brief."}] and body["inferenceConfig"]["maxTokens"] == 20
    (path,) = [path for path in asked if path.startswith("/chat/completions?api-version=")]
    assert asked[path][1][b"api-key"] == b"sk-secret" and asked[path][0]["max_tokens"] == 20
    (path,) = [path for path in asked if path.endswith("up-vertexai:generateContent")]
    body, headers = asked[path]
    assert headers[b"authorization"] == b"Bearer adc-token" and "projects/p/locations/europe-west1" in path
    assert body["generationConfig"]["maxOutputTokens"] == 20


async def test_tools_go_to_each_provider_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with spoken(tmp_path, monkeypatch) as (providers, wire):
        wire.tool = True
        for api in OTHERS:
            where = place(api, wire, tmp_path)
            answer = await complete_chat(providers, where, request_body(api, tools=[TOOL]))
            (call,) = answer.choices[0].message.tool_calls or []
            assert call.type == "function" and call.function.name == "look", api
            assert json.loads(call.function.arguments) == {"what": "it"}, api
            assert answer.choices[0].finish_reason == "tool_calls", api
            assert "look" in json.dumps(wire.body), api
            name = arguments = ""
            for chunk in await streamed(providers, where, request_body(api, tools=[TOOL], stream=True)):
                for choice in chunk.choices:
                    for piece in choice.delta.tool_calls or []:
                        assert piece.function is not None
                        name, arguments = (
                            name + (piece.function.name or ""),
                            arguments + (piece.function.arguments or ""),
                        )
            assert name == "look" and json.loads(arguments) == {"what": "it"}, (api, arguments)


def _turn_of_chat(body: Any) -> bool:
    *_, said, result = body["messages"]
    (call,) = said["tool_calls"]
    assert call["function"]["name"] == "look" and json.loads(call["function"]["arguments"]) == {"what": "it"}
    assert result["role"] == "tool" and call["id"] == result["tool_call_id"] == CALL["id"]
    return "here" in json.dumps(result["content"])


def _turn_of_bedrock(body: Any) -> bool:
    _, said, result = body["messages"]
    assert said["content"][-1] == {"toolUse": {"toolUseId": CALL["id"], "name": "look", "input": {"what": "it"}}}
    return bool(result["content"] == [{"toolResult": {"toolUseId": CALL["id"], "content": [{"text": "here"}]}}])


def _turn_of_gemini(body: Any) -> bool:
    _, said, result = body["contents"]
    assert said["role"] == "model" and said["parts"][-1]["functionCall"]["name"] == "look"
    assert said["parts"][-1]["functionCall"]["args"] == {"what": "it"}
    returned = result["parts"][0]["functionResponse"]
    return bool(returned["name"] == "look" and returned["response"] == {"result": "here"})


SECOND_TURNS: dict[str, Callable[[Any], bool]] = {
    "groq": _turn_of_chat,
    "cohere": _turn_of_chat,
    "azure": _turn_of_chat,
    "bedrock": _turn_of_bedrock,
    "vertexai": _turn_of_gemini,
}
"""Whether a request has the call that the model made and what came of it, as that API sends them."""


async def test_what_came_of_a_tool_reaches_each_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(SECOND_TURNS) == set(OTHERS)
    async with spoken(tmp_path, monkeypatch) as (providers, wire):
        messages = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Where is it?"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": CALL["id"], "content": "here"},
        ]
        for api, has in SECOND_TURNS.items():
            where = place(api, wire, tmp_path)
            answer = await complete_chat(providers, where, request_body(api, messages=messages, tools=[TOOL]))
            assert answer.choices[0].message.content == "You asked.", api
            assert has(wire.body), (api, wire.body)
            chunks = await streamed(providers, where, request_body(api, messages=messages, tools=[TOOL], stream=True))
            assert any(c.choices and c.choices[0].finish_reason == "stop" for c in chunks) and has(wire.body), api


async def test_what_a_tool_gave_back_is_no_image_and_always_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library makes images of such a list, and writes `NaN` down as it read it."""
    image = {"type": "image_url", "image_url": {"url": IMAGE}}
    async with spoken(tmp_path, monkeypatch) as (providers, wire):
        for came in (json.dumps([image]), '{"price": NaN}'):
            messages = [
                {"role": "user", "content": "Where is it?"},
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": CALL["id"], "content": came},
            ]
            await complete_chat(
                providers,
                place("gemini", wire, tmp_path),
                request_body("gemini", model="gemini-3-pro", messages=messages),
            )
            (part,) = wire.body["contents"][-1]["parts"]
            told = part["functionResponse"]["response"]
            assert told == {"result": [image] if "image" in came else came} and "parts" not in part["functionResponse"]


async def test_what_a_model_thought_comes_back_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library reads Mistral's under one name only, and left it out under another."""
    signed = {"extra_content": {"mistral": {"signature": "s"}}}
    said = {"role": "assistant", "content": "a", "reasoning_content": "hm", **signed}
    messages = [{"role": "user", "content": "q"}, said, {"role": "user", "content": "and?"}]
    async with spoken(tmp_path, monkeypatch) as (providers, wire):
        await complete_chat(providers, place("mistral", wire, tmp_path), request_body("mistral", messages=messages))
        thought, text = wire.body["messages"][1]["content"]
        assert thought == {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}], "signature": "s"}
        assert text == {"type": "text", "text": "a"}
        await complete_chat(providers, place("groq", wire, tmp_path), request_body("groq", messages=messages))
        assert wire.body["messages"][1] == {"role": "assistant", "content": "a", "reasoning": "hm"}


IMAGES: dict[str, Callable[[Any], bool]] = {
    "groq": lambda body: body["messages"][1]["content"][1]["image_url"]["url"] == IMAGE,
    "azure": lambda body: body["messages"][1]["content"][1]["image_url"]["url"] == IMAGE,
    "mistral": lambda body: body["messages"][1]["content"][1]["image_url"]["url"] == IMAGE,
    "cohere": lambda body: body["messages"][1]["content"][1]["image_url"]["url"] == IMAGE,
    "bedrock": lambda body: body["messages"][0]["content"][1]["image"] == {"format": "png", "source": {"bytes": DATA}},
    "vertexai": lambda body: _inline(body["contents"][0]["parts"][1]),
    "gemini": lambda body: _inline(body["contents"][0]["parts"][1]),
    "anthropic": lambda body: body["messages"][0]["content"][1]["source"]["data"] == DATA,
    "ollama": lambda body: body["messages"][1]["images"] == [DATA],
}
"""Whether a request has the image, as that API sends one."""


def _inline(part: dict[str, Any]) -> bool:
    data = part["inlineData"]
    return base64.b64decode(data["data"]) == base64.b64decode(DATA) and "image/png" in data.values()


async def test_images_reach_each_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with spoken(tmp_path, monkeypatch) as (providers, wire):
        content = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": IMAGE}}]
        for api, has in IMAGES.items():
            answer = await complete_chat(providers, place(api, wire, tmp_path), request_body(api, content))
            assert answer.choices[0].message.content == "You asked.", api
            assert has(wire.body), (api, wire.body)


async def test_embeddings_of_each_provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As LangChain asks for them, with a thousand at once: Cohere refuses more than 96."""
    async with spoken(tmp_path, monkeypatch) as (providers, wire):
        for api in sorted(EMBEDDING_APIS):
            count = 1 if api == "ollama" else 97 if api == "cohere" else 2
            body = json.dumps({"model": f"up-{api}", "input": ["a"] * count, "dimensions": 2}).encode()
            found = parse_strictly(CreateEmbeddingResponse, await providers.embed(place(api, wire, tmp_path), body))
            assert [each.embedding for each in found.data] == [[0.5, 0.25]] * count, api
            assert [each.index for each in found.data] == [*range(count)]
            told = wire.body.get("parameters", {}) | wire.body.get("requests", [{}])[0] | wire.body
            lengths = ("dimensions", "output_dimension", "outputDimensionality", "output_dimensionality")
            assert [told[name] for name in lengths if name in told] == [2], (api, wire.body)
        assert [len(body["texts"]) for path, body, _ in wire.asked if path == "/v2/embed"] == [96, 1]


@pytest.mark.parametrize(("more", "told"), [({"input_type": "search_query"}, "search_query"), ({}, "search_document")])
async def test_cohere_is_told_what_a_text_is_embedded_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, str], told: str
) -> None:
    async with spoken(tmp_path, monkeypatch) as (providers, wire):
        body = json.dumps({"model": "up-cohere", "input": ["a"], **more}).encode()
        await providers.embed(place("cohere", wire, tmp_path), body)
        assert wire.body["input_type"] == told


async def test_embeddings_are_told_in_base64_as_openais_clients_ask_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library told no numbers of Azure's, could not read Mistral's, and asks Bedrock for numbers only."""
    async with spoken(tmp_path, monkeypatch) as (providers, wire):
        for api in sorted(EMBEDDING_APIS):
            body = json.dumps({"model": f"up-{api}", "input": ["a"], "encoding_format": "base64"}).encode()
            (row,) = json.loads(await providers.embed(place(api, wire, tmp_path), body))["data"]
            assert struct.unpack("<2f", base64.b64decode(row["embedding"])) == (0.5, 0.25), api
            assert "encoding_format" not in wire.body, "numbers are what each of them gives"
        with pytest.raises(ProviderFailure) as refused:
            await providers.embed(place("azure", wire, tmp_path), body.replace(b"base64", b"hex"))
        assert refused.value.status == 400 and b"encoding_format hex" in refused.value.body


TRACE = {"traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01", "tracestate": "vendor=1"}


@pytest.mark.parametrize("how", ["whole", "streamed", "embeddings"])
async def test_each_provider_is_part_of_the_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """And the next request, which is part of none, carries nothing of it."""
    every = [*OTHERS, "anthropic", "gemini", "mistral", "ollama"]
    apis = {"whole": every, "streamed": OTHERS, "embeddings": sorted(EMBEDDING_APIS)}[how]
    asyncio.get_running_loop().set_default_executor(ContextThreadPool())
    async with spoken(tmp_path, monkeypatch) as (providers, wire):
        for api in apis:
            where, model = place(api, wire, tmp_path), "gemini-2" if api == "vertexai" else f"up-{api}"
            for trace in (TRACE, {}):
                if how == "embeddings":
                    body = json.dumps({"model": f"up-{api}", "input": ["a"]}).encode()
                    await providers.embed(where, body, trace)
                else:
                    found = await providers.chat(where, request_body(api, model=model, stream=how == "streamed"), trace)
                    if not isinstance(found, bytes):
                        assert [chunk async for chunk in found], api
                headers = wire.asked[-1][2]
                carried = {name: headers[name.encode()].decode() for name in TRACE if name.encode() in headers}
                assert carried == trace, api


@pytest.mark.parametrize(
    ("model", "path"),
    [("mistral-small-2503", "publishers/mistralai/models/mistral-small-2503:"), (LLAMA, "endpoints/openapi/")],
)
async def test_models_of_other_makers_at_vertex_ai_are_asked_there_in_their_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, path: str
) -> None:
    given = {**CALL, "id": "call_of_another_provider"}
    messages = [
        {"role": "user", "content": "Where is it?"}, {"role": "assistant", "content": None, "tool_calls": [given]},
        {"role": "tool", "tool_call_id": given["id"], "content": "here"},
    ]  # fmt: skip
    more = {"model": model, "messages": messages, "tools": [TOOL], "stream_options": {"include_usage": True}}
    async with spoken(tmp_path, monkeypatch) as (providers, wire):
        wire.tool, where = True, place("vertexai", wire, tmp_path)
        for stream in (False, True):
            body = request_body("vertexai", **more, stream=stream)
            if stream:
                usage = (await streamed(providers, where, body))[-1].usage
            else:
                answer = await complete_chat(providers, where, body)
                usage = answer.usage
                assert answer.choices[0].message.tool_calls
            assert usage is not None and usage.prompt_tokens == USED[0], "it is told, and asked for where it has to be"
            target, told, headers = wire.asked[-1]
            assert target.startswith(f"/v1/projects/p/locations/europe-west1/{path}"), target
            assert headers[b"authorization"] == b"Bearer adc-token" and told["tools"] == [TOOL]
            call, result = told["messages"][1:]
            assert call["tool_calls"][0]["id"] == result["tool_call_id"]
            assert (len(result["tool_call_id"]) == 9) == model.startswith("mistral"), "as Mistral takes them"


def test_models_of_other_makers_are_told_apart_as_the_library_does() -> None:
    library = import_module("any_llm.providers.vertexai.vertexai")
    assert set(library._PARTNER_MODEL_PREFIXES) == set(_VERTEX_OPENAI_MODELS)
    assert set(import_module("any_llm.providers.vertexai.mistral").MISTRAL_MODEL_PREFIXES) == set(_MISTRAL_MODELS)


async def test_a_whole_answer_of_claude_may_be_as_long_as_its_deployment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anthropic's client sends nothing that may take longer than it would wait by itself."""
    async with spoken(tmp_path, monkeypatch) as (providers, wire):
        answer = await complete_chat(
            providers, place("anthropic", wire, tmp_path), request_body("anthropic", max_tokens=64_000)
        )
        assert answer.choices[0].message.content == "You asked." and wire.body["max_tokens"] == 64_000


async def test_clients_wait_as_long_as_calls_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some have a minute by default, whatever the times of a deployment and the deadline of a call are."""
    async with spoken(tmp_path, monkeypatch) as (providers, wire):
        for api in ("anthropic", "groq"):
            timeout = (await providers.client(place(api, wire, tmp_path), SECRET)).client.timeout
            assert (timeout.read, timeout.connect) == (READ_TIMEOUT_SECONDS, 5.0), api
        vertex = await providers.client(place("vertexai", wire, tmp_path), SECRET)
        for other in (vertex._mistral_client, vertex._get_partner_provider().client):
            assert (other.timeout.read, other.timeout.connect) == (READ_TIMEOUT_SECONDS, 5.0), "of other makers' models"
        others: dict[str, Callable[[Any], float]] = {
            "bedrock": lambda made: made.client.meta.config.read_timeout,
            "cohere": lambda made: made.client._client_wrapper.get_timeout(),
            "mistral": lambda made: made.client.sdk_configuration.timeout_ms / 1000,
            "azure": lambda made: made.chat_client._client._pipeline._transport.connection_config.read_timeout,
        }
        for api, waits in others.items():
            assert waits(await providers.client(place(api, wire, tmp_path), SECRET)) >= 600, api


async def test_an_address_of_vertex_ai_that_names_no_project_is_never_replaced_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with spoken(tmp_path, monkeypatch) as (providers, wire):
        with pytest.raises(ProviderFailure) as refused:
            await providers.chat(
                ProviderTarget("d", "vertexai", f"http://127.0.0.1:{wire.port}"), request_body("vertexai")
            )
        assert refused.value.status == 503 and b"provider_url" in refused.value.body and not wire.asked


@pytest.mark.parametrize(
    ("api", "more", "name"),
    [
        ("cohere", {"response_format": {"type": "json_object"}}, "response_format"),
        ("cohere", {"tool_choice": "required"}, "tool_choice"),
        ("bedrock", {"seed": 1}, "seed"),
        ("groq", {"logit_bias": {"1": 1}}, "logit_bias"),
        ("azure", {"user": "u"}, "user"),
        ("vertexai", {"logprobs": True}, "logprobs"),
        ("cohere", {"messages": part("input_audio")}, "messages: content of type input_audio"),
        ("bedrock", {"messages": part("file")}, "messages: content of type file"),
        ("anthropic", {"messages": part("image_url", detail="high")}, "messages: image_url.detail"),
    ],
)
async def test_what_each_provider_has_no_word_for_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, api: str, more: dict[str, Any], name: str
) -> None:
    async with spoken(tmp_path, monkeypatch) as (providers, wire):
        with pytest.raises(ProviderFailure) as refused:
            await providers.chat(place(api, wire, tmp_path), request_body(api, **more))
        told = json.loads(refused.value.body)["error"]
        assert refused.value.status == 400 and told["field"] == name and not wire.asked


FUNCTION = [
    {
        "type": "function",
        "function": {
            "name": "mark-tool",
            "description": "mark-description",
            "parameters": {
                "type": "object",
                "properties": {"mark-field": {"type": "string"}},
                "required": ["mark-field"],
            },
        },
    }
]
SCHEMA = {
    "type": "object", "properties": {"mark-field": {"type": "string"}}, "required": ["mark-field"],
    "additionalProperties": False,
}  # fmt: skip
MARKED: dict[str, tuple[Any, str]] = {
    "audio": ({"voice": "mark", "format": "wav"}, "mark"),
    "frequency_penalty": (0.444, "0.444"),
    "function_call": ("auto", "function_call"),
    "functions": ([{"name": "mark", "parameters": {}}], "mark"),
    "logit_bias": ({"4242": 3}, "4242"),
    "logprobs": (True, "logprobs"),
    "max_completion_tokens": (17, "17"),
    "max_tokens": (17, "17"),
    "metadata": ({"mark": "1"}, "mark"),
    "modalities": (["text"], "modal"),
    "moderation": ({"model": "mark"}, "mark"),
    "n": (2, '"n"'),
    "parallel_tool_calls": (False, "arallel"),
    "prediction": ({"type": "content", "content": "mark"}, "mark"),
    "presence_penalty": (0.333, "0.333"),
    "prompt_cache_key": ("mark", "mark"),
    "prompt_cache_options": ({"mode": "mark"}, "mark"),
    "prompt_cache_retention": ("24h", "24h"),
    "reasoning_effort": ("high", "high 24576"),
    "response_format": ({"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}, "mark-field"),
    "safety_identifier": ("mark", "mark"),
    "seed": (424242, "424242"),
    "service_tier": ("priority", "priority"),
    "stop": (["mark"], "mark"),
    "store": (True, "store"),
    "stream_options": ({"include_usage": True}, "usage"),
    "temperature": (0.123, "0.123"),
    "tool_choice": ("required", "required any"),
    "tools": (FUNCTION, "mark-field"),
    "top_logprobs": (3, "logprobs"),
    "top_p": (0.777, "0.777"),
    "user": ("mark", "mark"),
    "verbosity": ("low", "verbosity"),
    "web_search_options": ({"search_context_size": "low"}, "search"),
    "a_field_of_tomorrow": ("mark", "mark"),
}
"""By the fields of a chat: a value, and one of the words by which it is recognised in what a provider gets."""
CHANGES_NOTHING = {"modalities", "parallel_tool_calls", "store", "stream_options"}
"""Not sent where a provider has no word for them: docs/refused.md says why nothing is lost."""


def test_every_field_of_a_chat_is_marked() -> None:
    assert CompletionCreateParamsBase.__annotations__.keys() <= {"model", "messages", "stream", *MARKED}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("api", [*OTHERS, "anthropic"])
async def test_every_field_of_a_chat_reaches_the_provider_or_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, api: str, stream: bool
) -> None:
    async with spoken(tmp_path, monkeypatch) as (providers, wire):
        dropped = set()
        for name, (value, words) in MARKED.items():
            more: dict[str, Any] = {name: value, "stream": stream}
            if name in ("tool_choice", "parallel_tool_calls"):
                more["tools"] = FUNCTION
            wire.asked.clear()
            try:
                await (streamed if stream else complete_chat)(
                    providers, place(api, wire, tmp_path), request_body(api, **more)
                )
            except ProviderFailure as refused:
                told = json.loads(refused.body)["error"]
                assert refused.status == 400 and not wire.asked, (name, told)
                assert told["field"].removesuffix(" in a stream") == name, told
                continue
            sent = json.dumps([body for _, body, _ in wire.asked]).lower()
            if not any(word in sent for word in words.split()):
                dropped.add(name)
        assert dropped <= CHANGES_NOTHING
