"""Text to speech. The sound is passed on as it comes, as bytes or in events; its cost is known from the text, or
reported by the last event."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import Invalid
from groundplan.economics import price
from groundplan.economics.prices.provider_usage import RealtimeUsage
from groundplan.economics.unit_price import speech_price
from groundplan.gateway.call import pricing
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.call.delivery.binary_stream import BytesRelay
from groundplan.gateway.surfaces.body import read_fields
from groundplan.gateway.surfaces.codec import Codec, Relay, UpstreamAnswer
from groundplan.gateway.surfaces.interface import Interface
from groundplan.gateway.surfaces.plain_codec import PlainCodec, malformed
from groundplan.gateway.surfaces.typed_stream import StreamType, TypedRelay
from groundplan.ledger.model import Usage

if TYPE_CHECKING:
    from groundplan.gateway.http.server import Request


class _Speech(msgspec.Struct, frozen=True):
    input: str
    model: str
    voice: msgspec.Raw
    stream_format: str | None = None


class _Event(msgspec.Struct, frozen=True):
    type: str = ""
    audio: str = ""
    usage: RealtimeUsage | None = None
    text_bytes = 0

    @property
    def is_well_formed(self) -> bool:
        return self.type != "speech.audio.delta" or self.audio != ""

    def reported_usage(self) -> Usage | None:
        return None if self.usage is None else self.usage.usage()


_speech = msgspec.json.Decoder(_Speech)
_KIND = StreamType(msgspec.json.Decoder(_Event).decode, "speech.audio.done")
_FORMATS = ("audio", "sse")
EVENTS = object()
"""`Ask.parsed` where events are requested; many servers do not know them, and answer with sound."""


class SpeechCodec(PlainCodec):
    """The codec of speech. `by_tokens`: the tokens of the sound have a price. Only the last event reports them; bytes
    report nothing."""

    def __init__(self, *, by_tokens: bool) -> None:
        super().__init__(b"/audio/speech")
        self._by_tokens = by_tokens

    def parse_answer(self, data: bytes, ask: Ask) -> UpstreamAnswer:  # noqa: ARG002 -- the protocol's signature
        raise malformed()

    def new_relay(self, ask: Ask) -> Relay:
        known = None if self._by_tokens else Usage(characters=ask.copies)
        if ask.binary:
            return BytesRelay(known)
        return TypedRelay(_KIND, known, lambda reported: self._used(ask, reported))

    def _used(self, ask: Ask, reported: Usage | None) -> Usage | None:
        """The reported usage; None for a report without output tokens where these have a price."""
        if reported is None or (self._by_tokens and not reported.output):
            return None
        return msgspec.structs.replace(reported, characters=ask.copies)


class Speech(Interface):
    """`POST /v1/audio/speech`. `copies` of its `Ask` are the characters."""

    name = "audio.speech"
    deployment_kind = "speech"
    has_custom_cost = True
    _codecs = (SpeechCodec(by_tokens=False), SpeechCodec(by_tokens=True))

    def read(self, request: Request) -> Ask:
        fields, speech = read_fields(request.body, _speech)
        if not speech.input:
            raise Invalid("input is empty", code="input_empty", hint="Send a text.")
        if speech.stream_format is not None and speech.stream_format not in _FORMATS:
            hint = f"Use one of: {', '.join(_FORMATS)}"
            raise Invalid("stream_format is unknown", code="field_unsupported", hint=hint)
        return Ask(
            fields=fields, model=speech.model, messages=1, query="", stream=True, include_usage=False, cap=None,
            copies=len(speech.input), size=len(request.body), binary=speech.stream_format != "sse",
            parsed=EVENTS if speech.stream_format == "sse" else None, body=request.body,
        )  # fmt: skip

    def codec(self, deployment: Deployment) -> Codec:
        return self._codecs[bool(deployment.rates.input or deployment.rates.output)]

    def estimate(self, ask: Ask, deployment: Deployment, added: int, output_bytes: int, cap: int) -> tuple[Usage, int]:  # noqa: ARG002
        """Where tokens have a price: as many as the deployment makes at most."""
        rates = deployment.rates
        usage = Usage(characters=ask.copies)
        if rates.input or rates.output:
            into = pricing.input_bound(deployment, ask.size, 1)
            usage = Usage(input=into, output=deployment.max_output_tokens, characters=ask.copies)
        return usage, price.cost_bound(rates, usage.input, usage.output) + speech_price(rates, ask.copies)

    def cost(self, ask: Ask, deployment: Deployment, usage: Usage) -> int:  # noqa: ARG002 -- the contract's signature
        return price.cost(deployment.rates, usage) + speech_price(deployment.rates, usage.characters)


SPEECH = Speech()
