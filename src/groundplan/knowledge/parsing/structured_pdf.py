"""Reads PDF with docling (`groundplan[docling]`), for a source that declares `reading: {pdf: docling}`.

Its models must be downloaded before, by `docling-tools models download -o FOLDER`, since the confined process has no
network. For that reason the tests do not cover this extra.
"""

from __future__ import annotations

import io
from pathlib import Path

from groundplan.core.errors import Invalid
from groundplan.knowledge.parsing.text import TextDocument, clean

NAME = "docling"


def read_structured_pdf(data: bytes, name: str, models: str) -> TextDocument:
    """Read a PDF as Markdown with its tables; `models` is the folder of docling's models. Raises `Invalid`
    (extra_missing, docling_models, document_broken)."""
    try:
        from docling.datamodel.base_models import DocumentStream, InputFormat  # noqa: PLC0415 -- an extra, and heavy
        from docling.datamodel.pipeline_options import PdfPipelineOptions  # noqa: PLC0415
        from docling.document_converter import DocumentConverter, PdfFormatOption  # noqa: PLC0415
        from docling.exceptions import ConversionError  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise Invalid(
            f"its source wants docling, which is not installed ({error.name})", code="extra_missing",
            hint="pip install 'groundplan[docling]', or leave `reading` of the source out.",
        ) from error  # fmt: skip
    if not Path(models).is_dir():
        raise Invalid(
            f"the models of docling are not in {models}", code="docling_models",
            hint=f"docling-tools models download -o {models}",
        )  # fmt: skip
    options = PdfPipelineOptions(artifacts_path=models)
    converter = DocumentConverter(format_options={InputFormat.PDF: PdfFormatOption(pipeline_options=options)})
    try:
        result = converter.convert(DocumentStream(name=name, stream=io.BytesIO(data)))
    except ConversionError as error:
        raise Invalid("docling cannot read it", code="document_broken", hint="Save it again.") from error
    return TextDocument(clean(result.document.export_to_markdown()) + "\n", markdown=True)
