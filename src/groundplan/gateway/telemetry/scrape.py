"""GET /metrics: one address tells of every worker of a HOME. Off the request path.

Each worker announces a small service of its own on loopback (`gateway-metrics-SLOT`), with a token; whoever answers a
scrape asks the others, and adds what workers counted that are gone or being replaced (`stopped_workers`). Who may
ask is in `metrics_api`.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec

from groundplan.core.endpoints import Endpoint, announce, lookup, withdraw
from groundplan.core.errors import Invalid
from groundplan.core.home import Home
from groundplan.core.settings import resolve_secret
from groundplan.gateway.http.errors import refusal_body
from groundplan.gateway.http.server import Request, Response, Server
from groundplan.gateway.telemetry import stopped_workers
from groundplan.gateway.telemetry.exposition import Family, pieces, single
from groundplan.gateway.upstream.connection import UpstreamFailure
from groundplan.gateway.upstream.http1_pool import Http1Pool

SERVICE = "gateway-metrics-"
SHIPPER = "shipper"
"""Stands where workers have their slot."""
ANSWER_SECONDS = 1.0
LOOK_SECONDS = 2.0
"""Between two looks at who is announced for the slot."""
_log = logging.getLogger(__name__)
_NAME = re.compile(rf"{SERVICE}([0-9]{{1,4}}|{SHIPPER})\.json")
_UP = "groundplan_gateway_worker_up"
_UP_HELP = "0 where a process that should run does not tell."
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Family]).decode


class Scrapes:
    """This worker's part in the metrics of its HOME. `open` it before the worker serves."""

    def __init__(self, home: Home, slot: int, token: str | None, workers: int = 0) -> None:
        """`token` is a secret reference. `workers`: how many should run; 0: whoever is announced."""
        self.slot = slot
        self._workers = workers
        self._home = home
        self._reference = token
        self._token = secrets.token_hex(32)
        self._writing = asyncio.Lock()
        """In the order in which it was counted."""
        self._watching: asyncio.Task[None] | None = None

    async def open(self, own: Callable[[], Awaitable[list[Family]]]) -> None:
        """Listen for the other workers, and tell them where."""
        loop = asyncio.get_running_loop()
        self._own = own

        async def handle(request: Request, response: Response) -> None:
            given = request.headers.get(b"authorization", b"")
            if secrets.compare_digest(given, b"Bearer " + self._token.encode()):
                told = await own()
                await self._write(told)
                response.send(200, _encode(told), content_type=b"content-type: application/msgpack\r\n")
            else:
                response.send(401, b"{}")

        self._server = Server(handle, refusal_body, loop)
        self._listener = await loop.create_server(self._server.create_connection, "127.0.0.1", 0)
        before = lookup(self._home, f"{SERVICE}{self.slot}")
        with suppress(OSError):
            stopped_workers.fold(self._home, self.slot, "" if before is None else _id(before.token))
        with suppress(OSError):  # where the disk takes nothing calls are served all the same, and `_watch` tells it
            self._announce()
        self._watching = loop.create_task(self._watch())

    def _announce(self) -> None:
        port = self._listener.sockets[0].getsockname()[1]
        announce(self._home, f"{SERVICE}{self.slot}", f"http://127.0.0.1:{port}", self._token)

    async def close(self) -> None:
        """What it has counted stays."""
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        await self._write(await self._own())
        withdraw(self._home, f"{SERVICE}{self.slot}")
        self._listener.close()
        await self._server.drain(0.1)

    async def _watch(self) -> None:
        """While a successor has its place, nobody asks this worker any more, which still answers calls. Where the
        successor is gone again, the place is this one's."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            found = lookup(self._home, f"{SERVICE}{self.slot}")
            if found is None:
                with suppress(OSError):
                    self._announce()
            elif found.token != self._token:
                await self._write(await self._own())

    async def _write(self, told: list[Family]) -> None:
        """Before it is told, so that it can only grow."""
        try:
            async with self._writing:
                await asyncio.to_thread(stopped_workers.write, self._home, self.slot, _id(self._token), told)
        except (OSError, RuntimeError) as error:  # this user may have no more threads now
            _log.warning("what this worker has counted could not be written: %s", error)

    def admits(self, bearer: bytes) -> bool:
        """Whether `bearer` is the metrics token or the operator's."""
        return any(secrets.compare_digest(bearer, known) for known in self._tokens())

    def _tokens(self) -> list[bytes]:
        found = []
        try:
            found.append(self._home.operator_token.read_bytes().strip())
            if self._reference is not None:
                found.append(resolve_secret(self._reference).encode())
        except (OSError, Invalid):
            pass  # a token that cannot be read opens nothing
        return [token for token in found if token]

    def _should_run(self, name: str) -> bool:
        """Not where there are fewer workers now than those of which one was killed before it could say so."""
        return name == SHIPPER or not self._workers or int(name) < self._workers

    async def everybody(self, own: list[Family]) -> bytes:
        """The exposition of all workers, with what those before them counted; one that does not answer is told as
        down, and what it told last."""
        await self._write(own)
        announced = {name: lookup(self._home, f"{SERVICE}{name}") for name in known(self._home)}
        names = [name for name in announced if name != str(self.slot) and (announced[name] or self._should_run(name))]
        places = [announced[name] for name in names]
        others = await asyncio.gather(*map(_ask, places))
        asked = zip(places, others, strict=True)
        told = {_id(self._token), *(_id(place.token) for place, answer in asked if place and answer is not None)}
        left = await asyncio.to_thread(stopped_workers.read, self._home, told)
        found = ups({str(self.slot): own, **dict(zip(names, others, strict=True))})
        whole = [(name, await _gone_on(families, left.pop(name, []))) for name, families in found]
        whole += [(name, [stopped_workers.shown(each) for each in counted]) for name, counted in sorted(left.items())]
        parts = []
        for part in pieces(whole):
            parts.append(part)
            await asyncio.sleep(0)  # calls come first
        return b"".join(parts)


def known(home: Home) -> list[str]:
    """Who has announced itself, whether it lives or not: slots of workers, and the shipper."""
    try:
        names = [path.name for path in (home.run / "endpoints.d").iterdir()]
    except OSError:
        return []
    return sorted(match.group(1) for name in names if (match := _NAME.fullmatch(name)))


def ups(found: dict[str, list[Family] | None]) -> list[tuple[str, list[Family]]]:
    """Workers by slot, and the shipper, with whether they answer; None is one that does not."""
    return [
        (name, [single(_UP, "gauge", _UP_HELP, int(told is not None)), *(told or [])])
        for name, told in sorted(found.items())
    ]


def _id(token: str) -> str:
    """Of a worker, in the names of files."""
    return hashlib.sha256(token.encode()).hexdigest()[:16]


async def _gone_on(families: list[Family], left: list[stopped_workers.Counted]) -> list[Family]:
    """The families of a slot, with what others counted there before."""
    before, told = {each.name: each for each in left}, list[Family]()
    for family in families:
        told.append(stopped_workers.gone_on(family, before.pop(family.name, None)))
        await asyncio.sleep(0)  # calls come first
    return [*told, *map(stopped_workers.shown, before.values())]


async def _ask(endpoint: Endpoint | None) -> list[Family] | None:
    if endpoint is None:
        return None
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await _fetch(endpoint)
    except (UpstreamFailure, TimeoutError, msgspec.DecodeError):
        return None


async def _fetch(endpoint: Endpoint) -> list[Family] | None:
    pool = Http1Pool(endpoint.url, asyncio.get_running_loop())
    connection = await pool.connect(ANSWER_SECONDS)
    try:
        head = b"GET / HTTP/1.1\r\nhost: w\r\nauthorization: Bearer %b\r\nconnection: close\r\n\r\n"
        connection.send(head % endpoint.token.encode())
        status = await connection.read_head(ANSWER_SECONDS)
        data = await connection.read_body(ANSWER_SECONDS)
        return _decode(data) if status == 200 else None
    finally:
        connection.release()
