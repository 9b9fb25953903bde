"""Step 3: cached answers, without a model.

A cached answer is given where a workload declares `cache`, to a call that passed every check that any call passes, but
without a reservation: it costs nothing. For a workload with sources it is given only after the live permissions have
confirmed each passage that the model saw, for this person and at this moment (`confirm`); any other workload waits here
only for an identical call in progress. Who shares an answer is in the key (`cache_key`); `answer_cache` decides what is
kept and for how long; docs/cache.md says why nobody gets an answer that is not theirs. Replays for an
`Idempotency-Key` are in `idempotent_calls`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import NotFound
from groundplan.gateway.budgets.leases import is_quota
from groundplan.gateway.caching.answer_cache import Similar
from groundplan.gateway.caching.cache_key import compare_off_loop, is_long, request_digest
from groundplan.gateway.caching.confirm import confirm
from groundplan.gateway.caching.entry import FAILED, LEFT, STORED, UNFIT, Entry, Flight, Key
from groundplan.gateway.caching.replay_forms import ReplayForms
from groundplan.gateway.call import admit, limits, settle
from groundplan.gateway.call.ask import fork_ask
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.delivery.to_client import EVENT_STREAM, send_all, send_stream
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.call.ground import MAX_QUERY_CHARS
from groundplan.gateway.call.stored_answers import stores
from groundplan.gateway.stalls import READ_SECONDS
from groundplan.gateway.surfaces import answers
from groundplan.gateway.telemetry import content
from groundplan.gateway.upstream.connection import UNRESERVED_BYTES

EXACT = "exact"
"""`cache` of a call that got a cached answer to an identical request."""
SEMANTIC = "semantic"
"""`cache` of a call that got a cached answer to another question with the same meaning."""
DIRECTIVES = b"cache-control"
MAX_FAILURES = 2
"""A call that waited for so many identical ones that failed asks a model itself, beside others: while an upstream
fails, each would otherwise wait until all before it have failed, one after the other."""


def is_cacheable(exchange: Exchange) -> bool:
    """Whether the call may use the cache: its workload declares it, and no guardrail has to check each answer."""
    return exchange.workload is not None and exchange.workload.cache is not None and exchange.guard is None


async def answer_from_cache(gateway: Gateway, exchange: Exchange, recheck: Callable[[], None]) -> bool:
    """Answer a checked call from the cache. False: a model must be asked; its answer is then shared with identical
    calls, where the workload allows that.

    `recheck` repeats every check under the newest policy and raises as they do. Raises `Exhausted` for limits, and
    `NotFound` (`not_cached`) where the client accepts only a cached answer.
    """
    directives = exchange.request.headers.get(DIRECTIVES, b"").decode("latin-1").lower()
    replay_forms = exchange.interface.replay_forms if is_cacheable(exchange) and not stores(exchange) else None
    if replay_forms is not None and is_long(exchange):
        began = gateway.loop.time()
        await compare_off_loop(exchange, replay_forms.ignored_fields)
        exchange.waited_seconds += gateway.loop.time() - began
    key = _key(gateway, exchange, replay_forms) if replay_forms is not None and "no-store" not in directives else None
    if replay_forms is not None and key is not None:
        search = _CacheSearch(gateway, exchange, replay_forms, key, recheck)
        if "no-cache" in directives:
            search.start_flight(is_refresh=True)
        elif await _answer_from_search(gateway, exchange, search):
            return True
    if "only-if-cached" in directives:
        hint = "Leave Cache-Control: only-if-cached out to ask a model."
        raise NotFound("no cached answer may be given to this request", code="not_cached", hint=hint)
    return False


async def _answer_from_search(gateway: Gateway, exchange: Exchange, search: _CacheSearch) -> bool:
    """Find the answer, take from limits what a hit takes, and send it; checked again after each wait. False: no
    answer."""
    catalog = exchange.catalog
    while (found := await search.find_entry()) is not None:
        if catalog is not None and catalog.limits is not None:
            await limits.admit_cached(gateway, exchange, catalog.limits)
            if search.refresh() or not _is_allowed(exchange, found):
                if exchange.limit_use is not None:
                    limits.end_call(gateway, exchange.limit_use, sent=False)
                    exchange.limit_use = None
                continue
        await send_cached(gateway, exchange, found, search.content, search.match_kind)
        return True
    return False


def _key(gateway: Gateway, exchange: Exchange, replay_forms: ReplayForms) -> Key | None:
    plan, policy, ask = exchange.plan, exchange.policy, exchange.ask
    if plan is None or policy is None or ask is None:
        raise AssertionError("not checked")
    digest = request_digest(exchange, replay_forms.ignored_fields, gateway.answer_cache.terms(plan), policy)
    return None if digest is None else (digest, ask.stream)


class _CacheSearch:
    """Searches the cache for one call until an answer is found, or this call has to make it."""

    __slots__ = (
        "_exchange",
        "_failures",
        "_gateway",
        "_key",
        "_left",
        "_recheck",
        "_replay_forms",
        "_since",
        "content",
        "match_kind",
    )

    def __init__(
        self, gateway: Gateway, exchange: Exchange, replay_forms: ReplayForms, key: Key, recheck: Callable[[], None]
    ) -> None:
        self._gateway = gateway
        self._exchange = exchange
        self._replay_forms = replay_forms
        self._key = key
        self._recheck = recheck
        self._failures = 0
        """Identical calls that failed while this one waited for them."""
        self._since = self._left = 0.0
        """When the call first waited for another one, and the seconds left of its deadline then."""
        self.match_kind = EXACT
        self.content: bytes | tuple[bytes, ...] = b""
        """The found answer in the form that this call wants: a body, or the events of a stream."""

    async def find_entry(self) -> Entry | None:
        """The entry that this client may get; None: this call asks a model."""
        gateway, exchange = self._gateway, self._exchange
        cache = gateway.answer_cache
        while True:
            if gateway.live.catalog is not None:
                cache.apply_policies(gateway.live.catalog, gateway.live.policy)
            found = self._find_exact()
            self.match_kind = EXACT
            if found is None and cache.similar is not None and _is_semantic(exchange):
                found = await self._find_similar(cache.similar)
            if found is not None:
                confirmed = not found.passages or await confirm(gateway, exchange, found)
                if self.refresh() or not (confirmed or found in cache):
                    continue  # calls that found the same answer to be outdated need one new answer, not one each
                if confirmed and _is_allowed(exchange, found):
                    return found
            elif (flight := self._find_flight()) is not None:
                if not await self._wait_for_flight(flight):
                    return None
                self.refresh()
                if flight.outcome.result() == FAILED and not self._waits_after(flight):
                    return None
                continue
            self.start_flight()
            return None

    async def _find_similar(self, similar: Similar) -> Entry | None:
        """An entry whose question has the same meaning."""
        workload = self._exchange.workload
        if workload is None:
            return None
        found = self._convert(await similar(self._exchange, self._gateway.answer_cache.entries(workload.name)))
        if found is not None:
            self.match_kind = SEMANTIC
        return found

    def start_flight(self, *, is_refresh: bool = False) -> None:
        """Let other calls wait for the answer of this one, unless they wait for another call already."""
        if self._find_flight() is None:
            self._exchange.flight = self._gateway.answer_cache.start_flight(
                self._key, self._gateway.loop, is_refresh=is_refresh
            )

    def _find_flight(self) -> Flight | None:
        """The identical call in progress whose answer this one may use: in the other form only if that converts."""
        cache, (digest, stream) = self._gateway.answer_cache, self._key
        found = cache.find_flight(self._key)
        return found or (
            cache.find_flight((digest, not stream)) if self._replay_forms.converts(stream=not stream) else None
        )

    def refresh(self) -> bool:
        """After a wait, repeat every check if live policy has changed. True: the call now has another cache key, since
        answers were cleared or the groups of its person have changed."""
        if self._gateway.live.policy is self._exchange.policy:
            return False
        self._recheck()
        before, self._key = self._key, _key(self._gateway, self._exchange, self._replay_forms) or self._key
        if self._key == before:
            return False
        self._exchange.compared_question = self._exchange.semantic_match = (
            None  # they belong to the previous sharing scope
        )
        return True

    async def _wait_for_flight(self, flight: Flight) -> bool:
        """Wait for the end of an identical call. False: do not use its result. Cancelling this call cancels no
        other."""
        now = self._gateway.loop.time()
        until = self._wait_until(flight, now)
        if until <= now:
            return False
        done, _ = await asyncio.wait((flight.outcome,), timeout=until - now)
        if not done:  # if this worker was stalled, the answer may be unread in a socket
            done, _ = await asyncio.wait((flight.outcome,), timeout=READ_SECONDS)
        self._exchange.waited_seconds += self._gateway.loop.time() - now
        return bool(done) and flight.outcome.result() != UNFIT

    def _waits_after(self, failed: Flight) -> bool:
        """Whether this call waits for the next identical one after one that failed. If not, it asks a model itself;
        others may wait for it unless it is refused as that one was."""
        if failed.exhausted:  # a call that is refused for the same budget gains nothing by waiting
            return not self._is_covered_by(failed.exhausted)
        self._failures += 1
        if self._failures < MAX_FAILURES:
            return True
        self.start_flight()
        return False

    def _is_covered_by(self, name: str) -> bool:
        """Whether the budget or quota of this name also covers this call."""
        exchange = self._exchange
        if is_quota(name):
            return limits.is_covered(exchange, name)
        if exchange.plan is None:
            raise AssertionError("not checked")
        now = self._gateway.clock.seconds()
        return any(budget.name == name for budget, _ in admit.covering_budgets(exchange, exchange.plan, now))

    def _wait_until(self, flight: Flight, now: float) -> float:
        """The loop time until which this call waits for another one: half of its deadline if either is a stream, which
        may last far beyond the deadline, so that half is left for its own first byte."""
        exchange = self._exchange
        workload, ask = exchange.workload, exchange.ask
        if workload is None or ask is None:
            raise AssertionError("not checked")
        if not self._since:
            self._since, self._left = now, workload.deadline_ms / 1000 - exchange.waited_seconds
        return self._since + (self._left / 2 if ask.stream or flight.key[1] else self._left)

    def _find_exact(self) -> Entry | None:
        exchange = self._exchange
        workload, cache = exchange.workload, self._gateway.answer_cache
        if workload is None:
            return None
        now = self._gateway.clock.seconds()
        digest, stream = self._key
        return self._convert(cache.get(workload.name, self._key, now)) or self._convert(
            cache.get(workload.name, (digest, not stream), now)
        )

    def _convert(self, entry: Entry | None) -> Entry | None:
        """The entry, if it can be given in the requested form, which is set as `content`."""
        if entry is None:
            return None
        form: bytes | tuple[bytes, ...] | None
        if self._key[1]:
            form = entry.events if entry.events is not None else self._replay_forms.to_events(entry.whole or b"")
        else:
            form = entry.whole if entry.whole is not None else self._replay_forms.to_whole(entry.events or ())
        if form is None:
            return None
        self.content = form
        return entry


def _is_semantic(exchange: Exchange) -> bool:
    workload = exchange.workload
    return workload is not None and workload.cache is not None and workload.cache.semantic is not None


def _is_allowed(exchange: Exchange, entry: Entry) -> bool:
    """Whether the call may use the deployment that made the answer, and nothing the answer rests on is stopped."""
    policy = exchange.policy
    if policy is None or (policy.kills and not policy.kills.isdisjoint(entry.subjects)):
        return False
    return _deployment_of(exchange, entry) is not None


def _deployment_of(exchange: Exchange, entry: Entry) -> Deployment | None:
    for place in exchange.deployments:
        if place.name == entry.deployment:
            return place
    return None


async def send_cached(
    gateway: Gateway, exchange: Exchange, entry: Entry, form: bytes | tuple[bytes, ...], how: str
) -> None:
    """Send a cached answer. The call is in the journal before (it survives a kill); the disk sync is requested but not
    awaited: nothing was spent, so a power loss may cost the record of a call that cost nothing.

    Raises `Denied` where no budget covers the call, `Unavailable` where the journal cannot take it.
    """
    plan, workload = exchange.plan, exchange.workload
    if plan is None or workload is None:
        raise AssertionError("not checked")
    now = gateway.clock.seconds()
    exchange.charges = admit.covering_budgets(exchange, plan, now)
    if not gateway.journal.healthy:
        raise settle.journal_unavailable()
    exchange.cache_result, exchange.saved_cost = how, entry.cost
    exchange.deployment = _deployment_of(exchange, entry)
    exchange.passages = list(entry.passages)
    if entry.left_out and exchange.ask is not None:
        exchange.ask = fork_ask(exchange.ask, entry.left_out)
    gateway.live.record_person(workload.name, exchange.person)
    content.start_collecting(exchange, workload)
    left = settle.remaining_budget(gateway, exchange)
    exchange.first_byte = time.perf_counter_ns()
    exchange.steps.append(("cache", (exchange.first_byte - exchange.started) // 1000))
    settle.finish_or_raise(gateway, exchange, "ok", 200)
    if how == EXACT:
        gateway.answer_cache.known_requests.remember(exchange)
    elif gateway.answer_cache.similar is not None:
        gateway.answer_cache.similar.record_hit(entry)
    known = answers.answer_constants(exchange)
    lines, facts = answers.headers(exchange, cost=True, known=known), answers.facts(exchange, left, known)
    response = exchange.response
    if isinstance(form, bytes) and len(form) > UNRESERVED_BYTES:
        kept, end = exchange.interface.end_with_facts(form, facts)
        if exchange.sent_chunks is not None:
            exchange.sent_chunks += (form[:kept], end)
        # however many clients receive it at once, and slowly, the body is in memory once
        await send_all(gateway, exchange, 200, memoryview(form)[:kept], lines, end=end)
        return
    if isinstance(form, bytes):
        data = exchange.interface.with_facts(form, facts)
        response.send(200, data, lines)
        if exchange.sent_chunks is not None:
            exchange.sent_chunks.append(data)
    else:
        await send_stream(
            gateway, exchange, _relayed_events(exchange, form, facts), response.start(200, EVENT_STREAM + lines)
        )


def _relayed_events(exchange: Exchange, events: tuple[bytes, ...], facts: bytes) -> Iterator[bytes]:
    """Yield a complete stream as a model's own would have been relayed."""
    if exchange.ask is None or exchange.deployment is None:
        raise AssertionError("not checked")
    relay = exchange.interface.codec(exchange.deployment).new_relay(exchange.ask)
    yield from map(relay.feed, events)
    yield relay.closing_events(facts)


# storing answers ------------------------------------------------------------------------------------------------------


def finish_flight(gateway: Gateway, exchange: Exchange) -> None:
    """End the flight of a finished call: store its answer if it may be reused, and wake up the calls that wait for
    it."""
    flight, exchange.flight = exchange.flight, None
    if flight is None:
        return
    how = LEFT if exchange.status == "cancelled" else FAILED
    try:
        if exchange.status == "ok" and exchange.http_status == 200:
            how = _store_answer(gateway, exchange, flight)
    finally:
        gateway.answer_cache.finish_flight(flight, how)


def _store_answer(gateway: Gateway, exchange: Exchange, flight: Flight) -> str:
    entry, plan = _entry_of(gateway, exchange, flight), exchange.plan
    if entry is None or plan is None or not gateway.answer_cache.put(plan, entry):
        return UNFIT
    if exchange.compared_question is not None and gateway.answer_cache.similar is not None:
        gateway.answer_cache.similar.record_answer(entry, exchange)
    if gateway.answer_cache.on_put is not None:
        gateway.answer_cache.on_put(entry, exchange)
    return STORED


def citations_of(exchange: Exchange) -> tuple[tuple[str, str], ...]:
    """(chunk, source) of each passage that the model saw, plus one that cannot be confirmed if it saw other
    documents."""
    others = (("", ""),) if exchange.grounding_notes is not None and exchange.grounding_notes.has_document_notes else ()
    return (*((passage.chunk, passage.source) for passage in exchange.passages), *others)


def subjects_of_answer(exchange: Exchange) -> frozenset[str]:
    """All subjects whose stop forbids giving the answer of a served call again."""
    workload, place, key = exchange.workload, exchange.deployment, exchange.key
    subjects = {"company"} | {f"source/{name}" for name in exchange.context_sources}
    if workload is not None and key is not None:
        subjects |= {f"workload/{workload.name}", f"key/{key.id}"}
    return frozenset(subjects if place is None else subjects.union(admit.kill_scopes(place)))


def _entry_of(gateway: Gateway, exchange: Exchange, flight: Flight) -> Entry | None:
    """The cache entry of a call's answer; None: it may not be given again."""
    ask, workload, place, key = exchange.ask, exchange.workload, exchange.deployment, exchange.key
    replay_forms, policy = exchange.interface.replay_forms, gateway.live.policy
    if (
        ask is None
        or workload is None
        or place is None
        or key is None
        or replay_forms is None
        or workload.cache is None
    ):
        return None
    if flight.events is not None:
        good = replay_forms.is_complete_stream(flight.events, ask.copies)
    else:
        good = flight.whole is not None and replay_forms.is_complete(flight.whole, ask.copies)
    passages = tuple(exchange.passages)
    grounded = workload.grounding is not None and exchange.interface.grounded
    if not good or "resumed" in exchange.attempt_flags or (grounded and not passages):
        return None
    if exchange.grounding_notes is not None and exchange.grounding_notes.has_document_notes:
        return None  # it may rest on another document, which a hit would not confirm for the next person
    if not all(passage.chunk for passage in passages):
        return None
    subjects = subjects_of_answer(exchange)
    if not policy.kills.isdisjoint(subjects) or (exchange.person and exchange.person not in policy.active):
        return None  # stopped, or its person left, while the call was in progress
    now = gateway.clock.seconds()
    return Entry(
        key=(flight.key[0], flight.events is not None),
        call=exchange.id_bytes,
        workload=workload.name,
        made=now,
        until=now + workload.cache.seconds,
        deployment=place.name,
        subjects=subjects,
        person=exchange.person,
        passages=passages,
        cost=exchange.last_attempt_cost,  # not what it was sent elsewhere for before
        whole=flight.whole if flight.events is None else None,
        events=None if flight.events is None else exchange.interface.shareable_events(ask, flight.events),
        query=ask.query[:MAX_QUERY_CHARS] if passages else "",
        states={exchange.person: exchange.documents_state} if exchange.documents_state else {},
        left_out=frozenset(ask.left_out or ()),
        alone=flight.is_refresh,
    )
