"""Other providers by the translating service: real processes, the providers' own clients, fakes in their formats."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import re
import resource
import subprocess
import sys
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from openai import AsyncOpenAI
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from tests.integration import node_client
from tests.integration.gateway_stack import (
    Stack,
    blueprint,
    deployment,
    installation,
    parse_events,
    scripted_upstream,
    workload,
)
from tests.integration.nursery import Worker, fork_program
from tests.integration.patient import RetryingOpenAIHttpClient
from tests.integration.provider_fakes import USAGE, FakeProvider, fake_provider
from tests.integration.sdk_types import parse_strictly

from groundplan.blueprint.model import ProviderKey, Rates, Reliability
from groundplan.core.endpoints import lookup
from groundplan.core.money import PICO
from groundplan.gateway.call.trace import attempt_span
from groundplan.gateway.translate_app import MEMORY_BYTES
from groundplan.testing.database import Database
from groundplan.testing.scripted import Script, ScriptedModel

KINDS = ("gemini", "mistral", "ollama")
CHATS = (*KINDS, "bedrock")
RATES = Rates(input=PICO, output=10 * PICO)
SECRET = "sk-secret"
STRAY = {"ANTHROPIC_CUSTOM_HEADERS": "authorization: Bearer sk-other", "GOOGLE_GENAI_USE_VERTEXAI": "true"}
"""What else providers' own clients read in an environment."""
LOOK: Any = {
    "type": "function",
    "function": {"name": "look", "description": "Look", "parameters": {"type": "object", "properties": {}}},
}
NESTED: Any = {
    "type": "object",
    "properties": {
        "what": {"type": "string", "description": "What", "minLength": 1},
        "where": {"type": "object", "properties": {"x": {"type": "integer", "minimum": 0}}, "required": ["x"]},
        "when": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]},
    },
    "required": ["what"],
    "additionalProperties": False,
}
FLAT: Any = {"type": "object", "properties": {"what": {"type": "string", "enum": ["it"]}}, "required": ["what"]}


@dataclass
class Setup:
    stack: Stack
    fakes: dict[str, FakeProvider]
    claude: ScriptedModel
    own: ScriptedModel
    key: str
    service: Worker | subprocess.Popen[bytes]
    passed: list[str]
    """What went through the proxy: first line and credentials of each request."""

    def client(self) -> AsyncOpenAI:
        return AsyncOpenAI(
            base_url=f"http://127.0.0.1:{self.stack.port}/v1",
            api_key=self.key,
            max_retries=0,
            http_client=RetryingOpenAIHttpClient(),
        )


SERVICE = "groundplan.gateway.translate_app"
FROM_NOTHING = pytest.mark.parametrize("setup", ["from nothing"], indirect=True)
"""The service has loaded no client of a provider before it is asked for one."""


@pytest.fixture
async def setup(database: Database, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Setup]:
    secret = tmp_path / "secret"
    secret.write_text(SECRET + "\n")
    key = f"file:{secret}"
    async with AsyncExitStack() as opened:
        fakes, places = {}, []
        two = tmp_path / "two"
        two.write_text("sk-other")
        pooled = [ProviderKey(key=key), ProviderKey(key=f"file:{two}")]
        for kind in CHATS:
            fakes[kind], port = await opened.enter_async_context(fake_provider(kind))
            slow: dict[str, Any] = {"first_token_ms": 10_000, "idle_ms": 5_000}
            places.append(deployment(kind, port, api=kind, key=key, rates=RATES, **slow))
            if kind == "gemini":
                places.append(deployment("pool", port, api=kind, keys=pooled, rates=RATES, **slow))
            if kind in KINDS:
                places.append(deployment(f"{kind}-v", port, api=kind, key=key, rates=RATES, kind="embeddings", **slow))
        passed, by = await opened.enter_async_context(forwarding())
        claude, one = await opened.enter_async_context(scripted_upstream("claude"))
        own, three = await opened.enter_async_context(scripted_upstream("own"))
        places.append(deployment("claude", one, api="anthropic", key=key, rates=RATES, first_token_ms=10_000))
        way: dict[str, Any] = {"proxy": f"http://127.0.0.1:{by}", "proxy_key": f"file:{tmp_path / 'proxy'}"}
        (tmp_path / "proxy").write_text("ana:se/cret")
        places.append(deployment("beyond", one, api="anthropic", key=key, first_token_ms=10_000, **way))
        places.append(deployment("own", three, rates=RATES))
        stack = await opened.enter_async_context(installation(database, tmp_path))
        chats = [place.name for place in places if place.kind == "chat"]
        made = workload("assistant", chats, embeddings=[f"{kind}-v" for kind in KINDS], attempts=9)
        lasting = Reliability(on_broken_stream="resume")
        lasts = [workload(f"lasting-{kind}", [kind, "own"], reliability=lasting) for kind in CHATS]
        stack.apply(blueprint(1, places, [made, *lasts]))
        with (stack.home.logs / "translate.log").open("ab") as log:
            # proxies that the environment names lead nowhere: they are not asked
            nowhere = dict.fromkeys(("HTTP_PROXY", "https_proxy", "ALL_PROXY"), "http://127.0.0.1:9")
            (tmp_path / "netrc").write_text("default login ana password sk-other\n")
            stray = {**STRAY, "NETRC": str(tmp_path / "netrc"), "AWS_DEFAULT_REGION": "eu-central-1"}
            environment = {**os.environ, **nowhere, **stray}
            arguments = ["--home", str(stack.home.root)]
            service: Worker | subprocess.Popen[bytes]
            if getattr(request, "param", "") == "from nothing":
                command = [sys.executable, "-m", SERVICE, *arguments]
                service = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
            else:
                service = fork_program(SERVICE, arguments, log.fileno(), environment)
        try:
            end = time.monotonic() + 60
            while lookup(stack.home, "translate") is None:
                assert time.monotonic() < end and service.poll() is None
                await asyncio.sleep(0.05)
            stack.start()
            await stack.wait_until_ready()
            yield Setup(stack, fakes, claude, own, stack.key(), service, passed)
        finally:
            await asyncio.to_thread(stack.stop)  # the service waits a while for what a gateway may still ask
            service.terminate()
            service.wait(60)


@asynccontextmanager
async def forwarding() -> AsyncIterator[tuple[list[str], int]]:
    """A proxy that passes plain requests on, what it was asked, and its port."""
    seen: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, _, lines = head.partition("\r\n")
        method, url, version = first.split(" ")
        told = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines.split("\r\n"))}
        seen.append(f"{first} {told.get('proxy-authorization', '')}")
        place, _, path = url.removeprefix("http://").partition("/")
        host, _, port = place.partition(":")
        far, away = await asyncio.open_connection(host, int(port))
        away.write(f"{method} /{path} {version}\r\nconnection: close\r\n{lines}".encode("latin-1"))
        away.write(await reader.readexactly(int(told.get("content-length", "0"))))
        writer.write(await far.read())
        away.close()
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield seen, listener.sockets[0].getsockname()[1]
    finally:
        listener.close()


def ask(kind: str, **more: Any) -> dict[str, Any]:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where is it?"}]
    return {"model": f"scripted/{kind}", "messages": messages, "max_tokens": 20, **more}


async def test_each_provider_answers_in_openais_format(setup: Setup) -> None:
    for kind in (*CHATS, "claude"):
        reply = await setup.stack.post("/v1/chat/completions", setup.key, ask(kind, temperature=0.5))
        assert reply.status == 200, (kind, reply.body)
        found = parse_strictly(ChatCompletion, reply.body)
        text = (found.choices[0].message.content or "").strip()
        assert text == ("You asked: Where is it?" if kind == "claude" else "You asked."), kind
        assert found.choices[0].finish_reason == "stop" and found.usage is not None
        if kind != "claude":
            assert (found.usage.prompt_tokens, found.usage.completion_tokens) == USAGE
            assert reply.json["groundplan"]["cost_usd"] == "0.000051000000"
        assert reply.json["groundplan"]["deployment"] == kind
        assert not reply.json["groundplan"]["estimated"]
    path, body, headers = setup.fakes["gemini"].requests[0]
    assert "publishers" not in path and b"authorization" not in headers, "nothing that only the environment names"
    assert path.endswith("/models/up-gemini:generateContent")
    assert headers[b"x-goog-api-key"] == SECRET.encode()
    assert body["generationConfig"] == {"temperature": 0.5, "maxOutputTokens": 20}
    assert body["systemInstruction"]["parts"] == [{"text": "Be brief."}]
    path, body, headers = setup.fakes["mistral"].requests[0]
    assert path == "/v1/chat/completions" and headers[b"authorization"] == b"Bearer " + SECRET.encode()
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("up-mistral", 20, 0.5)
    path, body, _ = setup.fakes["ollama"].requests[0]
    assert path == "/api/chat" and body["options"]["num_predict"] == 20
    assert setup.claude.last is not None
    assert json.loads(setup.claude.last.body)["max_tokens"] == 20
    assert setup.claude.last.headers[b"x-api-key"] == SECRET.encode()
    assert b"authorization" not in setup.claude.last.headers


def _unpacked(size: int) -> bytes:
    """Compressed, as many bytes of white space."""
    block, packing = 16 << 20, zlib.compressobj(1, zlib.DEFLATED, 31)
    first = packing.compress(b" " * block) + packing.flush(zlib.Z_FULL_FLUSH)
    again = packing.compress(b" " * block) + packing.flush(zlib.Z_FULL_FLUSH)  # begins anew, so it may be repeated
    return first + again * (size // block - 1)


async def test_a_decompression_bomb_fails_only_its_call(setup: Setup) -> None:
    assert resource.prlimit(setup.service.pid, resource.RLIMIT_DATA) == (MEMORY_BYTES, MEMORY_BYTES)
    for kind in ("gemini", "mistral"):
        asked = {"model": f"scripted/{kind}"}
        assert (await setup.stack.chat(setup.key, **asked)).status == 200
        status = Path(f"/proc/{setup.service.pid}/status").read_text()
        more = (int(status.partition("VmData:")[2].split()[0]) << 10) + (256 << 20)
        resource.prlimit(setup.service.pid, resource.RLIMIT_DATA, (more, MEMORY_BYTES))
        setup.fakes[kind].compressed_body = _unpacked(2 << 30)
        reply = await setup.stack.chat(setup.key, **asked)
        assert reply.status in (502, 503) and reply.code == "upstream_failed", reply
        setup.fakes[kind].compressed_body = b""
        assert setup.service.poll() is None
        async with asyncio.timeout(30):
            while (await setup.stack.chat(setup.key, **asked)).status != 200:  # noqa: ASYNC110 -- its breaker may be open
                await asyncio.sleep(0.2)


async def test_a_provider_is_part_of_the_callers_trace_with_the_attempt_as_parent(setup: Setup) -> None:
    trace, span = "1" * 32, "2" * 16
    headers = {"traceparent": f"00-{trace}-{span}-01", "tracestate": "vendor=1"}
    for kind in (*KINDS, "claude"):
        reply = await setup.stack.post("/v1/chat/completions", setup.key, ask(kind), **headers)
        assert reply.status == 200, (kind, reply.body)
        if kind == "claude":
            assert setup.claude.last is not None
            sent = setup.claude.last.headers
        else:
            sent = setup.fakes[kind].requests[-1][2]
        version, traced, parent, flags = sent[b"traceparent"].decode().split("-")
        assert (version, traced, flags, sent[b"tracestate"]) == ("00", trace, "01", b"vendor=1")
        call = reply.json["groundplan"]["call_id"]
        assert parent == attempt_span(UUID(call), 0).hex()
        assert sent[b"x-request-id"].decode().startswith(call), kind


async def test_each_provider_streams_in_openais_format(setup: Setup) -> None:
    for kind in (*CHATS, "claude"):
        body = ask(kind, stream=True, stream_options={"include_usage": True})
        reply = await setup.stack.post("/v1/chat/completions", setup.key, body)
        assert reply.status == 200, (kind, reply.body)
        *chunks, done = parse_events(reply.body)
        assert done == "[DONE]"
        found = [parse_strictly(ChatCompletionChunk, json.dumps(chunk)) for chunk in chunks]
        text = "".join(c.choices[0].delta.content or "" for c in found if c.choices)
        assert text.strip() == ("You asked: Where is it?" if kind == "claude" else "You asked."), kind
        assert [c.choices[0].finish_reason for c in found if c.choices and c.choices[0].finish_reason] == ["stop"]
        assert found[-1].usage is not None and not found[-1].choices
        if kind != "claude":
            assert (found[-1].usage.prompt_tokens, found[-1].usage.completion_tokens) == USAGE, kind
        else:
            assert found[-1].usage.completion_tokens == 5 and found[-1].usage.prompt_tokens > 0
        assert not chunks[-1]["groundplan"]["estimated"]


@pytest.mark.parametrize("breaks", ["cut", "ends", "garbage"])
async def test_a_broken_provider_stream_is_reported_or_resumed(setup: Setup, breaks: str) -> None:
    """As the contract of streams says, whoever made the answer, and whichever API the caller speaks."""
    for kind in CHATS:
        setup.fakes[kind].break_mode, model = breaks, {"model": f"scripted/{kind}"}
        setup.stack.at_words = (b"You ", setup.fakes[kind].may_break.set)
        question: Any = {"messages": [{"role": "user", "content": "Where is it?"}], "max_tokens": 20}
        asked: Any = {"chat/completions": question, "messages": question}
        asked["responses"] = {"input": "Where is it?", "max_output_tokens": 20}
        for path, body in asked.items():
            reply = await setup.stack.post(f"/v1/{path}", setup.key, {**model, **body, "stream": True})
            assert reply.status == 200 and b"You " in reply.body and b"[DONE]" not in reply.body, (kind, path)
            last = parse_events(reply.body)[-1]
            assert "stream_broken" in (last.get("code"), last.get("error", {}).get("code")), (kind, path, last)
        setup.own.script = Script(say="You asked.")
        body = {"model": "auto", **question, "stream": True}
        reply = await setup.stack.post("/v1/chat/completions", setup.stack.key(f"lasting-{kind}"), body)
        *chunks, done = parse_events(reply.body)
        text = "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks if c.get("choices"))
        assert (done, text) == ("[DONE]", "You asked."), kind
        assert chunks[-1]["groundplan"]["deployment"] == "own"


async def test_errors_before_the_first_word_keep_their_status(setup: Setup) -> None:
    """Of the head of an answer nothing is said, too, before there is anything of it."""
    setup.claude.script = Script(mode="error_event", at=0)
    reply = await setup.stack.post("/v1/chat/completions", setup.key, {**ask("claude"), "stream": True})
    assert reply.code == "upstream_failed" and "the upstream answered 502" in reply.json["error"]["message"], reply.body


async def test_tool_definitions_and_calls_are_translated_both_ways(setup: Setup) -> None:
    for upstream in setup.fakes.values():
        upstream.tool_calls = 1
    setup.claude.script = Script(tool=True)
    async with setup.client() as client:
        for kind in (*CHATS, "claude"):
            for stream in (False, True):
                asked = ask(kind, tools=[LOOK])
                if not stream:
                    answer = await client.chat.completions.create(**asked)
                    calls = answer.choices[0].message.tool_calls or []
                    name, arguments = calls[0].function.name, calls[0].function.arguments
                else:
                    name = arguments = ""
                    async for chunk in await client.chat.completions.create(**asked, stream=True):
                        for choice in chunk.choices:
                            for call in choice.delta.tool_calls or []:
                                assert call.function is not None
                                name += call.function.name or ""
                                arguments += call.function.arguments or ""
                assert name == "look" and json.loads(arguments) == {"what": "it"}, (kind, stream)
    assert setup.fakes["gemini"].body["tools"][0]["functionDeclarations"][0]["name"] == "look"


async def test_strict_tools_reach_providers_that_cannot_be_bound_by_them(setup: Setup) -> None:
    """OpenAI's agents and other frameworks say of every tool that it is strict, in chat and in Responses."""
    strict = {**FLAT, "additionalProperties": False}
    for kind in ("gemini", "bedrock", "claude", "mistral"):
        told = [] if kind == "mistral" else ["tools.strict"]
        function = {"name": "look", "description": "Look", "parameters": strict, "strict": True}
        chat = ask(kind, tools=[{"type": "function", "function": function}])
        responses = {"model": f"scripted/{kind}", "input": "Where is it?", "tools": [{"type": "function", **function}]}
        for path, asked in (("chat/completions", chat), ("responses", responses)):
            reply = await setup.stack.post(f"/v1/{path}", setup.key, asked)
            assert reply.status == 200, (kind, path, reply.body)
            assert reply.json["groundplan"].get("left_out", []) == told, (kind, path)
            streamed = await setup.stack.post(f"/v1/{path}", setup.key, {**asked, "stream": True})
            (facts,) = (event["groundplan"] for event in parse_events(streamed.body) if "groundplan" in event)
            assert facts.get("left_out", []) == told, (kind, path)
    assert setup.claude.last is not None
    sent = json.loads(setup.claude.last.body)["tools"]
    assert sent == [{"name": "look", "description": "Look", "input_schema": strict}]
    assert setup.fakes["mistral"].body["tools"][0]["function"]["strict"] is True


async def test_official_clients_put_the_text_of_a_providers_stream_together(setup: Setup) -> None:
    """Every chunk that says a role is put together with the one before."""
    for kind in (*CHATS, "claude"):
        async with setup.client() as client, client.chat.completions.stream(**ask(kind)) as stream:
            found = await stream.get_final_completion()
        assert found.choices[0].message.role == "assistant" and found.choices[0].message.content, kind
        assert found.model not in ("", "None"), kind


async def test_official_clients_put_the_calls_of_a_providers_stream_together(setup: Setup) -> None:
    for upstream in setup.fakes.values():
        upstream.tool_calls = 2
    setup.claude.script = Script(tool=True)
    for kind in (*CHATS, "claude"):
        many = 1 if kind == "claude" else 2
        reply = await setup.stack.post(
            "/v1/chat/completions",
            setup.key,
            ask(kind, tools=[LOOK], stream=True, stream_options={"include_usage": True}),
        )
        *chunks, done = parse_events(reply.body)
        choices = [choice for chunk in chunks for choice in chunk["choices"]]
        numbers = [call["index"] for choice in choices for call in choice["delta"].get("tool_calls") or ()]
        assert done == "[DONE]" and len({(chunk["id"], chunk["created"]) for chunk in chunks}) == 1, kind
        assert chunks[0]["created"] > 0 and choices[0]["delta"]["role"] == "assistant", kind
        assert sorted(set(numbers)) == list(range(many)), kind
        assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["tool_calls"], kind
        assert choices[-1]["finish_reason"] and chunks[-1]["usage"]["prompt_tokens"], kind
        async with setup.client() as client, client.chat.completions.stream(**ask(kind, tools=[LOOK])) as stream:
            choice = (await stream.get_final_completion()).choices[0]
        calls = [(call.function.name, json.loads(call.function.arguments)) for call in choice.message.tool_calls or ()]
        assert (choice.finish_reason, calls) == ("tool_calls", [("look", {"what": "it"})] * many), kind


@node_client.needed
async def test_nodes_official_client_puts_a_providers_stream_together(setup: Setup) -> None:
    for upstream in setup.fakes.values():
        upstream.tool_calls = 2
    setup.claude.script = Script(tool=True)
    url = f"http://127.0.0.1:{setup.stack.port}/v1"
    for kind in (*CHATS, "claude"):
        found = json.loads(await node_client.run_script("node_calls.cjs", url, setup.key, f"scripted/{kind}"))
        calls = [["look", {"what": "it"}]] * (1 if kind == "claude" else 2)
        assert found == {"role": "assistant", "reason": "tool_calls", "calls": calls}, kind


async def test_embeddings_are_translated(setup: Setup) -> None:
    for kind in KINDS:
        body = {"model": f"scripted/{kind}-v", "input": ["a", "b"]}
        reply = await setup.stack.post("/v1/embeddings", setup.key, body)
        assert reply.status == 200, (kind, reply.body)
        found = parse_strictly(CreateEmbeddingResponse, reply.body)
        assert [len(each.embedding) for each in found.data] == [2, 2], kind
        facts = reply.json["groundplan"]  # Gemini says nothing of tokens here, and what it reads is not free
        assert facts["estimated"] == (kind == "gemini") and float(facts["cost_usd"]) > 0, (kind, facts)


async def test_parameters_without_effect_are_neither_refused_nor_sent(setup: Setup) -> None:
    """As clients send it with every request."""
    idle = {
        "presence_penalty": 0, "frequency_penalty": 0.0, "top_p": 1, "logprobs": False, "parallel_tool_calls": True,
        "service_tier": "auto", "store": False, "tool_choice": "auto", "logit_bias": {}, "metadata": {}, "seed": None,
    }  # fmt: skip
    for kind in ("gemini", "mistral", "ollama", "bedrock", "claude"):
        for more in (idle, {"store": True, "service_tier": "default"}):
            served = await setup.stack.post("/v1/chat/completions", setup.key, ask(kind, **more))
            assert served.status == 200, (kind, served.body)


async def test_parameters_unknown_to_a_provider_are_refused_by_name_or_routed_elsewhere(setup: Setup) -> None:
    refusals: list[tuple[str, dict[str, Any]]] = [
        ("gemini", {"logit_bias": {"5": 1}}),
        ("gemini", {"logprobs": True}),
        ("mistral", {"user": "u"}),
        ("ollama", {"tool_choice": "required"}),
        ("claude", {"seed": 5}),
        ("claude", {"later_field": 1}),
        ("ollama", {"n": 2}),
        ("bedrock", {"response_format": {"type": "json_object"}}),
    ]
    for kind, more in refusals:
        refused = await setup.stack.post("/v1/chat/completions", setup.key, ask(kind, **more))
        assert (refused.status, refused.code) == (400, "field_untranslatable"), refused.body
        assert refused.json["error"]["field"] == next(iter(more))
    served = await setup.stack.post("/v1/chat/completions", setup.key, {**ask("x"), "model": "auto", "later_field": 1})
    assert served.json["groundplan"]["deployment"] == "own"
    assert setup.own.last is not None and json.loads(setup.own.last.body)["later_field"] == 1
    assert not any(upstream.requests for upstream in setup.fakes.values()) and setup.claude.counted == 0


async def test_errors_keep_their_status_and_no_secret(setup: Setup) -> None:
    for kind in CHATS:
        upstream = setup.fakes[kind]
        upstream.status = 400
        reply = await setup.stack.post("/v1/chat/completions", setup.key, ask(kind))
        assert reply.status == 400, (kind, reply.body)
        assert SECRET.encode() not in reply.body and b"sk-" not in reply.body
        upstream.status, before = 500, len(upstream.requests)
        reply = await setup.stack.post("/v1/chat/completions", setup.key, ask(kind))
        assert reply.code == "upstream_failed" and "500" in reply.json["error"]["message"], (kind, reply.body)
        assert len(upstream.requests) == before + 1, f"{kind} was asked again behind our back"
    await asyncio.sleep(0.5)
    log = (setup.stack.home.logs / "translate.log").read_text() + (setup.stack.home.logs / "gateway.log").read_text()
    assert SECRET not in log


async def test_a_key_repeated_by_a_provider_is_not_passed_on(setup: Setup, tmp_path: Path) -> None:
    secret = "sk-secret-0123456789"
    (tmp_path / "secret").write_text(secret)
    messages = [{"role": "user", "content": f"is it {secret} or not"}]
    for stream in (False, True):
        found = await setup.stack.post(
            "/v1/chat/completions", setup.key, {"model": "scripted/claude", "messages": messages, "stream": stream}
        )
        assert found.status == 200 and setup.claude.last is not None
        assert setup.claude.last.headers[b"x-api-key"] == secret.encode()
        assert secret.encode() not in found.body and b"[hidden]" in found.body, found.body


async def test_messages_requests_reach_other_providers(setup: Setup) -> None:
    body = {"model": "scripted/gemini", "max_tokens": 20, "messages": [{"role": "user", "content": "Where is it?"}]}
    reply = await setup.stack.post("/v1/messages", setup.key, body)
    assert reply.status == 200, reply.body
    assert reply.json["content"][0]["text"] == "You asked."
    assert (reply.json["usage"]["input_tokens"], reply.json["usage"]["output_tokens"]) == USAGE


async def test_requests_of_codex_reach_other_providers(setup: Setup) -> None:
    """With every request, whatever its model is: nothing of an answer depends on it."""
    asks = {
        "input": "Where is it?", "instructions": "Be brief.", "store": False, "include": [], "tool_choice": "auto",
        "prompt_cache_key": "thread", "prompt_cache_retention": "24h", "client_metadata": {"thread_id": "t"},
    }  # fmt: skip
    for kind in (*CHATS, "claude"):
        reply = await setup.stack.post("/v1/responses", setup.key, {"model": f"scripted/{kind}", **asks})
        assert reply.status == 200, (kind, reply.body)
        assert reply.json["groundplan"]["left_out"] == ["prompt_cache_key", "prompt_cache_retention"], kind
    told = await setup.stack.post("/v1/responses", setup.key, {"model": "scripted/own", **asks})
    assert "left_out" not in told.json["groundplan"] and setup.own.last is not None
    assert json.loads(setup.own.last.body)["prompt_cache_key"] == "thread"


async def test_requests_of_claude_code_reach_other_providers(setup: Setup) -> None:
    """With every request, in the words of its version 2.1.332."""
    look = {"name": "look", "description": "Look", "input_schema": {"type": "object", "properties": {}}}
    cached = {"cache_control": {"type": "ephemeral"}}
    asks = {
        "max_tokens": 20, "system": [{"type": "text", "text": "Be brief.", **cached}], "tools": [{**look, **cached}],
        "metadata": {"user_id": '{"device_id":"' + "0" * 64 + '"}'}, "thinking": {"type": "adaptive"},
        "output_config": {"effort": "high"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Where is it?", **cached}]}],
    }  # fmt: skip
    for kind in CHATS:
        reply = await setup.stack.post("/v1/messages?beta=true", setup.key, {"model": f"scripted/{kind}", **asks})
        assert reply.status == 200, (kind, reply.body)
        left_out = ["cache_control", "metadata.user_id", "output_config.effort"]
        assert reply.json["groundplan"]["left_out"] == left_out, kind
    told = await setup.stack.post("/v1/messages", setup.key, {"model": "scripted/own", **asks})
    assert told.json["groundplan"]["left_out"] == ["cache_control", "output_config.effort"]
    assert setup.own.last is not None
    assert len(json.loads(setup.own.last.body)["user"]) == 64


async def test_a_disconnecting_client_ends_the_providers_answer_within_100_ms(setup: Setup) -> None:
    """Of a stream, also one that has not begun, and of a whole answer."""
    ways = [(True, True), (True, False), (False, False)]
    for kind, (stream, seen) in itertools.product(CHATS, ways):
        setup.fakes[kind].pause, setup.fakes[kind].delay, best = 3.0, 0.0 if seen else 3.0, 1.0
        for _ in range(25):  # the machine may be busy elsewhere; once is proof that nothing waits
            best = min(best, await _leaves(setup, kind, stream=stream, seen=seen))
            if best < 0.1:
                break
        assert best < 0.1, (kind, stream, seen)


async def _leaves(setup: Setup, kind: str, *, stream: bool, seen: bool) -> float:
    """Seconds from the client's disconnect to the provider's; `seen`: the client has a part of the answer."""
    provider = setup.fakes[kind]
    before, asked = provider.abandoned_count, len(provider.requests)
    reader, writer = await asyncio.open_connection("127.0.0.1", setup.stack.port)
    data = json.dumps(ask(kind, stream=stream)).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {setup.key}\r\n"
    writer.write(head.encode() + b"content-length: %d\r\n\r\n" % len(data) + data)
    if seen:
        await asyncio.wait_for(reader.readuntil(b"data: "), 60)
    async with asyncio.timeout(60):
        while len(provider.requests) == asked:  # noqa: ASYNC110 -- what is waited for has no event
            await asyncio.sleep(0.005)
    left = time.monotonic()
    writer.close()
    async with asyncio.timeout(10):  # before the answer would be over by itself
        while provider.abandoned_count == before:  # noqa: ASYNC110 -- what is waited for has no event
            await asyncio.sleep(0.005)
    return time.monotonic() - left


async def test_without_the_service_nothing_is_billed_and_the_next_deployment_answers(setup: Setup) -> None:
    setup.service.terminate()
    setup.service.wait(20)
    reply = await setup.stack.post("/v1/chat/completions", setup.key, {**ask("x"), "model": "auto"})
    assert reply.status == 200, reply.body
    assert reply.json["groundplan"]["deployment"] == "own"
    assert reply.json["groundplan"]["cost_usd"] == reply.headers["groundplan-cost-usd"]
    assert not any(upstream.requests for upstream in setup.fakes.values()) and setup.claude.counted == 0


def conversation(kind: str, **more: Any) -> dict[str, Any]:
    """A second turn, in the shapes that official clients have."""
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"what": "it"}'}}
    said = {"role": "assistant", "content": [{"type": "text", "text": "I look."}], "tool_calls": [call]}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "system", "content": [{"type": "text", "text": "Be kind."}]},
        {"role": "user", "content": [{"type": "text", "text": "Where"}, {"type": "text", "text": "is it?"}]},
        {**said, "refusal": None},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "here"}]},
    ]
    schema = FLAT if kind == "ollama" else NESTED
    tools = [{"type": "function", "function": {"name": "look", "description": "Look", "parameters": schema}}]
    return {**ask(kind), "messages": messages, "tools": tools, **more}


async def test_a_conversation_with_tools_reaches_each_provider_complete(setup: Setup) -> None:
    named = {"type": "function", "function": {"name": "look"}}
    choices: dict[str, Any] = {"ollama": {}, "bedrock": {"tool_choice": "required"}}
    for kind in (*CHATS, "claude"):
        more = choices.get(kind, {"tool_choice": named})
        reply = await setup.stack.post("/v1/chat/completions", setup.key, conversation(kind, **more))
        assert reply.status == 200, (kind, reply.body)
        parse_strictly(ChatCompletion, reply.body)
    body = setup.fakes["gemini"].body
    assert body["systemInstruction"]["parts"] == [{"text": "Be brief.\n\nBe kind."}]
    asked, said, result = body["contents"]
    assert asked["parts"] == [{"text": "Where"}, {"text": "is it?"}]
    assert said["role"] == "model" and said["parts"][0] == {"text": "I look."}
    assert said["parts"][1]["functionCall"]["args"] == {"what": "it"}
    assert result["parts"][0]["functionResponse"]["response"] == {"result": "here"}
    assert body["tools"][0]["functionDeclarations"][0]["parameters_json_schema"] == NESTED
    assert body["toolConfig"]["functionCallingConfig"] == {"mode": "ANY", "allowedFunctionNames": ["look"]}
    body = setup.fakes["mistral"].body
    assert [message["content"] for message in body["messages"][:2]] == ["Be brief.", "Be kind."]
    assert body["messages"][3]["content"] == "I look."
    assert json.loads(body["messages"][3]["tool_calls"][0]["function"]["arguments"]) == {"what": "it"}
    (called,) = body["messages"][3]["tool_calls"]
    assert body["messages"][4]["content"] == "here" and body["messages"][4]["tool_call_id"] == called["id"]
    assert re.fullmatch("[a-zA-Z0-9]{9}", called["id"]), "Mistral takes no others"
    assert body["tools"][0]["function"]["parameters"] == NESTED
    assert body["tool_choice"]["function"]["name"] == "look"
    body = setup.fakes["ollama"].body
    assert [message["content"] for message in body["messages"]] == [
        "Be brief.", "Be kind.", "Where is it?", "I look.", "here"
    ]  # fmt: skip
    assert body["messages"][3]["tool_calls"][0]["function"]["arguments"] == {"what": "it"}
    assert body["messages"][4]["tool_name"] == "look"
    assert body["tools"][0]["function"]["parameters"]["properties"] == FLAT["properties"]
    body = setup.fakes["bedrock"].body
    assert body["system"] == [{"text": "Be brief.\n\nBe kind."}]
    assert body["messages"][0]["content"] == [{"text": "Where"}, {"text": "is it?"}]
    assert body["messages"][1]["content"] == [
        {"text": "I look."}, {"toolUse": {"toolUseId": "c1", "name": "look", "input": {"what": "it"}}}
    ]  # fmt: skip
    assert body["messages"][2]["content"] == [{"toolResult": {"toolUseId": "c1", "content": [{"text": "here"}]}}]
    assert body["toolConfig"]["tools"][0]["toolSpec"]["inputSchema"] == {"json": NESTED}
    assert body["toolConfig"]["toolChoice"] == {"any": {}}
    assert setup.claude.last is not None
    body = json.loads(setup.claude.last.body)
    assert body["system"] == "Be brief.\n\nBe kind."
    assert body["messages"][1]["content"] == [
        {"type": "text", "text": "I look."}, {"type": "tool_use", "id": "c1", "name": "look", "input": {"what": "it"}}
    ]  # fmt: skip
    assert body["messages"][2]["content"] == [{"type": "tool_result", "tool_use_id": "c1", "content": "here"}]
    assert body["tools"][0]["input_schema"]["properties"] == NESTED["properties"]
    assert body["tool_choice"]["name"] == "look"


async def test_the_format_of_an_answer_reaches_each_provider(setup: Setup) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "place", "schema": FLAT, "strict": True}}
    for kind in (*KINDS, "claude"):
        reply = await setup.stack.post("/v1/chat/completions", setup.key, ask(kind, response_format=wanted))
        assert reply.status == 200, (kind, reply.body)
    assert setup.fakes["gemini"].body["generationConfig"]["responseJsonSchema"] == FLAT
    assert setup.fakes["mistral"].body["response_format"]["json_schema"]["schema"] == FLAT
    assert setup.fakes["ollama"].body["format"] == FLAT
    assert setup.claude.last is not None
    assert json.loads(setup.claude.last.body)["output_config"]["format"]["schema"]["required"] == ["what"]


async def test_an_unconvertible_request_is_the_callers_error_and_opens_no_breaker(setup: Setup) -> None:
    body = conversation("gemini")
    body["messages"][3]["tool_calls"][0]["function"]["arguments"] = "{"
    for _ in range(4):
        refused = await setup.stack.post("/v1/chat/completions", setup.key, body)
        assert (refused.status, refused.code) == (400, "field_untranslatable"), refused.body
        assert refused.json["error"]["field"] == "messages: tool_calls.function.arguments"
    # what only the client of the provider finds
    for _ in range(4):
        refused = await setup.stack.post("/v1/chat/completions", setup.key, ask("bedrock", top_p="high"))
        assert (refused.status, refused.code) == (400, "field_untranslatable"), refused.body
    for kind in ("gemini", "bedrock"):
        assert not setup.fakes[kind].requests
        reply = await setup.stack.post("/v1/chat/completions", setup.key, ask(kind))
        assert reply.json["groundplan"]["cost_usd"] == "0.000051000000"
    untyped = await setup.stack.post("/v1/chat/completions", setup.key, ask("gemini", tools=[{"google_search": {}}]))
    assert (untyped.status, untyped.code) == (400, "field_unsupported")


@pytest.mark.parametrize("status", [401, 429])
async def test_a_refused_key_is_paused_and_the_other_one_is_used(setup: Setup, status: int) -> None:
    gemini = setup.fakes["gemini"]
    gemini.refused_keys = {SECRET.encode(): status}
    replies = [await setup.stack.post("/v1/chat/completions", setup.key, ask("pool")) for _ in range(4)]
    assert [reply.status for reply in replies] == [200] * 4, replies[0].body
    keys = [headers[b"x-goog-api-key"] for _, _, headers in gemini.requests]
    assert keys == [SECRET.encode(), *[b"sk-other"] * 4]
    assert replies[0].json["groundplan"]["cost_usd"] == "0.000051000000"
    gemini.refused_keys = {b"sk-other": status}
    began = time.monotonic()
    refused = await setup.stack.post("/v1/chat/completions", setup.key, ask("pool"))
    assert (refused.status, refused.code) == (503, "upstream_failed") and time.monotonic() - began < 20
    assert len(gemini.requests) == 6, "a key was asked again and again"


async def test_a_blocking_client_holds_up_no_other_stream(setup: Setup) -> None:
    for kind in ("bedrock", "mistral"):  # a client is loaded as it is used for the first time
        assert (await setup.stack.post("/v1/chat/completions", setup.key, ask(kind))).status == 200
    setup.fakes["bedrock"].pause = 0.7
    body = ask("bedrock", stream=True)
    slow = [asyncio.create_task(setup.stack.post("/v1/chat/completions", setup.key, body)) for _ in range(3)]
    async with asyncio.timeout(60):
        while len(setup.fakes["bedrock"].requests) < 4:  # noqa: ASYNC110 -- what is waited for has no event
            await asyncio.sleep(0.02)
    took = []
    for _ in range(3):
        began = time.monotonic()
        assert (await setup.stack.post("/v1/chat/completions", setup.key, ask("mistral"))).status == 200
        took.append(time.monotonic() - began)
    assert min(took) < 0.5 and not any(each.done() for each in slow), f"they waited for another's stream: {took}"
    for reply in await asyncio.gather(*slow):
        text = "".join(
            c["choices"][0]["delta"].get("content") or "" for c in parse_events(reply.body)[:-1] if c["choices"]
        )
        assert text == "You asked."


async def test_chat_to_anthropic_goes_through_its_declared_proxy(setup: Setup) -> None:
    reply = await setup.stack.post("/v1/chat/completions", setup.key, ask("beyond"))
    assert reply.status == 200, reply.body
    assert len(setup.passed) == 1 and setup.passed[0].startswith("POST http://127.0.0.1:")
    assert setup.passed[0].endswith(f"Basic {base64.b64encode(b'ana:se/cret').decode()}")


class Waited:
    """Seconds that threads of these processes were ready to run and others had the processors."""

    def __init__(self, *pids: int) -> None:
        self._pids, self._threads = pids, dict[Path, int]()

    def seconds(self) -> float:
        for pid in self._pids:
            for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                with suppress(OSError):  # it has ended meanwhile
                    self._threads[path] = int(path.read_text().split()[1])
        return sum(self._threads.values()) / 1e9


@FROM_NOTHING
async def test_loading_a_provider_client_blocks_no_other_call(setup: Setup) -> None:
    assert (await setup.stack.post("/v1/chat/completions", setup.key, ask("bedrock"))).status == 200
    setup.fakes["bedrock"].pause = 0.15
    reader, writer = await asyncio.open_connection("127.0.0.1", setup.stack.port)
    data = json.dumps(ask("bedrock", stream=True)).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {setup.key}\r\n"
    writer.write(head.encode() + b"content-length: %d\r\n\r\n" % len(data) + data)
    await asyncio.wait_for(reader.readuntil(b"data: "), 60)
    first = asyncio.create_task(setup.stack.post("/v1/chat/completions", setup.key, ask("gemini")))
    others = Waited(setup.service.pid, setup.stack.workers[0].pid, os.getpid())
    at, longest, got = time.monotonic() - others.seconds(), 0.0, b""
    while b"[DONE]" not in got:
        got += await asyncio.wait_for(reader.read(65536), 60)
        now = time.monotonic() - others.seconds()
        longest, at = max(longest, now - at), now
    writer.close()
    assert (await first).status == 200
    assert longest < 0.9, f"a stream stood still for {longest:.1f} s"  # four events of its end say nothing: 0.6 s
