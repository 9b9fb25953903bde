"""Images that are made from other images: edits and variations, whose forms are sent on while they arrive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from groundplan.core.errors import Invalid
from groundplan.gateway.call.exchange import Ask
from groundplan.gateway.surfaces.images import Images, Made, check_count
from groundplan.gateway.surfaces.upload import Upload

if TYPE_CHECKING:
    from groundplan.blueprint.model import Deployment
    from groundplan.gateway.http.server import Request

_DECISIVE = frozenset({"model", "n", "size", "quality", "stream", "partial_images", "prompt"})
_FILES = frozenset({"image", "image[]", "mask"})
MOST_FILES = 17
"""OpenAI takes sixteen images and a mask."""


class ImageEdits(Images):
    """`POST /v1/images/edits`"""

    name = "images.edits"
    accepts = (b"multipart/form-data",)
    _path = b"/images/edits"

    async def receive(self, request: Request) -> None:
        upload = request.form = Upload(_DECISIVE)
        await upload.begin(request)

    def read(self, request: Request) -> Ask:
        upload = request.form
        if not isinstance(upload, Upload) or not upload.files or not _FILES.issuperset(upload.files):
            raise Invalid("the form has no image", code="file_missing", hint="Send a file in the field `image`.")
        fields = upload.fields
        for name in ("stream", "partial_images"):
            if fields.get(name, "false").lower() not in ("false", "0"):
                raise Invalid(f"{name} is not supported", code="field_unsupported", hint=f"Leave {name} out.")
        text = fields.get("n", "1")
        count = int(text) if text.isascii() and text.isdigit() else 0
        check_count(count)
        sent = len(upload.files) if upload.whole else MOST_FILES
        return Ask(
            fields={}, model=fields.get("model", "auto"), messages=1, query="", stream=False, include_usage=False,
            cap=0, copies=count, size=len(fields.get("prompt", "").encode()), images=sent, upload=upload,
            typed=Made(fields.get("size"), fields.get("quality")),
        )  # fmt: skip

    def able(self, ask: Ask, deployments: tuple[Deployment, ...]) -> tuple[Deployment, ...]:
        found = tuple(deployment for deployment in deployments if deployment.http == 1)
        if not found:
            raise Invalid("no deployment takes uploads", code="upload_http2", hint="Declare one with http: 1.")
        return super().able(ask, found)


class ImageVariations(ImageEdits):
    """`POST /v1/images/variations`"""

    name = "images.variations"
    _path = b"/images/variations"


IMAGE_EDITS = ImageEdits()
IMAGE_VARIATIONS = ImageVariations()
