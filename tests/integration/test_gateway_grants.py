"""Grants at real workers with a real database: groups are live, a blueprint takes a grant away, nothing goes around."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

import pytest
from openai import AsyncOpenAI
from tests.integration.gateway_stack import (
    GROUNDING,
    Reply,
    Stack,
    blueprint,
    deployment,
    installation,
    scripted_upstream,
    workload,
)

from groundplan.blueprint.model import Deployment, Grant
from groundplan.core.ids import new_id
from groundplan.testing.database import Database
from groundplan.testing.scripted import Script

CHAT: Final = "/v1/chat/completions"
HR = Grant(name="hr", to=["hr"])


@pytest.fixture
async def place(database: Database, tmp_path: Path) -> AsyncIterator[tuple[Stack, Deployment]]:
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        model.script = Script(tokens=5)
        yield stack, deployment("one", port)


async def served(stack: Stack, place: Deployment, number: int = 1, **more: object) -> None:
    owners = {"business": ["bo@acme.example"]}
    works = [workload("assistant", ["one"], owners=owners, **more), workload("open", ["one"])]
    stack.apply(blueprint(number, [place], works))
    if not stack.workers:
        stack.start()
    await stack.wait_until_ready(number)


def group(stack: Stack, name: str, *people: str, inner: str | None = None) -> str:
    made = str(new_id())
    stack.policy("group", name, "INSERT INTO people_group (id, name, type) VALUES (%s, %s, 'group')", made, name)
    for person in people:
        join(stack, made, person)
    if inner is not None:
        stack.policy(
            "membership", name,
            "INSERT INTO membership (id, group_id, member_group_id) VALUES (gen_random_uuid(), %s, %s)", made, inner,
        )  # fmt: skip
    return made


def join(stack: Stack, made: str, person: str) -> None:
    stack.policy(
        "membership", made,
        "INSERT INTO membership (id, group_id, person_id) VALUES (gen_random_uuid(), %s, %s)", made, person,
    )  # fmt: skip


async def until(ask: Callable[[], Awaitable[Reply]], status: int, code: str = "", seconds: float = 30.0) -> Reply:
    end = time.monotonic() + seconds
    while True:
        reply = await ask()
        if reply.status == status and (status == 200 or reply.code == code):
            return reply
        assert time.monotonic() < end, (reply.status, reply.body)
        await asyncio.sleep(0.05)


async def test_joining_and_leaving_a_group_changes_access(place: tuple[Stack, Deployment]) -> None:
    stack, one = place
    ana, ben = stack.person("ana@acme.example"), stack.person("ben@acme.example")
    hr = group(stack, "hr", inner=group(stack, "recruiting", ana))
    await served(stack, one, use=[HR])
    by_ana, by_ben, by_nobody = stack.key(person=ana), stack.key(person=ben), stack.key()
    assert (await stack.chat(by_ana)).status == 200, "through a group in the group"
    for key in (by_ben, by_nobody):
        reply = await stack.chat(key)
        assert (reply.status, reply.code) == (403, "use_not_granted")
        assert "bo@acme.example" in reply.json["error"]["hint"]
    assert (await stack.chat(stack.key("open"))).status == 200, "a workload without grants is as it was"
    join(stack, hr, ben)
    await until(lambda: stack.chat(by_ben), 200)
    stack.policy("membership", "hr", "DELETE FROM membership WHERE person_id = %s", ben)
    await until(lambda: stack.chat(by_ben), 403, "use_not_granted")
    assert (await stack.chat(by_ana)).status == 200


async def test_a_blueprint_gives_and_takes_grants(place: tuple[Stack, Deployment]) -> None:
    stack, one = place
    ana = stack.person("ana@acme.example")
    group(stack, "hr", ana)
    await served(stack, one)
    key, nobody = stack.key(person=ana), stack.key()
    assert (await stack.chat(nobody)).status == 200
    await served(stack, one, 2, use=[HR])
    assert (await stack.chat(nobody)).code == "use_not_granted"
    assert (await stack.chat(key)).status == 200, "a group that was never asked about is known when it is needed"
    await served(stack, one, 3, use=[Grant(name="ben", to=["ben@acme.example"])])
    assert (await stack.chat(key)).code == "use_not_granted"
    await served(stack, one, 4, use=[Grant(name="hr", to=["hr"], until="2026-01-01")])
    assert (await stack.chat(key)).code == (await stack.chat(nobody)).code == "use_not_granted"


async def test_keys_act_for_others_only_with_a_grant_on_both_sides(
    place: tuple[Stack, Deployment],
) -> None:
    stack, one = place
    ana, ben = stack.person("ana@acme.example"), stack.person("ben@acme.example")
    group(stack, "hr", ana)
    both = Grant(name="use", to=["hr", "ben@acme.example"])
    await served(stack, one, use=[both], act_for_others=[HR])
    by_ana, by_ben, application = (
        stack.key(person=ana, acts=True),
        stack.key(person=ben, acts=True),
        stack.key(acts=True),
    )

    def asking(key: str, whom: str) -> Awaitable[Reply]:
        return stack.chat(key, headers={"groundplan_on_behalf_of": f"{whom}@acme.example"})

    assert (await asking(by_ana, "ben")).status == 200
    assert (await stack.chat(by_ben)).status == 200
    assert (await asking(by_ben, "ben")).status == 200, "that is oneself"
    for key in (by_ben, application):
        reply = await asking(key, "ana")
        assert (reply.status, reply.code) == (403, "act_for_others_not_granted")
    stack.person("zoe@acme.example")
    await until(lambda: asking(by_ana, "zoe"), 403, "use_not_granted")
    stack.policy("membership", "hr", "DELETE FROM membership WHERE person_id = %s", ana)
    await until(lambda: asking(by_ana, "ben"), 403, "act_for_others_not_granted")


async def test_no_surface_bypasses_a_grant(place: tuple[Stack, Deployment]) -> None:
    """Batches, files, search, outcomes and a repeated Idempotency-Key are refused as calls are."""
    stack, one = place
    ana = stack.person("ana@acme.example")
    group(stack, "hr", ana)
    await served(stack, one, use=[HR], grounding=GROUNDING)
    nobody = stack.key()
    for method, path, body in (
        ("POST", "/api/knowledge/search", {"query": "x"}),
        ("POST", "/api/outcomes", {"call_id": str(new_id()), "accepted": True}),
        ("POST", "/v1/embeddings", {"model": "auto", "input": "x"}),
        ("POST", "/v1/batches", {"input_file_id": "f", "endpoint": "/v1/embeddings", "completion_window": "24h"}),
        ("GET", "/v1/files", None),
    ):
        data = json.dumps(body).encode() if body is not None else b""
        reply = await stack.ask(method, path, nobody, data, content_type="application/json")
        assert reply.status == 403 and "use_not_granted" in reply.body.decode(), (path, reply.body)


async def test_a_replayed_answer_is_refused_after_the_grant_ended(place: tuple[Stack, Deployment]) -> None:
    stack, one = place
    ana = stack.person("ana@acme.example")
    group(stack, "hr", ana)
    await served(stack, one, use=[HR])
    key = stack.key(person=ana)
    again = {"idempotency_key": "one"}
    assert (await stack.chat(key, headers=again)).status == 200
    assert (await stack.chat(key, headers=again)).headers.get("groundplan-replay") == "true"
    stack.policy("membership", "hr", "DELETE FROM membership WHERE person_id = %s", ana)
    await until(lambda: stack.chat(key, headers=again), 403, "use_not_granted")


async def test_batch_lines_stop_when_their_persons_grant_ends(database: Database, tmp_path: Path) -> None:
    async with scripted_upstream("one") as (model, port), installation(database, tmp_path) as stack:
        model.script = Script(tokens=5, latency_ms=300)
        ana = stack.person("ana@acme.example")
        group(stack, "hr", ana)
        await served(stack, deployment("one", port), use=[HR], batch_concurrent=1)
        body = {"model": "auto", "max_tokens": 20, "messages": [{"role": "user", "content": "a"}]}
        lines = [{"custom_id": f"{n}", "method": "POST", "url": CHAT, "body": body} for n in range(30)]
        key = stack.key(person=ana)
        async with AsyncOpenAI(base_url=f"http://127.0.0.1:{stack.port}/v1", api_key=key, max_retries=0) as client:
            data = "\n".join(json.dumps(line) for line in lines).encode()
            file = await client.files.create(file=("in.jsonl", data), purpose="batch")
            await client.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
            async with asyncio.timeout(60):
                while not model.counted:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            stack.policy("membership", "hr", "DELETE FROM membership WHERE person_id = %s", ana)
            async with asyncio.timeout(60):
                while stack.sql("SELECT status FROM batch") == [("in_progress",)]:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
        ((refused,),) = stack.sql("SELECT count(*) FROM batch_line WHERE NOT ok")
        assert 0 < model.counted < len(lines)
        assert refused == len(lines) - model.counted
