"""Inserts many new rows with one COPY, the cheapest way for both the client and PostgreSQL.

A compiled encoder writes each row as a JSON array; PostgreSQL reads it as a line of CSV with JSON's escape character.
Existing rows are not skipped: PostgreSQL refuses the whole COPY then.
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
"""Replaces NUL, which PostgreSQL does not store in text: an odd path of a caller must not fail the COPY."""


def copy_statement(table: str, columns: Sequence[str]) -> bytes:
    """The COPY statement for `copy_rows`, whose rows have the values of these columns in this order."""
    return f"COPY {table} ({', '.join(columns)}) FROM STDIN (FORMAT csv, NULL 'null', ESCAPE '\\')".encode()


def copy_rows(conn: Connection[Any], statement: bytes, rows: Sequence[Any]) -> None:
    """Write rows (tuples, or array-like structs) of texts, numbers, booleans, ids, times, `Decimal` and None.

    Values of other types are passed as their text form in PostgreSQL. Raises `psycopg.errors.UniqueViolation` where a
    row with the same key exists.
    """
    if rows:
        with conn.cursor() as cursor, cursor.copy(statement) as copy:
            copy.write(encode_csv(rows))


def encode_csv(rows: Sequence[Any]) -> bytes:
    """Encode at least one row as CSV lines."""
    data = _encode_lines(rows)[1:-2].replace(b"]\n[", b"\n")  # newlines in values are still escaped
    # other escapes are of control characters, which are rare in text, and which CSV does not know
    if b"\\" in data.replace(b'\\"', b"").replace(b"\\\\", b""):
        data = _ESCAPED.sub(_unescape, data)
    return data


def _unescape(found: re.Match[bytes]) -> bytes:
    """The control character of an escape; escapes that CSV shares stay."""
    what = found[1]
    if what in (b"\\", b'"'):
        return found[0]
    if what[:1] == b"u":
        code = int(what[1:], 16)
        return chr(code).encode() if code else _REPLACEMENT
    return _LETTERS[what]
