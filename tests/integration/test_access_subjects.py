"""A duty for one workload is none for another: every route that needs one, asked about another's workload or source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from tests.integration.test_access import World
from tests.integration.test_api_control import WORKSPACE, run_control

from groundplan.api.access.authorization import COMPANY_WIDE, actions_by_route
from groundplan.core.database import connect
from groundplan.core.ids import new_id
from groundplan.gateway.journal import ledger_store
from groundplan.identity import passkey_store, passkeys
from groundplan.identity import service as identity
from groundplan.identity.model import DUTIES, Passkey
from groundplan.knowledge.model import Readers
from groundplan.knowledge.store import put_source
from groundplan.testing.database import Cluster
from groundplan.testing.document_rows import Document, put_document

OTHER = "triage"
ANY_SUBJECT = {"open", "self", "own", "read", "plan", "operate", "scim"}
"""Asks for no duty, for any, or for a token; `self` and what is here is asked about below all the same."""
ASKS = {
    "POST /api/approvals", "POST /api/approvals/missing", "POST /api/changes/{change_id}/renew",
    "POST /api/policies/exceptions", "POST /api/erasures",
}  # fmt: skip
"""Whoever holds any duty may ask; others decide, and are in this table."""
NOBODYS = {
    "POST /api/changes/{change_id}/withdraw": "only who asked",
    "POST /api/terminals/{request_id}/confirm": "whoever it belongs to; what it decides is asked as at the change",
    "POST /api/knowledge/documents/{document_id}/links/{name}/withdraw": "as links are made",
    "POST /api/policies/exceptions/{id}/approve": "a change, approved as changes are",
    "POST /api/policies/exceptions/{id}/refuse": "a change, refused as changes are",
    "POST /api/policies/exceptions/{id}/end": "the rule's owner, or security and compliance of its workload",
    "POST /api/knowledge/held/{held_id}/read": "as decisions about its document",
}
WHY = {"reason": "because it is so"}


@dataclass(frozen=True)
class Others:
    """What is of another workload than whoever asks answers for."""

    world: World
    part: dict[str, str]
    """The session of who holds every duty for `assistant`."""
    passkey: str
    call: UUID
    own_call: UUID
    experiment: UUID
    replay: UUID
    held: UUID
    finding: UUID
    document: UUID
    key: str
    change: str

    def ask(self, route: str, body: Any, session: dict[str, str] | None = None) -> Any:
        method, path = route.split(" ")
        for name, value in {
            "passkey": self.passkey, "call_id": self.call, "finding_id": self.finding, "document_id": self.document,
            "key_id": self.key, "change_id": self.change, "name": "none", "edition": 1,
            "evidence_id": new_id(),
            "id": self.held if "/reviews/" in path else self.replay if "/replays/" in path
            else "resp_1" if "/responses/" in path else self.experiment,
        }.items():  # fmt: skip
            path = path.replace(f"{{{name}}}", str(value))
        return self.world.control.ask(method, path, body, **(self.part if session is None else session))


@pytest.fixture(scope="module")
def others(postgres_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Others]:
    folder = tmp_path_factory.mktemp("subjects")
    at = ("--workspace", str(folder / "workspace"))
    with (
        postgres_cluster.database() as database,
        run_control(database, folder, *at, module="groundplan.console.app") as control,
    ):
        control.sign_in("ana@acme.example")
        second = f"""---
kind: workload
name: {OTHER}
purpose: Sort tickets
stage: pilot
sensitivity: internal
residency: [EU]
deployments: [local]
owners: {{business: ana, security: sam}}
---
kind: budget
name: {OTHER}
covers: workload/{OTHER}
limit: 10 USD/month
"""
        made = control.ask("POST", "/api/apply", {"files": {"acme.yaml": WORKSPACE + second}})
        assert made.status == 200, made.body
        yield _others(World(control, database))


def _others(world: World) -> Others:
    world.person("whole", *DUTIES)
    part = world.person("part")
    key = world.control.ask("POST", "/api/keys", {"workload": OTHER}).body["id"]
    wish = {"kind": "prompt", "subject": f"prompt/{OTHER}", "what": {"text": "x"}, **WHY}
    change = world.control.ask("POST", "/api/approvals", wish)
    with connect(world.database.dsn) as conn:
        who = identity.find_person(conn, "part@acme.example").id
        whole = identity.find_person(conn, "whole@acme.example").id
        for duty in DUTIES:
            conn.execute(
                "INSERT INTO duty (subject, duty, person_id) VALUES ('workload/assistant', %s, %s)", (duty, who)
            )
        now = datetime.now(UTC)
        for person, confirmed in ((whole, now), (identity.find_person(conn, "sam@acme.example").id, None)):
            waiting = Passkey(
                id=new_id().bytes, person_id=person, material=b"x", sign_count=0, label="laptop", created_at=now,
                created_by="operator", used_at=None, confirmed_at=confirmed,
                confirmed_by="founding" if confirmed else None, waits_until=None,
            )  # fmt: skip
            assert passkey_store.insert(conn, waiting)
        calls = [_call(conn, workload) for workload in (OTHER, "assistant")]
        experiment, replay, held, finding = (new_id() for _ in range(4))
        conn.execute(
            """INSERT INTO experiment (id, name, workload, type, candidate, share, split, tolerance, guard_tolerance,
                 budget_usd, until, asked_by, state)
               VALUES (%s, 'e', %s, 'shadow', 'local', 1, 'person', 0.1, 0.1, 1, now() + interval '1 day', 'x',
                 'asked')""",
            (experiment, OTHER),
        )
        conn.execute(
            """INSERT INTO replay_run (id, workload, current, candidate, judge, budget_usd, calls, asked_by, state)
               VALUES (%s, %s, 'a', 'b', 'c', 1, 30, 'x', 'done')""",
            (replay, OTHER),
        )
        conn.execute(
            """INSERT INTO held_call (id, kind, workload, key_id, gateway, due_at)
               VALUES (%s, 'answer', %s, %s, %s, now() + interval '1 day')""",
            (held, OTHER, key, new_id()),
        )
        conn.execute(
            """INSERT INTO background_response (id, workload, owner, key_id, person, expires_at, sealed)
               VALUES ('resp_1', %s, %s, %s, '', now() + interval '1 day', 'x')""",
            (OTHER, key, key),
        )
        conn.execute(
            """INSERT INTO finding (id, kind, severity, subject, message, hint)
               VALUES (%s, 'x', 'high', %s, 'm', 'h')""",
            (finding, f"workload/{OTHER}"),
        )
    with connect(world.database.urls["control"]) as conn:  # whose rows the rules of documents are about
        put_source(conn, "handbook", path="handbook", sensitivity="internal", owner="ana@acme.example")
        document = Document("a.md", "A", "text", "x", Readers(frozenset({"everyone"})), markdown=True)
        put = put_document(conn, "handbook", document, [], np.empty((0, 384), np.float32))
    return Others(
        world, part, passkeys.hex_id(waiting), calls[0], calls[1], experiment, replay, held, finding, put, key,
        change.body["id"],
    )  # fmt: skip


def _call(conn: Any, workload: str, ticket: str | None = None) -> UUID:
    id = new_id()
    row: tuple[Any, ...] = (
        id, datetime.now(UTC), workload, None, None, "care", "chat", "ok", 200, None, "acme/m", "local", "here",
        Decimal("0.10"), 0, 3, 2, "none", 1, new_id(), False, 12.5, 3.5,
        {"ticket": ticket or f"T-{workload}"}, 0, 0,
    )  # fmt: skip
    ledger_store.insert_rows(conn, ledger_store.INSERT_CALLS, [row])
    return id


def bodies(others: Others) -> dict[str, Any]:
    """Route -> what is sent to it, of another workload, of a source, or of the company."""
    begin = {"workload": OTHER, "name": "e2", "candidate": "local", "budget_usd": 1, **WHY}
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    return {
        "POST /api/apply": {"files": {"acme.yaml": WORKSPACE}},
        "POST /api/placement/replan": {},
        "POST /api/prompts/{name}/rollback": {"to": 1, **WHY},
        "POST /api/rollback": {"to": 1},
        "POST /api/changes/{change_id}/approve": {},
        "POST /api/changes/{change_id}/refuse": {},
        "POST /api/experiments": begin,
        "POST /api/experiments/{id}/approve": WHY,
        "POST /api/experiments/{id}/refuse": WHY,
        "POST /api/experiments/{id}/stop": WHY,
        "POST /api/experiments/{id}/pairs/{call_id}/review": {"kept": True},
        "POST /api/replays": {"workload": OTHER, "candidate": "local", "judge": "local", "budget_usd": 1},
        "POST /api/replays/{id}/calls/{call_id}/review": {"kept": True},
        "GET /api/reviews/{id}": None,
        "POST /api/reviews/{id}/release": WHY,
        "POST /api/reviews/{id}/refuse": WHY,
        "POST /api/findings/{finding_id}/close": WHY,
        "POST /api/findings/{finding_id}/quiet": {"until": tomorrow.isoformat()},
        "POST /api/knowledge/documents/{document_id}/decide": {"what": "status", "value": "retired", **WHY},
        "POST /api/knowledge/documents/{document_id}/delete": WHY,
        "POST /api/knowledge/documents/{document_id}/links": {"until": f"{tomorrow.date()}", **WHY},
        "POST /api/kill": {"scope": f"workload/{OTHER}", **WHY},
        "POST /api/kill/lift": {"scope": f"workload/{OTHER}", **WHY},
        "POST /api/keys": {"workload": OTHER},
        "POST /api/keys/{key_id}/rotate": {"overlap": "1h"},
        "DELETE /api/keys/{key_id}": None,
        "POST /api/playground": {"workload": OTHER, "question": "x"},
        "POST /api/cache/clear": {"workload": OTHER},
        "POST /api/responses/{id}/cancel": {},
        "POST /api/outcomes/import": f"call,status,at\n{others.call},Done,2026-11-01\n".encode(),
        "POST /api/knowledge/index/build": {},
        "POST /api/knowledge/index/{edition}/compare": {},
        "POST /api/knowledge/index/{edition}/switch": {},
        "POST /api/knowledge/index/{edition}/drop": {},
        "POST /api/knowledge/index/rollback": {},
        "POST /api/knowledge/readmit": {"source": "handbook", "path": "a.md", **WHY},
        "POST /api/knowledge/mentions": {"words": ["somebody"], **WHY},
        "POST /api/knowledge/push": {"source": "handbook", "documents": [{"path": "a", "gone": True}]},
        "POST /api/actions": {"workload": OTHER, "says": "do it", "owner": "ana@acme.example", "due": "2027-01-01"},
        "POST /api/evidence": {"workload": OTHER, "what": "x", "type": "document", "says": "it is", "days": 3},
        "POST /api/evidence/collect": {},
        "POST /api/evidence/{evidence_id}/withdraw": WHY,
        "POST /api/register/shadow": b"call\n",
        "POST /api/passkeys/{passkey}/confirm": {},
        "POST /api/calls/{call_id}/content": WHY,
        "POST /api/outcomes": {"call_id": str(others.call), "accepted": True},
    }


def test_every_route_that_needs_a_duty_is_in_the_table(others: Others) -> None:
    needs = {
        route
        for route, action in actions_by_route().items()
        if action not in ANY_SUBJECT | COMPANY_WIDE and route not in ASKS
    }
    assert needs - set(bodies(others)) - set(NOBODYS) == set(), "say what it is asked about another's workload"
    assert (set(bodies(others)) | set(NOBODYS) | ASKS) - set(actions_by_route()) == set()


def test_a_duty_for_one_workload_is_none_for_another(others: Others) -> None:
    """Whoever declares a workload names its owners, so they would have had a say in all."""
    allowed = []
    for route, body in bodies(others).items():
        answer = others.ask(route, body)
        refused = answer.status == 403 and answer.code in {"duty_missing", "document_not_yours", "not_an_approver"}
        if not refused:
            allowed.append((route, answer.status, answer.body))
    assert allowed == []


def test_the_bill_is_compared_only_by_people_who_may_read_it(others: Others) -> None:
    """It shows what whoever holds any duty may look at, and changes nothing."""
    bill = b"date,model,cost\n2026-11-01,acme/m,1\n"
    auditor = others.world.person("auditing", "auditor")
    for session in (others.part, auditor):
        assert others.ask("POST /api/cost/reconcile", bill, session).status == 200


def test_outcomes_are_reported_only_for_ones_own_workload_and_call(others: Others) -> None:
    nobody = others.world.person("nobody")
    with connect(others.world.database.dsn) as conn:
        for workload in ("assistant", OTHER):
            _call(conn, workload, "SUP-1")
        theirs = _call(conn, OTHER)
        who = identity.find_person(conn, "nobody@acme.example").id
        conn.execute("UPDATE call SET person_id = %s WHERE id = %s", (who, theirs))
    told = {"call_id": str(others.own_call), "accepted": True}
    assert others.ask("POST /api/outcomes", told).status == 201
    assert others.ask("POST /api/outcomes", told, nobody).code == "duty_missing"
    assert others.ask("POST /api/outcomes", {**told, "call_id": str(theirs)}, nobody).status == 201
    ticket = {"ticket": "SUP-1", "status": "Resolved", "at": "2026-11-01T08:00:00Z"}
    assert others.ask("POST /api/outcomes", ticket, nobody).code == "duty_missing"
    assert others.ask("POST /api/outcomes", {**ticket, "ticket": "NONE-1"}, nobody).code == "duty_missing"
    kept = others.ask("POST /api/outcomes", ticket)
    assert [each["workload"] for each in kept.body["outcomes"]] == ["assistant"]
    lines = b"ticket,status,at\nSUP-1,Done,2026-11-02\nT-triage,Done,2026-11-02\n"
    taken = others.ask("POST /api/outcomes/import", lines).body
    assert (taken["new"], [each["code"] for each in taken["refused"]]) == (1, ["duty_missing"])
    whole = others.ask("POST /api/outcomes/import", lines, {}).body
    assert (whole["new"], whole["same"], whole["refused"]) == (2, 0, []), "the operator tells what is left"


def test_a_read_token_sees_everybodys_calls_and_other_tokens_are_told_the_missing_scope(
    others: Others,
) -> None:
    control = others.world.control
    made = control.ask("POST", "/api/tokens", {"name": "monitor", "scopes": ["read"]}).body
    token = {"Authorization": f"Bearer {made['token']}"}
    for path in ("status", "overview", "workloads", "names", f"workloads/{OTHER}", "readiness", "calls"):
        assert control.ask("GET", f"/api/{path}", **token).status == 200, path
    assert {row["id"] for row in control.ask("GET", "/api/calls", **token).body["calls"]} >= {str(others.call)}
    assert control.ask("GET", f"/api/calls/{others.call}", **token).status == 200
    refused = control.ask("POST", "/api/plan", {"files": {"a.yaml": "x"}}, **token)
    assert (refused.status, refused.code) == (403, "scope_missing")
    assert "--scope plan" in refused.body["error"]["hint"]
