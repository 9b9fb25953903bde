"""Chat completions that are stored: sealed and put into PostgreSQL before their last byte, found by the key that made
them.

Only workloads that keep content in full store any, and only where the caller says `store: true`; upstreams are told to
store nothing. A worker waits for the database here, and only for calls that store. Whatever is not stored is told so.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import GroundplanError, Invalid
from groundplan.gateway.caching.replay_forms import CHAT_REPLAY_FORMS
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.http.splicing import replace_fields
from groundplan.gateway.http.strict_json import DECODE_ERRORS
from groundplan.gateway.http.surrogates import decode_json
from groundplan.gateway.surfaces.chat.relay import ChatRelay, CopiesRelay
from groundplan.gateway.surfaces.chat.sealed_store import Kept
from groundplan.gateway.surfaces.chat.surface import ChatCompletions, OpenAIChat, ServiceChat
from groundplan.gateway.surfaces.codec import Relay
from groundplan.gateway.surfaces.relay_wrapper import RelayWrapper
from groundplan.gateway.surfaces.responses.sealed_store import owner_of
from groundplan.gateway.upstream import providers
from groundplan.ledger.completion_store import Row

if TYPE_CHECKING:
    from groundplan.gateway.call.context import Gateway
    from groundplan.gateway.call.exchange import Exchange

MOST_BYTES = 4 << 20
"""Of a longer stream nothing is stored."""
_ID = re.compile(r"[A-Za-z0-9_.:-]{1,200}", re.ASCII)
"""Of a completion that can be asked for by its path."""
_FIELDS = ("store", "metadata")
"""Of a request, that are about what is stored and not about the answer."""
_MOST_PAIRS, _LONGEST_NAME, _LONGEST_VALUE = 16, 64, 512


class _Request(msgspec.Struct, frozen=True):
    messages: list[dict[str, Any]]


_request = msgspec.json.Decoder(_Request).decode


def checked_metadata(value: object) -> dict[str, str]:
    """Raises `Invalid` where it is not what OpenAI allows."""
    pairs = {} if value is None else value
    good = isinstance(pairs, dict) and len(pairs) <= _MOST_PAIRS
    if good and isinstance(pairs, dict):
        good = all(
            len(name) <= _LONGEST_NAME and isinstance(text, str) and len(text) <= _LONGEST_VALUE
            for name, text in pairs.items()
        )
    if not good or not isinstance(pairs, dict):
        raise Invalid(
            "metadata is wrong",
            code="metadata_invalid",
            hint=f"Send at most {_MOST_PAIRS} names of {_LONGEST_NAME} characters, with texts of {_LONGEST_VALUE}.",
        )
    return pairs


# while it is made ----------------------------------------------------------------------------------------------------


class Storing:
    """In the request of a completion that is to be stored: its metadata, and whether it is."""

    __slots__ = ("metadata", "stored")

    def __init__(self, metadata: dict[str, str]) -> None:
        self.metadata = metadata
        self.stored = False


class KeptRelay(CopiesRelay):
    """A stream of chat that remembers what came."""

    __slots__ = ("_came", "_room")

    def __init__(self, include_usage: bool, copies: int) -> None:
        super().__init__(include_usage, copies)
        self._came: list[bytes] = []
        self._room = MOST_BYTES

    def feed(self, data: bytes) -> bytes:
        self._room -= len(data) + 64
        if self._room >= 0:
            self._came.append(data)
        else:
            self._came = []
        return super().feed(data)

    def whole(self) -> bytes | None:
        """All of it as one completion; None where it is too long, or something would be lost."""
        return CHAT_REPLAY_FORMS.whole(self._came) if self._room >= 0 else None


class _StoredOpenAIChat(OpenAIChat):
    def request_body(self, ask: Ask, deployment: Deployment, cap: int, system: list[str]) -> bytes:
        """Nothing is stored at the upstream, which is told so."""
        made = super().request_body(ask, deployment, cap, system)
        known = "store" in ask.fields or "store" in providers.refused_at(deployment.url)
        return made if known else made.rstrip()[:-1] + b',"store":false}'

    def new_relay(self, ask: Ask) -> ChatRelay:
        return KeptRelay(ask.include_usage, ask.copies)


class _StoredServiceChat(ServiceChat):
    def new_relay(self, ask: Ask) -> ChatRelay:
        return KeptRelay(ask.include_usage, ask.copies)


class StoredChat(ChatCompletions):
    """`POST /v1/chat/completions` with `store: true`, of a workload that keeps content in full."""

    can_store_answers = True
    has_extra_facts = True
    _openai = _StoredOpenAIChat()
    _service = _StoredServiceChat()

    def extra_facts(self, ask: Ask, deployment: Deployment) -> dict[str, object]:  # noqa: ARG002 -- the contract's signature
        return {"store": ask.typed.stored} if isinstance(ask.typed, Storing) else {}


STORED_CHAT = StoredChat()


def begin(exchange: Exchange, ask: Ask) -> Ask:
    """From here on a call that is to be stored is one of `StoredChat`, and what is about storing leaves its request,
    which is returned. Raises `Invalid`."""
    if bytes(ask.fields.get("store", b"")) != b"true" or not exchange.keeps_content:
        return ask
    raw = ask.fields.get("metadata")
    metadata = checked_metadata(None if raw is None else msgspec.json.decode(raw))
    body = replace_fields(ask.body, ask.fields, {name: None for name in _FIELDS if name in ask.fields})
    fields = {name: value for name, value in ask.fields.items() if name not in _FIELDS}
    exchange.ask = made = msgspec.structs.replace(ask, fields=fields, body=body, typed=Storing(metadata))
    exchange.interface = STORED_CHAT
    return made


def stores(exchange: Exchange) -> bool:
    """Where the caller wants that and its workload keeps content in full."""
    return exchange.ask is not None and isinstance(exchange.ask.typed, Storing)


async def keep(gateway: Gateway, exchange: Exchange, answer: bytes | Relay) -> None:
    """Store the answer, where there is one that is whole: the rest of a stream that broke elsewhere is none."""
    ask = exchange.ask
    if ask is None or not isinstance(ask.typed, Storing) or "resumed" in exchange.attempt_flags:
        return
    if not isinstance(answer, bytes):
        relay = answer.innermost if isinstance(answer, RelayWrapper) else answer
        made = relay.whole() if isinstance(relay, KeptRelay) else None
        if made is None:
            return
        answer = made
    ask.typed.stored = await _store(gateway, exchange, answer, ask.typed.metadata)


async def _store(gateway: Gateway, exchange: Exchange, answer: bytes, metadata: dict[str, str]) -> bool:
    sealed, workload, key, deployment = gateway.completions, exchange.workload, exchange.key, exchange.deployment
    if sealed is None or workload is None or workload.keep is None or key is None or deployment is None:
        return False
    try:
        completion = decode_json(answer)
    except DECODE_ERRORS:
        return False  # it has a number beyond all bounds
    id = completion.get("id")
    if not isinstance(id, str) or _ID.fullmatch(id) is None:
        return False
    kept = Kept(completion, _request(exchange.request.body).messages, metadata)
    until = gateway.clock.now() + timedelta(seconds=workload.keep.seconds)
    model = str(completion.get("model") or "")[:200]
    row = Row(exchange.call, id, workload.name, owner_of(key), deployment.name, model, until, "")
    try:
        return await sealed.put(row, UUID(exchange.person or key.id), kept)
    except GroundplanError:
        return False
