"""Which requests several workloads make alike, found without keeping any: of one request in `SHARE` a keyed digest.

Whether a request is looked at is decided by what it asks, so that all calls that ask it are looked at or none; which
ones are changes with the day. Beside that, a call only leaves its body here. What is compared is what the caller asked
and what the workload puts in front of it, but not which model, for whom, or how the answer is sent. The key is the
day's, and deleted with it (docs/cost.md); this process holds it no longer than it digests with it.

Left out are workloads that are restricted, those with sources (what was given to their models is in the ledger), calls
with media, long ones, and those that the gateway makes itself.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final
from uuid import UUID
from zlib import crc32

import msgspec
from psycopg import Connection

from groundplan.core.errors import Unavailable
from groundplan.core.ids import new_id
from groundplan.core.money import to_decimal
from groundplan.economics.levers.model import SHARE
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.journal.thread_connections import ThreadConnections
from groundplan.gateway.write_behind import WriteBehindQueue

MOST: Final = 1_000
"""Bodies that may wait."""
LONGEST: Final = 32 << 10
TAIL: Final = 128
AT_ONCE: Final = 20
"""Digests after which the thread lets the loop of the calls go on."""
_DAY_SECONDS: Final = 86_400
NO_MATTER: Final = frozenset(
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
    """One answered call that is looked at."""

    id: UUID
    day: date
    workload: str
    endpoint: str
    prompt: str
    """Of the workload, in front of what the caller asked."""
    fields: dict[str, msgspec.Raw]
    cost: int


class Repeats(WriteBehindQueue[Request]):
    """Of one worker. It connects at the first one."""

    every = 5.0

    def __init__(self, url: str) -> None:
        super().__init__("requests to be compared", MOST)
        self._database = ThreadConnections(url, "repeats", 1, _unreachable)

    def note(self, exchange: Exchange, now: float) -> None:
        """A call that was answered at `now` (seconds since the epoch), where it is one of those that are looked at."""
        ask, workload = exchange.ask, exchange.workload
        if ask is None or workload is None or not exchange.cost or exchange.parent_call or ask.size > LONGEST:
            return
        if not picked(ask, int(now // _DAY_SECONDS)):
            return  # nearly none is, so this is asked first
        if workload.grounding is not None or workload.sensitivity == "restricted":
            return
        if ask.images or ask.audio_kib or ask.upload is not None or ask.files:
            return
        today = datetime.fromtimestamp(now, UTC).date()
        prompt = workload.system_prompt or ""
        made = Request(new_id(), today, workload.name, exchange.endpoint, prompt, ask.fields, exchange.cost)
        self.add(made)

    async def put(self, facts: Sequence[Request]) -> None:
        await self._database.run(lambda conn: _add(conn, facts))

    async def close(self) -> None:
        await super().close()
        await self._database.close()


def _add(conn: Connection[Any], facts: Sequence[Request]) -> None:
    """In a thread: digested with the keys of their days; those of days that are over are left out."""
    keys: dict[date, bytes | None] = {}
    rows = []
    for place, fact in enumerate(facts):
        if fact.day not in keys:
            row = conn.execute("SELECT key_of_asked(%s)", (fact.day,)).fetchone()
            keys[fact.day] = None if row is None else row[0]
        key = keys[fact.day]
        made = None if key is None else digest(fact, key)
        if made is not None:
            rows.append((fact.id, fact.day, made, fact.workload, to_decimal(fact.cost)))
        if place % AT_ONCE == AT_ONCE - 1:
            time.sleep(0)
    with conn.transaction(), conn.cursor() as cursor:
        cursor.executemany(_ADD, rows)


def _unreachable() -> Unavailable:
    hint = "They are compared when it is back."
    return Unavailable("the database is not reachable", code="database_unavailable", hint=hint)


def picked(ask: Ask, day: int) -> bool:
    """Whether requests that ask this are looked at on that day (whole days since the epoch), by the end of what they
    ask: one in `SHARE`."""
    text = ask.query[-TAIL:]
    data = text.encode("utf-8", "surrogatepass") if text else bytes(ask.fields.get("input") or b"")[-TAIL:]
    return (crc32(data) + day) % SHARE == 0


def digest(request: Request, key: bytes) -> bytes | None:
    """16 bytes; None where its body cannot be compared. The order of keys, white space and escapes make no
    difference."""
    try:
        asked = {name: _decode(raw) for name, raw in request.fields.items() if name not in NO_MATTER}
        said = {name: value for name, value in asked.items() if value is not None}
        body = _encode((request.endpoint, request.prompt, said))
    except (msgspec.DecodeError, UnicodeError, ValueError, RecursionError):
        return None
    return hashlib.blake2b(body, key=key, digest_size=16).digest()
