"""The scripted model: a deterministic upstream that can fail on command and counts its attempts. It implements OpenAI's
API, including files and batches, and Anthropic's Messages.

It understands nothing: it repeats the passages of its prompt, or the last question. It uses real HTTP, real sockets and
real usage numbers, so that the same contract tests hold for it and for real models. Not for production answers.

`POST /control {"mode": ..., "after": n, "latency_ms", "chunk_ms", "tokens", "status", "retry_after", "at", "tool",
"overlap", "usage"}` sets its behaviour until the next one; `after` lets n calls succeed first, `times` limits how many
fail. `GET /counted` returns the number of attempts, `GET /billed` the usage that it reported for each. A conversation
that ends with a part of its own answer and a request to continue gets the rest of that answer. The ways in which its
streams can fail are in `scripted_stream`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
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
from groundplan.testing.reading import Reader, by_words, lazy_reader
from groundplan.testing.script import Script as Script
from groundplan.testing.scripted_batches import ScriptedBatches
from groundplan.testing.scripted_bill import Bill
from groundplan.testing.scripted_chat import ChatRequest, Message, answer_text, answer_words, count_usage
from groundplan.testing.scripted_message_batches import ScriptedMessageBatches
from groundplan.testing.scripted_messages import MessageAnswer, MessagesRequest, error, usage
from groundplan.testing.scripted_stream import STREAM_MODES, TOOL_PIECES, Answer, stream
from groundplan.testing.scripted_tasks import TASKS, TaskOptions, answer_task, embedding

MODES = ("ok", "down", "error", "stall", "cut", "miscount", "slow", "undercount", *STREAM_MODES)
_MESSAGES = b"/v1/messages"
_REALTIME = b"/v1/realtime"
_RESPONSES, _COMPLETIONS = b"/v1/responses", b"/v1/completions"
_ANSWERED = (b"/v1/models", b"/v1/chat/completions", b"/v1/embeddings", _MESSAGES, _RESPONSES, _COMPLETIONS)
_encode = msgspec.json.Encoder().encode


class _Embeddings(msgspec.Struct):
    input: str | list[str]
    model: str = "scripted"
    encoding_format: str = "float"


class ScriptedModel:
    """The state of one scripted upstream: its script, its counter, its durable count file."""

    def __init__(self, name: str, count_file: Path | None = None, token: str | None = None) -> None:
        self.name = name
        self.script = Script()
        self.counted = 0
        self.bill = Bill()
        self.read: Reader = by_words
        """Composes answers from passages."""
        self.last: Request | None = None
        """The newest attempt."""
        self._token = token
        self._attempts_seen = 0
        self.batches = ScriptedBatches(self._answer_line, self._batch_pace)
        self.message_batches = ScriptedMessageBatches(self._answer_line, self._batch_pace)
        self._count = None if count_file is None else os.open(count_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    async def handle(self, request: Request, response: Response) -> None:
        target = request.target.partition(b"?")[0]
        if target == b"/control" and request.method == b"POST":
            self._control(request, response)
        elif target == _REALTIME and request.stream is not None:
            await self._serve_realtime(request, response)
        elif target == b"/counted":
            response.send(200, _encode({"counted": self.counted}))
        elif target == b"/billed":
            response.send(200, self.bill.told())
        elif self.batches.serves(target):
            await self._serve_batches(self.batches, target, request, response)
        elif self.message_batches.serves(target):
            await self._serve_batches(self.message_batches, target, request, response)
        elif target == b"/v1/messages/count_tokens":
            self._count_tokens(request, response)
        elif target in _ANSWERED or target in TASKS:
            await self._serve_model(target, request, response)
        else:
            response.send(404, _error("there is no such path", "not_found"))

    async def _serve_batches(
        self, batches: ScriptedBatches | ScriptedMessageBatches, target: bytes, request: Request, response: Response
    ) -> None:
        """Serve files and batches. Failing modes fail before anything is done, except `stall` and `cut`, which perform
        the request and do not answer it."""
        script = self.script
        named = script.only is not None and f"{request.method.decode()} {target.decode()}".startswith(script.only)
        mode = self._next_mode() if named and script.mode != "ok" else "ok"
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

    def _batch_pace(self) -> tuple[float, int | None, str]:
        return self.script.line_ms / 1000, self.script.lines, self.script.lines_end

    async def _answer_line(self, endpoint: str, body: bytes) -> tuple[int, bytes]:
        """Answer one line of a batch like a call; returns (status, body)."""
        request, response = Request(0.0), CollectedResponse()
        request.method, request.target, request.body = b"POST", endpoint.encode(), body
        messages = request.target == _MESSAGES
        if messages:
            request.headers = {b"anthropic-version": b"2023-06-01"}
        await self._count_attempt(request)
        script = self.script
        mode = self._next_mode() if script.only is None or f"POST {endpoint}".startswith(script.only) else "ok"
        if mode == "error":
            message = "the scripted model was told to fail"
            return script.status, error(message, script.status) if messages else _error(message, "scripted_error")
        await self._answer(request.target, request, response, mode)
        return response.status, response.body

    async def _serve_realtime(self, request: Request, response: Response) -> None:
        self.last = request
        from groundplan.testing.scripted_realtime import Conversation  # noqa: PLC0415 -- it loads an optional library

        script = self.script
        talk = Conversation(request, response, (self._next_mode(), script.chunk_ms / 1000, script.tokens))
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
        self.script, self._attempts_seen = script, 0
        response.send(200, _encode(script))

    async def _serve_model(self, target: bytes, request: Request, response: Response) -> None:
        mode = self._next_mode() if request.method == b"POST" else "ok"
        if self.script.mode == "down" and mode == "down":
            return  # unanswered: the server resets the connection
        if target == b"/v1/models":
            model = {"id": self.name, "object": "model", "created": 0, "owned_by": "groundplan"}
            response.send(200, _encode({"object": "list", "data": [model]}))
            return
        if request.method != b"POST":
            response.send(405, _error("use POST", "method_not_allowed"))
            return
        await self._count_attempt(request)
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

    def _next_mode(self) -> str:
        self._attempts_seen += 1
        failing = self._attempts_seen - self.script.after
        if failing <= 0 or (self.script.times is not None and failing > self.script.times):
            return "ok"
        return self.script.mode

    async def _count_attempt(self, request: Request) -> None:
        """Count an attempt durably before it is answered, so that tests that kill this process can rely on the file."""
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
                await self._answer_messages(request, response, mode)
                return
            if target == _RESPONSES:
                await self._answer_responses(
                    msgspec.json.decode(request.body, type=scripted_responses.ResponsesRequest), response, mode
                )
                return
            if target == _COMPLETIONS:
                await self._answer_completions(
                    msgspec.json.decode(request.body, type=scripted_responses.CompletionRequest), response, mode
                )
                return
            if target in TASKS:
                script = self.script
                how = TaskOptions(mode, script.chunk_ms / 1000, script.at, script.last, script.usage)
                await answer_task(target, request, response, how)
                return
            chat = msgspec.json.decode(request.body, type=ChatRequest)
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

    async def _answer_messages(self, request: Request, response: Response, mode: str) -> None:
        """Answer like chat, in the format of Anthropic's Messages. Raises `DecodeError`."""
        body = msgspec.json.decode(request.body, type=MessagesRequest)
        if b"anthropic-version" not in request.headers or body.max_tokens is None:
            response.send(400, error("anthropic-version and max_tokens are needed", 400))
            return
        if mode == "slow":
            await asyncio.sleep(2.0)
        chat = self._as_chat(body)
        words, reason = answer_words(chat, self.script, self.read)
        script = self.script
        counts = self.bill.add(body.model, script.usage or self._message_usage(chat, len(words), mode))
        answer = MessageAnswer(f"msg_{self.counted}", body.model, words, reason, counts, script.tool)
        if body.stream:
            await stream(response, answer, mode, script.chunk_ms / 1000, script.at)
        else:
            self._send(answer.whole(), response, mode)

    def _message_usage(self, chat: ChatRequest, words: int, mode: str) -> dict[str, int]:
        script = self.script
        found = count_usage(chat, words, mode, script)
        prompt = found["prompt_tokens"] - script.cache_read - script.cache_write
        return usage(prompt, found["completion_tokens"], script.cache_read, script.cache_write)

    def _as_chat(self, body: MessagesRequest) -> ChatRequest:
        messages = [Message(role, content) for role, content in body.turns()]
        return ChatRequest(messages, body.model, body.stream, None, body.max_tokens)

    async def _answer_responses(self, body: scripted_responses.ResponsesRequest, response: Response, mode: str) -> None:
        """Answer like chat, in the format of Responses."""
        messages = [Message(role, text) for role, text in body.turns()]
        chat = ChatRequest(messages, body.model, body.stream, None, body.max_output_tokens)
        words, reason = answer_words(chat, self.script, self.read)
        counts, script = self._record_usage(chat, len(words), mode), self.script
        answer = scripted_responses.ResponseAnswer(
            str(self.counted), body.model, words, reason, counts, script, body.instructions
        )
        if body.stream:
            await stream(response, answer, mode, script.chunk_ms / 1000, script.at)
        else:
            self._send(answer.whole(), response, mode)

    async def _answer_completions(
        self, body: scripted_responses.CompletionRequest, response: Response, mode: str
    ) -> None:
        """Answer like chat, in the format of completions; a prompt that ends with part of its answer gets the rest."""
        prompt, turns = body.prompt, [("user", body.prompt)]
        for at in range(1, len(prompt)):
            if answer_text([("user", prompt[:at])]).startswith(prompt[at:]):
                turns = [("user", prompt[:at]), ("assistant", prompt[at:]), ("user", "")]
                break
        chat = ChatRequest(
            [Message(role, text) for role, text in turns], body.model, body.stream, None, body.max_tokens
        )
        words, reason = answer_words(chat, self.script, self.read)
        counts, script = self._record_usage(chat, len(words), mode), self.script
        answer = scripted_responses.CompletionAnswer(f"cmpl-{self.counted}", body.model, words, reason, counts)
        if body.stream:
            await stream(response, answer, mode, script.chunk_ms / 1000, script.at)
        else:
            self._send(answer.whole(), response, mode)

    def _count_tokens(self, request: Request, response: Response) -> None:
        """Answer a token count. It costs nothing and is not counted as an attempt; it fails only if `only` names it."""
        if (self.script.only or "").endswith("/count_tokens") and self._next_mode() == "error":
            response.send(self.script.status, error("the scripted model was told to fail", self.script.status))
            return
        try:
            body = msgspec.json.decode(request.body, type=MessagesRequest)
        except msgspec.DecodeError as problem:
            response.send(400, error(str(problem), 400))
            return
        tokens = count_usage(self._as_chat(body), 0, "ok", self.script)["prompt_tokens"]
        response.send(200, _encode({"input_tokens": tokens}))

    def _record_usage(self, chat: ChatRequest, words: int, mode: str) -> dict[str, Any]:
        counts = count_usage(chat, words, mode, self.script) if self.script.usage is None else self.script.usage
        return self.bill.add(chat.model, counts)

    def _model_fields(self, chat: ChatRequest) -> dict[str, str]:
        said = {"model": self.script.calls_itself or chat.model}
        named = {"system_fingerprint": self.script.fingerprint, "service_tier": self.script.tier}
        return said | {name: value for name, value in named.items() if value is not None}

    def _completion(self, chat: ChatRequest, mode: str) -> bytes:
        words, reason = answer_words(chat, self.script, self.read)
        message: dict[str, Any] = {"role": "assistant", "content": "".join(words).strip(), "refusal": None}
        if self.script.tool:
            function = {"name": "look", "arguments": "".join(TOOL_PIECES)}
            message["tool_calls"] = [{"id": "call_1", "type": "function", "function": function}]
        reason = chat.finish_reason(reason, tool=self.script.tool)
        choices = [{"index": i, "message": message, "finish_reason": reason} for i in range(chat.n or 1)]
        made = {"id": f"chatcmpl-{self.counted}", "object": "chat.completion", "created": int(time.time())}
        return _encode(
            made | {"choices": choices, "usage": self._record_usage(chat, len(words), mode)} | self._model_fields(chat)
        )

    async def _stream(self, chat: ChatRequest, response: Response, mode: str) -> None:
        words, reason = answer_words(chat, self.script, self.read)
        base = {
            "id": f"chatcmpl-{self.counted}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            **self._model_fields(chat),
        }
        includes_usage = chat.stream_options is not None and chat.stream_options.include_usage
        usage = self._record_usage(chat, len(words), mode) if includes_usage else None
        reason = chat.finish_reason(reason, tool=self.script.tool)
        each = chat.stream_options is not None and chat.stream_options.continuous_usage_stats
        answer = Answer(base, words, reason, chat.n or 1, usage, self.script.tool, each)
        await stream(response, answer, mode, self.script.chunk_ms / 1000, self.script.at)

    def _embed(self, body: _Embeddings) -> bytes:
        inputs = [body.input] if isinstance(body.input, str) else body.input
        data = [
            {"object": "embedding", "index": i, "embedding": embedding(text, body.encoding_format)}
            for i, text in enumerate(inputs)
        ]
        tokens = sum(len(text.split()) for text in inputs)
        usage = self.bill.add(body.model, {"prompt_tokens": tokens, "total_tokens": tokens})
        return _encode({"object": "list", "data": data, "model": body.model, "usage": usage})


def _error(message: str, code: str) -> bytes:
    return _encode({"error": {"message": message, "type": "scripted_error", "param": None, "code": code}})


_JSON_BODIES = {
    "malformed": b'{"id":"x","choices":[{"index":0,',
    "empty": b"",
    "error_event": _error("something went wrong", "scripted_error"),
    "wrong_type": b"<html><body>welcome</body></html>",
}
"""Invalid bodies of responses with status 200, by mode."""


def _refusal(refusal: Refusal, *_: object) -> bytes:
    return _error(refusal.message, refusal.code)


async def start(model: ScriptedModel, port: int = 0) -> tuple[asyncio.Server, Server, int]:
    """Listen on loopback; return the listener, its server and the port."""
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
        model.read = lazy_reader(arguments.meaning)
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
