"""Image generation: the surface of generations, and what edits and variations share with it. The most that images cost
is known before: their number, at the declared price of their class. Neither makes nor checks images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import Invalid
from groundplan.economics import price
from groundplan.economics.prices.provider_usage import ImagesUsage
from groundplan.economics.unit_price import image_price, made_image_price
from groundplan.gateway.call import pricing
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.surfaces.body import read_fields
from groundplan.gateway.surfaces.chat.chunk import NULL
from groundplan.gateway.surfaces.codec import Codec, Relay, UpstreamAnswer
from groundplan.gateway.surfaces.interface import Interface
from groundplan.gateway.surfaces.plain_codec import PlainCodec, malformed
from groundplan.gateway.surfaces.typed_stream import StreamType, TypedEvent, TypedRelay
from groundplan.gateway.surfaces.upstream_json import decode_upstream
from groundplan.ledger.model import Usage

if TYPE_CHECKING:
    from groundplan.gateway.http.server import Request

MAX_IMAGES = 10
MAX_PARTIAL_IMAGES = 3
"""Most partial images that are sent while one is made."""
COPY_FIELDS = frozenset(
    {"num_images", "num_images_per_prompt", "num_outputs", "num_outputs_per_prompt", "batch_size", "batch_count"}
)
"""Fields for the number of images, of servers that have `n` too."""
REFUSED_FIELDS = COPY_FIELDS | {
    "svg", "frame_count", "image", "images", "image_url", "image_urls", "mask", "markup", "reference_images",
    "ref_images", "file", "files",
}  # fmt: skip
"""Fields by which another model draws too, one image becomes several, or images are given that are no files: their cost
is unknown, and a server that fetches a URL reaches what the caller cannot."""
_UNBOUNDED_FORMATS = ("svg", "gif")
_QUOTE = ord('"')


class _Images(msgspec.Struct, frozen=True):
    prompt: str
    model: str | None = None
    n: int | None = None
    size: str | None = None
    quality: str | None = None
    stream: bool | None = None
    partial_images: int | None = None
    output_format: str | None = None


class _Event(msgspec.Struct, frozen=True):
    type: str = ""
    b64_json: msgspec.Raw = NULL
    usage: ImagesUsage | None = None
    size: Any = None
    quality: Any = None
    text_bytes = 0

    @property
    def is_well_formed(self) -> bool:
        image = memoryview(self.b64_json)
        return (image[0] == _QUOTE and len(image) > 2) or not self.type.endswith((".partial_image", ".completed"))

    def reported_usage(self) -> Usage | None:
        return None if self.usage is None else self.usage.usage()


class _Answer(msgspec.Struct, frozen=True):
    data: list[msgspec.Raw] | None = None
    usage: ImagesUsage | None = None
    size: Any = None
    quality: Any = None


_images = msgspec.json.Decoder(_Images)
_answer = msgspec.json.Decoder(_Answer).decode
_event = msgspec.json.Decoder(_Event).decode


@dataclass(slots=True)
class ImageSettings:
    """The settings of a request that decide the price, completed by what its answer says of them."""

    size: str | None
    quality: str | None
    partial: int = 0
    """Most partial images that are sent while one is made."""
    made_size: str | None = None
    made_quality: str | None = None
    """What the provider chose, as the last answer says; None: it says nothing."""

    def note_answer(self, answer: _Answer | _Event) -> None:
        """Keep the size and quality that an answer names."""
        self.made_size, self.made_quality = _named(answer.size), _named(answer.quality)

    def made_class(self) -> tuple[str | None, str | None]:
        """(size, quality) of the images that were made: what the request named, else what the answer names."""
        size = self.made_size if _named(self.size) is None else None
        quality = self.made_quality if _named(self.quality) is None else None
        return size or self.size, quality or self.quality


def _named(setting: object) -> str | None:
    """A size or quality that is one; None for `auto`, and for what is no text."""
    return setting if isinstance(setting, str) and setting != "auto" else None


class _ImagesRelay(TypedRelay):
    """Passes a stream on, and notes what its last event says of the image."""

    __slots__ = ("_settings",)

    def __init__(self, kind: StreamType, used: Callable[[Usage | None], Usage | None], settings: ImageSettings) -> None:
        super().__init__(kind, None, used)
        self._settings = settings

    def _handle_event(self, found: TypedEvent, data: bytes) -> bytes:
        if isinstance(found, _Event) and found.type == self._kind.last:
            self._settings.note_answer(found)
        return super()._handle_event(found, data)


class ImagesCodec(PlainCodec):
    """`by_tokens`: the tokens of an answer have a price, and are estimated where they are not reported. `streamed` is
    what the types of the events of a stream begin with."""

    def __init__(self, path: bytes, streamed: str, *, by_tokens: bool) -> None:
        super().__init__(path)
        self._by_tokens = by_tokens
        last = f"{streamed}.completed"
        self._kind = StreamType(_event, last, frozenset({f"{streamed}.partial_image", last}))

    def parse_answer(self, data: bytes, ask: Ask) -> UpstreamAnswer:
        """Parse a whole answer. Raises `Malformed`."""
        found = decode_upstream(_answer, data)
        if not found.data:
            raise malformed()
        image_settings(ask).note_answer(found)
        reported = None if found.usage is None else found.usage.usage()
        return UpstreamAnswer(data, self._used(ask, reported, len(found.data)))

    def new_relay(self, ask: Ask) -> Relay:
        return _ImagesRelay(self._kind, lambda reported: self._used(ask, reported, 1), image_settings(ask))

    def _used(self, ask: Ask, reported: Usage | None, made: int) -> Usage | None:
        """The usage of `made` images and those that were sent in; None where it is unknown, as for a report without
        output tokens."""
        if self._by_tokens and (reported is None or not reported.output):
            return None
        sent = 0 if ask.upload is None else len(ask.upload.files)
        return msgspec.structs.replace(reported or Usage(), images_made=made, images=sent)


class Images(Interface):
    """`POST /v1/images/generations`"""

    name = "images.generations"
    deployment_kind = "images"
    has_custom_cost = True
    filters_deployments = True
    _path = b"/images/generations"
    _streamed = "image_generation"

    def __init__(self) -> None:
        self._codecs = tuple(ImagesCodec(self._path, self._streamed, by_tokens=tokens) for tokens in (False, True))

    def read(self, request: Request) -> Ask:
        fields, body = read_fields(request.body, _images)
        if not body.prompt:
            raise Invalid("prompt is empty", code="input_empty", hint="Say what is to be seen.")
        count, partial = 1 if body.n is None else body.n, body.partial_images or 0
        check_counts(count, partial, stream=bool(body.stream))
        check_bounded([name for name, raw in fields.items() if raw != NULL], body.output_format)
        return Ask(
            fields=fields, model=body.model or "auto", messages=1, query="", stream=bool(body.stream),
            include_usage=False, cap=0, copies=count, size=len(body.prompt.encode()),
            parsed=ImageSettings(body.size, body.quality, partial), body=request.body,
        )  # fmt: skip

    def eligible_deployments(self, ask: Ask, deployments: tuple[Deployment, ...]) -> tuple[Deployment, ...]:
        """The deployments with a bound for the price of such an image. Raises `Invalid`."""
        found = tuple(d for d in deployments if self._has_cost_bound(ask, d))
        if not found:
            raise Invalid(
                "no deployment says what such an image costs at most",
                code="image_unpriced",
                hint="Ask for a size and quality that has a price; it is declared as images: {any: 0.12 USD} in price.",
            )
        return found

    def _has_cost_bound(self, ask: Ask, deployment: Deployment) -> bool:
        rates = deployment.rates
        if rates.output and not deployment.image_tokens:
            return False
        return rates.output > 0 or rates.source == "declared free" or self._price_each(ask, deployment) is not None

    def _price_each(self, ask: Ask, deployment: Deployment) -> int | None:
        settings = image_settings(ask)
        return image_price(deployment.rates, settings.size, settings.quality)

    def codec(self, deployment: Deployment) -> Codec:
        return self._codecs[bool(deployment.rates.input or deployment.rates.output)]

    def estimate(self, ask: Ask, deployment: Deployment, added: int, output_bytes: int, cap: int) -> tuple[Usage, int]:  # noqa: ARG002
        """All requested images with the most tokens that one has, and those that were sent in. A partial image has no
        more tokens than a whole one."""
        tokens = deployment.image_tokens
        into = pricing.input_bound(deployment, ask.size, ask.messages) + ask.images * tokens
        out = ask.copies * (1 + image_settings(ask).partial) * tokens
        usage = Usage(input=into, output=out, images_made=ask.copies, images=ask.images)
        each = self._price_each(ask, deployment) or 0
        rates = pricing.unnamed_class_rates(ask, deployment)
        return usage, price.cost_bound(rates, usage.input, usage.output, ask.images) + ask.copies * each

    def cost(self, ask: Ask, deployment: Deployment, usage: Usage) -> int:
        each = made_image_price(deployment.rates, *image_settings(ask).made_class())
        if each is None:  # the answer names a class without a price: what was reserved for it
            each = self._price_each(ask, deployment) or 0
        return price.cost(pricing.unnamed_class_rates(ask, deployment), usage) + usage.images_made * each


def image_settings(ask: Ask) -> ImageSettings:
    """The settings of a request for images."""
    return ask.parsed if isinstance(ask.parsed, ImageSettings) else ImageSettings(None, None)


def check_counts(count: int, partial: int, *, stream: bool) -> None:
    """Raises `Invalid`."""
    if not 1 <= count <= MAX_IMAGES:
        raise Invalid(f"n is {count}", code="copies_range", hint=f"Use 1 to {MAX_IMAGES}.")
    if not 0 <= partial <= MAX_PARTIAL_IMAGES:
        raise Invalid(f"partial_images is {partial}", code="partial_range", hint=f"Use 0 to {MAX_PARTIAL_IMAGES}.")
    if stream and count > 1:
        raise Invalid(
            f"n is {count} where stream is true",
            code="copies_range",
            hint="The events of a stream do not say which image they are of: ask for one, or leave stream out.",
        )


def check_bounded(fields: Iterable[str], output_format: str | None) -> None:
    """Raise `Invalid` for fields by which an image costs more than the tokens of one."""
    unbounded = next((name for name in fields if name.partition("[")[0] in REFUSED_FIELDS), None)
    if unbounded is None and output_format in _UNBOUNDED_FORMATS:
        unbounded = f"output_format {output_format}"
    if unbounded is not None:
        raise Invalid(
            f"{unbounded[:60]} is not supported",
            code="field_unsupported",
            hint="What it costs has no bound; ask for png, webp or jpeg, and send images as files to /v1/images/edits.",
        )


IMAGES = Images()
