"""What a gateway asks to be embedded of a question: as much as its router was trained with."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import numpy as np
import pytest
from tests.unit.test_routing_model import entangled, placed

from groundplan.economics.routing.learn.fit import train
from groundplan.economics.routing.model import Layers, Router
from groundplan.gateway.routing import question_embedding
from groundplan.knowledge.embedding.wire import EARLY, EmbedAnswer, EmbedRequest


@pytest.fixture(scope="module")
def router() -> Router:
    matrix = entangled(60, 5)
    return train(matrix, placed(matrix, 5), ())


@pytest.mark.parametrize(("tokens", "layers"), [(78, EARLY), (78, 0), (0, 0)])
async def test_a_question_is_embedded_as_its_router_was_trained(
    router: Router, monkeypatch: pytest.MonkeyPatch, tokens: int, layers: Layers
) -> None:
    asked: list[EmbedRequest] = []

    async def ask(gateway: object, body: bytes, call: bytes, path: bytes) -> bytes:
        asked.append(msgspec.json.decode(body, type=EmbedRequest))
        return msgspec.json.encode(EmbedAnswer("m", [np.full(384, 0.5, "<f4").tobytes()], 0))

    monkeypatch.setattr(question_embedding, "ask_search", ask)
    routes = SimpleNamespace(router=lambda *_: replace(router, tokens=tokens, layers=layers))
    gateway = SimpleNamespace(routes=routes, loop=asyncio.get_running_loop())
    exchange = SimpleNamespace(id=b"c", question_vector=None)
    workload = SimpleNamespace(routing=SimpleNamespace(router="w@1", digest=None), is_routed=lambda _: True)
    ask_of = SimpleNamespace(model="auto", query="Could you please tell me: which garden is larger?")
    await question_embedding.read_question(
        cast(Any, gateway), cast(Any, exchange), cast(Any, workload), cast(Any, ask_of)
    )
    assert asked == [EmbedRequest(["which garden is larger?"], questions=True, most=tokens, layers=layers)]
    assert exchange.question_vector is not None and np.allclose(exchange.question_vector, 0.5)
