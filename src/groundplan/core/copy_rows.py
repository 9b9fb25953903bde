"""Many new rows into a table with one COPY, the cheapest way there is for whoever sends them and for PostgreSQL.

A compiled encoder writes each row as a JSON array; PostgreSQL reads it as a line of CSV whose escape is JSON's. Rows
that are there already are not skipped: PostgreSQL refuses all of them then.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec
from psycopg import Connection

_encode_lines = msgspec.json.Encoder().encode_lines
_ESCAPED = re.compile(rb'\\([\\"bfnrt]|u[0-9a-f]{4})')
_LETTERS = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_REPLACEMENT = "\ufffd".encode()
"""PostgreSQL has no NUL in text; a caller's odd path must not stop what is written."""


def copy_statement(table: str, columns: Sequence[str]) -> bytes:
    """For `copy_rows`: rows have the values of these columns in this order."""
    return f"COPY {table} ({', '.join(columns)}) FROM STDIN (FORMAT csv, NULL 'null', ESCAPE '\\')".encode()


def copy_rows(conn: Connection[Any], statement: bytes, rows: Sequence[Any]) -> None:
    """Write rows (tuples, or array-like structs) of texts, numbers, booleans, ids, times, `Decimal` and None.

    Whatever else a column holds is given as its text in PostgreSQL. Raises `psycopg.errors.UniqueViolation` where a row
    with the same key is there.
    """
    if rows:
        with conn.cursor() as cursor, cursor.copy(statement) as copy:
            copy.write(encode_csv(rows))


def encode_csv(rows: Sequence[Any]) -> bytes:
    """The lines of at least one row."""
    data = _encode_lines(rows)[1:-2].replace(b"]\n[", b"\n")  # no newline stands in a value yet
    # what is left has escapes that CSV has not, of control characters, which are rare in text
    if b"\\" in data.replace(b'\\"', b"").replace(b"\\\\", b""):
        data = _ESCAPED.sub(_plain, data)
    return data


def _plain(found: re.Match[bytes]) -> bytes:
    """A control character itself; the escapes that CSV shares stay."""
    what = found[1]
    if what in (b"\\", b'"'):
        return found[0]
    if what[:1] == b"u":
        code = int(what[1:], 16)
        return chr(code).encode() if code else _REPLACEMENT
    return _LETTERS[what]
