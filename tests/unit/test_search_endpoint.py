"""Searches that wait for a deployment do not take the threads of those that wait for nobody."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, cast

import msgspec
import pytest

from groundplan.blueprint.content import Rerank
from groundplan.gateway import search_app
from groundplan.gateway.upstream.http1_pool import IDLE_SECONDS
from groundplan.knowledge.retrieval.endpoint import Service, application
from groundplan.knowledge.retrieval.follow import Follower
from groundplan.knowledge.retrieval.search import Result, Search
from groundplan.knowledge.retrieval.wire import SearchRequest

PLAIN = SearchRequest(workload="w", person=None, query="leave", sources=["s"])
WAITING = msgspec.structs.replace(PLAIN, rerank=Rerank(workload="sorting", deployment="sorter"))


class Slow:
    """A search whose deployment answers once it may."""

    def __init__(self) -> None:
        self.may = threading.Event()

    def answer(self, request: SearchRequest) -> Result:
        if request.rerank is not None:
            assert self.may.wait(20)
        return Result([])


class Current:
    lag = 0
    connected = True


async def test_a_slow_deployment_does_not_hold_up_searches_that_ask_nobody() -> None:
    slow = Slow()
    service = Service(cast(Search, slow), cast(Any, None), cast(Follower, Current()), cast(Any, None))
    serve = application(service, "word")

    async def post(request: SearchRequest) -> int:
        told: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": msgspec.json.encode(request)}

        async def send(message: dict[str, Any]) -> None:
            told.append(message)

        headers = [(b"authorization", b"Bearer word")]
        await serve({"type": "http", "method": "POST", "path": "/search", "headers": headers}, receive, send)
        return int(told[0]["status"])

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


@pytest.mark.parametrize("where", [{"sensitivity": ["a\0"]}, {"sensitivity": ["secret"]}, {"path": "a\0"}])
def test_a_filter_that_the_database_cannot_be_asked_is_refused(where: dict[str, Any]) -> None:
    asked = {"workload": "w", "person": None, "query": "leave", "sources": ["s"], "where": where}
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(asked), type=SearchRequest)


def test_a_connection_is_kept_for_longer_than_a_worker_would_use_it() -> None:
    assert search_app.KEPT_SECONDS > 2 * IDLE_SECONDS
