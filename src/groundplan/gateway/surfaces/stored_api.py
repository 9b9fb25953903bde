"""Shared parts of the APIs of stored responses and stored completions: error handling, query parameters, pages.

What an answer contains is left to each API.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

import msgspec

from groundplan.core.errors import GroundplanError, Invalid, NotFound
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.facts_api import admit_caller
from groundplan.gateway.http import errors
from groundplan.gateway.http.methods import WrongMethod
from groundplan.gateway.http.server import Request, Response
from groundplan.gateway.surfaces.responses.sealed_store import owner_of
from groundplan.gateway.surfaces.unsupported_paths import misplaced_path
from groundplan.ledger.stored_owner import Owner

MAX_LISTED = 100
Query = dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class EventStream:
    """An answer that is streamed: its pieces, and its header lines."""

    pieces: AsyncIterator[bytes]
    lines: bytes


Answer = Callable[[Gateway, bytes, Request, Owner], Awaitable[dict[str, Any] | EventStream]]
"""Answers a request to a path, of a caller with a valid key. Raises a `GroundplanError`."""
_encode = msgspec.json.Encoder().encode
_log = logging.getLogger(__name__)


async def handle(answer: Answer, gateway: Gateway, path: bytes, request: Request, response: Response) -> None:
    """Answer one request with `answer`, or with the error that it raises."""
    try:
        key, person, _ = await admit_caller(gateway, request, response.peer_address)
        found = await answer(gateway, path, request, owner_of(key, person))
        if isinstance(found, EventStream):
            await response.send_stream(200, found.pieces, found.lines)
        else:
            await response.send_large(200, _encode(found))
        return
    except GroundplanError as caught:
        error = caught
    except Exception:  # noqa: BLE001 -- the boundary of one request: the worker and its calls go on
        error = errors.log_internal_error(_log, path.decode("latin-1"), response)
    if not response.started:  # otherwise it is unfinished, and the server cuts the connection
        response.send(*errors.error_response(error))
    del error  # it knows this frame: together they would keep the connection until garbage is looked for


def check_method(request: Request, allowed: Sequence[bytes]) -> None:
    """Raises `Invalid`."""
    if request.method not in allowed:
        raise WrongMethod(*allowed)


def unknown_path(path: bytes, surface: str) -> NotFound:
    """The refusal of a path below that of a surface, such as `/v1/responses`."""
    misplaced = misplaced_path(path, (surface,))
    return misplaced or NotFound(
        "there is no such path", code="path_unknown", hint="See docs/interfaces.md, and OpenAI's API."
    )


def query_of(request: Request) -> Query:
    return parse_qs(request.target.partition(b"?")[2].decode("latin-1"), keep_blank_values=True)


def last_value(query: Query, name: str) -> str | None:
    """The value of a query parameter, the last one of several; None where there is none. Raises `Invalid` for U+0000,
    which nothing that is stored contains."""
    found = query[name][-1] if query.get(name) else None
    if found is not None and "\0" in found:
        raise Invalid(f"{name} has U+0000 in it", code="value_unsupported", hint=f"Send {name} without it.")
    return found


def page_size(query: Query) -> int:
    """The `limit` of a list. Raises `Invalid`."""
    text = last_value(query, "limit") or "20"
    if len(text) > 3 or not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MAX_LISTED:
        raise Invalid(f"limit is from 1 to {MAX_LISTED}", code="limit_range", hint="Leave limit out.")
    return int(text)


def is_newest_first(query: Query, usual: str) -> bool:
    """Whether the `order` of a list is descending; `usual` is its default. Raises `Invalid`."""
    order = last_value(query, "order") or usual
    if order not in ("asc", "desc"):
        raise Invalid("order is asc or desc", code="field_unsupported", hint="Leave order out.")
    return order == "desc"


def page_of(query: Query, items: list[dict[str, Any]], usual: str) -> dict[str, Any]:
    """The requested page of `items`, which are in ascending order.

    An item that a caller sent twice is listed once: paging by ids would never end. Raises `Invalid`, and `NotFound`
    (`item_not_found`) where none of them has the id `after`.
    """
    size, after = page_size(query), last_value(query, "after")
    items = list({each["id"]: each for each in items}.values())
    ordered = items[::-1] if is_newest_first(query, usual) else items
    ids = [each["id"] for each in ordered]
    if after and after not in ids:
        hint = "Use the id of one of its items, such as last_id of a page, or leave after out."
        raise NotFound(f"this list has no item {after[:60]!r}", code="item_not_found", hint=hint)
    start = ids.index(after) + 1 if after else 0
    return page(ordered[start : start + size], more=start + size < len(ordered))


def page(data: list[dict[str, Any]], *, more: bool) -> dict[str, Any]:
    """One page of a list in OpenAI's shape."""
    first, end = (data[0]["id"], data[-1]["id"]) if data else ("", "")
    return {"object": "list", "data": data, "first_id": first, "last_id": end, "has_more": more}
