"""A ticket system's export: its columns are found, its words understood, and each bad line told with its place."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest

from groundplan.core.errors import Invalid
from groundplan.core.ids import new_id
from groundplan.economics.tickets import Export, TicketChange, event_id, read_tickets, state_of, to_report

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def read(text: str, columns: dict[str, str] | None = None, states: dict[str, str] | None = None) -> Export:
    return read_tickets(text, "export.csv", columns or {}, states or {}, NOW)


def test_an_export_is_read_in_the_order_in_which_things_happened() -> None:
    found = read(
        "Issue key;Status;Updated;Value USD\n"
        "SUP-1;Reopened;2026-11-19T10:00:00+01:00;\n"
        "\n"
        "SUP-1;Done;2026-11-18 08:30;12.50\n"
        '"SUP-2";In Progress;2026-11-18;\n'
    )
    assert not found.refused
    assert found.columns == {"ticket": "Issue key", "status": "Status", "at": "Updated", "value": "Value USD"}
    told = [(row.where.line, row.ticket, row.state, row.value) for row in found.rows]
    assert told == [
        (5, "SUP-2", "open", None), (4, "SUP-1", "resolved", Decimal("12.50")), (2, "SUP-1", "unresolved", None),
    ]  # fmt: skip
    assert found.rows[-1].at == datetime(2026, 11, 19, 9, tzinfo=UTC)
    assert len({(row.ticket, row.event) for row in found.rows}) == 3


@pytest.mark.parametrize(
    "text",
    [
        '[\n {"ticket": "A-1", "status": "solved", "at": "2026-11-01T10:00:00Z", "custom": {"x": 1}},\n'
        ' {"ticket": "A-2", "status": "open", "at": "2026-11-01T10:00:00Z"}]',
        '{"ticket": "A-1", "status": "solved", "at": "2026-11-01T10:00:00Z"}\n'
        '{"ticket": "A-2", "status": "open", "at": "2026-11-01T10:00:00Z"}\n',
    ],
)
def test_json_is_read_as_a_list_and_line_by_line(text: str) -> None:
    found = read(text)
    assert [(row.ticket, row.state) for row in found.rows] == [("A-1", "resolved"), ("A-2", "open")]
    assert found.rows[1].where.line == (3 if text.startswith("[") else 2)
    inside = read(json.dumps({"tickets": [{"ticket": "A-3", "resolved": True, "id": "e1"}]})).rows
    assert [(row.ticket, row.state, row.at, row.event) for row in inside] == [("A-3", "resolved", NOW, "id e1")]


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        (",Done,2026-11-18,1", "ticket_missing", "no ticket and no call"),
        ("a b,Done,2026-11-18,1", "ticket_form", "'a b' is not a ticket number"),
        ("A-1,Erledigt,2026-11-18,1", "ticket_state", "--state 'Erledigt=resolved'"),
        ("A-1,Done,18/Nov/26 2:30 PM,1", "ticket_time", "2026-11-25T14:30:00Z"),
        ("A-1,Done,,1", "ticket_time", "or an id of the change"),
        ("A-1,Done,2026-11-21,1", "ticket_time", "is in the future"),
        ("A-1,Done,2026-11-18,-1", "ticket_value", "at least 0"),
        ("A-1,Done,2026-11-18,NaN", "ticket_value", "at least 0"),
        ("A-1,Done,2026-11-18,1e99", "ticket_value", "at least 0"),
    ],
)
def test_a_bad_line_is_told_with_its_place_and_the_others_are_read(line: str, code: str, said: str) -> None:
    found = read(f"ticket,status,at,value\nA-9,Done,2026-11-18,1\n{line}\n")
    assert [row.ticket for row in found.rows] == ["A-9"]
    (problem,) = found.refused
    assert (problem.code, str(problem.where)) == (code, "export.csv:3:1")
    assert said in f"{problem.message} {problem.hint}"


@pytest.mark.parametrize(
    ("text", "columns", "code"),
    [
        ("", {}, "tickets_empty"),
        ("ticket,status,at\n", {}, "tickets_empty"),
        ("name,status,at\nA,Done,2026-11-18\n", {}, "column_missing"),
        ("ticket,at\nA,2026-11-18\n", {}, "column_missing"),
        ("ticket,status\nA,Done\n", {}, "column_missing"),
        ("ticket,status,at\nA,Done,2026-11-18\n", {"ticket": "nr"}, "column_unknown"),
        ("ticket,status,at\nA,Done,2026-11-18\n", {"colour": "at"}, "column_role"),
        ('[{"ticket": "A"', {}, "tickets_syntax"),
        ("[1, 2]", {}, "tickets_syntax"),
        ('ticket,status,at\nA,Done,2026-11-18\n"B,Done,2026-11-18\nC,Done,2026-11-18\n', {}, "tickets_syntax"),
    ],
)
def test_a_file_that_cannot_be_read_at_all_says_what_to_do(text: str, columns: dict[str, str], code: str) -> None:
    with pytest.raises(Invalid) as refused:
        read(text, columns)
    assert refused.value.code == code and refused.value.hint


def test_a_companys_own_words_and_columns_count_before_ours() -> None:
    found = read(
        "ID,Zustand,Stand,at\n7,Erledigt,2026-11-18,x\n8,Closed,2026-11-18,x\n",
        {"ticket": "id", "status": "Zustand", "at": "Stand"},
        {"erledigt": "resolved", "Closed": "unresolved"},
    )
    assert [(row.ticket, row.state) for row in found.rows] == [("7", "resolved"), ("8", "unresolved")]
    with pytest.raises(Invalid, match="not a state of a ticket"):
        read("ticket,status,at\nA,Done,2026-11-18\n", states={"Done": "great"})
    assert state_of("Waiting for customer", {}) == "open" and state_of("", {}) is None


def said(**more: Any) -> TicketChange:
    given: dict[str, Any] = {
        "ticket": "A-1",
        "accepted": True,
        "status": None,
        "value_usd": None,
        "at": NOW,
        "id": None,
    }
    return TicketChange(**given | more)


def test_what_is_reported_of_one_ticket_is_what_an_export_would_say() -> None:
    told = to_report(said(), "key:1", "support", NOW)
    assert (told.state, told.event, told.workload) == ("resolved", event_id("", "resolved", NOW), "support")
    assert to_report(said(accepted=None, status="Re-opened"), "x", None, NOW).state == "unresolved"
    id = new_id()
    assert to_report(said(id=id, at=None), "x", None, NOW).event == to_report(said(id=id), "x", None, NOW).event
    for wrong in (
        {"accepted": None}, {"status": "done"}, {"accepted": None, "status": "?"}, {"ticket": "a b"},
        {"at": NOW + timedelta(hours=1)},
        {"at": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))},
    ):  # fmt: skip
        with pytest.raises(Invalid):
            to_report(said(**wrong), "x", None, NOW)
