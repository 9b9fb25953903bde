"""Small HTTP servers that answer in the wire formats of Gemini, Mistral, Ollama and Bedrock, and record
requests."""

from __future__ import annotations

import asyncio
import json
import struct
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.closing import close

from groundplan.gateway.http.errors import refusal_body
from groundplan.gateway.http.server import Request, Response, Server

SSE = b"content-type: text/event-stream\r\n"
USAGE = (11, 4)
"""Tokens of prompt and answer that every fake reports."""


@dataclass
class FakeProvider:
    """A provider of the given `kind`. `status`: of every answer (an error if not 200); `pause`: seconds between events;
    `refused_keys`: key -> the status that its requests are answered with."""

    kind: str
    status: int = 200
    pause: float = 0.0
    delay: float = 0.0
    """Seconds before an answer begins."""
    tool_calls: int = 0
    """Number of tools that the answer calls; streams of Bedrock and Anthropic have some text before them."""
    refused_keys: dict[bytes, int] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, Any], dict[bytes, bytes]]] = field(default_factory=list)
    compressed_body: bytes = b""
    """If not empty, the answer: a body that is already compressed with gzip."""
    abandoned_count: int = 0
    """Number of answers that were not read to their end."""
    break_mode: str = ""
    """How a stream breaks after its first words: `cut`, `stall`, `garbage`, or `ends` as if it were complete."""
    may_break: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the client has the first words, for one break: what is read together with it may not be passed on."""

    @property
    def body(self) -> dict[str, Any]:
        return self.requests[-1][1]

    async def handle(self, request: Request, response: Response) -> None:
        path = request.target.decode()
        body = json.loads(request.body)
        self.requests.append((path, body, request.headers))
        credentials = b"".join(request.headers.get(name, b"") for name in (b"authorization", b"x-goog-api-key"))
        status = next(
            (refused_status for key, refused_status in self.refused_keys.items() if credentials.endswith(key)),
            self.status,
        )
        if status != 200:
            error = {"error": {"message": "no, sk-secret", "code": status, "status": "X"}, "message": "no"}
            lines = b"retry-after: 7\r\n" if status == 429 else b""
            response.send(status, json.dumps(error).encode(), lines)
            return
        if self.compressed_body:
            response.end(
                self.compressed_body,
                response.start(200, b"content-type: application/json\r\ncontent-encoding: gzip\r\n"),
            )
            return
        try:
            await asyncio.sleep(self.delay)
            await getattr(self, f"_{self.kind}")(path, body, response)
        except asyncio.CancelledError:
            self.abandoned_count += 1
            raise

    async def _write(self, response: Response, parts: list[bytes], head: bytes) -> None:
        start = response.start(200, head)
        for part in parts:
            response.write(part, start)
            start = b""
            if self.pause:
                await asyncio.sleep(self.pause)
            if self.break_mode and b"You " in part:
                await self.may_break.wait()
                self.may_break.clear()
                await self._break(response)
                return
        response.end()

    async def _break(self, response: Response) -> None:
        if self.break_mode == "stall":
            await asyncio.sleep(3600)
        elif self.break_mode == "garbage":
            response.write(b"data: {no json\n\n{no json\n\x00\x00\x00\x10garbage")
        if self.break_mode != "cut":
            response.end()

    # Gemini ----------------------------------------------------------------------------------------------------------

    async def _gemini(self, path: str, body: dict[str, Any], response: Response) -> None:
        if "mbedContent" in path:
            values = [{"values": [0.5, 0.25]} for _ in body["requests"]]
            response.send(200, json.dumps({"embeddings": values}).encode())
            return
        call = {"functionCall": {"name": "look", "args": {"what": "it"}}}
        parts: list[dict[str, Any]] = [{"text": "You "}, {"text": "asked."}]
        usage = {"promptTokenCount": USAGE[0], "candidatesTokenCount": USAGE[1], "totalTokenCount": sum(USAGE)}

        def answer(parts_: list[dict[str, Any]], reason: str | None) -> dict[str, Any]:
            candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts_}, "index": 0}
            if reason is not None:
                candidate["finishReason"] = reason
            return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-x", "responseId": "r1"}

        if self.tool_calls:
            parts = [dict(call) for _ in range(self.tool_calls)]
        if "streamGenerateContent" in path:
            answers = [answer([part], "STOP" if part is parts[-1] else None) for part in parts]
            for each in answers:
                del each["modelVersion"]  # as where a prompt is blocked
            await self._write(response, [b"data: %b\r\n\r\n" % json.dumps(e).encode() for e in answers], SSE)
        else:
            response.send(200, json.dumps(answer(parts, "STOP")).encode())

    # Mistral ---------------------------------------------------------------------------------------------------------

    async def _mistral(self, path: str, body: dict[str, Any], response: Response) -> None:
        usage = {"prompt_tokens": USAGE[0], "completion_tokens": USAGE[1], "total_tokens": sum(USAGE)}
        base = {"id": "m1", "created": 1, "model": "mistral-x"}
        if path.endswith("/embeddings"):
            data = [{"object": "embedding", "index": i, "embedding": [0.5, 0.25]} for i in range(len(body["input"]))]
            answer = {**base, "object": "list", "data": data, "usage": {**usage, "completion_tokens": 0}}
            response.send(200, json.dumps(answer).encode())
            return
        call = {"id": "abc123def", "type": "function", "function": {"name": "look", "arguments": '{"what": "it"}'}}
        if not body.get("stream"):
            message: dict[str, Any] = {"role": "assistant", "content": "" if self.tool_calls else "You asked."}
            if self.tool_calls:
                message["tool_calls"] = [{**call, "id": f"abc123de{i}"} for i in range(self.tool_calls)]
            choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if self.tool_calls else "stop"}
            answer = {**base, "object": "chat.completion", "choices": [choice], "usage": usage}
            response.send(200, json.dumps(answer).encode())
            return
        deltas: list[dict[str, Any]] = [
            {"role": "assistant", "content": ""},
            {"content": "You "},
            {"content": "asked."},
        ]
        if self.tool_calls:
            calls = [{**call, "id": f"abc123de{i}", "index": i} for i in range(self.tool_calls)]
            deltas = [{"role": "assistant", "content": ""}, {"content": "", "tool_calls": calls}]
        events = []
        for delta in deltas:
            last = delta is deltas[-1]
            reason = ("tool_calls" if self.tool_calls else "stop") if last else None
            event = {**base, "object": "chat.completion.chunk"}
            event["choices"] = [{"index": 0, "delta": delta, "finish_reason": reason}]
            events.append({**event, "usage": usage} if last else event)
        parts = [b"data: %b\n\n" % json.dumps(event).encode() for event in events]
        await self._write(response, [*parts, b"data: [DONE]\n\n"], SSE)

    # Ollama ----------------------------------------------------------------------------------------------------------

    async def _ollama(self, path: str, body: dict[str, Any], response: Response) -> None:
        base = {"model": "llama", "created_at": "2026-01-01T00:00:00Z"}
        counts = {"prompt_eval_count": USAGE[0], "eval_count": USAGE[1], "total_duration": 5}
        if path.endswith("/embed"):
            input_count = len(body["input"]) if isinstance(body["input"], list) else 1
            answer = {"model": "llama", "embeddings": [[0.5, 0.25]] * input_count, "prompt_eval_count": USAGE[0]}
            response.send(200, json.dumps(answer).encode())
            return
        call = {"function": {"name": "look", "arguments": {"what": "it"}}}
        message: dict[str, Any] = {"role": "assistant", "content": "" if self.tool_calls else "You asked."}
        if self.tool_calls:
            message["tool_calls"] = [call] * self.tool_calls
        if not body.get("stream"):
            answer = {**base, "message": message, "done": True, "done_reason": "stop", **counts}
            response.send(200, json.dumps(answer).encode())
            return
        messages = (
            [message] if self.tool_calls else [{"role": "assistant", "content": text} for text in ("You ", "asked.")]
        )
        lines = [{**base, "message": each, "done": False} for each in messages]
        end = {**base, "message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop", **counts}
        parts = [json.dumps(line).encode() + b"\n" for line in [*lines, end]]
        await self._write(response, parts, b"content-type: application/x-ndjson\r\n")

    # Bedrock ---------------------------------------------------------------------------------------------------------

    async def _bedrock(self, path: str, body: dict[str, Any], response: Response) -> None:  # noqa: ARG002
        usage = {"inputTokens": USAGE[0], "outputTokens": USAGE[1], "totalTokens": sum(USAGE)}
        reason = "tool_use" if self.tool_calls else "end_turn"
        use = {"toolUseId": "use_1", "name": "look"}
        if path.endswith("/converse"):
            content: list[dict[str, Any]] = [{"text": "You asked."}]
            if self.tool_calls:
                content = [
                    {"toolUse": {**use, "toolUseId": f"use_{i}", "input": {"what": "it"}}}
                    for i in range(self.tool_calls)
                ]
            answer = {"output": {"message": {"role": "assistant", "content": content}}, "stopReason": reason}
            response.send(200, json.dumps({**answer, "usage": usage, "metrics": {"latencyMs": 1}}).encode())
            return
        deltas: list[tuple[str, dict[str, Any]]] = [
            ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": text}}) for text in ("You ", "asked.")
        ]
        for i in range(1, self.tool_calls + 1):
            began = {"toolUse": {**use, "toolUseId": f"use_{i}"}}
            deltas += [
                ("contentBlockStart", {"contentBlockIndex": i, "start": began}),
                ("contentBlockDelta", {"contentBlockIndex": i, "delta": {"toolUse": {"input": '{"what": "it"}'}}}),
            ]
        events = [
            ("messageStart", {"role": "assistant"}), *deltas, ("contentBlockStop", {"contentBlockIndex": 0}),
            ("messageStop", {"stopReason": reason}), ("metadata", {"usage": usage, "metrics": {"latencyMs": 1}}),
        ]  # fmt: skip
        kind = b"content-type: application/vnd.amazon.eventstream\r\n"
        await self._write(response, [_frame(*event) for event in events], kind)


def _frame(event: str, body: dict[str, Any]) -> bytes:
    """One message of AWS's event streams."""
    header_values = {":message-type": "event", ":event-type": event, ":content-type": "application/json"}
    headers = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        for name, value in header_values.items()
    )
    data = json.dumps(body).encode()
    prelude = struct.pack(">II", 16 + len(headers) + len(data), len(headers))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + data
    return message + struct.pack(">I", zlib.crc32(message))


@asynccontextmanager
async def fake_provider(kind: str) -> AsyncIterator[tuple[FakeProvider, int]]:
    """A fake provider in this loop, and its port."""
    provider, loop = FakeProvider(kind), asyncio.get_running_loop()
    server = Server(provider.handle, refusal_body, loop)
    listener = await loop.create_server(server.create_connection, "127.0.0.1", 0)
    try:
        yield provider, listener.sockets[0].getsockname()[1]
    finally:
        await close(listener, server)
