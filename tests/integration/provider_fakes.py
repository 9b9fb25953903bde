"""Small HTTP servers that answer in the wire formats of Gemini, Mistral, Ollama and Bedrock, and record what they were
asked."""

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
USED = (11, 4)
"""Tokens of prompt and answer that every fake reports."""


@dataclass
class Fake:
    """`status` other than 200 is an error; `pause` seconds between events; `refuses`: keys with the status that they
    get."""

    kind: str
    status: int = 200
    pause: float = 0.0
    waits: float = 0.0
    """Seconds before it says anything."""
    tool: int = 0
    """So many tools are called by the answer, in a stream of Bedrock's and Anthropic's after some words."""
    refuses: dict[bytes, int] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, Any], dict[bytes, bytes]]] = field(default_factory=list)
    bomb: bytes = b""
    """Answered compressed, as it is."""
    left: int = 0
    """Answers that were not read to their end."""
    breaks: str = ""
    """What becomes of a stream after its first words: `cut`, `stall`, `garbage`, or `ends` as if it were whole."""

    @property
    def body(self) -> dict[str, Any]:
        return self.asked[-1][1]

    async def handle(self, request: Request, response: Response) -> None:
        path = request.target.decode()
        body = json.loads(request.body)
        self.asked.append((path, body, request.headers))
        given = b"".join(request.headers.get(name, b"") for name in (b"authorization", b"x-goog-api-key"))
        status = next((found for key, found in self.refuses.items() if given.endswith(key)), self.status)
        if status != 200:
            error = {"error": {"message": "no, sk-secret", "code": status, "status": "X"}, "message": "no"}
            lines = b"retry-after: 7\r\n" if status == 429 else b""
            response.send(status, json.dumps(error).encode(), lines)
            return
        if self.bomb:
            response.end(
                self.bomb, response.start(200, b"content-type: application/json\r\ncontent-encoding: gzip\r\n")
            )
            return
        try:
            await asyncio.sleep(self.waits)
            await getattr(self, f"_{self.kind}")(path, body, response)
        except asyncio.CancelledError:
            self.left += 1
            raise

    async def _write(self, response: Response, parts: list[bytes], head: bytes) -> None:
        start = response.start(200, head)
        for part in parts:
            response.write(part, start)
            start = b""
            if self.pause:
                await asyncio.sleep(self.pause)
            if self.breaks and b"You " in part:
                # read by itself, also at a busy hour: some clients tell of a cut before what came before it
                await asyncio.sleep(0.4 if self.breaks == "cut" else 0.1)
                await self._break(response)
                return
        response.end()

    async def _break(self, response: Response) -> None:
        if self.breaks == "stall":
            await asyncio.sleep(3600)
        elif self.breaks == "garbage":
            response.write(b"data: {no json\n\n{no json\n\x00\x00\x00\x10garbage")
        if self.breaks != "cut":
            response.end()

    # Gemini ----------------------------------------------------------------------------------------------------------

    async def _gemini(self, path: str, body: dict[str, Any], response: Response) -> None:
        if "mbedContent" in path:
            values = [{"values": [0.5, 0.25]} for _ in body["requests"]]
            response.send(200, json.dumps({"embeddings": values}).encode())
            return
        call = {"functionCall": {"name": "look", "args": {"what": "it"}}}
        parts: list[dict[str, Any]] = [{"text": "You "}, {"text": "asked."}]
        usage = {"promptTokenCount": USED[0], "candidatesTokenCount": USED[1], "totalTokenCount": sum(USED)}

        def answer(some: list[dict[str, Any]], reason: str | None) -> dict[str, Any]:
            candidate: dict[str, Any] = {"content": {"role": "model", "parts": some}, "index": 0}
            if reason is not None:
                candidate["finishReason"] = reason
            return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-x", "responseId": "r1"}

        if self.tool:
            parts = [dict(call) for _ in range(self.tool)]
        if "streamGenerateContent" in path:
            each = [answer([part], "STOP" if part is parts[-1] else None) for part in parts]
            for one in each:
                del one["modelVersion"]  # as where a prompt is blocked
            await self._write(response, [b"data: %b\r\n\r\n" % json.dumps(e).encode() for e in each], SSE)
        else:
            response.send(200, json.dumps(answer(parts, "STOP")).encode())

    # Mistral ---------------------------------------------------------------------------------------------------------

    async def _mistral(self, path: str, body: dict[str, Any], response: Response) -> None:
        usage = {"prompt_tokens": USED[0], "completion_tokens": USED[1], "total_tokens": sum(USED)}
        base = {"id": "m1", "created": 1, "model": "mistral-x"}
        if path.endswith("/embeddings"):
            data = [{"object": "embedding", "index": i, "embedding": [0.5, 0.25]} for i in range(len(body["input"]))]
            found = {**base, "object": "list", "data": data, "usage": {**usage, "completion_tokens": 0}}
            response.send(200, json.dumps(found).encode())
            return
        call = {"id": "abc123def", "type": "function", "function": {"name": "look", "arguments": '{"what": "it"}'}}
        if not body.get("stream"):
            message: dict[str, Any] = {"role": "assistant", "content": "" if self.tool else "You asked."}
            if self.tool:
                message["tool_calls"] = [{**call, "id": f"abc123de{i}"} for i in range(self.tool)]
            choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if self.tool else "stop"}
            found = {**base, "object": "chat.completion", "choices": [choice], "usage": usage}
            response.send(200, json.dumps(found).encode())
            return
        deltas: list[dict[str, Any]] = [
            {"role": "assistant", "content": ""},
            {"content": "You "},
            {"content": "asked."},
        ]
        if self.tool:
            calls = [{**call, "id": f"abc123de{i}", "index": i} for i in range(self.tool)]
            deltas = [{"role": "assistant", "content": ""}, {"content": "", "tool_calls": calls}]
        events = []
        for delta in deltas:
            last = delta is deltas[-1]
            reason = ("tool_calls" if self.tool else "stop") if last else None
            made = {**base, "object": "chat.completion.chunk"}
            made["choices"] = [{"index": 0, "delta": delta, "finish_reason": reason}]
            events.append({**made, "usage": usage} if last else made)
        parts = [b"data: %b\n\n" % json.dumps(event).encode() for event in events]
        await self._write(response, [*parts, b"data: [DONE]\n\n"], SSE)

    # Ollama ----------------------------------------------------------------------------------------------------------

    async def _ollama(self, path: str, body: dict[str, Any], response: Response) -> None:
        base = {"model": "llama", "created_at": "2026-01-01T00:00:00Z"}
        counts = {"prompt_eval_count": USED[0], "eval_count": USED[1], "total_duration": 5}
        if path.endswith("/embed"):
            many = len(body["input"]) if isinstance(body["input"], list) else 1
            found = {"model": "llama", "embeddings": [[0.5, 0.25]] * many, "prompt_eval_count": USED[0]}
            response.send(200, json.dumps(found).encode())
            return
        call = {"function": {"name": "look", "arguments": {"what": "it"}}}
        whole: dict[str, Any] = {"role": "assistant", "content": "" if self.tool else "You asked."}
        if self.tool:
            whole["tool_calls"] = [call] * self.tool
        if not body.get("stream"):
            found = {**base, "message": whole, "done": True, "done_reason": "stop", **counts}
            response.send(200, json.dumps(found).encode())
            return
        said = [whole] if self.tool else [{"role": "assistant", "content": text} for text in ("You ", "asked.")]
        lines = [{**base, "message": each, "done": False} for each in said]
        end = {**base, "message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop", **counts}
        parts = [json.dumps(line).encode() + b"\n" for line in [*lines, end]]
        await self._write(response, parts, b"content-type: application/x-ndjson\r\n")

    # Bedrock ---------------------------------------------------------------------------------------------------------

    async def _bedrock(self, path: str, body: dict[str, Any], response: Response) -> None:  # noqa: ARG002
        usage = {"inputTokens": USED[0], "outputTokens": USED[1], "totalTokens": sum(USED)}
        reason = "tool_use" if self.tool else "end_turn"
        use = {"toolUseId": "use_1", "name": "look"}
        if path.endswith("/converse"):
            said: list[dict[str, Any]] = [{"text": "You asked."}]
            if self.tool:
                said = [
                    {"toolUse": {**use, "toolUseId": f"use_{i}", "input": {"what": "it"}}} for i in range(self.tool)
                ]
            found = {"output": {"message": {"role": "assistant", "content": said}}, "stopReason": reason}
            response.send(200, json.dumps({**found, "usage": usage, "metrics": {"latencyMs": 1}}).encode())
            return
        deltas: list[tuple[str, dict[str, Any]]] = [
            ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": text}}) for text in ("You ", "asked.")
        ]
        for i in range(1, self.tool + 1):
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
    told = {":message-type": "event", ":event-type": event, ":content-type": "application/json"}
    headers = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
        for name, value in told.items()
    )
    data = json.dumps(body).encode()
    prelude = struct.pack(">II", 16 + len(headers) + len(data), len(headers))
    whole = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + data
    return whole + struct.pack(">I", zlib.crc32(whole))


@asynccontextmanager
async def fake(kind: str) -> AsyncIterator[tuple[Fake, int]]:
    """A fake provider in this loop, and its port."""
    made, loop = Fake(kind), asyncio.get_running_loop()
    server = Server(made.handle, refusal_body, loop)
    listener = await loop.create_server(server.create_connection, "127.0.0.1", 0)
    try:
        yield made, listener.sockets[0].getsockname()[1]
    finally:
        await close(listener, server)
