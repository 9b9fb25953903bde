"""A document shared by a link: read by whoever opened it, at each query, until it is withdrawn, over, or refused."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import psycopg
import pytest

from groundplan.core.errors import GroundplanError
from groundplan.core.ids import new_id
from groundplan.knowledge import store
from groundplan.knowledge.governance import governed_store, share, share_store
from groundplan.knowledge.model import Readers
from groundplan.testing import document_rows
from groundplan.testing.database import Database

NOW = datetime.now(UTC)
SOON = NOW.date() + timedelta(days=7)


class World:
    """A document that only its owner may read, and somebody else."""

    def __init__(self, database: Database) -> None:
        self.control = psycopg.connect(database.urls["control"], autocommit=True)
        self.search = psycopg.connect(database.urls["search"])
        self.owner, self.ben = new_id(), new_id()
        for id, name in ((self.owner, "ana"), (self.ben, "ben")):
            self.control.execute(
                "INSERT INTO person (id, email, name) VALUES (%s, %s, 'p')", (id, f"{name}@acme.example")
            )
        store.put_source(self.control, "s", path="s", sensitivity="internal", owner="ana@acme.example")
        self.document = new_id()
        self.control.execute(
            "INSERT INTO document (id, source, path, title, digest, sensitivity) VALUES (%s, 's', 'p', 't', 'd', %s)",
            (self.document, "internal"),
        )
        self.readers("ana@acme.example")

    def readers(self, *allow: str, deny: tuple[str, ...] = ()) -> None:
        """As an ingestion writes them."""
        with self.control.transaction():
            document_rows.set_readers(self.control, self.document, Readers(frozenset(allow), frozenset(deny)))

    def may(self, person: UUID) -> bool:
        with self.search.transaction():
            document_rows.act_for(self.search, person, "")
            return bool(self.search.execute("SELECT id FROM document").fetchall())

    def by(self, person: UUID | None) -> share.LinkActor:
        return share.LinkActor(f"person:{person}", person, NOW)

    def share(self, until: date = SOON) -> share.NewLink:
        with self.control.transaction():
            return share.create_link(self.control, self.document, until, "for the audit", self.by(self.owner))

    def open(self, word: str) -> None:
        with self.control.transaction():
            share.open_link(self.control, word, self.by(self.ben))

    def refused(self, word: str) -> bool:
        with pytest.raises(GroundplanError) as caught:
            self.open(word)
        return caught.value.code == "link_unknown"


@pytest.fixture
def world(database: Database) -> Iterator[World]:
    made = World(database)
    yield made
    made.control.close()
    made.search.close()


def test_a_link_opens_the_document_until_it_is_withdrawn(world: World) -> None:
    made = world.share()
    assert not world.may(world.ben), "a link that nobody opened gives nothing"
    assert world.refused("gpl_" + "x" * 32)
    world.open(made.word)
    world.open(made.word)
    assert world.may(world.ben) and world.may(world.owner)
    told = governed_store.why_readable(world.control, world.document, world.ben)
    assert told == {"readable": True, "by": [{"reader": f"link/{made.name}", "refuses": False, "through": []}]}
    people = {row["email"]: row["by"] for row in governed_store.who_may_read(world.control, world.document)}
    assert people["ben@acme.example"] == [f"link/{made.name}"], "and is shown in who can see it"
    world.readers("ana@acme.example")
    assert world.may(world.ben), "reading the source again does not end it"
    world.readers("ana@acme.example", deny=("ben@acme.example",))
    assert not world.may(world.ben), "a refusal wins"
    world.readers("ana@acme.example")
    with world.control.transaction():
        share.withdraw_link(world.control, world.document, made.name, world.by(world.owner))
    assert not world.may(world.ben), "and withdrawn, it is over at the next query"
    assert world.refused(made.word)
    (row,) = share_store.list_links(world.control, world.document)
    assert (row["holds"], row["opened_by"], row["made_by"]) == (False, ["ben@acme.example"], "ana@acme.example")
    kinds = [a for (a,) in world.control.execute("SELECT action FROM audit_entry ORDER BY at, id").fetchall()]
    assert sorted(kinds) == ["knowledge.link_opened", "knowledge.link_withdrawn", "knowledge.shared"]
    kept = world.control.execute("SELECT digest FROM shared_link").fetchone()
    assert kept is not None and made.word.encode() not in bytes(kept[0]), "its word is kept nowhere"


def test_a_link_ends_with_its_last_day_and_with_its_person(world: World) -> None:
    made = world.share()
    world.open(made.word)
    world.control.execute("UPDATE shared_link SET until = %s", (NOW.date() - timedelta(days=1),))
    assert not world.may(world.ben) and world.refused(made.word)
    world.control.execute("UPDATE shared_link SET until = %s", (SOON,))
    assert world.may(world.ben)
    world.control.execute("UPDATE person SET active = false WHERE id = %s", (world.ben,))
    assert not world.may(world.ben)


def test_a_link_of_what_became_restricted_opens_nothing_while_it_is(world: World) -> None:
    made, other = world.share(), world.share()
    world.open(made.word)
    assert world.may(world.ben)
    for sensitivity in ("restricted", None):
        with world.control.transaction():
            world.control.execute("UPDATE document SET sensitivity = %s", (sensitivity,))
        assert not world.may(world.ben), "from the next query on"
        assert world.may(world.owner)
        assert world.refused(made.word) and world.refused(other.word)
        told = governed_store.why_readable(world.control, world.document, world.ben)
        assert told == {"readable": False, "by": []}
        people = governed_store.who_may_read(world.control, world.document)
        assert [row["email"] for row in people] == ["ana@acme.example"]
        assert [row["holds"] for row in share_store.list_links(world.control, world.document)] == [False, False]
        world.readers("ana@acme.example", "hr")
        assert not world.may(world.ben), "nor when its readers are written anew"
        world.control.execute("UPDATE document SET sensitivity = 'confidential'")
        assert world.may(world.ben), "it is shared as it was"
        world.open(other.word)


def test_what_may_not_be_shared_so_is_refused(world: World) -> None:
    for until in (NOW.date() - timedelta(days=1), NOW.date() + timedelta(days=share.MAX_LINK_DAYS + 1)):
        with pytest.raises(GroundplanError) as caught:
            world.share(until)
        assert caught.value.code == "link_until"
    world.control.execute("UPDATE document SET sensitivity = 'restricted'")
    with pytest.raises(GroundplanError) as caught:
        world.share()
    assert caught.value.code == "link_restricted"
    world.control.execute("UPDATE document SET deleted_at = now()")
    with pytest.raises(GroundplanError) as caught:
        world.share()
    assert caught.value.code == "document_unknown"
