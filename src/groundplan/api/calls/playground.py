"""The playground: one question to a workload as the signed-in person, through the gateway like any other call.

A key that lasts a few minutes is created for it and revoked after it, so that the call is admitted, charged, grounded
in what the person may read, and audited as usual. Nothing of the answer is kept here.
"""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import UUID

from groundplan.api import store
from groundplan.api.caller import Caller
from groundplan.api.calls import receipts
from groundplan.api.calls.ask import error_body, post_chat, require_answering
from groundplan.api.context import Services
from groundplan.api.propagation import policy_effect
from groundplan.api.served_blueprint import current_blueprint, require_workload
from groundplan.core.errors import NotFound
from groundplan.identity import service as identity
from groundplan.ledger import queries

KEY_MINUTES = 5
RECEIPT_SECONDS = 3.0
"""How long to wait for the receipt of a question; calls reach the ledger within a second."""


def ask_in_playground(
    services: Services, caller: Caller, workload: str, question: str, max_tokens: int
) -> dict[str, Any]:
    """The answer with its facts, or the refusal with its hint. Raises `NotFound`, `Unavailable`."""
    gateway = services.gateway()
    require_answering(gateway)
    key_id, secret = create_brief_key(services, caller.actor, workload, caller.person)
    try:
        body = {"model": "auto", "messages": [{"role": "user", "content": question}], "max_tokens": max_tokens}
        status, value = post_chat(gateway, secret, body)
    finally:
        with services.transaction() as conn:
            identity.revoke_key(conn, caller.actor, key_id)
    facts, error = value.get("groundplan") or {}, error_body(value)
    call_id = facts.get("call_id") or error.get("call_id")
    return {
        "workload": workload,
        "status": status,
        "answer": _answer_text(value) if status == 200 else None,
        "error": None if status == 200 else {name: error.get(name) for name in ("message", "code", "hint")},
        "call_id": call_id,
        "usage": value.get("usage") or {},
        "facts": facts,
        **_explanation(services, call_id if status == 200 else None),
    }


def create_brief_key(services: Services, actor: str, workload: str, person: UUID | None) -> tuple[UUID, str]:
    """Create a key that expires within minutes; returns (id, secret) once the gateways know it. Raises `NotFound`."""
    expires = services.clock.now() + timedelta(minutes=KEY_MINUTES)
    with services.transaction() as conn:
        require_workload(current_blueprint(conn), workload)
        created = identity.create_key(conn, actor, workload, person, expires=expires)
        number = store.policy_number(conn)
    policy_effect(services, number)
    return created


def _explanation(services: Services, call_id: str | None) -> dict[str, Any]:
    """`{"why", "attempts"}` from the receipt of the call: why it was answered where it was, and after how many
    attempts; null if there is no receipt yet."""
    deadline = time.monotonic() + RECEIPT_SECONDS
    while call_id is not None:
        with suppress(NotFound), services.transaction() as conn:
            receipt = queries.receipt(conn, UUID(call_id))
            return {"why": receipts.why_chosen(conn, receipt), "attempts": len(receipt["attempts"])}
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    return {"why": [], "attempts": None}


def _answer_text(value: dict[str, Any]) -> str:
    choices = value.get("choices") or [{}]
    return str((choices[0].get("message") or {}).get("content") or "")
