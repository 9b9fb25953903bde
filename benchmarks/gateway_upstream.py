"""The fastest upstream that Python makes, for benchmarks: one fixed answer, or 20 events, one each 5 ms. With
`--forward PORT`, a bare ASGI pass-through under uvicorn instead. Parses as little of a request as possible.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import uvicorn
import uvloop

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.gateway_clock import Clock

from groundplan.gateway.upstream.http1_pool import Http1Pool

WORDS = "The capital of France is Paris. It lies on the Seine and has been its largest city for centuries."
USAGE = {"prompt_tokens": 24, "completion_tokens": 21, "total_tokens": 45}
CHUNK_COUNT = 20
GAP_SECONDS = 0.005


def build_answer() -> bytes:
    """The JSON body of the fixed answer."""
    message = {"role": "assistant", "content": WORDS, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    value = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [choice],
        "usage": USAGE,
    }
    return json.dumps(value, separators=(",", ":")).encode()


def build_chunks() -> list[bytes]:
    """The events of a stream, each an HTTP chunk; the last ones are sent together."""

    def event(delta: dict[str, str], finish: str | None, usage: dict[str, int] | None = None) -> bytes:
        choices = [] if usage else [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
        value: dict[str, Any] = {
            "id": "c",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "m",
            "choices": choices,
        }
        data = b"data: " + json.dumps(value | ({"usage": usage} if usage else {})).encode() + b"\n\n"
        return b"%x\r\n%b\r\n" % (len(data), data)

    middle = [event({"content": f" word{i}"}, None) for i in range(CHUNK_COUNT - 2)]
    end = event({}, None, USAGE) + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
    return [event({"role": "assistant", "content": ""}, None), *middle, event({}, "stop") + end]


class FixedAnswers(asyncio.Protocol):
    """Answers each request with the fixed answer, or with the fixed stream if it asks for one."""

    body = build_answer()
    response = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    stream_head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    stream_chunks = build_chunks()
    gap = GAP_SECONDS
    delay = 0.0
    """Seconds until an answer."""
    clock: Clock

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        length_at = self.buffer[:end].lower().find(b"content-length:")
        length = int(self.buffer[length_at + 15 : end].split(b"\r\n", 1)[0]) if length_at >= 0 else 0
        if len(self.buffer) < end + 4 + length:
            return
        stream = b'"stream":true' in self.buffer or b'"stream": true' in self.buffer
        self.buffer = b""
        if stream:
            self.transport.write(self.stream_head)
            self.send_chunk(0)
        elif self.delay:
            self.clock.call_later(self.delay, self.transport.write, self.response)
        else:
            self.transport.write(self.response)

    def send_chunk(self, number: int) -> None:
        if number < len(self.stream_chunks) and not self.transport.is_closing():
            self.transport.write(self.stream_chunks[number])
            asyncio.get_running_loop().call_later(self.gap, self.send_chunk, number + 1)


async def serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    FixedAnswers.clock = Clock(loop)
    server = await loop.create_server(FixedAnswers, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


def build_forwarder(upstream_port: int) -> Callable[..., Awaitable[None]]:
    """A bare ASGI application that forwards the body to the upstream's port and returns the answer."""
    pools: list[Http1Pool] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        if not pools:
            pools.append(Http1Pool(f"http://127.0.0.1:{upstream_port}/v1", asyncio.get_running_loop()))
        body = (await receive())["body"]
        connection = pools[0].take_idle() or await pools[0].connect(1.0)
        connection.send(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: u\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        )
        status = await connection.read_head(5.0)
        answer = await connection.read_body(5.0)
        connection.release()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return application


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--forward", type=int, default=0)
    parser.add_argument("--gap-ms", type=float, default=1000 * GAP_SECONDS, help="between the events of a stream")
    parser.add_argument("--delay-ms", type=float, default=0, help="until an answer")
    arguments = parser.parse_args()
    FixedAnswers.gap, FixedAnswers.delay = arguments.gap_ms / 1000, arguments.delay_ms / 1000
    if arguments.forward:
        settings: dict[str, Any] = {"log_level": "warning", "access_log": False, "lifespan": "off", "loop": "uvloop"}
        uvicorn.run(build_forwarder(arguments.forward), host="127.0.0.1", port=arguments.port, **settings)
    else:
        uvloop.run(serve(arguments.port))


if __name__ == "__main__":
    main()
