"""Training evidence for routers: what kept calls of a workload show about models, with their unsealed questions.

Questions are read as a gateway reads them, and are redacted where the kept content is. Nothing is learned here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from hashlib import blake2b
from typing import Any

from psycopg import Connection

from groundplan.api.context import Services
from groundplan.core.audit.subject import SubjectKeys
from groundplan.core.errors import Invalid
from groundplan.economics.experiment.verdict import CANDIDATE
from groundplan.economics.routing.learn import evidence_store
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.routing.conversation import bytes_before_question, message_count
from groundplan.gateway.routing.task import task_of
from groundplan.gateway.surfaces.chat import surface as chat
from groundplan.gateway.surfaces.messages import surface as messages

HISTORY = timedelta(days=92)
MAX_CHARACTERS = 6000
"""Characters of a question from its beginning and from its end; a router reads no more."""
_READERS: dict[str, Callable[[bytes], Ask]] = {
    "chat.completions": chat.read,
    "messages": lambda body: messages.read(body, {}),
}


def training_evidence(services: Services, conn: Connection[Any], workload: str, source: str) -> list[dict[str, Any]]:
    """Evidence from `judges` (compared pairs of answers) or `outcomes` (verdicts in the arms of A/B experiments).
    Raises `Invalid` (`evidence_demo`) if there are only calls of a demo."""
    since = services.clock.now() - HISTORY
    keys = SubjectKeys.of(services.home)
    if source == "judges":
        rows = evidence_store.pairs(conn, workload, since)
        evidence = [_pair(row, ask) for row, ask in _with_questions(conn, keys, rows)]
    else:
        rows = evidence_store.verdicts(conn, workload, since)
        evidence = [_verdict(row, ask) for row, ask in _with_questions(conn, keys, rows)]
    if not evidence and evidence_store.only_demo(conn, workload):
        raise Invalid(
            f"{workload} only has calls of the demo, which say nothing about real questions",
            code="evidence_demo",
            hint="Learn from prompts with known answers (`groundplan routing train SET.jsonl --name NAME`), or from "
            "calls of a HOME without --demo: keep them (`keep: {content: redacted, for: 30 days}`), then `groundplan "
            "experiments replay` judges them.",
        )
    return evidence


def _with_questions(
    conn: Connection[Any], keys: SubjectKeys, rows: Iterable[evidence_store.Row]
) -> Iterator[tuple[evidence_store.Row, Ask]]:
    """Yield rows with their questions, without those that were erased or are empty."""
    prompts: dict[int, str | None] = {}
    for row in rows:
        if row["blueprint"] not in prompts:
            prompts[row["blueprint"]] = evidence_store.prompt(conn, row["workload"], row["blueprint"])
        row["prompt"] = prompts[row["blueprint"]]
        text = keys.unseal(conn, row.pop("sealed"))
        if text is None:
            continue
        body = json.dumps(json.loads(text.partition("\n")[2])["prompt"]).encode()
        try:
            ask = _READERS[row["endpoint"]](body)
        except Invalid:  # redaction may have removed a required part
            continue
        if ask.query.strip():
            yield row, ask


def _pair(row: evidence_store.Row, ask: Ask) -> dict[str, Any]:
    return {
        **_common_fields(row, ask),
        "unit": _conversation_digest(row, ask),
        "shown": row["model"],
        "beside": row["beside"],
        "kept": row["kept"],
        "torn": row["torn"],
        "by": row["by"],
        "accepted": row["accepted"],
        "shown_usd": row["cost_usd"],
        "beside_usd": row["beside_usd"],
    }


def _verdict(row: evidence_store.Row, ask: Ask) -> dict[str, Any]:
    return {
        **_common_fields(row, ask),
        "unit": row["unit"] or _conversation_digest(row, ask),
        "model": row["model"],
        "candidate": row["arm"] == CANDIDATE,
        "share": row["share"],
        "accepted": row["accepted"],
        "cost_usd": row["cost_usd"],
    }


def _common_fields(row: evidence_store.Row, ask: Ask) -> dict[str, Any]:
    query, scores = ask.query, row["scores"]
    if len(query) > 2 * MAX_CHARACTERS:
        query = f"{query[:MAX_CHARACTERS]}\n{query[-MAX_CHARACTERS:]}"
    context = {
        "messages": message_count(ask, row["endpoint"]),
        "before": bytes_before_question(ask, row["endpoint"]),
        "scores": None if scores is None else sorted(scores, reverse=True),
        "task": task_of(row["endpoint"], ask.fields, row["feature"], row["prompt"]),
    }
    return {"id": str(row["id"]), "prompt": query, "context": context}


def _conversation_digest(row: evidence_store.Row, ask: Ask) -> str:
    """A digest of the person and of how the conversation begins, which its later calls share."""
    messages = json.loads(bytes(ask.fields["messages"]))
    first = next((message.get("content") for message in messages if message.get("role") == "user"), "")
    return blake2b(f"{row['person_id']}\0{first}".encode(), digest_size=8).hexdigest()
