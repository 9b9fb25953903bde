"""`groundplan audit archive`: which entries left the database for files, what these say, and whether they hold."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any

import typer

from groundplan.cli.client import ControlClient, find_running
from groundplan.cli.options import HomeOption, JsonOption
from groundplan.cli.output import emit, emit_query_result, table
from groundplan.cli.progress import progress_bar
from groundplan.core.audit import archive as archived
from groundplan.core.audit.archive_store import Range
from groundplan.core.errors import GroundplanError, Invalid
from groundplan.core.home import Home
from groundplan.core.words import quantity


@dataclass(frozen=True, slots=True)
class Looked:
    """What was found of the archive. `files` is None where it was not looked at, for the reason `why`; both are empty
    for a copy of the log, of which no archive is known."""

    files: int | None = None
    problems: tuple[archived.FileProblem, ...] = ()
    why: str = ""

    def lines(self) -> list[str]:
        """In words."""
        if self.why:
            return [f"if entries have left for an archive, its files were not looked at: {self.why}"]
        if self.problems:
            return ["the archive does not verify:", *(f"  {problem}" for problem in self.problems)]
        return [f"{quantity(self.files, 'file')} of the archive hold the same entries"] if self.files else []

    def to_json(self) -> dict[str, Any]:
        wrong = [{"at": problem.where, "message": problem.message} for problem in self.problems]
        return {"archive": {"files": self.files, "problems": wrong, "not_looked_at": self.why or None}}


def check(home: Home, public_key: bytes | None) -> Looked:
    """Verify every file of entries that have left the database of HOME, where `up` runs and says which there are."""
    if find_running(home) is None:
        return Looked(why="`groundplan up` does not run here")
    try:
        value = _selected_ranges(ControlClient.connect(home.root))
    except GroundplanError as error:
        return Looked(why=error.message)
    lacking = value["lacking"] and (value["lacking"]["first"], value["lacking"]["until"])
    ranges = [Range.of_json(each) for each in value["ranges"]]
    with progress_bar("entries of the archive") as count:
        return Looked(len(ranges), tuple(archived.check_files(home.audit, ranges, count, public_key, lacking)))


def archive(
    sql: Annotated[str | None, typer.Option("--sql", help="A SELECT over entries, in DuckDB's SQL.")] = None,
    since: Annotated[str | None, typer.Option("--from", help="Only files with entries of this day or later.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="Only files with entries of this day or earlier.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the ranges of the log whose entries of calls left the database, each with its file; with --sql, query
    these."""
    value = _selected_ranges(ControlClient.connect(home))
    ranges = [each for each in map(Range.of_json, value["ranges"]) if _of_days(each, _day(since), _day(until))]
    if sql is None:
        rows = [(f"{r.first} to {r.until - 1}", r.since, r.till, f"{r.url}/{r.file}") for r in ranges]
        shown = table(("entries", "from", "to", "where"), rows, f"nothing is archived: {_lacks(value)}")
        emit({**value, "ranges": [each.to_json() for each in ranges]}, as_json, shown)
        return
    if not ranges:
        hint = _lacks(value)
        raise Invalid("no entries are archived", code="archive_empty", hint=f"{hint[:1].upper()}{hint[1:]}.")
    from groundplan.ledger.archive import query_entries  # noqa: PLC0415 -- DuckDB is an extra, and heavy

    emit_query_result(*query_entries(ranges, sql), as_json)


def older(value: dict[str, Any], ended: bool) -> str:
    """What is said below a list that has all there is, where entries of calls have left."""
    left = value.get("archived")
    if not ended or not left:
        return ""
    return f"\nEntries of calls before index {left['until']} are in the archive: `groundplan audit archive`."


def _selected_ranges(client: ControlClient) -> dict[str, Any]:
    """What is archived, all of it."""
    value: dict[str, Any] = client.get("/api/audit/archive")
    page = value
    while page["ranges"]:
        page = client.get("/api/audit/archive", after=page["ranges"][-1]["until"])
        value["ranges"] += page["ranges"]
    return value


def _of_days(of: Range, since: date | None, until: date | None) -> bool:
    """Whether a file may have entries of these days (UTC)."""
    late = since is not None and of.till is not None and of.till.date() < since
    early = until is not None and of.since is not None and of.since.date() > until
    return not (late or early)


def _day(text: str | None) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError as error:
        raise Invalid(f"'{text}' is no day", code="day", hint="Write it as 2026-11-30.") from error


def _lacks(value: dict[str, Any]) -> str:
    """Why there is none yet, and what to do."""
    if value["url"] is None:
        return "set GROUNDPLAN_ARCHIVE_URL where `groundplan up` runs"
    return (
        f"entries of calls leave for {value['url']} {archived.SPAN:,} at a time, once they are older than "
        f"{value['hot_days']} days and their facts have left"
    )
