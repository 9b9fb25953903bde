"""`groundplan export`: documents for auditors and authorities, as files or as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.command_group import command_group
from groundplan.cli.options import HomeOption, JsonOption
from groundplan.cli.output import emit, table

app = command_group("For auditors: OSCAL, CycloneDX, legal documents, the data room.")
FrameworkArgument = Annotated[str, typer.Argument(metavar="FRAMEWORK", help="Declared framework.")]
IsJsonOption = Annotated[
    bool,
    typer.Option(
        "--json", show_default=False, help="Accepted for consistency; the output is always one JSON document."
    ),
]
"""Accepted although the output is always JSON, since programs pass it to every command."""


@app.command()
def oscal(
    framework: FrameworkArgument,
    document: Annotated[
        str, typer.Option("--document", help="assessment-results, catalog, profile or component-definition.")
    ] = "assessment-results",
    workload: Annotated[
        str | None, typer.Option("--workload", help="Only results of this workload. Default: all, one after the other.")
    ] = None,
    home: HomeOption = None,
    _: IsJsonOption = True,
) -> None:
    """Export assessment results in OSCAL 1.1.2, or the declared framework as a document that other tools import, as
    JSON."""
    path = f"/api/exports/oscal/{quote(framework, safe='')}"
    _print(ControlClient.connect(home).get(path, document=document, workload=workload))


@app.command()
def cyclonedx(home: HomeOption = None, _: IsJsonOption = True) -> None:
    """Export the register as a CycloneDX 1.6 bill of materials, as JSON."""
    _print(ControlClient.connect(home).get("/api/exports/cyclonedx"))


@app.command()
def applicability(framework: FrameworkArgument, home: HomeOption = None, _: IsJsonOption = True) -> None:
    """Export the statement of applicability, as JSON."""
    _print(ControlClient.connect(home).get(f"/api/exports/applicability/{quote(framework, safe='')}"))


@app.command()
def documents(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """List the legally required documents that can be generated."""
    value = ControlClient.connect(home).get("/api/exports/documents")
    rows = [(item["name"], item["title"], item["law"], item["sections"]) for item in value["documents"]]
    emit(value, as_json, table(("name", "what", "law", "sections"), rows))


@app.command()
def document(
    name: Annotated[str, typer.Argument(help="Document: annex-iv, fria or dpia.")],
    workload: Annotated[str, typer.Argument(metavar="WORKLOAD", help="Workload that the document is about.")],
    out: Annotated[Path | None, typer.Option("--out", help="Markdown file to write. Default: print it.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Generate a legally required document about a workload from facts; gaps are marked."""
    client = ControlClient.connect(home)
    path = f"/api/exports/documents/{quote(name, safe='')}/{quote(workload, safe='')}"
    value = client.get(path)
    if out is not None:
        client.save(f"{path}/text", out)
    emit(value, as_json, _document_text(value) if out is None else f"{out} is written.{_missing_note(value)}")


def _document_text(value: dict[str, Any]) -> str:
    lines = [f"{value['title']}: {value['workload']}", f"{value['law']}. {value['note']}"]
    for section in value["sections"]:
        lines += ["", typer.style(f"{section['id']} {section['title']}", bold=True)]
        lines += [f"  {sentence['text']} ({sentence['origin']})" for sentence in section["said"]]
        if not section["said"]:
            lines.append(typer.style("  missing", fg="red") + f": groundplan evidence add '{section['evidence']}'")
        elif section["missing"]:
            lines.append(f"  not declared: {', '.join(section['missing'])}")
    return "\n".join(lines) + _missing_note(value)


def _missing_note(value: dict[str, Any]) -> str:
    return f"\nMissing: {', '.join(value['missing'])}." if value["missing"] else ""


@app.command()
def room(
    since: Annotated[str, typer.Option("--from", help="First day, such as 2026-10-01.")],
    to: Annotated[str, typer.Option("--to", help="Last day.")],
    out: Annotated[Path, typer.Option("--out", help="File to write, such as room.zip.")],
    workload: Annotated[str, typer.Option("--workload", help="Only this workload. Default: all.")] = "",
    sample: Annotated[int, typer.Option("--sample", min=0, max=1000, help="Number of calls to sample.")] = 50,
    seed: Annotated[
        str, typer.Option("--seed", help="Seed of the sample; the same seed samples the same calls.")
    ] = "1",
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Export the data room for an auditor: one archive that can be verified offline."""
    query = {"from": since, "to": to, "workload": workload, "sample": str(sample), "seed": seed}
    size = ControlClient.connect(home).save("/api/exports/room", out, **query)
    emit({"file": str(out), "bytes": size}, as_json, f"{out} has {size:,} bytes. Start with its README.txt.")


def _print(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
