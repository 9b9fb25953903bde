"""An owner who leaves starts a timer, as a finding for each duty that nobody else holds."""

from __future__ import annotations

import psycopg

from groundplan.api import store
from groundplan.core.audit import OPERATOR
from groundplan.identity import service
from groundplan.testing.database import Database


def test_only_duties_that_nobody_else_holds_are_told(database: Database) -> None:
    with psycopg.connect(database.urls["control"]) as conn:
        for email in ("eve@acme.example", "dan@acme.example"):
            service.add_person(conn, OPERATOR, email, email)
        service.nominate(conn, OPERATOR, "workload/a", {"business": ["eve@acme.example"], "data": ["eve@acme.example"]})
        service.nominate(conn, OPERATOR, "workload/b", {"data": ["eve@acme.example", "dan@acme.example"]})
        row = store.person_by_email(conn, "eve@acme.example")
        assert row is not None
        service.deactivate_person(conn, OPERATOR, row["id"])
        store.tell_duties_left(conn, row["id"], "eve@acme.example", "2027-01-01")
        told = [(item["subject"], item["message"]) for item in store.findings(conn) if item["kind"] == "owner.left"]
        assert sorted(told) == [
            ("workload/a", f"eve@acme.example has left and nobody else holds the duty {duty} of workload/a.")
            for duty in ("business", "data")
        ]
