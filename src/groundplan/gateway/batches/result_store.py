"""The results of the lines of a batch: what an error looks like, and reading them for the batch's result files.

A result is stored as the line of a result file that it becomes; `batch_store` stores it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any, LiteralString
from uuid import UUID

from groundplan.core.ids import new_id
from groundplan.gateway.database import Connection

LINE_PREFIX = "batch_req_"
"""How the id of a line of a result file begins; the id of its call follows."""
MAX_BUFFERED_BYTES = 4 << 20
"""Of results in memory at once, unless a single one is larger."""
_ROW_BYTES = 1 << 10
"""Memory that a row takes beside its result."""
ERROR_CODE: LiteralString = "CASE WHEN pg_input_is_valid(result, 'jsonb') THEN result::jsonb -> 'error' ->> 'code' END"
"""The error code of a line that was not made. An upstream's refusal may hold numbers that PostgreSQL has no type
for."""


def error_line(call: UUID | None, custom_id: str, code: str, message: str, status: int | None = None) -> dict[str, Any]:
    """The line of the error file for a call that has no answer. `status`: the HTTP status of a refusal, given only for
    message batches, whose results tell errors by types that follow from it."""
    error: dict[str, Any] = {"code": code, "message": message}
    return {
        "id": f"{LINE_PREFIX}{(call or new_id()).hex}",
        "custom_id": custom_id,
        "response": None,
        "error": error if status is None else {**error, "status_code": status},
    }


async def has_lines_with_error(connection: Connection, batch: UUID, code: str) -> bool:
    """Whether any line ended with this error code instead of being made."""
    row = await (
        await connection.execute(
            f"SELECT EXISTS (SELECT 1 FROM batch_line WHERE batch_id = %s AND NOT ok AND {ERROR_CODE} = %s)",
            (batch, code),
        )
    ).fetchone()
    return row is not None and bool(row[0])


async def iterate_results(connection: Connection, batch: UUID, *, ok: bool) -> AsyncGenerator[list[str], None]:
    """Yield the results of the lines that succeeded (`ok`), or of the others, by number, about `MAX_BUFFERED_BYTES` at
    a time: an answer may have megabytes. Inside a transaction."""
    sizes = await connection.execute(
        "SELECT number, coalesce(octet_length(result), 0) FROM batch_line WHERE batch_id = %s AND ok = %s ORDER BY 1",
        (batch, ok),
    )
    for first, last in _row_ranges(await sizes.fetchall()):
        rows = await connection.execute(
            """SELECT result FROM batch_line WHERE batch_id = %s AND ok = %s AND number BETWEEN %s AND %s
               ORDER BY number""",
            (batch, ok, first, last),
        )
        yield [result for (result,) in await rows.fetchall()]


def _row_ranges(sizes: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The (first, last) numbers of lines to read together, from the (number, bytes) of all lines."""
    first, last, size = None, 0, 0
    for number, length in sizes:
        if first is not None and size + length > MAX_BUFFERED_BYTES:
            yield first, last
            first, size = None, 0
        first, last, size = number if first is None else first, number, size + length + _ROW_BYTES
    if first is not None:
        yield first, last
