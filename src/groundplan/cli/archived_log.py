"""`groundplan audit archive`: the entries of calls that were moved from the database to files, and the verification of
these files."""

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
class ArchiveCheck:
    """Result of a check of the archive. `files` is None if it was not checked, for the reason `not_checked_reason`;
    both are empty for a copy of the log, whose archive is unknown."""

    files: int | None = None
    problems: tuple[archived.FileProblem, ...] = ()
    not_checked_reason: str = ""

    def lines(self) -> list[str]:
        """The result as lines for people."""
        if self.not_checked_reason:
            return [f"if entries have left for an archive, its files were not looked at: {self.not_checked_reason}"]
        if self.problems:
            return ["the archive does not verify:", *(f"  {problem}" for problem in self.problems)]
        return [f"{quantity(self.files, 'file')} of the archive hold the same entries"] if self.files else []

    def to_json(self) -> dict[str, Any]:
        problems = [{"at": problem.where, "message": problem.message} for problem in self.problems]
        return {
            "archive": {"files": self.files, "problems": problems, "not_looked_at": self.not_checked_reason or None}
        }


def check_archive(home: Home, public_key: bytes | None) -> ArchiveCheck:
    """Verify every file of entries that have left the database of HOME, if `up` runs to list these files."""
    if find_running(home) is None:
        return ArchiveCheck(not_checked_reason="`groundplan up` does not run here")
    try:
        value = _all_ranges(ControlClient.connect(home.root))
    except GroundplanError as error:
        return ArchiveCheck(not_checked_reason=error.message)
    missing_range = value["lacking"] and (value["lacking"]["first"], value["lacking"]["until"])
    ranges = [Range.of_json(item) for item in value["ranges"]]
    with progress_bar("entries of the archive") as count:
        return ArchiveCheck(
            len(ranges), tuple(archived.check_files(home.audit, ranges, count, public_key, missing_range))
        )


def archive(
    sql: Annotated[str | None, typer.Option("--sql", help="A SELECT over entries, in DuckDB's SQL.")] = None,
    since: Annotated[str | None, typer.Option("--from", help="Only files with entries of this day or later.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="Only files with entries of this day or earlier.")] = None,
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the ranges of the log whose entries of calls left the database, each with its file; with --sql, query
    these."""
    value = _all_ranges(ControlClient.connect(home))
    ranges = [
        file_range
        for file_range in map(Range.of_json, value["ranges"])
        if _may_have_entries(file_range, _parse_day(since), _parse_day(until))
    ]
    if sql is None:
        rows = [(f"{r.first} to {r.until - 1}", r.since, r.till, f"{r.url}/{r.file}") for r in ranges]
        text = table(
            ("entries", "from", "to", "where"), rows, f"nothing is archived: {_nothing_archived_reason(value)}"
        )
        emit({**value, "ranges": [file_range.to_json() for file_range in ranges]}, as_json, text)
        return
    if not ranges:
        hint = _nothing_archived_reason(value)
        raise Invalid("no entries are archived", code="archive_empty", hint=f"{hint[:1].upper()}{hint[1:]}.")
    from groundplan.ledger.archive import query_entries  # noqa: PLC0415 -- DuckDB is an extra, and heavy

    emit_query_result(*query_entries(ranges, sql), as_json)


def archived_entries_note(value: dict[str, Any], is_last_page: bool) -> str:
    """Note below the last page of a list of entries, if entries of calls have been archived; else empty."""
    archived_range = value.get("archived")
    if not is_last_page or not archived_range:
        return ""
    return f"\nEntries of calls before index {archived_range['until']} are in the archive: `groundplan audit archive`."


def _all_ranges(client: ControlClient) -> dict[str, Any]:
    """The API's response on the archive, with the ranges of all pages."""
    value: dict[str, Any] = client.get("/api/audit/archive")
    page = value
    while page["ranges"]:
        page = client.get("/api/audit/archive", after=page["ranges"][-1]["until"])
        value["ranges"] += page["ranges"]
    return value


def _may_have_entries(file_range: Range, since: date | None, until: date | None) -> bool:
    """Whether a file may have entries of these days (UTC)."""
    is_before = since is not None and file_range.till is not None and file_range.till.date() < since
    is_after = until is not None and file_range.since is not None and file_range.since.date() > until
    return not (is_before or is_after)


def _parse_day(text: str | None) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError as error:
        raise Invalid(f"'{text}' is no day", code="day", hint="Write it as 2026-11-30.") from error


def _nothing_archived_reason(value: dict[str, Any]) -> str:
    """Why nothing is archived yet, and what to do."""
    if value["url"] is None:
        return "set GROUNDPLAN_ARCHIVE_URL where `groundplan up` runs"
    return (
        f"entries of calls leave for {value['url']} {archived.SPAN:,} at a time, once they are older than "
        f"{value['hot_days']} days and their facts have left"
    )
