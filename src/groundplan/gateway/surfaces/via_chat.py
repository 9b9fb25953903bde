"""What the APIs have in common that can also be served through an upstream's chat completions: Completions, Responses,
Messages.

How a request is put into chat, and what the answer means, is each API's own.
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
from groundplan.gateway.call import meter
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.surfaces import thought_signatures
from groundplan.gateway.surfaces.chat.surface import CHAT, FILE, OpenAIChat, ServiceChat
from groundplan.gateway.surfaces.codec import Codec
from groundplan.gateway.surfaces.interface import Interface
from groundplan.gateway.upstream import providers
from groundplan.ledger.model import Usage

_encode = msgspec.json.Encoder().encode
ChatFields = Callable[[Ask], dict[str, msgspec.Raw]]
"""The request in chat, but for model and caps. Raises `Invalid`."""


_IDLE_TOOL_SETTINGS = {"tool_choice": (b'"auto"', b'"none"'), "parallel_tool_calls": (b"true", b"false")}
"""What is said of how tools are called, where it asks for none to be."""


def chat_request(fields: dict[str, Any]) -> dict[str, msgspec.Raw]:
    """A request in chat, without what is said of tools where there are none: many servers refuse it then, and agents
    say it also where they offer none, as when they sum up a conversation."""
    made = {name: msgspec.Raw(_encode(value)) for name, value in fields.items()}
    if "tools" not in made:
        for name, idle in _IDLE_TOOL_SETTINGS.items():
            if bytes(made.get(name, b"")) in idle:
                del made[name]
    return made


class ViaChat(ABC):
    """The asking half of a codec. `translated`: the chat is the local translating service's."""

    include_usage: bool | None = False
    """What the request in chat says of it; None as it came."""
    droppable: tuple[str, ...] = ()
    """Fields of the request in chat on which nothing of an answer depends: they are left out where a deployment has no
    word for them."""

    def __init__(self, *, translated: bool) -> None:
        self.translated = translated
        self._via_chat = ServiceChat() if translated else OpenAIChat()

    @abstractmethod
    def chat_fields(self, ask: Ask) -> dict[str, msgspec.Raw]:
        """As `ChatFields`."""

    def path(self, deployment: Deployment) -> bytes:
        return self._via_chat.path(deployment)

    def request_body(self, ask: Ask, deployment: Deployment, cap: int, system: list[str]) -> bytes:
        """The whole request in chat."""
        usage = ask.include_usage if self.include_usage is None else self.include_usage
        fields = self.chat_fields(ask)
        for name in providers.fields_to_drop(fields, deployment, self.droppable):
            del fields[name]
        if not thought_signatures.reads(deployment):
            fields["messages"] = thought_signatures.for_others(fields["messages"])
        asked = replace(ask, fields=fields, body=b"", include_usage=usage)
        return self._via_chat.request_body(asked, deployment, cap, system)


class ServedViaChat(Interface):
    """One of these APIs. A call of it costs what the chat would that stands for it."""

    _native: Codec
    _via_chat: Codec
    _via_service: Codec
    """As `_via_chat`, by the local translating service."""

    def serves_natively(self, deployment: Deployment) -> bool:
        """Whether a deployment serves this API itself."""
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
    """How many tokens a request of one of them would have, at nobody's cost: asked of deployments that count
    (`counts`), estimated here for others."""

    grounded = False
    has_extra_facts = False
    is_billed = False
    replay_forms: ReplayForms | None = None
    told: bytes
    """The answer around the number."""
    file_hint: str
    """Which models are to be named by whoever sends files."""

    def counts(self, deployment: Deployment) -> bool:
        raise NotImplementedError

    def eligible_deployments(self, ask: Ask, deployments: tuple[Deployment, ...]) -> tuple[Deployment, ...]:  # noqa: ARG002
        """The first if it counts itself, with the others that do, otherwise all."""
        return tuple(filter(self.counts, deployments)) if self.counts(deployments[0]) else deployments

    def local_answer(self, ask: Ask, deployments: list[Deployment]) -> bytes | None:
        return None if self.counts(deployments[0]) else self.estimated_count(ask, deployments[0])

    def estimated_count(self, ask: Ask, deployment: Deployment) -> bytes:
        """Images as they are declared. Marked as an estimate by its `groundplan`."""
        if FILE in ask.needs:
            hint = f"Name a model {self.file_hint}."
            raise Invalid("the tokens of a file cannot be counted here", code="content_unsupported", hint=hint)
        text = -(-(ask.size + ask.hidden) // meter.BYTES_PER_TOKEN)
        return self.told % (text + ask.images * deployment.image_tokens + deployment.input_overhead_tokens)

    def cost_bound(self, ask: Ask, deployment: Deployment, added: int, cap: int) -> int:  # noqa: ARG002
        return 0

    def estimate(self, ask: Ask, deployment: Deployment, added: int, output_bytes: int, cap: int) -> tuple[Usage, int]:  # noqa: ARG002
        return Usage(), 0


def served_natively(name: str) -> Callable[[Deployment], bool]:
    """Whether a deployment serves one of OpenAI's APIs itself."""
    return lambda deployment: deployment.api == "openai" and name in deployment.serves


def eligible_deployments(
    ask: Ask,
    deployments: tuple[Deployment, ...],
    native: Callable[[Deployment], bool],
    fields: ChatFields,
    droppable: tuple[str, ...] = (),
) -> tuple[Deployment, ...]:
    """Those that serve the API themselves, and the others where the request can be put into chat, but for what is
    `droppable`. Raises `Invalid`."""
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
