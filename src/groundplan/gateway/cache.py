"""Step 3: answers that need no model. Here: replays of an `Idempotency-Key`, from memory.

No workload declares an answer cache yet, so nothing else is ever a hit: `cache` of a call is `none` or `replay`.
"""

from __future__ import annotations

import hashlib

from groundplan.core.errors import Conflict, Invalid
from groundplan.gateway.context import Gateway
from groundplan.gateway.exchange import Exchange
from groundplan.gateway.idempotency import Kept
from groundplan.gateway.sharing import fetch


async def replay(gateway: Gateway, exchange: Exchange) -> Kept | None:
    """The kept answer to this key, waiting for it where it is being made; None: this request is the first here with it.

    Raises `Conflict` where the key was used for another body, or its answer is not in memory any more.
    """
    named = exchange.request.headers.get(b"idempotency-key")
    if named is None or exchange.key is None:
        return None
    if not 0 < len(named) <= 255:
        raise Invalid(
            "the Idempotency-Key is empty or too long", code="idempotency_key", hint="Use 1 to 255 characters."
        )
    digest = hashlib.sha256(exchange.key.id.encode() + b"\0" + named).digest()
    kept = await gateway.answers.begin(digest, _body_digest(exchange), gateway.clock.now().timestamp())
    if kept is None:
        exchange.idempotency = digest
        exchange.kept = []
        return None
    return _checked(exchange, kept)


async def elsewhere(gateway: Gateway, exchange: Exchange) -> Kept | None:
    """Write the key down; the answer of another worker that did so before. Raises `Conflict` where that has none."""
    digest = exchange.idempotency
    if digest is None:
        return None
    holders = gateway.answers.mark(digest, gateway.clock.now().timestamp())
    if not holders:
        return None
    kept = await fetch(holders, digest, _body_digest(exchange))
    gateway.answers.keep(digest, kept)
    return _checked(exchange, kept)


def _body_digest(exchange: Exchange) -> bytes:
    return hashlib.sha256(exchange.endpoint.encode() + b"\0" + exchange.request.body).digest()


def _checked(exchange: Exchange, kept: Kept) -> Kept:
    if kept.status == 0:
        raise Conflict(
            "the first call with this Idempotency-Key was cut off; it may have been billed",
            code="idempotency_replayed",
            hint="Use a new key to ask again.",
        )
    exchange.cache = "replay"
    return kept
