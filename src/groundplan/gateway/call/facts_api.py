"""The paths under /api at the gateway's port, for applications with an API key: outcomes, searches and signals.

`POST /api/outcomes`, `/api/knowledge/search` and `/api/knowledge/signals` have the same JSON as on the control port,
errors included, except `explain`: what is withheld from a workload is shown to people only, not to the workload. An
outcome or a signal is written to PostgreSQL directly, and its commit is awaited here, off the path of model calls: an
outcome needs the row of its call, and the ledger is durable, so a second copy in the journal would only add a place
where it can be lost. A client that got no answer sends it again under the same id. Nothing here reserves money, calls a
model or is charged. A search in a restricted workload is recorded as a call in the journal, and so in the ledger and
the audit log, since it reads restricted passages.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Annotated, Literal, TypeVar
from uuid import UUID

import msgspec
import psycopg

from groundplan.blueprint.model import Grounding
from groundplan.core.error_shape import error_json, field_problem, request_invalid
from groundplan.core.errors import Denied, GroundplanError, Invalid, NotFound, Unavailable
from groundplan.core.ids import new_id, new_id_bytes
from groundplan.economics.tickets import TicketChange, to_report
from groundplan.gateway.call import admit, settle
from groundplan.gateway.call.ask import Passage
from groundplan.gateway.call.attempts.send_permission import wait_for_policy
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.call.ground import grounding_unavailable, searchable_sources
from groundplan.gateway.call.grounding.notes import GroundingNotes
from groundplan.gateway.call.identify import caller_of, check_grants
from groundplan.gateway.call.search_client import ask_search_patiently
from groundplan.gateway.call.signals import Unsealed
from groundplan.gateway.database import Connection, Pool, database_unavailable
from groundplan.gateway.http import errors
from groundplan.gateway.http.methods import WrongMethod, allow_header
from groundplan.gateway.http.server import Request, Response
from groundplan.gateway.http.strict_json import DECODE_ERRORS
from groundplan.gateway.policy import dated_prices
from groundplan.gateway.policy.catalog import Catalog, Plan
from groundplan.gateway.policy.client_address import check_network
from groundplan.gateway.policy.snapshot import LEASE_SECONDS, KeyEntry
from groundplan.gateway.surfaces.interface import Interface
from groundplan.gateway.surfaces.unsupported_paths import other_provider_refusal
from groundplan.knowledge.retrieval.wire import ConfirmRequest, Conflict, SearchRequest, Where
from groundplan.knowledge.signals.signal_store import Signal
from groundplan.ledger import outcome_store, ticket_store

OUTCOMES = b"/api/outcomes"
SEARCH = b"/api/knowledge/search"
SIGNALS = b"/api/knowledge/signals"
REPLAY = b"/api/replay"
"""For the control process alone."""
SEARCH_BYTES = 20_000
_NO_NUL = r"^[^\x00]*$"
_log = logging.getLogger(__name__)

Written = TypeVar("Written")
Label = Annotated[str, msgspec.Meta(max_length=outcome_store.LABEL_LENGTH, pattern=_NO_NUL)]


class OutcomeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a call was worth, or the result of a `ticket` that calls of the workload worked on: `accepted`, or its
    `status` at the time `at`, in the words of the ticket system. Without an `id` of the client it gets one of ours."""

    call_id: UUID | None = None
    id: UUID | None = None
    accepted: bool | None = None
    value_usd: Decimal | None = None
    label: Label | None = None
    ticket: str | None = None
    status: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None

    def __post_init__(self) -> None:
        outcome_store.check_report(
            call_id=self.call_id, ticket=self.ticket, of_ticket=(self.status, self.at),
            of_call=(self.accepted, self.value_usd, self.label),
        )  # fmt: skip


class SearchBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A search. `workload`, if given, must be that of the key."""

    query: Annotated[str, msgspec.Meta(min_length=1, max_length=4000)]
    workload: str | None = None
    passages: Annotated[int, msgspec.Meta(ge=1, le=20)] = 5
    where: Where = Where()


class _Searches(Interface):
    """The interface under which searches are recorded in the ledger."""

    name = "search"
    deployment_kind = ""
    is_billed = False


SEARCHES = _Searches()


class _SearchAnswer(msgspec.Struct):
    passages: list[Passage] = []
    conflicts: list[Conflict] = []


_decode_search_answer = msgspec.json.Decoder(_SearchAnswer).decode


def record_passages(exchange: Exchange, answer: bytes) -> None:
    """Record the passages and conflicts of a search's answer in its call, for the ledger. Raises `DecodeError`."""
    found = _decode_search_answer(answer)
    exchange.passages = found.passages
    if found.conflicts:
        exchange.grounding_notes = GroundingNotes(found.conflicts, ())


class SignalBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`click`, `up` and `down` are about a document that the person may read; `unanswered` about a question."""

    kind: Literal["click", "up", "down", "unanswered"]
    workload: str | None = None
    document: UUID | None = None
    rank: Annotated[int, msgspec.Meta(ge=1, le=50)] | None = None
    call: UUID | None = None
    question: Annotated[str, msgspec.Meta(min_length=1, max_length=4000)] | None = None
    id: UUID | None = None
    """The client's own id, or none; a signal with the same id is kept once."""

    def __post_init__(self) -> None:
        about_question = self.kind == "unanswered"
        if about_question != (self.question is not None) or about_question == (self.document is not None):
            raise ValueError("`unanswered` needs a question and no document, the others a document and no question")


class _FoundPassages(msgspec.Struct, frozen=True):
    passages: list[msgspec.Raw]


class _ReadableDocuments(msgspec.Struct, frozen=True):
    documents: list[str]


class FactsApi:
    """The paths under /api that a worker serves. It connects to PostgreSQL at the first outcome."""

    def __init__(self, gateway: Gateway, url: str) -> None:
        self._gateway = gateway
        self.replay: Callable[[Gateway, Request, KeyEntry], Awaitable[tuple[int, bytes]]] | None = None
        """Repeats a kept call with another model; set by `app`, since it makes calls itself."""
        self._pool = Pool(url, "outcomes")

    async def handle(self, path: bytes, request: Request, response: Response) -> None:
        """Answer one request. Raises nothing: every error is sent to the client."""
        try:
            status, body = await self._answer(path, request, response)
        except DECODE_ERRORS as error:
            status, body = 422, msgspec.json.encode(request_invalid([field_problem(f"body: {error}")]))
        except GroundplanError as error:
            _send_error(response, error)
            return
        except Exception:  # noqa: BLE001 -- the boundary of one request: the worker and its calls go on
            _send_error(response, errors.log_internal_error(_log, path.decode("latin-1"), response))
            return
        response.send(status, body)

    async def close(self) -> None:
        await self._pool.close()

    async def _answer(self, path: bytes, request: Request, response: Response) -> tuple[int, bytes]:
        if path not in (OUTCOMES, SEARCH, SIGNALS, REPLAY):
            served = ", ".join(map(bytes.decode, (OUTCOMES, SEARCH, SIGNALS)))
            hint = f"The gateway serves POST {served}; all else is on the control port."
            raise other_provider_refusal(path) or NotFound("there is no such path here", code="not_found", hint=hint)
        if request.method != b"POST":
            raise WrongMethod(b"POST")
        key, person, plan = await admit_caller(self._gateway, request, response.peer_address)
        if path == OUTCOMES:
            return await self._keep_outcome(request.body, key, plan)
        if path == REPLAY and self.replay is not None:
            return await self.replay(self._gateway, request, key)
        if path == SIGNALS:
            return await self._keep_signal(request.body, person, plan)
        if plan.workload.sensitivity == "restricted":
            exchange = Exchange(new_id_bytes(), request, response, SEARCHES)
            exchange.key, exchange.person, exchange.plan = key, person, plan
            return await self._recorded_search(exchange)
        return await self.search(request.body, person, plan)

    async def _recorded_search(self, exchange: Exchange) -> tuple[int, bytes]:
        """Search, and record it as a call in the journal, durable before the answer is sent."""
        gateway, plan = self._gateway, exchange.plan
        assert plan is not None
        exchange.workload, exchange.catalog, exchange.policy = plan.workload, gateway.live.catalog, gateway.live.policy
        gateway.running_calls += 1
        try:
            status, body = await self.search(exchange.request.body, exchange.person, plan)
        except GroundplanError as error:
            outcome = "refused" if isinstance(error, Denied | Invalid) else "failed"
            settle.finish_with_error(gateway, exchange, error, outcome)
            raise
        except asyncio.CancelledError:
            settle.finish(gateway, exchange, "cancelled", settle.CLIENT_GONE, "client_gone")
            raise
        finally:
            gateway.running_calls -= 1
        record_passages(exchange, body)
        sequence = settle.finish_or_raise(gateway, exchange, "ok", 200)
        if (pending := gateway.journal.durable(sequence)) is not None:
            await pending
        return status, body

    async def _keep_outcome(self, data: bytes, key: KeyEntry, plan: Plan) -> tuple[int, bytes]:
        body = msgspec.json.decode(data, type=OutcomeBody)
        _check_value(body.value_usd)
        by, workload = f"key:{key.id}", plan.workload.name
        if body.call_id is None:
            said = TicketChange(body.ticket or "", body.accepted, body.status, body.value_usd, body.at, body.id)
            told = to_report(said, by, workload, self._gateway.clock.now())
            kept = await self._write(partial(ticket_store.report_async, told=told))
            return 201, msgspec.json.encode(ticket_store.report_json(told, kept))
        outcome = outcome_store.Outcome(
            id=body.id or new_id(),
            call_id=body.call_id,
            accepted=body.accepted,
            value_usd=body.value_usd,
            label=body.label,
            by=by,
            workload=workload,
            named=body.id is not None,
        )
        await self._write(partial(outcome_store.add_async, outcome=outcome))
        return 201, msgspec.json.encode({"id": str(outcome.id), "call_id": str(outcome.call_id)})

    async def _write(self, write: Callable[[Connection], Awaitable[Written]]) -> Written:
        """Run `write` with a connection, and return its result. Raises `Unavailable` without the database."""
        try:
            async with self._pool.connection() as connection:
                return await write(connection)
        except (psycopg.OperationalError, psycopg.InterfaceError, TimeoutError) as error:
            hint = "Send it again with the same `id`: it is kept once."
            raise database_unavailable("the database is not reachable, so the outcome may not be kept", hint) from error

    async def search(self, data: bytes, person: str, plan: Plan) -> tuple[int, bytes]:
        """Search: (status, JSON with the passages that this person may read). Raises `GroundplanError`,
        `DecodeError`."""
        body = msgspec.json.decode(data, type=SearchBody)
        grounding = self._grounding(body.workload, person, plan)
        id = new_id()

        def search_request() -> SearchRequest:
            return SearchRequest(
                workload=plan.workload.name,
                person=person,
                query=body.query,
                sources=searchable_sources(self._gateway, grounding),
                k=body.passages,
                synonyms=grounding.synonyms,
                rerank=grounding.rerank,
                max_bytes=SEARCH_BYTES,
                floor=grounding.floor,
                where=body.where,
            )

        answer = await self._ask_search(search_request, id, b"/search")
        signals = self._gateway.signals
        if signals is not None and not msgspec.json.decode(answer, type=_FoundPassages).passages:
            signals.add(signals.unanswered(plan.workload, person, body.query, id))
        return 200, answer

    async def _keep_signal(self, data: bytes, person: str, plan: Plan) -> tuple[int, bytes]:
        """Store a signal before it is answered. The person is not stored; a question only where the workload keeps
        content."""
        body, signals = msgspec.json.decode(data, type=SignalBody), self._gateway.signals
        grounding = self._grounding(body.workload, person, plan)
        if signals is None:
            raise Unavailable("this gateway keeps no signals", code="signals_away", hint="Send it to the control port.")
        id = body.id or new_id()
        if body.question is not None:
            unsealed = signals.unanswered(plan.workload, person, body.question, body.call or id, id)
        else:
            document = [str(body.document)]

            def confirm_request() -> ConfirmRequest:
                sources = searchable_sources(self._gateway, grounding)
                return ConfirmRequest(
                    person=person, chunks=[], documents=document, sources=sources, workload=plan.workload.name
                )

            answer = await self._ask_search(confirm_request, id, b"/confirm")
            if not msgspec.json.decode(answer, type=_ReadableDocuments).documents:
                hint = "Name one that a search has given you."
                raise NotFound("no such document", code="document_unknown", hint=hint)
            signal = Signal(
                plan.workload.name, body.kind, document=body.document, rank=body.rank, call=body.call, id=id
            )
            unsealed = Unsealed(signal)
        await signals.keep(unsealed)
        kept = body.question is None or unsealed.signal.asked is not None
        return 201, msgspec.json.encode({"id": str(id), "kept": kept})

    def _grounding(self, requested: str | None, person: str, plan: Plan) -> Grounding:
        """What the key's workload searches; `requested`: the workload in the request. Raises `Denied`, `Invalid`."""
        workload = plan.workload
        if requested not in (None, workload.name):
            hint = f"Leave `workload` out, or use a key of {requested[:63]}." if requested else "Leave it out."
            raise Denied(f"this key is for {workload.name}", code="workload_other", hint=hint)
        admit.check_workload(plan, self._gateway.clock.seconds())
        if not person:
            raise Denied(
                "a search carries a person's permissions",
                code="person_required",
                hint="Use a key with a user, or name a person in groundplan-on-behalf-of where the key may.",
            )
        if workload.grounding is None:
            raise Invalid(f"{workload.name} has no sources", code="no_sources", hint="Declare sources in its workload.")
        return workload.grounding

    async def _ask_search(self, request: Callable[[], msgspec.Struct], id: UUID, path: bytes) -> bytes:
        """The answer of the local search service, waited for as long as by model calls. Raises `Unavailable`."""
        answer = await ask_search_patiently(self._gateway, str(id).encode("ascii"), request, bytes, path)
        if answer is None:
            raise grounding_unavailable()
        return answer


async def admit_caller(gateway: Gateway, request: Request, peer: str) -> tuple[KeyEntry, str, Plan]:
    """As `check_caller`, after waiting for live policy as a call does, where the worker had only stalled or a clock was
    set."""
    if gateway.live.age() > LEASE_SECONDS and gateway.live.is_following:
        _, _, plan, _ = _identify(gateway, request, peer, gateway.clock.seconds())
        await wait_for_policy(gateway, plan)
    return check_caller(gateway, request, peer)


def check_caller(gateway: Gateway, request: Request, peer: str) -> tuple[KeyEntry, str, Plan]:
    """Check that the request's key may be used now, from the address `peer`; returns the key, the id of the person for
    whom it acts, and its workload's plan. Raises as the admission of a call."""
    live, now = gateway.live, gateway.clock.seconds()
    key, person, plan, catalog = _identify(gateway, request, peer, now)
    admit.check_use(catalog, live.policy, key, plan, live.age(), now, runs=False)
    if catalog.granted_workloads:
        check_grants(catalog, live.policy, key, person, gateway.clock.now().date())
    return key, person, plan


def _identify(gateway: Gateway, request: Request, peer: str, now: float) -> tuple[KeyEntry, str, Plan, Catalog]:
    live = gateway.live
    catalog = dated_prices.current_catalog(live.catalog, now)
    key, person = caller_of(request.headers, live.policy, now)
    if key.networks:
        check_network(key.networks, peer, request.headers.get(b"x-forwarded-for"), catalog.proxies)
    plan = catalog.plans.get(key.workload)
    if plan is None:
        raise admit.workload_unknown(key.workload)
    return key, person, plan, catalog


def _check_value(value: Decimal | None) -> None:
    if value is None:
        return
    exponent = value.as_tuple().exponent
    places = -exponent if isinstance(exponent, int) else 0
    whole = outcome_store.VALUE_DIGITS - outcome_store.VALUE_PLACES
    if not value.is_finite() or value < 0 or places > outcome_store.VALUE_PLACES or value >= 10**whole:
        raise msgspec.ValidationError(
            f"value_usd: at least 0, below 10^{whole}, with at most {outcome_store.VALUE_PLACES} decimal places"
        )


def _send_error(response: Response, error: GroundplanError) -> None:
    lines = b"" if error.retry_after is None else b"retry-after: %d\r\n" % max(1, round(error.retry_after))
    response.send(error.status, msgspec.json.encode(error_json(error)), lines + allow_header(error))
