"""Row-level security against a plain model of it: any groups, nested or cyclic, any readers, any refusals, any
grants on the source."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import psycopg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from groundplan.core.ids import new_id
from groundplan.knowledge import store
from groundplan.knowledge.model import Chunk, Readers, by_grant
from groundplan.release.store import set_source_grants
from groundplan.testing import document_rows
from groundplan.testing.database import Database
from groundplan.testing.document_rows import Document

GROUPS = ("g0", "g1", "g2")
PEOPLE = ("p0", "p1", "p2")
NAMES = ("everyone", *GROUPS, *[f"{name}@acme.example" for name in PEOPLE])

OWN, OTHER = by_grant("s"), by_grant("t")
"""Whoever has a grant on the source of the documents, and on another one."""
DAYS = {None: True, 0: True, 1: True, -1: False, -30: False}
"""Days from today until the last one of a grant -> whether it holds."""

_some_names = st.frozensets(st.sampled_from((*NAMES, OWN, OTHER)), max_size=3)


@dataclass(frozen=True)
class World:
    """`members`: (group, person or group in it); `readers` of one document each; `inactive` people have left."""

    members: frozenset[tuple[str, str]]
    readers: tuple[Readers, ...]
    inactive: frozenset[str]
    grants: dict[str, int | None]
    """Reader of the source by a grant -> days until its last one"""

    def names_of(self, person: str) -> set[str]:
        found, before = {person}, set[str]()
        while found != before:
            before = set(found)
            found |= {group for group, member in self.members if member in found}
        return (found - {person}) | {"everyone", f"{person}@acme.example"}

    def visible(self, person: str) -> set[str]:
        if person in self.inactive:
            return set()
        names = self.names_of(person)
        known = names | ({OWN} if any(DAYS[days] for name, days in self.grants.items() if name in names) else set())
        return {f"d{n}" for n, one in enumerate(self.readers) if one.allow & known and not one.deny & names}


_worlds = st.builds(
    World,
    members=st.frozensets(st.tuples(st.sampled_from(GROUPS), st.sampled_from(GROUPS + PEOPLE)), max_size=8),
    readers=st.lists(st.builds(Readers, allow=_some_names, deny=_some_names), min_size=1, max_size=4).map(tuple),
    inactive=st.frozensets(st.sampled_from(PEOPLE), max_size=1),
    grants=st.dictionaries(st.sampled_from(NAMES), st.sampled_from(list(DAYS)), max_size=2),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(world=_worlds)
def test_each_person_sees_exactly_what_the_rules_say(database: Database, world: World) -> None:
    day = datetime.now(UTC).date()
    with psycopg.connect(database.urls["control"], autocommit=True) as conn:
        people = _build(conn, world, day)
    with psycopg.connect(database.urls["search"], autocommit=True) as conn:
        for name, id in people.items():
            with conn.transaction():
                document_rows.act_for(conn, id)
                near = {chunk.path for chunk, _ in document_rows.nearest(conn, _unit(), ["s"], 100)}
                rows = conn.execute("SELECT path FROM document").fetchall()
            assert near == {path for (path,) in rows}
            assert near == world.visible(name) or day != datetime.now(UTC).date()
        assert document_rows.nearest(conn, _unit(), ["s"], 100) == [], "the person ends with the transaction"


def _build(conn: psycopg.Connection[Any], world: World, today: date) -> dict[str, Any]:
    for table in ("chunk", "document_reader", "document", "membership", "people_group", "person"):
        conn.execute(f"DELETE FROM {table}")
    people = {name: new_id() for name in PEOPLE}
    groups = {name: new_id() for name in GROUPS}
    for name, id in people.items():
        conn.execute(
            "INSERT INTO person (id, email, name, active) VALUES (%s, %s, %s, %s)",
            (id, f"{name}@acme.example", name, name not in world.inactive),
        )
    for name, id in groups.items():
        conn.execute("INSERT INTO people_group (id, name, type) VALUES (%s, %s, 'group')", (id, name))
    for group, member in world.members:
        conn.execute(
            "INSERT INTO membership (id, group_id, person_id, member_group_id) VALUES (%s, %s, %s, %s)",
            (new_id(), groups[group], people.get(member), groups.get(member)),
        )
    last = {
        name: None if days is None else (today + timedelta(days=days)).isoformat()
        for name, days in world.grants.items()
    }
    set_source_grants(conn, [("s", name, until) for name, until in last.items()])
    store.put_source(conn, "s", path="s", sensitivity="internal", owner="dana@acme.example")
    for number, readers in enumerate(world.readers):
        document = Document(f"d{number}", "t", "text", str(number), readers, markdown=False)
        with conn.transaction():
            document_rows.put_document(
                conn, "s", document, [Chunk(0, "text", 0, 4, 1, 1)], np.array([_unit()], np.float32)
            )
    return people


def _unit() -> list[float]:
    return [1.0] + [0.0] * 383
