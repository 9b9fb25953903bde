"""What is sent wrongly to the control API, at the real process: each a clear error, and nothing changed.

No trace stands in its log afterwards.
Missing fields and unknown paths are in test_api_control.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from tests.integration.gateway_stack import Reply, parse_reply
from tests.integration.nursery import run_command
from tests.integration.test_api_control import Control, run_control

from groundplan.api.http import protocol
from groundplan.api.http.protocol import MAX_BODIES_BYTES, MAX_REQUESTS
from groundplan.core.ids import new_id
from groundplan.testing.database import Cluster

MIB = 1 << 20


@pytest.fixture(scope="module")
def control(postgres_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    folder = tmp_path_factory.mktemp("control")
    with postgres_cluster.database() as database, run_control(database, folder) as found:
        yield found
        log = (folder / "control.log").read_text()
        assert "Traceback" not in log, log[-3000:]


def check_error(reply: Reply, status: int, code: str) -> dict[str, Any]:
    assert (reply.status, reply.code) == (status, code), reply.body[:500]
    error: dict[str, Any] = reply.json["error"]
    assert error["message"] and error["hint"]
    assert b"Traceback" not in reply.body and b".py" not in reply.body
    return error


def raw(
    control: Control, lines: list[bytes], body: list[bytes], method: bytes = b"POST", path: bytes = b"/api/keys"
) -> bytes:
    """These very bytes, all of them sent before the answer is looked for."""
    token = control.home.operator_token.read_text().strip().encode()
    head = [method + b" " + path + b" HTTP/1.1", b"host: localhost", b"authorization: Bearer " + token, *lines]
    answer = b""
    with socket.create_connection(("127.0.0.1", control.port), timeout=60) as connection:
        with suppress(ConnectionError):
            connection.sendall(b"\r\n".join([*head, b"connection: close", b"", b""]))
            for part in body:
                connection.sendall(part)
        with suppress(ConnectionError):
            while got := connection.recv(65536):
                answer += got
    return answer


def exchanged(control: Control, sent: bytes) -> bytes:
    """All that is answered to these very bytes."""
    answer = b""
    with socket.create_connection(("127.0.0.1", control.port), timeout=60) as connection:
        connection.sendall(sent)
        with suppress(ConnectionError):
            while got := connection.recv(65536):
                answer += got
    return answer


def keys(control: Control) -> int:
    return len(control.ask("GET", "/api/keys").body["keys"])


def test_fifty_megabytes_are_refused(control: Control) -> None:
    length = b"content-length: %d" % (50 * MIB)
    answer = parse_reply(raw(control, [b"content-type: application/json", length], [bytes(MIB)] * 50))
    check_error(answer, 413, "body_too_large")


def test_fifty_megabytes_without_a_length_are_refused(control: Control) -> None:
    lines = [b"content-type: application/json", b"transfer-encoding: chunked"]
    chunk = b"100000\r\n" + b" " * MIB + b"\r\n"
    check_error(parse_reply(raw(control, lines, [chunk] * 50)), 413, "body_too_large")


def test_an_endless_head_is_not_buffered(control: Control) -> None:
    with socket.create_connection(("127.0.0.1", control.port), timeout=10) as connection, suppress(ConnectionError):
        connection.sendall(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nx-one: ")
        connection.sendall(b"a" * MIB)
        assert connection.recv(65536).startswith(b"HTTP/1.1 4")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'"text"', b'{"workload": 7}', b'{"workload": "assistant"} trailing', b"[" * 100_000],
)
def test_malformed_json_is_refused(control: Control, body: bytes) -> None:
    before = keys(control)
    lines = [b"content-type: application/json", b"content-length: %d" % len(body)]
    reply = parse_reply(raw(control, lines, [body]))
    check_error(reply, 400 if len(body) > 1000 else 422, "request_invalid")
    assert keys(control) == before


@pytest.mark.parametrize(
    "body",
    [
        b'{"workload": "\xff\xfe"}',
        json.dumps({"workload": "\u00e4"}, ensure_ascii=False).encode("latin-1"),
        b'{"workload": "\\ud800"}',
        b'{"workload": "a\\u0000b"}',
        json.dumps({"workload": "assistant"}).encode("utf-16")[:-1],
    ],
)
def test_a_body_that_is_not_text_is_refused(control: Control, body: bytes) -> None:
    before = keys(control)
    lines = [b"content-type: application/json", b"content-length: %d" % len(body)]
    reply = parse_reply(raw(control, lines, [body]))
    assert 400 <= reply.status < 500, reply.body
    assert reply.json["error"]["code"] != "internal" and reply.json["error"]["hint"]
    assert keys(control) == before


@pytest.mark.parametrize("value", [b"\xff\xfe", "\u00e4".encode("latin-1"), b"%0d%0ax-injected: 1"])
def test_headers_that_are_not_text_are_refused(control: Control, value: bytes) -> None:
    cases = (
        [b"authorization: Bearer " + value],
        [b"cookie: groundplan_session_%d=%b" % (control.port, value)],
        [b"x-csrf-token: " + value, b"cookie: groundplan_session_%d=%b" % (control.port, value)],
    )
    for lines in cases:
        with socket.create_connection(("127.0.0.1", control.port), timeout=60) as connection:
            head = [b"POST /api/keys HTTP/1.1", b"host: localhost", b"connection: close", b"content-length: 2", *lines]
            connection.sendall(b"\r\n".join([*head, b"", b"{}"]))
            answer = b""
            while got := connection.recv(65536):
                answer += got
        reply = parse_reply(answer)
        assert reply.status == 401 and reply.json["error"]["hint"], answer
        assert "x-injected" not in reply.headers and value not in answer


@pytest.mark.parametrize(
    "sent", [b"hello\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET / HTTP/9\r\n\r\n"]
)
def test_a_malformed_request_gets_an_error_of_the_usual_shape(control: Control, sent: bytes) -> None:
    """As TLS, which is spoken to an address that begins with https."""
    check_error(parse_reply(exchanged(control, sent)), 400, "malformed_request")


def test_a_started_answer_is_cut_when_its_request_becomes_malformed(control: Control) -> None:
    token = control.home.operator_token.read_text().strip().encode()
    with socket.create_connection(("127.0.0.1", control.port), timeout=60) as connection:
        lines = (b"host: localhost", b"authorization: Bearer " + token, b"transfer-encoding: chunked", b"", b"")
        connection.sendall(b"\r\n".join((b"GET /api/calls/live HTTP/1.1", *lines)))
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.sendall(b"no length of a chunk\r\n")
        while connection.recv(65536):
            pass


LIVEZ = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n"


def connected(control: Control, stack: ExitStack, sent: bytes = b"") -> socket.socket:
    connection = stack.enter_context(socket.create_connection(("127.0.0.1", control.port), timeout=60))
    connection.sendall(sent)
    return connection


async def test_one_request_too_many_is_refused_with_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MAX_REQUESTS", 3)
    begun, release = asyncio.Semaphore(0), asyncio.Event()

    async def app(_: Scope, __: Receive, send: Send) -> None:
        begun.release()
        await release.wait()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    config = uvicorn.Config(app, http=protocol.ControlProtocol, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server.serve([listener]))
        port = listener.getsockname()[1]
        busy = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        for _, writer in busy:
            writer.write(LIVEZ)
            await begun.acquire()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(LIVEZ)
        refused = parse_reply(await reader.read())
        release.set()
        answers = [await reader.readuntil(b"\r\n") for reader, _ in busy]
        server.should_exit = True
        for _, one in [*busy, (reader, writer)]:
            one.close()
        await serving
    check_error(refused, 503, "control_full")
    assert refused.headers["retry-after"] == "1"
    assert all(answer.startswith(b"HTTP/1.1 204") for answer in answers)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET /livez HTTP/1.1\r\nhost: localhost\r\nx-slow: ",
        b"POST /api/keys HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{",
        LIVEZ,
    ],
    ids=["silent", "in a head", "in a body", "kept"],
)
def test_connections_that_wait_for_their_client_lock_nobody_out(control: Control, sent: bytes) -> None:
    with ExitStack() as stack:
        first = connected(control, stack, sent)
        for _ in range(MAX_REQUESTS + 20):
            connected(control, stack, sent)
        assert control.ask("GET", "/livez").status == 200
        with suppress(ConnectionError):  # the one that has waited longest was closed
            while first.recv(65536):
                pass


def test_bodies_of_unknown_callers_are_bounded_together(control: Control) -> None:
    head = b"POST /api/keys HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    most = 16 * MIB
    with ExitStack() as stack:
        first = connected(control, stack, head % most)
        first.sendall(b" " * (most - MIB))
        for _ in range(MAX_BODIES_BYTES // (most - MIB)):
            with suppress(ConnectionError):
                connected(control, stack, head % most).sendall(b" " * (most - MIB))
        answer = b""
        with suppress(ConnectionError):
            while got := first.recv(65536):
                answer += got
        check_error(parse_reply(answer), 503, "control_full")
        assert control.ask("GET", "/livez").status == 200


def test_a_header_cannot_be_split(control: Control) -> None:
    for line in (b"x-one: a\nx-two: b", b"x-one: a\rx-two: b", b"x-one: a\0b", b"content-length: 5", b"host: other"):
        answer = raw(control, [line, b"content-length: 2"], [b"{}"])
        assert answer.count(b"HTTP/1.1 ") == 1 and answer[9:10] == b"4", (line, answer)


def test_request_content_is_reflected_into_no_header(control: Control) -> None:
    for path in (
        b"/api/why/%0d%0aset-cookie:%20a=b",
        b"/login/%0d%0aset-cookie:%20a=b",
        b"/api/nowhere%0d%0ax-injected:1",
        b"/api/blueprints/%ff%fe",
        b"/api/calls/%00",
        b"/api/calls?workload=%00",
        b"/api/why/%00",
        b"/api/audit?subject=%00",
    ):
        reply = parse_reply(raw(control, [], [], b"GET", path))
        assert 200 <= reply.status < 500, (path, reply)
        assert "set-cookie" not in reply.headers and "x-injected" not in reply.headers


@pytest.mark.parametrize("path", ["/api/experiments", "/api/replays"])
def test_a_budget_below_the_stored_precision_is_refused(control: Control, path: str) -> None:
    asked = {"workload": "assistant", "name": "try", "candidate": "small", "reason": "why"}
    if path == "/api/replays":
        asked = {"workload": "assistant", "candidate": "small", "judge": "large"}
    answer = control.ask("POST", path, {**asked, "budget_usd": 1e-13})
    assert (answer.status, answer.code) == (422, "request_invalid"), answer.body
    assert "budget_usd" in str(answer.body["error"])


def test_head_answers_like_get_without_a_body_and_uses_up_no_login_link(control: Control) -> None:
    for path in ("/api/status", "/livez", "/api/nowhere", "/api/calls/live"):
        asked = control.ask("HEAD", path)
        assert asked.body == b"" and asked.status == (404 if path == "/api/nowhere" else 200), path
        assert path == "/livez" or asked.headers["content-type"].startswith(("application/json", "text/event-stream"))
    assert (
        control.ask("HEAD", "/livez").headers["content-length"]
        == control.ask("GET", "/livez").headers["content-length"]
    )
    link = urlsplit(control.ask("POST", "/api/login-links", {}).body["url"]).path
    assert control.ask("HEAD", link, Authorization="").status == 405
    assert control.ask("GET", link, Authorization="").status == 303


def test_an_unknown_filter_value_is_refused_instead_of_an_empty_list(control: Control) -> None:
    for path in ("changes?state=none", "knowledge/documents?state=none", "register?kind=none", "traffic?status=none"):
        check_error(parse_reply(raw(control, [], [], b"GET", f"/api/{path}".encode())), 422, "request_invalid")
    for path in ("traffic?workload=none", "cost/tickets?workload=none", "cost/runway?workload=none"):
        check_error(parse_reply(raw(control, [], [], b"GET", f"/api/{path}".encode())), 404, "workload_unknown")
    assert control.ask("GET", "/api/traffic?deployment=none").code == "deployment_unknown"
    assert control.ask("GET", "/api/traffic?workload=assistant&deployment=local").status == 200
    renewed = control.ask("POST", f"/api/changes/{new_id()}/renew", {"reason": "because"})
    assert (renewed.status, renewed.code) == (404, "change_unknown")


def test_a_malformed_time_is_refused_with_an_example(control: Control) -> None:
    for path in ("audit?since=yesterday", "cost/book?first=2026-13-01"):
        error = check_error(parse_reply(raw(control, [], [], b"GET", f"/api/{path}".encode())), 422, "request_invalid")
        assert "is no " in error["message"] and "like 2026-11-25" in error["problems"][0]["hint"], error


def test_a_question_without_a_known_gateway_is_refused(control: Control) -> None:
    environment = {**os.environ, "GROUNDPLAN_URL": f"http://127.0.0.1:{control.port}"}
    asked = ("ask", "hi", "--workload", "assistant", "--home", str(control.home.root), "--json")
    done = run_command(asked, environment, timeout=60)
    assert done.returncode == 69 and json.loads(done.stdout)["error"]["code"] == "gateway_unreachable"
