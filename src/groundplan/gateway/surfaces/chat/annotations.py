"""Annotations of chat answers: the web pages that an answer cites. Pure.

Annotations of other kinds, such as the files that OpenRouter returns for a later request, have no equal in other APIs
and are left out. Some providers list the pages beside the choices instead, and cite them by their numbers in the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec.structs import replace

from groundplan.gateway.http.strict_json import DECODE_ERRORS

URL_CITATION = "url_citation"
ANNOTATIONS_LEFT_OUT, CITATIONS_LEFT_OUT = "answer.annotations", "answer.citations"
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
_value = msgspec.json.Decoder().decode
_marks = re.compile(r"\[(\d{1,3})\]", re.ASCII).finditer
"""Finds the numbers of cited pages in a text: `[1]`."""


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


def listed_pages(citations: msgspec.Raw, search_results: msgspec.Raw) -> list[UrlCitation]:
    """The web pages that an answer lists beside its choices, in their order: `citations` are addresses, as Perplexity
    and xAI send them, `search_results` have titles, too. The address of one that cannot be read is empty."""
    results = _listed(search_results)
    titles = {page.url: page.title for page in results}
    return [UrlCitation(page.url, page.title or titles.get(page.url)) for page in _listed(citations)] or results


def _listed(raw: msgspec.Raw) -> list[UrlCitation]:
    try:
        values = _value(raw)
    except DECODE_ERRORS:
        return []
    found: list[UrlCitation] = []
    for value in values if isinstance(values, list) else ():
        fields = value if isinstance(value, dict) else {"url": value}
        url, title = fields.get("url"), fields.get("title")
        found.append(UrlCitation(url if isinstance(url, str) else "", title if isinstance(title, str) else None))
    return found


def marked_pages(text: str, pages: list[UrlCitation]) -> list[UrlCitation]:
    """A citation for each place where the text has the number of a page, counted from 1: `[1]`."""
    found: list[UrlCitation] = []
    for mark in _marks(text) if pages else ():
        if 0 < (number := int(mark[1])) <= len(pages) and (page := pages[number - 1]).url:
            found.append(replace(page, start_index=mark.start(), end_index=mark.end()))
    return found


def pages_once(pages: Iterable[UrlCitation]) -> list[UrlCitation]:
    """The pages without those of the same address, and those without one."""
    return [page for address, page in {page.url: page for page in pages}.items() if address]


def with_pages(annotated: list[UrlCitation], pages: list[UrlCitation]) -> list[UrlCitation]:
    """The annotated pages, and those others that are listed."""
    known = {page.url for page in annotated}
    return [*annotated, *(page for page in pages if page.url not in known)]


def names_of_uncited(
    annotated: list[UrlCitation], listed: list[UrlCitation], cited: Iterable[UrlCitation]
) -> list[str]:
    """Names, for `groundplan.left_out`, where not all annotated or listed pages are cited."""
    known = {page.url for page in cited}
    named = ((ANNOTATIONS_LEFT_OUT, annotated), (CITATIONS_LEFT_OUT, listed))
    return [name for name, pages in named if any(page.url not in known for page in pages)]


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
