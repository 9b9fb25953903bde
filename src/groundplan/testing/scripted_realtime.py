"""The scripted model in a conversation over WebSocket: it repeats what it was told, with exact usage.

A committed audio buffer makes it respond of its own accord, as turn detection would; "turn" in the place of sound is
heard as a whole turn, to which the response takes a while, at "over" it ends the session, and at "gone" it goes
without a word. What it hears it tells as text where the session asks for that: two tokens of thirteen; not those of the
`language` "none", and it fails at "fail". A response with the instructions "refuse" is not made, which an error event
says, one with "fail" or "limit" fails; one with "call NAME" calls that function first. It is broken off by
`response.cancel`. It fails by cutting the connection in the middle of a response, or by not going on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import msgspec

from groundplan.gateway.http.server import Request, Response
from groundplan.gateway.http.websocket import ServerSocket

_encode = msgspec.json.Encoder().encode


class Conversation:
    """`how`: the mode, the pause between pieces (seconds), and the tokens of a response where they are fixed."""

    def __init__(self, request: Request, response: Response, how: tuple[str, float, int | None]) -> None:
        self._socket = ServerSocket(request, response)
        self._mode, self._pause, self._tokens = how
        self._said = ""
        self._number = 0
        self._later: deque[dict[str, Any]] = deque()
        """What came while it responded."""
        self._session: dict[str, Any] = {}

    async def run(self) -> int:
        """Until somebody closes; the responses that were made."""
        self._socket.accept()
        session = self._session
        session |= {"type": "realtime", "object": "realtime.session", "id": "sess_1", "model": "scripted"}
        session["max_output_tokens"] = "inf"
        await self._send("session.created", session=session)
        while (event := await self._next()) is not None:
            kind = event.get("type")
            if kind == "session.update":
                session |= event["session"]
                await self._send("session.updated", session=session)
            elif kind == "conversation.item.create":
                parts = event["item"].get("content") or []
                self._said = " ".join(str(part.get("text", "")) for part in parts)
                await self._send(
                    "conversation.item.added", item={**event["item"], "id": "item_1"}, previous_item_id=None
                )
            elif kind == "input_audio_buffer.clear":
                await self._send("input_audio_buffer.cleared")
            elif kind == "input_audio_buffer.append":
                if not await self._hear(event.get("audio")):
                    break
            elif kind == "response.create" and (event.get("response") or {}).get("instructions") == "refuse":
                error = {"type": "invalid_request_error", "code": "refused", "message": "told to refuse", "param": None}
                await self._send("error", error={**error, "event_id": event.get("event_id")})
            elif kind in ("response.create", "input_audio_buffer.commit") and not await self._respond(event):
                return self._number
        return self._number

    async def _hear(self, sound: object) -> bool:
        """Whether it stays."""
        if sound == "turn":
            await self._send("input_audio_buffer.committed", item_id="item_1", previous_item_id=None)
            await self._tell(((self._session.get("audio") or {}).get("input") or {}).get("transcription"))
        if sound == "over":
            self._socket.close(1001, "")
        return sound not in ("gone", "over")

    async def _tell(self, asked: dict[str, Any] | None) -> None:
        """What was heard, as text."""
        if asked is None or (language := asked.get("language")) == "none":
            return
        told: dict[str, Any] = {"transcript": "you said", "usage": {"type": "tokens", "total_tokens": 15}}
        told["usage"] |= {"input_tokens": 13, "output_tokens": 2}
        how = "completed" if language != "fail" else "failed"
        told = told if language != "fail" else {"error": {"type": "server_error", "code": None, "message": "x"}}
        await self._send(
            f"conversation.item.input_audio_transcription.{how}", item_id="item_1", content_index=0, **told
        )

    async def _next(self) -> dict[str, Any] | None:
        if self._later:
            return self._later.popleft()
        text = await self._socket.receive()
        return None if text is None else msgspec.json.decode(text, type=dict[str, Any])

    async def _broken_off(self) -> bool:
        """Whether that is asked for, or nobody is there any more, before the next piece is due."""
        try:
            async with asyncio.timeout(self._pause):
                while (text := await self._socket.receive()) is not None:
                    event = msgspec.json.decode(text, type=dict[str, Any])
                    if event.get("type") == "response.cancel":
                        return True
                    self._later.append(event)
        except TimeoutError:
            return False
        return True

    async def _respond(self, asked: dict[str, Any]) -> bool:
        self._number += 1
        name = f"resp_{self._number}"
        words = f"You said: {self._said}".split()
        words = words if self._tokens is None else (words * self._tokens)[: self._tokens]
        base: dict[str, Any] = {"object": "realtime.response", "id": name, "output": []}
        await self._send("response.created", response={**base, "status": "in_progress", "usage": None})
        status, count = "completed", len(words)
        _, calls, call = (told := str((asked.get("response") or {}).get("instructions", ""))).rpartition("call ")
        if told in ("fail", "limit"):
            status, count, words = "failed", 0, []
            code = "rate_limit_exceeded" if told == "limit" else None
            error = {"type": "server_error", "code": code, "message": "told to fail"}
            base["status_details"] = {"type": "failed", "error": error}
        if calls:
            made = {"type": "function_call", "id": "item_3", "call_id": "call_1", "name": call, "arguments": "{}"}
            await self._send("response.output_item.added", response_id=name, output_index=0, item=made)
        for number, word in enumerate(words):
            if self._mode == "cut" and number * 2 >= len(words):
                return False
            if self._mode == "stall" and number * 2 >= len(words):
                await asyncio.sleep(3600)
            place = {"response_id": name, "item_id": "item_2", "output_index": 0, "content_index": 0}
            await self._send("response.output_text.delta", delta=f"{word} ", **place)
            if await self._broken_off():
                status, count = "cancelled", number + 1
                break
        into = len(self._said.split()) if status != "failed" else 0
        usage: dict[str, Any] | None = {
            "total_tokens": into + count,
            "input_tokens": into,
            "output_tokens": count,
            "input_token_details": {"cached_tokens": 0, "text_tokens": into, "audio_tokens": 0},
            "output_token_details": {"text_tokens": count, "audio_tokens": 0},
        }
        usage = None if told == "limit" else usage
        await self._send("response.done", response={**base, "status": status, "usage": usage})
        return True

    async def _send(self, kind: str, **more: Any) -> None:
        await self._socket.send(_encode({"type": kind, "event_id": "event_1", **more}))
