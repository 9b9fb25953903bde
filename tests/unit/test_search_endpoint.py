"""Searches that wait for a deployment do not take the threads of those that wait for nobody."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import numpy as np
import pytest

from groundplan.blueprint.content import Rerank
from groundplan.core.errors import Invalid, Unavailable
from groundplan.gateway import search_app
from groundplan.gateway.upstream.http1_pool import IDLE_SECONDS
from groundplan.knowledge.embedding.batching import LazyEmbedder
from groundplan.knowledge.embedding.wire import EARLY, Layers, embed_answer, embed_request
from groundplan.knowledge.model import DIMENSION, Embedder, Vectors
from groundplan.knowledge.retrieval import endpoint
from groundplan.knowledge.retrieval.endpoint import Application, KnowledgeService, application
from groundplan.knowledge.retrieval.question import QueryPreparer
from groundplan.knowledge.retrieval.replication import Follower
from groundplan.knowledge.retrieval.search import Search, SearchResult
from groundplan.knowledge.retrieval.wire import SearchRequest

PLAIN = SearchRequest(workload="w", person=None, query="leave", sources=["s"])
WAITING = msgspec.structs.replace(PLAIN, rerank=Rerank(workload="sorting", deployment="sorter"))


class Slow:
    """A search whose deployment answers once it may."""

    def __init__(self) -> None:
        self.may = threading.Event()

    def answer(self, request: SearchRequest) -> SearchResult:
        if request.rerank is not None:
            assert self.may.wait(20)
        return SearchResult([])


class Current:
    lag = 0
    connected = True


class Counting:
    """Embeds a text as its length, in every column."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        return np.repeat(np.array([[len(text)] for text in texts], dtype=np.float32), DIMENSION, axis=1)


def served(search: object, early: Embedder | None = None) -> KnowledgeService:
    following = cast(Follower, Current())
    return KnowledgeService(cast(Search, search), cast(Any, None), following, cast(Any, None), early or Counting())


async def posted(serve: Application, body: bytes, path: str = "/embed") -> tuple[int, bytes]:
    told: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body}

    async def send(message: dict[str, Any]) -> None:
        told.append(message)

    headers = [(b"authorization", b"Bearer word")]
    await serve({"type": "http", "method": "POST", "path": path, "headers": headers}, receive, send)
    return int(told[0]["status"]), bytes(told[1]["body"])


async def test_failing_searches_are_reported_to_the_operator() -> None:
    """Calls are refused one by one, each with its own reason; that none is answered is told at one place."""
    problems: list[Exception] = [
        Unavailable("it is away", code="search_database", hint="Wait."), ValueError("a fault"),
        Invalid("no such question", code="search_request", hint="Ask otherwise."),
    ]  # fmt: skip

    class Failing:
        def answer(self, _: SearchRequest) -> SearchResult:
            if problems:
                raise problems.pop(0)
            return SearchResult([])

    serve = application(served(Failing()), "word")
    told = []
    for _ in range(4):
        await posted(serve, msgspec.json.encode(PLAIN), "/search")
        told.append(msgspec.json.decode((await posted(serve, b"{}", "/lag"))[1]))
    assert [(each["failed"], each["why"]) for each in told[:3]] == [
        (1, "search_database"), (2, "ValueError"), (2, "ValueError"),
    ]  # fmt: skip
    assert told[3]["failed"] == 0 and told[3]["follows"] is True


async def test_the_first_layers_encoder_is_created_at_its_first_use() -> None:
    made: list[str] = []

    def make() -> Embedder:
        made.append("made")
        if len(made) == 1:
            raise Unavailable("no memory", code="embedding_model", hint="Wait.")
        return SimpleNamespace(embed=lambda texts: Counting().embed(texts) * 10)

    search = SimpleNamespace(queries=QueryPreparer(Counting(), cast(Any, None)))
    serve = application(served(search, LazyEmbedder(make)), "word")

    async def first(layers: Layers) -> float:
        status, body = await posted(serve, embed_request(["ab"], questions=True, layers=layers))
        assert status == 200
        return float(np.frombuffer(embed_answer(body, 1).vectors[0], "<f4")[0])

    assert await first(0) == 2 and not made
    status, body = await posted(serve, embed_request(["ab"], questions=True, layers=EARLY))
    assert (status, msgspec.json.decode(body)["error"]["code"]) == (503, "embedding_model")
    assert [await first(EARLY), await first(0), await first(EARLY)] == [20, 2, 20]
    assert made == ["made"] * 2
    status, body = await posted(serve, msgspec.json.encode({"texts": ["ab"], "questions": True, "layers": 5}))
    assert status == 400 and msgspec.json.decode(body)["error"]["hint"]


async def test_questions_are_embedded_while_every_thread_is_taken() -> None:
    search = SimpleNamespace(queries=QueryPreparer(Counting(), cast(Any, None)))
    serve, taken = application(served(search), "word"), threading.Event()

    async def post(texts: Sequence[str]) -> tuple[int, bytes]:
        return await posted(serve, embed_request(texts, questions=True))

    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    waits = asyncio.get_running_loop().run_in_executor(None, taken.wait, 20)
    try:
        status, body = await asyncio.wait_for(post(["a", "bbb"]), 10)
        assert status == 200
        answer = embed_answer(body, 2)
        assert [np.frombuffer(vector, "<f4")[0] for vector in answer.vectors] == [1, 3] and answer.tokens == 0
        status, body = await asyncio.wait_for(post([]), 10)
        assert status == 400 and msgspec.json.decode(body)["error"]["code"] == "embeddings_request"
        long = asyncio.create_task(post(["c" * 20_000, "dd"]))  # what takes long to read is not read in the loop
        await asyncio.sleep(0.1)
        assert not long.done()
    finally:
        taken.set()
    assert await waits
    status, body = await asyncio.wait_for(long, 10)
    assert [np.frombuffer(vector, "<f4")[0] for vector in embed_answer(body, 2).vectors] == [20_000, 2]


async def test_a_slow_embedding_deployment_does_not_block_other_searches() -> None:
    slow = Slow()
    serve = application(served(slow), "word")

    async def post(request: SearchRequest) -> int:
        status, _ = await posted(serve, msgspec.json.encode(request), "/search")
        return status

    waiting = [asyncio.create_task(post(WAITING)) for _ in range(40)]
    try:
        await asyncio.sleep(0.05)
        assert await asyncio.wait_for(post(PLAIN), 5) == 200
        assert not any(task.done() for task in waiting)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(waiting[0]), 0.01)
    finally:
        slow.may.set()
    assert await asyncio.gather(*waiting) == [200] * 40


@pytest.mark.parametrize("stated", [False, True])
async def test_the_state_of_documents_is_returned_only_to_gateways_that_request_it(stated: bool) -> None:
    """It counts changes of hidden documents, too, and answers are passed on to people as they are."""
    search = SimpleNamespace(answer=lambda _: SearchResult([], state="7 1 a"))
    asked = msgspec.json.encode(msgspec.structs.replace(PLAIN, stated=stated))
    status, body = await posted(application(served(search), "word"), asked, "/search")
    assert status == 200 and msgspec.json.decode(body).get("state") == ("7 1 a" if stated else None)


async def test_a_continuing_failure_is_logged_from_time_to_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Thousands of tracebacks would fill a disk, where memory is short for a while."""

    def answer(_: object) -> SearchResult:
        raise RuntimeError("can't alloc")

    serve, asked = application(served(SimpleNamespace(answer=answer)), "word"), msgspec.json.encode(PLAIN)
    monkeypatch.setattr(endpoint, "LOG_INTERVAL_SECONDS", 3600.0)
    assert [(await posted(serve, asked, "/search"))[0] for _ in range(5)] == [500] * 5
    monkeypatch.setattr(endpoint, "LOG_INTERVAL_SECONDS", 0.0)
    await posted(serve, asked, "/search")
    first, second = (msgspec.json.decode(line) for line in capsys.readouterr().err.splitlines())
    assert "can't alloc" in first["exception"] and (first["more"], second["more"]) == (0, 4)


@pytest.mark.parametrize("where", [{"sensitivity": ["a\0"]}, {"sensitivity": ["secret"]}, {"path": "a\0"}])
def test_a_filter_that_the_database_cannot_evaluate_is_refused(where: dict[str, Any]) -> None:
    asked = {"workload": "w", "person": None, "query": "leave", "sources": ["s"], "where": where}
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(asked), type=SearchRequest)


def test_a_connection_is_kept_for_longer_than_a_worker_would_use_it() -> None:
    assert search_app.KEPT_SECONDS > 2 * IDLE_SECONDS
