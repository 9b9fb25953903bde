"""Confirms that an answer from documents may still be given: the passages that the model saw are unchanged and may be
read by the person of this call, and no later document would be found instead.

Most later documents are off the subject, which the search service says along with the permissions. Only where it cannot
say, the query of the answer is searched again as for a model; the confirmed state is remembered with the answer, so
each addition is paid for once. Without PostgreSQL nothing is given."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from groundplan.gateway.caching.entry import Entry
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.call.ground import current_findings, searchable_sources
from groundplan.gateway.call.search_client import ask_for_call
from groundplan.gateway.upstream.connection import FOREVER
from groundplan.knowledge.retrieval.wire import ConfirmRequest, Since


class _Confirmed(msgspec.Struct, frozen=True):
    readable: list[str]
    state: str = ""


_decode = msgspec.json.Decoder(_Confirmed).decode


async def confirm(gateway: Gateway, exchange: Exchange, entry: Entry) -> bool:
    """Whether the person of this call may get the entry. If not, it is dropped, unless the service could not say."""
    person, since = exchange.person, _since(gateway, exchange, entry)
    cites = [(passage.chunk, passage.source) for passage in entry.passages]
    found = await _request_confirmation(gateway, exchange, cites, since)
    if found is None:
        return False
    stands, state = _all_confirmed(found, cites), found.state
    if stands and since is not None and not state:
        now = await current_findings(gateway, exchange, entry.query)
        if now is None:
            return False
        stands, state = sorted(now.chunks) == sorted(chunk for chunk, _ in cites), now.state
    if not stands:
        gateway.answer_cache.drop(entry)
    elif state:
        entry.confirm_for(person, state)
    return stands


async def are_readable(gateway: Gateway, exchange: Exchange, cites: Sequence[tuple[str, str]]) -> bool | None:
    """Whether, by the live permissions, the person of this call may read all of these passages (chunk, source), and
    each is unchanged; None: the search service could not say."""
    found = await _request_confirmation(gateway, exchange, cites, None)
    return None if found is None else _all_confirmed(found, cites)


def _since(gateway: Gateway, exchange: Exchange, entry: Entry) -> Since | None:
    grounding = None if exchange.workload is None else exchange.workload.grounding
    if grounding is None:
        return None
    return Since(
        state=entry.state(exchange.person),
        query=entry.query,
        sources=searchable_sources(gateway, grounding),
        synonyms=grounding.synonyms,
    )


def _all_confirmed(found: _Confirmed, cites: Sequence[tuple[str, str]]) -> bool:
    return bool(found.readable) and sorted(found.readable) == sorted({chunk for chunk, _ in cites})


async def _request_confirmation(
    gateway: Gateway, exchange: Exchange, cites: Sequence[tuple[str, str]], since: Since | None
) -> _Confirmed | None:
    """The answer of the search service; None: it gave none, or the call has no person."""
    if not exchange.person:
        return None
    workload = exchange.workload
    asked = ConfirmRequest(
        person=exchange.person,
        chunks=sorted({chunk for chunk, _ in cites}),
        sources=sorted({source for _, source in cites}),
        workload="" if workload is None else workload.name,
        since=since,
    )
    left = FOREVER if workload is None else workload.deadline_ms / 1000 - exchange.waited_seconds
    return await ask_for_call(gateway, exchange, lambda: asked, _decode, b"/confirm", seconds=left)
