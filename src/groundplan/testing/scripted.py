"""The scripted model: a deterministic upstream that can fail on command and counts what it was asked. It speaks
OpenAI's API, its files and batches included, and Anthropic's Messages.

It understands nothing: it repeats what it was given to read, or the last question. Real HTTP, real sockets, real usage
numbers, so the same contract tests hold for it and for real models. Not for production answers.

`POST /control {"mode": ..., "after": n, "latency_ms", "chunk_ms", "tokens", "status", "retry_after", "at", "tool",
"overlap", "usage"}` sets how it behaves until the next one; `after` lets n calls pass first, and `times` so many fail.
`GET /counted` tells how many attempts it counted, `GET /billed` what it reported of each. A conversation that ends with
a part of its own answer and a request to go on gets the rest of that answer. Ways in which its streams can fail are in
`scripted_stream`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import secrets
import signal
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from groundplan.core.endpoints import announce
from groundplan.core.home import Home
from groundplan.gateway.http.collected_response import CollectedResponse
from groundplan.gateway.http.multipart import is_form
from groundplan.gateway.http.server import Refusal, Request, Response, Server
from groundplan.testing import scripted_responses
from groundplan.testing.reading import Read, by_words, lazily
from groundplan.testing.script import Script as Script
from groundplan.testing.scripted_batches import ScriptedBatches
from groundplan.testing.scripted_bill import Bill
from groundplan.testing.scripted_message_batches import ScriptedMessageBatches
from groundplan.testing.scripted_messages import Asked, MessageAnswer, error, usage
from groundplan.testing.scripted_stream import STREAM_MODES, TOOL_PIECES, Answer, stream
from groundplan.testing.scripted_tasks import TASKS, How, perform, vector

MODES = ("ok", "down", "error", "stall", "cut", "miscount", "slow", "undercount", *STREAM_MODES)
_MESSAGES = b"/v1/messages"
_REALTIME = b"/v1/realtime"
_RESPONSES, _COMPLETIONS = b"/v1/responses", b"/v1/completions"
_ANSWERED = (b"/v1/models", b"/v1/chat/completions", b"/v1/embeddings", _MESSAGES, _RESPONSES, _COMPLETIONS)
_encode = msgspec.json.Encoder().encode


class _Message(msgspec.Struct):
    role: str
    content: str | list[dict[str, Any]] | None = None

    def text(self) -> str:
        if isinstance(self.content, list):
            return " ".join(str(part.get("text", "")) for part in self.content)
        return self.content or ""


class _StreamOptions(msgspec.Struct):
    include_usage: bool = False
    continuous_usage_stats: bool = False


class _Chat(msgspec.Struct):
    messages: list[_Message]
    model: str = "scripted"
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    tool_choice: msgspec.Raw = msgspec.Raw(b'"auto"')

    def ended(self, reason: str, *, tool: bool) -> str:
        """Its finish_reason. As at OpenAI an answer whose tool was named by the request has not called one."""
        return reason if not tool or bytes(self.tool_choice).startswith(b"{") else "tool_calls"


class _Embeddings(msgspec.Struct):
    input: str | list[str]
    model: str = "scripted"
    encoding_format: str = "float"


def answer_text(messages: list[tuple[str, str]], model: str = "scripted", read: Read = by_words) -> str:
    """The scripted answer to (role, text) messages: from the first numbered passages that there are."""
    question = next((text for role, text in reversed(messages) if role == "user"), "")
    for role, text in messages:
        if role == "system" and (found := read(model, question, text)):
            return found
    words = " ".join(question.split())[:200]
    return f"You asked: {words}" if words else "There was no question."


class ScriptedModel:
    """State of one scripted upstream: its script, its counter, its durable count file."""

    def __init__(self, name: str, count_file: Path | None = None, token: str | None = None) -> None:
        self.name = name
        self.script = Script()
        self.counted = 0
        self.bill = Bill()
        self.read: Read = by_words
        """How it answers from passages."""
        self.last: Request | None = None
        """The newest attempt."""
        self._token = token
        self._passed = 0
        self.batches = ScriptedBatches(self._made, self._pace)
        self.message_batches = ScriptedMessageBatches(self._made, self._pace)
        self._count = None if count_file is None else os.open(count_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    async def handle(self, request: Request, response: Response) -> None:
        target = request.target.partition(b"?")[0]
        if target == b"/control" and request.method == b"POST":
            self._control(request, response)
        elif target == _REALTIME and request.stream is not None:
            await self._converse(request, response)
        elif target == b"/counted":
            response.send(200, _encode({"counted": self.counted}))
        elif target == b"/billed":
            response.send(200, self.bill.told())
        elif self.batches.serves(target):
            await self._batch(self.batches, target, request, response)
        elif self.message_batches.serves(target):
            await self._batch(self.message_batches, target, request, response)
        elif target == b"/v1/messages/count_tokens":
            self._count_tokens(request, response)
        elif target in _ANSWERED or target in TASKS:
            await self._model(target, request, response)
        else:
            response.send(404, _error("there is no such path", "not_found"))

    async def _batch(
        self, batches: ScriptedBatches | ScriptedMessageBatches, target: bytes, request: Request, response: Response
    ) -> None:
        """Files and batches. A mode fails before anything is done, but `stall` and `cut`: these do it, and do not say
        so."""
        script = self.script
        named = script.only is not None and f"{request.method.decode()} {target.decode()}".startswith(script.only)
        mode = self._mode() if named and script.mode != "ok" else "ok"
        if mode == "down":
            return
        if mode == "error":
            response.send(script.status, _error("the scripted model was told to fail", "scripted_error"))
        elif mode in ("stall", "cut"):
            await batches.handle(target, request, CollectedResponse())
            if mode == "stall":
                await asyncio.sleep(3600)
        else:
            await batches.handle(target, request, response)

    def _pace(self) -> tuple[float, int | None, str]:
        return self.script.line_ms / 1000, self.script.lines, self.script.lines_end

    async def _made(self, endpoint: str, body: bytes) -> tuple[int, bytes]:
        """One line of a batch: the same answer as to a call."""
        request, response = Request(0.0), CollectedResponse()
        request.method, request.target, request.body = b"POST", endpoint.encode(), body
        messages = request.target == _MESSAGES
        if messages:
            request.headers = {b"anthropic-version": b"2023-06-01"}
        await self._counted(request)
        script = self.script
        mode = self._mode() if script.only is None or f"POST {endpoint}".startswith(script.only) else "ok"
        if mode == "error":
            message = "the scripted model was told to fail"
            return script.status, error(message, script.status) if messages else _error(message, "scripted_error")
        await self._answer(request.target, request, response, mode)
        return response.status, response.body

    async def _converse(self, request: Request, response: Response) -> None:
        self.last = request
        from groundplan.testing.scripted_realtime import Conversation  # noqa: PLC0415 -- it loads an optional library

        script = self.script
        talk = Conversation(request, response, (self._mode(), script.chunk_ms / 1000, script.tokens))
        self.counted += await talk.run()
        response.finish()

    def _control(self, request: Request, response: Response) -> None:
        wanted = f"Bearer {self._token}".encode()
        if self._token and not secrets.compare_digest(request.headers.get(b"authorization", b""), wanted):
            response.send(401, _error("the announced token is needed", "unauthenticated"))
            return
        try:
            script = msgspec.json.decode(request.body, type=Script)
        except msgspec.DecodeError as error:
            response.send(400, _error(str(error), "invalid"))
            return
        if script.mode not in MODES:
            response.send(400, _error(f"mode is one of {', '.join(MODES)}", "invalid"))
            return
        self.script, self._passed = script, 0
        response.send(200, _encode(script))

    async def _model(self, target: bytes, request: Request, response: Response) -> None:
        mode = self._mode() if request.method == b"POST" else "ok"
        if self.script.mode == "down" and mode == "down":
            return  # unanswered: the server resets the connection
        if target == b"/v1/models":
            model = {"id": self.name, "object": "model", "created": 0, "owned_by": "groundplan"}
            response.send(200, _encode({"object": "list", "data": [model]}))
            return
        if request.method != b"POST":
            response.send(405, _error("use POST", "method_not_allowed"))
            return
        await self._counted(request)
        if self.script.latency_ms:
            await asyncio.sleep(self.script.latency_ms / 1000)
        if mode == "error":
            after = self.script.retry_after
            lines = b"" if after is None else b"retry-after: %b\r\n" % after.encode("latin-1")
            message = "the scripted model was told to fail"
            messages = target == _MESSAGES
            body = error(message, self.script.status) if messages else _error(message, "scripted_error")
            response.send(self.script.status, body, lines)
        elif mode == "stall":
            await asyncio.sleep(3600)
        else:
            await self._answer(target, request, response, mode)

    def _mode(self) -> str:
        self._passed += 1
        failing = self._passed - self.script.after
        if failing <= 0 or (self.script.times is not None and failing > self.script.times):
            return "ok"
        return self.script.mode

    async def _counted(self, request: Request) -> None:
        """Durable before it is answered: a test may kill us at any time and believe the file."""
        self.counted += 1
        self.last = request
        self.bill.begin(request.headers.get(b"x-request-id", b""))
        if self._count is None:
            return
        name = request.headers.get(b"x-request-id", b"") or str(self.counted).encode()
        os.write(self._count, name.split()[0] + b"\n")
        await asyncio.to_thread(os.fdatasync, self._count)

    async def _answer(self, target: bytes, request: Request, response: Response, mode: str) -> None:
        try:
            if target == b"/v1/embeddings":
                response.send(200, self._embed(msgspec.json.decode(request.body, type=_Embeddings)))
                return
            if target == _MESSAGES:
                await self._message(request, response, mode)
                return
            if target == _RESPONSES:
                await self._response(msgspec.json.decode(request.body, type=scripted_responses.Asked), response, mode)
                return
            if target == _COMPLETIONS:
                await self._complete(
                    msgspec.json.decode(request.body, type=scripted_responses.Prompted), response, mode
                )
                return
            if target in TASKS:
                script = self.script
                how = How(mode, script.chunk_ms / 1000, script.at, script.last, script.usage)
                await perform(target, request, response, how)
                return
            chat = msgspec.json.decode(request.body, type=_Chat)
        except msgspec.DecodeError as error:
            response.send(400, _error(str(error), "invalid"))
            return
        if mode == "slow":
            await asyncio.sleep(2.0)
        if chat.stream:
            await self._stream(chat, response, mode)
            return
        self._send(self._completion(chat, mode), response, mode)

    def _send(self, body: bytes, response: Response, mode: str) -> None:
        if mode in _JSON_BODIES:
            response.send(200, _JSON_BODIES[mode])
        elif mode == "cut":
            response.write(body[: len(body) // 2], response.start(200, b"content-type: application/json\r\n"))
        else:
            response.send(200, body)

    async def _message(self, request: Request, response: Response, mode: str) -> None:
        """As chat, in Anthropic's shapes. Raises `DecodeError`."""
        asked = msgspec.json.decode(request.body, type=Asked)
        if b"anthropic-version" not in request.headers or asked.max_tokens is None:
            response.send(400, error("anthropic-version and max_tokens are needed", 400))
            return
        if mode == "slow":
            await asyncio.sleep(2.0)
        chat = self._as_chat(asked)
        words, reason = self._words(chat)
        script = self.script
        counts = self.bill.add(asked.model, script.usage or self._message_usage(chat, len(words), mode))
        answer = MessageAnswer(f"msg_{self.counted}", asked.model, words, reason, counts, script.tool)
        if asked.stream:
            await stream(response, answer, mode, script.chunk_ms / 1000, script.at)
        else:
            self._send(answer.whole(), response, mode)

    def _message_usage(self, chat: _Chat, words: int, mode: str) -> dict[str, int]:
        found, script = self._usage(chat, words, mode), self.script
        prompt = found["prompt_tokens"] - script.cache_read - script.cache_write
        return usage(prompt, found["completion_tokens"], script.cache_read, script.cache_write)

    def _as_chat(self, asked: Asked) -> _Chat:
        messages = [_Message(role, content) for role, content in asked.turns()]
        return _Chat(messages, asked.model, asked.stream, None, asked.max_tokens)

    async def _response(self, asked: scripted_responses.Asked, response: Response, mode: str) -> None:
        """As chat, in the shapes of Responses."""
        messages = [_Message(role, text) for role, text in asked.turns()]
        chat = _Chat(messages, asked.model, asked.stream, None, asked.max_output_tokens)
        words, reason = self._words(chat)
        counts, script = self._reported(chat, len(words), mode), self.script
        answer = scripted_responses.ResponseAnswer(
            str(self.counted), asked.model, words, reason, counts, script, asked.instructions
        )
        if asked.stream:
            await stream(response, answer, mode, script.chunk_ms / 1000, script.at)
        else:
            self._send(answer.whole(), response, mode)

    async def _complete(self, asked: scripted_responses.Prompted, response: Response, mode: str) -> None:
        """As chat, in the shapes of completions; a prompt that ends with a part of its answer gets the rest."""
        prompt, turns = asked.prompt, [("user", asked.prompt)]
        for at in range(1, len(prompt)):
            if answer_text([("user", prompt[:at])]).startswith(prompt[at:]):
                turns = [("user", prompt[:at]), ("assistant", prompt[at:]), ("user", "")]
                break
        chat = _Chat([_Message(role, text) for role, text in turns], asked.model, asked.stream, None, asked.max_tokens)
        words, reason = self._words(chat)
        counts, script = self._reported(chat, len(words), mode), self.script
        answer = scripted_responses.CompletionAnswer(f"cmpl-{self.counted}", asked.model, words, reason, counts)
        if asked.stream:
            await stream(response, answer, mode, script.chunk_ms / 1000, script.at)
        else:
            self._send(answer.whole(), response, mode)

    def _count_tokens(self, request: Request, response: Response) -> None:
        """Costs nothing, so it is not counted. Fails where `only` names it."""
        if (self.script.only or "").endswith("/count_tokens") and self._mode() == "error":
            response.send(self.script.status, error("the scripted model was told to fail", self.script.status))
            return
        try:
            asked = msgspec.json.decode(request.body, type=Asked)
        except msgspec.DecodeError as problem:
            response.send(400, error(str(problem), 400))
            return
        tokens = self._usage(self._as_chat(asked), 0, "ok")["prompt_tokens"]
        response.send(200, _encode({"input_tokens": tokens}))

    def _words(self, chat: _Chat) -> tuple[list[str], str]:
        """The answer in tokens (one a word), and why it ends; never more than the caller's cap."""
        caps = [cap for cap in (chat.max_tokens, chat.max_completion_tokens) if cap is not None]
        words = self._all_words(chat.model, chat.messages)
        if len(chat.messages) > 2 and chat.messages[-2].role == "assistant":
            sent, whole = chat.messages[-2].text(), "".join(self._all_words(chat.model, chat.messages[:-2]))
            if sent and whole.startswith(sent):
                words = _words(whole[max(0, len(sent) - self.script.overlap) :])
        limit = min(caps) if caps else len(words)
        return words[:limit], "length" if len(words) > limit else "stop"

    def _all_words(self, model: str, messages: list[_Message]) -> list[str]:
        if (said := self.script.say) is not None:
            return [said[at : at + 3] for at in range(0, len(said), 3)]
        words = _words(answer_text([(m.role, m.text()) for m in messages], model, self.read))
        if self.script.tokens is None:
            return words
        words = [*words[:-1], f"{words[-1].rstrip()} "] if len(words) < self.script.tokens else words
        return (words * (self.script.tokens // max(1, len(words)) + 1))[: self.script.tokens]

    def _usage(self, chat: _Chat, words: int, mode: str) -> dict[str, Any]:
        read, written = self.script.cache_read, self.script.cache_write
        prompt = sum(len(m.text().split()) + 4 for m in chat.messages) + read + written
        completion = words * (chat.n or 1)
        if mode == "miscount":
            completion = completion * 3 + 7
        if mode == "undercount":
            completion = min(completion, 1)
        counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        if not read and not written:
            return counts
        return {**counts, "prompt_tokens_details": {"cached_tokens": read, "cache_write_tokens": written}}

    def _reported(self, chat: _Chat, words: int, mode: str) -> dict[str, Any]:
        counts = self._usage(chat, words, mode) if self.script.usage is None else self.script.usage
        return self.bill.add(chat.model, counts)

    def _version(self, chat: _Chat) -> dict[str, str]:
        said = {"model": self.script.calls_itself or chat.model}
        named = {"system_fingerprint": self.script.fingerprint, "service_tier": self.script.tier}
        return said | {name: value for name, value in named.items() if value is not None}

    def _completion(self, chat: _Chat, mode: str) -> bytes:
        words, reason = self._words(chat)
        message: dict[str, Any] = {"role": "assistant", "content": "".join(words).strip(), "refusal": None}
        if self.script.tool:
            function = {"name": "look", "arguments": "".join(TOOL_PIECES)}
            message["tool_calls"] = [{"id": "call_1", "type": "function", "function": function}]
        reason = chat.ended(reason, tool=self.script.tool)
        choices = [{"index": i, "message": message, "finish_reason": reason} for i in range(chat.n or 1)]
        made = {"id": f"chatcmpl-{self.counted}", "object": "chat.completion", "created": int(time.time())}
        return _encode(
            made | {"choices": choices, "usage": self._reported(chat, len(words), mode)} | self._version(chat)
        )

    async def _stream(self, chat: _Chat, response: Response, mode: str) -> None:
        words, reason = self._words(chat)
        base = {
            "id": f"chatcmpl-{self.counted}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            **self._version(chat),
        }
        asked = chat.stream_options is not None and chat.stream_options.include_usage
        usage = self._reported(chat, len(words), mode) if asked else None
        reason = chat.ended(reason, tool=self.script.tool)
        each = chat.stream_options is not None and chat.stream_options.continuous_usage_stats
        answer = Answer(base, words, reason, chat.n or 1, usage, self.script.tool, each)
        await stream(response, answer, mode, self.script.chunk_ms / 1000, self.script.at)

    def _embed(self, asked: _Embeddings) -> bytes:
        inputs = [asked.input] if isinstance(asked.input, str) else asked.input
        data = [
            {"object": "embedding", "index": i, "embedding": vector(text, asked.encoding_format)}
            for i, text in enumerate(inputs)
        ]
        tokens = sum(len(text.split()) for text in inputs)
        usage = self.bill.add(asked.model, {"prompt_tokens": tokens, "total_tokens": tokens})
        return _encode({"object": "list", "data": data, "model": asked.model, "usage": usage})


def _words(text: str) -> list[str]:
    """One token a word."""
    return re.findall(r"\s*\S+\s*", text)


def _error(message: str, code: str) -> bytes:
    return _encode({"error": {"message": message, "type": "scripted_error", "param": None, "code": code}})


_JSON_BODIES = {
    "malformed": b'{"id":"x","choices":[{"index":0,',
    "empty": b"",
    "error_event": _error("something went wrong", "scripted_error"),
    "wrong_type": b"<html><body>welcome</body></html>",
}
"""Whole answers of status 200 that are none."""


def _refusal(refusal: Refusal, *_: object) -> bytes:
    return _error(refusal.message, refusal.code)


async def start(model: ScriptedModel, port: int = 0) -> tuple[asyncio.Server, Server, int]:
    """Listen on loopback; returns the listener, its server and the port."""
    loop = asyncio.get_running_loop()
    server = Server(model.handle, _refusal, loop)
    server.is_streamed = lambda request: is_form(request.headers.get(b"content-type"))
    server.accepts_websocket = lambda request: request.target.startswith(_REALTIME)
    listener = await loop.create_server(server.create_connection, "127.0.0.1", port, backlog=1024)
    return listener, server, listener.sockets[0].getsockname()[1]


async def _serve(arguments: argparse.Namespace) -> None:
    token = secrets.token_urlsafe(24)
    count_file = Path(arguments.count_file) if arguments.count_file else None
    model = ScriptedModel(arguments.name, count_file, token=None if arguments.port else token)
    model.script.latency_ms = arguments.latency_ms
    if arguments.meaning is not None:
        model.read = lazily(arguments.meaning)
    listener, server, port = await start(model, arguments.port)
    announce(Home(Path(arguments.home).absolute()), arguments.name, f"http://127.0.0.1:{port}/v1", token)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    listener.close()
    await server.drain(1.0)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m groundplan.testing.scripted")
    parser.add_argument("--home", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--count-file")
    parser.add_argument("--latency-ms", type=float, default=0)
    parser.add_argument("--meaning", type=Path, metavar="FOLDER", help="answer by meaning, with this embedding model")
    arguments = parser.parse_args(argv)
    uvloop.run(_serve(arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main())
