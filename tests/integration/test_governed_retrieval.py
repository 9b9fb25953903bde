"""What may be retrieved at all, in the database itself: as role search, beside who may read it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from groundplan.catalog.workspace import enclosing_jurisdictions, satisfies_residency
from groundplan.core.ids import new_id
from groundplan.knowledge import store
from groundplan.testing import document_rows
from groundplan.testing.database import Database

TODAY, DAY = timedelta(), timedelta(days=1)
"""Days from the one on which a test begins."""


class World:
    """One person who may read everything, and documents that differ in what is said of them."""

    def __init__(self, database: Database) -> None:
        self.control = psycopg.connect(database.urls["control"], autocommit=True)
        self.search = psycopg.connect(database.urls["search"])
        self.person = new_id()
        self.today = datetime.now(UTC).date()
        self.control.execute(
            "INSERT INTO person (id, email, name) VALUES (%s, 'ana@acme.example', 'Ana')", (self.person,)
        )
        store.put_source(self.control, "s", path="s", sensitivity="internal", owner="ana@acme.example")

    def put(self, **columns: Any) -> UUID:
        id = new_id()
        days = {name: self.today + value for name, value in columns.items() if isinstance(value, timedelta)}
        values = {"id": id, "source": "s", "path": str(id), "title": "t", "digest": "d", **columns, **days}
        names = ", ".join(values)
        marks = ", ".join(["%s"] * len(values))
        self.control.execute(f"INSERT INTO document ({names}) VALUES ({marks})", list(values.values()))
        self.control.execute("INSERT INTO document_reader (document_id, reader) VALUES (%s, 'everyone')", (id,))
        return id

    def need(self, workload: str, **columns: Any) -> None:
        values = {"workload": workload, **columns}
        names, marks = ", ".join(values), ", ".join(["%s"] * len(values))
        self.control.execute(f"INSERT INTO workload_need ({names}) VALUES ({marks})", list(values.values()))

    def seen(self, workload: str = "", *, explain: bool = False) -> dict[UUID, str | None]:
        """What search reads for the workload, and why each is kept back."""
        with self.search.transaction():
            document_rows.act_for(self.search, self.person, workload, explain=explain)
            return dict(self.search.execute("SELECT id, kept_back(document, %s) FROM document", (workload,)).fetchall())


@pytest.fixture
def world(database: Database) -> Iterator[World]:
    world = World(database)
    yield world
    world.control.close()
    world.search.close()


def test_a_document_as_it_was_before_is_found(world: World) -> None:
    """No state, no validity, no scan, no score: approved through the owner of its source."""
    document = world.put()
    assert world.seen() == {document: None}


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"state": "draft"}, "draft"),
        ({"state": "rejected"}, "rejected"),
        ({"state": "superseded"}, "superseded"),
        ({"state": "retired"}, "retired"),
        ({"superseded_by": new_id()}, "superseded"),
        ({"valid_from": TODAY + DAY}, "not_yet_valid"),
        ({"valid_until": TODAY - DAY}, "expired"),
        ({"workloads": ["other"]}, "workload"),
        ({"purposes": ["marketing"]}, "purpose"),
        ({"residency": ["NO"]}, "residency"),
        ({"sensitivity": "confidential"}, "sensitivity"),
        ({"scanned_at": None}, "not_scanned"),
        ({"quality": 0.4}, "quality"),
        ({"quality": None}, "quality"),
    ],
)
def test_what_is_kept_back_is_not_read_and_says_why(world: World, columns: dict[str, Any], why: str) -> None:
    world.need(
        "w", purposes=["support"], sensitivity=1, quality_floor=0.5, scanned=True, residency=["SE|EU|EEA", "NO|EEA"]
    )
    good = {"sensitivity": "internal", "scanned_at": datetime.now(UTC), "quality": 0.9, "valid_until": TODAY}
    kept, found = world.put(**{**good, **columns}), world.put(**good, workloads=["w"], purposes=["support", "sales"])
    assert world.seen("w") == {found: None}
    assert world.seen("w", explain=True) == {found: None, kept: why}


@pytest.mark.parametrize(
    ("runs", "stays", "given"),
    [
        ([], ["EU"], False),
        ([], None, True),
        (["SE"], ["EU"], True),
        (["SE", "NO"], ["EU"], False),
        (["SE", "NO"], ["EEA"], True),
        (["SE", "NO"], ["SE", "NO"], True),
        (["EU"], ["EU", "US"], True),
        (["EU"], ["SE"], False),
        (["US"], ["EEA"], False),
    ],
)
def test_a_document_stays_where_it_may_be(world: World, runs: list[str], stays: list[str] | None, given: bool) -> None:
    world.need("w", residency=["|".join(enclosing_jurisdictions(each)) for each in runs])
    document = world.put(residency=stays)
    assert world.seen("w") == ({document: None} if given else {})
    assert (not stays or (bool(runs) and all(satisfies_residency(each, stays) for each in runs))) == given


def test_without_a_workload_nothing_that_is_kept_for_some_is_read(world: World) -> None:
    world.put(workloads=["w"])
    world.put(purposes=["support"])
    assert world.seen() == {}


def test_policy_and_explanation_never_disagree(world: World) -> None:
    """2,000 documents of all mixtures, four workloads, one of them unknown."""
    chance = random.Random(7)
    world.need("plain")
    world.need("strict", purposes=["a", "b"], sensitivity=1, quality_floor=0.6, scanned=True, residency=["NO|EEA"])
    world.need("floor", purposes=["c"], sensitivity=2, quality_floor=0.3)

    def either(*values: Any) -> Any:
        return chance.choice(values)

    ids = []
    with world.control.transaction():
        for _ in range(2000):
            ids.append(
                world.put(
                    state=either("approved", "approved", "approved", "approved", "draft", "retired"),
                    superseded_by=either(None, None, None, new_id()),
                    valid_from=either(None, TODAY, TODAY + DAY), valid_until=either(None, TODAY, TODAY - DAY, date.max),
                    workloads=either(None, None, ["strict"], ["floor", "plain"], []),
                    purposes=either(None, None, ["a"], ["c", "b"], []),
                    residency=either(None, None, ["EEA"], ["EU"]),
                    sensitivity=either("public", "internal", "confidential", "restricted", None),
                    quality=either(None, 0.2, 0.5, 0.9), scanned_at=either(None, datetime.now(UTC)),
                )
            )  # fmt: skip
    found = 0
    for workload in ("plain", "strict", "floor", "unknown", ""):
        why = world.seen(workload, explain=True)
        assert set(why) == set(ids)
        open_ = world.seen(workload)
        assert set(open_) == {id for id, reason in why.items() if reason is None}
        found += len(open_)
    assert 50 < found < 5000


def test_explaining_shows_nothing_that_the_person_may_not_read(world: World) -> None:
    hidden = world.put(state="draft")
    world.control.execute("DELETE FROM document_reader WHERE document_id = %s", (hidden,))
    gone = world.put(deleted_at=datetime.now(UTC))
    assert not {hidden, gone} & set(world.seen("w", explain=True))
