"""Step 3 of a call with an `Idempotency-Key`: it gets the kept answer to the first request with that key, or claims it.

`find_replay` looks in this worker, `claim_idempotency_key` at the other workers before anything is sent, and
`check_replay` decides whether the answer may be given now. `remember` ends the use of the key with its call: the answer
is kept, or the key is free again. `idempotency` keeps the answers and writes keys to the disk.
"""

from __future__ import annotations

import asyncio
import hashlib
import random

from groundplan.core.errors import Conflict, Denied, Invalid
from groundplan.gateway.caching.cache import citations_of, subjects_of_answer
from groundplan.gateway.caching.confirm import are_readable
from groundplan.gateway.caching.idempotency import IDEMPOTENCY_KEY, KeptAnswer, forgotten_error, key_digest
from groundplan.gateway.caching.sharing import fetch_answer
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.delivery.to_client import EVENT_STREAM
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.http.strict_json import DECODE_ERRORS
from groundplan.gateway.http.surrogates import decode_json
from groundplan.gateway.policy.snapshot import Policy
from groundplan.gateway.surfaces import answer_text, answers
from groundplan.ledger.model import Usage

REPLAY = "replay"
"""`cache` of a call that got the answer to an earlier request with the same `Idempotency-Key`."""
_MAX_CLAIMS, _CLAIM_SPREAD_SECONDS = 8, 0.02
"""How often workers that receive the same new key at once try to claim it, and the random delay between their tries."""
_NOTHING = Usage()


async def find_replay(gateway: Gateway, exchange: Exchange) -> KeptAnswer | None:
    """The kept answer for the request's Idempotency-Key and person, awaited if it is still being made; None: this
    worker has not seen the key.

    Raises `Conflict` where the key was used for another body, or its answer is not in memory any more.
    """
    named = exchange.request.headers.get(IDEMPOTENCY_KEY)
    if named is None or exchange.key is None:
        return None
    # the client may repeat the request with the API key that its own was rotated to
    digest = key_digest(named, exchange.key.family or exchange.key.id, exchange.person)
    began = gateway.loop.time()
    kept = await gateway.idempotent_answers.begin(digest, _body_digest(exchange), gateway.clock.now().timestamp())
    exchange.waited_seconds += gateway.loop.time() - began
    if kept is None:
        exchange.idempotency = digest
        exchange.sent_chunks = []
        return None
    return _check_kept(kept)


async def claim_idempotency_key(gateway: Gateway, exchange: Exchange) -> KeptAnswer | None:
    """Claim the request's Idempotency-Key for this worker; None: claimed. If another worker claimed it before: the
    answer of that worker, awaited if it is still being made.

    Raises `Conflict` where that worker has no answer. If it sent nothing, or claimed the key at the same moment, the
    key goes to the worker that tries first from then on."""
    digest = exchange.idempotency
    if digest is None:
        return None
    for _ in range(_MAX_CLAIMS):
        holders = await gateway.idempotent_answers.claim_durably(digest, gateway.clock.now().timestamp())
        if not holders:
            return None
        began = gateway.loop.time()
        body_digest = gateway.idempotent_answers.body_digest(digest)  # guardrails may have changed the body since
        kept = await fetch_answer(holders, digest, body_digest)
        if kept is not None:
            gateway.idempotent_answers.keep(digest, kept)
            return _check_kept(kept)
        await asyncio.sleep(random.uniform(0.0, _CLAIM_SPREAD_SECONDS))
        exchange.waited_seconds += gateway.loop.time() - began
    raise forgotten_error()


def _body_digest(exchange: Exchange) -> bytes:
    """Digest of the endpoint and the body. Raises `Invalid` for an upload that is not kept in memory."""
    body, upload = exchange.request.body, None if exchange.ask is None else exchange.ask.upload
    if upload is not None:
        if not upload.in_memory:
            hint = "Leave it out, or send a form of at most 1 MiB."
            raise Invalid("an Idempotency-Key is not for a large upload", code="idempotency_key", hint=hint)
        body = upload.digest()
    return hashlib.sha256(exchange.endpoint.encode() + b"\0" + body).digest()


def _check_kept(kept: KeptAnswer) -> KeptAnswer:
    if kept.status == 0:
        raise Conflict(
            "the answer to this Idempotency-Key is not kept: its call failed or was cut off, or it is sound",
            code="idempotency_replayed",
            hint="The first call may have been billed; use a new key to ask again.",
        )
    return kept


async def check_replay(gateway: Gateway, exchange: Exchange, kept: KeptAnswer) -> None:
    """Check that a kept answer may be given, under the same conditions as a cached answer. Raises `Denied` where
    anything that it rests on was stopped, `Conflict` where a passage that the model saw may no longer be read."""
    policy = exchange.policy
    if policy is None or (policy.kills and not policy.kills.isdisjoint(kept.subjects)):
        raise Denied(
            "the deployment that made this answer is stopped", code="killed", hint="Use a new key to ask again."
        )
    if policy.tools_stopped and exchange.endpoint in answer_text.SURFACES:
        _check_stopped_tools(kept.body, policy)
    if kept.cites and not await are_readable(gateway, exchange, kept.cites):
        raise Conflict(
            "the answer to this Idempotency-Key rests on passages that cannot be confirmed any more",
            code="idempotency_replayed",
            hint="The first call may have been billed; use a new key to ask again.",
        )
    exchange.cache_result = REPLAY


def _check_stopped_tools(body: bytes, policy: Policy) -> None:
    """Raise `Denied` for an answer, whole or streamed, that calls a stopped function."""
    for data in [line[6:] for line in body.split(b"\n") if line.startswith(b"data: {")] or [body]:
        try:
            names = list(answer_text.called_names(decode_json(data)))
        except DECODE_ERRORS:
            continue
        if (name := next((each for each in names if f"tool/{each}" in policy.kills), None)) is not None:
            raise Denied(
                f"this answer calls {name[:60]}, which is stopped", code="killed", hint="Use a new key to ask again."
            )


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
        rests, cites = subjects_of_answer(exchange), citations_of(exchange)
        gateway.idempotent_answers.keep(
            digest, KeptAnswer(exchange.http_status, lines, content_type, b"".join(exchange.sent_chunks), rests, cites)
        )
    else:
        # the answer will not be there, and may have been billed
        gateway.idempotent_answers.keep(digest, KeptAnswer(0, b"", b"", b""))


def _did_nothing(exchange: Exchange) -> bool:
    """Whether certainly nothing was billed, and the client was told that there is no answer: it may send the request
    again."""
    unbilled = not (exchange.cost or exchange.estimated or exchange.draining_bound) and exchange.usage == _NOTHING
    return unbilled and exchange.status == "failed" and not exchange.sent_chunks
