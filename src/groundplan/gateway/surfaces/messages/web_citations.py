"""Citations of web pages in Messages that a chat upstream answered, and their way back in a later request.

Anthropic's `encrypted_index` is a secret of its own search; a citation that comes from another provider has an empty
one. Anthropic refuses such a citation, so it is removed from what is sent there. Pure.
"""

from __future__ import annotations

from typing import Any

import msgspec

from groundplan.gateway.http.strict_json import DECODE_ERRORS
from groundplan.gateway.surfaces.chat.annotations import UrlCitation

_LOCATION = "web_search_result_location"
_INDEX = "encrypted_index"
_INDEX_BYTES = b'"encrypted_index"'
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def message_citation(citation: UrlCitation) -> dict[str, Any]:
    """The citation of a text block. Where in the answer the page is cited cannot be told: it is cited by the block."""
    return {
        "type": _LOCATION,
        "url": citation.url,
        "title": citation.title,
        "cited_text": citation.content or "",
        _INDEX: "",
    }


def without_foreign_citations(messages: bytes) -> bytes | None:
    """The `messages` of a request without citations that another provider made; None where there are none."""
    if _INDEX_BYTES not in messages:
        return None
    try:
        decoded = _decode(messages)
    except DECODE_ERRORS:
        return None
    changed = False
    for message in decoded if isinstance(decoded, list) else ():
        content = message.get("content") if isinstance(message, dict) else None
        for block in content if isinstance(content, list) else ():
            changed = remove_foreign_citations(block) or changed
    return _encode(decoded) if changed else None


def remove_foreign_citations(block: Any) -> bool:
    """Remove the citations of a block that another provider made; returns whether there were any."""
    citations = block.get("citations") if isinstance(block, dict) else None
    if not isinstance(citations, list):
        return False
    own = [one for one in citations if not (isinstance(one, dict) and one.get(_INDEX) == "")]
    if len(own) == len(citations):
        return False
    block["citations"] = own or None
    return True
