"""The API of stored chat completions: `GET /v1/chat/completions`, and `GET`, `POST` (metadata), `DELETE` and `messages`
of one.

Only the key that made a completion, and its successors, can see it, acting for the same person; for anybody else it
does not exist.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

import msgspec

from groundplan.core.errors import Invalid, NotFound
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.http.server import Request
from groundplan.gateway.http.strict_json import DECODE_ERRORS
from groundplan.gateway.surfaces import stored_api
from groundplan.gateway.surfaces.chat.sealed_store import SealedCompletions
from groundplan.gateway.surfaces.metadata import check_metadata
from groundplan.gateway.surfaces.stored_api import Query, last_value
from groundplan.ledger.stored_owner import Owner

PREFIX = b"/v1/chat/completions/"
_PATH = re.compile(r"/v1/chat/completions(?:/([A-Za-z0-9_.:-]{1,200})(?:/(messages))?)?")
_PAIR = re.compile(r"metadata\[(.{1,64})\]", re.DOTALL)


class _Change(msgspec.Struct, frozen=True):
    metadata: dict[str, Any] | None


_change = msgspec.json.Decoder(_Change).decode


def not_found(id: str) -> NotFound:
    return NotFound(
        f"there is no stored completion '{id[:80]}'",
        code="completion_not_found",
        hint="It may be another key's or another person's, deleted, past its time, or never stored: see "
        "groundplan.store of its answer.",
    )


async def answer(gateway: Gateway, path: bytes, request: Request, owner: Owner) -> dict[str, Any]:
    """Answer one request: a `stored_api.Answer`."""
    found, sealed = _PATH.fullmatch(unquote(path.decode("ascii", "replace"))), gateway.stored_completions
    if found is None or sealed is None:
        raise stored_api.unknown_path(path, "/v1/chat/completions")
    id, part = found[1], found[2]
    allowed = (b"GET", b"POST") if id is None else (b"GET",) if part is not None else (b"GET", b"POST", b"DELETE")
    stored_api.check_method(request, allowed)
    query = stored_api.query_of(request)
    if id is None:
        return await _list_completions(sealed, owner, query)
    if request.method == b"DELETE":
        if not await sealed.delete(id, owner):
            raise not_found(id)
        return {"id": id, "object": "chat.completion.deleted", "deleted": True}
    if request.method == b"POST":
        stored = await sealed.change(id, owner, _metadata(request.body))
    else:
        stored = await sealed.find(id, owner)
    if stored is None:
        raise not_found(id)
    if part is None:
        return stored.to_json()
    messages = [_message(f"{id}-{place}", each) for place, each in enumerate(stored.messages)]
    return stored_api.page_of(query, messages, "asc")


def _metadata(body: bytes) -> dict[str, str]:
    """The metadata in a request's body. Raises `Invalid`."""
    try:
        return check_metadata(_change(body).metadata)
    except DECODE_ERRORS as error:
        hint = 'Send {"metadata": {...}}: nothing else of a stored completion can be changed.'
        raise Invalid(f"the body is wrong: {error}", code="body_invalid", hint=hint) from error


async def _list_completions(sealed: SealedCompletions, owner: Owner, query: Query) -> dict[str, Any]:
    """A page of the owner's completions, the oldest first by default. Raises `Invalid`, `NotFound`."""
    most, after, newest_first = (
        stored_api.page_size(query),
        last_value(query, "after"),
        stored_api.is_newest_first(query, "asc"),
    )
    pairs = {named[1]: values[-1] for name, values in query.items() if (named := _PAIR.fullmatch(name)) is not None}
    list_page = await sealed.list_page(
        owner, most, after=after, model=last_value(query, "model"), metadata=pairs, newest_first=newest_first
    )
    if list_page is None:
        raise not_found(after or "")
    found, more = list_page
    return stored_api.page([stored.to_json() for stored in found], more=more)


def _message(id: str, message: dict[str, Any]) -> dict[str, Any]:
    """A message in OpenAI's shape of a stored one: a content of parts is moved to `content_parts`."""
    content = message.get("content")
    parts = content if isinstance(content, list) else None
    return {**message, "id": id, "content": None if parts is not None else content, "content_parts": parts}
