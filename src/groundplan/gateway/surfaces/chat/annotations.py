"""Annotations of chat answers: the web pages that an answer cites. Pure.

Annotations of other kinds, such as the files that OpenRouter returns for a later request, have no equal in other APIs
and are left out.
"""

from __future__ import annotations

from typing import Any

import msgspec

from groundplan.gateway.http.strict_json import DECODE_ERRORS

URL_CITATION = "url_citation"
_POSITIONS = ("start_index", "end_index")


class UrlCitation(msgspec.Struct, frozen=True):
    """A cited web page. `start_index` and `end_index` tell where in the answer, in characters; `content`: the quoted
    text, which few upstreams send."""

    url: str
    title: str | None = None
    start_index: int | None = None
    end_index: int | None = None
    content: str | None = None


class _Annotation(msgspec.Struct, frozen=True):
    type: str = ""
    url_citation: UrlCitation | None = None


_items = msgspec.json.Decoder(list[msgspec.Raw] | None).decode
_annotation = msgspec.json.Decoder(_Annotation).decode


def url_citations(annotations: msgspec.Raw) -> list[UrlCitation]:
    """The web pages in an `annotations` field, in its order. Items that cannot be read are left out: they are no reason
    to lose an answer that was paid for."""
    try:
        items = _items(annotations) or []
    except DECODE_ERRORS:
        return []
    found: list[UrlCitation] = []
    for item in items:
        try:
            annotation = _annotation(item)
        except DECODE_ERRORS:
            continue
        if annotation.type == URL_CITATION and annotation.url_citation is not None:
            found.append(annotation.url_citation)
    return found


def shift_annotation(annotation: dict[str, Any], characters: int) -> dict[str, Any]:
    """An annotation whose text stands so many characters further behind."""
    moved = {
        name: value + characters
        for name in _POSITIONS
        if isinstance(value := annotation.get(name), int) and not isinstance(value, bool)
    }
    return {**annotation, **moved}


def has_others(annotations: msgspec.Raw) -> bool:
    """Whether an `annotations` field has anything that `url_citations` leaves out."""
    try:
        items = _items(annotations) or []
    except DECODE_ERRORS:
        return True
    return len(items) > len(url_citations(annotations))


def response_annotation(citation: UrlCitation) -> dict[str, Any]:
    """The annotation of an `output_text` in Responses, which has all fields."""
    return {
        "type": URL_CITATION,
        "start_index": citation.start_index or 0,
        "end_index": citation.end_index or 0,
        "title": citation.title or "",
        "url": citation.url,
    }
