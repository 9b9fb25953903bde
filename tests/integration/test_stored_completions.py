"""Stored chat completions on a real gateway, by OpenAI's client: found, listed, changed and deleted by their key."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError
from tests.integration.gateway_stack import Stack, blueprint, deployment, installation, scripted_upstream, workload
from tests.integration.patient import RetryingOpenAIHttpClient

from groundplan.blueprint.model import Keep
from groundplan.core.audit.keys import create_keys
from groundplan.core.errors import Invalid
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.gateway.surfaces.chat import sealed_store
from groundplan.gateway.surfaces.chat.sealed_store import SealedCompletions, StoredCompletion
from groundplan.ledger import completion_store
from groundplan.ledger.completion_store import Row
from groundplan.ledger.stored_owner import Owner
from groundplan.testing.database import Database
from groundplan.testing.scripted import ScriptedModel

PARTS: Any = [{"type": "text", "text": "What is it?"}]
ASKED: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": PARTS}]


@dataclass
class Setup:
    stack: Stack
    model: ScriptedModel

    def client(self, key: str, person: str = "") -> AsyncOpenAI:
        """A client with this key, which acts for the person with this address."""
        return AsyncOpenAI(
            base_url=f"http://127.0.0.1:{self.stack.port}/v1",
            api_key=key,
            max_retries=0,
            default_headers={"groundplan-on-behalf-of": person} if person else None,
            http_client=RetryingOpenAIHttpClient(),
        )

    def count(self) -> int:
        found: int = self.stack.sql("SELECT count(*) FROM stored_completion")[0][0]
        return found


@pytest.fixture
async def setup(database: Database, tmp_path: Path) -> AsyncIterator[Setup]:
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        keeper = workload("keeper", ["one"], keep=Keep(content="full", seconds=3600))
        redacts = workload("redacts", ["one"], keep=Keep(content="redacted", seconds=3600))
        stack.apply(blueprint(1, [deployment("one", port)], [keeper, redacts, workload("plain", ["one"])]))
        stack.start()
        await stack.wait_until_ready()
        yield Setup(stack, model)


async def create_completion(client: AsyncOpenAI, topic: str, *, stream: bool) -> tuple[str, str]:
    """(id, text) of a completion that is stored."""
    asked: Any = {"model": "auto", "messages": ASKED, "store": True, "metadata": {"topic": topic}}
    if not stream:
        whole = await client.chat.completions.create(**asked)
        assert whole.model_extra is not None and whole.model_extra["groundplan"]["store"] is True
        return whole.id, whole.choices[0].message.content or ""
    id, text = "", ""
    facts: dict[str, Any] = {}
    async for chunk in await client.chat.completions.create(**asked, stream=True):
        id, facts = chunk.id, (chunk.model_extra or {}).get("groundplan", facts)
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
    assert facts["store"] is True
    return id, text


async def test_a_completion_is_found_listed_changed_and_deleted_by_its_own_key_only(setup: Setup) -> None:
    key, other = setup.stack.key("keeper"), setup.stack.key("keeper")
    async with setup.client(key) as client, setup.client(other) as stranger:
        mine, theirs = client.chat.completions, stranger.chat.completions
        one, text = await create_completion(client, "a", stream=False)
        two, streamed = await create_completion(client, "b", stream=True)
        sealed = "SELECT sealed LIKE 'sealed:%%', workload, deployment, model FROM stored_completion"
        assert setup.stack.sql(sealed) == [(True, "keeper", "one", "up-one")] * 2
        for id, said in ((one, text), (two, streamed)):
            found = await mine.retrieve(id)
            assert (found.id, found.choices[0].message.content) == (id, said) and found.usage is not None
            assert found.choices[0].finish_reason == "stop" and "groundplan" not in (found.model_extra or {})
        assert [each.id async for each in mine.list(limit=1)] == [one, two], "page by page"
        newest = await mine.list(order="desc")
        assert [each.id for each in newest.data] == [two, one]
        assert [each.id async for each in mine.list(metadata={"topic": "b"})] == [two]
        assert [each.id async for each in mine.list(model="up-one", metadata={"topic": "a"})] == [one]
        assert [each.id async for each in mine.list(model="another")] == []
        told = [message async for message in mine.messages.list(one)]
        assert [(m.role, m.content, m.content_parts is not None) for m in told] == [
            ("system", "Be brief.", False), ("user", None, True),
        ]  # fmt: skip
        changed = await mine.update(one, metadata={"topic": "c"})
        assert changed.metadata == {"topic": "c"} and (await mine.retrieve(two)).metadata == {"topic": "b"}
        assert [each.id async for each in mine.list(metadata={"topic": "c"})] == [one]
        for refused in (
            theirs.retrieve(one), theirs.update(one, metadata={}), theirs.delete(one), theirs.messages.list(one),
            theirs.list(after=one),
        ):  # fmt: skip
            with pytest.raises(NotFoundError):
                await refused
        assert [each async for each in theirs.list()] == []
        assert (await mine.delete(one)).deleted is True
        with pytest.raises(NotFoundError):
            await mine.retrieve(one)
        with pytest.raises(BadRequestError):
            await mine.update(two, metadata={"a": 1})  # type: ignore[dict-item]
        asked: Any = {"model": "auto", "messages": ASKED, "store": True}
        setup.model.counted = int(two.removeprefix("chatcmpl-")) - 1
        again = await mine.create(**asked)
        assert again.id == two and again.model_extra is not None
        assert again.model_extra["groundplan"]["store"] is False, "nothing is put in the place of what is there"
        elsewhere = await theirs.create(**asked)
        assert elsewhere.model_extra is not None and elsewhere.model_extra["groundplan"]["store"] is True
    wrong = await setup.stack.ask("PUT", "/v1/chat/completions", key)
    assert (wrong.status, wrong.code) == (405, "method_not_allowed")
    long = await setup.stack.ask("GET", f"/v1/chat/completions?limit={'1' * 5000}", key)
    assert (long.status, long.code) == (400, "limit_range")
    for name in ("model", "after"):
        odd = await setup.stack.ask("GET", f"/v1/chat/completions?{name}=a%00b", key)
        assert (odd.status, odd.code) == (400, "value_unsupported"), "it is no fault of the database's"


async def test_a_key_that_acts_for_several_people_finds_each_ones_completions_for_that_person_only(
    setup: Setup,
) -> None:
    ana, ben = "ana@acme.example", "ben@acme.example"
    for email in (ana, ben):
        setup.stack.person(email)
    key = setup.stack.key("keeper", acts=True)
    made = {}
    for person in (ana, ben, ""):
        async with setup.client(key, person) as client:
            made[person], _ = await create_completion(client, "a", stream=False)
    for person, own in made.items():
        async with setup.client(key, person) as client:
            mine = client.chat.completions
            assert [each.id async for each in mine.list()] == [own]
            for other in made.values():
                if other == own:
                    continue
                for refused in (
                    mine.retrieve(other), mine.update(other, metadata={}), mine.messages.list(other),
                    mine.delete(other), mine.list(after=other),
                ):  # fmt: skip
                    with pytest.raises(NotFoundError):
                        await refused
            assert (await mine.update(own, metadata={"topic": "b"})).metadata == {"topic": "b"}
    for person, own in made.items():
        async with setup.client(key, person) as client:
            assert (await client.chat.completions.delete(own)).deleted is True


async def test_what_was_stored_is_found_by_the_successor_of_its_key(setup: Setup) -> None:
    first, second = setup.stack.key("keeper"), setup.stack.key("keeper")
    async with setup.client(first) as client:
        id, _ = await create_completion(client, "a", stream=False)
    digests = [hashlib.sha256(key.encode()).digest() for key in (first, second)]
    family = setup.stack.sql("SELECT id FROM api_key WHERE hash = %s", digests[0])[0][0]
    setup.stack.policy("key", str(family), "UPDATE api_key SET family = %s WHERE hash = ANY(%s)", family, digests)
    async with setup.client(second) as client:
        async with asyncio.timeout(30):
            while not (await client.chat.completions.list()).data:  # noqa: ASYNC110 -- until its worker knows of it
                await asyncio.sleep(0.05)
        assert (await client.chat.completions.retrieve(id)).id == id


async def test_nothing_is_stored_unless_content_is_kept_in_full(setup: Setup) -> None:
    for name, more in (("plain", {"store": True}), ("redacts", {"store": True}), ("keeper", {})):
        body = {"model": "auto", "messages": ASKED, **more}
        reply = await setup.stack.post("/v1/chat/completions", setup.stack.key(name), body)
        assert reply.status == 200 and "store" not in reply.json["groundplan"]
    assert setup.count() == 0
    key = setup.stack.key("keeper")
    reply = await setup.stack.post("/v1/chat/completions", key, {"model": "auto", "messages": ASKED, "store": True})
    assert setup.count() == 1
    with psycopg.connect(setup.stack.database.urls["control"]) as conn:
        assert completion_store.apply_rules(conn, [("keeper", True, 3600)]) == {}
        assert completion_store.apply_rules(conn, [("keeper", False, 3600)]) == {"keeper": 1}
    gone = await setup.stack.ask("GET", f"/v1/chat/completions/{reply.json['id']}", key)
    assert (gone.status, gone.code) == (404, "completion_not_found")


async def test_a_list_returns_a_few_megabytes_per_page_and_continues_after_them(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path)
    home.create()
    create_keys(home)
    person, until = new_id(), datetime.now(UTC) + timedelta(days=1)
    shelf, owner = SealedCompletions(home, database.urls["gateway"]), Owner(person, "keeper", str(person))
    for number in range(7):
        kept = StoredCompletion({"id": f"c-{number}", "said": "x" * 3000}, [], {"odd": str(number % 2)})
        row = Row(new_id(), f"c-{number}", "keeper", person, "one", "m", until, "")  # about 4100 characters, sealed
        assert await shelf.put(row, person, kept)
    read, page = list[int](), completion_store.page

    def watched(*asked: Any, **more: Any) -> list[Row]:
        found = page(*asked, **more)
        read.append(len(found))
        return found

    monkeypatch.setattr(completion_store, "page", watched)
    monkeypatch.setattr(sealed_store, "_BATCH_BYTES", 5000)
    monkeypatch.setattr(sealed_store, "MAX_LISTED_BYTES", 13_000)

    async def listed(**wanted: Any) -> list[list[str]]:
        pages, after, more = list[list[str]](), None, True
        while more:
            found = await shelf.list_page(owner, 5, after=after, **wanted)
            assert found is not None
            pages.append([kept.completion["id"] for kept in found[0]])
            after, more = pages[-1][-1], found[1]
        return pages

    ids = [f"c-{number}" for number in range(7)]
    assert await listed() == [ids[:3], ids[3:6], ids[6:]]
    assert max(read) == 2
    assert await listed(newest_first=True) == [ids[:3:-1], ids[3:0:-1], ids[:1]]
    assert await listed(metadata={"odd": "1"}) == [ids[1::2]]
    monkeypatch.setattr(sealed_store, "MAX_LISTED_BYTES", 1)
    assert await listed() == [[id] for id in ids], "one is told however large it is"
    monkeypatch.setattr(sealed_store, "MAX_SEARCHED", 4)
    with pytest.raises(Invalid, match="none of 4"):
        await shelf.list_page(owner, 5, metadata={"odd": "2"})
    await shelf.close()
