"""An owner who leaves starts a timer, as a finding for each duty that nobody else holds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tests.unit.test_release_plan import BASE

from groundplan.api import store
from groundplan.core.audit import OPERATOR
from groundplan.core.errors import Invalid
from groundplan.identity import service
from groundplan.identity.model import SUCCESSION
from groundplan.ledger import finding_store
from groundplan.release import service as release
from groundplan.release.publish import Signing
from groundplan.testing import ManualClock
from groundplan.testing.database import Database


def test_each_orphaned_duty_becomes_a_finding_after_the_grace_and_a_new_owner_closes_it(database: Database) -> None:
    with psycopg.connect(database.urls["control"]) as conn:
        for email in ("eve@acme.example", "dan@acme.example"):
            service.add_person(conn, OPERATOR, email, email)
        service.nominate(conn, OPERATOR, "workload/a", {"business": ["eve@acme.example"], "data": ["eve@acme.example"]})
        service.nominate(conn, OPERATOR, "workload/b", {"data": ["eve@acme.example", "dan@acme.example"]})
        service.deactivate_person(conn, OPERATOR, service.find_person(conn, "eve@acme.example").id)
        today = datetime.now(UTC).date()
        assert store.update_departed_owner_findings(conn, today) == 2
        assert store.update_departed_owner_findings(conn, today + SUCCESSION) == 0, "the last day is still in time"
        assert _told(conn) == [
            ("workload/a", "medium", f"eve@acme.example has left and nobody else holds the duty {duty} of workload/a.")
            for duty in ("business", "data")
        ]
        late = today + SUCCESSION + timedelta(days=1)
        assert store.update_departed_owner_findings(conn, late) == 2
        assert {severity for _, severity, _ in _told(conn)} == {"critical"}
        assert store.update_departed_owner_findings(conn, late) == 0
        service.nominate(conn, OPERATOR, "workload/a", {"business": ["dan@acme.example"], "data": ["eve@acme.example"]})
        assert store.update_departed_owner_findings(conn, late) == 1
        ((_, severity, message),) = _told(conn)
        assert severity == "critical" and "duty data" in message


def test_a_release_owned_by_a_leaver_is_refused(database: Database) -> None:
    signing = Signing(Ed25519PrivateKey.generate(), ManualClock(datetime.now(UTC)))
    changed = BASE.replace("Answer staff", "Answer all staff")
    with psycopg.connect(database.urls["control"]) as conn:
        release.genesis(conn, signing, {"a.yaml": BASE})
        service.deactivate_person(conn, OPERATOR, service.find_person(conn, "ana@acme.example").id)
        assert release.preview(conn, signing, {"a.yaml": changed}).refusals == ()
        conn.execute("UPDATE person SET left_at = left_at - interval '31 days' WHERE email = 'ana@acme.example'")
        with pytest.raises(Invalid) as refused:
            release.apply(conn, signing, OPERATOR, {"a.yaml": changed})
        assert refused.value.code == "owner_overdue" and refused.value.where is not None
        assert [problem.code for problem in release.preview(conn, signing, {"a.yaml": changed}).refusals] == [
            "owner_overdue"
        ]
        assert release.apply(conn, signing, OPERATOR, {"a.yaml": changed.replace("ana@", "bea@")}).number == 2
        assert release.rollback(conn, signing, OPERATOR, 1).number == 3, "going back is always possible"


def _told(conn: psycopg.Connection[Any]) -> list[tuple[str, str, str]]:
    found = [item for item in finding_store.list_findings(conn) if item["kind"] == "owner.left"]
    return sorted((item["subject"], item["severity"], item["message"]) for item in found)
