"""The base of the APIs that can also be served through an upstream's chat completions: Completions, Responses,
Messages.

How a request is translated to chat, and the answer back, is left to each API.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec.structs import replace

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import Invalid
from groundplan.gateway.caching.replay_forms import ReplayForms
from groundplan.gateway.call import pricing
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.surfaces import thought_signatures
from groundplan.gateway.surfaces.chat.surface import CHAT, FILE, OpenAIChat, ServiceChat
from groundplan.gateway.surfaces.codec import Codec
from groundplan.gateway.surfaces.interface import Interface
from groundplan.gateway.upstream import providers
from groundplan.ledger.model import Usage

_encode = msgspec.json.Encoder().encode
ChatFields = Callable[[Ask], dict[str, msgspec.Raw]]
"""Returns the fields of the chat request, without model and caps. Raises `Invalid`."""


_IDLE_TOOL_SETTINGS = {"tool_choice": (b'"auto"', b'"none"'), "parallel_tool_calls": (b"true", b"false")}
"""Settings of how tools are called, with the values that have no effect without tools."""


def chat_request(fields: dict[str, Any]) -> dict[str, msgspec.Raw]:
    """The encoded fields of a chat request, without tool settings where there are no tools: many servers refuse them
    then, and agents send them even where they offer no tools, as when they summarize a conversation."""
    encoded = {name: msgspec.Raw(_encode(value)) for name, value in fields.items()}
    if "tools" not in encoded:
        for name, idle in _IDLE_TOOL_SETTINGS.items():
            if bytes(encoded.get(name, b"")) in idle:
                del encoded[name]
    return encoded


class ViaChat(ABC):
    """The request half of a codec by way of chat. `translated`: chat goes through the local translating service."""

    include_usage: bool | None = False
    """`stream_options.include_usage` of the chat request; None: as the caller sent it."""
    droppable: tuple[str, ...] = ()
    """Fields of the chat request that do not affect the answer: left out for deployments that cannot express them."""

    def __init__(self, *, translated: bool) -> None:
        self.translated = translated
        self._via_chat = ServiceChat() if translated else OpenAIChat()

    @abstractmethod
    def chat_fields(self, ask: Ask, deployment: Deployment) -> dict[str, msgspec.Raw]:
        """See `ChatFields`, as the deployment gets them."""

    def path(self, deployment: Deployment) -> bytes:
        return self._via_chat.path(deployment)

    def request_body(self, ask: Ask, deployment: Deployment, cap: int, system: list[str]) -> bytes:
        """The whole chat request."""
        usage = ask.include_usage if self.include_usage is None else self.include_usage
        fields = self.chat_fields(ask, deployment)
        for name in providers.fields_to_drop(fields, deployment, self.droppable):
            del fields[name]
        if not thought_signatures.wants_signatures(deployment):
            fields["messages"] = thought_signatures.remove_signatures(fields["messages"])
        chat_ask = replace(ask, fields=fields, body=b"", include_usage=usage)
        return self._via_chat.request_body(chat_ask, deployment, cap, system)


class ServedViaChat(Interface):
    """One of these APIs. A call costs what the equivalent chat call would cost."""

    _native: Codec
    _via_chat: Codec
    _via_service: Codec
    """As `_via_chat`, through the local translating service."""

    def serves_natively(self, deployment: Deployment) -> bool:
        """Whether a deployment serves this API itself, without chat."""
        raise NotImplementedError

    def codec(self, deployment: Deployment) -> Codec:
        if self.serves_natively(deployment):
            return self._native
        return self._via_chat if deployment.api == "openai" else self._via_service

    def cost_bound(self, ask: Ask, deployment: Deployment, added: int, cap: int) -> int:
        return CHAT.cost_bound(ask, deployment, added, cap)

    def estimate(self, ask: Ask, deployment: Deployment, added: int, output_bytes: int, cap: int) -> tuple[Usage, int]:
        return CHAT.estimate(ask, deployment, added, output_bytes, cap)


class TokenCounting(ServedViaChat):
    """Counts the tokens of a request to one of these APIs, free of charge: deployments that can count are asked
    (`counts_tokens`), for others the gateway estimates."""

    grounded = False
    has_extra_facts = False
    is_billed = False
    replay_forms: ReplayForms | None = None
    answer_template: bytes
    """The answer, with `%d` in place of the number."""
    file_hint: str
    """Completes the hint "Name a model ..." for requests with files."""

    def counts_tokens(self, deployment: Deployment) -> bool:
        raise NotImplementedError

    def eligible_deployments(self, ask: Ask, deployments: tuple[Deployment, ...]) -> tuple[Deployment, ...]:  # noqa: ARG002
        """The deployments that count tokens if the first one does, otherwise all."""
        return tuple(filter(self.counts_tokens, deployments)) if self.counts_tokens(deployments[0]) else deployments

    def local_answer(self, ask: Ask, deployments: list[Deployment]) -> bytes | None:
        return None if self.counts_tokens(deployments[0]) else self.estimated_count(ask, deployments[0])

    def estimated_count(self, ask: Ask, deployment: Deployment) -> bytes:
        """An estimate from bytes and the declared tokens of images; its `groundplan` object marks it as one."""
        if FILE in ask.needs:
            hint = f"Name a model {self.file_hint}."
            raise Invalid("the tokens of a file cannot be counted here", code="content_unsupported", hint=hint)
        text = -(-(ask.size + ask.extra_tokens) // pricing.BYTES_PER_TOKEN)
        return self.answer_template % (text + ask.images * deployment.image_tokens + deployment.input_overhead_tokens)

    def cost_bound(self, ask: Ask, deployment: Deployment, added: int, cap: int) -> int:  # noqa: ARG002
        return 0

    def estimate(self, ask: Ask, deployment: Deployment, added: int, output_bytes: int, cap: int) -> tuple[Usage, int]:  # noqa: ARG002
        return Usage(), 0


def served_natively(name: str) -> Callable[[Deployment], bool]:
    """A predicate: whether a deployment serves the OpenAI API `name` itself."""
    return lambda deployment: deployment.api == "openai" and name in deployment.serves


def eligible_deployments(
    ask: Ask,
    deployments: tuple[Deployment, ...],
    native: Callable[[Deployment], bool],
    fields: ChatFields,
    droppable: tuple[str, ...] = (),
) -> tuple[Deployment, ...]:
    """The deployments that serve the API themselves, and the others if the request can be translated to chat, without
    the `droppable` fields. Raises `Invalid` where there is none."""
    own = tuple(deployment for deployment in deployments if native(deployment))
    if len(own) == len(deployments):
        return deployments
    try:
        others = [deployment for deployment in deployments if not native(deployment)]
        fitting = {
            deployment.name for deployment in providers.capable_deployments(fields(ask), others, droppable=droppable)
        }
    except Invalid:
        if own:
            return own
        raise
    return tuple(deployment for deployment in deployments if native(deployment) or deployment.name in fitting)
