"""Answers that cite: what the passages do not say is flagged in the answer and in its receipt; conflicts and newer
versions are told to the model and to the caller; what rests on another document is not given again from a cache."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from tests.closing import close
from tests.integration.gateway_stack import (
    Stack,
    blueprint,
    deployment,
    installation,
    parse_events,
    scripted_upstream,
    workload,
)
from tests.unit.test_metrics import parse_metrics, total

from groundplan.blueprint.model import Cache, Grounding
from groundplan.core.endpoints import announce
from groundplan.gateway.call.grounding.abstain import NOT_FOUND_TEXT
from groundplan.gateway.http.server import Refusal, Request, Response, Server
from groundplan.ledger.model import Finish
from groundplan.testing.database import Database
from groundplan.testing.journal import read_segment
from groundplan.testing.scripted import Script, ScriptedModel

TEXT = "Staff have 30 days of leave. Five of them may be carried over until March."
PASSAGE = {
    "document": "d1", "path": "handbook/leave.md", "title": "Leave", "source": "handbook", "start_line": 3,
    "end_line": 5, "text": TEXT, "score": 1.0, "chunk": "c1", "version": 7, "start_char": 40,
    "end_char": 40 + len(TEXT),
}  # fmt: skip
CONFLICT = {
    "document": "d1", "path": "handbook/leave.md", "title": "Leave", "source": "handbook",
    "says": "Staff have 30 days of leave.", "other_document": "d2", "other_path": "archive/leave-old.md",
    "other_title": "Leave", "other_source": "archive", "other_says": "Staff have 28 days of leave.",
}  # fmt: skip
NEWER = {
    "document": "d3", "path": "handbook/travel-2021.md", "title": "Travel", "newer_document": "d4",
    "newer_path": "handbook/travel-2024.md", "newer_title": "Travel", "newer_source": "handbook",
}  # fmt: skip
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
GROUNDING = Grounding(sources=["handbook"], floor=0.4)


@dataclass
class Searcher:
    """A search service that says what it is told to, and how near statements are."""

    conflicts: list[dict[str, Any]] = field(default_factory=list)
    newer: list[dict[str, Any]] = field(default_factory=list)
    passages: list[dict[str, Any]] = field(default_factory=lambda: [PASSAGE])
    nearness: float = 0.9
    abstained: bool = False
    away: bool = False
    asked: list[Any] = field(default_factory=list)
    searched: dict[str, Any] = field(default_factory=dict)
    """The last search that it was asked for."""

    async def handle(self, request: Request, response: Response) -> None:
        body = json.loads(request.body)
        if request.target == b"/confirm":
            response.send(200, json.dumps({"readable": body["chunks"]}).encode())
        elif request.target == b"/support":
            self.asked.append(body["asked"])
            if self.away:
                await asyncio.sleep(0.5)
            told = [[self.nearness] * len(places) for _, places in body["asked"]]
            response.send(200, json.dumps({"nearness": told}).encode())
        else:
            self.searched = body
            found = {
                "passages": self.passages, "conflicts": self.conflicts, "newer": self.newer,
                "abstained": self.abstained,
            }  # fmt: skip
            response.send(200, json.dumps(found).encode())


@dataclass
class Scene:
    stack: Stack
    searcher: Searcher
    model: ScriptedModel
    keys: dict[str, str]
    person: str

    async def facts(
        self, text: str, *, stream: bool = False, workload: str = "assistant", **also: Any
    ) -> dict[str, Any]:
        """The `groundplan` object of an answer that says this."""
        self.model.script = Script(say=text)
        more = {"stream": stream, "model": "auto", "max_tokens": 200, **also}
        reply = await self.stack.chat(self.keys[workload], "How many days of leave?", **more)
        assert reply.status == 200, reply.body
        found: dict[str, Any] = parse_events(reply.body)[-2]["groundplan"] if stream else reply.json["groundplan"]
        return found

    async def kept(self, rows: int) -> list[tuple[Any, ...]]:
        """What the receipts have, once so many citations are there."""
        for _ in range(600):
            found = self.stack.sql(
                "SELECT passage, document, version, start_char, supported FROM call_citation ORDER BY call_id, number"
            )
            if len(found) >= rows:
                return found
            await asyncio.sleep(0.1)
        raise AssertionError(f"{len(found)} of {rows} citations were kept")


@pytest.fixture
async def scene(database: Database, tmp_path: Path) -> AsyncIterator[Scene]:
    searcher = Searcher()

    def refuse(refusal: Refusal, *_: object) -> bytes:
        return refusal.code.encode()

    async with scripted_upstream("one") as model, installation(database, tmp_path) as stack:
        cache = Cache(seconds=600, max_bytes=1 << 20, scope="person")
        declared = [
            workload("assistant", ["one"], grounding=GROUNDING),
            workload("cached", ["one"], grounding=GROUNDING, cache=cache),
        ]
        stack.apply(blueprint(1, [deployment("one", model[1])], declared))
        stack.start()
        await stack.wait_until_ready()
        loop = asyncio.get_running_loop()
        server = Server(searcher.handle, refuse, loop)
        listener = await loop.create_server(server.create_connection, "127.0.0.1", 0)
        announce(stack.home, "search", f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}", "token")
        person = stack.person("ana@acme.example")
        keys = {name: stack.key(name, person=person) for name in ("assistant", "cached")}
        yield Scene(stack, searcher, model[0], keys, person)
        await close(listener, server)


async def test_a_citation_that_does_not_support_its_sentence_is_flagged(scene: Scene) -> None:
    for stream in (False, True):
        facts = await scene.facts("Staff have 30 days of leave [1]. Staff have 25 days of leave [1].", stream=stream)
        good, bad = facts["citations"]
        assert (good["supported"], bad["supported"]) == (True, False)
        assert (good["document"], good["version"]) == ("d1", 7)
        assert (good["start_char"], good["end_char"]) == (40, 40 + len("Staff have 30 days of leave."))
        assert facts["sources"][0]["version"] == 7
    assert [row[-1] for row in await scene.kept(4)] == [True, False] * 2
    assert scene.searcher.asked == [], "words decided all of it"
    await left_open(scene)


async def left_open(scene: Scene) -> None:
    """What words leave open is asked by meaning, and never holds an answer up."""
    said = "Nobody has to use up every holiday before spring [1]."
    whole = await scene.facts(said)
    assert whole["citations"][0]["supported"] is None, "the answer does not wait"
    late = await told_late(scene, said + " ", True)
    rows = [row[-1] for row in await scene.kept(6 + late)]
    assert rows[4:] == [True, *[None] * late, True], "the receipt has both"
    scene.searcher.nearness = 0.1
    later = await told_late(scene, said + "  ", False)
    scene.searcher.away = True
    assert (await scene.facts(said + "   ", stream=True))["citations"][0]["supported"] is None
    more = [row[-1] for row in await scene.kept(8 + late + later)][len(rows) :]
    assert more == [*[None] * later, False, None]


async def told_late(scene: Scene, said: str, supported: bool) -> int:
    """Ask until the end of a stream says so. It waits 0.3 s to know, so how often it did not on a busy machine."""
    for late in range(10):
        facts = await scene.facts(said, stream=True)
        if (found := facts["citations"][0]["supported"]) is not None:
            assert found is supported
            return late
    raise AssertionError("meaning is never asked in time")


async def test_model_and_caller_are_told_both_sources_of_a_conflict(scene: Scene) -> None:
    scene.searcher.conflicts, scene.searcher.newer = [CONFLICT], [NEWER]
    facts = await scene.facts("Yes.")
    assert facts["conflicts"] == [CONFLICT] and facts["newer"] == [NEWER]
    assert "citations" not in facts
    assert scene.model.last is not None
    prompt = json.loads(scene.model.last.body)["messages"][0]["content"]
    assert "[1] handbook/leave.md says 'Staff have 30 days of leave.'" in prompt
    assert "archive/leave-old.md says 'Staff have 28 days of leave.'" in prompt
    assert "a newer version exists, handbook/travel-2024.md" in prompt
    (kept,) = [each for each in finishes(scene) if each.call == UUID(facts["call_id"]).bytes]
    assert ([row[0] for row in kept.sources], kept.conflicts) == (["d1"], [("d2", "archive/leave-old.md")])
    await searched_by_tool(scene)
    await not_cached(scene)
    await without_passages(scene)


def finishes(scene: Scene) -> list[Finish]:
    """Of all calls, as the journal has them."""
    paths = sorted(scene.stack.home.journal.glob("*/*.seg"))
    found = [entry.record for path in paths for entry in read_segment(path)[0]]
    return [record for record in found if isinstance(record, Finish)]


async def searched_by_tool(scene: Scene) -> None:
    """An agent that searches is told of both, too, and so is the ledger."""
    used = {"name": "search", "arguments": {"query": "How many days of leave?"}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": used}
    told = await scene.stack.post("/mcp", scene.keys["assistant"], body)
    assert "28 days" in told.json["result"]["content"][1]["text"]
    assert finishes(scene)[-1].conflicts == [("d2", "archive/leave-old.md")]


async def not_cached(scene: Scene) -> None:
    """An answer with another document in it is not given from the cache."""
    scene.searcher.newer = []
    scene.searcher.conflicts = [CONFLICT]
    for _ in range(2):
        assert (await scene.facts("One.", workload="cached"))["cache"] == "none"
    scene.searcher.conflicts = []
    assert (await scene.facts("Two.", workload="cached"))["cache"] == "none"
    assert (await scene.facts("Three.", workload="cached"))["cache"] == "exact", "without a conflict it is kept"


async def without_passages(scene: Scene) -> None:
    """A newer version is told all the same."""
    scene.searcher.passages, scene.searcher.newer = [], [NEWER]
    facts = await scene.facts("Nothing [1].")
    assert facts["newer"] == [NEWER] and facts["sources"] == []
    assert scene.model.last is not None
    assert "travel-2024.md" in json.loads(scene.model.last.body)["messages"][0]["content"]


async def test_searches_without_relevant_passages_are_counted_and_the_model_is_told(scene: Scene) -> None:
    await scene.facts("Staff have 30 days of leave [1].")
    asked = scene.searcher.searched
    assert (asked["workload"], asked["sources"], asked["floor"]) == ("assistant", ["handbook"], 0.4), "as declared"
    assert (asked["query"], asked["person"]) == ("How many days of leave?", scene.person)
    scene.searcher.passages, scene.searcher.abstained = [], True
    assert (await scene.facts("It was won by Norway.", tools=[TOOL]))["abstained"] is True
    assert scene.model.last is not None
    told = json.loads(scene.model.last.body)["messages"][0]
    assert told["role"] == "system" and "in what this person may see. Say that you found nothing" in told["content"]
    assert TEXT not in told["content"]
    scene.searcher.abstained = False
    assert "abstained" not in await scene.facts("Nothing is known of that.")
    told = parse_metrics((await scene.stack.ask("GET", "/metrics", None)).body)[
        "groundplan_gateway_grounded_calls_total"
    ]
    assert [total(told, workload="assistant", result=each) for each in ("found", "abstained", "nothing")] == [1, 1, 1]


async def test_without_relevant_passages_no_answer_is_generated(scene: Scene) -> None:
    """Whatever the model would say: it is not asked, on no surface, and nothing is charged."""
    scene.searcher.passages, scene.searcher.abstained = [], True
    scene.model.script = Script(say="It was won by Norway.")
    key, before = scene.keys["assistant"], scene.model.counted
    message = [{"role": "user", "content": "Who won the cup?"}]
    for stream in (False, True):
        asked = {"model": "auto", "stream": stream}
        chat = await scene.stack.post("/v1/chat/completions", key, {**asked, "messages": message, "n": 2})
        claude = await scene.stack.post("/v1/messages", key, {**asked, "messages": message, "max_tokens": 9})
        response = await scene.stack.post("/v1/responses", key, {**asked, "input": "Who won the cup?", "store": False})
        plain = await scene.stack.post("/v1/completions", key, {**asked, "prompt": "Who won the cup?"})
        for reply in (chat, claude, response, plain):
            assert reply.status == 200, reply.body
            assert b"Norway" not in reply.body and b'"abstained":true' in reply.body, reply.body
        if stream:
            said = [event["choices"] for event in parse_events(chat.body) if event != "[DONE]"]
            assert (
                "".join(one["delta"].get("content") or "" for choices in said for one in choices) == 2 * NOT_FOUND_TEXT
            )
        else:
            assert [one["message"]["content"] for one in chat.json["choices"]] == [NOT_FOUND_TEXT, NOT_FOUND_TEXT]
            assert claude.json["content"][0]["text"] == NOT_FOUND_TEXT and claude.json["stop_reason"] == "end_turn"
            assert response.json["output"][-1]["content"][0]["text"] == NOT_FOUND_TEXT
            assert plain.json["choices"][0]["text"] == NOT_FOUND_TEXT
            facts = chat.json["groundplan"]
            assert (facts["sources"], facts["deployment"], float(facts["cost_usd"])) == ([], None, 0.0)
    assert scene.model.counted == before
    cached = await scene.stack.chat(scene.keys["cached"], "Who won the cup?")
    assert cached.json["choices"][0]["message"]["content"] == NOT_FOUND_TEXT
    scene.searcher.passages, scene.searcher.abstained = [PASSAGE], False
    assert "30 days" in json.dumps(await scene.facts("Staff have 30 days of leave [1].", workload="cached"))
    told = parse_metrics((await scene.stack.ask("GET", "/metrics", None)).body)
    assert total(told["groundplan_gateway_grounded_calls_total"], workload="assistant", result="abstained") == 8
    answered = total(told["groundplan_gateway_calls_total"], workload="assistant", status="ok", deployment="")
    tried = told.get("groundplan_gateway_attempts_total", {})
    assert (answered, total(tried, workload="assistant")) == (8, 0)
    scene.searcher.passages, scene.searcher.abstained = [], True
    body: dict[str, Any] = {"model": "auto", "messages": message, "max_tokens": 9}
    form = {"format": {"type": "json_schema", "schema": {}}}
    for path, more in (
        ("/v1/messages", {"output_config": form}),
        ("/v1/chat/completions", {"structured_outputs": {"json": {}}}),
    ):
        before = scene.model.counted
        reply = await scene.stack.post(path, key, {**body, **more})
        assert (
            reply.status == 200 and NOT_FOUND_TEXT.encode() not in reply.body and scene.model.counted == before + 1
        ), reply.body
