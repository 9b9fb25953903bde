"""Shares kept answers between the workers of one HOME, so that a replay does not depend on which worker a client meets.

Each worker has a small HTTP service on loopback; its port and token are in the head of its idempotency files, which
only this user can read. It serves kept answers and nothing else."""

from __future__ import annotations

import asyncio
import secrets

import msgspec

from groundplan.core.errors import Conflict
from groundplan.gateway.caching.idempotency import Holder, IdempotentAnswers, KeptAnswer, mismatch_error
from groundplan.gateway.http.errors import refusal_body
from groundplan.gateway.http.server import Request, Response, Server
from groundplan.gateway.upstream.connection import UpstreamFailure
from groundplan.gateway.upstream.http1_pool import Http1Pool

CONNECT_SECONDS = 0.5
ANSWER_SECONDS = 60.0
_decode = msgspec.msgpack.Decoder(KeptAnswer).decode
_encode = msgspec.msgpack.Encoder().encode


class AnswerServer:
    """Serves the kept answers of this worker to other workers. `open` it before the worker serves."""

    def __init__(self, answers: IdempotentAnswers) -> None:
        self._answers = answers
        self._token = secrets.token_bytes(32)

    async def open(self) -> None:
        """Listen, publish the address, and read the keys of other workers."""
        loop = asyncio.get_running_loop()
        self._server = Server(self._handle, refusal_body, loop)
        self._listener = await loop.create_server(self._server.create_connection, "127.0.0.1", 0)
        self._answers.open(Holder(self._listener.sockets[0].getsockname()[1], self._token))
        await asyncio.to_thread(self._answers.catch_up)

    async def close(self) -> None:
        self._listener.close()
        await self._server.drain(0.1)

    async def _handle(self, request: Request, response: Response) -> None:
        given = request.headers.get(b"authorization", b"")
        if not secrets.compare_digest(given, b"Bearer " + self._token.hex().encode()) or len(request.body) != 64:
            response.send(401, b"{}")
            return
        digest, body = request.body[:32], request.body[32:]
        try:
            kept = await self._answers.find_for_worker(digest, body)
        except Conflict:
            response.send(422, b"{}")
            return
        if kept is None:
            response.send(404, b"{}")
        else:
            response.send(200, _encode(kept), content_type=b"content-type: application/msgpack\r\n")


async def fetch_answer(holders: list[Holder], digest: bytes, body: bytes) -> KeptAnswer | None:
    """The answer of the first of these workers that has one; None: none has it. Raises `Conflict` for another body."""
    for holder in holders:
        try:
            status, data = await _ask(holder, digest + body)
            if status == 200:
                return _decode(data)
        except (UpstreamFailure, msgspec.DecodeError):
            continue
        if status == 422:
            raise mismatch_error()
    return None


async def _ask(holder: Holder, body: bytes) -> tuple[int, bytes]:
    pool = Http1Pool(f"http://127.0.0.1:{holder.port}", asyncio.get_running_loop())
    connection = await pool.connect(CONNECT_SECONDS)
    try:
        token = holder.token.hex().encode()
        head = (
            b"POST / HTTP/1.1\r\nhost: w\r\nauthorization: Bearer %b\r\nconnection: close\r\ncontent-length: 64\r\n\r\n"
        )
        connection.send(head % token + body)
        return await connection.read_head(ANSWER_SECONDS), await connection.read_body(ANSWER_SECONDS)
    finally:
        connection.release()
