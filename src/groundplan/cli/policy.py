"""`groundplan policy`: company rules in Cedar: tested, tried against recorded calls, and exceptions from them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from groundplan.catalog.units import duration_ms
from groundplan.cli.client import ControlClient
from groundplan.cli.command_group import command_group
from groundplan.cli.files import read_argument_text
from groundplan.cli.keys import emit_effective
from groundplan.cli.options import HomeOption, JsonOption, WorkspaceOption, workspace_for
from groundplan.cli.output import emit, table
from groundplan.core.errors import Invalid
from groundplan.governance.policy import cedar_tests

app = command_group("Company rules in Cedar.")
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="ID of the exception, from `exceptions`.")]
ReasonOption = Annotated[str, typer.Option("--reason", "-m", help="Reason, kept in the audit log.")]


@app.command()
def test(
    workspace: WorkspaceOption = None,
    cedar: Annotated[
        Path | None,
        typer.Option("--cedar", help="Run this folder of Cedar tests instead (policies, entities, requests)."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Test the policies of a workspace with the examples beside them, or a folder of Cedar tests, exactly as calls are
    decided. Exits with 1 if a decision differs from what is expected."""
    if cedar is not None:
        _test_folder(cedar, as_json)
    else:
        _test_workspace(workspace_for(workspace), as_json)


def _test_folder(cedar: Path, as_json: bool) -> None:
    outcome = cedar_tests.run_tests(cedar)
    value: dict[str, Any] = {
        "requests": outcome.requests,
        "wrong": len(outcome.wrong),
        "seconds": round(outcome.seconds, 6),
    }
    if outcome.wrong:
        value["failures"] = outcome.wrong[:100]
    if outcome.denied_by_error:
        value["denied_by_error"] = outcome.denied_by_error
    if outcome.invalid:
        value["schema_disagreements"] = outcome.invalid[:100]
    lines = [f"{outcome.requests} requests, {len(outcome.wrong)} not decided as expected"]
    lines += [
        f"  {failure['test']}: request {failure['request']}: expected {failure['expected']}"
        for failure in outcome.wrong[:100]
    ]
    emit(value, as_json, "\n".join(lines))
    if outcome.wrong or outcome.invalid:
        raise typer.Exit(1)


def _test_workspace(root: Path, as_json: bool) -> None:
    from groundplan.catalog.check import validate  # noqa: PLC0415 -- heavy, and not needed for a folder
    from groundplan.governance.policy import declared, examples  # noqa: PLC0415 -- heavy

    results = list(examples.run_examples(validate(root, extra_rules=declared.problems)))
    failures = [result for result in results if not result.is_correct]
    value = {
        "examples": len(results),
        "wrong": len(failures),
        "failures": [
            {"policy": result.policy, "example": result.example, "expected": result.expected, "decided": result.decided,
             "why": result.why, "where": result.where}
            for result in failures
        ],
    }  # fmt: skip
    lines = [f"{len(results)} examples, {len(failures)} not decided as expected"]
    lines += [
        f"  {e.where}: {e.policy}, {e.example}: expected {e.expected}, is {e.decided} ({e.why})" for e in failures
    ]
    emit(value, as_json, "\n".join(lines))
    if failures:
        raise typer.Exit(1)


@app.command()
def shadow(
    name: Annotated[str | None, typer.Argument(metavar="[POLICY]", help="Only this policy.")] = None,
    days: Annotated[float, typer.Option("--days", min=0.01, max=92, help="Days to look back.")] = 1.0,
    draft: Annotated[
        Path | None, typer.Option("--draft", help="Evaluate this Cedar file instead of the policies in force.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show which past calls the policies would have refused."""
    client = ControlClient.connect(home)
    if draft is not None:
        cedar = read_argument_text(draft, code="policy_file", hint="Name a file with Cedar.")
        value = client.post("/api/policies/try", {"cedar": cedar, "days": days})
    else:
        value = client.get("/api/policies/shadow", days=days, policy=name)
    lines: list[str] = []
    for trial in value["trials"]:
        mode = "enforced" if trial["enforced"] else "shadow"
        lines.append(
            f"{trial['policy']} ({mode}) would have refused {trial['would_refuse']} of {trial['looked_at']} calls"
        )
        lines += [f"  error in {count} calls: {error}" for error, count in trial["errors"].items()]
        rows = [[c["at"][:19], c["workload"], c["person"] or "-", c["deployment"], c["call"]] for c in trial["calls"]]
        if rows:
            head = ("at", "workload", "person", "deployment", "call")
            lines += ["  " + line for line in table(head, rows[:20]).splitlines()]
    emit(value, as_json, "\n".join(lines) or "No policy is declared; see docs/policy.md for ready templates.")


@app.command()
def exception(
    rule: Annotated[str, typer.Argument(help="@id of the rule.")],
    workload: Annotated[str, typer.Option("--workload", help="Workload that needs the exception.")],
    reason: ReasonOption,
    lasts: Annotated[str, typer.Option("--for", help="Duration, such as 7d.")] = "7d",
    person: Annotated[str, typer.Option("--person", help="Only for this person (e-mail address).")] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Request an exception from a rule. It takes effect once security and compliance have approved it."""
    try:
        until = datetime.now(UTC) + timedelta(milliseconds=duration_ms(lasts))
    except ValueError as error:
        raise Invalid(f"'{lasts}' is not a time", code="exception_until", hint="Write --for 7d.") from error
    body = {"rule": rule, "workload": workload, "person": person, "until": until.isoformat(), "reason": reason}
    value = ControlClient.connect(home).post("/api/policies/exceptions", body)
    emit(value, as_json, f"exception {value['id']} is requested; it waits for {' and '.join(value['waits_for'])}")


@app.command()
def exceptions(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List exceptions that are requested, in force or past."""
    value = ControlClient.connect(home).get("/api/policies/exceptions")
    rows = [
        [e["id"], e["state"], e["rule"], e["workload"], e["person"] or "everybody", e["until"][:16], e["reason"][:40]]
        for e in value["exceptions"]
    ]
    head = ("id", "state", "rule", "workload", "person", "until", "reason")
    emit(value, as_json, table(head, rows) if rows else "There are no exceptions.")


@app.command()
def approve(id: IdArgument, reason: ReasonOption = "", home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Approve an exception that somebody else asked for. Exits with 69 until every gateway knows it."""
    value = ControlClient.connect(home).post(f"/api/policies/exceptions/{id}/approve", {"reason": reason})
    if value["effective"]:
        emit_effective(f"exception {id} is in force", value, as_json)
        return
    missing = " and ".join(value["waits_for"]) or "more people"
    emit(value, as_json, f"approved; exception {id} still waits for {missing}")


@app.command()
def refuse(id: IdArgument, reason: ReasonOption = "", home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Refuse an exception."""
    value = ControlClient.connect(home).post(f"/api/policies/exceptions/{id}/refuse", {"reason": reason})
    emit(value, as_json, f"exception {id} is refused")


@app.command()
def end(id: IdArgument, home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Withdraw an exception. Exits with 69 until every gateway has acknowledged it."""
    value = ControlClient.connect(home).post(f"/api/policies/exceptions/{id}/end", {"reason": ""})
    emit_effective(f"exception {id} has ended", value, as_json)
