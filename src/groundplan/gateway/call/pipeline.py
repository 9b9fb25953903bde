"""The request path: identify, admit, cache, ground, serve, settle, for each call, and the few other paths of the
gateway.

`steps` has their order, and each is a module of its own; this one words their errors and makes sure that every admitted
call ends in the journal, whatever happens to it. Nothing here calls the control plane.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Protocol

import msgspec

from groundplan.core.errors import GroundplanError, Invalid, Unauthenticated, Unavailable
from groundplan.core.ids import new_id_bytes
from groundplan.gateway.batches.batches_api import BatchesApi
from groundplan.gateway.batches.messages_api import PATH as MESSAGE_BATCHES
from groundplan.gateway.caching import cache, idempotency
from groundplan.gateway.caching.idempotency_outcome import remember
from groundplan.gateway.call import settle
from groundplan.gateway.call.attempts import probe_turn
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.delivery.stream import EVENT_STREAM
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.call.facts_api import FactsApi
from groundplan.gateway.call.identify import find_key
from groundplan.gateway.call.steps import run, run_within
from groundplan.gateway.http import errors
from groundplan.gateway.http.methods import CrossOrigin, WrongMethod, is_preflight
from groundplan.gateway.http.multipart import is_form
from groundplan.gateway.http.server import Request, Response
from groundplan.gateway.surfaces import answers, azure_paths, models_api, stored_api, unsupported_paths
from groundplan.gateway.surfaces.chat import stored_api as chat_api
from groundplan.gateway.surfaces.chat.surface import CHAT
from groundplan.gateway.surfaces.completions import COMPLETIONS
from groundplan.gateway.surfaces.embeddings import EMBEDDINGS
from groundplan.gateway.surfaces.image_forms import IMAGE_EDITS, IMAGE_VARIATIONS
from groundplan.gateway.surfaces.images import IMAGES
from groundplan.gateway.surfaces.interface import Interface
from groundplan.gateway.surfaces.messages import errors as messages_errors
from groundplan.gateway.surfaces.messages.surface import COUNT_TOKENS, MESSAGES
from groundplan.gateway.surfaces.moderations import MODERATIONS
from groundplan.gateway.surfaces.rerank import RERANK
from groundplan.gateway.surfaces.responses import stored_api as responses_api
from groundplan.gateway.surfaces.responses.count import INPUT_TOKENS
from groundplan.gateway.surfaces.responses.surface import RESPONSES
from groundplan.gateway.surfaces.speech import SPEECH
from groundplan.gateway.surfaces.transcriptions import TRANSCRIPTIONS, TRANSLATIONS
from groundplan.gateway.telemetry import content
from groundplan.gateway.telemetry.metrics_api import scrape
from groundplan.gateway.upstream.pressure import RANKS, SHARES

_log = logging.getLogger(__name__)
_INTERFACES: dict[bytes, Interface] = {
    b"/v1/chat/completions": CHAT,
    b"/v1/embeddings": EMBEDDINGS,
    b"/v1/moderations": MODERATIONS,
    b"/v1/rerank": RERANK,
    b"/v2/rerank": RERANK,  # which Cohere's client asks
    b"/v1/images/generations": IMAGES,
    b"/v1/images/edits": IMAGE_EDITS,
    b"/v1/images/variations": IMAGE_VARIATIONS,
    b"/v1/audio/speech": SPEECH,
    b"/v1/audio/transcriptions": TRANSCRIPTIONS,
    b"/v1/audio/translations": TRANSLATIONS,
    b"/v1/messages": MESSAGES,
    b"/v1/messages/count_tokens": COUNT_TOKENS,
    b"/v1/responses": RESPONSES,
    b"/v1/responses/input_tokens": INPUT_TOKENS,
    b"/v1/completions": COMPLETIONS,
}
"""Every API surface by its path."""
_POSTED = tuple(sorted(path.decode() for path in _INTERFACES))
Steps = Callable[[Gateway, Exchange], Awaitable[None]]
REALTIME_PATH = b"/v1/realtime"
MCP_PATH = b"/mcp"


class Mcp(Protocol):
    """Tools of declared MCP servers."""

    async def handle(self, request: Request, response: Response) -> None: ...


class Pipeline:
    """`handle` is the server's handler; `facts` serves what is under /api, `batches` files and batches."""

    def __init__(
        self,
        gateway: Gateway,
        facts: FactsApi | None = None,
        batches: BatchesApi | None = None,
        mcp: Mcp | None = None,
    ) -> None:
        self._gateway = gateway
        gateway.conduct = self.conduct
        self._facts = facts
        self._batches = batches
        self._mcp = mcp

    def handle(self, request: Request, response: Response) -> Coroutine[None, None, None]:
        """What is to be awaited for the answer; a plain function, since each coroutine around a call costs it something
        whenever it goes on."""
        interface = _INTERFACES.get(request.target)
        if interface is None or request.method != b"POST":
            path = request.target.partition(b"?")[0]
            interface = _INTERFACES.get(path)
            if interface is None or request.method != b"POST":
                return self._uncalled(interface, path, request, response)
        steps = self._steps(Exchange(new_id_bytes(), request, response, interface), run, counts=1)
        # a client that goes away will ask for what it named again
        return steps if idempotency.NAMED not in request.headers else self._gateway.to_its_end(steps)

    async def _uncalled(self, interface: Interface | None, path: bytes, request: Request, response: Response) -> None:
        """What makes no call."""
        if interface is None and (here := azure_paths.path_here(path, _INTERFACES)) is not None:
            await azure_paths.reword(request, *here)
            await self.handle(request, response)
            return
        messages_errors.name(request, response)
        if is_preflight(request):
            self._refuse(response, CrossOrigin(), request)
        elif interface is None:
            await self._beside(path, request, response)
        elif interface is CHAT:  # of what calls are made with, only chat completions can be listed
            await stored_api.handle(chat_api.answer, self._gateway, path, as_get(request), response)
        else:
            self._refuse(response, WrongMethod(b"POST"), request)

    async def _beside(self, path: bytes, request: Request, response: Response) -> None:
        """What is asked beside calls."""
        request = as_get(request)
        if self._facts is not None and path.startswith(b"/api/"):
            await self._facts.handle(path, request, response)
        elif self._batches is not None and self._batches.serves(path):
            await self._batches.handle(path, request, response)
        elif self._mcp is not None and path == MCP_PATH:
            await self._mcp.handle(request, response)
        elif path == REALTIME_PATH:
            await self._realtime(request, response)
        elif path.startswith((responses_api.PREFIX, chat_api.PREFIX)):
            answer = chat_api.answer if path.startswith(chat_api.PREFIX) else responses_api.answer
            await stored_api.handle(answer, self._gateway, path, request, response)
        elif path == b"/metrics":
            await scrape(self._gateway, request, response)
        else:
            self._other(path, request, response)

    async def _realtime(self, request: Request, response: Response) -> None:
        gateway = self._gateway
        gateway.running += 1
        try:
            await _converse(gateway, request, response)
        except GroundplanError as error:
            if not response.started:
                self._refuse(response, error)
        except Exception:  # noqa: BLE001 -- the boundary of one conversation, which is settled by now
            failure = errors.log_internal_error(_log, "/v1/realtime", response)
            if not response.started:
                self._refuse(response, failure)
        finally:
            gateway.running -= 1

    async def conduct(self, exchange: Exchange, steps: Steps = run_within) -> None:
        """A call that the gateway itself makes, within the one that it is for or by other `steps`; it ends in the
        journal like any other."""
        await self._steps(exchange, steps)

    async def _steps(self, exchange: Exchange, steps: Steps, *, counts: int = 0) -> None:
        """`counts`: 1 for a call that a client made, which is one of those that run."""
        gateway, error = self._gateway, None
        gateway.running += counts
        try:
            await steps(gateway, exchange)
        except GroundplanError as caught:
            error = caught
        except asyncio.CancelledError:
            settle.finish(gateway, exchange, "cancelled", settle.CLIENT_GONE, "client_gone")
            if exchange.kept is not None:
                content.offer(gateway, exchange)
            raise
        except Exception:  # noqa: BLE001 -- the boundary of one request: whatever it is, money and the client come first
            _log.exception("call %s failed", exchange.call)
            error = _failure()
        finally:
            gateway.running -= counts
            if exchange.flight is not None:
                cache.land(gateway, exchange)
            if exchange.held and gateway.files is not None:
                gateway.files.release(exchange)
        if error is not None:
            self._failed(exchange, error)
            error = None  # it knows this frame: together they would keep all of the call until garbage is looked for
        remember(gateway, exchange)
        if exchange.kept is not None:
            content.offer(gateway, exchange)
        if exchange.trial is not None and gateway.shadows is not None:
            gateway.shadows.after(exchange)

    def _failed(self, exchange: Exchange, error: GroundplanError) -> None:
        gateway = self._gateway
        probe_turn.give_up_turn(gateway, exchange)
        if exchange.attempt_started:
            settle.attempt(gateway, exchange, "failed", 0, None)
        if exchange.key is not None:
            settle.refuse(gateway, exchange, error, "failed" if exchange.attempt >= 0 else "refused")
        else:
            if exchange.token is not None:  # of a line of a batch, whose money was set aside before it was looked at
                gateway.slices.settle(exchange.token, 0)
                exchange.token = None
            settle.refuse_stranger(gateway, exchange, error)
        if exchange.response.started:
            return  # unfinished: the server cuts the connection
        status, data, lines = exchange.interface.error_response(error, str(exchange.call))
        if exchange.attempt >= 0:
            lines += answers.beside_error(exchange)
        if exchange.use is not None:
            lines += exchange.use.lines
        if exchange.ask is not None and (told := exchange.interface.error_event(exchange.ask, status, data)):
            exchange.response.send(200, told, lines, content_type=EVENT_STREAM)
            return
        exchange.response.send(status, data, lines)

    def _other(self, path: bytes, request: Request, response: Response) -> None:
        if path == b"/livez":
            response.send(200, b'{"live":true}')
        elif path == b"/readyz":
            self._readiness(response)
        elif (refused := unsupported_paths.refusal(path)) is not None:
            self._refuse(response, refused, request)
        elif models_api.serves(path):
            models_api.handle(self._gateway, path, request, response)
        else:
            self._refuse(response, unsupported_paths.unknown(path, _POSTED), request)

    def _refuse(self, response: Response, error: GroundplanError, request: Request | None = None) -> None:
        """In the words of the API whose client asks."""
        anthropic = request is not None and b"anthropic-version" in request.headers
        told = (
            messages_errors.of_error(error, request_id=response.request_id)
            if anthropic
            else errors.error_response(error)
        )
        response.send(*told)

    def _readiness(self, response: Response) -> None:
        gateway = self._gateway
        catalog = gateway.live.catalog
        state = {
            "ready": gateway.ready and gateway.journal.healthy,
            "blueprint": catalog.number if catalog else None,
            "policy": gateway.live.policy.number,
            "policy_age_ms": int(min(gateway.live.age(), 1e9) * 1000),
            "journal": gateway.journal.healthy,
        }
        response.send(200 if state["ready"] else 503, msgspec.json.encode(state))


def _failure() -> Unavailable:
    return Unavailable("the gateway failed", code="internal_error", hint="See HOME/logs for this call id.")


async def _converse(gateway: Gateway, request: Request, response: Response) -> None:
    if request.stream is None:
        raise Invalid("this is a WebSocket", code="upgrade_required", hint="Connect with a WebSocket client.")
    try:
        from groundplan.gateway.surfaces.realtime.conversation import converse  # noqa: PLC0415 -- it loads an optional library
    except ImportError as error:
        hint = "Install groundplan[realtime] on the gateways."
        raise Unavailable("WebSocket is not installed here", code="realtime_missing", hint=hint) from error
    await converse(gateway, request, response)


def as_get(request: Request) -> Request:
    """HEAD is asked of whatever is asked by GET; the response has no body by itself. The request stays as it is: its
    connection knows the next one by it."""
    if request.method != b"HEAD":
        return request
    asked = Request(
        request.started, b"GET", request.target, request.headers, request.body, client_subject=request.client_subject
    )
    asked.stream = request.stream
    return asked


def upgrades(request: Request) -> bool:
    """Whether a request is the beginning of a conversation over WebSocket."""
    return request.target.partition(b"?")[0] in (REALTIME_PATH, azure_paths.REALTIME)


def share(gateway: Gateway, request: Request) -> float:
    """Of all room for bodies, how much may be taken where the body of a request is still read: by the priority of its
    workload; 0 of a caller without a key, which every path needs that reads a body. Keys may not be known yet."""
    if (catalog := gateway.live.catalog) is None:
        return 1.0
    try:
        key = find_key(request.headers, gateway.live.policy, gateway.clock.seconds())
    except Unauthenticated:
        return 0.0
    plan = catalog.plans.get(key.workload)
    return SHARES[-1 if plan is None else RANKS[plan.workload.reliability.priority]]


def whose(gateway: Gateway, request: Request) -> str:
    """The workload of which the body of a request is; empty where no key is known."""
    try:
        return find_key(request.headers, gateway.live.policy, gateway.clock.seconds()).workload
    except Unauthenticated:
        return ""


def streams(request: Request) -> bool:
    """Whether the body of a request is read while it arrives: a form with a file, an order of a message batch."""
    if request.target.startswith(MESSAGE_BATCHES):
        return request.method == b"POST" and request.target.partition(b"?")[0] == MESSAGE_BATCHES
    return is_form(request.headers.get(b"content-type"))
