"""What a router sees besides the question: the conversation, and what was found for it, once that is known."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.integration.gateway_stack import deployment, workload
from tests.unit.call_rig import call_rig

from groundplan.blueprint.model import Deployment, Grounding, Routing, Workload
from groundplan.core.endpoints import announce
from groundplan.core.errors import Invalid
from groundplan.core.home import Home
from groundplan.core.ids import new_id_bytes
from groundplan.economics.routing.decide.choose import choose
from groundplan.economics.routing.decide.features import CONTEXT, SURFACE
from groundplan.economics.routing.decide.predict import reads_passages
from groundplan.economics.routing.learn.evaluation_set import read_matrix
from groundplan.economics.routing.learn.fit import train
from groundplan.economics.routing.model import Context, Matrix, Router, Sample
from groundplan.economics.routing.versions.artifact import dump, load
from groundplan.gateway.call.ask import Ask, Passage
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.http.errors import refusal_body
from groundplan.gateway.http.server import Request, Response, Server
from groundplan.gateway.policy.snapshot import KeyEntry
from groundplan.gateway.routing.conversation import bytes_before_question
from groundplan.gateway.routing.route import Route
from groundplan.gateway.routing.routes import Routes
from groundplan.gateway.surfaces.chat.surface import CHAT
from groundplan.gateway.upstream.latency import LatencyEstimates
from groundplan.ledger.model import Finish

WELL, BADLY = (0.9, 0.4), (0.2, 0.1)
LONG = json.dumps(
    [{"role": "user", "content": "x" * 4000}, {"role": "assistant", "content": ""}, {"role": "user", "content": "and"}]
).encode()
"""A conversation of 4,000 bytes before the newest question."""


def trained(contexts: list[Context], hard: np.typing.NDArray[np.bool_]) -> Router:
    """Of questions that say the same: whether they are hard is told by their context alone."""
    count = len(contexts)
    samples = tuple(Sample(str(i), str(i), f"what applies to case {i}", contexts[i]) for i in range(count))
    scores = np.stack([np.ones(count), np.where(hard, 0.0, 1.0)], axis=1)
    matrix = Matrix(samples, ("scripted/one", "scripted/two"), scores, np.tile([0.01, 0.001], (count, 1)))
    return load(dump(train(matrix, None, (0.99,))))


@pytest.fixture(scope="module")
def by_passages() -> Router:
    dice = np.random.default_rng(4)
    hard = dice.random(300) < 0.7
    noise = dice.normal(scale=0.02, size=300)
    return trained(
        [Context(1, 0, tuple(s + n for s in (BADLY if h else WELL))) for h, n in zip(hard, noise, strict=True)], hard
    )


@pytest.fixture(scope="module")
def by_turns() -> Router:
    dice = np.random.default_rng(5)
    hard = dice.random(300) < 0.5
    return trained([Context(int(9 + dice.integers(5)) if h else 1, 4000 if h else 0) for h in hard], hard)


@pytest.fixture
def folder(tmp_path: Path, by_passages: Router, by_turns: Router) -> Path:
    home = tmp_path / "routers"
    home.mkdir()
    (home / "found@1.router").write_bytes(dump(by_passages))
    (home / "turns@1.router").write_bytes(dump(by_turns))
    return home


def deployments_named(*names: str) -> list[Deployment]:
    models = {"one": "scripted/one", "two": "scripted/two"}
    return [msgspec.structs.replace(deployment(name, 1), model=models.get(name, f"m/{name}")) for name in names]


def declared(routing: Routing) -> Workload:
    return msgspec.structs.replace(workload("w", ["one", "two"]), routing=routing, grounding=Grounding(sources=["h"]))


def passages(scores: tuple[float, ...]) -> list[Passage]:
    return [
        Passage(document="d", path="p", title="t", source="h", start_line=1, end_line=2, text="x", score=score)
        for score in scores
    ]


def make_ask(text: str = "what applies to case 900", messages: int = 1, raw: bytes = b"[]") -> Ask:
    return Ask({"messages": msgspec.Raw(raw)}, "auto", messages, text, False, False, None, 1, len(text))


class Call:
    """One call on its way to its deployments."""

    def __init__(
        self, routes: Routes, routing: Routing, ask: Ask, named: list[Deployment], stopped: frozenset[str] = frozenset()
    ) -> None:
        """`named`: by the request; `stopped`: of those, by a kill switch, a key or a policy."""
        self.routes, self.workload, self.ask, self.named = routes, declared(routing), ask, named
        self.exchange = Exchange(new_id_bytes(), Request(0.0), Response.__new__(Response), CHAT)
        self.exchange.key = KeyEntry("k", "w", "", False, False, None)
        self.exchange.deployments = [place for place in named if place.name not in stopped]
        routes.arrange(self.exchange, self.workload, ask, LatencyEstimates(), 1.0)

    def find(self, scores: tuple[float, ...]) -> None:
        self.exchange.passages = passages(scores)
        self.routes.reorder_by_passages(self.exchange, self.workload, self.ask, self.named, LatencyEstimates(), 1.0)

    @property
    def route(self) -> Route:
        assert self.exchange.route is not None
        return self.exchange.route

    @property
    def order(self) -> list[str]:
        return [place.name for place in self.exchange.deployments]


def test_what_was_found_decides_where_the_words_are_the_same(by_passages: Router) -> None:
    both, text = frozenset(by_passages.models), "what applies to case 900"
    assert reads_passages(by_passages)
    well = choose(by_passages, text, None, both, "0.99", context=Context(1, 0, WELL))
    badly = choose(by_passages, text, None, both, "0.99", context=Context(1, 0, BADLY))
    nothing = choose(by_passages, text, None, both, "0.99", context=Context(1, 0, ()))
    assert (well.model, badly.model, nothing.model) == ("scripted/two", "scripted/one", "scripted/one")
    unknown = [choose(by_passages, text, None, both, "0.99", context=each) for each in (None, Context(1, 0))]
    assert unknown[0].expected == unknown[1].expected
    assert badly.expected["scripted/two"] < unknown[0].expected["scripted/two"] < well.expected["scripted/two"]


def test_a_long_conversation_decides_before_anything_is_searched(by_turns: Router, folder: Path) -> None:
    assert not reads_passages(by_turns)
    routes, named = Routes(folder), deployments_named("one", "two")
    routing = Routing(router="turns@1", sticky=False)
    assert Call(routes, routing, make_ask(), named).order == ["two", "one"]
    long = make_ask(messages=11, raw=LONG)
    call = Call(routes, routing, long, named)
    assert call.order == ["one", "two"]
    call.find(WELL)
    assert call.order == ["one", "two"]


def test_the_order_follows_what_was_found_and_no_conversation_keeps_what_was_provisional(folder: Path) -> None:
    routes, named, raw = Routes(folder), deployments_named("one", "two"), LONG
    routing = Routing(router="found@1")
    first = Call(routes, routing, make_ask(raw=raw), named)
    assert first.order == ["one", "two"], "what is not known yet counts as usual"
    first.find(WELL)
    assert (first.order, first.route.by, first.route.router) == (["two", "one"], "learned", "found@1")
    second = Call(routes, routing, make_ask(raw=raw), named)
    second.find(BADLY)
    assert second.order == ["one", "two"]
    back = Call(routes, routing, make_ask(raw=raw), named)
    back.find(WELL)
    assert (back.order, back.route.by) == (["one", "two"], "affinity")


def test_a_router_without_context_asks_nothing_and_one_with_it_reads_other_sizes_not(by_passages: Router) -> None:
    plain = train(Matrix(tuple(Sample(str(i), str(i), f"q {i}") for i in range(40)), ("a", "b"),
                         np.ones((40, 2)), np.ones((40, 2))), None, ())  # fmt: skip
    assert len(plain.surface_mean) == SURFACE
    assert not reads_passages(plain)
    assert len(by_passages.surface_mean) == SURFACE + CONTEXT
    cut = replace(by_passages, surface_mean=by_passages.surface_mean[:-1], surface_scale=by_passages.surface_scale[:-1])
    with pytest.raises(Invalid, match="another version"):
        load(dump(cut))


@pytest.mark.parametrize(
    "context",
    [{"messages": 0}, {"messages": 1, "before": -1}, {"messages": 1, "scores": [0.1, 0.9]}, {"turns": 3}],
)
def test_a_context_that_cannot_be_is_refused_with_its_line(tmp_path: Path, context: dict[str, Any]) -> None:
    rows = [
        {"id": str(i), "group": str(i), "prompt": f"q {i}", "scores": {"a": 1, "b": 0}, "costs": {"a": 1, "b": 1},
         "context": {"messages": 1 + i, "before": i, "scores": [0.9, 0.1]}}
        for i in range(30)
    ]  # fmt: skip
    path = tmp_path / "set.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert read_matrix(path).samples[3].context == Context(4, 3, (0.9, 0.1))
    rows[9]["context"] = context
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(Invalid) as told:
        read_matrix(path)
    assert str(told.value.where).endswith("set.jsonl:10:1")


@settings(max_examples=100, deadline=None)
@given(
    names=st.lists(st.sampled_from(["one", "two", "third", "fourth"]), min_size=1, max_size=4, unique=True),
    out=st.sets(st.sampled_from(["one", "two", "third"]), max_size=2),
    stopped=st.frozensets(st.sampled_from(["one", "two", "fourth"]), max_size=2),
    scores=st.lists(st.floats(0, 2), max_size=4),
    messages=st.integers(1, 40),
    router=st.sampled_from(["found@1", "turns@1"]),
)
def test_what_was_found_never_lets_in_whom_a_hard_rule_keeps_out(
    by_passages: Router, by_turns: Router, names: list[str], out: set[str], stopped: frozenset[str],
    scores: list[float], messages: int, router: str,
) -> None:  # fmt: skip
    left = [name for name in names if name not in out and name not in stopped]
    if not left:
        return
    routes = Routes()
    routes._routers = {("found@1", None): by_passages, ("turns@1", None): by_turns}
    routing = Routing(router=router, barred=dict.fromkeys(out, "x"))
    call = Call(routes, routing, make_ask(messages=messages), deployments_named(*names), stopped)
    before = dict(call.route.barred)
    call.find(tuple(sorted(scores, reverse=True)))
    assert sorted(call.order) == sorted(left)
    assert call.order[0] == call.route.deployment
    assert call.route.barred == before == {name: "x" for name in out if name in names and name not in stopped}
    assert call.route.reason


async def test_a_call_is_served_where_its_passages_say_and_the_ledger_has_their_scores(
    tmp_path: Path, folder: Path
) -> None:
    async def search(request: Request, response: Response) -> None:
        if request.target != b"/search":
            response.send(404, b"{}")
            return
        query = json.loads(request.body)["query"]
        found = passages(WELL if "901" in query else BADLY)
        response.send(200, msgspec.json.encode({"passages": found}))

    loop = asyncio.get_running_loop()
    server = Server(search, refusal_body, loop)
    listener = await loop.create_server(server.create_connection, "127.0.0.1", 0)
    grounded = {"assistant": {"routing": Routing(router="found@1"), "grounding": Grounding(sources=["h"])}}
    async with call_rig(tmp_path, workloads=grounded) as rig:
        rig.gateway.routes = Routes(folder)
        announce(Home(tmp_path), "search", f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}", "t")
        for text in ("what applies to case 901", "what applies to case 902"):
            assert (await rig.chat(messages=[{"role": "user", "content": text}])).status == 200
        listener.close()
        await server.drain(0.2)
        found = [record for record in await rig.records() if isinstance(record, Finish)]
    assert [record.deployment for record in found] == ["two", "one"]
    assert [record.scores for record in found] == [list(WELL), list(BADLY)]
    assert all(record.status == "ok" for record in found)


def test_what_came_before_is_counted_as_a_set_counts_it(by_turns: Router, folder: Path) -> None:
    """Bytes of texts: neither the form of the request nor its images are any of it."""
    parts = [{"type": "text", "text": "caf\u00e9"}, {"type": "image_url", "image_url": {"url": "data:" + "x" * 900}}]
    turns = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": None},
    ]
    raw = json.dumps([*turns, {"role": "user", "content": "what applies to case 900"}]).encode()
    assert bytes_before_question(make_ask(messages=4, raw=raw), "chat.completions") == len("be brief") + len(
        "caf\u00e9".encode()
    )
    alone = make_ask(raw=json.dumps([{"role": "user", "content": "what applies to case 900"}]).encode())
    assert bytes_before_question(alone, "chat.completions") == 0
    routes, named = Routes(folder), deployments_named("one", "two")
    expected = choose(by_turns, alone.query, None, frozenset(by_turns.models), "0.99", context=Context(1, 0)).expected
    assert Call(routes, Routing(router="turns@1", sticky=False), alone, named).route.expected == expected


def test_a_router_of_a_format_before_is_told_what_came_before_as_it_learned_it(by_turns: Router) -> None:
    routes, named = Routes(), deployments_named("one", "two")
    alone = make_ask(raw=json.dumps([{"role": "user", "content": "what applies to case 900"}]).encode())
    routes._routers = {("new@1", None): by_turns, ("old@1", None): replace(by_turns, texts=False)}
    new, old = (Call(routes, Routing(router=name, sticky=False), alone, named).route for name in ("new@1", "old@1"))
    assert new.expected != old.expected
