"""The example company: the outdated policy is kept back, the salary bands are for HR, the duplicate is found."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from groundplan.catalog.check import validate
from groundplan.core.ids import new_id
from groundplan.knowledge.ingest import IngestSettings, ingest_source
from groundplan.knowledge.quality.assess import assess, scan_pending
from groundplan.knowledge.quality.text import glossary
from groundplan.knowledge.sources.folder import FolderConnector
from groundplan.release.compile.draft import compile_draft, declared_caps, declared_owners
from groundplan.release.store import set_workload_needs
from groundplan.testing import document_rows
from groundplan.testing.database import Database

EXAMPLE = Path(__file__).parents[2] / "examples/company"
TODAY = date(2026, 11, 25)


class Acme:
    def __init__(self, database: Database) -> None:
        workspace = validate(EXAMPLE)
        draft = compile_draft(workspace, None, declared_caps(workspace), declared_owners(workspace), today=TODAY)
        self.blueprint = draft.blueprint
        self.conn = psycopg.connect(database.urls["control"], autocommit=True)
        self.search = psycopg.connect(database.urls["search"])
        self.people = {email: self.person(email) for email in workspace.names_by_email()}
        for name, group in workspace.groups.items():
            id = new_id()
            self.conn.execute("INSERT INTO people_group (id, name, type) VALUES (%s, %s, 'group')", (id, name))
            for member in group.members:
                self.conn.execute(
                    "INSERT INTO membership (id, group_id, person_id) VALUES (%s, %s, %s)",
                    (new_id(), id, self.people[workspace.email_of(member)]),
                )
        set_workload_needs(self.conn, self.blueprint.workloads)
        for source in self.blueprint.sources:
            settings = IngestSettings(self.blueprint.review_days.get(source.name))
            ingest_source(self.conn, source, FolderConnector(EXAMPLE / source.path), settings)
        scan_pending(self.conn, glossary(self.blueprint.terms))
        for source in self.blueprint.sources:
            assess(self.conn, source.name, TODAY)

    def person(self, email: str) -> UUID:
        id = new_id()
        self.conn.execute("INSERT INTO person (id, email, name) VALUES (%s, %s, %s)", (id, email, email))
        return id

    def read(self, who: str, workload: str, *, explain: bool = False) -> dict[str, Any]:
        """Path -> why it is kept back, of what search reads."""
        with self.search.transaction():
            document_rows.act_for(self.search, self.people[f"{who}@acme.example"], workload, explain=explain)
            return dict(
                self.search.execute("SELECT path, kept_back(document, %s) FROM document", (workload,)).fetchall()
            )


@pytest.fixture
def acme(database: Database) -> Iterator[Acme]:
    acme = Acme(database)
    yield acme
    acme.conn.close()
    acme.search.close()


def test_what_the_example_promises_of_its_documents(acme: Acme) -> None:
    everybody = acme.read("ben", "staff-assistant")
    assert "travel-expenses.md" in everybody
    assert "travel-expenses-2021.md" not in everybody
    assert acme.read("ben", "staff-assistant", explain=True)["travel-expenses-2021.md"] == "superseded"
    assert "salary-bands.md" not in acme.read("ben", "staff-assistant", explain=True)
    assert "salary-bands.md" in acme.read("hana", "staff-assistant")
    rows = acme.conn.execute("SELECT kind, subject, owner FROM finding WHERE closed_at IS NULL").fetchall()
    assert ("knowledge.duplicate", "source/handbook/remote-work-copy.md", "maria@acme.example") in rows
    assert {kind for kind, *_ in rows} == {"knowledge.duplicate", "knowledge.stale", "knowledge.superseded"}
