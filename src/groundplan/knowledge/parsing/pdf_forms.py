"""What was filled into the form of a PDF or written onto its pages: made a part of what they show. Scripts of a form
are not run. The library is that of `groundplan[knowledge]`.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Any, Final

_MOST: Final = 1000
"""Annotations of a page that are looked at."""
_LONGEST: Final = 1 << 20
"""Bytes of a value that is read."""
_PASSWORD: Final = 1 << 13


def prepare_forms(document: Any) -> tuple[str, ...]:
    """Ready a document that was just opened: a field without a picture of its value gets one. Notes on what is not
    read."""
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
    """What its fields have that are shown: text and choices. None where nothing was written onto the page."""
    import pypdfium2.raw as pdfium  # noqa: PLC0415 -- heavy

    written = False
    found: list[str] = []
    for at in range(min(pdfium.FPDFPage_GetAnnotCount(page.raw), _MOST)):
        note = pdfium.FPDFPage_GetAnnot(page.raw, at)
        type_ = pdfium.FPDFAnnot_GetSubtype(note)
        written |= type_ in (pdfium.FPDF_ANNOT_WIDGET, pdfium.FPDF_ANNOT_FREETEXT, pdfium.FPDF_ANNOT_STAMP)
        if type_ == pdfium.FPDF_ANNOT_WIDGET and document.formenv is not None:
            value = _value(document.formenv.raw, note)
            found += [value] if value.strip() else []
        pdfium.FPDFPage_CloseAnnot(note)
    return found if written else None


def flatten(page: Any) -> None:
    """Make what is written onto a page a part of it; it holds once the page is opened again."""
    import pypdfium2.raw as pdfium  # noqa: PLC0415 -- heavy

    pdfium.FPDFPage_Flatten(page.raw, pdfium.FLAT_NORMALDISPLAY)


def _value(form: Any, note: Any) -> str:
    """What stands in a field; nothing of one that is hidden or a password, and of buttons."""
    import pypdfium2.raw as pdfium  # noqa: PLC0415 -- heavy

    shown = not pdfium.FPDFAnnot_GetFlags(note) & (pdfium.FPDF_ANNOT_FLAG_HIDDEN | pdfium.FPDF_ANNOT_FLAG_NOVIEW)
    kinds = (pdfium.FPDF_FORMFIELD_TEXTFIELD, pdfium.FPDF_FORMFIELD_COMBOBOX, pdfium.FPDF_FORMFIELD_LISTBOX)
    if not shown or pdfium.FPDFAnnot_GetFormFieldType(form, note) not in kinds:
        return ""
    length = pdfium.FPDFAnnot_GetFormFieldValue(form, note, None, 0)
    if pdfium.FPDFAnnot_GetFormFieldFlags(form, note) & _PASSWORD or not 2 < length <= _LONGEST:
        return ""
    buffer = (pdfium.FPDF_WCHAR * (length // 2))()
    pdfium.FPDFAnnot_GetFormFieldValue(form, note, buffer, length)
    return ctypes.string_at(buffer, length - 2).decode("utf-16-le", "replace")
