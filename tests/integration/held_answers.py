"""The types of a pinned official client for the answers of each route, and a client that checks answers against them.

`test_conformance` makes the requests; `test_surfaces_conform` checks that every route is here.
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

WHOLE_FORM, PAGE_FORM, LINES_FORM, EVENTS_FORM, ERROR_FORM = "whole", "page", "lines", "events", "error"
"""Forms of an answer."""
ANTHROPIC_VERSION_HEADER = {"anthropic_version": "2023-06-01"}


@dataclass(frozen=True)
class AnswerTypes:
    """The types of a route's answers, by form: `whole` JSON, each item of a `page`, each of its `lines` or `events`."""

    whole: Any = None
    page: Any = None
    lines: Any = None
    events: Any = None
    extra_fields: frozenset[str] = OUR_FIELDS
    """Fields that are allowed although the type does not have them."""
    is_anthropic: bool = False
    allows_null_finish: bool = False
    """Whether the finish reason of a choice may be null, which OpenAI sends and its type does not allow."""

    @property
    def forms(self) -> set[str]:
        """The forms in which the route answers; every route answers with errors."""
        return {
            form for form in (WHOLE_FORM, PAGE_FORM, LINES_FORM, EVENTS_FORM) if getattr(self, form) is not None
        } | {ERROR_FORM}


def _our_fields_and(*names: str) -> frozenset[str]:
    return OUR_FIELDS | set(names)


ROUTES: dict[str, AnswerTypes] = {
    "POST /v1/chat/completions": AnswerTypes(ChatCompletion, events=ChatCompletionChunk),
    "GET /v1/chat/completions": AnswerTypes(page=ChatCompletion),
    "GET /v1/chat/completions/ID": AnswerTypes(ChatCompletion),
    "POST /v1/chat/completions/ID": AnswerTypes(ChatCompletion),
    "DELETE /v1/chat/completions/ID": AnswerTypes(ChatCompletionDeleted),
    "GET /v1/chat/completions/ID/messages": AnswerTypes(),  # OpenAI's type says that each is an assistant's
    "POST /v1/completions": AnswerTypes(Completion, events=Completion, allows_null_finish=True),
    "POST /v1/embeddings": AnswerTypes(CreateEmbeddingResponse),
    "POST /v1/moderations": AnswerTypes(ModerationCreateResponse),
    # Cohere's type; which model it was and its tokens are told by Jina and vLLM
    "POST /v1/rerank": AnswerTypes(RerankResponse, extra_fields=_our_fields_and("model", "usage")),
    "POST /v2/rerank": AnswerTypes(V2RerankResponse, extra_fields=_our_fields_and("model", "usage")),
    "POST /v1/images/generations": AnswerTypes(ImagesResponse, events=ImageGenStreamEvent),
    "POST /v1/images/edits": AnswerTypes(ImagesResponse, events=ImageEditStreamEvent),
    "POST /v1/images/variations": AnswerTypes(ImagesResponse),
    "POST /v1/audio/speech": AnswerTypes(),  # sound
    "POST /v1/audio/transcriptions": AnswerTypes(Transcription, events=TranscriptionStreamEvent),
    "POST /v1/audio/translations": AnswerTypes(Translation, extra_fields=_our_fields_and("usage")),
    "POST /v1/uploads": AnswerTypes(Upload),
    "POST /v1/uploads/ID/parts": AnswerTypes(UploadPart),
    "POST /v1/uploads/ID/complete": AnswerTypes(Upload),
    "POST /v1/uploads/ID/cancel": AnswerTypes(Upload),
    "POST /v1/responses": AnswerTypes(Response, events=ResponseStreamEvent),
    "POST /v1/responses/input_tokens": AnswerTypes(InputTokenCountResponse),
    # OpenAI sends `store`, too
    "GET /v1/responses/ID": AnswerTypes(Response, events=ResponseStreamEvent, extra_fields=_our_fields_and("store")),
    "DELETE /v1/responses/ID": AnswerTypes(),  # OpenAI's client reads nothing of it
    "GET /v1/responses/ID/input_items": AnswerTypes(ResponseItemList),
    "POST /v1/responses/ID/cancel": AnswerTypes(Response, extra_fields=_our_fields_and("store")),
    "GET /v1/realtime": AnswerTypes(
        events=RealtimeServerEvent, extra_fields=_our_fields_and(".session.id", ".session.object", ".error.hint")
    ),  # OpenAI sends both of the session
    "GET /v1/models": AnswerTypes(page=Model),
    "GET /v1/models/ID": AnswerTypes(Model),
    "POST /v1/files": AnswerTypes(FileObject),
    "GET /v1/files": AnswerTypes(page=FileObject),
    "GET /v1/files/ID": AnswerTypes(FileObject),
    "GET /v1/files/ID/content": AnswerTypes(lines=ChatCompletion),  # the answer in each line of a result
    "DELETE /v1/files/ID": AnswerTypes(FileDeleted),
    "POST /v1/batches": AnswerTypes(Batch),
    "GET /v1/batches": AnswerTypes(page=Batch),
    "GET /v1/batches/ID": AnswerTypes(Batch),
    "POST /v1/batches/ID/cancel": AnswerTypes(Batch),
    "POST /v1/messages": AnswerTypes(Message, events=RawMessageStreamEvent, is_anthropic=True),
    "POST /v1/messages/count_tokens": AnswerTypes(MessageTokensCount, is_anthropic=True),
    "GET /v1/models for Anthropic": AnswerTypes(page=ModelInfo, is_anthropic=True),
    "GET /v1/models/ID for Anthropic": AnswerTypes(ModelInfo, is_anthropic=True),
    "POST /v1/files for Anthropic": AnswerTypes(FileMetadata, is_anthropic=True),
    "GET /v1/files for Anthropic": AnswerTypes(page=FileMetadata, is_anthropic=True),
    "GET /v1/files/ID for Anthropic": AnswerTypes(FileMetadata, is_anthropic=True),
    "DELETE /v1/files/ID for Anthropic": AnswerTypes(DeletedFile, is_anthropic=True),
    "POST /v1/messages/batches": AnswerTypes(MessageBatch, is_anthropic=True),
    "GET /v1/messages/batches": AnswerTypes(page=MessageBatch, is_anthropic=True),
    "GET /v1/messages/batches/ID": AnswerTypes(MessageBatch, is_anthropic=True),
    "POST /v1/messages/batches/ID/cancel": AnswerTypes(MessageBatch, is_anthropic=True),
    "GET /v1/messages/batches/ID/results": AnswerTypes(
        lines=MessageBatchIndividualResponse,
        extra_fields=_our_fields_and(".result.message.groundplan"),
        is_anthropic=True,
    ),
    "DELETE /v1/messages/batches/ID": AnswerTypes(DeletedMessageBatch, is_anthropic=True),
}
"""`METHOD PATH`, followed by the client's name if the answer depends on it, -> types of the answer."""
PAGE_FIELDS = {"object", "data", "has_more", "first_id", "last_id", "next_page"}
EXTRA_ERROR_FIELDS = _our_fields_and("hint", "call_id")
EXTRA_ANTHROPIC_ERROR_FIELDS = _our_fields_and("request_id", ".error.hint", ".error.code", ".error.call_id")


def all_forms() -> set[tuple[str, str]]:
    """Every (route, form) that must be checked."""
    return {(route, form) for route, types in ROUTES.items() for form in types.forms}


@dataclass
class TypeCheckingClient:
    """Sends requests to a gateway and checks every answer against the types of its route."""

    stack: Stack
    key: str
    checked_forms: set[tuple[str, str]] = field(default_factory=set)
    """Every (route, form) that was checked successfully."""

    async def ask(
        self, route: str, body: Any = None, *, id: str = "", key: str = "", status: int = 200, **headers: str
    ) -> Reply:
        """Send a request and check its answer, which must have this status. `body`: an object for JSON, or bytes."""
        method, path = route.split(" ")[:2]
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        version = ANTHROPIC_VERSION_HEADER if ROUTES[route].is_anthropic else {}
        reply = await self.stack.ask(method, path.replace("ID", id), key or self.key, data, **version, **headers)
        assert reply.status == status, (route, reply.status, reply.body)
        self.check_reply(route, reply)
        return reply

    def check_reply(self, route: str, reply: Reply) -> None:
        kind, types = reply.headers.get("content-type", ""), ROUTES[route]
        if reply.status >= 400:
            self._check_error(route, reply)
        elif kind.startswith("text/event-stream"):
            for text in _typed_event_texts(reply.body):
                self.check_event(route, text)
        elif types.lines is not None:
            for line in reply.body.splitlines():
                self._check_line(route, line)
        elif types.page is not None:
            page = reply.json
            assert page.keys() <= PAGE_FIELDS and {"data"} <= page.keys() and page["data"], (route, page)
            for each in page["data"]:
                self._check_type(route, PAGE_FORM, types.page, json.dumps(each))
        elif types.whole is not None:
            self._check_type(route, WHOLE_FORM, types.whole, reply.body)

    def check_event(self, route: str, text: str | bytes) -> None:
        """Check one event of a stream or of a conversation."""
        if ROUTES[route].allows_null_finish:
            event = json.loads(text)
            for choice in event["choices"]:
                choice["finish_reason"] = choice["finish_reason"] or "stop"
            text = json.dumps(event)
        self._check_type(route, EVENTS_FORM, ROUTES[route].events, text)

    def _check_line(self, route: str, line: bytes) -> None:
        parsed = json.loads(line)
        if "response" in parsed:  # of OpenAI's batches: the line itself has no type
            assert parsed.keys() == {"id", "custom_id", "response", "error"}
            assert parsed["response"].keys() == {"status_code", "request_id", "body"}
            line = json.dumps(parsed["response"]["body"]).encode()
        self._check_type(route, LINES_FORM, ROUTES[route].lines, line)

    def _check_error(self, route: str, reply: Reply) -> None:
        if ROUTES[route].is_anthropic:
            self._check_type(route, ERROR_FORM, ErrorResponse, reply.body, EXTRA_ANTHROPIC_ERROR_FIELDS)
        else:
            assert reply.json.keys() == {"error"}
            self._check_type(route, ERROR_FORM, ErrorObject, json.dumps(reply.json["error"]), EXTRA_ERROR_FIELDS)

    def _check_type(
        self, route: str, form: str, kind: Any, text: str | bytes, extra_fields: frozenset[str] | None = None
    ) -> None:
        assert kind is not None, f"{route} answers in the form {form}, for which no type is declared"
        try:
            parse_strictly(kind, text, our_fields=ROUTES[route].extra_fields if extra_fields is None else extra_fields)
        except (AssertionError, ValueError) as wrong:
            raise AssertionError(f"{route}, {form}: {wrong}\n{text!r}") from wrong
        self.checked_forms.add((route, form))


def _typed_event_texts(body: bytes) -> list[str]:
    """The data of each event, without `[DONE]` and pings, for which the clients have no type."""
    texts = [line[6:] for line in body.decode().split("\n") if line.startswith("data: ")]
    return [text for text in texts if text != "[DONE]" and json.loads(text).get("type") != "ping"]
