"""POST /api/calls/ID/content: read the stored prompt and answer of a call. Each reading is recorded in the audit
log."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from groundplan.api.access.protected_routes import protected_router
from groundplan.api.caller import SignedIn, require_duty
from groundplan.api.context import ServicesDep
from groundplan.core.audit.store import record
from groundplan.core.audit.subject import SubjectKeys
from groundplan.core.errors import NotFound
from groundplan.ledger import content_store, queries

router = protected_router("ledger")
READERS = frozenset({"engineering", "operations", "security"})
"""Duties, for the workload or the company, that permit reading prompts and answers."""


@router.post("/calls/{call_id}/content")
def read_content(call_id: UUID, services: ServicesDep, caller: SignedIn) -> dict[str, Any]:
    """The `prompt` and `answer` as they were stored. Requires the duty engineering, operations or security.

    Raises `NotFound` (`content_unknown`; `content_erased` if the person's key was destroyed), `Denied`
    (`duty_missing`).
    """
    with services.transaction() as conn:
        subject = f"workload/{queries.receipt(conn, call_id)['workload']}"
        require_duty(caller, READERS, subject)
        stored = content_store.find_content(conn, call_id)
        if stored is None:
            raise NotFound(
                "nothing of this call is kept",
                code="content_unknown",
                hint="A workload keeps prompts and answers only where it says so: keep: {content: redacted}.",
            )
        text = SubjectKeys.of(services.home).unseal(conn, stored.sealed)
        if text is None:
            raise NotFound(
                "the prompt and the answer have been erased with their person",
                code="content_erased",
                hint="The receipt and its proof remain.",
            )
        detail = {"call": str(call_id), "kind": stored.kind}
        record(conn, action="content.read", actor=caller.actor, subject=subject, detail=detail)
    value = json.loads(text.partition("\n")[2])
    return {**stored.facts(), "prompt": value["prompt"], "answer": value["answer"]}
