"""How commands print: one JSON document on stdout with `--json`, else short text for people; errors with code and hint.

Nothing here fetches or decides anything.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any, Final

import typer

from groundplan.core.error_shape import error_json
from groundplan.core.errors import GroundplanError, Invalid, Problem, Unavailable, Where
from groundplan.core.words import quantity

_CONTROL_CHARACTERS: Final = re.compile(r"(?!\x1b\[(?:0|1|3[0-7])m)[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Terminal control characters, except tabs, line ends, and our own codes for bold and colours."""
_LAYOUT_BREAKERS: Final = re.compile(r"[\t\n\x1b\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Characters that would shift the rest of a table row or change its colour."""
MAX_PADDED_WIDTH: Final = 200
"""Widest column that other rows are padded to: a cell that lists thousands of names would otherwise pad each of
thousands of rows."""
_MAX_ROWS: Final = 200


def emit(value: Any, as_json: bool, text: str) -> None:
    """Print `value` as JSON, or `text`. A reader that closes the pipe early does not change the exit code."""
    try:
        typer.echo(json.dumps(value, indent=2, ensure_ascii=False, default=str) if as_json else sanitize(text))
    except BrokenPipeError:
        discard_stdout()


def discard_stdout() -> None:
    """Redirect stdout to /dev/null once it cannot be written, as after its reader has closed the pipe, since Python
    flushes the buffer at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def note(message: str) -> None:
    """Print a line for people on stderr, since programs read stdout. One that cannot be written, as to a closed pipe,
    is dropped."""
    with suppress(OSError):
        typer.echo(sanitize(message), err=True)


def sanitize(text: str) -> str:
    """Escape control characters: document names and other foreign text must not control the terminal."""
    return _CONTROL_CHARACTERS.sub(_escape, text)


def sanitize_line(text: str) -> str:
    """Escape also what would begin another line, or change a colour or the direction of writing."""
    return sanitize(_LAYOUT_BREAKERS.sub(_escape, text))


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def table(head: Sequence[str], rows: Sequence[Sequence[Any]], empty: str = "") -> str:
    """Format rows as left-aligned columns, two spaces apart; without rows return `empty`, if given."""
    if empty and not rows:
        return empty
    cells = [
        ["-" if cell is None else _LAYOUT_BREAKERS.sub(_escape, str(cell)) for cell in row] for row in (head, *rows)
    ]
    widths = [min(MAX_PADDED_WIDTH, max(len(row[column]) for row in cells)) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )


def emit_query_result(names: Sequence[str], rows: Sequence[Sequence[Any]], as_json: bool) -> None:
    """Print the result of an archive query; without `as_json` only its first rows."""
    text = table(names, [tuple(map(str, row)) for row in rows[:_MAX_ROWS]])
    more = f"\n{len(rows) - _MAX_ROWS} more rows with --json" if len(rows) > _MAX_ROWS else ""
    emit({"columns": names, "rows": [[_json_cell(cell) for cell in row] for row in rows]}, as_json, text + more)


def _json_cell(cell: Any) -> Any:
    return cell if cell is None or isinstance(cell, (bool, int, float)) else str(cell)


def usd(amount: str | None) -> str:
    """Format an amount exactly, without trailing zeros: `$0.0035913`, `$1,270.00`; a dash for None."""
    if amount is None:
        return "-"
    value = Decimal(amount).normalize()
    integer, _, fraction = f"{abs(value):,f}".partition(".")
    return f"{'-' if value < 0 else ''}${integer}.{fraction.ljust(2, '0')}"


def pending_text(pending: dict[str, Any]) -> str:
    """`change ID waits for: business, security of workload/x` for a pending change."""
    duties: dict[str, list[str]] = {}
    for duty in pending["waits_for"]:
        duties.setdefault(duty["subject"], []).append(duty["duty"])
    waiting = "; ".join(f"{', '.join(names)} of {subject}" for subject, names in duties.items())
    return f"change {pending['change']} waits for: {waiting or 'nobody'}"


def parse_problem(body: dict[str, Any]) -> Problem:
    """Parse a problem from JSON, the inverse of `problem_json`; a `where` that is no file position is dropped."""
    file, _, position = str(body.get("where") or "").partition(":")
    line, _, column = position.partition(":")
    location = Where(file, int(line), int(column or 1)) if line.isdigit() else None
    return Problem(str(body.get("message", "")), str(body.get("code", "")), str(body.get("hint", "")), location)


def error_from_os(error: OSError) -> GroundplanError:
    """Convert an `OSError` that no command handled. It names a file only if opening failed, not for failed writes or
    exhausted resources."""
    if error.filename is None:
        return Unavailable(
            f"the system is out of a resource: {error.strerror or type(error).__name__}",
            code="system_refused",
            hint="Check the free space where this command writes (`df`: HOME, TMPDIR, its output) and the limits of "
            "this user (`ulimit -a`), then try again.",
        )
    name = error.filename.decode(errors="replace") if isinstance(error.filename, bytes) else error.filename
    return Unavailable(
        f"{name} cannot be used: {error.strerror or type(error).__name__}",
        code="file_unusable",
        hint="Check the path, its permissions and the free space.",
    )


def usage_error(cause: BaseException | None) -> GroundplanError:
    """The error of an invalid command line, for programs; people are shown the usage instead."""
    format_message = getattr(cause, "format_message", None)  # of the parser's own errors, whose class is not public
    return Invalid(
        str(format_message()) if callable(format_message) else "the command line is wrong",
        code="usage",
        hint="`groundplan COMMAND --help` describes every option.",
    )


def print_error(error: GroundplanError, *, as_json: bool) -> None:
    """Print an error: as JSON on stdout, or as lines on stderr for people, each problem once."""
    if as_json:
        typer.echo(json.dumps(error_json(error), indent=2, ensure_ascii=False))
        return
    lines = [
        f"{f'{problem.where}: ' if problem.where else ''}{problem.message} [{problem.code}]\n    {problem.hint}"
        for problem in error.problems
    ]
    if error.problems and error.message.startswith(error.problems[0].message):
        lines.append(f"error: {quantity(len(error.problems), 'problem')}")
    else:
        lines.append(f"error: {f'{error.where}: ' if error.where else ''}{error.message} [{error.code}]")
        lines += [f"    {error.hint}"] if error.hint else []
    sys.stderr.write("".join(f"{sanitize(line)}\n" for line in lines))
