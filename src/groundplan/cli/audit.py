"""`groundplan audit verify`: checks the log from its files alone; neither a database nor a running `up` is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from groundplan.cli.client import ControlClient
from groundplan.cli.options import HomeOption, JsonOption, home_for
from groundplan.cli.output import emit, table
from groundplan.core.audit.keys import load_public
from groundplan.core.audit.verify import Verdict
from groundplan.core.audit.verify import verify as verify_folder
from groundplan.core.words import counted

app = typer.Typer(help="Verify the audit log from its files alone.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def verify(
    folder: Annotated[Path | None, typer.Argument(help="A copy of HOME/audit; HOME's own log by default.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check every entry, every hash and the signature. Exit 1 where it does not hold, naming the entry."""
    place = home_for(home)
    target = folder or place.audit
    alone = folder is not None or not (place.keys / "checkpoint.pub").exists()
    key = None if alone else load_public(place, "checkpoint").public_bytes_raw()
    verdict = verify_folder(target, key)
    value: dict[str, Any] = {
        "ok": verdict.ok,
        "entries": verdict.entries,
        "root": verdict.root,
        "signed": verdict.signed,
        "problems": [{"at": problem.where, "message": problem.message} for problem in verdict.problems],
    }
    lines = [f"{_held(verdict)}, {verdict.signed}" if verdict.ok else f"{target} does not hold:"]
    lines += [f"  {problem}" for problem in verdict.problems]
    emit(value, as_json, "\n".join(lines))
    if not verdict.ok:
        raise typer.Exit(1)


@app.command("list")
def list_entries(
    limit: Annotated[int, typer.Option("--limit", min=1, max=500)] = 30,
    subject: Annotated[str | None, typer.Option("--subject", help="Only entries about this.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """The newest entries."""
    value = ControlClient.connect(home).get("/api/audit", limit=limit, subject=subject)
    rows = [(e["index"], e["at"], e["action"], e["who"], e["subject"]) for e in value["entries"]]
    emit(value, as_json, table(("index", "at", "action", "who", "subject"), rows))


def _held(verdict: Verdict) -> str:
    return counted(verdict.entries, "entry holds", "entries hold")
