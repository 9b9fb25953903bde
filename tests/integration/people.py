"""A database with some people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.core.database import connect
from groundplan.testing.database import Database


@contextmanager
def database_with_people(database: Database, people: Sequence[UUID]) -> Iterator[Connection[Any]]:
    """A connection of role owner to a database with these people; the e-mail address of each begins with its index."""
    with connect(database.urls["owner"], autocommit=True) as conn:
        for place, person in enumerate(people):
            conn.execute("INSERT INTO person (id, email, name) VALUES (%s, %s, 'x')", (person, f"{place}@acme.example"))
        yield conn
