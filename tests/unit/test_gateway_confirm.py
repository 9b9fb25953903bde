"""What a hit from documents asks of the search service: the permissions each time, the question again only where what
came since may bear on its answer."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.closing import close
from tests.unit.call_rig import Rig, call_rig, wait_until

from groundplan.blueprint.model import Cache, Grounding, Keep
from groundplan.core.endpoints import announce
from groundplan.core.home import Home
from groundplan.gateway.caching.cache_link import AnswerLink, StoredAnswer, StoreMessage, accept_answer
from groundplan.gateway.caching.entry import MAX_STATES, Entry
from groundplan.gateway.http.errors import refusal_body
from groundplan.gateway.http.server import Request, Response, Server

QUESTION = "How long is paid leave?"
GROUNDING = Grounding(sources=["handbook", "rules"], passages=3, max_bytes=2000)


def passage(chunk: str, text: str = "28 days.") -> dict[str, Any]:
    return {
        "document": "d", "path": "leave.md", "title": "Leave", "source": "handbook", "start_line": 1, "end_line": 2,
        "text": text, "chunk": chunk,
    }  # fmt: skip


CONFLICT = {
    "document": "d", "path": "a.md", "title": "A", "source": "handbook", "says": "28 days.", "other_document": "e",
    "other_path": "b.md", "other_title": "B", "other_source": "handbook", "other_says": "30 days.",
}  # fmt: skip
NEWER = {
    "document": "d", "path": "a.md", "title": "A", "newer_document": "e", "newer_path": "b.md", "newer_title": "B",
    "newer_source": "handbook",
}  # fmt: skip


@dataclass
class Searcher:
    """A search service that says what it is told to; `confirmed`: the state that it tells of an answer."""

    found: list[dict[str, Any]] = field(default_factory=lambda: [passage("c1"), passage("c2")])
    more: dict[str, Any] = field(default_factory=dict)
    state: str = "10 x"
    confirmed: str = "11 x"
    away: bool = False
    meanwhile: Callable[[], object] = lambda: None
    """What happens while it confirms."""
    asked: list[tuple[str, Any]] = field(default_factory=list)

    async def handle(self, request: Request, response: Response) -> None:
        body = json.loads(request.body)
        self.asked.append((request.target.decode(), body))
        if request.target == b"/confirm":
            self.meanwhile()
            response.send(200, json.dumps({"readable": body["chunks"], "state": self.confirmed}).encode())
        elif self.away:
            response.send(503, b"{}")
        else:
            response.send(200, json.dumps({"passages": self.found, "state": self.state, **self.more}).encode())

    def paths(self) -> list[str]:
        """What was asked since the last time."""
        taken, self.asked = self.asked, []
        return [path for path, _ in taken]


@asynccontextmanager
async def asking(folder: Path, **also: Any) -> AsyncIterator[tuple[Rig, Searcher]]:
    loop, searcher = asyncio.get_running_loop(), Searcher()
    server = Server(searcher.handle, refusal_body, loop)
    listener = await loop.create_server(server.create_connection, "127.0.0.1", 0)
    cache = Cache(seconds=600, max_bytes=1 << 20, scope="group")
    settings = {"cache": cache, "grounding": GROUNDING, **also}
    try:
        async with call_rig(folder, ["one"], workloads={"assistant": settings, "other": settings}) as rig:
            announce(Home(folder), "search", f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}", "t")
            call_as(rig, "ana")
            yield rig, searcher
    finally:
        await close(listener, server)


def call_as(rig: Rig, person: str) -> None:
    """Who calls from now on; all are in the same groups."""
    live: Any = rig.gateway.live
    keys = {digest: dataclasses.replace(key, person=person) for digest, key in live.policy.keys.items()}
    people = frozenset({"ana", "ben"})
    live.policy = dataclasses.replace(live.policy, keys=keys, active=people, groups=dict.fromkeys(people, "staff"))


async def ask(rig: Rig, **more: Any) -> str:
    reply = await rig.chat(messages=[{"role": "user", "content": QUESTION}], **more)
    assert reply.status == 200, reply.body
    return str(json.loads(reply.body)["groundplan"]["cache"])


def cached_entry(rig: Rig) -> Entry:
    (entry,) = rig.gateway.answer_cache.entries("assistant")
    return entry


async def test_a_confirmed_hit_is_not_searched_again(tmp_path: Path) -> None:
    async with asking(tmp_path) as (rig, searcher):
        assert await ask(rig) == "none"
        ((_, searched),) = searcher.asked
        assert searched["stated"] and searcher.paths() == ["/search"]
        for state, next_one in (("10 x", "11 x"), ("11 x", "12 x"), ("12 x", "12 x")):
            searcher.confirmed = next_one
            assert await ask(rig) == "exact"
            ((path, told),) = searcher.asked
            since = {"state": state, "query": QUESTION, "sources": ["handbook", "rules"], "synonyms": False}
            assert (path, told["since"], told["sources"]) == ("/confirm", since, ["handbook"])
            searcher.asked.clear()


async def test_a_possibly_relevant_change_triggers_one_search(tmp_path: Path) -> None:
    async with asking(tmp_path) as (rig, searcher):
        await ask(rig)
        ((_, first),) = searcher.asked
        searcher.paths()
        searcher.confirmed, searcher.state = "", "20 x"
        searcher.found = searcher.found[::-1]
        assert await ask(rig) == "exact", "the same passages in another order"
        assert searcher.asked[1] == ("/search", first), "as it was searched for the model"
        assert searcher.paths() == ["/confirm", "/search"]
        searcher.confirmed = "21 x"
        assert await ask(rig) == "exact"
        assert searcher.asked[0][1]["since"]["state"] == "20 x"
        assert searcher.paths() == ["/confirm"]


@pytest.mark.parametrize("found", [["c1", "c2", "c3"], ["c1", "c3"], ["c1"], []])
async def test_other_passages_invalidate_the_answer(tmp_path: Path, found: list[str]) -> None:
    async with asking(tmp_path) as (rig, searcher):
        await ask(rig)
        searcher.confirmed, searcher.found = "", [passage(chunk) for chunk in found]
        assert await ask(rig) == "none"
        assert rig.models["one"].counted == 2
        assert {entry.query for entry in rig.gateway.answer_cache.entries("assistant")} == (
            {QUESTION} if found else set()
        )


async def test_calls_that_find_an_answer_outdated_at_once_share_the_new_one(tmp_path: Path) -> None:
    async with asking(tmp_path) as (rig, searcher):
        await ask(rig)
        searcher.confirmed, searcher.found = "", [passage("c3")]
        one = rig.hold("one")
        calls = [asyncio.create_task(ask(rig)) for _ in range(6)]
        await wait_until(lambda: rig.gateway.running_calls == 6 and rig.models["one"].counted == 2)
        for _ in calls:
            one.release()
        assert sorted(await asyncio.gather(*calls)) == ["exact"] * 5 + ["none"]
        assert rig.models["one"].counted == 2


@pytest.mark.parametrize("more", [{"conflicts": [CONFLICT]}, {"newer": [NEWER]}])
async def test_a_new_conflict_note_invalidates_the_answer(tmp_path: Path, more: dict[str, Any]) -> None:
    async with asking(tmp_path) as (rig, searcher):
        await ask(rig)
        searcher.confirmed, searcher.more = "", more
        assert await ask(rig) == "none"
        assert list(rig.gateway.answer_cache.entries("assistant")) == []


async def test_passages_that_do_not_fit_the_prompt_are_not_compared(tmp_path: Path) -> None:
    async with asking(tmp_path) as (rig, searcher):
        searcher.found = [passage("c1"), passage("c2", "x" * 1900)]
        assert await ask(rig) == "none"
        assert [one.chunk for one in cached_entry(rig).passages] == ["c1"]
        searcher.confirmed = ""
        assert await ask(rig) == "exact"


async def test_an_unconfirmable_hit_is_kept_but_not_served(tmp_path: Path) -> None:
    async with asking(tmp_path) as (rig, searcher):
        await ask(rig)
        searcher.confirmed, searcher.away = "", True
        reply = await rig.chat(messages=[{"role": "user", "content": QUESTION}])
        assert (reply.status, json.loads(reply.body)["error"]["code"]) == (503, "grounding_unavailable")
        searcher.away = False
        assert await ask(rig) == "exact" and rig.models["one"].counted == 1


async def test_each_person_sharing_an_answer_has_their_own_confirmed_state(tmp_path: Path) -> None:
    async with asking(tmp_path) as (rig, searcher):
        await ask(rig)
        call_as(rig, "ben")
        searcher.asked.clear()
        searcher.confirmed, searcher.state = "", "15 ben"
        assert await ask(rig) == "exact"
        assert searcher.asked[0][1]["since"]["state"] == "10 x", "as it was for who it was made for"
        searcher.asked.clear()
        call_as(rig, "ana")
        searcher.confirmed = "16 x"
        assert await ask(rig) == "exact"
        assert searcher.asked[0][1]["since"]["state"] == "10 x"
        searcher.asked.clear()
        call_as(rig, "ben")
        searcher.confirmed = "15 ben"
        assert await ask(rig) == "exact"
        assert searcher.asked[0][1]["since"]["state"] == "15 ben"
        call_as(rig, "ana")
        searcher.confirmed = "16 x"
        assert await ask(rig) == "exact"
        entry = cached_entry(rig)
        assert entry.states == {"ben": "15 ben", "ana": "16 x"}
        assert entry.state("cy") == "16 x", "the last"
        for number in range(2 * MAX_STATES):
            entry.confirm_for(f"p{number}", "17 x")
        assert len(entry.states) == MAX_STATES and "ana" not in entry.states


async def test_a_killed_source_is_not_searched_and_returns_as_another_state(tmp_path: Path) -> None:
    async with asking(tmp_path) as (rig, searcher):
        await ask(rig)
        live: Any = rig.gateway.live
        searcher.asked.clear()
        live.policy = dataclasses.replace(live.policy, kills=frozenset({"source/rules"}))
        assert await ask(rig) == "exact"
        assert searcher.asked[0][1]["since"]["sources"] == ["handbook"]


async def test_a_kill_or_clear_during_confirmation_applies_to_that_call(tmp_path: Path) -> None:
    async with asking(tmp_path) as (rig, searcher):
        live: Any = rig.gateway.live

        def change(**changes: Any) -> None:
            live.policy = dataclasses.replace(live.policy, number=live.policy.number + 1, **changes)

        await ask(rig)
        searcher.meanwhile = lambda: change(cleared={"assistant": 1})
        assert await ask(rig) == "none" and rig.models["one"].counted == 2
        searcher.meanwhile = lambda: change(groups={"ana": "lab"})
        assert await ask(rig) == "none" and rig.models["one"].counted == 3
        searcher.meanwhile = lambda: change(kills=frozenset({"workload/assistant"}))
        reply = await rig.chat(messages=[{"role": "user", "content": QUESTION}])
        assert json.loads(reply.body)["error"]["code"] == "killed" and rig.models["one"].counted == 3


async def test_another_worker_continues_from_the_confirmed_state(tmp_path: Path) -> None:
    async with asking(tmp_path, keep=Keep(content="full", seconds=300)) as (rig, _):
        link = AnswerLink(rig.gateway, Home(tmp_path))
        sent: list[bytes] = []
        link.send_frame = lambda data: not sent.append(data)  # type: ignore[method-assign, func-returns-value]
        await ask(rig)
        parcel = msgspec.msgpack.decode(sent[0], type=StoreMessage)
        assert isinstance(parcel.kept, StoredAnswer)
        rig.gateway.answer_cache._clear("assistant")
        assert accept_answer(rig.gateway, parcel.kept)
        assert (cached_entry(rig).query, cached_entry(rig).states) == (QUESTION, {"ana": "10 x"})
        before = [*msgspec.to_builtins(parcel.kept)][:-3]
        old = msgspec.convert(before, type=StoredAnswer, strict=False)
        rig.gateway.answer_cache._clear("assistant")
        assert not accept_answer(rig.gateway, old), "of a version that did not tell"
