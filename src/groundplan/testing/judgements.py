"""What the demo's traffic was answered, and what is said of it: each answer that a model gave anew is judged by the
sheet of its workload, and reported as an outcome of each dimension; the same answer to the same question once a month.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from groundplan.testing.control import exchange
from groundplan.testing.judging import Sheet, judge

MOST_WAITING = 1000
SAID = "outcome_differs"
NOT_ASKED = frozenset({"exact"})
"""Answers from the exact cache were judged when they were first given."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A key of one person for one workload."""

    workload: str
    key: str


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """The answer to a question. `status` 0: none in time. `facts`: the `groundplan` object of the response. `refused`:
    the id of the call if a reviewer refused its answer."""

    status: int
    text: str = ""
    facts: Mapping[str, Any] | None = None
    refused: str | None = None


def parse_answer(status: int, data: bytes) -> ChatAnswer:
    """Parse the body of a response, a stream or an error."""
    stream = not data.startswith(b"{")
    events = [json.loads(line[6:]) for line in data.splitlines() if line.startswith(b"data: {")] if stream else []
    told = events if stream else [json.loads(data)]
    error = next((each["error"] for each in told if "error" in each), None)
    if error is not None:
        return ChatAnswer(status, refused=error.get("call_id") if error.get("code") == "review_refused" else None)
    facts = next((each["groundplan"] for each in told if "groundplan" in each), None)
    said = [each.get("delta") or each.get("message") or {} for event in told for each in event.get("choices", ())]
    return ChatAnswer(status, "".join(each.get("content") or "" for each in said), facts)


class Judgements:
    """Judges answers and reports the outcomes to the gateway, with the caller's key, once the call is in the ledger."""

    def __init__(self, gateway: int, sheets: Mapping[str, Sheet]) -> None:
        self._gateway, self._sheets = gateway, sheets
        self._known: set[tuple[str, str, str]] = set()
        self._waiting: deque[tuple[str, dict[str, Any]]] = deque(maxlen=MOST_WAITING)

    def take(self, caller: Caller, question: str, answer: ChatAnswer) -> None:
        """Judge an answer, unless its question is not on the sheet or was not answered. Where a reviewer refused the
        answer, only facts are judged, since reviewers refuse for missing facts."""
        sheet, facts = self._sheets.get(caller.workload), answer.facts or {}
        call = answer.refused or facts.get("call_id")
        seen = (caller.workload, question, answer.text)
        if sheet is None or call is None or facts.get("cache") in NOT_ASKED or seen in self._known:
            return
        self._known.add(seen)
        passages = [str(each.get("text", "")) for each in facts.get("sources") or ()]
        said = judge(sheet, question, answer.text, passages)
        if answer.refused is not None:
            said = {name: accepted for name, accepted in said.items() if sheet.judged[name] == "facts"}
        outcomes = [{"accepted": accepted, "label": name} for name, accepted in said.items()]
        outcomes += [{"accepted": all(said.values())}] if said else []  # the newest word is that of the whole answer
        for each in outcomes:
            id = uuid5(NAMESPACE_OID, f"{datetime.now(UTC):%Y-%m} {seen} {each.get('label')}")
            self._waiting.append((caller.key, {"call_id": call, "id": str(id), **each}))

    def send(self) -> None:
        """Report the waiting outcomes. One whose call is not in the ledger yet stays queued. An outcome that was
        reported before a restart has the same id, and is dropped if it was for another call."""
        for _ in range(len(self._waiting)):
            key, told = self._waiting.popleft()
            try:
                exchange(self._gateway, "POST", "/api/outcomes", key, told)
            except ValueError as error:
                if SAID not in str(error):
                    self._waiting.append((key, told))
                    return
