"""Speech: text that is spoken. Its sound is passed on as it comes; what it costs is known from the text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import Invalid
from groundplan.economics import price
from groundplan.economics.unit_price import speech_price
from groundplan.gateway.call import meter
from groundplan.gateway.call.exchange import Ask
from groundplan.gateway.http.binary_stream import BytesRelay
from groundplan.gateway.surfaces.body import read_fields
from groundplan.gateway.surfaces.interface import Answered, Codec, Interface, Relay
from groundplan.gateway.surfaces.plain_codec import PlainCodec, malformed
from groundplan.ledger.model import Usage

if TYPE_CHECKING:
    from groundplan.gateway.http.server import Request


class _Speech(msgspec.Struct, frozen=True):
    input: str
    model: str
    voice: msgspec.Raw
    stream_format: str | None = None


_speech = msgspec.json.Decoder(_Speech)


class SpeechCodec(PlainCodec):
    """`by_tokens`: the tokens of the sound have a price, and nobody reports them."""

    def __init__(self, *, by_tokens: bool) -> None:
        super().__init__(b"/audio/speech")
        self._by_tokens = by_tokens

    def answer(self, data: bytes, ask: Ask) -> Answered:  # noqa: ARG002 -- the protocol's signature
        raise malformed()

    def relay(self, ask: Ask) -> Relay:
        return BytesRelay(None if self._by_tokens else Usage(characters=ask.copies))


class Speech(Interface):
    """`POST /v1/audio/speech`. `copies` of its `Ask` are the characters."""

    name = "audio.speech"
    needs = "speech"
    priced = True
    binary = True
    _codecs = (SpeechCodec(by_tokens=False), SpeechCodec(by_tokens=True))

    def read(self, request: Request) -> Ask:
        fields, asked = read_fields(request.body, _speech)
        if not asked.input:
            raise Invalid("input is empty", code="input_empty", hint="Send a text.")
        if asked.stream_format not in (None, "audio"):
            raise Invalid("stream_format is not supported", code="field_unsupported", hint="Leave stream_format out.")
        return Ask(
            fields=fields, model=asked.model, messages=1, query="", stream=True, include_usage=False, cap=None,
            copies=len(asked.input), size=len(request.body),
        )  # fmt: skip

    def codec(self, deployment: Deployment) -> Codec:
        return self._codecs[bool(deployment.rates.input or deployment.rates.output)]

    def bound(self, ask: Ask, deployment: Deployment, added: int, cap: int) -> int:
        return self.estimate(ask, deployment, added, 0, cap)[1]

    def estimate(self, ask: Ask, deployment: Deployment, added: int, output_bytes: int, cap: int) -> tuple[Usage, int]:  # noqa: ARG002
        """Where tokens have a price: as many as the deployment makes at most."""
        rates = deployment.rates
        usage = Usage(characters=ask.copies)
        if rates.input or rates.output:
            into = meter.input_bound(deployment, ask.size, 1)
            usage = Usage(input=into, output=deployment.max_output_tokens, characters=ask.copies)
        return usage, price.bound(rates, usage.input, usage.output) + speech_price(rates, ask.copies)

    def cost(self, ask: Ask, deployment: Deployment, usage: Usage) -> int:  # noqa: ARG002 -- the contract's signature
        return price.cost(deployment.rates, usage) + speech_price(deployment.rates, usage.characters)


SPEECH = Speech()
