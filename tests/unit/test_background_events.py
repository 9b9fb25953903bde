"""What is taken of a response that nobody waits for: its events by our numbers and id, and what it came to."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from openai.types.responses.response_error import ResponseError

from groundplan.core.ids import new_id
from groundplan.gateway.background import events, follow
from groundplan.gateway.background.events import FIRST, EventLog
from groundplan.gateway.background.progress import BackgroundRun
from groundplan.gateway.background.sealed_store import BackgroundRequest, BackgroundResponse
from groundplan.gateway.http.sse import format_named_event
from groundplan.ledger.background_store import Row


def record_events(events: list[dict[str, Any]], told: list[int] | None = None) -> EventLog:
    found = EventLog("resp_ours", datetime.fromtimestamp(7, UTC), lambda: None if told is None else told.append(1))
    found.start(200, b"")
    stream = b"".join(format_named_event(each["type"], json.dumps(each).encode()) for each in events)
    for at in range(0, len(stream), 11):
        found.write(stream[at : at + 11])
    found.end()
    return found


def delta(text: str, number: int = 0) -> dict[str, Any]:
    return {"type": "response.output_text.delta", "sequence_number": number, "delta": text}


def test_events_are_renumbered_and_have_our_id() -> None:
    theirs = {"id": "resp_theirs", "status": "in_progress", "background": False, "store": False}
    whole = {**theirs, "status": "completed", "output": []}
    facts, told = {"cost_usd": "1"}, list[int]()
    found = record_events(
        [
            {"type": "response.created", "sequence_number": 0, "response": theirs},
            {"type": "response.in_progress", "sequence_number": 0, "response": theirs},
            delta("a"),
            {"type": "response.completed", "sequence_number": 5, "response": whole, "groundplan": facts},
        ],
        told,
    )
    ours = {"id": "resp_ours", "created_at": 7, "background": True, "store": True}
    first = json.loads(found.events[0][1].partition(b"data: ")[2])
    assert first["response"] == theirs | ours and first["sequence_number"] == FIRST
    assert [number for number, _ in found.events] == [FIRST, FIRST + 1] and len(told) == 2
    assert found.last == FIRST + 2, "the last event is told once it is written down what it came to"
    assert json.loads(found.whole) == whole | ours | {"groundplan": facts}
    assert found.failed is None


def test_a_stream_in_one_piece_is_read_like_any_other() -> None:
    found = EventLog("resp_ours", datetime.fromtimestamp(7, UTC), lambda: None)
    found.send(
        200, b"".join(format_named_event(each["type"], json.dumps(each).encode()) for each in (delta("a"), delta("b")))
    )
    assert [number for number, _ in found.events] == [FIRST, FIRST + 1] and found.failed is None
    assert found.first == FIRST
    found.events.clear()
    assert found.first == FIRST + 2, "the next one"


def test_stored_events_of_a_long_answer_are_bounded() -> None:
    text = "x" * 1000
    found = record_events([delta(text) for _ in range(5 * 1024)])
    assert sum(len(event) for _, event in found.events) <= events.MAX_EVENT_BYTES
    assert found.last == FIRST + 5 * 1024 - 1, "they are counted all the same"


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (429, "budget_exhausted", "rate_limit_exceeded"),
        (400, "field_untranslatable", "invalid_prompt"),
        (403, "key_revoked", "invalid_prompt"),
        (502, "upstream_failed", "server_error"),
    ],
)
def test_a_refusal_has_an_error_code_that_clients_know(status: int, code: str, kind: str) -> None:
    found = EventLog("resp_ours", datetime.now(UTC), lambda: None)
    error = {"message": "No.", "type": "x", "param": None, "code": code, "hint": "Why.", "call_id": "c"}
    found.send(status, json.dumps({"error": error}).encode())
    assert found.failed is not None
    told = found.failed.response_fields()
    assert ResponseError.model_validate(told["error"], strict=True).code == kind and told["error"]["message"] == "No."
    assert told["groundplan"] == {"code": code, "hint": "Why.", "call_id": "c"}


@pytest.mark.parametrize("body", [b"", b"nothing", b'{"error":null}', b'{"error":{"message":7}}'])
def test_an_error_without_a_message_is_still_an_error(body: bytes) -> None:
    found = EventLog("resp_ours", datetime.now(UTC), lambda: None)
    found.send(500, body)
    assert found.failed is not None and found.failed.code == "failed" and "500" in found.failed.message
    assert found.failed.type == "server_error"


def test_a_broken_stream_ends_with_an_error_and_keeps_what_arrived() -> None:
    broken = {"type": "error", "sequence_number": 3, "code": "stream_broken", "message": "It broke.", "call_id": "c"}
    found = record_events([delta("a"), broken])
    assert found.failed is not None and (found.failed.code, found.failed.message) == ("stream_broken", "It broke.")
    assert len(found.events) == 1 and not found.whole
    assert record_events([{"type": "response.completed"}]).failed is not None
    said = {"code": "server_error", "message": "It failed."}
    found = record_events([delta("a"), {"type": "response.failed", "response": {"error": said}}, broken])
    assert found.failed is not None and found.failed.message == "It failed.", "what came first"
    assert found.last == FIRST, "whoever follows it is told that once it is written down"
    ended = record_events([delta("a")])
    ended.abort()
    assert ended.failed is not None and ended.failed.code == "stream_broken" and len(ended.events) == 1


class Shelf:
    """What is kept of one that is being made: events up to the number 4."""

    open = True

    async def events_after(self, _: str, number: int, **_said: bool) -> tuple[bool, list[tuple[int, bytes]]]:
        return self.open, [(at, b"kept %d," % at) for at in range(FIRST, 5) if at > number]

    async def find(self, *_: object) -> None:
        return None


@pytest.mark.parametrize("after", [2, 3, 4, 5])
async def test_following_events_are_sent_once_although_some_were_stored_meanwhile(after: int) -> None:
    owner, at = new_id(), datetime.now(UTC)
    run, shelf = BackgroundRun(Row("r", None, "w", owner, owner, "", {}, at, at, "")), Shelf()
    run.log.events, run.log.last = [(5, b"made 5,"), (6, b"made 6,")], 6
    found: Any = BackgroundResponse(run.row, BackgroundRequest("", {}, []), None)
    runs = {"r": run}
    told = follow.events(shelf, None, runs, found, None, after)  # type: ignore[arg-type]
    wanted = b"".join([b"kept 3,", b"kept 4,", b"made 5,", b"made 6,"][after - 2 :])
    heard = b""
    while len(heard) < len(wanted):
        heard += await anext(told)
    shelf.open = False
    runs.clear()
    assert heard == wanted and [each async for each in told] == [], "nobody has it any more"
