"""Routing knows the conversations of `POST /v1/responses` as it knows those of chat: in items, by their texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tests.integration.gateway_stack import deployment, workload

from groundplan.blueprint.model import Deployment, RouteRule, Routing
from groundplan.core.ids import new_id_bytes
from groundplan.economics.routing.learn.fit import train
from groundplan.economics.routing.model import Matrix, Sample
from groundplan.economics.routing.versions.artifact import dump
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.experiments.assign import unit_of
from groundplan.gateway.http.server import Request, Response
from groundplan.gateway.policy.snapshot import KeyEntry
from groundplan.gateway.routing.conversation import bytes_before_question, message_count
from groundplan.gateway.routing.route import Route
from groundplan.gateway.routing.routes import Routes
from groundplan.gateway.routing.task import task_of
from groundplan.gateway.surfaces.responses.surface import RESPONSES, read

LENGTHY = "the story so far " * 300
EASY, PROOF = "say hello to guest 5", "prove that 7 is the sum of primes"
IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,aGVsbG8="}


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> Routes:
    dice = np.random.default_rng(1)
    hard = dice.random(200) < 0.5
    prompts = [f"prove that {i} is the sum of primes" if h else f"say hello to guest {i}" for i, h in enumerate(hard)]
    samples = tuple(Sample(str(i), str(i), prompt) for i, prompt in enumerate(prompts))
    scores = np.stack([np.ones(200), np.where(hard, 0.0, 1.0)], axis=1)
    costs = np.tile([0.01, 0.001], (200, 1))
    folder: Path = tmp_path_factory.mktemp("routers")
    matrix = Matrix(samples, ("large-m", "small-m"), scores, costs)
    (folder / "support@1.router").write_bytes(dump(train(matrix, None, (0.99,))))
    return Routes(folder)


def exchange_of(given: Any, **more: Any) -> tuple[Exchange, Ask]:
    ask = read(json.dumps({"model": "auto", "input": given, **more}).encode())
    exchange = Exchange(new_id_bytes(), Request(0.0), Response.__new__(Response), RESPONSES)
    exchange.request.headers = {}
    exchange.key = KeyEntry("k", "w", "", False, False, None)
    return exchange, ask


def routed(routes: Routes, routing: Routing, given: Any) -> Route:
    exchange, ask = exchange_of(given)
    exchange.deployments = list(_places("small", "large"))
    routes.arrange(exchange, msgspec.structs.replace(workload("w", ["large", "small"]), routing=routing), ask)
    assert exchange.route is not None
    return exchange.route


def _places(*names: str) -> list[Deployment]:
    return [msgspec.structs.replace(deployment(name, 1), model=f"{name}-m") for name in names]


def talk(*said: str, parts: bool = False) -> list[dict[str, Any]]:
    """Turns of the user and of the model, the user's first."""
    items = []
    for number, text in enumerate(said):
        role, kind = ("assistant", "output_text") if number % 2 else ("user", "input_text")
        items.append({"role": role, "content": [{"type": kind, "text": text}] if parts else text})
    return items


def test_a_long_conversation_stays_where_its_prompts_are_cached(routes: Routes) -> None:
    learned = Routing(router="support@1")
    assert routed(routes, learned, talk(LENGTHY, "well", EASY)).deployment == "small"
    assert routed(routes, learned, talk(LENGTHY, "well", EASY, "hello", PROOF)).deployment == "large"
    back = routed(routes, learned, talk(LENGTHY, "well", EASY, "hello", PROOF, "because", EASY))
    assert (back.deployment, back.by) == ("large", "affinity")
    assert routed(routes, learned, talk(LENGTHY, "another answer", EASY)).deployment == "small"


def test_a_text_and_its_items_are_the_same_conversation(routes: Routes) -> None:
    """A first question is often sent as a text, and comes back as an item with parts where it was stored."""
    learned, first = Routing(router="support@1"), f"{LENGTHY} é {PROOF}"
    assert routed(routes, learned, first).deployment == "large"
    later = routed(routes, learned, talk(first, "because", EASY, parts=True))
    assert (later.deployment, later.by) == ("large", "affinity")


def test_each_conversation_has_an_arm_of_its_own() -> None:
    units = {
        unit_of(*exchange_of(given), "conversation") for given in ("hello", "good morning", talk("hello", "yes", "so"))
    }
    assert len(units) == 2
    assert unit_of(*exchange_of("hello"), "conversation") == unit_of(
        *exchange_of(talk("hello", parts=True)), "conversation"
    )
    seen = [{"role": "user", "content": [{"type": "input_text", "text": "hello"}, IMAGE]}]
    assert unit_of(*exchange_of(seen), "conversation") not in units


def test_a_call_of_a_function_is_an_answer(routes: Routes) -> None:
    learned = Routing(router="support@1")
    call = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"}
    told = {"type": "function_call_output", "call_id": "c1", "output": "nothing"}
    begun = [*talk(LENGTHY), call, told]
    assert routed(routes, learned, [*begun, *talk(PROOF)]).deployment == "large"
    back = routed(routes, learned, [*begun, *talk(PROOF, "because", EASY)])
    assert (back.deployment, back.by) == ("large", "affinity")
    other = [*talk(LENGTHY), {**call, "call_id": "c2"}, {**told, "call_id": "c2"}]
    assert routed(routes, learned, [*other, *talk(EASY)]).deployment == "small"


def test_rules_count_its_messages_and_routers_what_came_before() -> None:
    rule = Routing(rules=[RouteRule(name="late", use="large", messages=3)])
    assert routed(Routes(), rule, "hello").by == "order"
    assert routed(Routes(), rule, talk("hello")).by == "order"
    assert routed(Routes(), rule, talk("hello", "yes", "so")).by == "rule late"
    exchange, ask = exchange_of(
        [{"role": "user", "content": [{"type": "input_text", "text": "café"}, IMAGE]}, *talk("so")]
    )
    assert bytes_before_question(ask, exchange.endpoint) == len("café".encode())
    assert message_count(ask, exchange.endpoint) == 2
    exchange, ask = exchange_of("hello")
    assert (bytes_before_question(ask, exchange.endpoint), message_count(ask, exchange.endpoint)) == (0, 1)


def test_a_schema_is_part_of_what_it_is_for() -> None:
    told = {"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}}}
    assert "schema" in task_of("responses", exchange_of("hello", text=told)[1].fields, "")
    assert "schema" not in task_of("responses", exchange_of("hello", text={"verbosity": "low"})[1].fields, "")
