"""The streams of the scripted model: right ones, and one for each way in which an upstream's stream can be wrong.

Each mode fails at one chunk, in the middle unless told otherwise. Knows no HTTP beyond writing to a response.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from groundplan.gateway.http.server import Response

STREAM_MODES = (
    "stall_late", "malformed", "no_done", "no_finish", "error_event", "empty", "comments", "crlf", "huge",
    "wrong_type", "nothing_after",
)  # fmt: skip
"""stall_late: says nothing more. malformed: a frame that is no JSON. no_done: ends after its finish. no_finish: ends
without. error_event: an error in the stream. empty: no event at all. comments: only comments from there on. crlf: lines
end with CR LF. huge: one event of 9 MiB. wrong_type: a whole answer in JSON. nothing_after: comments from the start."""
_EVENT_STREAM = b"content-type: text/event-stream\r\ncache-control: no-cache\r\n"
_HUGE = 9 << 20
TOOL_PIECES = ('{"wh', 'at": "it', '"}')
"""The arguments of its tool call, as they are streamed."""
_COMMENT_SECONDS = 0.05
_encode = msgspec.json.Encoder().encode


class Frames(Protocol):
    """A stream as an API writes it: complete events, each ending with an empty line."""

    def parts(self) -> list[bytes]:
        """Up to and with the last piece of the answer."""
        ...

    def ending(self) -> list[bytes]:
        """Why it ends, and what it used."""
        ...

    def done(self) -> bytes:
        """That nothing follows."""
        ...

    def error(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Answer:
    """A chat stream. `usage` is sent where it is not None; with `each` chunk as far as it has come, too, as vLLM does
    where it is asked to, and others do unasked."""

    base: dict[str, Any]
    words: list[str]
    reason: str
    copies: int
    usage: dict[str, Any] | None
    tool: bool
    each: bool = False

    def deltas(self) -> list[dict[str, Any]]:
        """The role, each word, and the pieces of a tool call where there is one."""
        found: list[dict[str, Any]] = [{"role": "assistant", "content": ""}, *({"content": w} for w in self.words)]
        if self.tool:
            head = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "look", "arguments": ""}}
            found.append({"tool_calls": [head]})
            for piece in TOOL_PIECES:
                found.append({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
        return found

    def chunk(self, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        choices = [{"index": i, "delta": delta, "finish_reason": reason} for i in range(self.copies)]
        return {**self.base, "choices": choices}

    def parts(self) -> list[bytes]:
        return [_event({**self.chunk(delta), **self._so_far(number)}) for number, delta in enumerate(self.deltas())]

    def _so_far(self, tokens: int) -> dict[str, Any]:
        if self.usage is None or not self.each:
            return {}
        told = self.usage["prompt_tokens"]
        return {"usage": {"prompt_tokens": told, "completion_tokens": tokens, "total_tokens": told + tokens}}

    def ending(self) -> list[bytes]:
        ended = [_event(self.chunk({}, self.reason))]
        return ended if self.usage is None else [*ended, _event({**self.base, "choices": [], "usage": self.usage})]

    def done(self) -> bytes:
        return b"data: [DONE]\n\n"

    def error(self) -> bytes:
        error = {"message": "something went wrong", "type": "server_error", "param": None, "code": "scripted_error"}
        return _event({"error": error})


@dataclass(frozen=True, slots=True)
class TypedEvents:
    """Events that say their type, the last one with the usage. `named`: the type is the name of the event, too."""

    events: list[dict[str, Any]]
    named: bool = True

    def parts(self) -> list[bytes]:
        heads = (b"event: %b\n" % each["type"].encode() if self.named else b"" for each in self.events)
        return [head + _event(each) for head, each in zip(heads, self.events, strict=True)]

    def ending(self) -> list[bytes]:
        return []

    def done(self) -> bytes:
        return b""

    def error(self) -> bytes:
        error = {"message": "something went wrong", "type": "server_error", "param": None, "code": "scripted_error"}
        return b"event: error\n" + _event({"type": "error", "error": error})


async def stream(response: Response, answer: Frames, mode: str, pause: float, at: int | None) -> None:
    """Write the whole stream, or a broken one. `pause`: seconds between events; `at`: the one where it goes wrong."""
    if mode == "wrong_type":
        response.send(200, b'{"object":"chat.completion","choices":[]}')
        return
    head = response.start(200, _EVENT_STREAM)
    if mode == "empty":
        response.end(b"", head)
        return
    if mode == "nothing_after":
        await _comments(response, head)
        return
    parts = answer.parts()
    at = len(parts) // 2 if at is None else at
    for number, part in enumerate(parts):
        if number > at and await _fails(response, answer, mode):
            return
        response.write(_lines(part, mode), head)
        head = b""
        if pause:
            await asyncio.sleep(pause)
        await response.drain()
    for part in answer.ending():
        response.write(_lines(part, mode))
    response.end(b"" if mode == "no_done" else _lines(answer.done(), mode))


async def _fails(response: Response, answer: Frames, mode: str) -> bool:
    """Go wrong as the mode says; whether the stream is over."""
    if mode == "cut":
        return True
    if mode == "stall_late":
        await asyncio.sleep(3600)
    elif mode == "comments":
        await _comments(response, b"")
    elif mode == "malformed":
        response.end(b'data: {"id":"x","choi\n\n' + answer.done())
    elif mode == "huge":
        response.write(b"data: " + b"x" * _HUGE)
        await response.drain()
        response.end(b"\n\n")
    elif mode == "error_event":
        response.end(answer.error())
    elif mode == "no_finish":
        response.end(b"")
    else:
        return False
    return True


async def _comments(response: Response, head: bytes) -> None:
    while True:
        response.write(b": keep-alive\n\n", head)
        head = b""
        await asyncio.sleep(_COMMENT_SECONDS)


def _event(value: object) -> bytes:
    return b"data: %b\n\n" % _encode(value)


def _lines(part: bytes, mode: str) -> bytes:
    return part.replace(b"\n", b"\r\n") if mode == "crlf" else part
