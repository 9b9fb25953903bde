"""Answers by meaning: given only within one frame, checked before they are given, and never across a trap."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from hashlib import sha256
from itertools import combinations
from math import inf
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from benchmarks.semantic_tune import difference_kinds
from tests.closing import close
from tests.unit.call_rig import Rig, call_rig, wait_until

from groundplan.blueprint.model import Cache, Grounding, Semantic
from groundplan.core.endpoints import announce
from groundplan.core.home import Home
from groundplan.core.settings import load_settings
from groundplan.economics.semantic.differences import DIGEST, kind_digests
from groundplan.economics.semantic.equivalence import is_within_bound
from groundplan.economics.semantic.net_savings import LookupTotals, net_savings
from groundplan.economics.semantic.reading import Reading, read
from groundplan.economics.semantic.regions import ASK, CHECK, GIVE, Learned, Regions
from groundplan.economics.semantic.similarity import EmbeddedReading
from groundplan.gateway.caching import semantic
from groundplan.gateway.caching.semantic import MAX_WAIT_SECONDS, PAUSE_SECONDS, SemanticCache
from groundplan.gateway.caching.semantic_checks import CheckStore
from groundplan.gateway.call.ask import Passage
from groundplan.gateway.http.errors import refusal_body
from groundplan.gateway.http.server import Request, Response, Server
from groundplan.gateway.policy.catalog import index
from groundplan.gateway.policy.snapshot import KeyEntry
from groundplan.knowledge.embedding.encoder import Encoder, quantise
from groundplan.knowledge.embedding.wire import EmbedAnswer, EmbedRequest
from groundplan.ledger.model import Finish
from groundplan.runtime.models import MINILM, ensure
from groundplan.testing import scripted

RESET = "How do I reset my Jira password?"
AGAIN = "What is the way to reset the Jira password?"
OTHER = "How can I reset the password for Jira?"
TRAP = "How do I reset my Slack password?"
SEMANTIC_CACHE = Path(__file__).parents[2] / "docs" / "semantic-cache.md"
READABLE: set[str] = set()
"""Chunks that the live permissions let the caller read."""
FOUND: list[str] = []
"""Chunks that any question finds now."""
SEARCHED: list[str] = []
"""Questions that were searched, or whose answers were to be confirmed."""


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    made = Encoder(ensure(load_settings().models, MINILM.name))
    made.embed(["The first text takes longer than those that come after it."])
    return made


def passage(chunk: str) -> Passage:
    return Passage(document="d", path="p", title="t", source="s", start_line=1, end_line=2, text="x", chunk=chunk)


@asynccontextmanager
async def meaning_rig(folder: Path, encoder: Encoder, **settings: Any) -> AsyncIterator[Rig]:
    """A worker that matches by meaning, and embeddings made beside its loop, as by another process."""
    one_at_a_time = asyncio.Lock()

    async def embed(request: Request, response: Response) -> None:
        if request.target == b"/confirm":
            wanted, since = (json.loads(request.body)[name] for name in ("chunks", "since"))
            SEARCHED.extend([] if since is None else [since["query"]])
            response.send(200, msgspec.json.encode({"readable": [chunk for chunk in wanted if chunk in READABLE]}))
            return
        if request.target == b"/search":
            SEARCHED.append(json.loads(request.body)["query"])
            response.send(200, msgspec.json.encode({"passages": list(map(passage, FOUND)), "state": "1"}))
            return
        asked = msgspec.json.decode(request.body, type=EmbedRequest)
        async with one_at_a_time:
            spoken = await asyncio.to_thread(encoder.embed_words, asked.texts, asked.places)
        vectors = [each.vector.astype("<f4").tobytes() for each in spoken]
        words = [quantise(each.words) for each in spoken]
        response.send(200, msgspec.json.encode(EmbedAnswer("minilm", vectors, 1, words)))

    scope, grounding = settings.pop("scope", "workload"), settings.pop("grounding", None)
    semantic = Semantic(**{"evidence": 1, "check": 0.05, "bound": 0.02, **settings})
    cache = Cache(seconds=600, max_bytes=1 << 20, scope=scope, semantic=semantic)
    off = Cache(seconds=600, max_bytes=1 << 20, scope="workload")
    loop = asyncio.get_running_loop()
    server = Server(embed, refusal_body, loop)
    listener = await loop.create_server(server.create_connection, "127.0.0.1", 0)
    try:
        async with call_rig(
            folder,
            ["one"],
            workloads={"assistant": {"cache": cache, "grounding": grounding}, "exactly": {"cache": off}},
        ) as rig:
            announce(Home(folder), "search", f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}", "t")
            rig.gateway.answer_cache.similar = SemanticCache(rig.gateway, dice=lambda: 1.0)
            rig.play("one", say="Open the settings and press reset.")
            yield rig
    finally:
        await close(listener, server)


async def cache_of(rig: Rig, question: str, key: str = "assistant", before: Any = (), **more: Any) -> str:
    reply = await rig.chat(key, messages=[*before, {"role": "user", "content": question}], **more)
    assert reply.status == 200, reply.body
    found: str = json.loads(reply.body)["groundplan"]["cache"]
    assert reply.headers.get("groundplan-cache", "none") == found
    return found


def counts(rig: Rig) -> Any:
    similar = rig.gateway.answer_cache.similar
    assert isinstance(similar, SemanticCache)
    return similar.counts["assistant"]


async def taught(rig: Rig) -> None:
    """The first match of its region was checked and found right, and so were as many as its bound takes, of each kind
    of difference between the three questions."""
    assert await cache_of(rig, RESET) == "none"
    assert await cache_of(rig, AGAIN) == "none"
    await wait_until(lambda: counts(rig).checked == 1)
    prove(rig)


def prove(rig: Rig) -> None:
    similar: Any = rig.gateway.answer_cache.similar
    regions = similar._calibrations["assistant"].regions
    (region,) = regions.known.values()
    pairs = combinations((RESET, AGAIN, OTHER), 2)
    kinds = kind_digests({kind for one, other in pairs for kind in difference_kinds(read(one), read(other))})
    while not regions.is_proven(region):
        regions.learn(region, 9.0, True, kinds)


async def test_a_question_in_other_words_gets_the_same_answer_once_its_region_is_proven(
    tmp_path: Path, encoder: Encoder
) -> None:
    async with meaning_rig(tmp_path, encoder) as rig:
        await taught(rig)
        asked = rig.models["one"].counted
        assert await cache_of(rig, "How can I reset the password for Jira?") == "semantic"
        assert rig.models["one"].counted == asked
        assert await cache_of(rig, RESET) == "exact"
        found = [record for record in await rig.records() if isinstance(record, Finish)]
    assert [record.cache for record in found] == ["none", "none", "semantic", "exact"]
    assert found[2].saved > 0


async def test_a_question_is_compared_in_its_most_frequent_phrasing(tmp_path: Path, encoder: Encoder) -> None:
    async with meaning_rig(tmp_path, encoder) as rig:
        await taught(rig)
        assert await cache_of(rig, "I want to reset my Jira password. How do I do that?") == "semantic"
        assert await cache_of(rig, "I want to reset my Slack password. How do I do that?") == "none"


async def test_phrasings_refused_by_a_guard_are_served_once_checks_proved_them(
    tmp_path: Path, encoder: Encoder
) -> None:
    put = "Which steps do I follow when I reset my {} password?"
    async with meaning_rig(tmp_path, encoder) as rig:
        await taught(rig)
        similar: Any = rig.gateway.answer_cache.similar
        checked, regions = counts(rig).checked, similar._calibrations["assistant"].regions
        known = set(regions.kinds)
        for tool in ("Slack", "Miro", "Zoom"):
            assert await cache_of(rig, f"How do I reset my {tool} password?") == "none"
        assert await cache_of(rig, put.format("Slack")) == "none"
        assert set(regions.kinds) == known, "most ways are met once"
        assert await cache_of(rig, put.format("Miro")) == "none"
        await wait_until(lambda: len(regions.kinds) == len(known) + 1)
        assert counts(rig).checked == checked, "it would not have been given, and says nothing of what is"
        assert await cache_of(rig, put.format("Zoom")) == "semantic"
        assert await cache_of(rig, put.format("Teams")) == "none", "another name is refused whatever was shown"


async def test_traps_other_conversations_and_other_parameters_are_misses(tmp_path: Path, encoder: Encoder) -> None:
    async with meaning_rig(tmp_path, encoder) as rig:
        await taught(rig)
        assert await cache_of(rig, TRAP) == "none"
        assert await cache_of(rig, "How do I not reset my Jira password?") == "none"
        other = "How can I reset the password for Jira?"
        assert await cache_of(rig, other, before=[{"role": "system", "content": "Answer in verse."}]) == "none"
        assert await cache_of(rig, other, temperature=0.9) == "none"
        assert await cache_of(rig, other) == "semantic"


async def test_other_workloads_are_not_affected(tmp_path: Path, encoder: Encoder) -> None:
    async with meaning_rig(tmp_path, encoder) as rig:
        assert await cache_of(rig, RESET, "exactly") == "none"
        assert await cache_of(rig, AGAIN, "exactly") == "none"
        assert await cache_of(rig, RESET, "exactly") == "exact"
        similar = rig.gateway.answer_cache.similar
        assert isinstance(similar, SemanticCache)
        assert similar.counts == {}


async def test_a_failed_check_keeps_the_region_unproven(tmp_path: Path, encoder: Encoder) -> None:
    async with meaning_rig(tmp_path, encoder) as rig:
        assert await cache_of(rig, RESET) == "none"
        rig.play("one", say="Ask 3 people of the help desk for 14 days.")
        assert await cache_of(rig, AGAIN) == "none"
        await wait_until(lambda: counts(rig).wrong == 1)
        assert await cache_of(rig, "How can I reset the password for Jira?") == "none"
        assert counts(rig).given == 0


async def test_answers_with_equal_function_calls_agree(
    tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were compared by nothing, and given where texts had proven the region."""
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    async with meaning_rig(tmp_path, encoder) as rig:
        rig.play("one", tool=True, say=" ")
        assert await cache_of(rig, RESET, tools=tools) == "none"
        assert await cache_of(rig, AGAIN, tools=tools) == "none"
        await wait_until(lambda: counts(rig).checked == 1)
        assert counts(rig).wrong == 0
        assert await cache_of(rig, RESET, tools=tools, seed=1) == "none"
        monkeypatch.setattr(scripted, "TOOL_PIECES", ('{"question": ', '"another"}'))
        assert await cache_of(rig, AGAIN, tools=tools, seed=1) == "none"
        await wait_until(lambda: counts(rig).checked == 2)
        assert counts(rig).wrong == 1


async def test_cleared_answers_and_a_missing_search_service_are_misses(tmp_path: Path, encoder: Encoder) -> None:
    async with meaning_rig(tmp_path, encoder) as rig:
        await taught(rig)
        live: Any = rig.gateway.live
        live.policy = replace(live.policy, number=2, cleared={"assistant": 1})
        assert await cache_of(rig, "How can I reset the password for Jira?") == "none"
        announce(Home(tmp_path), "search", "http://127.0.0.1:9", "t")
        rig.gateway.targets.forget("search")
        assert await cache_of(rig, "Which way can the Jira password be reset?") == "none"


async def test_a_silent_search_service_delays_one_call_briefly(tmp_path: Path, encoder: Encoder) -> None:
    async with meaning_rig(tmp_path, encoder) as rig:
        await taught(rig)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            announce(Home(tmp_path), "search", f"http://127.0.0.1:{silent.getsockname()[1]}", "t")
            rig.gateway.targets.forget("search")
            loop = asyncio.get_running_loop()
            begun = loop.time()
            assert await cache_of(rig, "How can I reset the password for Jira?") == "none"
            assert MAX_WAIT_SECONDS <= loop.time() - begun < PAUSE_SECONDS
            begun = loop.time()
            for number in range(5):
                assert await cache_of(rig, f"How can I reset {number} passwords for Jira?") == "none"
            assert loop.time() - begun < MAX_WAIT_SECONDS


async def test_a_worker_remembers_a_bounded_number_of_recent_questions(
    tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the conversations that they are asked in; each takes some twenty kilobytes."""
    monkeypatch.setattr(semantic, "MAX_QUESTIONS", 4)
    async with meaning_rig(tmp_path, encoder) as rig:
        similar: Any = rig.gateway.answer_cache.similar
        for number in range(6):
            before = [{"role": "system", "content": f"Answer in verse {number // 2}."}]
            assert await cache_of(rig, f"How do I reset my Jira password of room {number}?", before=before) == "none"
        assert [len(frame.keys) for frame in similar._frames.values()] == [2, 2] and similar._question_count == 4
        clock: Any = rig.gateway.clock
        clock.advance(601)
        assert await cache_of(rig, "How do I reset my Jira password of room 5?", before=before) == "none"
        assert similar._question_count == 4, "a question that is answered anew is the same one"


async def test_a_personal_answer_is_never_shared_in_any_phrasing(tmp_path: Path, encoder: Encoder) -> None:
    """Of one person is the person's: the same words, other words, and the words of the first one of all."""
    async with meaning_rig(tmp_path, encoder, scope="person") as rig:
        live: Any = rig.gateway.live
        people = ("pia", "quinn")
        keys = {
            sha256(name.encode()).digest(): KeyEntry(name, "assistant", name, False, False, None) for name in people
        }
        live.policy = replace(live.policy, number=2, keys=live.policy.keys | keys, active=frozenset(people))
        await taught(rig)
        assert await cache_of(rig, RESET, "pia") == "none", "nor from who has no name"
        assert await cache_of(rig, OTHER, "pia") == "semantic"
        for question in (RESET, AGAIN, OTHER):
            assert await cache_of(rig, question, "quinn", temperature=0) == "none"
            assert await cache_of(rig, question, "quinn", temperature=0) == "exact"
            live.policy = replace(live.policy, number=live.policy.number + 1, cleared={"assistant": live.policy.number})


async def test_a_person_changing_groups_while_waiting_shares_with_the_new_groups_only(
    tmp_path: Path, encoder: Encoder
) -> None:
    """The question was compared with those of the old group before; its answer is none of theirs."""
    async with meaning_rig(tmp_path, encoder, scope="group") as rig:
        live: Any = rig.gateway.live
        people = ("pia", "quinn")
        keys = {
            sha256(name.encode()).digest(): KeyEntry(name, "assistant", name, False, False, None) for name in people
        }
        both = dict.fromkeys(people, "old")
        live.policy = replace(
            live.policy, number=2, keys=live.policy.keys | keys, active=frozenset(people), groups=both
        )
        await taught(rig)
        before = [{"role": "system", "content": "Answer in verse."}]
        body = {"messages": [*before, {"role": "user", "content": RESET}]}
        rig.play("one", mode="error", status=503, times=1, say="Open the settings and press reset.")
        asked, gate = rig.models["one"].counted, rig.hold("one")
        first = asyncio.ensure_future(rig.chat("quinn", **body))
        await wait_until(lambda: rig.models["one"].counted == asked + 1)
        looked = counts(rig).looked
        waiting = asyncio.ensure_future(rig.chat("pia", **body))
        await wait_until(lambda: counts(rig).looked == looked + 1)
        live.policy = replace(live.policy, number=3, groups={**both, "pia": "new"})
        gate.release()
        assert (await first).status == 503
        gate.release()
        assert (await waiting).json["groundplan"]["cache"] == "none"
        gate.release()
        assert await cache_of(rig, AGAIN, "quinn", before) == "none", "the answer to a question of another group"


def test_regions_begin_with_checks_tighten_and_switch_off() -> None:
    one = np.eye(4, dtype=np.float32)[0]
    regions = Regions(bound=0.05, check=0.1, evidence=2, threshold=3.0)
    region = regions.region_of(one)
    assert regions.region_of(one) is region
    assert regions.region_of(np.eye(4, dtype=np.float32)[1]) is not region
    assert regions.decide(region, 2.9, 0.99) == ASK
    assert regions.decide(region, 9.0, 0.99) == CHECK
    for _ in range(58):
        regions.learn(region, 9.0, True)
    assert regions.decide(region, 9.0, 0.99) == CHECK, "58 right ones do not prove 5 %"
    regions.learn(region, 9.0, True)
    assert regions.decide(region, 3.5, 0.99) == GIVE
    assert regions.decide(region, 3.5, 0.05) == CHECK
    regions.learn(region, 3.5, False)
    assert regions.decide(region, 3.9, 0.99) == ASK
    assert region.raised == 4.0
    assert regions.decide(region, 4.0, 0.99) == CHECK
    for _ in range(33):
        regions.learn(region, 9.0, True)
    assert regions.decide(region, 4.0, 0.99) == GIVE, "one of 93 proves 5 % again"
    for _ in range(10):
        regions.learn(region, 8.0, False)
    assert regions.is_off(region)
    assert regions.decide(region, inf, 0.99) == ASK
    assert regions.decide(region, inf, 0.05) == CHECK


def test_a_wrong_answer_among_few_checks_disables_a_region_proven_by_neighbours() -> None:
    regions = Regions(bound=0.05, check=0.1, evidence=5, threshold=3.0)
    region, other = (regions.region_of(vector) for vector in neighbours())
    for each, count in ((region, 10), (other, 200)):
        for _ in range(count):
            regions.learn(each, 9.0, True)
    assert regions.decide(region, 9.0, 0.99) == GIVE
    regions.learn(region, 9.0, False)
    assert is_within_bound(1, 211, regions.bound), "all checks together still prove the bound"
    assert regions.decide(region, inf, 0.99) == ASK
    assert regions.decide(other, 9.0, 0.99) == GIVE


@pytest.mark.parametrize(("bound", "checks"), [(0.01, (299, 473, 628)), (0.02, (149, 236, 313)), (0.05, (59, 93, 124))])
def test_the_number_of_checks_that_prove_a_bound_is_as_documented(bound: float, checks: tuple[int, ...]) -> None:
    for wrong, of in enumerate(checks):
        assert is_within_bound(wrong, of, bound)
        assert not is_within_bound(wrong, of - 1, bound)
    assert all(str(of) in SEMANTIC_CACHE.read_text() for of in checks)


def neighbours() -> tuple[np.ndarray, np.ndarray]:
    """Two questions that are alike by 0.4: too little for one region."""
    dice = np.random.default_rng(10)
    one, other = (row / np.linalg.norm(row) for row in dice.normal(size=(2, 384)))
    other = other - (other @ one) * one
    other = 0.4 * one + (1 - 0.4**2) ** 0.5 * other / np.linalg.norm(other)
    return one.astype(np.float32), other.astype(np.float32)


def test_checks_of_neighbours_count_and_their_own_are_needed_too() -> None:
    regions = Regions(bound=0.05, check=0.0, evidence=20, threshold=3.0)
    near, other = (regions.region_of(vector) for vector in neighbours())
    far = regions.region_of((np.random.default_rng(8).normal(size=384) / 20).astype(np.float32))
    assert (near.near, other.near, far.near) == ([other], [near], [])
    for each, count in ((near, 19), (other, 45), (far, 45)):
        for _ in range(count):
            regions.learn(each, 9.0, True)
    assert [regions.decide(each, 9.0, 0.5) for each in (near, other, far)] == [CHECK, GIVE, CHECK]
    regions.learn(near, 9.0, True)
    assert [regions.decide(each, 9.0, 0.5) for each in (near, other, far)] == [GIVE, GIVE, CHECK]


def test_shared_counts_replace_local_ones() -> None:
    regions, other = (Regions(bound=0.05, check=0.1, evidence=2, threshold=3.0) for _ in range(2))
    one, two = neighbours()
    regions.learn(regions.region_of(one), 9.0, True)
    rows = [Learned(regions.region_of(one).first, 60, 1, 4.5), Learned(regions.region_of(two).first, 7, 0, -inf)]
    for taught_one in (regions, regions, other):
        taught_one.load(rows)
        found = taught_one.region_of(one)
        assert (found.checked, found.wrong, found.raised) == (60, 1, 4.5)
        assert [each.checked for each in found.near] == [7]
        assert len(taught_one.known) == 2


def served(rig: Rig, **changes: Any) -> None:
    """From now on under another blueprint: `prompt` of the workload, or `model` of its deployment."""
    live: Any = rig.gateway.live
    before = live.catalog.blueprint
    workloads = [msgspec.structs.replace(w, system_prompt=changes.get("prompt")) for w in before.workloads]
    deployments = [msgspec.structs.replace(d, model=changes.get("model", d.model)) for d in before.deployments]
    live.catalog = index(msgspec.structs.replace(before, number=2, workloads=workloads, deployments=deployments))


@pytest.mark.parametrize("change", ["nothing", "time", "prompt", "model"])
async def test_an_answer_is_invalid_after_its_ttl_or_a_change_of_prompt_or_model(
    tmp_path: Path, encoder: Encoder, change: str
) -> None:
    async with meaning_rig(tmp_path, encoder) as rig:
        await taught(rig)
        clock: Any = rig.gateway.clock
        if change == "time":
            clock.advance(601)
        elif change != "nothing":
            served(rig, **{change: "Answer in verse." if change == "prompt" else "scripted/newer"})
        assert await cache_of(rig, OTHER) == ("semantic" if change == "nothing" else "none")


@pytest.mark.parametrize("still", [{"c1", "c2"}, {"c1"}])
async def test_an_answer_is_served_while_all_its_passages_are_readable(
    tmp_path: Path, encoder: Encoder, still: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with meaning_rig(tmp_path, encoder) as rig:
        live: Any = rig.gateway.live
        keys = {digest: replace(key, person="ana") for digest, key in live.policy.keys.items()}
        live.policy = replace(live.policy, keys=keys, active=frozenset({"ana"}))
        await taught(rig)
        for entry in rig.gateway.answer_cache.entries("assistant"):
            passages = tuple(map(passage, ("c1", "c2")))
            assert rig.gateway.answer_cache.put(rig.plan("assistant"), replace(entry, passages=passages))
        monkeypatch.setattr("tests.unit.test_gateway_semantic.READABLE", still)
        assert await cache_of(rig, OTHER) == ("semantic" if still == {"c1", "c2"} else "none")
        assert counts(rig).given == (still == {"c1", "c2"}), "what permissions refused counts as given"


@pytest.mark.parametrize("now", [["c1"], ["c1", "c2"]])
async def test_an_answer_to_a_paraphrase_ends_if_its_own_search_finds_more(
    tmp_path: Path, encoder: Encoder, now: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.unit.test_gateway_semantic.READABLE", {"c1", "c2"})
    monkeypatch.setattr("tests.unit.test_gateway_semantic.FOUND", ["c1"])
    async with meaning_rig(tmp_path, encoder, grounding=Grounding(sources=["s"]), scope="group") as rig:
        live: Any = rig.gateway.live
        keys = {digest: replace(key, person="ana") for digest, key in live.policy.keys.items()}
        live.policy = replace(live.policy, keys=keys, active=frozenset({"ana"}))
        await taught(rig)
        monkeypatch.setattr("tests.unit.test_gateway_semantic.FOUND", now)
        SEARCHED.clear()
        assert await cache_of(rig, OTHER) == ("semantic" if now == ["c1"] else "none")
        assert SEARCHED[0] in (RESET, AGAIN), "the question that the answer was made for"
        assert SEARCHED[1:] == [SEARCHED[0], *([] if now == ["c1"] else [OTHER])]


class Tallied:
    """What the worker would write down."""

    def __init__(self) -> None:
        self.rows: list[tuple[Any, ...]] = []

    def add_lookup(self, workload: str, microseconds: int) -> None:
        self.rows.append((workload, microseconds > 0))

    def add_hit(self, workload: str, saved: int) -> None:
        self.rows.append((workload, "given", saved > 0))

    def add_check(self, workload: str, *, wrong: bool) -> None:
        self.rows.append((workload, "wrong" if wrong else "right"))


async def test_lookups_checks_and_savings_are_reported(tmp_path: Path, encoder: Encoder) -> None:
    async with meaning_rig(tmp_path, encoder) as rig:
        similar: Any = rig.gateway.answer_cache.similar
        similar.tally = told = Tallied()
        await taught(rig)
        assert await cache_of(rig, OTHER) == "semantic"
    looked = ("assistant", True)
    assert told.rows == [looked, looked, ("assistant", "right"), looked, ("assistant", "given", True)]


async def test_a_hit_refused_by_a_kill_saved_nothing(tmp_path: Path, encoder: Encoder) -> None:
    async with meaning_rig(tmp_path, encoder) as rig:
        await taught(rig)
        similar: Any = rig.gateway.answer_cache.similar
        similar.tally = told = Tallied()
        for entry in rig.gateway.answer_cache.entries("assistant"):
            assert rig.gateway.answer_cache.put(rig.plan("assistant"), replace(entry, deployment="elsewhere"))
        assert await cache_of(rig, OTHER) == "none"
        assert counts(rig).given == 0
    assert told.rows == [("assistant", True)]


def test_savings_are_net_of_look_ups_and_of_wrong_answers() -> None:
    hour, wrong = 36 * 10**9, 10**12
    made = net_savings(
        LookupTotals(looked=1000, given=400, checked=100, wrong=2, spent_us=10**9, saved=5 * 10**12), 0.01, hour, wrong
    )
    assert (made.saved, made.lookups) == (5 * 10**12, 10**10)
    assert made.wrong_answers == pytest.approx(8.0)
    assert made.net == 5 * 10**12 - 10**10 - 8 * 10**12
    unproven = net_savings(
        LookupTotals(looked=10, given=100, checked=0, wrong=0, spent_us=0, saved=0), 0.02, hour, wrong
    )
    assert unproven.wrong_answers == pytest.approx(2.0)


async def test_checks_are_shared_between_workers(tmp_path: Path, encoder: Encoder) -> None:
    async with meaning_rig(tmp_path, encoder) as rig:
        similar: Any = rig.gateway.answer_cache.similar
        similar.checks = checks = CheckStore("postgresql://nobody@127.0.0.1:9/none")
        assert await cache_of(rig, RESET) == "none"
        assert await cache_of(rig, AGAIN) == "none"
        await wait_until(lambda: counts(rig).checked == 1)
        (key,) = (key for key in checks._unsent if len(key[2]) > DIGEST)
        found = kind_digests(difference_kinds(read(RESET), read(AGAIN)))
        assert set(checks._unsent) == {key, *((*key[:2], kind) for kind in found)}
        assert key[0] == "assistant" and set(checks._unsent.values()) == {(1, 0, -inf)}
        way = "Which way can the Jira password be reset?"
        assert await cache_of(rig, way) == "none", "one check proves nothing"
        kinds = {kind for one in (RESET, AGAIN, way) for kind in kind_digests(difference_kinds(read(one), read(OTHER)))}
        checks._update([(*key, 200, 0, -inf), *((*key[:2], kind, 20, 0, -inf) for kind in kinds)])
        assert await cache_of(rig, OTHER) == "semantic"
        (region,) = similar._calibrations["assistant"].regions.known.values()
        assert region.checked >= 201


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Open the settings and press reset.", "Open the settings, then press reset.", True),
        ("Open the settings. Press reset.", "Open the settings and press reset.", True),
        ("Ask Ana of the help desk.", "Ask Bob of the help desk.", False),
        (
            "Please ask Ana of the help desk to reset the password of your account.",
            "Please ask Bob of the help desk to reset the password of your account, by phone.",
            False,
        ),
        (
            "please ask ana of the help desk to reset the password of your account",
            "please ask bob of the help desk to reset the password of your account",
            False,
        ),
        (
            "Ana of the help desk resets the password of your account.",
            "Bob of the help desk resets the password of your account.",
            False,
        ),
        ("The parcel arrives after 5 days.", "The parcel arrives after 5 weeks at your place.", False),
        (
            "Send the signed form to the office on Monday.",
            "Send the signed form to the office on Friday by letter.",
            False,
        ),
        ("It costs 5 euros.", "It costs 6 euros.", False),
        ("You may return it.", "You may not return it.", False),
    ],
)
async def test_answers_agree_if_numbers_units_dates_and_names_do(
    encoder: Encoder, one: str, other: str, same: bool
) -> None:
    async def embed(asked: Sequence[tuple[Reading, Sequence[tuple[int, int]]]], _: Any) -> list[EmbeddedReading]:
        spoken = encoder.embed_words([reading.text for reading, _ in asked], [places for _, places in asked])
        return [
            EmbeddedReading(reading, each.vector, np.frombuffer(quantise(each.words), dtype=np.int8).reshape(-1, 384))
            for (reading, _), each in zip(asked, spoken, strict=True)
        ]

    similar: Any = SemanticCache(None)  # type: ignore[arg-type]
    similar._embed = embed
    assert await similar._answers_agree(one, other, None) is same
    assert await similar._answers_agree(other, one, None) is same
