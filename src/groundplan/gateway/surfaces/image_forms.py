"""Images that are made from other images: edits and variations, whose forms are sent on while they arrive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from groundplan.core.errors import Invalid
from groundplan.gateway.call.exchange import Ask
from groundplan.gateway.surfaces.images import Images, Made, check_bounded, check_counts
from groundplan.gateway.surfaces.upload import Upload

if TYPE_CHECKING:
    from groundplan.blueprint.model import Deployment
    from groundplan.gateway.http.server import Request

_DECISIVE = frozenset(
    {
        "model", "n", "size", "quality", "stream", "partial_images", "prompt", "output_format", "frame_count", "svg",
        "svg[model]", "svg[reasoning]", "svg[reasoning][effort]", "image", "image[]", "image_url", "mask", "markup",
    }
)  # fmt: skip
_FILES = frozenset({"image", "image[]", "mask", "markup"})
MOST_FILES = 17
"""OpenAI takes sixteen images, and a mask or what is drawn on the first of them (`markup`)."""


class ImageEdits(Images):
    """`POST /v1/images/edits`"""

    name = "images.edits"
    accepts = (b"multipart/form-data",)
    _path = b"/images/edits"
    _streamed = "image_edit"
    streams = True
    """Variations have no streams."""

    async def receive(self, request: Request) -> None:
        upload = request.form = Upload(_DECISIVE)
        await upload.begin(request)

    def read(self, request: Request) -> Ask:
        upload = request.form
        if not isinstance(upload, Upload) or not upload.files or not _FILES.issuperset(upload.files):
            raise Invalid("the form has no image", code="file_missing", hint="Send a file in the field `image`.")
        fields = upload.fields
        stream, partial, count = upload.said("stream"), upload.number("partial_images", 0), upload.number("n", 1)
        if not self.streams and (stream or partial):
            name = "stream" if stream else "partial_images"
            raise Invalid(f"{name} is not supported", code="field_unsupported", hint=f"Leave {name} out.")
        check_counts(count, partial, stream=stream)
        check_bounded(fields, fields.get("output_format"))
        sent = len(upload.files) if upload.whole else MOST_FILES
        return Ask(
            fields={}, model=fields.get("model", "auto"), messages=1, query="", stream=stream, include_usage=False,
            cap=0, copies=count, size=len(fields.get("prompt", "").encode()), images=sent, upload=upload,
            typed=Made(fields.get("size"), fields.get("quality"), partial),
        )  # fmt: skip

    def able(self, ask: Ask, deployments: tuple[Deployment, ...]) -> tuple[Deployment, ...]:
        found = tuple(deployment for deployment in deployments if deployment.http == 1)
        if not found:
            raise Invalid("no deployment takes uploads", code="upload_http2", hint="Declare one with http: 1.")
        return super().able(ask, found)


class ImageVariations(ImageEdits):
    """`POST /v1/images/variations`"""

    name = "images.variations"
    streams = False
    _path = b"/images/variations"


IMAGE_EDITS = ImageEdits()
IMAGE_VARIATIONS = ImageVariations()
