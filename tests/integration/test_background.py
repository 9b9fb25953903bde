"""Responses that nobody waits for, by real workers and OpenAI's official client: made once, followed, cancelled."""

from __future__ import annotations

import asyncio
import html
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError
from openai.types.responses import Response as ResponseObject
from openai.types.responses import ResponseStreamEvent
from tests.integration import node_client
from tests.integration.gateway_stack import (
    Reply,
    Stack,
    blueprint,
    deployment,
    installation,
    scripted_upstream,
    workload,
)
from tests.integration.patient import RetryingOpenAIHttpClient
from tests.integration.sdk_types import OUR_FIELDS, parse_strictly
from tests.integration.test_batch_kill import retry_until_served, run_shipper
from tests.integration.test_responses import RATES, Own

from groundplan.blueprint.model import Guardrails, Keep, Limit, Review
from groundplan.cli.responses import responses_text
from groundplan.console.render import render
from groundplan.core.errors import Exhausted, GroundplanError
from groundplan.core.ids import new_id
from groundplan.core.money import PICO
from groundplan.gateway.background import runner
from groundplan.gateway.http.errors import refusal_body
from groundplan.gateway.http.server import Request, Response, Server
from groundplan.ledger import background_queries, background_store
from groundplan.ledger.background_store import CHANNEL, FOLLOWED
from groundplan.testing.database import Database
from groundplan.testing.scripted import Script, ScriptedModel

KEEP = Keep(content="full", seconds=3600)
OVER = ("completed", "incomplete", "failed", "cancelled")
IN_BACKGROUND: dict[str, Any] = {
    "model": "scripted/chat", "input": "First?", "background": True, "max_output_tokens": 500,
}  # fmt: skip


@dataclass
class Endless:
    """A chat that says a word each 20 ms until nobody listens."""

    begun: int = 0
    left: float = 0
    traced: tuple[bytes, bytes] = (b"", b"")

    async def handle(self, request: Request, response: Response) -> None:
        self.begun += 1
        self.traced = request.headers.get(b"traceparent", b""), request.headers.get(b"tracestate", b"")
        head = response.start(200, b"content-type: text/event-stream\r\n")
        delta = {"choices": [{"index": 0, "delta": {"content": "word "}, "finish_reason": None}]}
        chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", **delta}
        try:
            while True:
                response.write(b"data: %b\n\n" % json.dumps(chunk).encode(), head)
                head = b""
                await asyncio.sleep(0.02)
        finally:
            self.left = time.monotonic()


@dataclass
class Setup:
    stack: Stack
    chat: ScriptedModel
    endless: Endless

    def client(self, key: str) -> AsyncOpenAI:
        url = f"http://127.0.0.1:{self.stack.port}/v1"
        return AsyncOpenAI(base_url=url, api_key=key, max_retries=0, http_client=RetryingOpenAIHttpClient(), timeout=30)

    async def found(self, key: str, id: str) -> ResponseObject:
        """As it is now, of the official client's type."""
        return parse_response(await self.stack.ask("GET", f"/v1/responses/{id}", key))

    async def over(self, key: str, id: str) -> ResponseObject:
        """As it is once it is over."""
        async with asyncio.timeout(60):
            while (now := await self.found(key, id)).status not in OVER:  # noqa: ASYNC110 -- another process makes it
                await asyncio.sleep(0.05)
        return now

    def calls(self) -> list[tuple[Any, ...]]:
        """(status, attempts, all of them settled once) of each call, once the journal was shipped."""
        return self.stack.sql(
            """SELECT c.status, count(a.*), coalesce(sum(a.cost_usd), 0) > 0 FROM call c
               LEFT JOIN attempt a ON a.call_id = c.id GROUP BY c.id, c.status ORDER BY c.id"""
        )


def parse_response(reply: Reply) -> ResponseObject:
    assert reply.status == 200, reply.body
    made: ResponseObject = parse_strictly(ResponseObject, reply.body, our_fields=OUR_FIELDS | {"store"})
    return made


def numbers(events: list[Any]) -> list[int]:
    return [event.sequence_number for event in events]


def output_text(events: list[Any]) -> str:
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")


async def raw_events(setup: Setup, key: str, path: str) -> list[Any]:
    """Each event of a stream, strictly of the official client's types. Asks again where PostgreSQL is away just then,
    as clients do."""
    while (reply := await setup.stack.ask("GET", path, key)).status == 503:
        assert reply.code == "database_unavailable", reply.body
        await asyncio.sleep(0.1)
    assert reply.status == 200, reply.body
    parts = [part for part in reply.body.decode().split("\n\n") if part and not part.startswith(":")]
    return [parse_strictly(ResponseStreamEvent, part.partition("\ndata: ")[2], our_fields=OUR_FIELDS) for part in parts]


@pytest.fixture
async def setup(database: Database, tmp_path: Path) -> AsyncIterator[Setup]:
    own, endless, loop = Own(), Endless(), asyncio.get_running_loop()
    async with AsyncExitStack() as opened:
        ports = []
        for each in (own, endless):
            server = Server(each.handle, refusal_body, loop)
            listener = await loop.create_server(server.create_connection, "127.0.0.1", 0)
            opened.push_async_callback(server.drain, 0.2)
            opened.callback(listener.close)
            ports.append(listener.sockets[0].getsockname()[1])
        chat, port = await opened.enter_async_context(scripted_upstream("chat"))
        stack = await opened.enter_async_context(installation(database, tmp_path))
        places = [
            deployment(
                "chat",
                port,
                rates=RATES,
                accepts=["image"],
                image_tokens=100,
                context_tokens=200_000,
                max_output_tokens=100_000,
            ),
            deployment("own", ports[0], rates=RATES, serves=["responses"]),
            deployment("endless", ports[1], rates=RATES, billing_on_cancel="generated"),
        ]
        names = [place.name for place in places]
        made = [
            workload("keeper", names, keep=KEEP, max_output_tokens=100_000), workload("assistant", names),
            workload("guarded", names, keep=KEEP, guardrails=Guardrails(input={"secrets": "block"})),
            workload("reviewed", names, keep=KEEP, review=Review()),
        ]  # fmt: skip
        stack.apply(blueprint(1, places, made, limit=PICO))
        stack.start(2)
        await stack.wait_until_ready()
        yield Setup(stack, chat, endless)


@pytest.mark.parametrize("model", ["chat", "own"])
async def test_a_background_response_is_acknowledged_made_once_and_found_by_its_key_only(
    setup: Setup, model: str
) -> None:
    key, other = setup.stack.key("keeper"), setup.stack.key("keeper")
    body = IN_BACKGROUND | {"model": f"scripted/{model}", "instructions": "Be short.", "metadata": {"a": "b"}}
    begun = parse_response(await setup.stack.post("/v1/responses", key, body))
    assert begun.status == "queued" and begun.background is True and begun.output == []
    assert begun.instructions == "Be short." and begun.metadata == {"a": "b"}
    made = await setup.over(key, begun.id)
    assert (made.id, made.status, made.background, made.created_at) == (begun.id, "completed", True, begun.created_at)
    assert made.output_text and made.usage is not None and made.usage.output_tokens > 0
    assert made.model_extra is not None and made.model_extra["groundplan"]["store"] is True
    async with setup.client(other) as client:
        for refused in (
            client.responses.retrieve(begun.id),
            client.responses.cancel(begun.id),
            client.responses.delete(begun.id),
            client.responses.retrieve(begun.id, stream=True),
            client.responses.input_items.list(begun.id),
        ):
            with pytest.raises(NotFoundError):
                await refused
    async with setup.client(key) as client:
        after = await client.responses.create(
            model="auto", input="Second?", previous_response_id=begun.id, max_output_tokens=50
        )
        assert after.model_extra is not None and after.model_extra["groundplan"]["deployment"] == model
        items = await client.responses.input_items.list(begun.id)
        assert [item.type for item in items.data] == ["message"]
        assert (await client.responses.cancel(begun.id)).status == "completed", "what is over stays as it is"
        await client.responses.delete(begun.id)
        with pytest.raises(NotFoundError):
            await client.responses.retrieve(begun.id)
    assert setup.stack.sql("SELECT count(*) FROM background_event") == [(0,)]


@pytest.mark.parametrize("model", ["chat", "endless"])
async def test_a_background_response_is_found_for_the_person_it_is_made_for_only(setup: Setup, model: str) -> None:
    for email in ("ana@acme.example", "ben@acme.example"):
        setup.stack.person(email)
    key = setup.stack.key("keeper", acts=True)
    async with setup.client(key) as client:
        ana, ben = (client.with_options(default_headers={"groundplan-on-behalf-of": f"{name}@acme.example"})
                    for name in ("ana", "ben"))  # fmt: skip
        begun = await ana.responses.create(model=f"scripted/{model}", input="a", background=True, max_output_tokens=500)
        if model == "chat":
            async with asyncio.timeout(60):
                while (now := await ana.responses.retrieve(begun.id)).status not in OVER:  # noqa: ASYNC110 -- as clients do
                    await asyncio.sleep(0.05)
            assert now.status == "completed"
        for other in (ben, client):
            for refused in (
                other.responses.retrieve(begun.id),
                other.responses.retrieve(begun.id, stream=True),
                other.responses.input_items.list(begun.id),
                other.responses.cancel(begun.id),
                other.responses.delete(begun.id),
            ):
                with pytest.raises(NotFoundError):
                    await refused
        assert (await ana.responses.retrieve(begun.id)).status in ("queued", "in_progress", "completed")
        await ana.responses.delete(begun.id)


async def test_an_interrupted_stream_resumes_after_any_event(setup: Setup) -> None:
    """By whichever worker: each makes half of them."""
    setup.chat.script = Script(tokens=30, chunk_ms=20)
    key = setup.stack.key("keeper")
    for _ in range(3):
        async with setup.client(key) as client:
            first: list[Any] = []
            async with await client.responses.create(**IN_BACKGROUND, stream=True) as stream:
                async for event in stream:
                    first.append(event)
                    if len(first) == 9:
                        break
        id = first[0].response.id
        assert [event.type for event in first[:3]] == [
            "response.created", "response.queued", "response.in_progress",
        ]  # fmt: skip
        assert numbers(first) == list(range(9))
        async with setup.client(key) as client:
            resumed = await client.responses.retrieve(id, stream=True, starting_after=first[-1].sequence_number)
            rest = [event async for event in resumed]
        assert numbers(rest) == list(range(9, 9 + len(rest))) and rest[-1].type == "response.completed"
        assert output_text(first + rest) == rest[-1].response.output_text
        again = await raw_events(setup, key, f"/v1/responses/{id}?stream=true")
        assert numbers(again) == list(range(9 + len(rest)))
        assert [event.type for event in again] == [event.type for event in first + rest]
        assert all(event.response.id == id for event in again if hasattr(event, "response"))
        last = await raw_events(setup, key, f"/v1/responses/{id}?stream=true&starting_after={rest[-2].sequence_number}")
        assert [event.type for event in last] == ["response.completed"]
        assert await raw_events(setup, key, f"/v1/responses/{id}?stream=true&starting_after=999") == []
    assert setup.chat.counted == 3


async def test_followers_get_the_end_although_postgresql_is_away_meanwhile(setup: Setup) -> None:
    """By whichever worker: who makes it waits for PostgreSQL, too, before its end is told."""
    setup.chat.script = Script(tokens=40, chunk_ms=40)
    key = setup.stack.key("keeper")
    id = parse_response(await setup.stack.post("/v1/responses", key, IN_BACKGROUND)).id
    path = f"/v1/responses/{id}?stream=true"
    async with asyncio.TaskGroup() as group:
        following = [group.create_task(raw_events(setup, key, path)) for _ in range(8)]
        for _ in range(3):
            await asyncio.sleep(0.3)
            setup.stack.sql(
                """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                   WHERE datname = current_database() AND pid <> pg_backend_pid() AND query LIKE '%%background_%%'"""
            )
    for each in following:
        events = each.result()
        assert numbers(events) == list(range(len(events))) and events[-1].type == "response.completed"


async def test_events_are_stored_sooner_while_another_worker_follows(setup: Setup) -> None:
    setup.chat.script = Script(tokens=60, chunk_ms=30)
    key = setup.stack.key("keeper")
    id = parse_response(await setup.stack.post("/v1/responses", key, IN_BACKGROUND)).id
    while (await setup.found(key, id)).status not in OVER:
        setup.stack.sql("SELECT pg_notify(%s, %s)", CHANNEL, FOLLOWED + id)
        await asyncio.sleep(0.3)
    ((parts,),) = setup.stack.sql("SELECT count(*) FROM background_event")
    assert parts > 6, "of two seconds, twice a second would be four or five"
    copy = "SELECT 'resp_elsewhere', workload, owner, key_id, person, said, at, expires_at, sealed, 'in_progress',"
    setup.stack.sql(
        f"""INSERT INTO background_response (id, workload, owner, key_id, person, said, at, expires_at, sealed, status,
              epoch) {copy} gen_random_uuid() FROM background_response"""
    )
    async with await psycopg.AsyncConnection.connect(setup.stack.database.superuser, autocommit=True) as listening:
        await listening.execute(f"LISTEN {CHANNEL}")
        following = asyncio.create_task(raw_events(setup, key, "/v1/responses/resp_elsewhere?stream=true"))
        told = [each.payload async for each in listening.notifies(timeout=20, stop_after=1)]
    assert told == [f"{FOLLOWED}resp_elsewhere"]
    setup.stack.sql("UPDATE background_response SET status = 'cancelled' WHERE id = 'resp_elsewhere'")
    assert [event.type for event in await following][-1] == "response.failed"


async def test_a_call_in_the_background_is_part_of_its_callers_trace(setup: Setup) -> None:
    key, trace = setup.stack.key("keeper"), "0af7651916cd43dd8448eb211c80319c"
    sent = {"traceparent": f"00-{trace}-b7ad6b7169203331-01", "tracestate": "vendor=1"}
    body = IN_BACKGROUND | {"model": "scripted/endless"}
    begun = parse_response(await setup.stack.post("/v1/responses", key, body, **sent))
    async with asyncio.timeout(30):
        while not setup.endless.begun:  # noqa: ASYNC110 -- another process makes it
            await asyncio.sleep(0.01)
    parent, state = setup.endless.traced
    assert (parent[3:35].decode(), parent[53:], state) == (trace, b"01", b"vendor=1")
    await setup.stack.post(f"/v1/responses/{begun.id}/cancel", key, {})


async def test_cancelling_ends_the_upstream_call_and_is_billed_as_declared(setup: Setup) -> None:
    key = setup.stack.key("keeper")
    body = IN_BACKGROUND | {"model": "scripted/endless", "max_output_tokens": 4000}
    taken = []
    async with run_shipper(setup.stack):
        for number in range(1, 7):
            begun = parse_response(await setup.stack.post("/v1/responses", key, body))
            async with asyncio.timeout(30):
                while setup.endless.begun < number:  # noqa: ASYNC110 -- another process makes it
                    await asyncio.sleep(0.01)
            assert (await setup.found(key, begun.id)).status == "in_progress"
            await asyncio.sleep(0.2)
            setup.endless.left, asked = 0, time.monotonic()
            assert (
                parse_response(await setup.stack.post(f"/v1/responses/{begun.id}/cancel", key, {})).status
                == "cancelled"
            )
            async with asyncio.timeout(10):
                while not setup.endless.left:  # noqa: ASYNC110 -- another process makes it
                    await asyncio.sleep(0.005)
            taken.append(setup.endless.left - asked)
        assert min(taken) < 0.1, taken
        assert (await setup.found(key, begun.id)).status == "cancelled"
        events = await raw_events(setup, key, f"/v1/responses/{begun.id}?stream=true")
        assert (events[-1].type, events[-1].response.status) == ("response.failed", "cancelled")
        async with asyncio.timeout(30):
            while len(calls := setup.calls()) < 6:  # noqa: ASYNC110 -- another process ships it
                await asyncio.sleep(0.1)
    assert calls == [("cancelled", 1, True)] * 6, "what was generated, once"


@pytest.mark.parametrize("ended", ["cancelled", "deleted"])
async def test_the_worker_that_makes_a_response_is_told_of_its_cancellation(setup: Setup, ended: str) -> None:
    key = setup.stack.key("keeper")
    body = IN_BACKGROUND | {"model": "scripted/endless", "max_output_tokens": 4000}
    begun = parse_response(await setup.stack.post("/v1/responses", key, body))
    url = setup.stack.database.urls["control"]
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as listening:
        await listening.execute(f"LISTEN {CHANNEL}")
        if ended == "cancelled":
            await setup.stack.post(f"/v1/responses/{begun.id}/cancel", key, {})
        else:
            await setup.stack.ask("DELETE", f"/v1/responses/{begun.id}", key)
        told = [each.payload async for each in listening.notifies(timeout=20, stop_after=1)]
    assert told == [begun.id]


async def test_a_response_that_could_not_be_retrieved_is_refused(setup: Setup) -> None:
    key, bare = setup.stack.key("keeper"), setup.stack.key("assistant")
    for whose, more, headers in (
        (bare, {}, {}),
        (setup.stack.key("guarded"), {}, {}),
        (setup.stack.key("reviewed"), {}, {}),
        (key, {"store": False}, {}),
        (key, {}, {"idempotency_key": "once"}),
    ):
        refused = await setup.stack.post("/v1/responses", whose, IN_BACKGROUND | more, **headers)
        assert (refused.status, refused.code) == (400, "field_unsupported"), refused.body
        assert refused.json["error"]["field"] == "background"
    unknown = await setup.stack.post("/v1/responses", key, IN_BACKGROUND | {"model": "none"})
    assert unknown.status == 404
    gone = await setup.stack.post("/v1/responses", key, IN_BACKGROUND | {"previous_response_id": "resp_none"})
    assert (gone.status, gone.code) == (404, "response_not_found")
    begun = parse_response(await setup.stack.post("/v1/responses", key, IN_BACKGROUND))
    for query in ("stream=true&starting_after=x", "stream=true&starting_after=1e3"):
        wrong = await setup.stack.ask("GET", f"/v1/responses/{begun.id}?{query}", key)
        assert (wrong.status, wrong.code) == (400, "starting_after")
    assert setup.stack.sql("SELECT count(*) FROM background_response") == [(1,)]
    async with setup.client(key) as client:
        with pytest.raises(BadRequestError):
            await client.responses.input_tokens.count(model="auto", input="x", extra_body={"background": True})


async def test_a_response_refused_when_it_is_made_fails_with_the_reason(setup: Setup) -> None:
    """Budgets and limits are asked when it is made, and an upstream fails as it fails any call."""
    key = setup.stack.key("keeper")
    dear = IN_BACKGROUND | {"max_output_tokens": 100_000, "instructions": "x" * 9000}  # beyond the 1 USD that there is
    begun = parse_response(await setup.stack.post("/v1/responses", key, dear))
    failed = await setup.over(key, begun.id)
    assert failed.status == "failed" and failed.error is not None and failed.error.code == "rate_limit_exceeded"
    assert failed.model_extra is not None and failed.model_extra["groundplan"]["code"] == "budget_exhausted"
    setup.chat.script = Script(mode="down")
    begun = parse_response(await setup.stack.post("/v1/responses", key, IN_BACKGROUND))
    failed = await setup.over(key, begun.id)
    assert failed.status == "failed" and failed.error is not None and failed.error.code == "server_error"
    events = await raw_events(setup, key, f"/v1/responses/{begun.id}?stream=true")
    assert [event.type for event in events] == ["response.created", "response.queued", "response.failed"]
    async with setup.client(key) as client:
        with pytest.raises(NotFoundError):
            await client.responses.create(model="auto", input="x", previous_response_id=begun.id)


async def test_temporary_refusals_are_waited_for_and_reported_meanwhile(database: Database, tmp_path: Path) -> None:
    """A limit that is full and a provider that asks for a pause hold one up; what was not sent is no call."""
    async with scripted_upstream("chat") as (chat, port), installation(database, tmp_path) as stack, run_shipper(stack):
        made = blueprint(
            1, [deployment("chat", port, rates=RATES)], [workload("keeper", ["chat"], keep=KEEP, attempts=1)]
        )
        slot = Limit(name="slot", covers="workload/keeper", type="concurrent", amount=1, period="now")
        stack.apply(msgspec.structs.replace(made, limits=[slot]))
        stack.start()
        await stack.wait_until_ready()
        setup, key = Setup(stack, chat, Endless()), stack.key("keeper")
        stack.sql(NOTED)
        chat.script = Script(tokens=20, chunk_ms=150)
        first = parse_response(await stack.post("/v1/responses", key, IN_BACKGROUND)).id
        second = parse_response(await stack.post("/v1/responses", key, IN_BACKGROUND)).id
        now = await why(setup, key, second)
        assert now["code"] == "rate_limit_exceeded" and "slot" in now["message"] and now["hint"]
        shown = listed(stack)
        assert [(each["id"], each["status"]) for each in shown] == [(second, "queued"), (first, "in_progress")]
        assert shown[0]["problem"] == now["message"] and shown[0]["due_at"] and shown[0]["cost_usd"] == "0.000000000000"
        chat.script = Script(tokens=5)
        for id in (first, second):
            assert (await setup.over(key, id)).status == "completed"
        events = await raw_events(setup, key, f"/v1/responses/{second}?stream=true")
        assert numbers(events) == list(range(len(events))) and events[-1].type == "response.completed"
        chat.script = Script(mode="error", status=429, retry_after="1", after=chat.counted, times=1, tokens=5)
        third = parse_response(await stack.post("/v1/responses", key, IN_BACKGROUND)).id
        assert (await why(setup, key, third))["code"] == "upstream_failed"
        assert (await setup.over(key, third)).status == "completed"
        assert [each["problem"] for each in listed(stack)] == [None] * 3
        async with asyncio.timeout(30):
            while len(calls := setup.calls()) < 4:  # noqa: ASYNC110 -- another process ships it
                await asyncio.sleep(0.1)
        assert calls == [("ok", 1, True), ("ok", 1, True), ("failed", 1, False), ("ok", 1, True)]
        assert chat.counted == 4
        assert stack.sql("SELECT DISTINCT said FROM noted") == [("on",)], "what PostgreSQL forgets is made again"


NOTED = """
    CREATE TABLE noted (said text);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
      BEGIN INSERT INTO noted VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$;
    CREATE TRIGGER note AFTER INSERT OR UPDATE ON background_response EXECUTE FUNCTION note();"""
"""How each change is committed, at a server that waits for no disk unless it is told to."""


def listed(stack: Stack) -> list[dict[str, Any]]:
    """As whoever runs Groundplan sees them, everywhere in the same words."""
    with psycopg.connect(stack.database.urls["control"]) as conn:
        shown = background_queries.list_responses(conn, "keeper", 10)
        value = {"responses": shown, "open": background_queries.count_open_by_workload(conn, "keeper")}
    page_of = bytes(render("responses_part.html", responses=shown, open_responses=value["open"]).body).decode()
    for each in shown:
        for text in (responses_text(value), page_of):
            assert html.escape(each["problem"] or "", quote=False) in text or (each["problem"] or "") in text
        assert (f'value="{each["id"]}"' in page_of) == (each["status"] in background_store.OPEN), "it can be cancelled"
    return shown


async def why(setup: Setup, key: str, id: str) -> dict[str, str]:
    """Why one is still queued."""
    async with asyncio.timeout(30):
        while True:
            now = await setup.found(key, id)
            assert now.status not in OVER, now
            told = (now.model_extra or {}).get("groundplan", {}).get("waits")
            if told:
                assert now.status == "queued"
                return dict(told)
            await asyncio.sleep(0.05)


def test_retry_after_is_obeyed_up_to_an_hour() -> None:
    now = datetime(2026, 11, 1, 12, tzinfo=UTC)

    def waits(refusal: GroundplanError, minutes: float, kept: float = 600) -> float | None:
        at = now - timedelta(minutes=minutes)
        row = background_store.Row("r", None, "w", new_id(), new_id(), "", {}, at, now + timedelta(minutes=kept), "")
        found = runner.postponement(row, refusal, now)
        return None if found is None else found.seconds

    def asked(seconds: float | None) -> GroundplanError:
        return Exhausted("x", code="rate_limit_exceeded", hint="y", retry_after=seconds)

    assert (waits(asked(None), 0), waits(asked(7), 0), waits(asked(50), 0)) == (1, 7, 30)
    assert waits(asked(1), 2) == 15, "the longer it lasts, the more seldom it is tried"
    assert waits(asked(3000), 5) == 30 and waits(asked(3000), 15) is None, "it would come too late"
    assert waits(asked(1), 60) is None
    assert waits(asked(30), 0, kept=0.4) is None, "it is not kept for as long"


async def test_the_operator_cancels_any_response(setup: Setup) -> None:
    key = setup.stack.key("keeper")
    body = IN_BACKGROUND | {"model": "scripted/endless", "max_output_tokens": 4000}
    begun = parse_response(await setup.stack.post("/v1/responses", key, body))
    async with asyncio.timeout(30):
        while not setup.endless.begun:  # noqa: ASYNC110 -- another process makes it
            await asyncio.sleep(0.01)
    with psycopg.connect(setup.stack.database.urls["control"]) as conn:
        assert background_queries.response_workload(conn, begun.id) == "keeper"
        assert background_store.cancel_for_all(conn, begun.id)
        conn.commit()
        assert not background_store.cancel_for_all(conn, begun.id)
    async with asyncio.timeout(10):
        while not setup.endless.left:  # noqa: ASYNC110 -- another process makes it
            await asyncio.sleep(0.01)
    assert (await setup.found(key, begun.id)).status == "cancelled"


@node_client.needed
async def test_the_official_node_client_polls_resumes_and_cancels(setup: Setup) -> None:
    setup.chat.script = Script(tokens=20, chunk_ms=30)
    url, key = f"http://127.0.0.1:{setup.stack.port}/v1", setup.stack.key("keeper")
    told = json.loads(await node_client.run_script("node_background.cjs", url, key))
    assert told["polled"]["seen"][0] in ("queued", "in_progress") and told["polled"]["seen"][-1] == "completed"
    assert told["polled"]["text"]
    first, rest = told["resumed"]["first"], told["resumed"]["rest"]
    assert first + rest == list(range(len(first) + len(rest))) and len(first) == 6
    assert told["resumed"]["text"] == told["resumed"]["whole"]
    assert told["cancelled"] == {"status": "cancelled", "found": "cancelled", "last": "response.failed"}
    assert told["deleted"] == 404


async def test_files_are_inserted_when_the_response_is_made(setup: Setup) -> None:
    key = setup.stack.key("keeper")
    async with setup.client(key) as client:
        file = await client.files.create(file=("a.png", b"\x89PNG\r\n\x1a\n"), purpose="vision")
        picture = {"type": "input_image", "file_id": file.id, "detail": "auto"}
        plain = {"type": "input_image", "file_id": file.id}
        asked: Any = IN_BACKGROUND | {"input": [{"role": "user", "content": [plain]}]}
        begun = await client.responses.create(**asked)
        assert (await setup.over(key, begun.id)).status == "completed"
        assert setup.chat.last is not None and b"data:image/png;base64," in setup.chat.last.body
        items = await client.responses.input_items.list(begun.id)
        assert [item.to_dict()["content"] for item in items.data] == [[picture]], (
            "its id is what is kept, and the detail that holds"
        )


async def test_stored_responses_are_deleted_with_their_retention_or_rule(setup: Setup) -> None:
    key = setup.stack.key("keeper")
    begun = parse_response(await setup.stack.post("/v1/responses", key, IN_BACKGROUND))
    await setup.over(key, begun.id)
    assert setup.stack.sql("SELECT bool_and(sealed LIKE 'sealed:%%') FROM background_event") == [(True,)]
    assert setup.stack.sql("SELECT sealed LIKE 'sealed:%%', status FROM background_response") == [(True, "completed")]
    with psycopg.connect(setup.stack.database.urls["control"]) as conn:
        assert background_store.apply_rules(conn, [("keeper", True, 3600)]) == {}
        assert background_store.apply_rules(conn, [("keeper", False, 3600)]) == {"keeper": 1}
    assert setup.stack.sql("SELECT count(*) FROM background_event") == [(0,)]


async def test_after_a_worker_is_killed_sent_responses_fail_and_the_others_are_made(
    database: Database, tmp_path: Path
) -> None:
    """None is made twice, each attempt is in one row, and nothing is held for ever."""
    async with scripted_upstream("chat") as (chat, port), installation(database, tmp_path) as stack, run_shipper(stack):
        place = deployment("chat", port, rates=RATES)
        stack.apply(blueprint(1, [place], [workload("keeper", ["chat"], keep=KEEP)]))
        stack.start()
        await stack.wait_until_ready()
        setup, key = Setup(stack, chat, Endless()), stack.key("keeper")
        chat.script = Script(tokens=40, chunk_ms=100)
        sent = [parse_response(await stack.post("/v1/responses", key, IN_BACKGROUND)).id for _ in range(3)]
        async with asyncio.timeout(30):
            while chat.counted < 3:  # noqa: ASYNC110 -- another process makes it
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.8)
        stack.workers[0].kill()
        stack.workers.pop(0).wait()
        waits = "INSERT INTO background_response SELECT 'resp_w', NULL, workload, owner, key_id, person, said, at,"
        stack.sql(f"{waits} expires_at, sealed FROM background_response LIMIT 1")  # not begun when its worker ended
        chat.script = Script(tokens=5)
        stack.start()
        for id in sent:
            failed = await insist_over(setup, key, id)
            assert failed.status == "failed" and failed.model_extra is not None
            assert failed.model_extra["groundplan"]["code"] == "background_interrupted"
            events = await raw_events(setup, key, f"/v1/responses/{id}?stream=true")
            assert events[-1].type == "response.failed" and output_text(events), "what was kept of it is told"
        assert (await insist_over(setup, key, "resp_w")).status == "completed"
        assert chat.counted == 4
        async with asyncio.timeout(30):
            while len(rows := stack.sql("SELECT DISTINCT call_id FROM attempt")) < 4:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        assert stack.sql("SELECT count(*) FROM attempt") == [(len(rows),)]


async def insist_over(setup: Setup, key: str, id: str) -> ResponseObject:
    """As it is once it is over, and a worker answers."""
    while True:
        async with setup.client(key) as client:
            now: ResponseObject = await retry_until_served(lambda: client.responses.retrieve(id))
        if now.status in OVER:
            return now
        await asyncio.sleep(0.1)
