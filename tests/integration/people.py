"""A database in which some people are known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.core.database import connect
from groundplan.testing.database import Database


@contextmanager
def with_people(database: Database, people: Sequence[UUID]) -> Iterator[Connection[Any]]:
    """A connection of role owner; the address of each is its place among them."""
    with connect(database.urls["owner"], autocommit=True) as conn:
        for place, person in enumerate(people):
            conn.execute("INSERT INTO person (id, email, name) VALUES (%s, %s, 'x')", (person, f"{place}@acme.example"))
        yield conn
