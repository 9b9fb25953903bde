"""Grants to read: from declarations to what somebody finds, at once and without reading the source again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from psycopg.rows import dict_row
from tests.unit.test_release_plan import BASE

from groundplan.api.knowledge import store as shown
from groundplan.blueprint.artifact import decode
from groundplan.core.audit import OPERATOR
from groundplan.identity import service as identity
from groundplan.knowledge.ingest import ingest_source
from groundplan.knowledge.intake.vectors import embed_pending
from groundplan.knowledge.model import Vectors
from groundplan.knowledge.sources.folder import FolderConnector
from groundplan.release import service, undo
from groundplan.release import store as blueprints
from groundplan.release.publish import Signing
from groundplan.testing import ManualClock, document_rows
from groundplan.testing.database import Database

PEOPLE = (
    BASE.replace("readers: [everyone]", "readers: [hr]")
    + """---
kind: group
name: hr
members: [hana@acme.example]
---
kind: group
name: audit
members: [ben@acme.example]
---
kind: group
name: contractors
members: [carl@acme.example]
"""
)
GRANT = """---
kind: grant
name: year-end
to: [audit, carl@acme.example]
on: source/handbook
allows: read
"""
FILES = {
    "leave.md": "# Leave\n\n28 days.\n",
    "inner/.readers": "!contractors\n",
    "inner/inside.md": "# Inside\n\nNot for contractors.\n",
    "board.md": "---\nreaders: [hana@acme.example]\n---\n# Board\n\nFor Hana alone.\n",
}
ALL, OPEN = {"leave.md", "inner/inside.md", "board.md"}, {"leave.md", "inner/inside.md"}


class Alike:
    """Puts every text at the same place, so that everything readable is found."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        return np.tile(np.eye(1, 384, dtype=np.float32), (len(texts), 1))


class World:
    def __init__(self, database: Database, folder: Path) -> None:
        self.urls, self.folder = database.urls, folder
        self.signing = Signing(Ed25519PrivateKey.generate(), ManualClock(datetime.now(UTC)))
        for path, text in FILES.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")

    def release(self, text: str) -> None:
        with psycopg.connect(self.urls["control"]) as conn:
            if service.current(conn) is None:
                service.genesis(conn, self.signing, {"a.yaml": text})
            else:
                service.apply(conn, self.signing, OPERATOR, {"a.yaml": text})

    def read(self) -> None:
        """Take over the documents of the newest blueprint."""
        with psycopg.connect(self.urls["control"], autocommit=True) as conn:
            stored = blueprints.newest_blueprint(conn)
            assert stored is not None
            assert not ingest_source(conn, decode(stored.body).sources[0], FolderConnector(self.folder)).failed
            embed_pending(conn, Alike())

    def found(self, email: str) -> set[str]:
        with psycopg.connect(self.urls["control"]) as conn:
            person = identity.find_person(conn, email).id
        with psycopg.connect(self.urls["search"]) as conn:
            document_rows.act_for(conn, person)
            return {chunk.path for chunk, _ in document_rows.nearest(conn, [1.0, *[0.0] * 383], ["handbook"], 50)}

    def everybody(self) -> dict[str, set[str]]:
        return {name: self.found(f"{name}@acme.example") for name in ("hana", "ben", "carl")}


def test_access_follows_the_grants_of_blueprint_and_group(database: Database, tmp_path: Path) -> None:
    world = World(database, tmp_path)
    world.release(PEOPLE)
    world.read()
    assert world.everybody() == {"hana": ALL, "ben": set(), "carl": set()}
    world.release(PEOPLE + GRANT)
    assert world.everybody() == {"hana": ALL, "ben": OPEN, "carl": {"leave.md"}}, (
        "documents with their own readers stay"
    )
    with psycopg.connect(world.urls["control"], row_factory=dict_row) as conn:
        rows: list[Any] = shown.documents(conn)
        assert {row["path"]: row["readers"] for row in rows}["leave.md"] == ["audit", "carl@acme.example", "hr"]
    with psycopg.connect(world.urls["control"]) as conn:
        identity.remove_member(conn, OPERATOR, "audit", "ben@acme.example")
    assert world.found("ben@acme.example") == set()
    world.release(PEOPLE)
    assert world.everybody() == {"hana": ALL, "ben": set(), "carl": set()}


def test_a_grant_expires_after_its_last_day(database: Database, tmp_path: Path) -> None:
    world = World(database, tmp_path)
    today = datetime.now(UTC).date()
    world.release(PEOPLE + GRANT + f"until: {today + timedelta(days=1)}\n")
    world.read()
    assert world.found("ben@acme.example") == OPEN
    with psycopg.connect(world.urls["control"]) as conn:
        conn.execute("UPDATE source_grant SET until = until - 2")
    assert world.everybody() == {"hana": ALL, "ben": set(), "carl": set()}


def test_a_rollback_restores_no_removed_reader(database: Database, tmp_path: Path) -> None:
    world = World(database, tmp_path)
    world.release(PEOPLE + GRANT)
    world.read()
    assert world.found("ben@acme.example") == OPEN
    world.release(PEOPLE)
    with psycopg.connect(world.urls["control"]) as conn:
        assert service.rollback(conn, world.signing, OPERATOR).number == 3
    assert world.found("ben@acme.example") == set()


def test_a_reader_removed_from_a_source_finds_nothing_after_the_release(database: Database, tmp_path: Path) -> None:
    """Without a look at the source."""
    world = World(database, tmp_path)
    both = PEOPLE.replace("readers: [hr]", "readers: [hr, audit]")
    world.release(both)
    world.read()
    assert world.everybody() == {"hana": ALL, "ben": OPEN, "carl": set()}
    world.release(PEOPLE)
    assert world.everybody() == {"hana": ALL, "ben": set(), "carl": set()}
    world.release(both)
    assert world.found("ben@acme.example") == set(), "what is widened waits for a look"
    world.read()
    assert world.found("ben@acme.example") == OPEN


def test_a_rollback_restores_no_removed_reader_of_a_source(database: Database, tmp_path: Path) -> None:
    world = World(database, tmp_path)
    world.release(PEOPLE.replace("readers: [hr]", "readers: [hr, audit]"))
    world.read()
    ruled = "governed: {workloads: [assistant], state: draft, legal_hold: true}"
    world.release(PEOPLE.replace("readers: [hr]", f"readers: [hr]\n{ruled}"))
    with psycopg.connect(world.urls["control"]) as conn:
        assert service.rollback(conn, world.signing, OPERATOR).number == 3
        stored = blueprints.newest_blueprint(conn)
    assert stored is not None
    (source,) = decode(stored.body).sources
    rule = source.governed
    assert (source.readers, rule.workloads, rule.state, rule.legal_hold) == (["hr"], ["assistant"], "draft", True)
    world.read()
    assert world.everybody() == {"hana": set(), "ben": set(), "carl": set()}, "a draft is not given either"


@pytest.mark.parametrize(
    ("old", "now", "both"),
    [
        ([], [], []), (["a"], [], ["a"]), ([], ["a"], ["a"]), (["a", "b"], ["b", "c"], ["b"]),
        (["a"], ["b"], ["b"]),
    ],
)  # fmt: skip
def test_a_rollback_allows_what_was_allowed_then_and_still_is(old: list[str], now: list[str], both: list[str]) -> None:
    assert undo._intersection(old, now) == both
