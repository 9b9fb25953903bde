"""`POST /v1/responses/input_tokens`: how many tokens a request for a response would have, at nobody's cost.

Asked of upstreams that serve it, estimated here for others. Stores nothing, and adds nothing of the workload's own.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from groundplan.blueprint.model import Deployment
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.http.splicing import replace_fields
from groundplan.gateway.surfaces.codec import Codec, UpstreamAnswer
from groundplan.gateway.surfaces.responses.request_types import Asked, unsupported
from groundplan.gateway.surfaces.responses.surface import OpenAIResponses, Responses, read, told, without_unread
from groundplan.gateway.surfaces.upstream_json import decode_upstream
from groundplan.gateway.surfaces.via_chat import TokenCounting, served_natively
from groundplan.ledger.model import Usage

_encode = msgspec.json.Encoder().encode
_counts = served_natively("input_tokens")


class _Asked(Asked, frozen=True):
    model: str = "auto"


class _Counted(msgspec.Struct, frozen=True):
    input_tokens: int


_asked: msgspec.json.Decoder[Asked] = msgspec.json.Decoder(_Asked)
_counted = msgspec.json.Decoder(_Counted).decode


class InputTokenCount(OpenAIResponses):
    """As upstreams speak it that have it."""

    def path(self, deployment: Deployment) -> bytes:  # noqa: ARG002 -- the protocol's signature
        return b"/responses/input_tokens"

    def request_body(self, ask: Ask, deployment: Deployment, cap: int, system: list[str]) -> bytes:  # noqa: ARG002
        changes = {"model": _encode(deployment.upstream_model), **without_unread(ask, deployment)}
        return replace_fields(ask.body, ask.fields, changes)

    def parse_answer(self, data: bytes, ask: Ask) -> UpstreamAnswer:  # noqa: ARG002 -- the protocol's signature
        """Raises `Malformed`."""
        decode_upstream(_counted, data)
        return UpstreamAnswer(data, Usage())


class InputTokens(TokenCounting, Responses):
    """See the module. What an earlier response says counts, too."""

    name = "responses.input_tokens"
    caps_output = False
    told = b'{"object":"response.input_tokens","input_tokens":%d}'
    file_hint = "whose deployment serves input_tokens"
    _own = InputTokenCount()

    def counts(self, deployment: Deployment) -> bool:
        return _counts(deployment)

    def read_body(self, body: bytes) -> Ask:
        ask = read(body, _asked)
        if told(ask).background:
            raise unsupported("background")
        return replace(ask, stream=False)

    def eligible_deployments(self, ask: Ask, deployments: tuple[Deployment, ...]) -> tuple[Deployment, ...]:
        """Raises `Invalid`."""
        return super().eligible_deployments(ask, self.pinned(ask, deployments))

    def codec(self, deployment: Deployment) -> Codec:  # noqa: ARG002 -- the contract's signature
        return self._own


INPUT_TOKENS = InputTokens()
