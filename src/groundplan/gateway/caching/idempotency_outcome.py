"""Ends the use of an `Idempotency-Key` with its call: the answer is kept, or the key is free again.

`idempotency` keeps answers, and `cache` decides who gets them.
"""

from __future__ import annotations

from groundplan.gateway.caching import cache
from groundplan.gateway.caching.idempotency import KeptAnswer
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.delivery.stream import EVENT_STREAM
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.surfaces import answers
from groundplan.ledger.model import Usage

_NOTHING = Usage()


def remember(gateway: Gateway, exchange: Exchange) -> None:
    """Keep the answer of a call with an `Idempotency-Key` if anything was sent for it; otherwise free the key. Further
    calls have no effect."""
    digest, exchange.idempotency = exchange.idempotency, None
    if digest is None:
        return
    if exchange.attempt_number < 0 or _did_nothing(exchange):
        gateway.idempotent_answers.release(digest)
    elif exchange.sent_chunks:
        content_type = exchange.content_type_line or EVENT_STREAM
        lines, _ = answers.split_replayed_headers(answers.headers(exchange, cost=True))
        rests, cites = cache.subjects_of_answer(exchange), cache.citations_of(exchange)
        gateway.idempotent_answers.keep(
            digest, KeptAnswer(exchange.http_status, lines, content_type, b"".join(exchange.sent_chunks), rests, cites)
        )
    else:
        gateway.idempotent_answers.keep(
            digest, KeptAnswer(0, b"", b"", b"")
        )  # it will not be there, and may have been billed


def _did_nothing(exchange: Exchange) -> bool:
    """Whether certainly nothing was billed, and the client was told that there is no answer: it may send the request
    again."""
    unbilled = not (exchange.cost or exchange.estimated or exchange.draining_bound) and exchange.usage == _NOTHING
    return unbilled and exchange.status == "failed" and not exchange.sent_chunks
