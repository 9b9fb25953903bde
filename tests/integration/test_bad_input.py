"""What callers get wrong, row by row, at a real gateway worker: each a clear error, no trace in any log, nothing lost.

Where each row of bad input is tested:

| Row | Gateway | Control API, command line |
|---|---|---|
| wrong or non-UTF-8 YAML, unknown owner, cyclic team, name twice, missing price | - | test_bad_workspace |
| unreachable upstream | here; a fallback instead: test_gateway_calls | - |
| malformed JSON, unknown model, non-UTF-8 body | here, test_gateway_calls | test_bad_input_control, test_api_control |
| non-UTF-8 header, header injection | here; any bytes: test_gateway_server | test_bad_input_control |
| 50 MB body | here, declared and chunked | test_bad_input_control |
| revoked key | here; within a second: test_gateway_policy | test_identity, test_api_control |
| exhausted budget | here; exactly full: test_promise_03_budget, test_lease_client | test_api_control |
| stopped database | test_stopped_database; grace: test_gateway_policy | test_stopped_database, test_api_shapes |
| corrupted journal | test_corrupted_journal; any byte: test_journal, test_shipper | - |
| clock set back | test_clock_set_back | test_clock_set_back (audit log) |
| full disk | test_full_disk; the journal alone: test_journal | - |
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from openai import APIStatusError, AsyncOpenAI
from tests.integration.gateway_stack import (
    GROUNDING,
    Reply,
    Stack,
    blueprint,
    deployment,
    installation,
    parse_reply,
    scripted_upstream,
    workload,
)
from tests.integration.patient import RetryingOpenAIHttpClient

from groundplan.blueprint.model import Budget
from groundplan.core.money import PICO
from groundplan.gateway.journal.shipper import Shipper
from groundplan.testing.database import Database
from groundplan.testing.scripted import Script, ScriptedModel

CHAT, EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"
BODY = {"model": "auto", "messages": [{"role": "user", "content": "hello there"}], "max_tokens": 20}


@dataclass
class Scene:
    stack: Stack
    model: ScriptedModel
    key: str
    """Of the workload `assistant`."""

    def charged(self) -> Decimal:
        """USD in the ledger, after everything in the journals was taken over."""
        with psycopg.connect(self.stack.database.urls["shipper"], autocommit=True) as conn:
            shipper = Shipper(self.stack.home)
            for _ in range(3):
                shipper.run_round(conn)
        rows = self.stack.sql("SELECT coalesce(sum(cost_usd), 0) FROM attempt")
        return Decimal(rows[0][0])

    def outcomes(self) -> dict[str, int]:
        """Calls in the ledger by error code; '' for those that were answered."""
        self.charged()
        return dict(self.stack.sql("SELECT coalesce(error_code, ''), count(*) FROM call GROUP BY 1"))


@pytest.fixture
async def scene(database: Database, tmp_path: Path) -> AsyncIterator[Scene]:
    with socket.socket() as taken:  # bound, and not listening: nobody else listens there
        taken.bind(("127.0.0.1", 0))
        async with serving(database, tmp_path, taken.getsockname()[1]) as made:
            yield made


@asynccontextmanager
async def serving(database: Database, folder: Path, closed: int) -> AsyncIterator[Scene]:
    """A worker; nothing listens at the port `closed`."""
    async with scripted_upstream("primary") as (model, port), installation(database, folder) as stack:
        small = Budget(name="small", covers="workload/poor", limit=PICO // 5000 * 2, period="total")
        made = blueprint(
            1,
            [
                deployment("primary", port),
                deployment("gone", closed),
                deployment("vectors", port, kind="embeddings"),
            ],
            [
                workload("assistant", ["primary"], embeddings=["vectors"]),
                workload("reader", ["primary"], embeddings=["vectors"], grounding=GROUNDING),
                workload("lonely", ["gone"]),
                workload("poor", ["primary"], budgets=["all", "small"]),
            ],
        )
        made.budgets.append(small)
        stack.apply(made)
        stack.start()
        await stack.wait_until_ready()
        yield Scene(stack, model, stack.key())
        await asyncio.to_thread(stack.stop)
    log = (stack.home.logs / "gateway.log").read_text()
    assert "Traceback" not in log, log[-3000:]


def check_error(reply: Reply, status: int, code: str) -> dict[str, Any]:
    """The error in OpenAI's shape, with code and hint and no inner name of the program."""
    assert (reply.status, reply.code) == (status, code), reply.body[:500]
    error: dict[str, Any] = reply.json["error"]
    assert set(error) >= {"message", "type", "param", "code", "hint"}
    assert error["message"] and error["hint"] and error["type"]
    for word in (b"Traceback", b".py", b"msgspec", b"psycopg", b"Exception"):
        assert word not in reply.body, reply.body
    return error


async def raw(stack: Stack, head: bytes, body: bytes = b"") -> bytes:
    """What comes back for these very bytes, until the gateway closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.port)
    writer.write(head + body)
    answer = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    return answer


async def still_serves(scene: Scene, calls: int = 1) -> None:
    """The next good call is answered, and the ledger has it and only it."""
    reply = await scene.stack.chat(scene.key)
    assert reply.status == 200, reply.body
    assert scene.model.counted == calls
    assert scene.outcomes()[""] == calls


async def test_an_unreachable_upstream_is_named_and_costs_nothing(scene: Scene) -> None:
    reply = await scene.stack.chat(scene.stack.key("lonely"))
    error = check_error(reply, 503, "upstream_failed")
    assert "lonely" in error["message"] and "nothing listens" in error["message"] and reply.headers["retry-after"]
    assert scene.charged() == 0
    assert scene.stack.sql("SELECT outcome FROM attempt") == [("not_billed",)]
    assert scene.outcomes() == {"upstream_failed": 1}
    await still_serves(scene)


MALFORMED = [
    (b"", "body_not_json"),
    (b"{", "body_not_json"),
    (b'{"model":"auto","messages":[{"role":"user","content":"x"}]} trailing', "body_not_json"),
    (b"[]", "body_invalid"),
    (b'"text"', "body_invalid"),
    (b"null", "body_invalid"),
    (b'{"model":7,"messages":[]}', "body_invalid"),
    (b'{"model":"auto","messages":"x"}', "body_invalid"),
    (b'{"model":"auto","messages":[{"role":"user","content":{}}]}', "body_invalid"),
    (b'{"model":"auto","messages":[{"role":"user","content":"x"}],"max_tokens":1e400}', "body_invalid"),
    (b'{"model":"auto","messages":[{"role":"user","content":"x"}],"max_tokens":-1}', "cap_range"),
    (b'{"a":' * 5000 + b"1" + b"}" * 5000, "body_not_json"),
    (b'{"model":"auto","messages":[{"role":"user","content":"\xff\xfe"}]}', "body_encoding"),
    (json.dumps(BODY).encode("utf-16"), "body_encoding"),
    ('{"model":"ä"}'.encode("latin-1"), "body_encoding"),
    (b'{"model":"\\ud800","messages":[{"role":"user","content":"x"}]}', "body_not_json"),
    (b'{"model":"auto","messages":[{"role":"user","content":"\\udfff"}]}', "body_not_json"),
]


async def test_a_malformed_body_is_refused(scene: Scene) -> None:
    for body, code in MALFORMED:
        check_error(await scene.stack.post(CHAT, scene.key, body), 400, code)
    assert scene.model.counted == 0 and scene.charged() == 0
    assert scene.outcomes() == Counter(code for _, code in MALFORMED)


DEEP = b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
OTHER_PATHS = ("/v1/batches", "/v1/messages/batches", "/api/outcomes", "/api/knowledge/search", EMBEDDINGS)


async def test_json_that_breaks_parsers_is_refused_on_every_path(scene: Scene) -> None:
    """Nested without end, no text, half of a character: the caller's mistake, and no failure of the gateway."""
    for path in OTHER_PATHS:
        for body in (DEEP, b'{"input_file_id":"\xff"}', b'{"name":"\\ud800"}', b"[" * 50):
            reply = await scene.stack.post(path, scene.key, body)
            assert 400 <= reply.status < 500 and reply.json, (path, body[:20], reply.body)
    assert scene.model.counted == 0
    await still_serves(scene)


async def test_fifty_megabytes_are_refused_before_they_are_read(scene: Scene) -> None:
    head = f"POST {CHAT} HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {scene.key}\r\n".encode()
    declared = parse_reply(await raw(scene.stack, head + b"content-length: %d\r\n\r\n" % (50 << 20)))
    check_error(declared, 413, "body_too_large")
    await still_serves(scene)


def pour(port: int, head: bytes, megabytes: int) -> tuple[int, bytes]:
    """Send a chunked body without looking for an answer, as a simple client does; (megabytes sent, what came back)."""
    chunk = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"
    sent, answer = 0, b""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(head)
        with suppress(ConnectionError):
            while sent < megabytes:
                connection.sendall(chunk)
                sent += 1
        with suppress(ConnectionError):
            while got := connection.recv(65536):
                answer += got
    return sent, answer


async def test_fifty_megabytes_without_a_length_are_counted(scene: Scene) -> None:
    head = f"POST {CHAT} HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {scene.key}\r\ntransfer-encoding: chunked\r\n\r\n"
    _, answer = await asyncio.to_thread(pour, scene.stack.port, head.encode(), 50)
    check_error(parse_reply(answer), 413, "body_too_large")
    sent, _ = await asyncio.to_thread(pour, scene.stack.port, head.encode(), 500)
    assert sent < 200, "who goes on for ever is cut off"
    await still_serves(scene)


async def test_a_large_body_without_a_known_key_is_refused_before_it_is_read(scene: Scene) -> None:
    for key in ("", "authorization: Bearer gp_unknown\r\n"):
        for length in ("content-length: 2000000", "transfer-encoding: chunked"):
            for path in (CHAT, "/v1/files", "/mcp", "/api/outcomes", "/nowhere"):
                head = f"POST {path} HTTP/1.1\r\nhost: g\r\n{key}{length}\r\n\r\n".encode()
                check_error(parse_reply(await raw(scene.stack, head)), 401, "invalid_api_key")
    large = await scene.stack.chat(scene.key, "x" * 2_000_000)
    assert large.status == 200, large.body
    for name in ("x-api-key", "api-key", "authorization"):
        value = f"Bearer {scene.key}" if name == "authorization" else scene.key
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data := json.dumps(BODY).encode()), data)
        lines = f"POST {CHAT} HTTP/1.1\r\nhost: g\r\n{name}: {value}\r\ntransfer-encoding: chunked\r\n"
        answer = parse_reply(await raw(scene.stack, f"{lines}connection: close\r\n\r\n".encode() + body))
        assert answer.status == 200, answer.body


async def test_the_openai_client_is_told_about_fifty_megabytes(scene: Scene) -> None:
    url = f"http://127.0.0.1:{scene.stack.port}/v1"
    async with AsyncOpenAI(
        base_url=url, api_key=scene.key, max_retries=0, http_client=RetryingOpenAIHttpClient()
    ) as client:
        with pytest.raises(APIStatusError) as caught:
            await client.chat.completions.create(model="auto", messages=[{"role": "user", "content": "x" * (50 << 20)}])
    assert (caught.value.status_code, caught.value.code) == (413, "body_too_large")
    await still_serves(scene)


async def test_an_unknown_model_is_refused_with_the_known_ones(scene: Scene) -> None:
    models = ["gpt-9", "", "x" * 10_000, "a\r\nset-cookie: b=c", "\0", "ä€", "../../etc/passwd"]
    for model in models:
        error = check_error(await scene.stack.chat(scene.key, model=model), 404, "model_not_found")
        assert error["param"] == "model" and "scripted/primary" in error["hint"] and len(error["message"]) < 300
    assert scene.model.counted == 0 and scene.charged() == 0
    assert scene.outcomes() == {"model_not_found": len(models)}


async def test_a_revoked_key_is_distinguished_from_an_unknown_one(scene: Scene) -> None:
    assert (await scene.stack.chat(scene.key)).status == 200
    await scene.stack.wait_until_acknowledged(
        scene.stack.policy("key", "assistant", "UPDATE api_key SET revoked_at = now()")
    )
    check_error(await scene.stack.chat(scene.key), 401, "key_revoked")
    check_error(await scene.stack.chat("gp_nobody"), 401, "invalid_api_key")
    check_error(await scene.stack.ask("GET", "/v1/models", scene.key), 401, "key_revoked")
    assert scene.model.counted == 1
    assert scene.outcomes() == {"": 1, "key_revoked": 1}, "who goes on with a key that was revoked is written down"
    who = "SELECT workload, key_id IS NOT NULL, person_id IS NULL, cost_usd FROM call WHERE status = 'refused'"
    assert scene.stack.sql(who) == [("assistant", True, True, 0)]


AMBIGUOUS = [
    b"groundplan-on-behalf-of: a@b.c\nx-injected: 1",
    b"groundplan-on-behalf-of: a@b.c\rx-injected: 1",
    b"groundplan-on-behalf-of: a@b.c\0",
    b"idempotency-key: a\0b",
    b"idempotency-key : a",
    b" folded: line",
    b"content-length: 5",
    b"transfer-encoding: chunked",
    b"transfer-encoding: identity, chunked",
    b"host: second",
    b"authorization: Bearer other",
]


async def test_ambiguous_headers_are_refused(scene: Scene) -> None:
    """Refused, or taken as what they are; never as another header, another request or another caller."""
    data = json.dumps(BODY).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: g\r\nauthorization: Bearer {scene.key}\r\nconnection: close\r\n".encode()
    for line in AMBIGUOUS:
        answer = await raw(scene.stack, head + b"content-length: %d\r\n%b\r\n\r\n" % (len(data), line), data)
        reply = parse_reply(answer)
        assert reply.status in (400, 403), (line, answer[:400])
        assert reply.json["error"]["hint"] and answer.count(b"HTTP/1.1 ") == 1
        assert "x-injected" not in reply.headers
    assert scene.model.counted == 0
    await still_serves(scene)


async def test_header_values_that_are_not_text_are_refused(scene: Scene) -> None:
    data = json.dumps(BODY).encode()
    key, granted = scene.key.encode(), scene.stack.key(acts=True).encode()
    for value in (b"\xff\xfe", b"\xc3", "ä@acme.example".encode("latin-1"), b"%0d%0ax-injected: 1"):
        for lines, status, code in (
            (b"authorization: Bearer %b\r\n" % value, 401, "invalid_api_key"),
            (b"authorization: Bearer %b\r\ngroundplan-on-behalf-of: %b\r\n" % (key, value), 403, "on_behalf_of_denied"),
            (b"authorization: Bearer %b\r\ngroundplan-on-behalf-of: %b\r\n" % (granted, value), 403, "person_unknown"),
        ):
            head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nconnection: close\r\n" + lines
            answer = await raw(scene.stack, head + b"content-length: %d\r\n\r\n" % len(data), data)
            reply = parse_reply(answer)
            check_error(reply, status, code)
            assert "x-injected" not in reply.headers and value not in answer
    assert scene.model.counted == 0


async def test_request_content_reaches_neither_response_nor_upstream_headers(scene: Scene) -> None:
    """A body may hold line ends anywhere: they stay inside JSON."""
    evil = "x\r\nset-cookie: a=b\r\n\r\nHTTP/1.1 200 OK"
    reply = await scene.stack.chat(scene.key, evil, user=evil, headers={"idempotency_key": "%0d%0aset-cookie:a"})
    assert reply.status == 200
    assert not any("cookie" in name or "cookie" in value for name, value in reply.headers.items())
    path = await scene.stack.ask("GET", "/v1/models/%0d%0aset-cookie:%20a=b", scene.key)
    check_error(path, 404, "model_not_found")
    assert "set-cookie" not in path.headers
    assert scene.model.counted == 1


async def test_an_exhausted_budget_refuses_and_keeps_its_spending(scene: Scene) -> None:
    scene.model.script = Script(tokens=20)
    key = scene.stack.key("poor")
    replies = [await scene.stack.chat(key) for _ in range(4)]
    assert [reply.status for reply in replies] == [200, 200, 429, 429]
    error = check_error(replies[3], 429, "budget_exhausted")
    assert "small" in error["message"] and error["type"] == "insufficient_quota"
    assert replies[3].headers["x-should-retry"] == "false"
    assert scene.charged() == Decimal("0.0004")
    assert scene.outcomes() == {"": 2, "budget_exhausted": 2}
    assert (await scene.stack.chat(scene.key)).status == 200, "another budget is not touched"


async def test_acting_on_behalf_of_a_person_is_refused_without_a_grant(scene: Scene) -> None:
    """At every endpoint, and before any passage is looked for in somebody's name."""
    scene.stack.person("ana@acme.example")
    ana = {"groundplan_on_behalf_of": "ana@acme.example"}
    for name in ("assistant", "reader"):
        key = scene.stack.key(name)
        for path, body in (
            (CHAT, BODY),
            (CHAT, {**BODY, "stream": True}),
            (EMBEDDINGS, {"model": "auto", "input": "x"}),
        ):
            check_error(await scene.stack.post(path, key, body, **ana), 403, "on_behalf_of_denied")
    assert scene.model.counted == 0 and scene.charged() == 0
    assert scene.outcomes() == {"on_behalf_of_denied": 6}, "each is a call of its key, with an entry of its own"
    assert scene.stack.sql("SELECT count(*) FROM audit_entry WHERE action = 'call'") == [(6,)]
    granted = scene.stack.key("assistant", acts=True)
    assert (await scene.stack.post(EMBEDDINGS, granted, {"model": "auto", "input": "x"}, **ana)).status == 200
    reader = scene.stack.key("reader", acts=True)
    check_error(await scene.stack.chat(reader, headers=ana), 503, "grounding_unavailable")
    assert scene.model.counted == 1


async def test_embeddings_of_a_workload_without_them_are_refused(scene: Scene) -> None:
    key = scene.stack.key("lonely")
    error = check_error(
        await scene.stack.post(EMBEDDINGS, key, {"model": "auto", "input": "x"}), 404, "model_not_found"
    )
    assert "embedding" in error["message"]
    check_error(await scene.stack.post(EMBEDDINGS, key, {"model": "auto", "input": []}), 400, "input_empty")
