"""The handler of every HTTP request: makes a call of it and runs its six steps, or passes it to one of the other APIs.

The order of the steps is in `steps`, and each is a module of its own; this one turns their errors into responses and
makes sure that every admitted call ends in the journal, whatever happens to it. Nothing here calls the control plane.
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
from groundplan.gateway.caching.idempotent_calls import remember
from groundplan.gateway.call import settle
from groundplan.gateway.call.attempts import probe_turn
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.delivery.to_client import EVENT_STREAM
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.call.facts_api import FactsApi
from groundplan.gateway.call.identify import find_key
from groundplan.gateway.call.steps import run_steps, run_subcall_steps
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
from groundplan.gateway.surfaces.upload import Upload
from groundplan.gateway.telemetry import content
from groundplan.gateway.telemetry.metrics_api import scrape
from groundplan.gateway.upstream.pressure import RANK_SHARES, RANKS

_log = logging.getLogger(__name__)
_INTERFACES: dict[bytes, Interface] = {
    b"/v1/chat/completions": CHAT,
    b"/v1/embeddings": EMBEDDINGS,
    b"/v1/moderations": MODERATIONS,
    b"/v1/rerank": RERANK,
    b"/v2/rerank": RERANK,  # the path of Cohere's client
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
_POST_PATHS = tuple(sorted(path.decode() for path in _INTERFACES))
_NO_WEBSOCKET = "Send POST, with stream: true for events: there is no WebSocket for responses, and no list of them."
"""The hint for GET of /v1/responses, to which OpenAI's client connects by WebSocket too."""
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
        gateway.run_call = self.run_call
        self._facts = facts
        self._batches = batches
        self._mcp = mcp

    def handle(self, request: Request, response: Response) -> Coroutine[None, None, None]:
        """Return the coroutine that answers the request. A plain function, since every wrapping coroutine costs a call
        time whenever it is resumed."""
        interface = _INTERFACES.get(request.target)
        if interface is None or request.method != b"POST":
            path = request.target.partition(b"?")[0]
            interface = _INTERFACES.get(path)
            if interface is None or request.method != b"POST":
                return self._handle_uncalled(interface, path, request, response)
        steps = self._run_steps(Exchange(new_id_bytes(), request, response, interface), run_steps, counts=1)
        # a client that goes away will retry with its Idempotency-Key
        return steps if idempotency.IDEMPOTENCY_KEY not in request.headers else self._gateway.run_shielded(steps)

    async def _handle_uncalled(
        self, interface: Interface | None, path: bytes, request: Request, response: Response
    ) -> None:
        """Answer a request that is not a call under a path of its surface."""
        if interface is None and (here := azure_paths.gateway_path(path, _INTERFACES)) is not None:
            await azure_paths.rewrite_request(request, *here)
            await self.handle(request, response)
            return
        messages_errors.set_request_id(request, response)
        if is_preflight(request):
            self._refuse(response, CrossOrigin(), request)
        elif interface is None:
            await self._handle_other_api(path, request, response)
        elif interface is CHAT:  # of the surfaces, only chat completions can be listed
            await stored_api.handle(chat_api.answer, self._gateway, path, as_get(request), response)
        else:
            hint = _NO_WEBSOCKET if interface is RESPONSES and request.method == b"GET" else ""
            self._refuse(response, WrongMethod(b"POST", hint=hint), request)

    async def _handle_other_api(self, path: bytes, request: Request, response: Response) -> None:
        """Answer a request for one of the other APIs."""
        request = as_get(request)
        if self._facts is not None and path.startswith(b"/api/"):
            await self._facts.handle(path, request, response)
        elif self._batches is not None and self._batches.serves(path):
            await self._batches.handle(path, request, response)
        elif self._mcp is not None and path == MCP_PATH:
            await self._mcp.handle(request, response)
        elif path == REALTIME_PATH:
            await self._handle_realtime(request, response)
        elif path.startswith((responses_api.PREFIX, chat_api.PREFIX)):
            answer = chat_api.answer if path.startswith(chat_api.PREFIX) else responses_api.answer
            await stored_api.handle(answer, self._gateway, path, request, response)
        elif path == b"/metrics":
            await scrape(self._gateway, request, response)
        else:
            self._handle_remaining(path, request, response)

    async def _handle_realtime(self, request: Request, response: Response) -> None:
        gateway = self._gateway
        gateway.running_calls += 1
        try:
            await _run_conversation(gateway, request, response)
        except GroundplanError as error:
            if not response.started:
                self._refuse(response, error)
        except Exception:  # noqa: BLE001 -- the boundary of one conversation, which is settled by now
            failure = errors.log_internal_error(_log, "/v1/realtime", response)
            if not response.started:
                self._refuse(response, failure)
        finally:
            gateway.running_calls -= 1

    async def run_call(self, exchange: Exchange, steps: Steps = run_subcall_steps) -> None:
        """Run a call that the gateway itself makes, as a sub-call of another or by other `steps`; it ends in the
        journal like any other."""
        await self._run_steps(exchange, steps)

    async def _run_steps(self, exchange: Exchange, steps: Steps, *, counts: int = 0) -> None:
        """Run the steps of a call, answer its error, and finish it. `counts`: 1 for a client's call, which adds to
        `running_calls`; 0 for the gateway's own."""
        gateway, error = self._gateway, None
        gateway.running_calls += counts
        try:
            await steps(gateway, exchange)
        except GroundplanError as caught:
            error = caught
        except asyncio.CancelledError:
            settle.finish(gateway, exchange, "cancelled", settle.CLIENT_GONE, "client_gone")
            if exchange.sent_chunks is not None:
                content.send_content(gateway, exchange)
            raise
        except Exception:  # noqa: BLE001 -- the boundary of one request: it is settled and answered whatever failed
            _log.exception("call %s failed", exchange.call)
            error = _internal_error()
        finally:
            gateway.running_calls -= counts
            if exchange.flight is not None:
                cache.finish_flight(gateway, exchange)
            if exchange.file_bytes_held or exchange.request.upload_state is not None:
                _release_files(gateway, exchange)
        if error is not None:
            self._answer_error(exchange, error)
            # breaks the cycle of error, traceback and frame, which would keep the call until a garbage collection
            error = None
        remember(gateway, exchange)
        if exchange.sent_chunks is not None:
            content.send_content(gateway, exchange)
        if exchange.trial is not None and gateway.shadow_trials is not None:
            gateway.shadow_trials.after(exchange)

    def _answer_error(self, exchange: Exchange, error: GroundplanError) -> None:
        gateway = self._gateway
        probe_turn.give_up_turn(gateway, exchange)
        if exchange.attempt_started:
            settle.attempt(gateway, exchange, "failed" if exchange.attempt_sent else "not_billed", 0, None)
        if exchange.key is not None:
            settle.finish_with_error(gateway, exchange, error, "failed" if exchange.attempt_number >= 0 else "refused")
        else:
            settle.release_reservation(gateway, exchange)  # of a line of a batch, reserved before it was identified
            settle.count_unidentified(gateway, exchange, error)
        if exchange.response.started:
            return  # unfinished: the server cuts the connection
        status, data, lines = exchange.interface.error_response(error, str(exchange.call))
        if exchange.attempt_number >= 0:
            lines += answers.error_headers(exchange)
        if exchange.limit_use is not None:
            lines += exchange.limit_use.header_lines
        if exchange.ask is not None and (event := exchange.interface.error_event(exchange.ask, status, data)):
            exchange.response.send(200, event, lines, content_type=EVENT_STREAM)
            return
        exchange.response.send(status, data, lines)

    def _handle_remaining(self, path: bytes, request: Request, response: Response) -> None:
        if path == b"/livez":
            response.send(200, b'{"live":true}')
        elif path == b"/readyz":
            self._send_readiness(response)
        elif (refused := unsupported_paths.refusal(path)) is not None:
            self._refuse(response, refused, request)
        elif models_api.serves(path):
            models_api.handle(self._gateway, path, request, response)
        else:
            self._refuse(response, unsupported_paths.unknown_path(path, _POST_PATHS), request)

    def _refuse(self, response: Response, error: GroundplanError, request: Request | None = None) -> None:
        """Send the error in the format of the API that the client uses."""
        anthropic = request is not None and b"anthropic-version" in request.headers
        messages_errors.send_error(response, error, anthropic=anthropic)

    def _send_readiness(self, response: Response) -> None:
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


def _internal_error() -> Unavailable:
    return Unavailable("the gateway failed", code="internal_error", hint="See HOME/logs for this call id.")


def _release_files(gateway: Gateway, exchange: Exchange) -> None:
    """Give up the files of a call that has ended: an idle connection keeps its last request, and an error the frames it
    came through."""
    if exchange.file_bytes_held and gateway.files is not None:
        gateway.files.release(exchange)
    if isinstance(upload := exchange.request.upload_state, Upload):
        upload.close()


async def _run_conversation(gateway: Gateway, request: Request, response: Response) -> None:
    if request.stream is None:
        raise Invalid("this is a WebSocket", code="upgrade_required", hint="Connect with a WebSocket client.")
    try:
        from groundplan.gateway.surfaces.realtime.conversation import converse  # noqa: PLC0415 -- it loads an optional library
    except ImportError as error:
        hint = "Install groundplan[realtime] on the gateways."
        raise Unavailable("WebSocket is not installed here", code="realtime_missing", hint=hint) from error
    await converse(gateway, request, response)


def as_get(request: Request) -> Request:
    """A HEAD request as a GET request, any other unchanged; the response leaves its body out by itself. The original is
    not modified, as its connection depends on it."""
    if request.method != b"HEAD":
        return request
    request_copy = Request(
        request.started, b"GET", request.target, request.headers, request.body, client_subject=request.client_subject
    )
    request_copy.stream = request.stream
    return request_copy


def is_realtime(request: Request) -> bool:
    """Whether a request opens a realtime conversation over WebSocket."""
    return request.target.partition(b"?")[0] in (REALTIME_PATH, azure_paths.REALTIME)


def body_memory_share(gateway: Gateway, request: Request) -> float:
    """The share of the memory for request bodies that this request may use up: by the priority of its workload; 0 for a
    caller without a key, as every path that reads a body needs one. 1 while keys are not known yet."""
    if (catalog := gateway.live.catalog) is None:
        return 1.0
    try:
        key = find_key(request.headers, gateway.live.policy, gateway.clock.seconds())
    except Unauthenticated:
        return 0.0
    plan = catalog.plans.get(key.workload)
    return RANK_SHARES[-1 if plan is None else RANKS[plan.workload.reliability.priority]]


def workload_of(gateway: Gateway, request: Request) -> str:
    """The workload of a request by its key; empty where the key is not valid."""
    try:
        return find_key(request.headers, gateway.live.policy, gateway.clock.seconds()).workload
    except Unauthenticated:
        return ""


def has_streamed_body(request: Request) -> bool:
    """Whether the body of a request is read while it arrives: a form, or the creation of a message batch."""
    if request.target.startswith(MESSAGE_BATCHES):
        return request.method == b"POST" and request.target.partition(b"?")[0] == MESSAGE_BATCHES
    return is_form(request.headers.get(b"content-type"))
