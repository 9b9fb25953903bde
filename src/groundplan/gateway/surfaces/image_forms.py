"""The surfaces of image edits and variations. Clients name their fields in any order, and most of them decide what the
call costs: a large form is received completely before anything is sent, unless its disk has no room."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from msgspec.structs import replace

from groundplan.core.errors import Invalid
from groundplan.economics.unit_price import image_price
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.surfaces.images import (
    REFUSED_FIELDS,
    Images,
    ImageSettings,
    check_bounded,
    check_counts,
    image_settings,
)
from groundplan.gateway.surfaces.upload import Upload, accepting_uploads, file_unsupported, image_missing

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping
    from pathlib import Path

    from groundplan.blueprint.model import Deployment
    from groundplan.gateway.http.server import Request
    from groundplan.ledger.model import Usage

_DECISIVE_FIELDS = REFUSED_FIELDS | {
    "model", "n", "size", "quality", "stream", "partial_images", "prompt", "output_format",
}  # fmt: skip
_AWAITED_FIELDS = frozenset({"model", "prompt", "n", "size", "quality", "stream", "partial_images", "output_format"})
MAX_LATE_PROMPT_BYTES = 64 << 10
"""Most bytes of a prompt behind a large image; as many tokens are reserved."""
_IMAGES = frozenset({"image", "image[]"})
_FILES = _IMAGES | {"mask", "markup"}
MAX_FILES = 17
"""OpenAI takes sixteen images, and a mask or what is drawn on the first of them (`markup`)."""


class MatchingTexts:
    """A container of all texts for which a condition is true."""

    def __init__(self, true: Callable[[str], bool]) -> None:
        self._true = true

    def __contains__(self, text: object) -> bool:
        return isinstance(text, str) and self._true(text)


class ImageEdits(Images):
    """`POST /v1/images/edits`"""

    name = "images.edits"
    accepts = (b"multipart/form-data",)
    _path = b"/images/edits"
    _streamed = "image_edit"
    streams = True
    """Variations have no streams."""

    async def receive(self, request: Request, folder: Path) -> None:
        upload = request.upload_state = Upload(
            _DECISIVE_FIELDS, (MAX_FILES, _FILES), named=request.upload_state, awaited=_AWAITED_FIELDS
        )
        await upload.begin(request, folder)

    def read(self, request: Request) -> Ask:
        upload = request.upload_state
        if not isinstance(upload, Upload) or not upload.files:
            raise image_missing()
        if not _FILES.issuperset(upload.files):
            raise file_unsupported(next(name for name in upload.files if name not in _FILES), _FILES)
        if _IMAGES.isdisjoint(upload.files):
            if upload.whole:
                raise image_missing()
            upload.owes_image = _IMAGES
        fields = upload.fields
        stream, partial, count = upload.flag("stream"), upload.number("partial_images", 0), upload.number("n", 1)
        if not self.streams and (stream or partial):
            name = "stream" if stream else "partial_images"
            raise Invalid(f"{name} is not supported", code="field_unsupported", hint=f"Leave {name} out.")
        check_counts(count, partial, stream=stream)
        check_bounded(fields, fields.get("output_format"))
        sent = len(upload.files) if upload.whole else max(MAX_FILES, len(upload.files))
        size = len(fields["prompt"].encode()) if "prompt" in fields else 0 if upload.whole else MAX_LATE_PROMPT_BYTES
        return Ask(
            fields={}, model=fields.get("model", "auto"), messages=1, query="", stream=stream, include_usage=False,
            cap=0, copies=count, size=size, images=sent, upload=upload,
            parsed=ImageSettings(fields.get("size"), fields.get("quality"), partial),
        )  # fmt: skip

    def allowed_late_fields(self, ask: Ask, deployment: Deployment) -> Mapping[str, Container[str]]:
        """Values for fields that did not come before the files: one image of the dearest kind was reserved."""
        fields, rates = {} if ask.upload is None else ask.upload.fields, deployment.rates

        def priced(size: str | None, quality: str | None) -> bool:
            return not rates.images or image_price(rates, size, quality) is not None

        return {
            "prompt": MatchingTexts(lambda text: len(text.encode()) <= MAX_LATE_PROMPT_BYTES),
            "size": MatchingTexts(lambda text: priced(text, fields.get("quality"))),
            "quality": MatchingTexts(lambda text: priced(fields.get("size"), text)),
            "output_format": ("png", "webp", "jpeg"),
            "stream": ("false",),
            "partial_images": ("0",),
            "n": ("1",),
        }

    def cost(self, ask: Ask, deployment: Deployment, usage: Usage) -> int:
        upload = ask.upload
        if upload is not None and not upload.whole:  # by the fields behind the files, too
            size, quality = upload.fields.get("size"), upload.fields.get("quality")
            ask = replace(ask, parsed=dataclasses.replace(image_settings(ask), size=size, quality=quality))
        return super().cost(ask, deployment, usage)

    def eligible_deployments(self, ask: Ask, deployments: tuple[Deployment, ...]) -> tuple[Deployment, ...]:
        return super().eligible_deployments(ask, accepting_uploads(deployments))


class ImageVariations(ImageEdits):
    """`POST /v1/images/variations`"""

    name = "images.variations"
    streams = False
    _path = b"/images/variations"


IMAGE_EDITS = ImageEdits()
IMAGE_VARIATIONS = ImageVariations()
