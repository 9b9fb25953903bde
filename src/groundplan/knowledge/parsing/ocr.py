"""Recognises the text of pictures (scans, and PDF pages without text) by RapidOCR on OpenVINO (`groundplan[ocr]`).

The models are part of its package; nothing is downloaded. It runs in a confined process of its own, which may use more
memory and time than an ordinary parser. Handwriting and tables in pictures are not supported.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, Final

from groundplan.core.errors import Invalid, TooLarge
from groundplan.knowledge.parsing.text import TextDocument, clean

PICTURES: Final = frozenset({"png", "jpg", "jpeg"})
MAX_PAGES: Final = 200
"""Most pages whose text is recognised: each takes about a second."""
MAX_SIDE: Final = 4000
"""Pixels of the longer side to which a page is scaled down."""
MIN_CERTAINTY: Final = 0.5
"""Lines recognised with less certainty than this are left out."""
_SCALE: Final = 2.0
"""144 dots an inch: enough for print, and quick."""
_DOUBTFUL_BELOW: Final = 0.85
HINT: Final = "Have its text recognised: pip install 'groundplan[ocr]', or replace it by one with text."


def is_installed() -> bool:
    """Whether text can be recognised here."""
    return find_spec("rapidocr") is not None and find_spec("openvino") is not None


@lru_cache(maxsize=1)
def _engine() -> Any:
    from rapidocr import EngineType, RapidOCR  # noqa: PLC0415 -- an extra, and heavy

    engine = EngineType.OPENVINO
    return RapidOCR(
        params={
            "Det.engine_type": engine, "Cls.engine_type": engine, "Rec.engine_type": engine,
            "Global.log_level": "error",
        }
    )  # fmt: skip


def read_picture(data: bytes, name: str) -> TextDocument:
    """Read a scan as text. Raises `Invalid` (document_broken, document_scanned)."""
    import numpy as np  # noqa: PLC0415 -- heavy
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415 -- an extra

    try:
        with Image.open(io.BytesIO(data)) as opened:
            opened.thumbnail((MAX_SIDE, MAX_SIDE))
            pixels = np.asarray(opened.convert("RGB"))
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise Invalid("it is not a picture", code="document_broken", hint="Save it again, as PNG or JPEG.") from error
    text, certainty = read_page(pixels)
    if not text:
        raise Invalid(
            "no text was recognised in it",
            code="document_scanned",
            hint="Scan it again, straight and at a higher resolution.",
        )
    return TextDocument(clean(text) + "\n", markdown=True, title=None, notes=_doubt_notes({name: certainty}))


def read_pages(document: Any, numbers: Sequence[int]) -> tuple[dict[int, str], tuple[str, ...]]:
    """(page number -> recognised text, notes on doubtful pages) of these pages of an open PDF. Raises `TooLarge`."""
    if len(numbers) > MAX_PAGES:
        raise TooLarge(
            f"{len(numbers)} of its pages are pictures", code="document_too_large", hint=f"Split it at {MAX_PAGES}."
        )
    found: dict[int, str] = {}
    certain: dict[str, float] = {}
    for number in numbers:
        one = document[number]
        scale = min(_SCALE, MAX_SIDE / max(1.0, *one.get_size()))
        found[number], certain[f"page {number + 1}"] = read_page(one.render(scale=scale).to_numpy()[..., :3])
        one.close()
    return found, _doubt_notes(certain)


def read_page(pixels: Any) -> tuple[str, float]:
    """(lines of text from top to bottom, mean certainty from 0 to 1) of pixels of shape (height, width, 3)."""
    result = _engine()(pixels)
    if result.txts is None:
        return "", 1.0
    lines = [
        (float(box[:, 1].min()), float(box[:, 1].max()), float(box[:, 0].min()), text, float(score))
        for box, text, score in zip(result.boxes, result.txts, result.scores, strict=True)
        if score >= MIN_CERTAINTY and text.strip()
    ]
    certainty = sum(line[4] for line in lines) / len(lines) if lines else 1.0
    return lay_out([line[:4] for line in lines]), certainty


def lay_out(lines: Sequence[tuple[float, float, float, str]]) -> str:
    """Join pieces of text (top, bottom, left, text) into lines; a wide vertical gap becomes an empty line."""
    rows: list[list[tuple[float, float, float, str]]] = []
    for one in sorted(lines):
        middle = (one[0] + one[1]) / 2
        if rows and middle < rows[-1][0][1]:
            rows[-1].append(one)
        else:
            rows.append([one])
    text, before = "", 0.0
    for row in rows:
        top, bottom = min(one[0] for one in row), max(one[1] for one in row)
        if text:
            text += "\n\n" if top - before > 0.9 * (bottom - top) else "\n"
        text += " ".join(one[3].strip() for one in sorted(row, key=lambda one: one[2]))
        before = bottom
    return text


def _doubt_notes(certain: dict[str, float]) -> tuple[str, ...]:
    unsure = [name for name, certainty in certain.items() if certainty < _DOUBTFUL_BELOW]
    return (f"the text of {', '.join(unsure[:10])} was recognised with little certainty",) if unsure else ()
