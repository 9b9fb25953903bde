"""`groundplan controls`, `evidence`, `management`: frameworks with their controls, evidence, and management reviews."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.command_group import command_group
from groundplan.cli.option_groups import grouped
from groundplan.cli.options import HomeOption, JsonOption, WorkloadOption
from groundplan.cli.output import emit, table
from groundplan.core.errors import Invalid
from groundplan.core.words import quantity

evidence = command_group("Evidence for controls: list, add, withdraw, collect.")
management = command_group("Management review and corrective actions.")
NOTHING_SHOWN = (
    "There is no evidence. `groundplan evidence collect` assesses the facts, `evidence add` adds what they cannot show."
)
SubjectOption = Annotated[
    str | None, typer.Option("--workload", help="Workload it applies to. Default: the whole company.")
]
ROWS_SHOWN, COLUMNS_SHOWN = 40, 8
"""The most workloads that are shown as rows, and as columns."""
MARKS = {"satisfied": "ok", "open": "open", "expired": "expired", "excluded": "-"}


def controls(
    framework: Annotated[
        str | None, typer.Argument(help="Show one framework control by control, or `checks` to list all checks.")
    ] = None,
    workload: WorkloadOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how far each workload meets the frameworks in force."""
    client = ControlClient.connect(home)
    if framework is None:
        _overview(client.get("/api/frameworks"), workload, as_json)
    elif framework == "checks":
        value = client.get("/api/checks")
        rows = [
            (c["name"], c["title"], "facts" if c["by_facts"] else "people", f"{c['days']} days")
            for c in value["checks"]
        ]
        emit(value, as_json, table(("check", "what", "shown by", "holds"), rows))
    else:
        query = {} if workload is None else {"search": workload}
        _framework_text(client.get(f"/api/frameworks/{quote(framework, safe='')}", **query), workload, as_json)


def _overview(value: Any, workload: str | None, as_json: bool) -> None:
    rows: list[tuple[Any, ...]] = []
    hidden = 0
    for framework in value["frameworks"]:
        framework["coverage"] = {n: counts for n, counts in framework["coverage"].items() if workload in (None, n)}
        shown, omitted = least_covered(framework["coverage"])
        rows += [
            (
                framework["name"],
                name,
                f"{counts['satisfied']} of {counts['apply']}",
                counts["expired"],
                counts["excluded"],
            )
            for name, counts in shown
        ]
        hidden = max(hidden, omitted)
    text = table(("framework", "workload", "satisfied", "expired", "excluded"), rows)
    text += f"\n{hidden_workloads_text(hidden)}" if hidden else ""
    empty = "No framework is declared. Add a document with kind: framework, such as name: nist-ai-rmf."
    emit(value, as_json, text if rows else empty)


def least_covered(coverage: dict[str, dict[str, int]]) -> tuple[list[tuple[str, dict[str, int]]], int]:
    """((workload, counts) by name, number of others); if there are more than fit a screen, those with most open
    controls."""
    if len(coverage) <= ROWS_SHOWN:
        return list(coverage.items()), 0
    by_open_controls = sorted(coverage.items(), key=lambda item: (-item[1]["open"] - item[1]["expired"], item[0]))
    return by_open_controls[:ROWS_SHOWN], len(by_open_controls) - ROWS_SHOWN


def hidden_workloads_text(workloads: int) -> str:
    """How many workloads are not shown, and how to see them."""
    return f"{quantity(workloads, 'more workload')} with --json, none with more open controls; --workload shows one"


def _framework_text(value: Any, workload: str | None, as_json: bool) -> None:
    names = [name for name in value["workloads"] if workload in (None, name)]
    if len(names) > COLUMNS_SHOWN:
        emit(value, as_json, _summary_table(value))
        return
    rows: list[tuple[str, ...]] = []
    for control in value["controls"]:
        states = [control["workloads"][name] for name in names]
        missing = next((s["hint"] for status in states for s in status["shown"] if s["hint"]), "")
        rows.append((control["id"], control["title"], *(MARKS[status["state"]] for status in states), missing))
    emit(value, as_json, table(("control", "what", *names, "next"), rows))


def _summary_table(value: Any) -> str:
    """A table for more workloads than fit side by side: for each control the number of workloads in each state."""
    rows = []
    for control in value["controls"]:
        states = Counter(status["state"] for status in control["workloads"].values())
        open_ = next((name for name, status in control["workloads"].items() if status["state"] == "open"), "-")
        rows.append((control["id"], control["title"], *(states[state] for state in MARKS), open_))
    table_ = table(("control", "what", *MARKS, "open in, as one"), rows)
    return f"{table_}\nof {quantity(len(value['workloads']), 'workload')}; --workload shows one, with what to do next"


@evidence.command("list")
def list_(
    workload: Annotated[str | None, typer.Option("--workload", help="Only evidence for this workload.")] = None,
    what: Annotated[str, typer.Option("--what", help="Only evidence for this check, or for FRAMEWORK/CONTROL.")] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List evidence, newest first."""
    subject = f"workload/{workload}" if workload else ""
    value = ControlClient.connect(home).get("/api/evidence", subject=subject, what=what)
    rows = [
        (e["id"], e["what"], e["subject"], _holds(e), e["valid_until"][:10], e["says"])
        for e in value["evidence"]
        if not e["withdrawn_at"]
    ]
    emit(value, as_json, table(("id", "what", "of", "holds", "until", "says"), rows, NOTHING_SHOWN))


def _holds(row: dict[str, Any]) -> str:
    if row["approval"] not in (None, "applied"):
        return f"approval {row['approval']}"
    return "no" if not row["holds"] else "expired" if row["expired"] else "yes"


@dataclass(frozen=True, slots=True)
class EvidenceOptions:
    """Options of evidence: its kind, file, link and validity."""

    type: Annotated[str, typer.Option("--type", help="Kind of evidence: document, review, drill or test.")] = "document"
    file: Annotated[
        Path | None, typer.Option("--file", help="File whose SHA-256 is recorded; the file itself is not stored.")
    ] = None
    link: Annotated[str | None, typer.Option("--link", help="HTTPS address of the evidence.")] = None
    days: Annotated[int, typer.Option("--days", min=1, help="Days the evidence stays valid.")] = 180

    def body(self) -> dict[str, Any]:
        return {"type": self.type, "days": self.days, "link": self.link, "sha256": _digest(self.file)}


@evidence.command()
@grouped
def add(
    what: Annotated[str, typer.Argument(help="FRAMEWORK/CONTROL, or a check that is met by hand.")],
    says: Annotated[str, typer.Option("--says", "-m", help="What the evidence shows, in one sentence.")],
    shown: EvidenceOptions,
    workload: SubjectOption = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add evidence for what cannot be collected from facts."""
    body = {"what": what, "says": says, "workload": workload, **shown.body()}
    value = ControlClient.connect(home).post("/api/evidence", body)
    waits = f" once change {value['change']} is approved" if value["change"] else ""
    emit(value, as_json, f"{value['what']} of {value['subject']} is valid until {value['valid_until'][:10]}{waits}.")


@evidence.command()
def withdraw(
    evidence_id: Annotated[str, typer.Argument(metavar="ID", help="ID of the evidence, from `list`.")],
    reason: Annotated[str, typer.Option("--reason", "-m", help="Why the evidence no longer counts.")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Withdraw evidence, so that it no longer counts."""
    value = ControlClient.connect(home).post(
        f"/api/evidence/{quote(evidence_id, safe='')}/withdraw", {"reason": reason}
    )
    emit(value, as_json, f"{evidence_id} no longer counts.")


@evidence.command()
def collect(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Assess the facts now instead of within ten minutes."""
    value = ControlClient.connect(home).post("/api/evidence/collect")
    emit(value, as_json, f"{value['added']} new, {value['kept']} as before.")


@management.command("review")
def review_(
    since: Annotated[
        str | None,
        typer.Option("--since", help="First day, such as 2026-10-01. Default: since the last review, else 90 days."),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a management review needs: coverage, changes since the last review, gaps, corrective actions."""
    query: dict[str, Any] = {} if since is None else {"since": since}
    query |= {} if as_json else {"limit": ROWS_SHOWN}
    value = ControlClient.connect(home).get("/api/management-review", **query)
    emit(value, as_json, _review_text(value))


def _review_text(value: dict[str, Any]) -> str:
    lines = [f"Since {value['since'][:10]}"]
    for framework in value["frameworks"]:
        lines += ["", typer.style(framework["title"], bold=True)]
        shown, hidden = least_covered(framework["coverage"])
        for name, counts in shown:
            open_ = counts["open"] + counts["expired"]
            lines.append(f"  {name}: {counts['satisfied']} of {counts['apply']} satisfied, {open_} open")
        lines += [f"  {hidden_workloads_text(hidden)}"] if hidden else []
        for change in framework["drift"]:
            lines.append(f"  {change['control']} of {change['workload']}: {change['before']} -> {change['now']}")
        if more := framework.get("more_drift", 0):
            lines.append(f"  {quantity(more, 'more control')} whose state has changed, with --json")
    rows = [
        (
            action["id"],
            action["message"],
            action["owner"] or "-",
            action["due"],
            "done" if action["closed_at"] else "open",
        )
        for action in value["actions"]
    ]
    lines += ["", table(("action", "what", "owner", "due", "is"), rows) if rows else "No corrective action."]
    return "\n".join(lines)


@management.command("act")
def act(
    says: Annotated[str, typer.Argument(help="What has to be corrected.")],
    owner: Annotated[str, typer.Option("--owner", help="E-mail address of the person responsible.")],
    due: Annotated[str, typer.Option("--due", help="Due date, such as 2026-12-31.")],
    workload: SubjectOption = None,
    control: Annotated[
        str, typer.Option("--control", help="Control that the action belongs to, as FRAMEWORK/CONTROL.")
    ] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Record a corrective action. Its owner has it as a finding until they report what was done; once overdue, its
    severity is high."""
    body = {"says": says, "owner": owner, "due": due, "workload": workload, "control": control}
    value = ControlClient.connect(home).post("/api/actions", body)
    emit(value, as_json, f"{owner} has until {value['due']}: finding {value['finding']}.")


def _digest(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise Invalid(
            f"{file} cannot be read: {error.strerror}", code="evidence_file", hint="Name a readable file."
        ) from error
