"""The local knowledge service over HTTP, as an ASGI application without a framework.

`POST /search` answers a `SearchRequest`, `POST /confirm` a `ConfirmRequest`, `POST /embed` an `EmbedRequest`, `POST
/support` a `SupportRequest`, `POST /personal` a `PersonalRequest`, and `POST /v1/embeddings` speaks OpenAI's embeddings
API; `GET /livez` and `/readyz` tell the state. All but those two ask for the bearer token. It starts nothing:
`gateway.search_app` composes the process.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal, TypeVar

import msgspec

from groundplan.core import presidio
from groundplan.core.errors import GroundplanError, Invalid, NotFound, TooLarge, Unauthenticated, Unavailable
from groundplan.core.logger import get_logger
from groundplan.knowledge.citations.wire import MAX_TEXTS, SupportAnswer, SupportRequest
from groundplan.knowledge.embedding.batching import BatchingEmbedder
from groundplan.knowledge.embedding.encoder import Encoder, quantise
from groundplan.knowledge.embedding.wire import EmbedAnswer, EmbedRequest
from groundplan.knowledge.model import DIMENSION, Embedder, Vectors
from groundplan.knowledge.retrieval.replication import Follower
from groundplan.knowledge.retrieval.search import Search
from groundplan.knowledge.retrieval.self_check import Examiner, ExamineRequest
from groundplan.knowledge.retrieval.wire import (
    MOST_PERSONAL,
    ConfirmRequest,
    PersonalAnswer,
    PersonalRequest,
    SearchAnswer,
    SearchRequest,
    StatedAnswer,
)

MODEL = "all-minilm-l6-v2"
MAX_BODY_BYTES = 4 << 20
MAX_INPUTS = 512
MAX_WORDS = 4096
"""Most words whose vectors are requested at once."""
_MAX_INLINE_BYTES = 16 << 10
"""Largest body of an embed request that is decoded in the event loop."""
_MAX_RERANKING = 16
"""Most searches that may wait for rerankers at once."""
_MAX_UNWATCHED = 4
"""Up to so many active requests each get a thread of the loop's default executor, which has at least five."""

LOG_INTERVAL_SECONDS = 10.0
"""Least seconds between two log lines about the same failure."""

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Decoded = TypeVar("Decoded")

_log = get_logger("groundplan.knowledge")


class EmbeddingsRequest(msgspec.Struct, frozen=True):
    """OpenAI's request; what else a client sends (`user`) is ignored. Token ids as input are not understood."""

    input: str | list[str]
    model: str = MODEL
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int = DIMENSION


class KnowledgeService:
    """The handlers of the application. They block, so they run in threads."""

    def __init__(
        self, search: Search, encoder: Encoder, follower: Follower, examiner: Examiner, early: Embedder
    ) -> None:
        """`early` embeds questions by the model's first layers only."""
        self._search = search
        self._early = BatchingEmbedder(early)
        self._examiner = examiner
        self._encoder = encoder
        self._follower = follower
        self._failed_searches, self._failure_reason = 0, ""

    @property
    def ready(self) -> bool:
        """Whether the service currently follows PostgreSQL."""
        return self._follower.connected

    def lag(self, _: bytes) -> bytes:
        """Status as JSON: the number of changed documents that word search does not know yet (vector search and
        permissions have no lag), whether PostgreSQL is followed, how many searches have `failed` since the last
        success, and why. Counts hidden documents too, so it is for operators and never part of an answer."""
        status = {
            "documents": self._follower.lag,
            "follows": self.ready,
            "failed": self._failed_searches,
            "why": self._failure_reason,
        }
        return msgspec.json.encode(status)

    def search(self, body: bytes) -> bytes:
        """`SearchAnswer` as JSON; a `StatedAnswer` if the request asks for the state."""
        request = _decode(body, SearchRequest)
        try:
            found = self._search.answer(request)
        except Invalid:
            raise
        except Exception as error:
            self._failed_searches, self._failure_reason = (
                self._failed_searches + 1,
                getattr(error, "code", error.__class__.__name__),
            )
            raise
        self._failed_searches = 0
        answer = SearchAnswer(
            passages=found.passages,
            confidence=round(found.confidence, 4),
            abstained=found.abstained,
            withheld=list(found.withheld),
            conflicts=found.conflicts,
            newer=found.newer,
            degraded=found.degraded,
            steps=list(found.steps),
        )
        if request.stated:
            answer = StatedAnswer(**msgspec.structs.asdict(answer), state=found.state)
        return msgspec.json.encode(answer)

    def waits_for_reranker(self, body: bytes) -> bool:
        """Whether a search request waits for a reranker."""
        return _decode(body, SearchRequest).rerank is not None

    def examine(self, body: bytes) -> bytes:
        """`ExamineAnswer` as JSON."""
        return msgspec.json.encode(self._examiner.examine(_decode(body, ExamineRequest)))

    def confirm(self, body: bytes) -> bytes:
        """`ConfirmAnswer` as JSON."""
        return msgspec.json.encode(self._search.confirm(_decode(body, ConfirmRequest)))

    def submit_questions(self, body: bytes) -> list[Future[Vectors]] | None:
        """Futures of the vectors of an `EmbedRequest` for questions; None if it is for other texts. Does not block."""
        request = _decode(body, EmbedRequest)
        if not request.questions or request.places:
            return None
        _check_inputs(request.texts, DIMENSION)
        texts, most = request.texts, request.most
        texts = [self._encoder.truncate(each, most) for each in texts] if most else texts
        return list(map(self._early.submit, texts)) if request.layers else self._search.queries.submit(texts)

    def embed(self, body: bytes) -> bytes:
        """`EmbedAnswer` as JSON."""
        if (futures := self.submit_questions(body)) is not None:
            return _encode_vectors([each.result() for each in futures])
        request = _decode(body, EmbedRequest)
        if request.places:
            return self._embed_words(request)
        _check_inputs(request.texts, DIMENSION)
        embedded = self._encoder.embed_counted(request.texts)
        return _encode_vectors(embedded.vectors, sum(embedded.tokens))

    def _embed_words(self, request: EmbedRequest) -> bytes:
        texts, places, word_count = request.texts, request.places, sum(map(len, request.places))
        if not len(texts) == len(places) <= MAX_INPUTS or word_count > MAX_WORDS:
            raise Invalid(
                f"{word_count} words of {len(places)} of {len(texts)} texts cannot be embedded",
                code="embeddings_request",
                hint=f"Name the words of each of 1 to {MAX_INPUTS} texts, {MAX_WORDS} of them at most.",
            )
        embeddings = self._encoder.embed_words(texts, places)
        vectors = [each.vector.astype("<f4").tobytes() for each in embeddings]
        tokens = sum(each.tokens for each in embeddings)
        return msgspec.json.encode(EmbedAnswer(MODEL, vectors, tokens, [quantise(each.words) for each in embeddings]))

    def support(self, body: bytes) -> bytes:
        """`SupportAnswer` as JSON; the same text is embedded once."""
        asked = _decode(body, SupportRequest).asked
        texts = list(dict.fromkeys(text for one in asked for text in (one.statement, *one.places)))
        if len(texts) > MAX_TEXTS:
            raise Invalid(f"{len(texts)} texts are asked about", code="support_request", hint=f"Send {MAX_TEXTS}.")
        if not texts:
            return msgspec.json.encode(SupportAnswer([]))
        vectors = dict(zip(texts, self._encoder.embed(texts), strict=True))
        return msgspec.json.encode(
            SupportAnswer([[round(float(vectors[one.statement] @ vectors[p]), 4) for p in one.places] for one in asked])
        )

    def embeddings(self, body: bytes) -> bytes:
        """OpenAI's `list` of embeddings as JSON."""
        request = _decode(body, EmbeddingsRequest)
        texts = [request.input] if isinstance(request.input, str) else request.input
        _check_inputs(texts, request.dimensions)
        embedded = self._encoder.embed_counted(texts)
        rows: list[Any] = (
            [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in embedded.vectors]
            if request.encoding_format == "base64"
            else embedded.vectors.tolist()
        )
        tokens = sum(embedded.tokens)
        return msgspec.json.encode(
            {
                "object": "list",
                "model": MODEL,
                "data": [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)],
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            }
        )


def _check_inputs(texts: Sequence[str], dimensions: int) -> None:
    """Raise `Invalid` (`embeddings_request`) for too many texts or another dimension."""
    if not texts or len(texts) > MAX_INPUTS or dimensions != DIMENSION:
        raise Invalid(
            f"{len(texts)} inputs of {dimensions} dimensions cannot be embedded",
            code="embeddings_request",
            hint=f"Send 1 to {MAX_INPUTS} texts; vectors have {DIMENSION} dimensions.",
        )


def _encode_vectors(vectors: Iterable[Vectors], tokens: int = 0) -> bytes:
    """`EmbedAnswer` as JSON."""
    return msgspec.json.encode(EmbedAnswer(MODEL, [row.astype("<f4").tobytes() for row in vectors], tokens))


def find_personal_data(body: bytes) -> bytes:
    """`PersonalAnswer` as JSON. Raises `Invalid` (`personal_request`), `Unavailable` (`extra_missing`)."""
    text = _decode(body, PersonalRequest).text
    if len(text) > MOST_PERSONAL:
        raise Invalid(
            f"{len(text)} characters are asked about",
            code="personal_request",
            hint=f"Send {MOST_PERSONAL} at most.",
        )
    if not presidio.installed():
        hint = "pip install 'groundplan[governance]'"
        raise Unavailable("presidio is not installed", code="extra_missing", hint=hint)
    return msgspec.json.encode(PersonalAnswer([found.kind for found in presidio.find(text)]))


class _FailureLog:
    """Limits logging of failures that repeat with each request, as when memory is short, to save disk space."""

    def __init__(self) -> None:
        self._logged: dict[tuple[str, type[Exception]], tuple[float, int]] = {}
        """(path, type of error) -> (when it was logged last, how many were suppressed since)."""

    def record(self, path: str, error: Exception) -> None:
        key, now = (path, type(error)), time.monotonic()
        logged_at, suppressed = self._logged.get(key, (-LOG_INTERVAL_SECONDS, 0))
        if now < logged_at + LOG_INTERVAL_SECONDS:
            self._logged[key] = (logged_at, suppressed + 1)
            return
        _log.error("knowledge.request_failed", path=path, more=suppressed, exc_info=error)
        self._logged[key] = (now, 0)


def application(service: KnowledgeService, token: str) -> Application:
    """The ASGI application; `token` is the bearer key that callers must send."""
    rerank_threads = ThreadPoolExecutor(_MAX_RERANKING, "rerank")
    active_requests, failures = 0, _FailureLog()
    routes = {
        ("POST", "/search"): service.search,
        ("POST", "/confirm"): service.confirm,
        ("POST", "/embed"): service.embed,
        ("POST", "/examine"): service.examine,
        ("POST", "/support"): service.support,
        ("POST", "/lag"): service.lag,
        ("POST", "/personal"): find_personal_data,
        ("POST", "/v1/embeddings"): service.embeddings,
    }

    async def handle(scope: Scope, receive: Receive) -> tuple[int, bytes]:
        if scope["method"] == "GET" and scope["path"] in ("/livez", "/readyz"):
            ready = scope["path"] == "/livez" or service.ready
            return (200, b'{"ready":true}') if ready else (503, b'{"ready":false}')
        _authenticate(scope, token)
        handler = routes.get((scope["method"], scope["path"]))
        if handler is None:
            raise NotFound(
                "there is no such address", code="route_not_found", hint="POST to /search or /v1/embeddings."
            )
        body = await _read_body(receive)
        if (
            scope["path"] == "/embed"
            and len(body) <= _MAX_INLINE_BYTES
            and (futures := service.submit_questions(body)) is not None
        ):
            # computed in threads of the embedder: another thread would only wait for them
            return 200, _encode_vectors(await asyncio.gather(*map(asyncio.wrap_future, futures)))
        # searches that wait for a deployment must not occupy the threads of those that do not
        threads = rerank_threads if scope["path"] == "/search" and service.waits_for_reranker(body) else None
        return 200, await run_handler(asyncio.get_running_loop().run_in_executor(threads, handler, body), receive)

    async def run_handler(work: asyncio.Future[bytes], receive: Receive) -> bytes:
        nonlocal active_requests
        active_requests += 1
        try:
            # few requests all have a thread already, and watching for a disconnect costs a noticeable part of the time
            return await (work if active_requests <= _MAX_UNWATCHED else _run_unless_disconnected(work, receive))
        finally:
            active_requests -= 1

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            status, body = await handle(scope, receive)
        except GroundplanError as error:
            status, body = error.status, _encode_error(error)
        except Exception as error:  # noqa: BLE001 -- the edge of the process: one bad request must not be told a traceback
            failures.record(scope["path"], error)
            status, body = 500, _INTERNAL
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return serve


def _authenticate(scope: Scope, token: str) -> None:
    given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
    if not hmac.compare_digest(given, b"Bearer " + token.encode()):
        raise Unauthenticated(
            "the announced token is needed", hint="Local services find it in HOME/run/endpoints.d/search.json."
        )


async def _run_unless_disconnected(work: asyncio.Future[bytes], receive: Receive) -> bytes:
    """The result of `work`, which is cancelled if it has not begun when its caller disconnects: after hundreds of
    callers gave up, those still waiting come first. Raises `Invalid` (disconnected)."""
    disconnect = asyncio.ensure_future(receive())
    try:
        await asyncio.wait((work, disconnect), return_when=asyncio.FIRST_COMPLETED)
        if not work.done() and disconnect.result()["type"] == "http.disconnect" and work.cancel():
            raise Invalid("the caller disconnected", code="disconnected", hint="Wait for the answer.")
        return await work
    finally:
        disconnect.cancel()


async def _read_body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Invalid("the caller disconnected", code="disconnected", hint="Send the whole body.")
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise TooLarge("the body is too large", hint=f"Send at most {MAX_BODY_BYTES >> 20} MiB.")
        if not message.get("more_body"):
            return bytes(body)


def _decode(body: bytes, wanted: type[Decoded]) -> Decoded:
    try:
        return msgspec.json.decode(body, type=wanted)
    except msgspec.DecodeError as error:
        raise Invalid(
            f"the body is not understood: {error}",
            code="request_body",
            hint="Send the JSON fields that the message names.",
        ) from error


def _encode_error(error: GroundplanError) -> bytes:
    body = {
        "message": error.message,
        "type": type(error).default_code,
        "code": error.code,
        "hint": error.hint,
        "retry_after": error.retry_after,
    }
    return msgspec.json.encode({"error": body})


_INTERNAL = msgspec.json.encode(
    {
        "error": {
            "message": "the search service failed",
            "type": "error",
            "code": "internal",
            "hint": "See HOME/logs/search.log.",
        }
    }
)
