"""`groundplan controls`, `evidence` and `register`: what the company holds itself to, what proves it, what there is."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.options import HomeOption, JsonOption
from groundplan.cli.output import emit, table
from groundplan.core.errors import Invalid

evidence = typer.Typer(
    help="What proves controls: list, add, withdraw, collect.", no_args_is_help=True, rich_markup_mode=None
)
exports = typer.Typer(
    help="What auditors take away: oscal, cyclonedx, applicability.", no_args_is_help=True, rich_markup_mode=None
)
management = typer.Typer(help="Management review and corrective actions.", no_args_is_help=True, rich_markup_mode=None)
MARKS = {"satisfied": "ok", "open": "open", "expired": "expired", "excluded": "-"}


def controls(
    framework: Annotated[
        str | None, typer.Argument(help="One framework, control by control; `checks`: what there is.")
    ] = None,
    workload: Annotated[str | None, typer.Option("--workload", help="Only this one.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """How far each workload is with the frameworks that hold here."""
    client = ControlClient.connect(home)
    if framework is None:
        _overview(client.get("/api/frameworks"), as_json)
    elif framework == "checks":
        value = client.get("/api/checks")
        rows = [
            (c["name"], c["title"], "facts" if c["by_facts"] else "people", f"{c['days']} days")
            for c in value["checks"]
        ]
        emit(value, as_json, table(("check", "what", "shown by", "holds"), rows))
    else:
        _one(client.get(f"/api/frameworks/{quote(framework, safe='')}"), workload, as_json)


def _overview(value: Any, as_json: bool) -> None:
    rows = [
        (each["name"], name, f"{counts['satisfied']} of {counts['apply']}", counts["expired"], counts["excluded"])
        for each in value["frameworks"]
        for name, counts in each["coverage"].items()
    ]
    text = table(("framework", "workload", "satisfied", "expired", "excluded"), rows)
    empty = "No framework is declared. Add a document with kind: framework, such as name: nist-ai-rmf."
    emit(value, as_json, text if rows else empty)


def _one(value: Any, workload: str | None, as_json: bool) -> None:
    names = [name for name in value["workloads"] if workload in (None, name)]
    rows: list[tuple[str, ...]] = []
    for control in value["controls"]:
        states = [control["workloads"][name] for name in names]
        missing = next((s["hint"] for each in states for s in each["shown"] if s["hint"]), "")
        rows.append((control["id"], control["title"], *(MARKS[each["state"]] for each in states), missing))
    emit(value, as_json, table(("control", "what", *names, "next"), rows))


@evidence.command("list")
def list_(
    workload: Annotated[str | None, typer.Option("--workload")] = None,
    what: Annotated[str, typer.Option("--what", help="A check, or FRAMEWORK/CONTROL.")] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """What was shown, the newest first."""
    subject = f"workload/{workload}" if workload else ""
    value = ControlClient.connect(home).get("/api/evidence", subject=subject, what=what)
    rows = [
        (e["id"], e["what"], e["subject"], _holds(e), e["valid_until"][:10], e["says"])
        for e in value["evidence"]
        if not e["withdrawn_at"]
    ]
    emit(value, as_json, table(("id", "what", "of", "holds", "until", "says"), rows))


def _holds(row: dict[str, Any]) -> str:
    if row["approval"] not in (None, "applied"):
        return f"approval {row['approval']}"
    return "yes" if row["holds"] else "no"


@evidence.command()
def add(
    what: Annotated[str, typer.Argument(help="FRAMEWORK/CONTROL, or a check that people show.")],
    says: Annotated[str, typer.Option("--says", "-m", help="What it shows, in a sentence.")],
    workload: Annotated[str | None, typer.Option("--workload", help="Left out: for the company.")] = None,
    type: Annotated[str, typer.Option("--type", help="document | review | drill | test")] = "document",
    file: Annotated[Path | None, typer.Option("--file", help="Its SHA-256 is kept, never the file.")] = None,
    link: Annotated[str | None, typer.Option("--link", help="https address where it is.")] = None,
    days: Annotated[int, typer.Option("--days", min=1, help="How long it holds.")] = 180,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what facts cannot."""
    body = {"what": what, "says": says, "workload": workload, "type": type, "days": days, "link": link}
    value = ControlClient.connect(home).post("/api/evidence", {**body, "sha256": _digest(file)})
    waits = f" once change {value['change']} is approved" if value["change"] else ""
    emit(value, as_json, f"{value['what']} of {value['subject']} is shown until {value['valid_until'][:10]}{waits}.")


@evidence.command()
def withdraw(
    evidence_id: str,
    reason: Annotated[str, typer.Option("--reason", "-m")],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """It counts no longer."""
    value = ControlClient.connect(home).post(
        f"/api/evidence/{quote(evidence_id, safe='')}/withdraw", {"reason": reason}
    )
    emit(value, as_json, f"{evidence_id} counts no longer.")


@evidence.command()
def collect(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Judge the facts now instead of within ten minutes."""
    value = ControlClient.connect(home).post("/api/evidence/collect")
    emit(value, as_json, f"{value['added']} new, {value['kept']} as before.")


@management.command("review")
def review_(
    since: Annotated[
        str | None, typer.Option("--since", help="A day: 2026-10-01. Left out: the last review, else 90 days.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """What a management review looks at: coverage, what moved since the last one, gaps, corrective actions."""
    query = {} if since is None else {"since": since}
    value = ControlClient.connect(home).get("/api/management-review", **query)
    emit(value, as_json, _review_text(value))


def _review_text(value: dict[str, Any]) -> str:
    lines = [f"Since {value['since'][:10]}"]
    for one in value["frameworks"]:
        lines += ["", typer.style(one["title"], bold=True)]
        for name, counts in one["coverage"].items():
            open_ = sum(gap["workload"] == name for gap in one["gaps"])
            lines.append(f"  {name}: {counts['satisfied']} of {counts['apply']} satisfied, {open_} are gaps")
        for moved in one["drift"]:
            lines.append(f"  {moved['control']} of {moved['workload']}: {moved['before']} -> {moved['now']}")
    rows = [
        (each["id"], each["message"], each["owner"] or "-", each["due"], "done" if each["closed_at"] else "open")
        for each in value["actions"]
    ]
    lines += ["", table(("action", "what", "owner", "due", "is"), rows) if rows else "No corrective action."]
    return "\n".join(lines)


@management.command("act")
def act(
    says: Annotated[str, typer.Argument(help="What is to be put right.")],
    owner: Annotated[str, typer.Option("--owner", help="E-mail address of who does it.")],
    due: Annotated[str, typer.Option("--due", help="Until when: 2026-12-31.")],
    workload: Annotated[str | None, typer.Option("--workload", help="Left out: for the company.")] = None,
    control: Annotated[str, typer.Option("--control", help="FRAMEWORK/CONTROL.")] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """A corrective action: a finding of its owner until they say what was done, grave when its day is over."""
    body = {"says": says, "owner": owner, "due": due, "workload": workload, "control": control}
    value = ControlClient.connect(home).post("/api/actions", body)
    emit(value, as_json, f"{owner} has until {value['due']}: finding {value['finding']}.")


def register(
    kind: Annotated[
        str, typer.Argument(help="workload, model, deployment, provider, prompt, integration, tool, source")
    ] = "",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Everything that AI is made of here, with owner, origin, uses and what is missing."""
    value = ControlClient.connect(home).get("/api/register", kind=kind)
    rows = [
        (
            e["kind"],
            e["name"],
            e["owner"] or "-",
            e["origin"] or "-",
            ", ".join(e["used_by"]) or "-",
            ", ".join(e["missing"]),
        )
        for e in value["entries"]
    ]
    emit(value, as_json, table(("kind", "name", "owner", "origin", "used by", "missing"), rows))


def shadow(
    log: Annotated[Path, typer.Argument(help="Log of a proxy, or a bill, in any form of lines.")],
    bill: Annotated[bool, typer.Option("--bill", help="Lines of a bill, of expenses, of a card's statement.")] = False,
    also: Annotated[list[str] | None, typer.Option("--also", help="Another provider's host; may be repeated.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """AI that nobody declared: calls to providers in the log of a proxy, or charges of providers in a bill."""
    try:
        data = log.read_bytes()
    except OSError as error:
        raise Invalid(
            f"{log} cannot be read: {error.strerror}", code="log_file", hint="Name a file that you may read."
        ) from error
    query = [("also", host) for host in also or ()] + ([("bill", "true")] if bill else [])
    value = ControlClient.connect(home).post_file("/api/register/shadow", data, query)
    rows = [
        (h["host"], h["provider"], "yes" if h["declared"] else "NO", h["calls"], h["callers"]) for h in value["hosts"]
    ]
    what = "lines" if bill else "calls"
    text = table(("host", "provider", "declared", what, "callers"), rows)
    emit(value, as_json, text if rows else f"No known provider in {value['lines']} lines.")


@exports.command()
def oscal(
    framework: str,
    document: Annotated[
        str, typer.Option("--document", help="assessment-results | catalog | profile | component-definition")
    ] = "assessment-results",
    home: HomeOption = None,
) -> None:
    """Assessment results in OSCAL 1.1.2, or what is declared as a document that others import, as JSON."""
    path = f"/api/exports/oscal/{quote(framework, safe='')}"
    _print(ControlClient.connect(home).get(path, document=document))


@exports.command()
def cyclonedx(home: HomeOption = None) -> None:
    """The register as a CycloneDX 1.6 bill of materials, as JSON."""
    _print(ControlClient.connect(home).get("/api/exports/cyclonedx"))


@exports.command()
def applicability(framework: str, home: HomeOption = None) -> None:
    """The statement of applicability, as JSON."""
    _print(ControlClient.connect(home).get(f"/api/exports/applicability/{quote(framework, safe='')}"))


@exports.command()
def documents(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Which documents that laws ask for can be made."""
    value = ControlClient.connect(home).get("/api/exports/documents")
    rows = [(each["name"], each["title"], each["law"], each["sections"]) for each in value["documents"]]
    emit(value, as_json, table(("name", "what", "law", "sections"), rows))


@exports.command()
def document(
    name: Annotated[str, typer.Argument(help="annex-iv | fria | dpia")],
    workload: str,
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write, as Markdown. Left out: it is shown.")
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """A document that a law asks for about a workload, filled from facts; what is missing is marked."""
    client, path = (
        ControlClient.connect(home),
        f"/api/exports/documents/{quote(name, safe='')}/{quote(workload, safe='')}",
    )
    value = client.get(path)
    if out is not None:
        client.save(f"{path}/text", out)
    emit(value, as_json, _document_text(value) if out is None else f"{out} is written.{_lacks(value)}")


def _document_text(value: dict[str, Any]) -> str:
    lines = [f"{value['title']}: {value['workload']}", f"{value['law']}. {value['note']}"]
    for each in value["sections"]:
        lines += ["", typer.style(f"{each['id']} {each['title']}", bold=True)]
        lines += [f"  {said['text']} ({said['origin']})" for said in each["said"]]
        if not each["said"]:
            lines.append(typer.style("  missing", fg="red") + f": groundplan evidence add '{each['evidence']}'")
        elif each["missing"]:
            lines.append(f"  not declared: {', '.join(each['missing'])}")
    return "\n".join(lines) + _lacks(value)


def _lacks(value: dict[str, Any]) -> str:
    return f"\nMissing: {', '.join(value['missing'])}." if value["missing"] else ""


@exports.command()
def room(
    since: Annotated[str, typer.Option("--from", help="First day: 2026-10-01.")],
    to: Annotated[str, typer.Option("--to", help="Last day.")],
    out: Annotated[Path, typer.Option("--out", help="File to write: room.zip.")],
    workload: Annotated[str, typer.Option("--workload", help="Left out: all.")] = "",
    sample: Annotated[int, typer.Option("--sample", min=0, max=1000, help="How many calls to draw.")] = 50,
    seed: Annotated[str, typer.Option("--seed", help="The same seed draws the same calls.")] = "1",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """The data room of an auditor: one archive that can be verified offline."""
    query = {"from": since, "to": to, "workload": workload, "sample": str(sample), "seed": seed}
    size = ControlClient.connect(home).save("/api/exports/room", out, **query)
    emit({"file": str(out), "bytes": size}, as_json, f"{out} has {size:,} bytes. Begin with its README.txt.")


def _print(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _digest(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise Invalid(
            f"{file} cannot be read: {error.strerror}", code="evidence_file", hint="Name a file that you may read."
        ) from error
