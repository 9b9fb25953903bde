"""GET /metrics: one address reports every worker of a HOME. Off the request path.

Each worker announces a small service of its own on loopback (`gateway-metrics-SLOT`), with a token; the worker that
answers a scrape asks the others, and adds what was counted by workers that are gone or being replaced
(`stopped_workers`). `metrics_api` decides who may ask.
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
from groundplan.gateway.failure_log import FailureLog
from groundplan.gateway.http.errors import refusal_body
from groundplan.gateway.http.server import Request, Response, Server
from groundplan.gateway.telemetry import stopped_workers
from groundplan.gateway.telemetry.exposition import Family, render_pieces, single_sample, with_these_bounds
from groundplan.gateway.upstream.connection import UpstreamFailure
from groundplan.gateway.upstream.http1_pool import Http1Pool

SERVICE = "gateway-metrics-"
SHIPPER = "shipper"
"""Stands in place of a worker's slot."""
ANSWER_SECONDS = 1.0
WATCH_SECONDS = 2.0
"""Interval between two checks of which worker is announced for the slot."""
_log = logging.getLogger(__name__)
_NAME = re.compile(rf"{SERVICE}([0-9]{{1,4}}|{SHIPPER})\.json")
_UP = "groundplan_gateway_worker_up"
_UP_HELP = "1 for a process that reports, 0 for one that should run and does not."
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Family]).decode


class MetricsScraper:
    """This worker's part in the metrics of its HOME. `open` it before the worker serves."""

    def __init__(self, home: Home, slot: int, token: str | None, workers: int = 0) -> None:
        """`token` is a secret reference. `workers`: how many should run; 0: those that are announced."""
        self.slot = slot
        self._workers = workers
        self._home = home
        self._reference = token
        self._token = secrets.token_hex(32)
        self._write_lock = asyncio.Lock()
        """Keeps writes in the order of counting."""
        self._failure_log = FailureLog(_log)
        self._watch_task: asyncio.Task[None] | None = None

    async def open(self, own_families: Callable[[], Awaitable[list[Family]]]) -> None:
        """Listen for scrapes by the other workers, and announce the address."""
        loop = asyncio.get_running_loop()
        self._own_families = own_families

        async def handle(request: Request, response: Response) -> None:
            authorization = request.headers.get(b"authorization", b"")
            if secrets.compare_digest(authorization, b"Bearer " + self._token.encode()):
                families = await own_families()
                await self._write(families)
                response.send(200, _encode(families), content_type=b"content-type: application/msgpack\r\n")
            else:
                response.send(401, b"{}")

        self._server = Server(handle, refusal_body, loop)
        self._listener = await loop.create_server(self._server.create_connection, "127.0.0.1", 0)
        before = lookup(self._home, f"{SERVICE}{self.slot}")
        with suppress(OSError):
            stopped_workers.fold(self._home, self.slot, "" if before is None else _worker_id(before.token))
        with suppress(OSError):  # calls are served even where the disk takes nothing; `_watch` announces later
            self._announce()
        self._watch_task = loop.create_task(self._watch())

    def _announce(self) -> None:
        port = self._listener.sockets[0].getsockname()[1]
        announce(self._home, f"{SERVICE}{self.slot}", f"http://127.0.0.1:{port}", self._token)

    async def close(self) -> None:
        """Write the final counts, and stop."""
        if self._watch_task is not None:
            self._watch_task.cancel()
            await asyncio.wait([self._watch_task])
        await self._write(await self._own_families())
        withdraw(self._home, f"{SERVICE}{self.slot}")
        self._listener.close()
        await self._server.drain(0.1)

    async def _watch(self) -> None:
        """Keep this worker announced for its slot. While a successor has the slot, scrapes do not ask this worker, so
        it writes its counts as it answers its last calls. When the successor is gone, it announces itself again."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            found = lookup(self._home, f"{SERVICE}{self.slot}")
            if found is None:
                with suppress(OSError):
                    self._announce()
            elif found.token != self._token:
                await self._write(await self._own_families())

    async def _write(self, families: list[Family]) -> None:
        """Write counts before they are reported, so that reported totals can only grow."""
        try:
            async with self._write_lock:
                await asyncio.to_thread(stopped_workers.write, self._home, self.slot, _worker_id(self._token), families)
        except (OSError, RuntimeError) as error:  # this user may have no more threads now
            self._failure_log.record_failure("what this worker has counted could not be written: %s", error)
        else:
            self._failure_log.record_success()

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
        """Whether this slot should have a worker: not a higher one, whose killed worker could not withdraw."""
        return name == SHIPPER or not self._workers or int(name) < self._workers

    async def render_all(self, own: list[Family]) -> bytes:
        """Return the exposition of all workers, with the counts of earlier ones; a worker that does not answer is
        reported as down, with its last written counts."""
        await self._write(own)
        announced = {name: lookup(self._home, f"{SERVICE}{name}") for name in announced_names(self._home)}
        names = [name for name in announced if name != str(self.slot) and (announced[name] or self._should_run(name))]
        places = [announced[name] for name in names]
        others = await asyncio.gather(*map(_ask, places))
        answered = zip(places, others, strict=True)
        reporting = {
            _worker_id(self._token),
            *(_worker_id(place.token) for place, answer in answered if place and answer is not None),
        }
        stopped = await asyncio.to_thread(stopped_workers.read, self._home, reporting)
        found = with_up_family({str(self.slot): own, **dict(zip(names, others, strict=True))})
        workers = [(name, await _continued_families(families, stopped.pop(name, []))) for name, families in found]
        workers += [
            (name, [stopped_workers.to_family(each) for each in counted]) for name, counted in sorted(stopped.items())
        ]
        parts = []
        for part in render_pieces(workers):
            parts.append(part)
            await asyncio.sleep(0)  # calls come first
        return b"".join(parts)


def announced_names(home: Home) -> list[str]:
    """Return announced slots of workers, alive or not, and the shipper."""
    try:
        names = [path.name for path in (home.run / "endpoints.d").iterdir()]
    except OSError:
        return []
    return sorted(match.group(1) for name in names if (match := _NAME.fullmatch(name)))


def with_up_family(found: dict[str, list[Family] | None]) -> list[tuple[str, list[Family]]]:
    """Add to each worker, and the shipper, whether it answers; None is one that does not."""
    return [
        (name, [single_sample(_UP, "gauge", _UP_HELP, int(families is not None)), *(families or [])])
        for name, families in sorted(found.items())
    ]


def _worker_id(token: str) -> str:
    """Return the id of a worker in the names of files."""
    return hashlib.sha256(token.encode()).hexdigest()[:16]


async def _continued_families(families: list[Family], left: list[stopped_workers.Counted]) -> list[Family]:
    """Add to the families of a slot the counts of its earlier workers."""
    earlier, continued = {each.name: each for each in left}, list[Family]()
    for family in families:
        continued.append(stopped_workers.continue_family(family, earlier.pop(family.name, None)))
        await asyncio.sleep(0)  # calls come first
    return [*continued, *map(stopped_workers.to_family, earlier.values())]


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
        if status != 200:
            return None
        return [msgspec.structs.replace(each, series=with_these_bounds(each.series)) for each in _decode(data)]
    finally:
        connection.release()
