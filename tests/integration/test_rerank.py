"""Passages of a search put in order by a deployment, through a real gateway: metered, in time, only what is allowed.

The scripted model puts documents in order by how many words of the question they have.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.index_world import IndexWorld, WordHashEmbedder
from tests.integration.gates import hold_answers
from tests.integration.gateway_stack import Stack, blueprint, deployment, installation, scripted_upstream, workload

from groundplan.blueprint.model import Rates, Rerank
from groundplan.core.ids import new_id
from groundplan.core.money import PICO
from groundplan.knowledge.gateway_client import ServiceKey
from groundplan.knowledge.retrieval.rerank import DeployedReranker, Reranker
from groundplan.knowledge.retrieval.search import Search, SearchResult
from groundplan.knowledge.retrieval.wire import SearchRequest
from groundplan.ledger.model import Settlement
from groundplan.testing.database import Database
from groundplan.testing.journal import read_segment
from groundplan.testing.scripted import Script, ScriptedModel

RULE = Rerank(workload="index", deployment="sorter", passages=3, within_ms=3000)
QUERY = "zebra leave portal weeks"
FILES = {
    "a.md": "# A\n\nzebra leave portal zebra leave portal\n",
    "b.md": "# B\n\nWhoever looks after the animals of the park, be it a lion or a zebra, asks for leave in the "
    "portal of the staff, and does so some weeks ahead, so that somebody else can be found to feed them meanwhile.\n",
    "c.md": "# C\n\nA portal is built in a few weeks by the staff of the portal.\n",
    "d.md": "# D\n\nLeave the portal of the house.\n",
    "hr/e.md": "# E\n\nzebra leave portal weeks salary\n",
    "hr/.readers": "hr\n",
}


@dataclass
class Setup:
    world: IndexWorld
    stack: Stack
    model: ScriptedModel
    wrap: Callable[[Reranker], Reranker] = lambda one: one

    def __post_init__(self) -> None:
        self.again()

    def again(self) -> None:
        """A search that remembers nothing of who was away."""
        self.search = Search(
            self.world.pool,
            WordHashEmbedder(),
            self.world.editions,
            reranker=lambda rule: self.wrap(DeployedReranker(self.stack.home, rule)),
        )

    async def ask(self, rule: Rerank | None = RULE, **more: Any) -> SearchResult:
        asked = {"k": 20, "max_bytes": 1 << 20, "context": 0, **more}
        request = SearchRequest(workload="w", person=None, query=QUERY, sources=["s"], rerank=rule, **asked)
        return await asyncio.to_thread(self.search.answer, request)

    def spent(self) -> list[int]:
        """Picodollars of each call that is settled."""
        found = [entry.record for path in self.stack.home.journal.glob("*/*.seg") for entry in read_segment(path)[0]]
        return [record.cost for record in found if isinstance(record, Settlement)]


@pytest.fixture
async def setup(database: Database, tmp_path: Path) -> AsyncIterator[Setup]:
    world = IndexWorld(database, tmp_path / "docs")
    (world.folder / "hr").mkdir()
    for name, text in FILES.items():
        (world.folder / name).write_text(text)
    async with scripted_upstream("sorter") as (model, port), installation(database, tmp_path) as stack:
        places = [
            deployment("chat", port),
            deployment("sorter", port, kind="rerank", rates=Rates(input=PICO, output=0), first_token_ms=20_000),
        ]
        stack.apply(blueprint(1, places, [workload("index", ["chat"], also=["sorter"])], limit=PICO))
        stack.start()
        await stack.wait_until_ready()
        ServiceKey(str(new_id()), "index", stack.key("index")).write(stack.home)
        (stack.home.run / "up.json").write_text(json.dumps({"gateway": f"http://127.0.0.1:{stack.port}/v1"}))
        await asyncio.to_thread(world.ingest)
        await asyncio.to_thread(world.wait_until_followed)
        try:
            yield Setup(world, stack, model)
        finally:
            world.close()


def paths(result: SearchResult) -> list[str]:
    return [one.path for one in result.passages]


async def test_a_deployment_puts_the_best_in_order_and_is_paid_for_it(setup: Setup) -> None:
    plain = await setup.ask(None)
    assert (paths(plain)[0], plain.steps, setup.model.counted) == ("a.md", (), 0)
    assert sorted(paths(plain)) == ["a.md", "b.md", "c.md", "d.md"]
    found = await setup.ask()
    (step,) = found.steps
    assert (step.name, step.deployment, step.passages, step.skipped) == ("rerank", "sorter", 3, "")
    assert paths(found)[0] == "b.md", "it has all the words"
    assert paths(found)[3:] == paths(plain)[3:], "what was not sent stays behind"
    assert [one.score for one in found.passages] == sorted((one.score for one in found.passages), reverse=True)
    assert found.confidence == plain.confidence
    assert setup.model.counted == 1
    assert setup.model.last is not None
    sent = json.loads(setup.model.last.body)
    assert (sent["query"], len(sent["documents"])) == (QUERY, 3)
    assert not any("salary" in text for text in sent["documents"]), "what nobody may read is not sent anywhere"
    words = len(QUERY.split()) + sum(len(text.split()) for text in sent["documents"])
    deadline = time.monotonic() + 30
    while not (spent := setup.spent()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert spent == [words * 10**6], "a dollar for a million tokens"
    # below the floor nothing is given, so nothing is put in order
    assert (await setup.ask(floor=1.0)).abstained
    assert setup.model.counted == 1


async def test_late_or_broken_it_leaves_the_order_and_the_answer_says_so(setup: Setup) -> None:
    plain = await setup.ask(None)
    hasty = msgspec.structs.replace(RULE, within_ms=200)
    gate = hold_answers(setup.model)
    late = await setup.ask(hasty)  # the model does not answer at all
    assert (paths(late), late.steps[0].skipped) == (paths(plain), "no answer came within 0.2 s")
    assert late.steps[0].ms >= 200
    for _ in range(5):  # the machine may be busy elsewhere; once is proof that nothing waits
        again = await setup.ask(hasty)
        assert (paths(again), again.steps[0].skipped) == (paths(plain), late.steps[0].skipped)
        if again.steps[0].ms < 200:
            break
    assert again.steps[0].ms < 200 and setup.model.counted <= 1, "it is not waited for at every question"
    setup.model.script = Script(mode="malformed")
    for _ in range(3):
        gate.release()
    broken = await setup.ask()
    assert "upstream_failed" in broken.steps[0].skipped
    assert paths(broken) == paths(plain)
    unknown = await setup.ask(msgspec.structs.replace(RULE, workload="other"))
    assert "no key for workload other" in unknown.steps[0].skipped
    (setup.stack.home.run / "up.json").unlink()
    setup.again()
    assert "no gateway" in (await setup.ask()).steps[0].skipped


class Meanwhile:
    """Does something while the passages are away."""

    def __init__(self, reranker: Reranker, what: Callable[[], None]) -> None:
        self._reranker, self._what = reranker, what

    def order(self, query: str, texts: Sequence[str]) -> list[int]:
        order = self._reranker.order(query, texts)
        self._what()
        return order


async def test_what_is_revoked_while_the_passages_are_away_is_not_given(setup: Setup) -> None:
    def revoke() -> None:
        (setup.world.folder / ".readers").write_text("hr\n")
        (setup.world.folder / "hr/.readers").write_text("public\n")
        setup.world.ingest()

    setup.wrap = lambda one: Meanwhile(one, revoke)
    found = await setup.ask()
    assert setup.model.counted == 1
    assert (found.passages, found.steps[0].skipped) == ([], "")
    setup.wrap = lambda one: one
    assert paths(await setup.ask()) == ["hr/e.md"]
