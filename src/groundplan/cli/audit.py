"""`groundplan audit verify`: checks the log from its files alone; neither a database nor a running `up` is needed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from groundplan.cli import archived_log
from groundplan.cli.client import ControlClient, find_running
from groundplan.cli.command_group import command_group
from groundplan.cli.files import read_argument_file
from groundplan.cli.options import HomeOption, JsonOption, home_for
from groundplan.cli.output import emit, table
from groundplan.cli.progress import progress_bar
from groundplan.core.audit.checkpoint import parse_key
from groundplan.core.audit.keys import load_public
from groundplan.core.audit.rotate import rotate
from groundplan.core.audit.seal import seal
from groundplan.core.audit.verify import Verdict
from groundplan.core.audit.verify import verify as verify_folder
from groundplan.core.words import quantity
from groundplan.runtime.locks import check_restored

app = command_group("Verify the audit log from its files alone, list it, copy it.")


@app.command()
def verify(
    folder: Annotated[Path | None, typer.Argument(help="A copy of HOME/audit. Default: the log of HOME.")] = None,
    earlier: Annotated[
        list[Path] | None,
        typer.Option("--earlier", help="A checkpoint kept elsewhere that the log must extend."),
    ] = None,
    witness: Annotated[
        list[str] | None, typer.Option("--witness", help="Key of a witness that must have signed, as name+id+key.")
    ] = None,
    key: Annotated[Path | None, typer.Option("--key", help="A log.pub from a trusted copy, instead of HOME's.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Verify every entry, every hash and the signatures. Exits with 1 if the log does not verify, naming the entry.

    Reports `self-signed`, or `witnessed by X at T` if somebody else has signed too. Where `up` runs, the files of
    entries that have left the database for an archive are verified as well, and each that is missing or changed is
    named.
    """
    paths = home_for(home)
    target = folder or paths.audit
    without_own_key = folder is not None or not (paths.keys / "checkpoint.pub").exists()
    own_key = None if without_own_key else load_public(paths, "checkpoint").public_bytes_raw()
    with progress_bar("entries of the log") as count:
        verdict = verify_folder(
            target,
            own_key if key is None else _read_file(key),
            count,
            earlier=[_read_file(path) for path in earlier or ()],
            witnesses=[parse_key(text) for text in witness or ()],
        )
    archive = archived_log.check_archive(paths, own_key) if folder is None else archived_log.ArchiveCheck()
    ok = verdict.ok and not archive.problems
    signed = "; ".join(verdict.witnessed) or verdict.signed
    lines = [f"{_entries_text(verdict)}, {signed}" if verdict.ok else f"{target} does not verify:"]
    lines += [f"  {problem}" for problem in verdict.problems]
    if not target.is_dir():
        lines.append("  there is no such folder: name the HOME with --home, or the folder of a copy of its log")
    lines += archive.lines()
    emit({**verdict.to_json(), **archive.to_json(), "ok": ok}, as_json, "\n".join(lines))
    if not ok:
        raise typer.Exit(1)


@app.command("rotate-key")
def rotate_key(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Sign checkpoints with a new key from now on; the old and the new key both sign the handover. Works while `up`
    runs, too."""
    paths = home_for(home)
    if find_running(paths) is not None:
        value = ControlClient.connect(home).post("/api/audit/rotate-key")
        emit(value, as_json, f"checkpoints are now signed by {value['next']}")
        return
    check_restored(paths)
    rotation = rotate(paths)
    value = {"previous": rotation.previous.encode(), "next": rotation.next.encode()}
    emit(value, as_json, f"checkpoints are now signed by {rotation.next.encode()}")


@app.command("seal")
def seal_log(
    target: Annotated[str, typer.Argument(help="Target store: file:///PATH or s3://BUCKET/PATH.")],
    days: Annotated[
        int | None,
        typer.Option(
            "--lock-days", min=1, help="Lock the copied objects for this many days, where the store supports it."
        ),
    ] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy the log to another store; each full tile is written once. The copy verifies like the log and has no key."""
    until = None if days is None else datetime.now(UTC) + timedelta(days=days)
    sealed = seal(home_for(home).audit, target, until)
    value = {"entries": sealed.entries, "segments": sealed.segments, "others": sealed.others}
    emit(value, as_json, f"{quantity(sealed.entries, 'entry', 'entries')} sealed, {sealed.segments} new segments")


@app.command("list")
def list_entries(
    limit: Annotated[int, typer.Option("--limit", min=1, max=500, help="Maximum number of entries.")] = 30,
    subject: Annotated[str | None, typer.Option("--subject", help="Only entries about this subject.")] = None,
    who: Annotated[
        str | None, typer.Option("--who", help="Only entries by this person (e-mail address) or actor.")
    ] = None,
    action: Annotated[str | None, typer.Option("--action", help="Only actions with this prefix.")] = None,
    workload: Annotated[str | None, typer.Option("--workload", help="Only entries about this workload.")] = None,
    since: Annotated[str | None, typer.Option("--since", help="Only entries since this ISO 8601 time.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the newest entries."""
    value = ControlClient.connect(home).get(
        "/api/audit", limit=limit, subject=subject, who=who, action=action, workload=workload, since=since
    )
    rows = [(e["index"], e["at"], e["action"], e["who"], e["subject"]) for e in value["entries"]]
    text = table(("index", "at", "action", "who", "subject"), rows, "No entry matches.")
    emit(value, as_json, text + archived_log.archived_entries_note(value, len(rows) < limit))


app.command("archive")(archived_log.archive)


def _read_file(path: Path) -> bytes:
    return read_argument_file(path, code="file", hint="Give an existing file.")


def _entries_text(verdict: Verdict) -> str:
    return quantity(verdict.entries, "entry holds", "entries hold")
