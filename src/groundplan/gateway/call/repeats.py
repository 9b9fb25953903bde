"""Finds requests that several workloads repeat, without storing any: one request in `SHARE` leaves a keyed digest.

Requests are sampled by their text, so that either all calls with the same text are sampled or none; the sample changes
from day to day. Digests are made in a thread; a call only queues its fields. A digest covers the caller's request and
the workload's system prompt, but not the model, the person, or how the answer is sent. The key is that of the day and
is deleted with it (docs/cost.md); this process holds it only while it computes digests.

Not sampled: restricted workloads, those with sources (what their models were given is in the ledger), calls with media,
long ones, and the gateway's own.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from typing import Any, Final
from uuid import UUID
from zlib import crc32

import msgspec
from psycopg import Connection

from groundplan.core.ids import new_id
from groundplan.core.money import to_decimal
from groundplan.economics.levers.model import SHARE
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.database import database_unavailable
from groundplan.gateway.thread_connections import ThreadConnections
from groundplan.gateway.write_behind import WriteBehindQueue

MAX_WAITING: Final = 1_000
"""Requests that may wait for their digests."""
MAX_BYTES: Final = 32 << 10
TAIL_CHARS: Final = 128
DIGESTS_PER_TURN: Final = 20
"""Digests after which the thread yields to the event loop."""
_DAY_SECONDS: Final = 86_400
IGNORED_FIELDS: Final = frozenset(
    {
        "model", "user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "metadata", "store",
        "stream", "stream_options", "max_tokens", "max_completion_tokens", "max_output_tokens", "service_tier",
    }
)  # fmt: skip
_ADD = "INSERT INTO asked (id, day, digest, workload, cost_usd) VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"
_encode = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class Request:
    """The request of an answered call in the sample."""

    id: UUID
    day: date
    workload: str
    endpoint: str
    prompt: str
    """The workload's system prompt."""
    fields: dict[str, msgspec.Raw]
    cost: int


_unavailable = partial(database_unavailable, "the database is not reachable", "They are compared when it is back.")


class Repeats(WriteBehindQueue[Request]):
    """Queues the sampled requests of one worker, and stores their digests. It connects at the first one."""

    interval_seconds = 5.0

    def __init__(self, url: str) -> None:
        super().__init__("requests to be compared", MAX_WAITING)
        self._database = ThreadConnections(url, "repeats", 1, _unavailable)

    def record_call(self, exchange: Exchange, now: float) -> None:
        """Queue the request of a call that was answered at `now` (seconds since the epoch), if it is in the sample."""
        ask, workload = exchange.ask, exchange.workload
        if ask is None or workload is None or not exchange.cost or exchange.parent_call or ask.size > MAX_BYTES:
            return
        if not is_sampled(ask, int(now // _DAY_SECONDS)):
            return  # nearly no call is, so this is checked first
        if workload.grounding is not None or workload.sensitivity == "restricted":
            return
        if ask.images or ask.audio_kib or ask.upload is not None or ask.files:
            return
        today = datetime.fromtimestamp(now, UTC).date()
        prompt = workload.system_prompt or ""
        self.add(Request(new_id(), today, workload.name, exchange.endpoint, prompt, ask.fields, exchange.cost))

    async def put(self, facts: Sequence[Request]) -> None:
        await self._database.run(lambda conn: _add(conn, facts))

    async def close(self) -> None:
        await super().close()
        await self._database.close()


def _add(conn: Connection[Any], facts: Sequence[Request]) -> None:
    """Store the digests of requests, made with the keys of their days; a day that is over has no key, and its requests
    are dropped. Runs in a thread."""
    keys: dict[date, bytes | None] = {}
    rows = []
    for index, fact in enumerate(facts):
        if fact.day not in keys:
            row = conn.execute("SELECT key_of_asked(%s)", (fact.day,)).fetchone()
            keys[fact.day] = None if row is None else row[0]
        key = keys[fact.day]
        digest = None if key is None else request_digest(fact, key)
        if digest is not None:
            rows.append((fact.id, fact.day, digest, fact.workload, to_decimal(fact.cost)))
        if index % DIGESTS_PER_TURN == DIGESTS_PER_TURN - 1:
            time.sleep(0)
    with conn.transaction(), conn.cursor() as cursor:
        cursor.executemany(_ADD, rows)


def is_sampled(ask: Ask, day: int) -> bool:
    """Whether requests with this text are sampled on that day (whole days since the epoch): one in `SHARE`, by the end
    of the text."""
    text = ask.query[-TAIL_CHARS:]
    data = text.encode("utf-8", "surrogatepass") if text else bytes(ask.fields.get("input") or b"")[-TAIL_CHARS:]
    return (crc32(data) + day) % SHARE == 0


def request_digest(request: Request, key: bytes) -> bytes | None:
    """The digest of a request, 16 bytes; None where its body cannot be compared. The order of keys, white space and
    escapes make no difference."""
    try:
        fields = {name: _decode(raw) for name, raw in request.fields.items() if name not in IGNORED_FIELDS}
        given = {name: value for name, value in fields.items() if value is not None}
        body = _encode((request.endpoint, request.prompt, given))
    except (msgspec.DecodeError, UnicodeError, ValueError, RecursionError):
        return None
    return hashlib.blake2b(body, key=key, digest_size=16).digest()
