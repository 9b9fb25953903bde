"""A request that was answered from the cache is not read again where the same bytes come from the same caller."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.integration.gateway_stack import workload
from tests.unit.call_rig import Rig, call_rig

from groundplan.blueprint.model import Cache, Keep
from groundplan.core.errors import Invalid
from groundplan.core.ids import new_id_bytes
from groundplan.gateway.caching import known_requests
from groundplan.gateway.caching.known_requests import ENTRY_BYTES, MAX_BODY_BYTES, MAX_BYTES, TIMES, KnownRequests
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.http.collected_response import CollectedResponse
from groundplan.gateway.http.server import Request
from groundplan.gateway.policy.snapshot import KeyEntry
from groundplan.gateway.surfaces.chat.surface import CHAT, ChatCompletions
from groundplan.gateway.surfaces.messages.surface import MESSAGES

CACHE = Cache(seconds=60, max_bytes=1 << 20, scope="workload")


def cached(replies: Sequence[Any]) -> list[str]:
    return [reply.json["groundplan"]["cache"] for reply in replies]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Bodies that were read."""
    found: list[bytes] = []
    real = ChatCompletions.read

    def read(self: ChatCompletions, request: Request) -> Any:
        found.append(request.body)
        return real(self, request)

    monkeypatch.setattr(ChatCompletions, "read", read)
    return found


def cache_rig(folder: Path, **more: Any) -> Any:
    return call_rig(folder, ["one"], workloads={"assistant": {"cache": CACHE, **more}, "other": {"cache": CACHE}})


async def test_a_request_seen_twice_is_not_parsed_again(tmp_path: Path, reads: list[bytes]) -> None:
    async with cache_rig(tmp_path) as rig:
        replies = [await rig.chat() for _ in range(4)]
        assert cached(replies) == ["none", "exact", "exact", "exact"]
        assert len(reads) == 2 and len({str(reply.json["choices"]) for reply in replies}) == 1
        assert cached([await rig.chat(seed=1)]) == ["none"] and len(reads) == 3
        assert cached([await rig.chat("other")]) == ["none"] and len(reads) == 4, "another caller's own"


async def test_a_known_request_is_made_under_current_rules(tmp_path: Path, reads: list[bytes]) -> None:
    """Only reading is spared."""
    async with cache_rig(tmp_path) as rig:
        for _ in range(3):
            await rig.chat()
        policy = rig.gateway.live.policy
        rig.gateway.live.policy = replace(policy, cleared={"assistant": 1})
        assert cached([await rig.chat(), await rig.chat()]) == ["none", "exact"] and len(reads) == 2
        rig.gateway.live.policy = replace(policy, kills=frozenset({"workload/assistant"}))
        assert (await rig.chat()).code == "killed"


async def test_streamed_and_whole_requests_are_remembered_separately(tmp_path: Path, reads: list[bytes]) -> None:
    async with cache_rig(tmp_path) as rig:
        await rig.chat()
        for _ in range(3):
            assert (await rig.stream()).facts["cache"] == "exact"
        assert len(reads) == 2


async def test_requests_whose_content_is_kept_are_parsed_each_time(tmp_path: Path, reads: list[bytes]) -> None:
    """Its body may be changed on the way."""
    async with cache_rig(tmp_path, keep=Keep(content="full", seconds=60)) as rig:
        await _three(rig)
        assert len(reads) == 3


async def _three(rig: Rig) -> None:
    assert cached([await rig.chat() for _ in range(3)]) == ["none", "exact", "exact"]


def make_exchange(body: bytes, key: str = "k", person: str = "", interface: Any = CHAT) -> Exchange:
    request = Request(0.0)
    request.body = body
    exchange = Exchange(new_id_bytes(), request, CollectedResponse(), interface)
    exchange.key, exchange.person = KeyEntry(key, "w", "", False, False, None), person
    exchange.workload = workload("w", ["one"])
    return exchange


def chat(size: int = 1, name: str = "a") -> bytes:
    return b'{"model":"%b","messages":[{"role":"user","content":"%b"}]}' % (name.encode(), b"x" * size)


@given(st.lists(st.tuples(st.sampled_from(["k", "l"]), st.sampled_from(["", "p"]), st.integers(0, 3)), max_size=20))
def test_each_caller_finds_its_own_requests_and_parses_new_ones(calls: list[tuple[str, str, int]]) -> None:
    known, noted = KnownRequests(), set()
    for key, person, size in calls:
        exchange = make_exchange(chat(size), key, person)
        exchange.ask = known.read_ask(exchange)
        assert exchange.ask == CHAT.read(exchange.request)
        assert bool(exchange.body_digest) == ((key, person, size) in noted)
        exchange.body_digest = exchange.body_digest or b"%d" % size
        assert exchange.body_digest == b"%d" % size
        known.remember(exchange)
        noted.add((key, person, size))
    assert len(known) == len(noted)


def test_memory_is_bounded_and_the_oldest_is_evicted_first() -> None:
    known = KnownRequests()
    size, most = MAX_BODY_BYTES - 200, MAX_BYTES // (TIMES * MAX_BODY_BYTES + ENTRY_BYTES)
    for number in range(2 * most):
        exchange = make_exchange(chat(size, str(number)))
        exchange.ask, exchange.body_digest = known.read_ask(exchange), b"x"
        known.remember(exchange)
    assert most <= len(known) <= most + 5
    first, last = make_exchange(chat(size, "0")), make_exchange(chat(size, str(2 * most - 1)))
    known.read_ask(first), known.read_ask(last)
    assert not first.body_digest and last.body_digest
    large = make_exchange(chat(MAX_BODY_BYTES))
    large.ask, large.body_digest = known.read_ask(large), b"x"
    before = len(known)
    known.remember(large)
    assert len(known) == before


def test_short_requests_take_no_more_memory_than_long_ones() -> None:
    known = KnownRequests()
    tracemalloc.start()
    for number in range(2 * MAX_BYTES // ENTRY_BYTES):
        exchange = make_exchange(chat(1, str(number)))
        exchange.ask, exchange.body_digest = known.read_ask(exchange), number.to_bytes(32)
        known.remember(exchange)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken < 1.25 * MAX_BYTES


def test_requests_that_depend_on_headers_are_not_known_by_their_body() -> None:
    known = KnownRequests()
    body = b'{"model":"a","max_tokens":5,"messages":[{"role":"user","content":"x"}]}'
    exchange = make_exchange(body, interface=MESSAGES)
    exchange.ask, exchange.body_digest = known.read_ask(exchange), b"x"
    known.remember(exchange)
    assert len(known) == 0
    with pytest.raises(Invalid):
        known.read_ask(make_exchange(b"{"))
    assert known_requests.MAX_BODY_BYTES < MAX_BYTES
