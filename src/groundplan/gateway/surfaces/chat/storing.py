"""Stores chat completions: sealed in PostgreSQL before the last byte is sent, found again by the key that made them.

Only for workloads that keep content in full, and only where the caller sends `store: true`; upstreams are told to store
nothing. A worker waits for the database here, but only for calls that store. The answer says where it was not stored.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import GroundplanError
from groundplan.gateway.caching.replay_forms import CHAT_REPLAY_FORMS
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.http.splicing import replace_fields
from groundplan.gateway.http.strict_json import DECODE_ERRORS
from groundplan.gateway.http.surrogates import decode_json
from groundplan.gateway.surfaces.chat.relay import ChatRelay, CopiesRelay, take_left_out
from groundplan.gateway.surfaces.chat.sealed_store import StoredCompletion
from groundplan.gateway.surfaces.chat.surface import ChatCompletions, OpenAIChat, ServiceChat
from groundplan.gateway.surfaces.codec import Relay
from groundplan.gateway.surfaces.metadata import check_metadata
from groundplan.gateway.surfaces.relay_wrapper import RelayWrapper
from groundplan.gateway.surfaces.responses.sealed_store import owner_of
from groundplan.gateway.upstream import providers
from groundplan.ledger.completion_store import Row

if TYPE_CHECKING:
    from groundplan.gateway.call.context import Gateway
    from groundplan.gateway.call.exchange import Exchange

MAX_STREAM_BYTES = 4 << 20
"""A longer stream is not stored."""
_ID = re.compile(r"[A-Za-z0-9_.:-]{1,200}", re.ASCII)
"""An id of a completion that can be requested by its path."""
_STORAGE_FIELDS = ("store", "metadata")
"""Fields of a request that are about storage, not about the answer."""


class _Request(msgspec.Struct, frozen=True):
    messages: list[dict[str, Any]]


_request = msgspec.json.Decoder(_Request).decode


# during the call -----------------------------------------------------------------------------------------------------


class StorageRequest:
    """`Ask.parsed` of a completion that is to be stored: its metadata, and whether it was stored."""

    __slots__ = ("metadata", "stored")

    def __init__(self, metadata: dict[str, str]) -> None:
        self.metadata = metadata
        self.stored = False


class RecordingRelay(CopiesRelay):
    """A stream of chat that records its events."""

    __slots__ = ("_bytes_left", "_events")

    def __init__(self, include_usage: bool, copies: int) -> None:
        super().__init__(include_usage, copies)
        self._events: list[bytes] = []
        self._bytes_left = MAX_STREAM_BYTES

    def feed(self, data: bytes) -> bytes:
        self._bytes_left -= len(data) + 64
        if self._bytes_left >= 0:
            self._events.append(data)
        else:
            self._events = []
        return super().feed(data)

    def completion(self) -> bytes | None:
        """The whole stream as one completion; None where it is too long, or something would be lost."""
        return CHAT_REPLAY_FORMS.to_whole(self._events) if self._bytes_left >= 0 else None


class _RecordingServiceRelay(RecordingRelay):
    """The same of the local translating service; see `ServiceRelay`."""

    __slots__ = ("_ask",)

    def __init__(self, ask: Ask) -> None:
        super().__init__(ask.include_usage, ask.copies)
        self._ask = ask

    def feed(self, data: bytes) -> bytes:
        return super().feed(take_left_out(data, self._ask))


class _StoredOpenAIChat(OpenAIChat):
    def request_body(self, ask: Ask, deployment: Deployment, cap: int, system: list[str]) -> bytes:
        """As its base, with `store: false`: nothing is stored at the upstream."""
        body = super().request_body(ask, deployment, cap, system)
        known = "store" in ask.fields or "store" in providers.refused_fields(deployment.url)
        return body if known else body.rstrip()[:-1] + b',"store":false}'

    def new_relay(self, ask: Ask) -> ChatRelay:
        return RecordingRelay(ask.include_usage, ask.copies)


class _StoredServiceChat(ServiceChat):
    def new_relay(self, ask: Ask) -> ChatRelay:
        return _RecordingServiceRelay(ask)


class StoredChat(ChatCompletions):
    """`POST /v1/chat/completions` with `store: true`, of a workload that keeps content in full."""

    can_store_answers = True
    has_extra_facts = True
    _openai = _StoredOpenAIChat()
    _service = _StoredServiceChat()

    def extra_facts(self, ask: Ask, deployment: Deployment) -> dict[str, object]:
        stored = {"store": ask.parsed.stored} if isinstance(ask.parsed, StorageRequest) else {}
        return stored | super().extra_facts(ask, deployment)


STORED_CHAT = StoredChat()


def prepare(exchange: Exchange, ask: Ask) -> Ask:
    """Turn a call that is to be stored into one of `StoredChat`, and return its request without the fields about
    storage. Raises `Invalid`."""
    if bytes(ask.fields.get("store", b"")) != b"true" or not exchange.keeps_content:
        return ask
    raw = ask.fields.get("metadata")
    metadata = check_metadata(None if raw is None else msgspec.json.decode(raw))
    body = replace_fields(ask.body, ask.fields, {name: None for name in _STORAGE_FIELDS if name in ask.fields})
    fields = {name: value for name, value in ask.fields.items() if name not in _STORAGE_FIELDS}
    exchange.ask = stored_ask = msgspec.structs.replace(ask, fields=fields, body=body, parsed=StorageRequest(metadata))
    exchange.interface = STORED_CHAT
    return stored_ask


def stores_answer(exchange: Exchange) -> bool:
    """Whether this call's answer is to be stored."""
    return exchange.ask is not None and isinstance(exchange.ask.parsed, StorageRequest)


async def store_answer(gateway: Gateway, exchange: Exchange, answer: bytes | Relay) -> None:
    """Store the answer if it is whole; the continuation of an interrupted stream is not."""
    ask = exchange.ask
    if ask is None or not isinstance(ask.parsed, StorageRequest) or "resumed" in exchange.attempt_flags:
        return
    if not isinstance(answer, bytes):
        relay = answer.innermost if isinstance(answer, RelayWrapper) else answer
        completion = relay.completion() if isinstance(relay, RecordingRelay) else None
        if completion is None:
            return
        answer = completion
    ask.parsed.stored = await _store(gateway, exchange, answer, ask.parsed.metadata)


async def _store(gateway: Gateway, exchange: Exchange, answer: bytes, metadata: dict[str, str]) -> bool:
    """Store a whole completion; whether it is stored."""
    sealed, workload, key, deployment = gateway.stored_completions, exchange.workload, exchange.key, exchange.deployment
    if sealed is None or workload is None or workload.keep is None or key is None or deployment is None:
        return False
    try:
        completion = decode_json(answer)
    except DECODE_ERRORS:
        return False  # it has a number that is out of range
    id = completion.get("id")
    if not isinstance(id, str) or _ID.fullmatch(id) is None:
        return False
    stored = StoredCompletion(completion, _request(exchange.request.body).messages, metadata)
    until = gateway.clock.now() + timedelta(seconds=workload.keep.seconds)
    model = str(completion.get("model") or "")[:200]
    owner = owner_of(key, exchange.person).key
    row = Row(exchange.call, id, workload.name, owner, deployment.name, model, until, "")
    try:
        return await sealed.put(row, UUID(exchange.person or key.id), stored)
    except GroundplanError:
        return False
