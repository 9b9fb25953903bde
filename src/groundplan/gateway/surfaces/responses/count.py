"""`POST /v1/responses/input_tokens`: counts the tokens that a request for a response would have, free of charge.

Asked of upstreams that serve it, estimated here for others. Stores nothing, and adds nothing of the workload's own.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from groundplan.blueprint.model import Deployment
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.http.splicing import replace_fields
from groundplan.gateway.surfaces.codec import Codec, UpstreamAnswer
from groundplan.gateway.surfaces.responses.request_types import ResponseRequest, unsupported
from groundplan.gateway.surfaces.responses.surface import (
    OpenAIResponses,
    Responses,
    read,
    reasoning_changes,
    request_state,
)
from groundplan.gateway.surfaces.upstream_json import decode_upstream
from groundplan.gateway.surfaces.via_chat import TokenCounting, served_natively
from groundplan.ledger.model import Usage

_encode = msgspec.json.Encoder().encode
_serves_input_tokens = served_natively("input_tokens")


class _CountRequest(ResponseRequest, frozen=True):
    model: str = "auto"


class _TokenCount(msgspec.Struct, frozen=True):
    input_tokens: int


_request_decoder: msgspec.json.Decoder[ResponseRequest] = msgspec.json.Decoder(_CountRequest)
_token_count = msgspec.json.Decoder(_TokenCount).decode


class InputTokenCount(OpenAIResponses):
    """The codec for upstreams that serve `input_tokens`."""

    def path(self, deployment: Deployment) -> bytes:  # noqa: ARG002 -- the protocol's signature
        return b"/responses/input_tokens"

    def request_body(self, ask: Ask, deployment: Deployment, cap: int, system: list[str]) -> bytes:  # noqa: ARG002
        changes = {"model": _encode(deployment.upstream_model), **reasoning_changes(ask, deployment)}
        return replace_fields(ask.body, ask.fields, changes)

    def parse_answer(self, data: bytes, ask: Ask) -> UpstreamAnswer:  # noqa: ARG002 -- the protocol's signature
        """Raises `Malformed`."""
        decode_upstream(_token_count, data)
        return UpstreamAnswer(data, Usage())


class InputTokens(TokenCounting, Responses):
    """The surface of token counts. The items of an earlier response count, too."""

    name = "responses.input_tokens"
    caps_output = False
    answer_template = b'{"object":"response.input_tokens","input_tokens":%d}'
    file_hint = "whose deployment serves input_tokens"
    _own = InputTokenCount()

    def counts_tokens(self, deployment: Deployment) -> bool:
        return _serves_input_tokens(deployment)

    def read_body(self, body: bytes) -> Ask:
        ask = read(body, _request_decoder)
        if request_state(ask).background:
            raise unsupported("background")
        return replace(ask, stream=False)

    def eligible_deployments(self, ask: Ask, deployments: tuple[Deployment, ...]) -> tuple[Deployment, ...]:
        """Raises `Invalid`."""
        return super().eligible_deployments(ask, self.pinned(ask, deployments))

    def codec(self, deployment: Deployment) -> Codec:  # noqa: ARG002 -- the contract's signature
        return self._own


INPUT_TOKENS = InputTokens()
