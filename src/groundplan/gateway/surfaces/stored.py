"""What the endpoints of stored responses and of stored chat completions have in common: an answer whatever happens, and
the parameters of their lists.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable

import msgspec

from groundplan.core.errors import GroundplanError, Invalid, Unavailable
from groundplan.gateway.http.server import Response
from groundplan.gateway.surfaces import answers

MOST_LISTED = 100
Query = dict[str, list[str]]
_encode = msgspec.json.Encoder().encode
_log = logging.getLogger(__name__)


async def send(response: Response, answer: Awaitable[object]) -> None:
    """Send what an endpoint says, or the error that it raises."""
    try:
        response.send(200, _encode(await answer))
        return
    except GroundplanError as caught:
        error = caught
    except Exception:  # noqa: BLE001 -- the boundary of one request: the worker and its calls go on
        _log.exception("a request to what is stored failed")
        error = Unavailable("the gateway failed", code="internal_error", hint="See HOME/logs.")
    status, data, lines = answers.of_error(error)
    response.send(405 if error.code == "method_not_allowed" else status, data, lines)


def last(query: Query, name: str) -> str | None:
    """The last value that is given for a name. Raises `Invalid` for U+0000, which stands in nothing that is stored."""
    found = query[name][-1] if query.get(name) else None
    if found is not None and "\0" in found:
        raise Invalid(f"{name} has U+0000 in it", code="value_unsupported", hint=f"Send {name} without it.")
    return found


def limit(query: Query) -> int:
    """How many are wanted. Raises `Invalid`."""
    text = last(query, "limit") or "20"
    if len(text) > 3 or not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST_LISTED:
        raise Invalid(f"limit is from 1 to {MOST_LISTED}", code="limit_range", hint="Leave limit out.")
    return int(text)
