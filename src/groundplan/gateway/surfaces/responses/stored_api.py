"""The API of stored responses: `GET` and `DELETE /v1/responses/{id}`, its `input_items`, and `cancel`; also of
responses that are made in the background, as a stream if requested.

Only the key that made a response, and its successors, can see it, acting for the same person; for anybody else it does
not exist.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from groundplan.core.errors import Conflict, Invalid, NotFound
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.http.server import Request
from groundplan.gateway.surfaces import stored_api, unsupported_paths
from groundplan.gateway.surfaces.responses.sealed_store import SealedResponses, StoredResponse
from groundplan.gateway.surfaces.stored_api import EventStream, Query
from groundplan.ledger.stored_owner import Owner

PREFIX = b"/v1/responses/"
_METHODS: dict[str | None, Sequence[bytes]] = {
    None: (b"GET", b"DELETE"), "input_items": (b"GET",), "cancel": (b"POST",),
}  # fmt: skip
_STORED = frozenset({"completed", "incomplete"})
_PATH = re.compile(r"/v1/responses/([A-Za-z0-9_-]{1,200})(?:/(input_items|cancel))?")


def not_found(id: str) -> NotFound:
    return NotFound(
        f"there is no stored response '{id[:80]}'",
        code="response_not_found",
        hint="It may be another key's or another person's, deleted, past its time, or never stored (its answer says "
        "store: false), as where the workload keeps no content. Send the earlier items in input.",
    )


async def answer(gateway: Gateway, path: bytes, request: Request, owner: Owner) -> dict[str, Any] | EventStream:
    """Answer one request: a `stored_api.Answer`."""
    if (refused := unsupported_paths.refusal(path)) is not None:
        raise refused
    found, sealed = _PATH.fullmatch(path.decode("ascii", "replace")), gateway.stored_responses
    if found is None or sealed is None or found[1] == "responses":  # the base URL of a client was that of an endpoint
        raise stored_api.unknown_path(path, "/v1/responses")
    id, part = found[1], found[2]
    stored_api.check_method(request, _METHODS[part])
    if request.method == b"DELETE":
        made = gateway.background_responses is not None and await gateway.background_responses.delete(id, owner)
        if not await sealed.delete(id, owner) and not made:
            raise not_found(id)
        return {"id": id, "object": "response", "deleted": True}
    if part == "cancel":
        return await _cancel(gateway, id, owner)
    stored = await _find(gateway, id, owner)
    query = stored_api.query_of(request)
    _check_include(stored, query)
    if part is None and _is_streamed(query):
        return await _stream(gateway, id, owner, query)
    return stored.response if part is None else stored_api.page_of(query, stored.input, "desc")


async def _find(gateway: Gateway, id: str, owner: Owner) -> StoredResponse:
    """A response that is stored, or is being made. Raises `NotFound`, `Unavailable`."""
    stored = None if gateway.stored_responses is None else await gateway.stored_responses.find(id, owner)
    if stored is None and gateway.background_responses is not None:
        stored = await gateway.background_responses.find(id, owner)
        if stored is not None and stored.response["status"] in _STORED and gateway.stored_responses is not None:
            stored = await gateway.stored_responses.find(id, owner)  # it was finished just now
    if stored is None:
        raise not_found(id)
    return stored


async def _cancel(gateway: Gateway, id: str, owner: Owner) -> dict[str, Any]:
    """Cancel a response in the background; a finished one stays as it is. Raises `Conflict`, `NotFound`."""
    if gateway.background_responses is not None:
        await gateway.background_responses.cancel(id, owner)
    stored = await _find(gateway, id, owner)
    if not stored.response.get("background"):
        raise Conflict(
            "this response is finished already",
            code="response_finished",
            hint="Only work in the background is cancelled.",
        )
    return stored.response


def _is_streamed(query: Query) -> bool:
    return query.get("stream", ["false"])[0] != "false" or "starting_after" in query


async def _stream(gateway: Gateway, id: str, owner: Owner, query: Query) -> EventStream:
    """The events of a response in the background, behind `starting_after`. Raises `Invalid`, `Unavailable`."""
    text = stored_api.last_value(query, "starting_after") or "-1"
    if len(text) > 9 or not text.removeprefix("-").isdecimal() or not text.isascii():
        hint = "Send the sequence_number of the last event that you have."
        raise Invalid("starting_after is no number of an event", code="starting_after", hint=hint)
    background = gateway.background_responses
    found = None if background is None else await background.events(id, owner, int(text))
    if found is None:
        hint = "Leave stream and starting_after out: only what was made in the background has its events kept."
        raise Invalid("this stored response is not streamed", code="field_unsupported", hint=hint)
    return EventStream(*found)


def _check_include(stored: StoredResponse, query: Query) -> None:
    """Raise `Invalid` where `include` names something that is not stored."""
    for name in (*query.get("include", ()), *query.get("include[]", ())):
        if name not in _INCLUDE_CHECKS:
            hint = f"Use one of: {', '.join(sorted(_INCLUDE_CHECKS))}"
            raise Invalid(f"include has an unknown '{name[:80]}'", code="include_unknown", hint=hint)
        if not _INCLUDE_CHECKS[name](stored.response["output"]):
            hint = "It is told only where the request for the response asked for it; leave it out of include."
            raise Invalid(f"{name} is not stored of this response", code="field_unsupported", hint=hint)


def _has_logprobs(output: list[dict[str, Any]]) -> bool:
    parts = [part for each in output if each["type"] == "message" for part in each["content"]]
    return all(part.get("logprobs") for part in parts if part["type"] == "output_text")


def _has_reasoning(output: list[dict[str, Any]]) -> bool:
    return all(each.get("encrypted_content") for each in output if each["type"] == "reasoning")


def _always_stored(output: list[dict[str, Any]]) -> bool:  # noqa: ARG001 -- one of several
    """True: input is stored whole, and no tool of a provider ever runs."""
    return True


_INCLUDE_CHECKS: dict[str, Callable[[list[dict[str, Any]]], bool]] = {
    "code_interpreter_call.outputs": _always_stored,
    "computer_call_output.output.image_url": _always_stored,
    "file_search_call.results": _always_stored,
    "message.input_image.image_url": _always_stored,
    "message.output_text.logprobs": _has_logprobs,
    "reasoning.encrypted_content": _has_reasoning,
    "web_search_call.action.sources": _always_stored,
    "web_search_call.results": _always_stored,
}
"""Values of `include`, each with a check whether a stored output has it."""


async def find_earlier(gateway: Gateway, id: str, owner: Owner) -> StoredResponse:
    """A stored response to continue. Raises `NotFound`, `Unavailable`."""
    sealed: SealedResponses | None = gateway.stored_responses
    stored = None if sealed is None or "\0" in id else await sealed.find(id, owner)  # nothing that is stored has U+0000
    if stored is None:
        raise not_found(id)
    return stored
