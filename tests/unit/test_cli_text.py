"""What commands print for people, from the API's answers."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from groundplan.api.calls.ask import gateway_error
from groundplan.catalog.imports.verdict import Finding
from groundplan.cli import controls as cli_controls
from groundplan.cli import cost_ahead, imports, people
from groundplan.cli.calls import calls_text
from groundplan.cli.changes import field_lines
from groundplan.cli.client import ControlClient
from groundplan.cli.cost import budgets_text, limits_text
from groundplan.cli.keys import effective_text
from groundplan.cli.output import emit, note, parse_problem, print_error, table, usd
from groundplan.cli.release import applied_text, plan_text, workspace_files
from groundplan.cli.status import status_text
from groundplan.cli.tail import format_call
from groundplan.cli.tour import passage_lines
from groundplan.cli.why import outline
from groundplan.core.error_shape import error_json, problem_json
from groundplan.core.errors import Invalid, Problem, Unavailable, Where

PLAN: dict[str, Any] = {
    "differences": [
        {"type": "added", "subject": "workload/new", "fields": [{"field": "purpose", "old": None, "new": "x"}]},
        {"type": "changed", "subject": "budget/b", "fields": [{"field": "limit", "old": "2 USD", "new": "3 USD"}]},
        {"type": "removed", "subject": "site/old", "fields": []},
    ],
    "placements": [
        {
            "workload": "new", "primary": "eu", "fallbacks": ["rack"], "binding": "cheapest of 2 allowed",
            "alternatives": [
                {"deployment": "eu", "site": "cloud", "allowed": True, "reasons": [], "monthly_usd": "38.880000000000"},
                {"deployment": "rack", "site": "here", "allowed": True, "reasons": [], "monthly_usd": None},
                {"deployment": "us", "site": "far", "allowed": False, "reasons": ["outside EU"], "monthly_usd": "1.5"},
            ],
        },
        {"workload": "same", "primary": None, "fallbacks": [], "binding": "none", "alternatives": []},
    ],
    "needs": [{"subject": "workload/new", "duty": "security"}],
    "pending": [{"subject": "workload/new", "needs": [{"subject": "workload/new", "duty": "security"}]}],
    "refusals": [{"message": "no", "code": "outside_residency", "hint": "Move it.", "where": "a.yaml:3:1"}],
}  # fmt: skip


def test_a_plan_shows_signs_prices_approvals_and_refusals() -> None:
    text = plan_text(PLAN)
    assert "+ workload/new (not served before it is approved)" in text
    assert "~ budget/b\n    limit: 2 USD -> 3 USD" in text
    assert "- site/old" in text
    assert "! workload/new waits for: security" in text
    assert "> primary" in text and "- fallback" in text and "$38.88/month" in text and "outside EU" in text
    assert "a.yaml:3:1: no" in text and "[outside_residency]" in text and "Move it." in text
    assert "same" not in text and "same" in plan_text(PLAN, all_workloads=True)


def test_what_a_change_lacks_stands_below_it_and_who_decides_is_said_once() -> None:
    missing = [{"message": f"nobody has approved model/{name}", "code": "approval_missing", "hint": "Security decides."}
               for name in ("one", "two")]  # fmt: skip
    text = plan_text({**PLAN, "pending": [{**PLAN["pending"][0], "missing": missing}]})
    told = text[text.index("! workload/new") :].splitlines()[:4]
    assert told[0] == "! workload/new waits for: security"
    assert "model/one" in told[1] and "model/two" in told[2] and told[3] == "    Security decides."
    assert text.count("refused: ") == 1, "only what is refused now is called so"


def test_of_what_is_new_its_fields_are_told_of_what_changes_what_they_were() -> None:
    new, changed = {"field": "stage", "old": None, "new": "pilot"}, {"field": "team", "old": "hr", "new": None}
    assert field_lines([new]) == ["    stage: pilot"]
    assert field_lines([new, changed]) == ["    stage: pilot (new)", "    team: hr (removed)"]


def test_of_thousands_of_workloads_those_are_shown_in_which_most_is_open(capsys: pytest.CaptureFixture[str]) -> None:
    def counts(number: int) -> dict[str, int]:
        return {"satisfied": 10 - number % 10, "open": number % 10, "expired": 0, "excluded": 0, "apply": 10}

    coverage = {f"w{number}": counts(number) for number in range(2000)}
    cli_controls._overview({"frameworks": [{"name": "house", "coverage": coverage}]}, None, as_json=False)
    text = capsys.readouterr().out
    assert text.count("1 of 10") == 40 and "1,960 more workloads" in text
    cli_controls._overview({"frameworks": [{"name": "house", "coverage": coverage}]}, "w7", as_json=False)
    assert [line.split()[1:3] for line in capsys.readouterr().out.splitlines()[1:]] == [["w7", "3"]]
    one = {"id": "H1", "title": "Tried", "workloads": {name: {"state": "open", "shown": []} for name in coverage}}
    cli_controls._framework_text({"workloads": list(coverage), "controls": [one]}, None, as_json=False)
    assert max(map(len, capsys.readouterr().out.splitlines())) < 120
    reviewed = {"title": "House", "coverage": coverage, "gaps": [], "more_gaps": 9000, "drift": [], "more_drift": 3}
    text = cli_controls._review_text({"since": "2026-11-01", "frameworks": [reviewed], "actions": []})
    assert "  w1009: 1 of 10 satisfied, 9 open" in text and "3 more controls" in text and len(text.splitlines()) < 60


def test_status_names_some_of_hundreds_of_changes_that_wait() -> None:
    pending = [{"change": f"c{n}", "waits_for": []} for n in range(500)]
    value = {"company": "acme", "blueprint": 1, "postgres": "embedded", "gateways": [], "pending": pending}
    text = status_text({**value, "difference": [], "findings": 0})
    assert text.count("change c") == 20 and "480 more changes wait: `groundplan changes list`" in text


def test_of_thousands_of_teams_each_has_a_line() -> None:
    one = {"cost_center": None, "from": "2026-11-01", "to": "2026-11-30", "over": False, "charged": False,
           "previous_usd": "1"}  # fmt: skip
    told = cost_ahead._teams_table([{**one, "team": f"t{number}", "total_usd": str(number)} for number in range(2000)])
    assert len(told.splitlines()) == 2003 and told.splitlines()[2].split()[:3] == ["t1999", "-", "$1,999.00"]


def test_what_an_import_says_of_thousands_of_models_is_said_of_the_first() -> None:
    found = [
        Finding("no_owner", f"m{n}", "a proposal", f"Say --owner m{n}=E-MAIL.", Where("a", n)) for n in range(3000)
    ]
    found += [Finding("needed", f"site s{n}", "whose law", "Write it.", Where("a", n)) for n in range(30)]
    lines = imports._lines(found)
    assert len(lines) == 2 * 20 + 1 + 2 * 30 and lines[40] == "    and 2,980 more like these (--json lists them)"


def test_a_cell_of_thousands_of_names_fills_no_other_row_up() -> None:
    rows = [("provider", ", ".join(f"w{number}" for number in range(2000)), "terms"), *[("model", "w1", "-")] * 100]
    assert len(table(("kind", "used by", "missing"), rows)) < 60_000


def test_nothing_to_do() -> None:
    nothing: dict[str, Any] = {"differences": [], "placements": [], "needs": [], "pending": [], "refusals": []}
    assert plan_text(nothing) == "nothing would change"
    assert applied_text({"blueprint": None, "pending": []}).startswith("nothing changes")


def test_for_whom_a_change_waits() -> None:
    needs = [{"subject": "workload/a", "duty": "business"}, {"subject": "workload/a", "duty": "data"}]
    told = applied_text({"blueprint": 2, "pending": [{"change": "c1", "waits_for": needs}]})
    assert told == "blueprint 2 is served\nchange c1 waits for: business, data of workload/a"


def test_a_rollback_says_to_what_it_went_back() -> None:
    told = applied_text({"blueprint": 3, "rollback_of": 1, "pending": []})
    assert told == "blueprint 3 is served, with the content of blueprint 1"


def test_a_list_of_calls_says_who_made_them_and_why_one_was_refused() -> None:
    call = {
        "at": "2026-12-02T19:22:59.100+00:00", "workload": "w", "person": "ana@acme.example", "key_id": "k1",
        "status": "refused", "error_code": "rate_limit_exceeded", "deployment": None, "tool": None,
        "prompt_tokens": 5, "completion_tokens": 0, "cost_usd": "0.000002550000", "id": "c1",
    }  # fmt: skip
    head, row = calls_text({"calls": [call]}).splitlines()
    assert head.split() == ["at", "workload", "person", "key", "status", "deployment", "tokens", "cost", "call"]
    words = "2026-12-02T19:22:59Z w ana@acme.example k1 refused rate_limit_exceeded - 5+0 $0.00000255 c1"
    assert " ".join(row.split()) == words
    assert calls_text({"calls": []}) == "There is no call."


def test_status_without_anything() -> None:
    text = status_text(
        {"company": None, "blueprint": None, "postgres": "embedded", "gateways": [], "pending": [], "difference": [],
         "findings": 0, "kills": [], "problems": ["the audit log is not written: why"]}
    )  # fmt: skip
    assert "no company yet" in text and "no gateway is connected" in text
    assert "NOT WELL: the audit log is not written: why" in text


def test_status_names_deployments_that_do_not_answer_once() -> None:
    gateway = {
        "pid": 1,
        "blueprint": 1,
        "ready": True,
        "journal_lag": 0,
        "health": {"main": "open: 8 failures in a row"},
    }
    other = gateway | {"pid": 2, "health": {"main": "half_open: 9 failures in a row"}}
    text = status_text(
        {"company": "acme", "blueprint": 1, "postgres": "embedded", "gateways": [gateway, other],
         "pending": [], "difference": [], "findings": 0, "kills": []}
    )  # fmt: skip
    told = [line for line in text.splitlines() if "main" in line]
    assert told == ["deployment main: breaker open: 8 failures in a row, at 2 of 2 workers"]
    assert "no deployment's breaker is open" not in text


def test_status_says_that_every_deployment_is_well_and_what_is_not_in_the_ledger_yet() -> None:
    gateway = {"pid": 7, "blueprint": 3, "ready": True, "journal_lag": 1572, "health": {}}
    text = status_text(
        {"company": "acme", "blueprint": 3, "postgres": "embedded", "gateways": [gateway], "pending": [],
         "difference": [], "findings": 0, "kills": []}
    )  # fmt: skip
    assert "7        3          yes    1,572 bytes" in text and "no deployment's breaker is open" in text


def test_a_call_that_failed_is_told_with_its_id() -> None:
    told = {"message": "nobody could answer", "code": "upstream_failed", "hint": "Try again.", "call_id": "01a2"}
    error = gateway_error(503, {"error": told})
    assert (error.message, error.hint) == ("nobody could answer", "Try again. This was call 01a2.")
    assert gateway_error(429, {"error": {"code": "rate_limit_exceeded"}}).hint == ""


def test_what_is_stopped_everywhere_and_what_is_not() -> None:
    assert "effective at every gateway" in effective_text("x", {"complete": True, "waiting": []})
    waiting = effective_text("x", {"complete": False, "waiting": [{"epoch": "e1", "until": "12:00"}]})
    assert "e1" in waiting and "12:00" in waiting


def test_the_best_passage_is_quoted_with_its_place() -> None:
    source = {"source": "handbook", "path": "leave.md", "start_line": 6, "end_line": 9, "text": "120 days\nfor each"}
    lines = passage_lines({"sources": [source]}, {"handbook": "docs/handbook/"})
    assert "  from docs/handbook/leave.md, lines 6-9:" in lines and "  | 120 days" in lines and "  | for each" in lines
    assert passage_lines({}, {}) == ["  (no passage was found)"]


def test_nothing_is_asked_for_that_could_not_be_kept(tmp_path: Path) -> None:
    (tmp_path / "room.zip").touch()
    with socket.create_server(("127.0.0.1", 0)) as asked:
        asked.settimeout(0.0)
        client = ControlClient(f"http://127.0.0.1:{asked.getsockname()[1]}", "token", 0.2)
        with pytest.raises(Invalid, match="cannot be written: File exists") as told:
            client.save("/api/exports/room", tmp_path / "room.zip")
        assert told.value.code == "file_unwritable"
        with pytest.raises(BlockingIOError):
            asked.accept()


def test_an_api_that_never_answers_is_told_after_its_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = ControlClient(f"http://127.0.0.1:{silent.getsockname()[1]}", "token", 0.2)
        with pytest.raises(Unavailable, match="gives no answer within 0") as told:
            client.get("/api/status")
    assert "groundplan doctor" in told.value.hint


@given(st.lists(st.lists(st.text("abcä€ ", max_size=12), min_size=3, max_size=3), max_size=6))
def test_columns_line_up(rows: list[list[str]]) -> None:
    lines = table(("one", "two", "three"), rows).split("\n")
    assert len(lines) == len(rows) + 1
    assert all(line == line.rstrip() for line in lines)


def test_without_rows_a_table_says_what_there_is_to_say() -> None:
    assert table(("one",), [], "There is none.") == "There is none."
    assert table(("one",), []) == "one" and table(("one",), [("1",)], "There is none.") == "one\n1"


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        ("0.003591300000", "$0.0035913"),
        ("0.000000000000", "$0.00"),
        ("1270.000000000000", "$1,270.00"),
        ("-0.001122390000", "-$0.00112239"),
        ("0.000000000001", "$0.000000000001"),
        (None, "-"),
    ],
)
def test_amounts_are_exact_and_short(amount: str | None, shown: str) -> None:
    assert usd(amount) == shown


@given(
    st.builds(
        Problem,
        st.text(),
        st.text(),
        st.text(),
        st.none() | st.builds(Where, st.just("a/b.yaml"), st.integers(1, 9999)),
    )
)
def test_problems_survive_the_api(problem: Problem) -> None:
    assert parse_problem(json.loads(json.dumps(problem_json(problem)))) == problem


def test_an_error_is_told_with_all_its_problems(capsys: pytest.CaptureFixture[str]) -> None:
    problem = Problem("unknown owner", "unknown_person", "Did you mean ana?", Where("a.yaml", 3, 7))
    error = Invalid("2 problems", hint="Mend them.", code="workspace", problems=(problem,))
    print_error(error, as_json=False)
    told = capsys.readouterr()
    assert told.out == "" and "a.yaml:3:7: unknown owner [unknown_person]" in told.err and "Mend them." in told.err
    print_error(error, as_json=True)
    assert json.loads(capsys.readouterr().out) == error_json(error)


def test_only_the_yaml_of_a_workspace_is_sent(tmp_path: Path) -> None:
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "docs").mkdir()
    for name in ("a.yaml", "docs/b.yml", ".hidden/c.yaml", "docs/d.md"):
        (tmp_path / name).write_text("kind: x")
    assert sorted(workspace_files(tmp_path)) == ["a.yaml", "docs/b.yml"]
    (tmp_path / "bad.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(Invalid, match=r"bad\.yaml"):
        workspace_files(tmp_path)
    with pytest.raises(Invalid, match="no YAML"):
        workspace_files(tmp_path / ".hidden" / "none")


def test_facts_as_an_outline() -> None:
    assert outline({"a": 1, "b": {"c": None}, "d": [{"e": 2}], "f": []}) == "a: 1\nb:\n  c: -\nd:\n  - e: 2\nf: -"


def test_no_name_commands_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A document may be called anything, and whoever lists it is somebody else."""
    names = ("a\x1b[31m.md", "b\x1b]52;c;ZWNobw==\x07.md", "c\nd.md", "e\u202egpj.md", "f\x9b2J.md", "g\t\u2066.md")
    rows = table(("document",), [(name,) for name in names]).splitlines()
    assert len(rows) == 1 + len(names)
    emit(None, False, "\n".join([*rows, typer.style("refused", fg="red"), names[1]]))
    note(names[0].replace("31", "8"))
    print_error(Invalid(f"no {names[1]}", code="unknown", hint=names[4]), as_json=False)
    told = capsys.readouterr()
    for each in (told.out, told.err):
        assert not re.search(r"[\x07\x9b]|\x1b(?!\[(?:31|0)m)|\u202e", each)
    assert "c\\nd.md" in told.out and "e\\u202egpj.md" in told.out


def test_limits_that_are_not_shown_are_counted() -> None:
    row = {
        "limit": "each",
        "who": "ana",
        "counts": "requests",
        "per": "day",
        "taken": 1,
        "most": 9,
        "near": False,
        "frees_at": None,
    }
    text = limits_text([row] * 45)
    assert text.count("ana") == 40 and text.endswith("\n5 more rows with --json, none nearer to its end")
    assert "more row" not in limits_text([row] * 40)
    money = {**row, "counts": "cost", "taken": "0.011050000000", "most": "1200.000000000000", "per": "now"}
    assert limits_text([money]).splitlines()[1].split()[-6:] == ["$0.01105", "$1,200.00", "when", "a", "call", "ends"]


def test_what_a_person_holds_is_told_in_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    held = {"person": "ana@acme.example", "duties": [], "keys": [{"id": "01a2", "workload": "assistant"}],
            "keys_made": [{"id": "01a3", "workload": "b"}, {"id": "01a4", "workload": "b"}], "sessions": 1,
            "passkeys": [{"label": "laptop", "confirmed": True}, {"label": "phone", "confirmed": False}]}  # fmt: skip
    asked: Any = type("Asked", (), {"get": lambda *_: held})()
    monkeypatch.setattr(ControlClient, "connect", lambda *_: asked)
    people.holdings("ana@acme.example")
    rows = [re.split(r"  +", line.strip(), maxsplit=1) for line in capsys.readouterr().out.splitlines()[1:]]
    assert dict(rows) == {
        "duties": "-", "keys": "01a2 of assistant", "keys made": "01a3 of b, 01a4 of b", "open sessions": "1",
        "passkeys": "laptop, phone (not confirmed)",
    }  # fmt: skip


def test_how_far_budgets_are_used_is_told_with_those_first_that_end_soonest() -> None:
    row = {"budget": "care", "title": "care", "covers": "team/care", "period": "2026-11", "hard": True, "near": True,
           "limit_usd": "20.000000000000", "spent_usd": "17.000000000000", "share": 0.85}  # fmt: skip
    soft = {**row, "title": "lab", "covers": "workload/lab", "period": "total", "hard": False, "near": False,
            "spent_usd": "0.000000000000", "share": 0.0}  # fmt: skip
    head, first, second = budgets_text([row, soft]).splitlines()
    assert head.split() == ["budget", "covers", "period", "spent", "of", "used"]
    assert first.split("  ")[-1].strip() == "85% (near)" and "November 2026" in first and "$17.00" in first
    assert second.startswith("lab (soft)") and second.rstrip().endswith("0%")
    assert budgets_text([{**soft, "near": True, "share": 1.2}]).endswith("120% (crossed)"), "as the console says"
    assert budgets_text([row] * 42).endswith("\n2 more rows with --json, none nearer to its end")


def test_a_name_that_a_caller_made_up_takes_no_line_and_no_colour_in_a_tail() -> None:
    """The name of a tool that does not exist is in the ledger as its caller sent it."""
    call = {
        "at": "2026-11-25T12:00:00.000+00:00", "status": "refused", "error_code": "tool_unknown", "cache": "none",
        "workload": "assistant", "deployment": None, "tool": "\x1b[2J\n12:00:00Z  ok\x1b[31m", "prompt_tokens": 0,
        "completion_tokens": 0, "cost_usd": "0", "duration_ms": 1.2, "id": "x",
    }  # fmt: skip
    line = format_call(call)
    assert line.isprintable() and r"\x1b[2J\n12:00:00Z  ok\x1b[31m" in line
