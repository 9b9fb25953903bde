"""Which type of a pinned official client the answers of each route are, and a client that holds each answer against it.

What is asked of the routes is in test_conformance; that every route is here, in test_surfaces_conform.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from anthropic.types import (
    DeletedFile,
    ErrorResponse,
    FileMetadata,
    Message,
    MessageTokensCount,
    ModelInfo,
    RawMessageStreamEvent,
)
from anthropic.types.messages import DeletedMessageBatch, MessageBatch, MessageBatchIndividualResponse
from cohere.types import RerankResponse
from cohere.v2.types import V2RerankResponse
from openai.types import (
    Batch,
    Completion,
    CreateEmbeddingResponse,
    FileDeleted,
    FileObject,
    ImageEditStreamEvent,
    ImageGenStreamEvent,
    ImagesResponse,
    Model,
    ModerationCreateResponse,
    Upload,
)
from openai.types.audio import Transcription, TranscriptionStreamEvent, Translation
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionDeleted
from openai.types.realtime import RealtimeServerEvent
from openai.types.responses import InputTokenCountResponse, Response, ResponseStreamEvent
from openai.types.responses.response_item_list import ResponseItemList
from openai.types.shared import ErrorObject
from openai.types.uploads import UploadPart
from tests.integration.gateway_stack import Reply, Stack
from tests.integration.sdk_types import OUR_FIELDS, parse_strictly

WHOLE, PAGE, LINES, EVENTS, ERROR = "whole", "page", "lines", "events", "error"
"""Forms of an answer."""
VERSION = {"anthropic_version": "2023-06-01"}


@dataclass(frozen=True)
class Held:
    """The types of a route's answers, by form: `whole` JSON, each item of a `page`, each of its `lines` or `events`."""

    whole: Any = None
    page: Any = None
    lines: Any = None
    events: Any = None
    ours: frozenset[str] = OUR_FIELDS
    """Fields that the type has not."""
    anthropic: bool = False
    unfinished: bool = False
    """Choices of its events are finished by null, which OpenAI sends and its type has not."""

    @property
    def forms(self) -> set[str]:
        """Those that there are; errors are everywhere."""
        return {form for form in (WHOLE, PAGE, LINES, EVENTS) if getattr(self, form) is not None} | {ERROR}


def _also(*names: str) -> frozenset[str]:
    return OUR_FIELDS | set(names)


ROUTES: dict[str, Held] = {
    "POST /v1/chat/completions": Held(ChatCompletion, events=ChatCompletionChunk),
    "GET /v1/chat/completions": Held(page=ChatCompletion),
    "GET /v1/chat/completions/ID": Held(ChatCompletion),
    "POST /v1/chat/completions/ID": Held(ChatCompletion),
    "DELETE /v1/chat/completions/ID": Held(ChatCompletionDeleted),
    "GET /v1/chat/completions/ID/messages": Held(),  # OpenAI's type says that each is an assistant's
    "POST /v1/completions": Held(Completion, events=Completion, unfinished=True),
    "POST /v1/embeddings": Held(CreateEmbeddingResponse),
    "POST /v1/moderations": Held(ModerationCreateResponse),
    # Cohere's type; which model it was and its tokens are told by Jina and vLLM
    "POST /v1/rerank": Held(RerankResponse, ours=_also("model", "usage")),
    "POST /v2/rerank": Held(V2RerankResponse, ours=_also("model", "usage")),
    "POST /v1/images/generations": Held(ImagesResponse, events=ImageGenStreamEvent),
    "POST /v1/images/edits": Held(ImagesResponse, events=ImageEditStreamEvent),
    "POST /v1/images/variations": Held(ImagesResponse),
    "POST /v1/audio/speech": Held(),  # sound
    "POST /v1/audio/transcriptions": Held(Transcription, events=TranscriptionStreamEvent),
    "POST /v1/audio/translations": Held(Translation, ours=_also("usage")),
    "POST /v1/uploads": Held(Upload),
    "POST /v1/uploads/ID/parts": Held(UploadPart),
    "POST /v1/uploads/ID/complete": Held(Upload),
    "POST /v1/uploads/ID/cancel": Held(Upload),
    "POST /v1/responses": Held(Response, events=ResponseStreamEvent),
    "POST /v1/responses/input_tokens": Held(InputTokenCountResponse),
    # OpenAI sends `store`, too
    "GET /v1/responses/ID": Held(Response, events=ResponseStreamEvent, ours=_also("store")),
    "DELETE /v1/responses/ID": Held(),  # OpenAI's client reads nothing of it
    "GET /v1/responses/ID/input_items": Held(ResponseItemList),
    "POST /v1/responses/ID/cancel": Held(Response, ours=_also("store")),
    "GET /v1/realtime": Held(
        events=RealtimeServerEvent, ours=_also(".session.id", ".session.object", ".error.hint")
    ),  # OpenAI sends both of the session
    "GET /v1/models": Held(page=Model),
    "GET /v1/models/ID": Held(Model),
    "POST /v1/files": Held(FileObject),
    "GET /v1/files": Held(page=FileObject),
    "GET /v1/files/ID": Held(FileObject),
    "GET /v1/files/ID/content": Held(lines=ChatCompletion),  # the answer in each line of a result
    "DELETE /v1/files/ID": Held(FileDeleted),
    "POST /v1/batches": Held(Batch),
    "GET /v1/batches": Held(page=Batch),
    "GET /v1/batches/ID": Held(Batch),
    "POST /v1/batches/ID/cancel": Held(Batch),
    "POST /v1/messages": Held(Message, events=RawMessageStreamEvent, anthropic=True),
    "POST /v1/messages/count_tokens": Held(MessageTokensCount, anthropic=True),
    "GET /v1/models for Anthropic": Held(page=ModelInfo, anthropic=True),
    "GET /v1/models/ID for Anthropic": Held(ModelInfo, anthropic=True),
    "POST /v1/files for Anthropic": Held(FileMetadata, anthropic=True),
    "GET /v1/files for Anthropic": Held(page=FileMetadata, anthropic=True),
    "GET /v1/files/ID for Anthropic": Held(FileMetadata, anthropic=True),
    "DELETE /v1/files/ID for Anthropic": Held(DeletedFile, anthropic=True),
    "POST /v1/messages/batches": Held(MessageBatch, anthropic=True),
    "GET /v1/messages/batches": Held(page=MessageBatch, anthropic=True),
    "GET /v1/messages/batches/ID": Held(MessageBatch, anthropic=True),
    "POST /v1/messages/batches/ID/cancel": Held(MessageBatch, anthropic=True),
    "GET /v1/messages/batches/ID/results": Held(
        lines=MessageBatchIndividualResponse, ours=_also(".result.message.groundplan"), anthropic=True
    ),
    "DELETE /v1/messages/batches/ID": Held(DeletedMessageBatch, anthropic=True),
}
"""METHOD PATH, and whose client asks where the answer depends on it."""
OF_PAGES = {"object", "data", "has_more", "first_id", "last_id", "next_page"}
OF_ERRORS = _also("hint", "call_id")
OF_ANTHROPICS_ERRORS = _also("request_id", ".error.hint", ".error.code", ".error.call_id")


def all_forms() -> set[tuple[str, str]]:
    """Every (route, form) that is to be held."""
    return {(route, form) for route, held in ROUTES.items() for form in held.forms}


@dataclass
class Holding:
    """Asks a gateway, and holds whatever it answers against the type of its route."""

    stack: Stack
    key: str
    held: set[tuple[str, str]] = field(default_factory=set)
    """(route, form) of all that was right."""

    async def ask(
        self, route: str, body: Any = None, *, id: str = "", key: str = "", status: int = 200, **headers: str
    ) -> Reply:
        """`body`: an object for JSON, or bytes. The answer has to have the status."""
        method, path = route.split(" ")[:2]
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        version = VERSION if ROUTES[route].anthropic else {}
        reply = await self.stack.ask(method, path.replace("ID", id), key or self.key, data, **version, **headers)
        assert reply.status == status, (route, reply.status, reply.body)
        self.hold(route, reply)
        return reply

    def hold(self, route: str, reply: Reply) -> None:
        kind, held = reply.headers.get("content-type", ""), ROUTES[route]
        if reply.status >= 400:
            self._error(route, reply)
        elif kind.startswith("text/event-stream"):
            for text in _data_of(reply.body):
                self.event(route, text)
        elif held.lines is not None:
            for line in reply.body.splitlines():
                self._line(route, line)
        elif held.page is not None:
            page = reply.json
            assert page.keys() <= OF_PAGES and {"data"} <= page.keys() and page["data"], (route, page)
            for each in page["data"]:
                self._hold(route, PAGE, held.page, json.dumps(each))
        elif held.whole is not None:
            self._hold(route, WHOLE, held.whole, reply.body)

    def event(self, route: str, text: str | bytes) -> None:
        """One event of a stream or a conversation."""
        if ROUTES[route].unfinished:
            event = json.loads(text)
            for choice in event["choices"]:
                choice["finish_reason"] = choice["finish_reason"] or "stop"
            text = json.dumps(event)
        self._hold(route, EVENTS, ROUTES[route].events, text)

    def _line(self, route: str, line: bytes) -> None:
        whole = json.loads(line)
        if "response" in whole:  # of OpenAI's batches: the line itself has no type
            assert whole.keys() == {"id", "custom_id", "response", "error"}
            assert whole["response"].keys() == {"status_code", "request_id", "body"}
            line = json.dumps(whole["response"]["body"]).encode()
        self._hold(route, LINES, ROUTES[route].lines, line)

    def _error(self, route: str, reply: Reply) -> None:
        if ROUTES[route].anthropic:
            self._hold(route, ERROR, ErrorResponse, reply.body, OF_ANTHROPICS_ERRORS)
        else:
            assert reply.json.keys() == {"error"}
            self._hold(route, ERROR, ErrorObject, json.dumps(reply.json["error"]), OF_ERRORS)

    def _hold(self, route: str, form: str, kind: Any, text: str | bytes, ours: frozenset[str] | None = None) -> None:
        assert kind is not None, f"{route} answers in the form {form}, for which no type is declared"
        try:
            parse_strictly(kind, text, our_fields=ROUTES[route].ours if ours is None else ours)
        except (AssertionError, ValueError) as wrong:
            raise AssertionError(f"{route}, {form}: {wrong}\n{text!r}") from wrong
        self.held.add((route, form))


def _data_of(body: bytes) -> list[str]:
    """The data of each event, but for the end and for pings, which have no type."""
    texts = [line[6:] for line in body.decode().split("\n") if line.startswith("data: ")]
    return [text for text in texts if text != "[DONE]" and json.loads(text).get("type") != "ping"]
