"""Images that are made: from a text, and from other images. The most that they cost is known before: how many, at the
declared price of their class. Makes and looks at nothing itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import Invalid
from groundplan.economics import price
from groundplan.economics.prices.reported import ImagesUsage
from groundplan.economics.unit_price import image_price
from groundplan.gateway.call import meter
from groundplan.gateway.call.exchange import Ask
from groundplan.gateway.surfaces.body import read_fields
from groundplan.gateway.surfaces.interface import Answered, Codec, Interface
from groundplan.gateway.surfaces.plain_codec import PlainCodec, malformed
from groundplan.ledger.model import Usage

if TYPE_CHECKING:
    from groundplan.gateway.http.server import Request

MOST_IMAGES = 10


class _Images(msgspec.Struct, frozen=True):
    prompt: str
    model: str = "auto"
    n: int | None = None
    size: str | None = None
    quality: str | None = None
    stream: bool | None = None
    partial_images: int | None = None


class _Answer(msgspec.Struct, frozen=True):
    data: list[msgspec.Raw] | None = None
    usage: ImagesUsage | None = None


_images = msgspec.json.Decoder(_Images)
_answer = msgspec.json.Decoder(_Answer).decode


@dataclass(frozen=True, slots=True)
class Made:
    """What is asked for, as far as it decides the price."""

    size: str | None
    quality: str | None


class ImagesCodec(PlainCodec):
    """`by_tokens`: the tokens of an answer have a price, and are estimated where they are not reported."""

    def __init__(self, path: bytes, *, by_tokens: bool) -> None:
        super().__init__(path)
        self._by_tokens = by_tokens

    def answer(self, data: bytes, ask: Ask) -> Answered:  # noqa: ARG002 -- the protocol's signature
        """A whole answer. Raises `Malformed`."""
        try:
            found = _answer(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise malformed() from error
        if not found.data:
            raise malformed()
        told = found.usage
        if told is None:
            return Answered(data, None if self._by_tokens else Usage(images_made=len(found.data)))
        usage = told.usage()
        return Answered(data, msgspec.structs.replace(usage, images_made=len(found.data)) if usage else None)


class Images(Interface):
    """`POST /v1/images/generations`"""

    name = "images.generations"
    needs = "images"
    priced = True
    selective = True
    _path = b"/images/generations"

    def __init__(self) -> None:
        self._codecs = tuple(ImagesCodec(self._path, by_tokens=by_tokens) for by_tokens in (False, True))

    def read(self, request: Request) -> Ask:
        fields, asked = read_fields(request.body, _images)
        if not asked.prompt:
            raise Invalid("prompt is empty", code="input_empty", hint="Say what is to be seen.")
        if asked.stream or asked.partial_images:
            name = "stream" if asked.stream else "partial_images"
            raise Invalid(f"{name} is not supported", code="field_unsupported", hint=f"Leave {name} out.")
        count = 1 if asked.n is None else asked.n
        check_count(count)
        return Ask(
            fields=fields, model=asked.model, messages=1, query="", stream=False, include_usage=False, cap=0,
            copies=count, size=len(asked.prompt.encode()), typed=Made(asked.size, asked.quality),
        )  # fmt: skip

    def able(self, ask: Ask, deployments: tuple[Deployment, ...]) -> tuple[Deployment, ...]:
        """Those that say what such an image costs at most. Raises `Invalid`."""
        found = tuple(d for d in deployments if self._bounded(ask, d))
        if not found:
            raise Invalid(
                "no deployment says what such an image costs at most",
                code="image_unpriced",
                hint="Ask for a size and quality that has a price; it is declared as images: {any: 0.12 USD} in price.",
            )
        return found

    def _bounded(self, ask: Ask, deployment: Deployment) -> bool:
        rates = deployment.rates
        if rates.output and not deployment.image_tokens:
            return False
        return rates.output > 0 or rates.source == "declared free" or self._each(ask, deployment) is not None

    def _each(self, ask: Ask, deployment: Deployment) -> int | None:
        made = ask.typed if isinstance(ask.typed, Made) else Made(None, None)
        return image_price(deployment.rates, made.size, made.quality)

    def codec(self, deployment: Deployment) -> Codec:
        return self._codecs[bool(deployment.rates.input or deployment.rates.output)]

    def bound(self, ask: Ask, deployment: Deployment, added: int, cap: int) -> int:
        return self.estimate(ask, deployment, added, 0, cap)[1]

    def estimate(self, ask: Ask, deployment: Deployment, added: int, output_bytes: int, cap: int) -> tuple[Usage, int]:  # noqa: ARG002
        """As many images as were asked for, each with the most tokens that one has; also those that were sent in."""
        tokens = deployment.image_tokens
        into = meter.input_bound(deployment, ask.size, ask.messages) + ask.images * tokens
        usage = Usage(input=into, output=ask.copies * tokens, images_made=ask.copies, images=ask.images)
        each = self._each(ask, deployment) or 0
        return usage, price.bound(deployment.rates, usage.input, usage.output, ask.images) + ask.copies * each

    def cost(self, ask: Ask, deployment: Deployment, usage: Usage) -> int:
        each = self._each(ask, deployment) or 0
        return price.cost(deployment.rates, usage) + usage.images_made * each


def check_count(count: int) -> None:
    """Raises `Invalid`."""
    if not 1 <= count <= MOST_IMAGES:
        raise Invalid(f"n is {count}", code="copies_range", hint=f"Use 1 to {MOST_IMAGES}.")


IMAGES = Images()
