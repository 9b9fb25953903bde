"""Stored chat completions at the gateway's port: `GET /v1/chat/completions`, and `GET`, `POST` (metadata), `DELETE` and
`messages` of one.

For the key that made a completion, and its successors; for any other it is not there.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs, unquote

import msgspec

from groundplan.core.errors import Invalid, NotFound
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.facts_api import admitted
from groundplan.gateway.http.server import Request, Response
from groundplan.gateway.policy.snapshot import KeyEntry
from groundplan.gateway.surfaces import stored
from groundplan.gateway.surfaces.chat_kept import CompletionShelf, Kept, checked_metadata
from groundplan.gateway.surfaces.stored import Query

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
        hint="It may be another key's, deleted, past its time, or never stored: see groundplan.store of its answer.",
    )


async def handle(gateway: Gateway, path: bytes, request: Request, response: Response) -> None:
    """Answer one request, whatever happens."""
    await stored.send(response, _answer(gateway, path, request, response.peer))


async def _answer(gateway: Gateway, path: bytes, request: Request, peer: str) -> dict[str, Any]:
    key, _, _ = admitted(gateway, request, peer)
    found, shelf = _PATH.fullmatch(unquote(path.decode("ascii", "replace"))), gateway.completions
    if found is None or shelf is None:
        raise NotFound("there is no such path", code="path_unknown", hint="See OpenAI's chat completions.")
    id, part = found[1], found[2]
    wanted = (b"GET",) if id is None or part is not None else (b"GET", b"POST", b"DELETE")
    if request.method not in wanted:
        raise Invalid("this method is not for this path", code="method_not_allowed", hint="See OpenAI's API.")
    query = parse_qs(request.target.partition(b"?")[2].decode("latin-1"), keep_blank_values=True)
    if id is None:
        return await _list(shelf, key, query)
    if request.method == b"DELETE":
        if not await shelf.delete(id, key):
            raise not_found(id)
        return {"id": id, "object": "chat.completion.deleted", "deleted": True}
    if request.method == b"POST":
        kept = await shelf.change(id, key, _metadata(request.body))
    else:
        kept = await shelf.find(id, key)
    if kept is None:
        raise not_found(id)
    return kept.told() if part is None else _messages(id, kept, query)


def _metadata(body: bytes) -> dict[str, str]:
    """Raises `Invalid`."""
    try:
        return checked_metadata(_change(body).metadata)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        hint = 'Send {"metadata": {...}}: nothing else of a stored completion can be changed.'
        raise Invalid(f"the body is wrong: {error}", code="body_invalid", hint=hint) from error


async def _list(shelf: CompletionShelf, key: KeyEntry, query: Query) -> dict[str, Any]:
    """The key's own, the oldest first unless told otherwise. Raises `Invalid`, `NotFound`."""
    most, after = stored.limit(query), stored.last(query, "after")
    pairs = {named[1]: values[-1] for name, values in query.items() if (named := _PAIR.fullmatch(name)) is not None}
    listed = await shelf.listed(
        key, most, after=after, model=stored.last(query, "model"), metadata=pairs, newest_first=_newest_first(query)
    )
    if listed is None:
        raise not_found(after or "")
    found, more = listed
    return _page([kept.told() for kept in found], more=more)


def _messages(id: str, kept: Kept, query: Query) -> dict[str, Any]:
    """The messages of its request, the first one first unless told otherwise. Raises `Invalid`."""
    most, after = stored.limit(query), stored.last(query, "after")
    told = [_message(f"{id}-{place}", each) for place, each in enumerate(kept.messages)]
    if _newest_first(query):
        told.reverse()
    ids = [each["id"] for each in told]
    start = ids.index(after) + 1 if after in ids else 0
    return _page(told[start : start + most], more=start + most < len(told))


def _message(id: str, given: dict[str, Any]) -> dict[str, Any]:
    """As OpenAI tells it: a content of parts is told beside."""
    content = given.get("content")
    parts = content if isinstance(content, list) else None
    return {**given, "id": id, "content": None if parts is not None else content, "content_parts": parts}


def _page(data: list[dict[str, Any]], *, more: bool) -> dict[str, Any]:
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    return {"object": "list", "data": data, "first_id": first, "last_id": last, "has_more": more}


def _newest_first(query: Query) -> bool:
    order = stored.last(query, "order") or "asc"
    if order not in ("asc", "desc"):
        raise Invalid("order is asc or desc", code="field_unsupported", hint="Leave order out.")
    return order == "desc"
