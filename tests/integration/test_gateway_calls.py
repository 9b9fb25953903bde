"""Governed calls through a real worker: JSON, streams, fallback, errors, and what OpenAI's own client makes of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pytest
from openai import AsyncOpenAI, RateLimitError
from tests.integration.gateway_stack import (
    HASTY,
    Stack,
    blueprint,
    deployment,
    installation,
    parse_events,
    scripted_upstream,
    workload,
)

from groundplan.blueprint.model import Rates
from groundplan.core.money import PICO
from groundplan.testing.database import Database
from groundplan.testing.scripted import Script, ScriptedModel


@dataclass
class Setup:
    stack: Stack
    primary: ScriptedModel
    fallback: ScriptedModel
    key: str
    primary_port: int


@pytest.fixture
async def setup(database: Database, tmp_path: Path) -> AsyncIterator[Setup]:
    async with scripted_upstream("primary") as (primary, one), scripted_upstream("fallback") as (fallback, two):
        async with installation(database, tmp_path) as stack:
            places = [
                deployment("primary", one),
                deployment("fallback", two),
                deployment("vectors", one, kind="embeddings"),
            ]
            assistant = workload("assistant", ["primary", "fallback"], embeddings=["vectors"])
            stack.apply(blueprint(1, places, [assistant]))
            stack.start()
            await stack.wait_until_ready()
            yield Setup(stack, primary, fallback, stack.key(), one)


async def test_a_json_answer_has_its_cost_and_its_deployment(setup: Setup) -> None:
    setup.primary.script = Script(tokens=7)
    reply = await setup.stack.chat(setup.key)
    assert reply.status == 200, reply.body
    facts = reply.json["groundplan"]
    assert facts["cost_usd"] == "0.000070000000"
    assert facts["workload"] == "assistant"
    assert facts["model"] == "scripted/primary"
    assert facts["deployment"] == "primary"
    assert facts["site"] == "site-primary"
    assert facts["cache"] == "none"
    assert facts["sources"] == []
    assert facts["blueprint"] == 1
    assert facts["budget_remaining_usd"] == "999.999930000000"
    assert reply.headers["groundplan-call-id"] == facts["call_id"]
    assert reply.headers["groundplan-cost-usd"] == facts["cost_usd"]
    assert reply.headers["groundplan-site"] == "site-primary"
    assert reply.json["usage"]["completion_tokens"] == 7


async def test_a_lowered_budget_applies_at_once_also_to_the_remaining_amount(setup: Setup) -> None:
    """Also where this worker holds enough of what it was before to go on for a while without asking."""
    stack, port = setup.stack, setup.primary_port
    setup.primary.script = Script(tokens=7)
    assert (await stack.chat(setup.key)).status == 200
    places, declared = [deployment("primary", port)], [workload("assistant", ["primary"])]
    stack.apply(blueprint(2, places, declared, limit=PICO // 10))
    await stack.wait_until_ready(2)
    reply = await stack.chat(setup.key)
    assert reply.json["groundplan"]["blueprint"] == 2
    assert Decimal("0.09") < Decimal(reply.json["groundplan"]["budget_remaining_usd"]) < Decimal("0.1")
    stack.apply(blueprint(3, places, declared, limit=0))
    await stack.wait_until_ready(3)
    refused = await stack.chat(setup.key)
    assert (refused.status, refused.code) == (429, "budget_exhausted")
    assert refused.json["error"]["remaining_usd"] == "0.000000000000"


async def test_the_openai_client_accepts_the_answers(setup: Setup) -> None:
    async with AsyncOpenAI(base_url=f"http://127.0.0.1:{setup.stack.port}/v1", api_key=setup.key) as client:
        answer = await client.chat.completions.create(model="auto", messages=[{"role": "user", "content": "Hello"}])
        assert answer.choices[0].message.content == "You asked: Hello"
        assert answer.model_extra is not None and answer.model_extra["groundplan"]["workload"] == "assistant"
        text, last = "", None
        async for chunk in await client.chat.completions.create(
            model="scripted/fallback", messages=[{"role": "user", "content": "Hello"}], stream=True
        ):
            assert len(chunk.choices) == 1
            text += chunk.choices[0].delta.content or ""
            last = chunk
        assert text.strip() == "You asked: Hello"
        assert last is not None and last.model_extra is not None
        assert last.model_extra["groundplan"]["deployment"] == "fallback"
        vectors = await client.embeddings.create(model="auto", input=["a", "b"])
        assert len(vectors.data) == 2
        models = [model.id async for model in client.models.list()]
        assert {"auto", "assistant", "scripted/primary", "primary"} <= set(models)
        assert (await client.models.retrieve("assistant")).id == "assistant"


async def test_a_client_that_asks_for_usage_gets_it_with_the_facts(setup: Setup) -> None:
    reply = await setup.stack.chat(setup.key, stream=True, stream_options={"include_usage": True})
    *_, finish, usage, done = parse_events(reply.body)
    assert done == "[DONE]"
    assert finish["choices"][0]["finish_reason"] == "stop" and "groundplan" not in finish
    assert usage["choices"] == [] and usage["usage"]["completion_tokens"] == 4
    assert usage["groundplan"]["cost_usd"] == "0.000040000000"


async def test_the_error_says_what_to_correct_if_an_upstream_refuses_the_gateway(setup: Setup) -> None:
    """The first call of whoever mistyped an address or a key: asking again does not help."""
    for status, told, hint in (
        (404, "404: it has no such path, or no such model (fallback)", "Correct the url (it ends before /chat/comp"),
        (401, "401: it does not accept our key (fallback)", "Correct the key of fallback"),
        (503, "503 (fallback)", "Try again"),
    ):
        setup.primary.script = setup.fallback.script = Script(mode="error", status=status)
        reply = await setup.stack.chat(setup.key)
        assert (reply.status, reply.code) == (503, "upstream_failed")
        error = reply.json["error"]
        assert f"the upstream answered {told}. {hint}" in error["message"] and error["hint"].startswith(hint)


async def test_a_model_may_be_named_as_its_upstream_names_it(setup: Setup) -> None:
    """Whoever comes from a provider changes base URL and key, and nothing else."""
    listed = (await setup.stack.ask("GET", "/v1/models", setup.key)).json["data"]
    assert {"up-primary", "up-fallback", "up-vectors"} <= {model["id"] for model in listed}
    for name in ("primary", "fallback"):
        reply = await setup.stack.chat(setup.key, model=f"up-{name}")
        assert reply.status == 200 and reply.json["groundplan"]["deployment"] == name


@pytest.mark.parametrize(
    ("mode", "stream"),
    [
        *((mode, False) for mode in ("down", "error", "stall", "cut")),
        *((mode, True) for mode in ("down", "error", "stall")),
    ],
)
async def test_a_failure_before_the_first_byte_is_invisible(setup: Setup, mode: str, stream: bool) -> None:
    if mode == "stall":
        ports = {model.name: _port(model, setup.stack) for model in (setup.primary, setup.fallback)}
        places = [deployment("primary", ports["primary"], **HASTY), deployment("fallback", ports["fallback"])]
        setup.stack.apply(blueprint(2, places, [workload("assistant", ["primary", "fallback"])]))
        await setup.stack.wait_until_ready(2)
    setup.primary.script = Script(mode=mode)
    reply = await setup.stack.chat(setup.key, stream=stream)
    assert reply.status == 200
    assert reply.headers["groundplan-deployment"] == "fallback"
    assert setup.fallback.counted == 1


async def test_a_stream_that_breaks_ends_with_an_error_event(setup: Setup) -> None:
    setup.primary.script = Script(mode="cut", tokens=20)
    reply = await setup.stack.chat(setup.key, stream=True)
    *_, last = parse_events(reply.body)
    assert reply.status == 200
    assert last["error"]["code"] == "stream_broken"
    assert setup.fallback.counted == 0


async def test_every_deployment_down_is_a_clear_error(setup: Setup) -> None:
    setup.primary.script = setup.fallback.script = Script(mode="error", status=503)
    reply = await setup.stack.chat(setup.key)
    assert (reply.status, reply.code) == (503, "upstream_failed")
    assert reply.json["error"]["hint"]


async def test_an_error_of_the_caller_is_passed_on_without_a_fallback(setup: Setup) -> None:
    setup.primary.script = Script(mode="error", status=422)
    reply = await setup.stack.chat(setup.key)
    assert reply.status == 422
    assert reply.code == "scripted_error"
    assert setup.fallback.counted == 0


async def test_a_disconnected_client_frees_the_upstream(setup: Setup) -> None:
    setup.primary.script = Script(tokens=100, chunk_ms=100)
    body = json.dumps({"model": "auto", "messages": [{"role": "user", "content": "x"}], "stream": True}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", setup.stack.port)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {setup.key}\r\n"
    writer.write(head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body)
    await reader.readuntil(b"data: ")
    writer.transport.abort()
    async with asyncio.timeout(30):
        while True:
            metrics = (await setup.stack.ask("GET", "/metrics", None)).body.decode()
            if 'outcome="cancelled"} 1' in metrics:
                break
            assert 'outcome="ok"} 1' not in metrics, "it went on to its end"
            await asyncio.sleep(0.05)
    assert "groundplan_gateway_running{" in metrics and "groundplan_gateway_open_reservations" in metrics
    open_line = next(line for line in metrics.splitlines() if line.startswith("groundplan_gateway_open_reservations{"))
    assert open_line.endswith(" 0")


async def test_refusals_say_what_to_do(setup: Setup) -> None:
    stack, key = setup.stack, setup.key
    body = {"model": "auto", "messages": [{"role": "user", "content": "x"}]}
    cases = [
        (await stack.chat(None), 401, "key_missing"),
        (await stack.chat("gp_wrong"), 401, "invalid_api_key"),
        (await stack.chat(key, model="gpt-9"), 404, "model_not_found"),
        (await stack.post("/v1/chat/completions", key, b"{"), 400, "body_not_json"),
        (await stack.post("/v1/chat/completions", key, b"\xff\xfe"), 400, "body_encoding"),
        (await stack.post("/v1/chat/completions", key, b'{"model":"auto"}'), 400, "body_invalid"),
        (await stack.post("/v1/chat/completions", key, {**body, "messages": []}), 400, "messages_empty"),
        (await stack.post("/v1/nothing", key, body), 404, "path_unknown"),
        (await stack.post("/chat/completions", key, body), 404, "path_unknown"),
        (await stack.post("/v1/models/auto:generateContent", None, body), 404, "path_unknown"),
        (await stack.ask("GET", "/v1/embeddings", key), 405, "method_not_allowed"),
        (await stack.ask("PUT", "/v1/chat/completions", key), 405, "method_not_allowed"),
        (await stack.chat(key, headers={"groundplan_on_behalf_of": "a@b.c"}), 403, "on_behalf_of_denied"),
    ]
    for reply, status, code in cases:
        assert (reply.status, reply.code) == (status, code)
        error = reply.json["error"]
        assert error["message"] and error["hint"] and error["type"] and "param" in error
    assert "scripted/primary" in cases[2][0].json["error"]["hint"]
    reply = await stack.ask("GET", "/v1/responses", key)
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    assert "no WebSocket for responses" in reply.json["error"]["hint"]
    for reply in (cases[8][0], cases[9][0], await stack.post("/api/chat", None, body)):
        assert "a base URL that ends with /v1" in reply.json["error"]["message"]
    assert setup.primary.counted == 0


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/models", "GET, HEAD"), ("/v1/models/auto", "GET, HEAD"), ("/v1/chat/completions", "GET, POST, HEAD"),
        ("/v1/files", "GET, POST, HEAD"), ("/v1/batches", "GET, POST, HEAD"), ("/v1/embeddings", "POST"),
        ("/v1/messages/batches", "GET, POST, HEAD"), ("/metrics", "GET, HEAD"), ("/api/outcomes", "POST"),
        ("/mcp", "POST"),
    ],
)  # fmt: skip
async def test_head_answers_as_get_and_405_names_the_allowed_methods(setup: Setup, path: str, allowed: str) -> None:
    stack, key = setup.stack, setup.key
    got, head = [await stack.ask(method, path, key) for method in ("GET", "HEAD")]
    assert head.body == b"" and head.status == got.status
    assert got.status == (405 if "GET" not in allowed else 403 if path == "/metrics" else 200)
    assert head.headers["content-type"] == got.headers["content-type"]
    for method in ("PATCH", "OPTIONS"):
        wrong = await stack.ask(method, path, key)
        assert (wrong.status, wrong.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/messages", "/v1/models", "/v1/files", "/v1/realtime", "/mcp", "/v1/nothing"]
)
async def test_a_cross_origin_preflight_is_refused_with_a_hint(setup: Setup, path: str) -> None:
    told = await setup.stack.ask(
        "OPTIONS", path, None, origin="https://app.example", access_control_request_method="POST",
        access_control_request_headers="authorization",
    )  # fmt: skip
    assert (told.status, told.code) == (403, "cross_origin")
    assert "from your server" in told.json["error"]["hint"]
    assert not [name for name in told.headers if name.startswith("access-control")], "nothing is allowed"


async def test_answers_to_head_on_a_kept_connection_have_no_body(setup: Setup) -> None:
    """Also one whose head is known from the one before it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", setup.stack.port)
    lines = (
        f" /v1/models HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {setup.key}\r\ncontent-length: 0\r\n\r\n".encode()
    )
    async with asyncio.timeout(10):
        for _ in range(3):
            writer.write(b"HEAD" + lines)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        writer.write(b"GET" + lines)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        assert json.loads(await reader.readexactly(length))["object"] == "list"
    writer.close()


async def test_an_idempotency_key_is_answered_once(setup: Setup) -> None:
    setup.primary.script = Script(latency_ms=100)
    headers = {"idempotency_key": "k1"}
    replies = await asyncio.gather(*(setup.stack.chat(setup.key, headers=headers) for _ in range(5)))
    assert {reply.status for reply in replies} == {200}
    assert len({reply.json["groundplan"]["call_id"] for reply in replies}) == 1
    assert setup.primary.counted == 1
    other = await setup.stack.chat(setup.key, "something else", headers=headers)
    assert (other.status, other.code) == (409, "idempotency_mismatch")
    streamed = await setup.stack.chat(setup.key, stream=True, headers={"idempotency_key": "k2"})
    again = await setup.stack.chat(setup.key, stream=True, headers={"idempotency_key": "k2"})
    assert streamed.body == again.body and again.headers["content-type"] == "text/event-stream"
    assert setup.primary.counted == 2


async def test_an_idempotency_key_is_refused_after_a_restart(setup: Setup) -> None:
    assert (await setup.stack.chat(setup.key, headers={"idempotency_key": "k1"})).status == 200
    setup.stack.workers[0].kill()
    setup.stack.workers[0].wait()
    setup.stack.workers.clear()
    setup.stack.sql("UPDATE gateway SET state = 'fenced'")
    setup.stack.start()
    await setup.stack.wait_until_ready()
    reply = await setup.stack.chat(setup.key, headers={"idempotency_key": "k1"})
    assert (reply.status, reply.code) == (409, "idempotency_replayed")
    assert setup.primary.counted == 1


async def test_an_exhausted_budget_is_a_quota_error_that_clients_do_not_retry(setup: Setup) -> None:
    setup.primary.script = Script(tokens=20)
    book = setup.stack
    places = [deployment("primary", _port(setup.primary, book))]
    book.apply(blueprint(2, places, [workload("assistant", ["primary"])], limit=PICO // 5000 * 3))
    await book.wait_until_ready(2)
    statuses = [(await book.chat(setup.key)).status for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]
    async with AsyncOpenAI(base_url=f"http://127.0.0.1:{book.port}/v1", api_key=setup.key) as client:
        with pytest.raises(RateLimitError) as caught:
            await client.chat.completions.create(
                model="auto", messages=[{"role": "user", "content": "x"}], max_tokens=20
            )
    assert caught.value.type == "insufficient_quota"
    assert caught.value.code == "budget_exhausted"
    told = caught.value.body
    assert isinstance(told, dict), "amounts are numbers, as wherever a name ends with _usd"
    assert (Decimal(told["needed_usd"]), Decimal(told["remaining_usd"])) == (Decimal("0.0002"), Decimal(0))
    assert setup.primary.counted == 3


def _port(model: ScriptedModel, stack: Stack) -> int:
    rows = stack.sql("SELECT convert_from(body, 'UTF8') FROM blueprint WHERE number = 1")
    url = next(d["url"] for d in json.loads(rows[0][0])["deployments"] if d["name"] == model.name)
    return int(url.rsplit(":", 1)[1].split("/")[0])


async def test_a_more_expensive_fallback_stays_within_the_budget_after_an_uncertain_failure(
    database: Database, tmp_path: Path
) -> None:
    """An uncertain failure keeps 0.0001 USD of 0.00105; the last deployment may cost 0.001: too much, never asked."""
    async with (
        scripted_upstream("first") as (first, one),
        scripted_upstream("second") as (second, two),
        scripted_upstream("third") as (third, three),
        installation(database, tmp_path) as stack,
    ):
        dear = deployment("third", three, rates=Rates(input=0, output=100 * PICO))
        places = [deployment("first", one), deployment("second", two), dear]
        assistant = workload("assistant", [place.name for place in places])
        stack.apply(blueprint(1, places, [assistant], limit=PICO * 105 // 100_000))
        stack.start()
        await stack.wait_until_ready()
        first.script, second.script, third.script = Script(mode="cut"), Script(mode="error"), Script(tokens=10)
        reply = await stack.chat(stack.key(), max_tokens=10)
        assert (reply.status, reply.code) == (429, "budget_exhausted")
        assert (first.counted, third.counted) == (1, 0)


async def test_dead_idle_connections_cost_no_attempts(setup: Setup) -> None:
    """Many idle connections, then the upstream goes down: every call still reaches the fallback."""
    setup.primary.script = Script(latency_ms=150)
    await asyncio.gather(*(setup.stack.chat(setup.key) for _ in range(12)))
    setup.primary.script = Script(mode="down")
    replies = await asyncio.gather(*(setup.stack.chat(setup.key) for _ in range(12)))
    assert {reply.status for reply in replies} == {200}
    assert {reply.headers["groundplan-deployment"] for reply in replies} == {"fallback"}
