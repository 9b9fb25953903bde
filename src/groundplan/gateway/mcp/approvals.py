"""Dangerous uses wait for a reviewer's approval, which is good for one use by the same key, for the same person, with
exactly these arguments."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec

from groundplan.core.audit.subject import SubjectKeys
from groundplan.core.errors import Denied, Invalid, Unavailable
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.guard import held_store
from groundplan.gateway.guard.held_store import HeldCall
from groundplan.gateway.mcp import wire
from groundplan.gateway.mcp.use import McpUse

APPROVAL_WAIT = timedelta(hours=1)
"""How long a request for approval stays open."""
MAX_SHOWN = 100_000
"""Most characters of arguments: a person must be able to see everything that is approved."""


async def take_approval(gateway: Gateway, home: Home, use: McpUse) -> None:
    """Use up the approval that was given for exactly this use, else request one. Raises `Denied` (`approval_required`,
    `approval_refused`), `Invalid`, `Unavailable`."""
    desk, key, server = gateway.reviews, use.exchange.key, use.server
    if desk is None or key is None or server is None:
        raise Unavailable("approvals cannot be reached now", code="review_unavailable", hint="Try again.")
    digest = wire.approval_digest(server.name, use.tool, use.arguments)
    if not use.retry:
        raise await _request_approval(gateway, home, use, digest)
    try:
        id = UUID(use.retry)
    except ValueError as error:
        raise Invalid("the retry id is not valid", code="retry_id", hint="Send it as it was given.") from error
    key_ids = [UUID(each) for each in key.line or (key.id,)]  # the caller may have rotated its key since
    person = UUID(use.exchange.person) if use.exchange.person else None  # one key may act for many people
    found = await desk.in_thread(lambda conn: held_store.load_held_tool_call(conn, id, key_ids, person))
    if found is None or found[1] != digest:
        hint = "An approval is for one key and the person it acts for, one tool and exactly these arguments."
        raise Denied("this approval is for something else", code="approval_other", hint=hint)
    state, _, reason, _ = found
    if state == "waiting":
        raise _approval_required(use, id)
    if state != "released" or not await desk.in_thread(lambda conn: held_store.use_approval(conn, id)):
        explanation = f": {reason}" if reason else ""
        raise Denied(
            f"this use of {use.name} is not approved ({state}){explanation}", code="approval_refused",
            hint="Ask again without the retry id, or ask whoever decides.",
        )  # fmt: skip


async def _request_approval(gateway: Gateway, home: Home, use: McpUse, digest: str) -> Denied:
    exchange, desk, server = use.exchange, gateway.reviews, use.server
    key, workload, person = exchange.key, exchange.workload, exchange.person
    if desk is None or key is None or workload is None or server is None:
        raise AssertionError("not identified")
    arguments = msgspec.json.format(msgspec.json.encode(use.arguments), indent=2).decode()
    if len(arguments) > MAX_SHOWN:
        raise Invalid(
            f"{use.name} is dangerous, and nobody could read all that it would be used with",
            code="approval_too_large", hint=f"Use it with less than {MAX_SHOWN} characters.",
        )  # fmt: skip
    id = new_id()

    def store_request(conn: Any) -> None:
        sealed = SubjectKeys.of(home).seal(conn, UUID(person or key.id), arguments)
        held_store.add_held(
            conn,
            HeldCall(
                id, "tool", workload.name, UUID(key.id), UUID(person) if person else None, gateway.epoch,
                use.name, sealed, "", APPROVAL_WAIT, digest=digest,
            ),
        )  # fmt: skip

    await desk.in_thread(store_request)
    return _approval_required(use, id)


def _approval_required(use: McpUse, id: UUID) -> Denied:
    return Denied(
        f"{use.name} is dangerous, so a person must approve this use first",
        code="approval_required",
        hint=f"Call it again with the same arguments and {wire.RETRY_ARGUMENT}={id} once it was approved.",
        details={"retry_id": str(id)},
    )
