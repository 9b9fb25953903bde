"""Model `auto`: rules first, then the learned router, within what the call may use, and every choice says why."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.integration.gateway_stack import blueprint, deployment, workload
from tests.unit.call_rig import call_rig

from groundplan.blueprint.model import Cascade, Deployment, Rates, RouteRule, Routing, Workload
from groundplan.core.endpoints import announce
from groundplan.core.errors import Denied
from groundplan.core.home import Home
from groundplan.core.ids import new_id_bytes
from groundplan.core.money import PICO
from groundplan.economics.routing.decide import rules
from groundplan.economics.routing.learn.fit import train
from groundplan.economics.routing.model import TOKENS, Matrix, Sample
from groundplan.economics.routing.versions.artifact import dump
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.http.errors import refusal_body
from groundplan.gateway.http.server import Request, Response, Server
from groundplan.gateway.policy.catalog import index
from groundplan.gateway.policy.snapshot import KeyEntry
from groundplan.gateway.routing.route import Route
from groundplan.gateway.routing.routes import MIN_CALLS, RETRY_SECONDS, Routes
from groundplan.gateway.surfaces.chat.surface import CHAT
from groundplan.gateway.upstream.latency import OUTDATED_SECONDS, LatencyEstimates
from groundplan.knowledge.embedding.wire import EmbedAnswer, EmbedRequest
from groundplan.ledger.model import Finish

CODE = RouteRule(name="code", use="large", words=["refactor", "stack trace"])
LONG = RouteRule(name="long", use="large", longer=400)
SHORT = RouteRule(name="short", use="small", shorter=20, messages=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a learned router: greetings go to the small model, proofs to the large one."""
    dice = np.random.default_rng(1)
    hard = dice.random(200) < 0.5
    prompts = [f"prove that {i} is the sum of primes" if h else f"say hello to guest {i}" for i, h in enumerate(hard)]
    samples = tuple(Sample(str(i), str(i), prompt) for i, prompt in enumerate(prompts))
    scores = np.stack([np.ones(200), np.where(hard, 0.0, 1.0)], axis=1)
    costs = np.tile([0.01, 0.001], (200, 1))
    home = tmp_path_factory.mktemp("routers")
    (home / "support@1.router").write_bytes(
        dump(train(Matrix(samples, ("large-m", "small-m"), scores, costs), None, (0.99,)))
    )
    (home / "broken@1.router").write_bytes(b"no router")
    return home


def deployments_named(*names: str) -> list[Deployment]:
    return [msgspec.structs.replace(deployment(name, 1), model=f"{name}-m") for name in names]


def make_ask(text: str, model: str = "auto", messages: int = 1, raw: bytes = b"[]") -> Ask:
    return Ask({"messages": msgspec.Raw(raw)}, model, messages, text, False, False, None, 1, len(text))


def arranged(
    routes: Routes,
    routing: Routing | None,
    ask: Ask,
    names: list[Deployment],
    headers: dict[bytes, bytes] | None = None,
) -> Exchange:
    exchange = Exchange(new_id_bytes(), Request(0.0), Response.__new__(Response), CHAT)
    exchange.request.headers = headers or {}
    exchange.deployments = list(names)
    exchange.key = KeyEntry("k", "w", "", False, False, None)
    routes.arrange(exchange, routed(routing), ask)
    return exchange


def routed(routing: Routing | None) -> Workload:
    return msgspec.structs.replace(workload("w", ["large", "small"]), routing=routing)


def route_of(exchange: Exchange) -> Route:
    assert exchange.route is not None
    return exchange.route


def test_rules_are_read_in_order_and_name_themselves() -> None:
    assert rules.first_match([CODE, LONG], "Please REFACTOR this", 1) is CODE
    assert rules.first_match([CODE, LONG], "refactoring", 1) is None
    assert rules.first_match([CODE, LONG], "x" * 400, 1) is LONG
    assert rules.first_match([SHORT], "thanks", 1) is None
    assert rules.first_match([SHORT], "thanks", 2) is SHORT


@pytest.mark.parametrize(
    "text",
    [
        "a stack  trace of mine", "the stack\ntrace", "Stack\u00a0Trace:", "Ku\u0308ndigung erhalten", "KÜNDIGUNG?",
        "\uff53\uff54\uff41\uff43\uff4b trace", "you don\u2019t pay", "you don't pay",
    ],
)  # fmt: skip
def test_a_rule_knows_its_words_however_they_are_typed(text: str) -> None:
    """Accents as letters of their own, other white space, wide letters, an apostrophe of a word processor."""
    rule = RouteRule(name="legal", use="large", words=["stack trace", "Kündigung", "don't"])
    assert rules.first_match([rule], text, 1) is rule
    decomposed = RouteRule(name="legal", use="large", words=["Ku\u0308ndigung", "stack   trace", "don\u2019t"])
    assert rules.first_match([decomposed], text, 1) is decomposed
    assert rules.first_match([rule, decomposed], "stacktrace Ankündigung dont", 1) is None
    assert rules.first_match([RouteRule(name="blank", use="large", words=[" "])], "anything - at all", 1) is None
    exchange = arranged(
        Routes(), Routing(rules=[CODE]), make_ask("a stack trace, look"), deployments_named("small", "large")
    )
    assert [place.name for place in exchange.deployments] == ["large", "small"]
    assert (route_of(exchange).by, route_of(exchange).model) == ("rule code", "large-m")


def test_nothing_changes_without_routing_or_for_a_named_model() -> None:
    both = deployments_named("small", "large")
    for routing, ask in ((None, make_ask("refactor")), (Routing(rules=[CODE]), make_ask("refactor", model="small-m"))):
        exchange = arranged(Routes(), routing, ask, both)
        assert exchange.deployments == both
        assert exchange.route is None


@pytest.mark.parametrize(
    ("model", "by"), [("auto", "rule code"), ("w", "rule code"), ("gpt-4.1", "rule code"), ("x", None)]
)
def test_the_workloads_name_and_aliases_leave_the_choice_to_routing(model: str, by: str | None) -> None:
    exchange = Exchange(new_id_bytes(), Request(0.0), Response.__new__(Response), CHAT)
    exchange.deployments = deployments_named("small", "large")
    task = msgspec.structs.replace(routed(Routing(rules=[CODE])), aliases=["gpt-4.1"])
    Routes().arrange(exchange, task, make_ask("refactor", model=model))
    assert (exchange.route and exchange.route.by) == by


def test_a_rule_with_an_unpermitted_deployment_is_skipped() -> None:
    exchange = arranged(Routes(), Routing(rules=[CODE]), make_ask("refactor"), deployments_named("small", "other"))
    assert (route_of(exchange).by, route_of(exchange).deployment) == ("order", "small")


def test_the_learned_router_sends_easy_calls_to_the_small_model(folder: Path) -> None:
    routes, learned = Routes(folder), Routing(router="support@1")
    easy = route_of(arranged(routes, learned, make_ask("say hello to guest 900"), deployments_named("large", "small")))
    hard = route_of(
        arranged(routes, learned, make_ask("prove that 901 is the sum of primes"), deployments_named("small", "large"))
    )
    assert (easy.deployment, easy.by, easy.router) == ("small", "learned", "support@1")
    assert "cheaper" in easy.reason
    assert hard.deployment == "large"
    strange = route_of(arranged(routes, learned, make_ask("qqq wwz zzk"), deployments_named("small", "large")))
    assert (strange.deployment, strange.by) == ("large", "unsure")


@pytest.mark.parametrize("router", ["absent@1", "broken@1"])
def test_without_its_router_the_order_of_placement_holds(folder: Path, router: str) -> None:
    found = route_of(
        arranged(Routes(folder), Routing(router=router), make_ask("say hello"), deployments_named("large", "small"))
    )
    assert (found.deployment, found.by) == ("large", "order")
    assert router in found.reason


def test_a_router_that_lost_its_strongest_model_decides_nothing(folder: Path) -> None:
    """Of a model that was renamed it knows nothing: neither may all calls go to the one that is left, nor those that
    it is unsure of to the best of the others."""
    routes, learned = Routes(folder), Routing(router="support@1")
    for text in ("say hello to guest 900", "qqq wwz zzk"):
        renamed = route_of(arranged(routes, learned, make_ask(text), deployments_named("newer", "small")))
        assert (renamed.deployment, renamed.by, renamed.router) == ("newer", "order", "")
        assert "knows small-m alone of these models" in renamed.reason
    alone = route_of(arranged(routes, learned, make_ask("say hello"), deployments_named("small")))
    assert alone.by == "only"
    found = routes.router("support@1")
    assert found is not None and found.strongest == 0
    routes._routers["weaker@1", None] = dataclasses.replace(found, strongest=1)
    kept = route_of(
        arranged(
            routes, Routing(router="weaker@1"), make_ask("qqq wwz zzk"), deployments_named("newer", "large", "small")
        )
    )
    assert kept.router == "weaker@1", "what it knows is enough beside one that it does not know"


async def test_a_cascade_tries_what_a_router_cannot_decide(tmp_path: Path, folder: Path) -> None:
    routing = Routing(router="support@1", cascade=Cascade(first="two", confidence=0.5))
    async with call_rig(tmp_path, workloads={"assistant": {"routing": routing}}) as rig:
        rig.gateway.routes = Routes(folder)
        assert (await rig.chat(messages=[{"role": "user", "content": "say hello to guest 900"}])).status == 200
        (end,) = [msgspec.json.decode(r.route) for r in await rig.records() if isinstance(r, Finish)]
    assert (end["by"], end["deployment"], end["escalated"]) == ("cascade", "two", True)


def talk(*said: str, system: str = "") -> bytes:
    """A conversation as JSON: what users and the model said in turn, behind a system message."""
    head = [{"role": "system", "content": system}] if system else []
    turns = [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(said)]
    return msgspec.json.encode([*head, *turns])


def in_talk(*said: str, system: str = "", **header: bytes) -> tuple[Ask, dict[bytes, bytes]]:
    raw = talk(*said, system=system)
    return make_ask(said[-1], messages=len(said), raw=raw), {
        name.replace("_", "-").encode(): header[name] for name in header
    }


LENGTHY = "the story so far " * 300
EASY, PROOF = "say hello to guest 5", "prove that 7 is the sum of primes"


def test_a_long_conversation_stays_unless_it_needs_more(folder: Path) -> None:
    routes, learned, both = Routes(folder), Routing(router="support@1"), deployments_named("small", "large")

    def turn(*said: str) -> Route:
        return route_of(arranged(routes, learned, in_talk(*said)[0], both))

    assert turn(LENGTHY, "well", EASY).deployment == "small"
    assert turn(LENGTHY, "well", EASY, "hello", PROOF).deployment == "large"
    back = turn(LENGTHY, "well", EASY, "hello", PROOF, "because", EASY)
    assert (back.deployment, back.by) == ("large", "affinity")
    assert turn(LENGTHY + "otherwise", "well", EASY).deployment == "small"
    assert turn(LENGTHY, "another answer", EASY).deployment == "small", "it began alike, and is another conversation"


def test_a_shared_system_message_does_not_identify_a_conversation(folder: Path) -> None:
    routes, learned, both = Routes(folder), Routing(router="support@1"), deployments_named("small", "large")
    system = "You answer for a shop. " * 200

    def first(text: str, **header: bytes) -> Route:
        ask, headers = in_talk(text, system=system, **header)
        exchange = arranged(routes, learned, ask, both, headers)
        return route_of(exchange)

    assert first(PROOF).deployment == "large"
    assert (first(EASY).deployment, first(EASY).by) == ("small", "learned")
    assert first(PROOF).deployment == "large"
    later = route_of(arranged(routes, learned, in_talk("say hello to guest 8", "well", EASY, system=system)[0], both))
    assert (later.deployment, later.by) == ("small", "learned"), "a turn of somebody else's conversation"
    assert first(PROOF, groundplan_conversation=b"one").deployment == "large"
    named = first(EASY, groundplan_conversation=b"one")
    assert (named.deployment, named.by) == ("large", "affinity"), "a caller may name its conversation"
    assert first(EASY, groundplan_conversation=b"two").deployment == "small"


def test_the_second_turn_stays_with_the_model_of_the_first(folder: Path) -> None:
    routes, learned, both = Routes(folder), Routing(router="support@1"), deployments_named("small", "large")
    system = "You answer for a shop. " * 200
    for said in ((PROOF,), (PROOF, "because", EASY)):
        found = route_of(arranged(routes, learned, in_talk(*said, system=system)[0], both))
        assert found.deployment == "large"
    assert found.by == "affinity"


def test_only_the_approved_router_is_used(folder: Path) -> None:
    right = hashlib.sha256((folder / "support@1.router").read_bytes()).hexdigest()
    routes, both = Routes(folder), deployments_named("large", "small")
    same = route_of(
        arranged(routes, Routing(router="support@1", digest=right), make_ask("say hello to guest 900"), both)
    )
    assert (same.deployment, same.by) == ("small", "learned")
    other = route_of(
        arranged(routes, Routing(router="support@1", digest="0" * 64), make_ask("say hello to guest 900"), both)
    )
    assert (other.deployment, other.by) == ("large", "order")
    assert "as it was approved" in other.reason


def test_hard_rules_exclude_deployments_also_as_fallbacks_and_say_so(folder: Path) -> None:
    routing = Routing(rules=[CODE], barred={"large": "its tone is 70%, below the floor of 90%"})
    exchange = arranged(
        Routes(folder), routing, make_ask("refactor this"), deployments_named("large", "small", "third")
    )
    assert [place.name for place in exchange.deployments] == ["small", "third"]
    assert route_of(exchange).barred == {"large": "its tone is 70%, below the floor of 90%"}
    with pytest.raises(Denied) as refused:
        arranged(
            Routes(folder),
            Routing(barred={"small": "x", "large": "y"}),
            make_ask("hi"),
            deployments_named("large", "small"),
        )
    assert refused.value.code == "route_barred"


def timed(**seconds: float) -> LatencyEstimates:
    times = LatencyEstimates()
    for name, each in seconds.items():
        for _ in range(30):
            times.of(name, False).observe(int(each * 1e6), 100.0)
    return times


def test_a_recently_slow_deployment_is_only_a_fallback(folder: Path) -> None:
    routes, routing, both = Routes(folder), Routing(within_ms=1000), deployments_named("large", "small")
    times = timed(large=3.0, small=0.2)
    again = 100.0 + OUTDATED_SECONDS + 1
    for now, first in ((101.0, "small"), (again, "large")):
        exchange = routed_with(routes, routing, make_ask("hi"), both, times, now)
        assert exchange.deployments[0].name == first
        assert len(exchange.deployments) == 2
    exchange = routed_with(routes, Routing(within_ms=100), make_ask("hi"), both, times, 101.0)
    assert exchange.deployments[0].name == "large"
    for microseconds, first in ((200_000, "large"), (3_000_000, "small")):
        times = timed(large=3.0, small=0.2)
        times.of("large", False).observe(microseconds, again)
        exchange = routed_with(routes, routing, make_ask("hi"), both, times, again + 1)
        assert exchange.deployments[0].name == first, "what it does when it is tried again decides"


def routed_with(
    routes: Routes, routing: Routing, ask: Ask, names: list[Deployment], times: LatencyEstimates, now: float
) -> Exchange:
    exchange = Exchange(new_id_bytes(), Request(0.0), Response.__new__(Response), CHAT)
    exchange.deployments, exchange.key = list(names), KeyEntry("k", "w", "", False, False, None)
    routes.arrange(exchange, routed(routing), ask, times, now)
    return exchange


def test_latency_is_weighed_against_cost(folder: Path) -> None:
    routes, both, ask = Routes(folder), deployments_named("large", "small"), make_ask("say hello to guest 900")
    times = timed(small=10.0, large=0.1)
    cheap = route_of(routed_with(routes, Routing(router="support@1"), ask, both, times, 101.0))
    assert cheap.deployment == "small"
    dear = route_of(routed_with(routes, Routing(router="support@1", second=PICO // 100), ask, both, times, 101.0))
    assert dear.deployment == "large"
    assert dear.costs["small-m"] > cheap.costs["small-m"]


def test_a_warm_prompt_cache_is_abandoned_if_another_model_saves_more(folder: Path) -> None:
    raw = talk("x" * 40_000, "well", "and")
    hard, easy = make_ask("prove that 7 is the sum of primes", raw=raw), make_ask("say hello to guest 6", raw=raw)
    for read, then in ((1_000_000 * 1_000_000, "large"), (None, "small")):
        rates = Rates(input=2_000_000 * 1_000_000, output=0, cache_read=read)
        both = [msgspec.structs.replace(place, rates=rates) for place in deployments_named("small", "large")]
        routes, routing = Routes(folder), Routing(router="support@1", priced=True)
        assert route_of(arranged(routes, routing, hard, both)).deployment == "large"
        assert route_of(arranged(routes, routing, easy, both)).deployment == then


def test_without_a_router_receipts_name_declared_order_and_cost(folder: Path) -> None:
    routes, both = Routes(folder), deployments_named("small", "large")
    routes.learn("w", "small-m", 0.001)
    routes.learn("w", "small-m", 0.003)
    route = route_of(arranged(routes, Routing(quality={"small": {"tone": 0.8, "accuracy": 0.9}}), make_ask("hi"), both))
    assert route.expected == {"small-m": 0.85}
    assert route.costs == {"small-m": pytest.approx(0.0011)}


NAMES = st.lists(st.sampled_from(["large", "small", "third", "fourth"]), min_size=1, max_size=4, unique=True)
RULES = st.builds(
    RouteRule,
    name=st.just("r"),
    use=st.sampled_from(["large", "small", "elsewhere"]),
    words=st.lists(st.sampled_from(["hello", "prove", "("]), max_size=2),
    longer=st.none() | st.integers(1, 50),
)


@settings(max_examples=150, deadline=None)
@given(names=NAMES, declared=st.lists(RULES, max_size=3), text=st.text(max_size=60), learned=st.booleans())
def test_a_route_contains_only_permitted_deployments(
    folder: Path, names: list[str], declared: list[RouteRule], text: str, learned: bool
) -> None:
    routing = Routing(rules=declared, router="support@1" if learned else None)
    before = deployments_named(*names)
    exchange = arranged(Routes(folder), routing, make_ask(text), before)
    assert sorted(place.name for place in exchange.deployments) == sorted(names)
    assert exchange.deployments[0].name == route_of(exchange).deployment
    assert route_of(exchange).reason


async def test_a_routed_call_is_served_as_routed_falls_back_and_says_why(tmp_path: Path, folder: Path) -> None:
    routing = Routing(rules=[RouteRule(name="code", use="two", words=["refactor"])])
    async with call_rig(tmp_path, workloads={"assistant": {"routing": routing}}) as rig:
        rig.gateway.routes = Routes(folder)
        plain = await rig.chat()
        assert plain.status == 200
        routed_call = await rig.chat(messages=[{"role": "user", "content": "refactor this"}])
        assert routed_call.status == 200
        rig.play("two", mode="error", status=500)
        fallen = await rig.chat(messages=[{"role": "user", "content": "refactor that"}])
        assert fallen.status == 200
        found = [record for record in await rig.records() if isinstance(record, Finish)]
    assert [record.deployment for record in found] == ["one", "two", "one"]
    assert [msgspec.json.decode(record.route)["by"] for record in found] == ["order", "rule code", "rule code"]
    answered = [msgspec.json.decode(record.route).get("answered") for record in found]
    assert answered == [None, None, "one"], "the receipt says who took over"


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a router that tells hard questions by their embedding alone: the words are the same."""
    dice = np.random.default_rng(2)
    hard = dice.random(300) < 0.5
    samples = tuple(Sample(str(i), str(i), f"please look at case {i}") for i in range(300))
    vectors = np.tile(SOFT, (300, 1)).astype(np.float32)
    vectors[hard] = HARD
    vectors += dice.normal(scale=0.01, size=vectors.shape).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = np.stack([np.ones(300), np.where(hard, 0.0, 1.0)], axis=1)
    matrix = Matrix(samples, ("scripted/one", "scripted/two"), scores, np.tile([0.01, 0.001], (300, 1)))
    home = tmp_path_factory.mktemp("embedded")
    (home / "meant@1.router").write_bytes(dump(train(matrix, vectors, (0.99,))))
    return home


SOFT, HARD = np.eye(384, dtype=np.float32)[0], np.eye(384, dtype=np.float32)[1]


async def test_embeddings_decide_for_routers_that_use_them_else_words(tmp_path: Path, embedded: Path) -> None:
    texts: list[str] = []

    async def embed(request: Request, response: Response) -> None:
        asked = msgspec.json.decode(request.body, type=EmbedRequest)
        (text,) = asked.texts
        assert asked.questions and asked.most == TOKENS, "as in training, however many tokens its words have"
        texts.append(text)
        vector = HARD if "hard" in text else SOFT
        response.send(200, msgspec.json.encode(EmbedAnswer("m", [vector.astype("<f4").tobytes()], 1)))

    loop = asyncio.get_running_loop()
    server = Server(embed, refusal_body, loop)
    listener = await loop.create_server(server.create_connection, "127.0.0.1", 0)
    declared = {"assistant": {"routing": Routing(router="meant@1")}, "plain": {}}
    async with call_rig(tmp_path, workloads=declared) as rig:
        rig.gateway.routes = Routes(embedded)
        announce(Home(tmp_path), "search", f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}", "t")
        for said in ("please look at case soft", "please look at case hard"):
            assert (await rig.chat(messages=[{"role": "user", "content": said}])).status == 200
        assert (await rig.chat("plain", messages=[{"role": "user", "content": "hello"}])).status == 200
        named = await rig.chat(model="scripted/two", messages=[{"role": "user", "content": "hello"}])
        assert named.status == 200
        listener.close()
        await server.drain(0.2)
        rig.gateway.targets.forget("search")
        assert (await rig.chat(messages=[{"role": "user", "content": "please look at case soft"}])).status == 200
        found = [record for record in await rig.records() if isinstance(record, Finish)]
    assert texts == ["look at case soft", "look at case hard"], "what is said to be polite is not embedded"
    assert [record.deployment for record in found[:2]] == ["two", "one"]
    assert msgspec.json.decode(found[4].route)["by"] in ("learned", "strongest", "unsure")


def test_cost_is_weighed_at_current_prices(folder: Path) -> None:
    """Prices of training: the small model costs a tenth. Bills show that it became dearer than the large one."""
    routes, learned, both = Routes(folder), Routing(router="support@1"), deployments_named("large", "small")
    found = routes.router("support@1")
    assert found is not None
    routes._routers["support@1", None] = dataclasses.replace(found, points={"0.99": (0.1, 0.0)})

    def paid(text: str, dollars: float) -> Route:
        exchange = arranged(routes, learned, make_ask(text), both)
        routes.learn(
            "w", route_of(exchange).model, dollars if route_of(exchange).model == "small-m" else 0.01, exchange.call
        )
        return route_of(exchange)

    for number in range(MIN_CALLS):
        before = paid(f"say hello to guest {number}", 0.009)
        assert before.deployment == "small"
        assert before.costs["small-m"] == pytest.approx(0.001, rel=0.2)
    after = route_of(arranged(routes, learned, make_ask("say hello to guest 900"), both))
    assert after.costs["small-m"] == pytest.approx(9 * before.costs["small-m"], rel=0.1)
    assert after.costs["large-m"] == before.costs["large-m"]
    for number in range(200):
        paid(f"say hello to guest {number}", 0.02)
    dear = route_of(arranged(routes, learned, make_ask("say hello to guest 900"), both))
    assert dear.deployment == "large", "it is no worse, and cheaper now"
    assert route_of(arranged(Routes(folder), learned, make_ask("say hello to guest 900"), both)).deployment == "small"


def test_a_router_file_added_later_is_used_without_a_new_blueprint(folder: Path) -> None:
    seconds = 100.0
    routes = Routes(folder, lambda: seconds)
    learned, both = Routing(router="copied@1"), deployments_named("large", "small")

    def by() -> str:
        return route_of(arranged(routes, learned, make_ask("say hello to guest 900"), both)).by

    assert by() == "order"
    (folder / "copied@1.router").write_bytes((folder / "support@1.router").read_bytes())
    seconds += RETRY_SECONDS / 2
    assert by() == "order", "what is not here is not looked for with every call"
    seconds += RETRY_SECONDS
    assert by() == "learned"
    (folder / "copied@1.router").unlink()
    seconds += RETRY_SECONDS
    assert by() == "learned", "one that was read is not read again"


def test_a_new_blueprint_unloads_other_routers_and_loads_its_own(folder: Path) -> None:
    routes, names = Routes(folder), ("support@1", "broken@1", "later@1")

    def routed_by(number: int, name: str) -> Route:
        named = [routed(Routing(router=each)) for each in names[-2:]]
        exchange = Exchange(new_id_bytes(), Request(0.0), Response.__new__(Response), CHAT)
        exchange.catalog = index(blueprint(number, deployments_named("small", "large"), named))
        exchange.deployments, exchange.key = (
            deployments_named("large", "small"),
            KeyEntry("k", "w", "", False, False, None),
        )
        routes.arrange(exchange, routed(Routing(router=name)), make_ask("say hello to guest 900"))
        return route_of(exchange)

    assert routed_by(1, "support@1").by == "learned"
    assert routed_by(1, "later@1").by == "order"
    (folder / "later@1.router").write_bytes((folder / "support@1.router").read_bytes())
    assert routed_by(1, "later@1").by == "order", "what is not here is not looked for with every call"
    assert routed_by(2, "later@1").by == "learned"
    assert set(routes._routers) == {("later@1", None)}
    (folder / "later@1.router").unlink()


async def test_a_cascade_is_used_where_the_router_is_uncertain(tmp_path: Path, folder: Path) -> None:
    cascade = Cascade(first="two", confidence=0.5)
    routing = Routing(router="known@1", cascade=cascade)
    routes = Routes(folder)
    found = routes.router("support@1")
    assert found is not None
    routes._routers["known@1", None] = dataclasses.replace(found, models=("scripted/one", "scripted/two"))
    async with call_rig(tmp_path, workloads={"assistant": {"routing": routing}}) as rig:
        rig.gateway.routes = routes
        for text in ("say hello to guest 900", "qqq wwz zzk"):
            assert (await rig.chat(messages=[{"role": "user", "content": text}])).status == 200
        routed_calls = [msgspec.json.decode(r.route) for r in await rig.records() if isinstance(r, Finish)]
    sure, unsure = routed_calls
    assert (sure["by"], sure["deployment"]) == ("learned", "two")
    assert (unsure["by"], unsure["escalated"], unsure["answered"]) == ("cascade", True, "one")
    assert unsure["router"] == "known@1" and unsure["expected"]
