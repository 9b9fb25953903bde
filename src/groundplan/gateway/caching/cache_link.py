"""Exchanges cached answers between a worker and PostgreSQL, for workloads that keep content in full. No call waits for
it.

The other end is `cache_store`, in the shipper's process, over one loopback connection whose buffer is the bounded
queue: an answer that does not fit, or is sent without a connection, stays in this worker alone. A received answer is
accepted only where this worker would have kept it itself: same terms, not cleared since, not stopped, its person
active.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from groundplan.core.home import Home
from groundplan.gateway.caching.entry import Entry
from groundplan.gateway.call.ask import Passage
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.frame_client import FrameClient
from groundplan.gateway.frame_server import LENGTH
from groundplan.gateway.telemetry.content_link import is_sampled

if TYPE_CHECKING:
    from groundplan.gateway.call.context import Gateway

SERVICE = "answer-store"
MAX_ANSWER_BYTES = 5 << 20
"""Larger answers are not shared."""


class StoredAnswer(msgspec.Struct, frozen=True, array_like=True):
    """One answer with everything that another worker needs to serve it. `owner`: the person or key under whose subject
    key it is sealed."""

    digest: bytes
    stream: bool
    call: bytes
    workload: str
    made: float
    until: float
    deployment: str
    subjects: list[str]
    person: str
    owner: str
    passages: list[Passage]
    cost: int
    whole: bytes | None
    events: list[bytes] | None
    cleared: int
    terms: bytes
    query: str = ""
    state: str = ""
    """The state of the documents that `person`, or the person of the call, could read."""
    alone: bool = False
    left_out: list[str] = []


class StoreMessage(msgspec.Struct, frozen=True, array_like=True):
    """A message from a worker: an answer to store, or the calls whose answers are to be deleted."""

    kept: StoredAnswer | None = None
    dropped: list[bytes] = []


encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(StoredAnswer).decode


def store_message(entry: Entry, exchange: Exchange, terms: bytes) -> StoreMessage | None:
    """The message that stores an answer; None where its workload does not keep content, or not that of this call."""
    workload, key, policy = exchange.workload, exchange.key, exchange.policy
    keep = workload.keep if workload is not None else None
    if workload is None or keep is None or keep.content != "full" or key is None or policy is None:
        return None
    if not is_sampled(keep, entry.call) or entry.size > MAX_ANSWER_BYTES:
        return None
    return StoreMessage(
        StoredAnswer(
            digest=entry.key[0],
            stream=entry.key[1],
            call=entry.call,
            workload=entry.workload,
            made=entry.made,
            until=min(entry.until, entry.made + keep.seconds),
            deployment=entry.deployment,
            subjects=sorted(entry.subjects),
            person=entry.person,
            owner=entry.person or key.id,
            passages=list(entry.passages),
            cost=entry.cost,
            whole=entry.whole,
            events=None if entry.events is None else list(entry.events),
            cleared=policy.cleared.get(workload.name, 0),
            terms=terms,
            query=entry.query,
            state=entry.state(exchange.person),
            alone=entry.alone,
            left_out=sorted(entry.left_out),
        )
    )


def accept_answer(gateway: Gateway, kept: StoredAnswer) -> bool:
    """Put an answer of another worker, or from before a restart, into the cache; returns whether it was accepted."""
    catalog, policy = gateway.live.catalog, gateway.live.policy
    plan = catalog.plans.get(kept.workload) if catalog is not None else None
    if catalog is None or plan is None or plan.workload.cache is None:
        return False
    cache, keep, now = gateway.answer_cache, plan.workload.keep, gateway.clock.now().timestamp()
    cache.apply_policies(catalog, policy)
    if kept.passages and not kept.state:
        return False  # from an older version, without the state of the documents
    if keep is None or keep.content != "full" or kept.until <= now or cache.terms(plan) != kept.terms:
        return False
    if policy.cleared.get(kept.workload, 0) != kept.cleared or not policy.kills.isdisjoint(kept.subjects):
        return False
    key = (kept.digest, kept.stream)
    if kept.person and kept.person not in policy.active:
        return False
    old = cache.get(kept.workload, key, now)
    if old is not None and old.made >= kept.made:
        return False
    return cache.put(
        plan,
        Entry(
            key=key,
            call=kept.call,
            workload=kept.workload,
            made=kept.made,
            until=min(kept.until, kept.made + plan.workload.cache.seconds),
            deployment=kept.deployment,
            subjects=frozenset(kept.subjects),
            person=kept.person,
            passages=tuple(kept.passages),
            cost=kept.cost,
            whole=kept.whole,
            events=None if kept.events is None else tuple(kept.events),
            query=kept.query,
            states={kept.person: kept.state} if kept.state else {},
            alone=kept.alone,
            left_out=frozenset(kept.left_out),
        ),
    )


class AnswerLink(FrameClient):
    """The connection to the answer store of this HOME, over which answers are sent and received."""

    def __init__(self, gateway: Gateway, home: Home) -> None:
        super().__init__(home, SERVICE)
        self._gateway = gateway
        self._buffer = bytearray()
        self.accepted = 0
        """Received answers that were put into the cache."""
        gateway.answer_cache.on_put = self.send
        gateway.answer_cache.on_drop = self.drop

    def send(self, entry: Entry, exchange: Exchange) -> None:
        """Send an answer if its workload keeps content; never blocks."""
        if exchange.plan is not None:
            message = store_message(entry, exchange, self._gateway.answer_cache.terms(exchange.plan))
            if message is not None:
                self.send_frame(encode(message))

    def drop(self, entry: Entry) -> None:
        """Have an answer deleted: it must not be served any more."""
        self.send_frame(encode(StoreMessage(dropped=[entry.call])))

    def should_connect(self) -> bool:
        return self._gateway.ready

    def reset(self) -> None:
        self._buffer.clear()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= LENGTH.size:
            size = LENGTH.unpack_from(self._buffer)[0]
            end = LENGTH.size + size
            if len(self._buffer) < end:
                return
            with suppress(msgspec.MsgspecError):  # a message of another version
                self.accepted += accept_answer(self._gateway, _decode(bytes(self._buffer[LENGTH.size : end])))
            del self._buffer[:end]
