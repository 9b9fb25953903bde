"""Moderations: reads requests and the answers of OpenAI-shaped upstreams. Judges nothing itself.

Providers do not report the usage of these calls, so the gateway counts their tokens; most providers charge nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import Invalid
from groundplan.economics.prices.provider_usage import ChatUsage
from groundplan.gateway.call import pricing
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.surfaces.body import message_parts, read_fields
from groundplan.gateway.surfaces.codec import Codec, UpstreamAnswer
from groundplan.gateway.surfaces.interface import Interface
from groundplan.gateway.surfaces.plain_codec import PlainCodec, malformed
from groundplan.gateway.surfaces.upstream_json import decode_upstream
from groundplan.ledger.model import Usage

if TYPE_CHECKING:
    from groundplan.gateway.http.server import Request


class _Moderation(msgspec.Struct, frozen=True):
    input: msgspec.Raw
    model: str = "auto"


class _Answer(msgspec.Struct, frozen=True):
    results: list[msgspec.Raw] | None = None
    usage: ChatUsage | None = None


_moderation = msgspec.json.Decoder(_Moderation)
_answer = msgspec.json.Decoder(_Answer).decode
_input = msgspec.json.Decoder(str | list[Any])


class ModerationCodec(PlainCodec):
    """The codec of moderations. `free`: tokens have no price, so that nothing has to be estimated."""

    def __init__(self, *, free: bool) -> None:
        super().__init__(b"/moderations")
        self._free = free

    def parse_answer(self, data: bytes, ask: Ask) -> UpstreamAnswer:
        """Parse a whole answer; its usage has the images that were sent, which may have a price of their own. Raises
        `Malformed`."""
        found = decode_upstream(_answer, data)
        if not found.results:
            raise malformed()
        usage = found.usage.input_usage() if found.usage is not None else None
        if usage is None and self._free:
            usage = Usage()
        if usage is not None and ask.images:
            usage = msgspec.structs.replace(usage, images=ask.images)
        return UpstreamAnswer(data, usage)


class Moderations(Interface):
    """`POST /v1/moderations`"""

    name = "moderations"
    deployment_kind = "moderation"
    _codecs = (ModerationCodec(free=False), ModerationCodec(free=True))

    def read(self, request: Request) -> Ask:
        fields, moderation = read_fields(request.body, _moderation)
        try:
            texts = _input.decode(moderation.input)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Invalid(f"input is wrong: {error}", code="body_invalid", hint="See the OpenAI API.") from error
        if not texts:
            raise Invalid("input is empty", code="input_empty", hint="Send a text or a list of texts.")
        images = 0
        if not isinstance(texts, str) and not all(isinstance(each, str) for each in texts):
            images = message_parts(moderation.input).images  # refuses addresses of images
        return Ask(
            fields=fields, model=moderation.model, messages=1 if isinstance(texts, str) else len(texts), query="",
            stream=False, include_usage=False, cap=0, copies=1, size=len(request.body), images=images,
            body=request.body,
        )  # fmt: skip

    def codec(self, deployment: Deployment) -> Codec:
        return self._codecs[not (deployment.rates.input or deployment.rates.output)]

    def estimate(self, ask: Ask, deployment: Deployment, added: int, output_bytes: int, cap: int) -> tuple[Usage, int]:  # noqa: ARG002
        tokens = pricing.input_bound(deployment, ask.size, ask.messages) + ask.images * deployment.image_tokens
        return Usage(input=tokens, images=ask.images), pricing.cost_bound(ask, deployment, tokens, 0)


MODERATIONS = Moderations()
