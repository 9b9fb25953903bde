"""An HTTP/2 server for tests, on the `h2` state machine: forwards each stream to an HTTP/1.1 server, and resets the
stream if that one breaks off."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions

from groundplan.gateway.upstream.connection import UpstreamFailure
from groundplan.gateway.upstream.http1_pool import Http1Pool

_HEADS = {
    "packed": (b"content-encoding", b"gzip"),
    "long": (b"x-long", b"a" * 17_000),
    "fits": (b"x-long", b"a" * 15_000),
}


@dataclass
class _Stream:
    headers: dict[bytes, bytes]
    body: bytes = b""
    room: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class _Connection(asyncio.Protocol):
    def __init__(self, server: H2Server) -> None:
        self._server = server
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
        self._streams: dict[int, _Stream] = {}
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server.transports.add(self._transport)
        self._h2.initiate_connection()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- asyncio's signature
        if self._transport is not None:
            self._server.transports.discard(self._transport)
        for stream in self._streams.values():
            if stream.task is not None:
                stream.task.cancel()

    def _flush(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(self._h2.data_to_send())

    def data_received(self, data: bytes) -> None:
        for event in self._h2.receive_data(data):
            self._on(event)
        self._flush()

    def _on(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self._server.requests += 1
            self._streams[event.stream_id] = _Stream(dict(event.headers))
        elif isinstance(event, h2.events.DataReceived):
            self._streams[event.stream_id].body += event.data
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded) and self._server.refuses_next():
            self._refuse(event.stream_id)
        elif isinstance(event, h2.events.StreamEnded) and self._server.drops_connection and self._transport is not None:
            self._transport.abort()
        elif isinstance(event, h2.events.StreamEnded):
            stream = self._streams[event.stream_id]
            stream.task = asyncio.get_running_loop().create_task(self._answer(event.stream_id, stream))
        elif isinstance(event, h2.events.WindowUpdated):
            for stream in self._streams.values():
                stream.room.set()
        elif isinstance(event, h2.events.StreamReset):
            self._server.resets += 1
            reset = self._streams.pop(event.stream_id, None)
            if reset is not None and reset.task is not None:
                reset.task.cancel()

    def _refuse(self, number: int) -> None:
        if self._server.refusal == "stream":
            self._h2.reset_stream(number, h2.errors.ErrorCodes.REFUSED_STREAM)
        elif self._server.refusal == "connection":
            self._h2.close_connection(last_stream_id=0)
        elif self._server.refusal in _HEADS:
            self._h2.send_headers(number, [(b":status", b"200"), _HEADS[self._server.refusal]])
            self._h2.send_data(number, b"{}", end_stream=True)
        elif self._server.refusal == "rest":
            self._h2.send_headers(number, [(b":status", b"200"), (b"content-length", b"10")])
            self._h2.send_data(number, b"half")
            self._h2.reset_stream(number, h2.errors.ErrorCodes.NO_ERROR)
        else:
            self._h2.send_headers(number, [(b":status", b"200")])
            self._h2.reset_stream(number, h2.errors.ErrorCodes.REFUSED_STREAM)

    async def _answer(self, number: int, stream: _Stream) -> None:
        pool = Http1Pool(f"http://127.0.0.1:{self._server.backend_port}", asyncio.get_running_loop())
        connection = await pool.connect(2.0)
        try:
            own = (b"content-length", b"host", b"connection", b"transfer-encoding")
            passed = [(n, v) for n, v in stream.headers.items() if not n.startswith(b":") and n not in own]
            head = b"%b %b HTTP/1.1\r\nhost: u\r\n" % (stream.headers[b":method"], stream.headers[b":path"])
            lines = b"".join(b"%b: %b\r\n" % pair for pair in passed)
            connection.send(head + lines + b"content-length: %d\r\n\r\n" % len(stream.body) + stream.body)
            status = await connection.read_head(30)
            kept = [(n, v) for n, v in connection.headers.items() if n in (b"content-type", b"content-encoding")]
            self._h2.send_headers(number, [(b":status", b"%d" % status), *kept])
            while (data := await connection.read_chunk(30)) is not None:
                await self._send(number, stream, data)
            self._h2.end_stream(number)
        except UpstreamFailure:
            self._h2.reset_stream(number, h2.errors.ErrorCodes.INTERNAL_ERROR)
        finally:
            connection.release()
            pool.close()
            self._flush()

    async def _send(self, number: int, stream: _Stream, data: bytes) -> None:
        while data:
            room = min(self._h2.local_flow_control_window(number), self._h2.max_outbound_frame_size)
            if room <= 0:
                stream.room.clear()
                await stream.room.wait()
                continue
            self._h2.send_data(number, data[:room])
            data = data[room:]
            self._flush()


class H2Server:
    """`backend_port` is the port of the HTTP/1.1 server that answers."""

    def __init__(self, backend_port: int) -> None:
        self.backend_port = backend_port
        self.port = 0
        self.requests = 0
        self.resets = 0
        self.drops_connection = False
        """Whether the connection is aborted as soon as a request has arrived."""
        self.refusal = ""
        """How it refuses a request as unprocessed: the `stream`, the `connection`, or after its answer has `begun`.
        `rest`: it sends part of the answer and resets the stream without an error. `packed`, `long`, `fits`: it answers
        with a head that is compressed, above 16 KiB, below it."""
        self.refusals_left = 1000
        """How many requests it refuses before it answers."""
        self.on_refusal: Callable[[], None] | None = None
        self.transports: set[asyncio.Transport] = set()

    def refuses_next(self) -> bool:
        """Whether the next request is refused, which is counted."""
        if not (self.refusal and self.refusals_left):
            return False
        self.refusals_left -= 1
        if self.on_refusal is not None:
            self.on_refusal()
        return True

    @asynccontextmanager
    async def listening(
        self, context: ssl.SSLContext | None, at: socket.socket | None = None
    ) -> AsyncIterator[H2Server]:
        """`at`: a socket that is already listening; by default a new one."""
        if context is not None:
            context.set_alpn_protocols(["h2"])
        loop = asyncio.get_running_loop()
        address: dict[str, Any] = {"host": "127.0.0.1", "port": 0} if at is None else {"sock": at}
        listener = await loop.create_server(lambda: _Connection(self), **address, ssl=context)
        self.port = listener.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            listener.close()
            for transport in list(self.transports):
                transport.abort()
            await asyncio.sleep(0)
