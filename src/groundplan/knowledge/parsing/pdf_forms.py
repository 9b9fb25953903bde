"""Makes form values and annotations of a PDF a part of its pages' text. Scripts of a form are not run. The library is
that of `groundplan[knowledge]`.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Any, Final

_MAX_ANNOTATIONS: Final = 1000
"""Most annotations of a page that are read."""
_MAX_VALUE_BYTES: Final = 1 << 20
"""Longest value that is read, in bytes."""
_PASSWORD_FLAG: Final = 1 << 13


def prepare_forms(document: Any) -> tuple[str, ...]:
    """Prepare a document that was just opened: fields without an appearance get one. Returns notes on unread parts."""
    import pypdfium2.raw as pdfium  # noqa: PLC0415 -- heavy
    from pypdfium2 import PdfiumError  # noqa: PLC0415

    kind = document.get_formtype()
    if kind == pdfium.FORMTYPE_XFA_FULL:
        return ("its form is of a kind (XFA) that is not read: print it as a PDF",)
    if kind != pdfium.FORMTYPE_NONE:
        with suppress(PdfiumError):
            document.init_forms()
    return ()


def field_values(document: Any, page: Any) -> list[str] | None:
    """The values of the visible text and choice fields of a page; None if nothing was written onto the page."""
    import pypdfium2.raw as pdfium  # noqa: PLC0415 -- heavy

    written = False
    found: list[str] = []
    for index in range(min(pdfium.FPDFPage_GetAnnotCount(page.raw), _MAX_ANNOTATIONS)):
        annotation = pdfium.FPDFPage_GetAnnot(page.raw, index)
        type_ = pdfium.FPDFAnnot_GetSubtype(annotation)
        written |= type_ in (pdfium.FPDF_ANNOT_WIDGET, pdfium.FPDF_ANNOT_FREETEXT, pdfium.FPDF_ANNOT_STAMP)
        if type_ == pdfium.FPDF_ANNOT_WIDGET and document.formenv is not None:
            value = _field_value(document.formenv.raw, annotation)
            found += [value] if value.strip() else []
        pdfium.FPDFPage_CloseAnnot(annotation)
    return found if written else None


def flatten(page: Any) -> None:
    """Make the annotations of a page a part of its content; it takes effect when the page is opened again."""
    import pypdfium2.raw as pdfium  # noqa: PLC0415 -- heavy

    pdfium.FPDFPage_Flatten(page.raw, pdfium.FLAT_NORMALDISPLAY)


def _field_value(form: Any, annotation: Any) -> str:
    """The value of a field; empty for hidden fields, passwords and buttons."""
    import pypdfium2.raw as pdfium  # noqa: PLC0415 -- heavy

    is_visible = not pdfium.FPDFAnnot_GetFlags(annotation) & (
        pdfium.FPDF_ANNOT_FLAG_HIDDEN | pdfium.FPDF_ANNOT_FLAG_NOVIEW
    )
    readable_types = (pdfium.FPDF_FORMFIELD_TEXTFIELD, pdfium.FPDF_FORMFIELD_COMBOBOX, pdfium.FPDF_FORMFIELD_LISTBOX)
    if not is_visible or pdfium.FPDFAnnot_GetFormFieldType(form, annotation) not in readable_types:
        return ""
    length = pdfium.FPDFAnnot_GetFormFieldValue(form, annotation, None, 0)
    if pdfium.FPDFAnnot_GetFormFieldFlags(form, annotation) & _PASSWORD_FLAG or not 2 < length <= _MAX_VALUE_BYTES:
        return ""
    buffer = (pdfium.FPDF_WCHAR * (length // 2))()
    pdfium.FPDFAnnot_GetFormFieldValue(form, annotation, buffer, length)
    return ctypes.string_at(buffer, length - 2).decode("utf-16-le", "replace")
