"""Transcriptions and translations of audio. The form is sent on while it arrives.

The most that a call costs is the price of the longest audio that its deployment declares, or of all tokens that it can
take. Does not decode audio itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import Invalid
from groundplan.economics import price
from groundplan.economics.unit_price import audio_price
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.surfaces.codec import Codec, Malformed, Relay, UpstreamAnswer
from groundplan.gateway.surfaces.interface import Interface
from groundplan.gateway.surfaces.plain_codec import PlainCodec, malformed
from groundplan.gateway.surfaces.transcripts_stream import PricedUnits, TranscriptUsage, seconds_used, transcript_relay
from groundplan.gateway.surfaces.upload import Upload, accepting_uploads, model_missing
from groundplan.gateway.surfaces.upstream_json import decode_upstream
from groundplan.ledger.model import Usage

if TYPE_CHECKING:
    from collections.abc import Container, Mapping
    from pathlib import Path

    from groundplan.gateway.http.server import Request

TEXT = b"content-type: text/plain; charset=utf-8\r\n"
_FORMATS = ("json", "text", "srt", "vtt", "verbose_json", "diarized_json")
_TEXTS = ("text", "srt", "vtt")
_DECISIVE = frozenset({"model", "response_format", "stream"})
_AWAITED = frozenset({"model"})
SAMPLES = frozenset({"known_speaker_references", "known_speaker_references[]"})
"""Fields with samples of speakers, each up to ten seconds of audio in base64."""


class _Answer(msgspec.Struct, frozen=True):
    text: str
    duration: float | str | None = None
    usage: TranscriptUsage | None = None


class _TextAnswer(msgspec.Struct, frozen=True):
    """JSON in place of a text: an answer (vLLM), or an error."""

    text: str | None = None
    error: Any = None
    usage: TranscriptUsage | None = None


_answer = msgspec.json.Decoder(_Answer).decode
_text_answer = msgspec.json.Decoder(_TextAnswer).decode


class TranscriptionCodec(PlainCodec):
    def __init__(self, path: bytes, priced: PricedUnits) -> None:
        super().__init__(path)
        self._priced = priced

    def parse_answer(self, data: bytes, ask: Ask) -> UpstreamAnswer:
        """Parse a whole answer. Raises `Malformed`."""
        if ask.upload is not None and (kind := ask.upload.fields.get("response_format")) in _TEXTS:
            return self._text(data, plain=kind == "text")
        found = decode_upstream(_answer, data)
        reported = None if found.usage is None else found.usage.reported_usage()
        return UpstreamAnswer(data, self._priced.used(reported, seconds_used(_number(found.duration))))

    def _text(self, data: bytes, *, plain: bool) -> UpstreamAnswer:
        try:
            data.decode()
        except UnicodeDecodeError as error:
            raise malformed() from error
        reported = None
        if data.lstrip().startswith(b"{"):
            try:
                found = decode_upstream(_text_answer, data)
            except Malformed:
                found = _TextAnswer()  # a transcript may begin like JSON
            if found.text is None and found.error is not None:
                raise malformed()
            if plain and found.text is not None:
                data, reported = found.text.encode(), None if found.usage is None else found.usage.reported_usage()
        return UpstreamAnswer(data, self._priced.used(reported), TEXT)

    def new_relay(self, ask: Ask) -> Relay:  # noqa: ARG002 -- the protocol's signature
        return transcript_relay(self._priced)


def _number(text: float | str | None) -> float:
    try:
        return -1.0 if text is None else float(text)
    except ValueError:
        return -1.0


class Transcriptions(Interface):
    """`POST /v1/audio/transcriptions`"""

    name = "audio.transcriptions"
    deployment_kind = "transcription"
    has_custom_cost = True
    filters_deployments = True
    may_answer_unstreamed = True
    accepts = (b"multipart/form-data",)
    streams = True
    """Whether the upstream streams on request. Translations do not: `stream` is an unknown field there."""
    _path = b"/audio/transcriptions"

    def __init__(self) -> None:
        self._codecs: dict[PricedUnits, TranscriptionCodec] = {}

    async def receive(self, request: Request, folder: Path) -> None:
        named = request.upload_state
        upload = request.upload_state = Upload(_DECISIVE, samples=SAMPLES, named=named, awaited=_AWAITED)
        await upload.begin(request, folder)

    def read(self, request: Request) -> Ask:
        upload = request.upload_state
        if not isinstance(upload, Upload) or upload.files != ["file"]:
            wrong = "the form does not have exactly one file, in the field `file`"
            raise Invalid(wrong, code="file_missing", hint="Send the sound there, and no other file.")
        fields = upload.fields
        upload.owes_model = "model" not in fields
        if upload.owes_model and upload.whole:
            raise model_missing()
        if fields.get("response_format", "json") not in _FORMATS:
            hint = f"Use one of: {', '.join(_FORMATS)}"
            raise Invalid("response_format is unknown", code="field_unsupported", hint=hint)
        return Ask(
            fields={}, model=fields.get("model", "auto"), messages=1, query="", include_usage=False, cap=None,
            copies=1, size=0, stream=upload.flag("stream") and self.streams, upload=upload,
        )  # fmt: skip

    def eligible_deployments(self, ask: Ask, deployments: tuple[Deployment, ...]) -> tuple[Deployment, ...]:  # noqa: ARG002
        """The deployments that take uploads and, where minutes have a price, declare the longest audio."""
        found = tuple(d for d in accepting_uploads(deployments) if d.audio_seconds or not d.rates.minute)
        if not found:
            raise Invalid(
                "no deployment says what such audio costs at most",
                code="audio_unbounded",
                hint="A deployment says audio: the longest that may be sent in.",
            )
        return found

    def allowed_late_fields(self, ask: Ask, deployment: Deployment) -> Mapping[str, Container[str]]:  # noqa: ARG002
        return {"response_format": _FORMATS, "stream": ("true", "false")}

    def complete_form(self, ask: Ask) -> Ask:
        """As the contract says: `stream` may come behind a large file."""
        stream = ask.upload is not None and ask.upload.flag("stream") and self.streams
        return ask if stream == ask.stream else replace(ask, stream=stream)

    def codec(self, deployment: Deployment) -> Codec:
        rates = deployment.rates
        priced = PricedUnits(bool(rates.input or rates.output or rates.input_audio), bool(rates.minute), rates.shortest)
        codec = self._codecs.get(priced)
        if codec is None:
            codec = self._codecs[priced] = TranscriptionCodec(self._path, priced)
        return codec

    def estimate(self, ask: Ask, deployment: Deployment, added: int, output_bytes: int, cap: int) -> tuple[Usage, int]:  # noqa: ARG002
        rates = deployment.rates
        usage = Usage(seconds=max(deployment.audio_seconds, rates.shortest))
        if rates.input or rates.output or rates.input_audio:
            usage = replace(usage, input=deployment.context_tokens, output=deployment.max_output_tokens)
        return usage, price.cost_bound(rates, usage.input, usage.output) + audio_price(rates, usage.seconds)

    def cost(self, ask: Ask, deployment: Deployment, usage: Usage) -> int:  # noqa: ARG002 -- the contract's signature
        return price.cost(deployment.rates, usage) + audio_price(deployment.rates, usage.seconds)


class Translations(Transcriptions):
    """`POST /v1/audio/translations`"""

    name = "audio.translations"
    streams = False
    _path = b"/audio/translations"


TRANSCRIPTIONS = Transcriptions()
TRANSLATIONS = Translations()
