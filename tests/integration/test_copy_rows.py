"""Rows written with one COPY read back as they were, whatever text they hold."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundplan.core.copy_rows import copy_rows, copy_statement
from groundplan.testing.database import Database

COLUMNS = ("id", "text", "number", "yes", "at", "amount", "ratio")
AT = datetime(2026, 11, 27, 12, 0, 0, 123000, tzinfo=UTC)
SMALLEST = Decimal("0.000000000001")
texts = st.text(st.characters(exclude_categories=["Cs"])) | st.text('\\"\n\r\t\b\f\x00\x01\x7f,.nu0041[]', max_size=12)


@pytest.fixture
def conn(database: Database) -> Any:
    with psycopg.connect(database.urls["shipper"], autocommit=True) as opened:
        opened.execute(
            """CREATE TEMPORARY TABLE odd (id uuid PRIMARY KEY, text text, number bigint, yes boolean, at timestamptz,
               amount numeric(30,12), ratio double precision)"""
        )
        yield opened


def test_every_text_reads_back(conn: Any) -> None:
    @settings(max_examples=200, deadline=None)
    @given(st.lists(texts | st.none(), min_size=1, max_size=5))
    def reads_back(found: list[str | None]) -> None:
        conn.execute("TRUNCATE odd")
        rows = [
            (UUID(int=place), text, None if place % 2 else 2**53 + place, place == 1, AT, SMALLEST, 0.25)
            for place, text in enumerate(found)
        ]
        copy_rows(conn, copy_statement("odd", COLUMNS), rows)
        told = conn.execute("SELECT * FROM odd ORDER BY id").fetchall()
        # PostgreSQL has no NUL in text
        assert told == [(row[0], row[1] and row[1].replace("\0", "\ufffd"), *row[2:]) for row in rows]

    reads_back()


def test_rows_that_are_there_are_refused_with_all_others(conn: Any) -> None:
    statement = copy_statement("odd", ("id", "text"))
    copy_rows(conn, statement, [])
    copy_rows(conn, statement, [(UUID(int=1), "a")])
    with pytest.raises(psycopg.errors.UniqueViolation):
        copy_rows(conn, statement, [(UUID(int=2), "b"), (UUID(int=1), "c")])
    assert conn.execute("SELECT id, text FROM odd").fetchall() == [(UUID(int=1), "a")]
