"""Sources and documents over the control API: what holds and why, decisions, deletion, pushes, and who may do which.

One process and one database for all, in which each test changes documents of its own only (`OWN`).
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from tests.integration.test_api_control import WORKSPACE, Control, run_control
from tests.integration.test_experiment_pages import Console
from typer.testing import CliRunner

from groundplan.api.caller import Caller
from groundplan.api.routes.documents import require_decider, require_document
from groundplan.api.served_blueprint import current_blueprint
from groundplan.cli.knowledge import app
from groundplan.core.database import connect
from groundplan.core.endpoints import announce
from groundplan.core.errors import Denied, NotFound
from groundplan.core.ids import new_id
from groundplan.gateway.journal import ledger_store
from groundplan.knowledge.evaluation.history import record_run
from groundplan.knowledge.ingest import ingest_source
from groundplan.knowledge.service_client import SEARCH
from groundplan.knowledge.sources.push import PushConnector
from groundplan.ledger import finding_store, outcome_store
from groundplan.ledger.finding import Finding
from groundplan.testing.database import Cluster, Database

SOURCES = """
kind: source
name: handbook
path: ./handbook
sensitivity: internal
owner: ana
readers: [everyone]
review_every: 365d
governed: {steward: sam}
---
kind: source
name: pushed
connector: {type: push}
sensitivity: internal
owner: ana
readers: [hr]
---
kind: source
name: site
connector: {type: sql, table: articles, dsn: "env:NO_SUCH_SECRET"}
sensitivity: internal
owner: ana
readers: [hr]
---
kind: term
name: pump
title: pump
meaning: A machine that moves liquids
forbidden: [pumping machine]
---
"""
OWN = ("retired", "shared", "asked", "cited", "thumbs", "gone", "told", "held")
"""Documents of the handbook that one test each changes."""


@pytest.fixture(scope="module")
def base(postgres_cluster: Cluster) -> Iterator[Database]:
    with postgres_cluster.database() as database:
        yield database


@pytest.fixture(scope="module")
def control(base: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    folder = tmp_path_factory.mktemp("knowledge")
    handbook = folder / "workspace/handbook"
    handbook.mkdir(parents=True)
    (handbook / "leave.md").write_text("# Leave\n\n28 days with a pumping machine.\n", encoding="utf-8")
    for name in OWN:
        (handbook / f"{name}.md").write_text(f"# {name}\n\nNothing but {name} is in it.\n", encoding="utf-8")
    (handbook / "over.md").write_text("---\nvalid_until: 2020-01-01\n---\n# Over\n\nIt held once.\n")
    (handbook / "soon.md").write_text("---\nvalid_from: 2999-01-01\n---\n# Soon\n\nIt will hold.\n")
    (handbook / "bad.docx").write_bytes(b"nothing")
    (handbook / "mine.md").write_text("---\nowner: ben@acme.example\n---\n# Mine\n\nBen's own.\n")
    (handbook / "secret.md").write_text("---\nreaders: [hr]\n---\n# Secret\n\nFor few.\n")
    text = WORKSPACE.replace("deployments: [local]\n", "deployments: [local]\nsources: [handbook, pushed, site]\n")
    (folder / "workspace/knowledge.yaml").write_text(SOURCES.strip().removesuffix("---"), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.integration.test_api_control.WORKSPACE", text)
        with run_control(base, folder, module="groundplan.console.app") as found:
            wait(found, lambda: taken_over(found))
            assert found.ask("POST", "/api/people", {"email": "ben@acme.example", "name": "Ben"}).status == 201
            found.sign_in("sam@acme.example")  # holds a duty, and so may confirm the passkeys of the others
            yield found


def taken_over(control: Control) -> bool:
    """Whether all sources were read, and what was read was scanned and assessed after that."""
    rows = documents(control)
    sources = {row["name"]: row for row in control.ask("GET", "/api/knowledge/sources").body["sources"]}
    told = {row["kind"] for row in control.ask("GET", "/api/findings?kind=knowledge.").body["findings"]}
    return (
        len(rows) == len(OWN) + 5  # bad.docx is none
        and all(row["scanned"] for row in rows)
        and sources["site"]["health"] == "down"
        and {"knowledge.unreadable", "knowledge.glossary", "knowledge.source_missing"} <= told
    )


def wait(control: Control, true: Any, seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, control.ask("GET", "/api/knowledge/sources").body
        time.sleep(0.2)


def documents(control: Control, query: str = "") -> list[dict[str, Any]]:
    return list(control.ask("GET", f"/api/knowledge/documents{query}").body["documents"])


def one(control: Control, path: str) -> dict[str, Any]:
    (row,) = [row for row in documents(control) if row["path"] == path]
    return dict(control.ask("GET", f"/api/knowledge/documents/{row['id']}").body)


def test_sources_say_how_they_are_and_whose(control: Control) -> None:
    found = {row["name"]: row for row in control.ask("GET", "/api/knowledge/sources").body["sources"]}
    handbook = found["handbook"]
    assert (handbook["owner"], handbook["steward"], handbook["health"]) == (
        "ana@acme.example",
        "sam@acme.example",
        "failing",
    )
    assert 0 < handbook["quality"] < 1
    assert handbook["trend"]
    assert found["pushed"]["type"] == "push"
    assert (found["site"]["health"], "NO_SUCH_SECRET" in found["site"]["health_reason"]) == ("down", True)
    kinds = {row["kind"] for row in control.ask("GET", "/api/findings?kind=knowledge.").body["findings"]}
    assert {"knowledge.unreadable", "knowledge.glossary", "knowledge.source_missing"} <= kinds


def test_a_document_says_what_holds_for_it_and_why(control: Control) -> None:
    found = one(control, "leave.md")
    assert found["document"]["origins"]["steward"]["from"] == "source/handbook"
    assert found["workloads"] == [{"workload": "assistant", "kept_back": None}]
    assert [row["reader"] for row in found["readers"]] == ["everyone", "source/handbook"]
    assert {row["email"] for row in found["people"]} >= {"ana@acme.example", "sam@acme.example"}
    assert [row["kind"] for row in found["findings"]] == ["knowledge.glossary"]
    why = control.ask("GET", f"/api/knowledge/documents/{found['document']['id']}/access?person=ana@acme.example").body
    assert (why["readable"], why["by"][0]["reader"]) == (True, "everyone")
    assert [row["path"] for row in documents(control, "?text=LEAVE")] == ["leave.md"]


def test_where_more_people_may_read_a_document_than_are_told_it_says_so(
    control: Control, base: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROUNDPLAN_URL", f"http://127.0.0.1:{control.port}")
    monkeypatch.setenv("GROUNDPLAN_TOKEN", control.home.operator_token.read_text().strip())
    assert one(control, "leave.md")["more_people"] is False
    with closing(connect(base.urls["control"], autocommit=True)) as conn:
        conn.execute(
            """INSERT INTO person (id, email, name) SELECT gen_random_uuid(), 'crowd' || n || '@acme.example', 'crowd'
               FROM generate_series(1, 500) n"""
        )
        try:
            found, few = one(control, "leave.md"), one(control, "secret.md")
            told = [CliRunner().invoke(app, [what, "handbook/leave.md"]).output for what in ("document", "access")]
        finally:
            conn.execute("DELETE FROM person WHERE name = 'crowd'")
    addresses = [row["email"] for row in found["people"]]
    assert (len(addresses), addresses, found["more_people"]) == (500, sorted(addresses), True)
    assert ([row["email"] for row in few["people"]], few["more_people"]) == (["ana@acme.example"], False)
    assert "more than 500 people may read it" in told[0], told
    assert "Others may read it, too" in told[1], told


def test_owner_steward_and_operator_decide_and_nobody_else(control: Control) -> None:
    id = one(control, "retired.md")["document"]["id"]
    place, body = f"/api/knowledge/documents/{id}/decide", {"what": "state", "value": "retired", "reason": "over"}
    steward = control.sign_in("sam@acme.example")
    assert control.ask("POST", place, body, **steward).body["document"]["state"] == "retired"
    assert [row["path"] for row in documents(control, "?state=retired")] == ["retired.md"]
    assert "retired.md" in {row["path"] for row in documents(control, "?state=kept%20back")}
    assert one(control, "retired.md")["workloads"][0]["kept_back"] == "retired"
    assert control.ask("POST", place, {**body, "value": "gold"}).code == "decision_value"
    assert control.ask("POST", place, {**body, "value": None}).status == 200
    assert control.ask("POST", f"{place[:-8]}/nothing").status == 404


def test_a_document_is_shown_as_it_stands_and_not_as_it_was_approved(control: Control) -> None:
    for path, standing, why in (("over.md", "expired", "expired"), ("soon.md", "not_yet_valid", "not_yet_valid")):
        (row,) = documents(control, f"?state={standing}")
        assert (row["path"], row["state"], row["standing"]) == (path, "approved", standing)
        found = one(control, path)
        assert (found["document"]["standing"], found["workloads"][0]["kept_back"]) == (standing, why)
    kept_back = {row["path"] for row in documents(control, "?state=kept%20back")}
    approved = {row["path"] for row in documents(control, "?state=approved")}
    assert {"over.md", "soon.md"} <= kept_back and "leave.md" in approved and not kept_back & approved
    (source,) = [
        row for row in control.ask("GET", "/api/knowledge/sources").body["sources"] if row["name"] == "handbook"
    ]
    assert source["kept_back"] == len(documents(control, "?state=kept%20back&source=handbook"))
    page = Console(control, "", "", control.sign_in("sam@acme.example")).page("/knowledge/documents?text=over.md")
    assert '<span class="badge badge-wait">expired</span>' in page and "badge-ok" not in page
    reader = Console(control, "", "", control.sign_in("ben@acme.example"))
    assert 'badge-wait">not yet valid<' in reader.page(
        f"/knowledge/documents/{one(control, 'soon.md')['document']['id']}"
    )


def test_owners_share_by_link_and_people_open_it(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    id = one(control, "shared.md")["document"]["id"]
    place = f"/api/knowledge/documents/{id}/links"
    body = {"until": (datetime.now(UTC).date() + timedelta(days=3)).isoformat(), "reason": "for the works council"}
    steward = control.sign_in("sam@acme.example")
    made = control.ask("POST", place, body, **steward)
    assert made.status == 201, made.body
    opened = control.ask("POST", "/api/knowledge/links/open", {"word": made.body["word"]}, **steward)
    assert (opened.status, opened.body["path"]) == (200, "shared.md")
    assert control.ask("POST", "/api/knowledge/links/open", {"word": made.body["word"]}).code == "person_required"
    assert control.ask("POST", "/api/knowledge/links/open", {"word": "gpl_nothing"}, **steward).code == "link_unknown"
    assert f"link/{made.body['name']}" in [row["reader"] for row in one(control, "shared.md")["readers"]]
    assert control.ask("POST", place, {**body, "until": "2020-01-01"}).code == "link_until"
    monkeypatch.setenv("GROUNDPLAN_URL", f"http://127.0.0.1:{control.port}")
    monkeypatch.setenv("GROUNDPLAN_TOKEN", control.home.operator_token.read_text().strip())
    listed = CliRunner().invoke(app, ["links", "handbook/shared.md"], env={"COLUMNS": "200"})
    assert made.body["name"] in listed.output and made.body["word"] not in listed.output
    assert CliRunner().invoke(app, ["unshare", "handbook/shared.md", made.body["name"]]).exit_code == 0
    again = CliRunner().invoke(app, ["share", "handbook/shared.md", "--reason", "again"])
    assert "gpl_" in again.output, again.output
    assert [row["holds"] for row in control.ask("GET", place).body["links"]] == [True, False]


def test_what_people_do_with_search_is_added_up_and_tells_nothing_of_them(control: Control) -> None:
    id = one(control, "asked.md")["document"]["id"]
    before = signal_counts(control)
    steward = control.sign_in("sam@acme.example")
    said = {"workload": "assistant", "document": id, "rank": 1}
    for kind in ("click", "click", "up"):
        assert control.ask("POST", "/api/knowledge/signals", {**said, "kind": kind}, **steward).status == 201
    asked = {"workload": "assistant", "kind": "unanswered", "question": "Where is the zebra of sam@acme.example?"}
    assert control.ask("POST", "/api/knowledge/signals", asked, **steward).body["kept"] is False
    nobody = {**said, "kind": "click", "document": "00000000-0000-0000-0000-000000000000"}
    assert control.ask("POST", "/api/knowledge/signals", nobody, **steward).code == "document_unknown"
    assert control.ask("POST", "/api/knowledge/signals", {**said, "kind": "unanswered"}, **steward).status == 422
    assert control.ask("POST", "/api/knowledge/signals", {**said, "kind": "click"}).code == "person_required"
    found = control.ask("GET", "/api/knowledge/signals").body
    (row,) = [row for row in found["documents"] if row["path"] == "asked.md"]
    assert (row["clicks"], row["up"], row["down"]) == (2, 1, 0)
    counts = {"clicks": 2, "up": 1, "down": 0, "unanswered": 1, "not_kept": 1}
    assert {name: count - before.get(name, 0) for name, count in signal_counts(control).items()} == counts


def signal_counts(control: Control) -> dict[str, int]:
    """How many signals of each kind there are of the workload; nothing where there is none."""
    rows = control.ask("GET", "/api/knowledge/signals").body["workloads"]
    own: dict[str, Any] = next((row for row in rows if row["workload"] == "assistant"), {})
    return {name: count for name, count in own.items() if name != "workload"}


def test_how_often_a_document_is_cited_and_does_not_say_so_is_told(control: Control, base: Database) -> None:
    """Of the last thirty days; what is not decided counts as cited only, and what names no document not at all."""
    id = one(control, "cited.md")["document"]["id"]
    now = datetime.now(UTC)
    rows = [
        (id, True, now), (id, False, now), (id, None, now), (id, False, now - timedelta(days=31)), ("gone", False, now),
        (None, False, now),
    ]  # fmt: skip
    with connect(base.urls["owner"], autocommit=True) as conn, conn.cursor() as cursor:
        cursor.executemany(
            """INSERT INTO call_citation (call_id, number, passage, document, start_char, end_char, answer_start,
                 answer_end, supported, at) VALUES (%s, 1, 1, %s, 0, 9, 0, 9, %s, %s)""",
            [(new_id(), *row) for row in rows],
        )
    found = control.ask("GET", "/api/knowledge/signals").body["documents"]
    (row,) = [row for row in found if row["path"] == "cited.md"]
    assert (row["cited"], row["unsupported"]) == (3, 1)
    page = Console(control, "", "", control.sign_in("sam@acme.example")).page("/knowledge/evaluations")
    assert 'data-label="Cited">3<' in page and 'data-label="Cited wrongly">1<' in page


def test_thumbs_of_the_search_page_are_outcomes_of_the_call_that_they_are_about(
    control: Control, base: Database
) -> None:
    calls = {workload: new_id() for workload in ("assistant", "another")}
    with connect(base.urls["owner"], autocommit=True) as conn:
        rows: list[tuple[Any, ...]] = [
            (id, datetime.now(UTC), workload, None, None, "care", "chat", "ok", 200, None, "acme/model", "local",
             "here", 0, 0, 3, 2, "none", 1, new_id(), False, 2.5, 1.5, {}, 0, 0)
            for workload, id in calls.items()
        ]  # fmt: skip
        ledger_store.insert_rows(conn, ledger_store.INSERT_CALLS, rows)
    console = Console(control, "", "", control.sign_in("sam@acme.example"))
    id = one(control, "thumbs.md")["document"]["id"]
    said = {"workload": "assistant", "q": "thumbs", "document": id, "rank": "1"}
    back = console.form("/do/knowledge/thumb", **said, kind="down", call=str(calls["assistant"]))
    assert f"call={calls['assistant']}" in back and "notice=Noted" in back
    assert "notice=Noted" in console.form("/do/knowledge/thumb", **said, kind="up", call=str(calls["another"]))
    assert "call=" not in console.form("/do/knowledge/thumb", **said, kind="up", call="no id")
    with connect(base.urls["control"], autocommit=True) as conn:
        outcome_store.take_reviews(conn, datetime.now(UTC) - timedelta(days=1))
        found = conn.execute("SELECT call_id, accepted, label FROM outcome").fetchall()
    assert found == [(calls["assistant"], False, "thumb")], "of a call of that workload, and of no other"


def test_deleted_is_told_with_its_day_and_let_in_again(control: Control) -> None:
    id = one(control, "gone.md")["document"]["id"]
    done = control.ask("POST", f"/api/knowledge/documents/{id}/delete", {"reason": "asked for"})
    assert (done.status, done.body["path"]) == (200, "gone.md")
    told = control.ask("GET", "/api/knowledge/deletions").body["deletions"]
    assert [(row["by"], row["erased_at"]) for row in told if row["path"] == "gone.md"] == [("operator", None)]
    assert control.ask("POST", f"/api/knowledge/documents/{id}/delete", {"reason": "again"}).code == "document_unknown"
    body = {"source": "handbook", "path": "gone.md", "reason": "a mistake"}
    assert control.ask("POST", "/api/knowledge/readmit", body).status == 200
    assert control.ask("POST", "/api/knowledge/readmit", body).code == "tombstone_unknown"


def test_documents_are_pushed_and_withdrawn(control: Control, base: Database) -> None:
    body = {
        "source": "pushed",
        "documents": [{"path": "a/note.md", "text": "# Note\n\nAbout Zed Zebra.", "told": {"state": "draft"}}],
    }
    assert control.ask("POST", "/api/knowledge/push", body).body["documents"] == 1
    with connect(base.urls["control"], autocommit=True) as conn:
        conn.execute("UPDATE pushed SET at = at - interval '1 year' WHERE path = 'a/note.md'")
    age = "SELECT extract(year FROM age(now(), at))::int FROM pushed WHERE path = 'a/note.md'"
    for text, years in (("# Note\n\nAbout Zed Zebra.", 1), ("# Note\n\nAbout Yak.", 0)):
        again = {**body, "documents": [{"path": "a/note.md", "text": text}]}
        assert control.ask("POST", "/api/knowledge/push", again).body["documents"] == 1
        with connect(base.urls["control"], autocommit=True) as conn:
            assert conn.execute(age).fetchone() == (years,), "what is pushed as it was is as old as it was"
    withdrawn = {**body, "documents": [{"path": "a/note.md", "gone": True}]}
    assert control.ask("POST", "/api/knowledge/push", withdrawn).body["documents"] == 1
    assert control.ask("POST", "/api/knowledge/push", {**body, "source": "handbook"}).code == "push_source"
    assert control.ask("POST", "/api/knowledge/push", {**body, "documents": [{"path": "x"}]}).code == "push_document"


def test_what_is_pushed_withdrawn_or_taken_back_holds_within_moments(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GROUNDPLAN_URL", f"http://127.0.0.1:{control.port}")
    monkeypatch.setenv("GROUNDPLAN_TOKEN", control.home.operator_token.read_text().strip())
    announce(control.home, SEARCH, "http://127.0.0.1:9", "token")  # away, and not waited for: words come before vectors

    def push(**said: Any) -> None:
        body = {"source": "pushed", "documents": [{"path": "c/soon.md", **said}]}
        assert control.ask("POST", "/api/knowledge/push", body).body["documents"] == 1

    def state() -> str | None:
        found = [row["standing"] for row in documents(control, "?source=pushed") if row["path"] == "c/soon.md"]
        return found[0] if found else None

    push(text="# Soon\n\nAbout Quentin Quail.")
    wait(control, lambda: state() == "approved")
    url = f"/api/knowledge/documents/{one(control, 'c/soon.md')['document']['id']}/decide"
    retired = {"what": "state", "value": "retired", "reason": "a mistake"}
    assert control.ask("POST", url, retired).body["document"]["state"] == "retired"
    back = control.ask("POST", url, {**retired, "value": None}).body["document"]
    assert back["origins"]["state"]["from"] == "decision of the operator, taken back"
    wait(control, lambda: state() == "approved")
    assert one(control, "c/soon.md")["document"]["origins"]["state"]["from"] == "source/pushed"
    console = Console(control, "", "", control.sign_in("ana@acme.example"))
    form = {"document": one(control, "c/soon.md")["document"]["id"], "what": "state", "reason": "seen"}
    assert "notice=Decided" in console.form("/do/knowledge/decide", **form, value="rejected")
    assert state() == "rejected"
    assert "notice=Taken+back" in console.form("/do/knowledge/decide", **form, value="")
    wait(control, lambda: state() == "approved")
    told = [
        CliRunner().invoke(app, ["decide", "pushed/c/soon.md", "state", value, "--reason", "x"]).output
        for value in ("retired", "-")
    ]
    assert "is retired from the next search; findings about it follow" in told[0]
    assert "state of c/soon.md is taken back" in told[1]
    push(gone=True)
    wait(control, lambda: state() == "deleted")


def test_what_was_deleted_is_not_kept_when_it_is_pushed_again(control: Control, base: Database) -> None:
    def push(*names: str) -> Any:
        made = [{"path": name, "text": f"# {name}\n\nAbout Yara Yak."} for name in names]
        return control.ask("POST", "/api/knowledge/push", {"source": "pushed", "documents": made}).body

    def kept() -> list[Any]:
        with closing(connect(base.urls["control"])) as conn:
            return conn.execute("SELECT path FROM pushed WHERE starts_with(path, 'b/') AND NOT gone").fetchall()

    assert push("b/one.md", "b/two.md") == {"source": "pushed", "documents": 2, "refused": []}
    with closing(connect(base.urls["control"], autocommit=True)) as conn:
        (source,) = (each for each in current_blueprint(conn).sources if each.name == "pushed")
        ingest_source(conn, source, PushConnector(conn, "pushed"))
    (id,) = (row["id"] for row in documents(control) if row["path"] == "b/one.md")
    assert control.ask("POST", f"/api/knowledge/documents/{id}/delete", {"reason": "asked"}).status == 200
    again = push("b/one.md", "b/two.md")
    assert (again["documents"], [(one["path"], one["code"]) for one in again["refused"]]) == (
        1, [("b/one.md", "document_deleted")],
    )  # fmt: skip
    assert kept() == [("b/two.md",)]
    readmitted = {"source": "pushed", "path": "b/one.md", "reason": "asked"}
    assert control.ask("POST", "/api/knowledge/readmit", readmitted).status == 200
    assert push("b/one.md")["refused"] == []
    for name in ("b/one.md", "b/two.md"):
        withdrawn = {"source": "pushed", "documents": [{"path": name, "gone": True}]}
        assert control.ask("POST", "/api/knowledge/push", withdrawn).body["documents"] == 1


@pytest.mark.parametrize("wrong", [{"told": {"licence": "a\0b"}}, {"readers": ["h\0r"]}, {"told": {"n": [1e999]}}])
def test_what_cannot_be_kept_of_a_pushed_document_is_told(control: Control, wrong: dict[str, Any]) -> None:
    body = {"source": "pushed", "documents": [{"path": "x.md", "text": "# X\n", **wrong}]}
    assert control.ask("POST", "/api/knowledge/push", body).code == "push_document"


def test_mentions_are_listed_and_what_is_not_held_goes(control: Control) -> None:
    body = {"words": ["pumping machine"], "reason": "request 12"}
    found = control.ask("POST", "/api/knowledge/mentions", body).body["documents"]
    assert [(row["path"], row["held"], row["deleted"]) for row in found] == [("leave.md", False, False)]
    assert control.ask("POST", "/api/knowledge/mentions", {**body, "words": ["no_such%"]}).body["documents"] == []


def test_the_glossary_and_lineage_are_served(control: Control) -> None:
    (term,) = control.ask("GET", "/api/knowledge/glossary").body["terms"]
    assert (term["title"], term["forbidden"]) == ("pump", ["pumping machine"])
    assert control.ask("GET", "/api/knowledge/lineage").body == {"events": []}
    assert control.ask("GET", "/api/knowledge/lineage?until=0001-01-01T08:10:00Z").code == "value_invalid"
    assert control.ask("GET", "/api/knowledge/evaluations").body == {"runs": []}
    record_run(control.home.root / "evaluation", "beir x", {"ndcg@10": 0.5}, "2026-11-25T10:00:00+00:00")
    again = record_run(control.home.root / "evaluation", "beir x", {"ndcg@10": 0.6}, "2026-11-25T11:00:00+00:00")
    assert again == {"at": "2026-11-25T10:00:00+00:00", "ndcg@10": 0.1}
    runs = control.ask("GET", "/api/knowledge/evaluations").body["runs"]
    assert [run["figures"]["ndcg@10"] for run in runs] == [0.6, 0.5]
    nobody = "00000000-0000-0000-0000-000000000000"
    assert control.ask("GET", f"/api/knowledge/calls/{nobody}/lineage").body["rested_on"] == []
    assert control.ask("GET", f"/api/knowledge/documents/{nobody}").code == "document_unknown"


def test_the_command_line_says_the_same(control: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GROUNDPLAN_URL", f"http://127.0.0.1:{control.port}")
    monkeypatch.setenv("GROUNDPLAN_TOKEN", control.home.operator_token.read_text().strip())

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(app, list(arguments))
        assert done.exit_code == 0, done.output
        return done.output

    assert "failing" in run("sources")
    assert "handbook/leave.md" in run("documents", "--source", "handbook", "--text", "leave")
    assert "steward" in run("document", "handbook/leave.md")
    assert "ana@acme.example" in run("access", "handbook/leave.md")
    assert "ana@acme.example may read it" in run("access", "handbook/leave.md", "--person", "ana@acme.example")
    assert "pumping machine" in run("findings", "--kind", "glossary")
    assert "is 2030-01-01" in run("decide", "handbook/leave.md", "valid_until", "2030-01-01", "--reason", "looked at")
    run("decide", "handbook/leave.md", "valid_until", "-", "--reason", "a mistake")
    assert "handbook/leave.md" in run("mentions", "pumping machine", "--reason", "request 12")
    run("delete", "handbook/told.md", "--reason", "asked for")
    assert "told.md" in run("deletions")
    assert '"events"' in run("lineage", "--since", "2026-11-01", "--until", "2026-11-02T12:00Z")


def test_however_many_there_are_every_document_and_finding_is_reached(
    control: Control, base: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table of 1,201 rows with a proposal for each of 1,050: pages and commands showed the first 200 or 500 without a
    word, there was "no document orders/2", and a proposal behind the thousandth "has been settled already"."""
    ids = [new_id() for _ in range(1201)]
    fix = {"do": "retire", "document": str(ids[0])}
    with closing(connect(base.urls["control"])) as conn, conn.transaction():
        conn.execute("INSERT INTO source (name, sensitivity, owner, path) VALUES ('orders', 'internal', 'ana', 'x')")
        conn.cursor().executemany(
            "INSERT INTO document (id, source, path, title, digest) VALUES (%s, 'orders', %s, 'row', 'd')",
            [(id, str(number)) for number, id in enumerate(ids)],
        )
        told = [
            Finding(kind="knowledge.table", subject=f"source/orders/{number}", message="x", hint="y", fix=fix)
            for number in range(1050)
        ]
        finding_store.replace_findings(conn, told, kinds=["knowledge.table"])
    monkeypatch.setenv("GROUNDPLAN_URL", f"http://127.0.0.1:{control.port}")
    monkeypatch.setenv("GROUNDPLAN_TOKEN", control.home.operator_token.read_text().strip())
    sam = Console(control, "", "", control.sign_in("sam@acme.example"))

    def run(*arguments: str) -> Any:
        done = CliRunner().invoke(app, [*arguments, "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.output)

    def links(page: str) -> Iterator[str]:
        """The text of a page, and of those that follow it."""
        while page:
            text = sam.page(page)
            yield text
            page = unescape(found[1]) if (found := re.search(r'href="([^"]+)" rel="next"', text)) else ""

    try:
        assert {row["path"] for row in run("documents", "--source", "orders")["documents"]} == set(
            map(str, range(1201))
        )
        assert run("document", "orders/2")["document"]["id"] == str(ids[2])
        assert len(run("findings", "--kind", "table")["findings"]) == 1050
        pages = list(links("/knowledge/documents?source=orders"))
        assert len(pages) == 7 and sum(page.count("orders / ") for page in pages) == 1201
        assert "First documents" not in pages[0] and "First documents" in pages[-1]

        pages = list(links("/knowledge/findings?source=orders"))
        assert len(pages) == 6 and "table (1050)" in pages[0]
        inbox = control.ask("GET", "/api/inbox").body
        assert len(inbox["items"]) < 300 and inbox["count"] == len(inbox["items"]) + inbox["more"] > 1050
        assert f"{inbox['more']} less severe findings" in sam.page("/inbox")
        assert "knowledge/findings?source=orders" in sam.page("/knowledge")
        last = re.findall(
            r'name="finding" value="([^"]+)"><input type="hidden" name="subject" value="([^"]+)"', pages[-1]
        )
        done = sam.form("/do/knowledge/fix", finding=last[-1][0], subject=last[-1][1])
        assert "settled+already" not in done, done
    finally:
        with closing(connect(base.urls["control"])) as conn, conn.transaction():
            finding_store.replace_findings(conn, [], kinds=["knowledge.table"])
            conn.execute("DELETE FROM source WHERE name = 'orders'")


def test_without_a_duty_nobody_sees_documents(control: Control, tmp_path: Path) -> None:
    assert control.ask("GET", "/api/knowledge/documents", Authorization="").status == 401


def test_editions_of_the_index_are_listed_and_only_who_answers_for_data_changes_them(
    control: Control, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = control.ask("GET", "/api/knowledge/index").body
    (one,) = found["editions"]
    assert (one["state"], found["serves_declared"]) == ("serving", True)
    assert one["settings"] == {
        "model": "all-minilm-l6-v2", "chunking": "sections of at most 400 characters", "dimension": 384,
    }  # fmt: skip
    assert len(OWN) <= one["documents"] <= len(OWN) + 6, "some may be gone, and one pushed"
    assert control.ask("POST", "/api/knowledge/index/build", {}).body == {"edition": None, "begun": False}
    assert control.ask("POST", "/api/knowledge/index/1/switch", {}).code == "index_state"
    assert control.ask("POST", "/api/knowledge/index/1/compare", {}).code == "index_state"
    assert control.ask("POST", "/api/knowledge/index/9/drop", {}).code == "index_unknown"
    assert control.ask("POST", "/api/knowledge/index/rollback", {}).code == "index_no_way_back"
    business = control.sign_in("ana@acme.example")
    assert control.ask("POST", "/api/knowledge/index/build", {}, **business).status == 403
    monkeypatch.setenv("GROUNDPLAN_URL", f"http://127.0.0.1:{control.port}")
    told = CliRunner().invoke(app, ["index", "list", "--home", str(control.home.root)])
    assert told.exit_code == 0, told.output
    assert "serving" in told.output
    refused = CliRunner().invoke(app, ["index", "rollback", "--home", str(control.home.root)])
    assert refused.exit_code != 0


def test_who_only_a_document_names_as_its_owner_does_not_decide_about_it(control: Control, base: Database) -> None:
    row = one(control, "mine.md")["document"]
    # they hold a duty for something else
    ben = Caller("person:ben", None, "ben@acme.example", "Ben", operator=False, duties=(("workload/x", "business"),))
    sam = replace(ben, email="sam@acme.example", duties=())
    with connect(base.urls["control"]) as conn:
        found = require_document(conn, UUID(row["id"]))
        assert (found["owner"], found["origins"]["owner"]["from"]) == ("ben@acme.example", "document")
        with pytest.raises(Denied) as refused:
            require_decider(conn, ben, found)
        assert (refused.value.code, "sam@acme.example" in refused.value.hint) == ("document_not_yours", True)
        beside = {**found, "origins": {**found["origins"], "owner": {"from": "sidecar"}}}
        with pytest.raises(Denied):
            require_decider(conn, ben, beside)
        require_decider(conn, sam, found)
        with pytest.raises(NotFound):
            require_decider(conn, replace(ben, duties=()), found)


def test_whoever_may_not_read_a_document_is_told_the_same_as_of_none(control: Control) -> None:
    ben = control.sign_in("ben@acme.example")
    for place, body in (("", None), ("/decide", {"what": "state", "value": "retired", "reason": "x"})):
        hidden, none = (
            control.ask("GET" if body is None else "POST", f"/api/knowledge/documents/{id}{place}", body, **ben)
            for id in (one(control, "secret.md")["document"]["id"], "00000000-0000-0000-0000-000000000000")
        )
        assert (hidden.status, hidden.body) == (none.status, none.body)
        assert hidden.status == 404


def test_a_reader_without_a_duty_sees_what_a_document_is_and_why(control: Control) -> None:
    id = one(control, "leave.md")["document"]["id"]
    found = control.ask("GET", f"/api/knowledge/documents/{id}", **control.sign_in("ben@acme.example"))
    assert found.status == 200, found.body
    assert set(found.body) == {"document", "newer", "access"}
    assert (found.body["document"]["path"], found.body["access"]["by"][0]["reader"]) == ("leave.md", "everyone")
    assert not {"origins", "decided", "digest", "notes"} & set(found.body["document"])
    page = Console(control, "", "", control.sign_in("ben@acme.example")).page(f"/knowledge/documents/{id}")
    assert "As <b>everyone</b>." in page and "badge-ok" in page and "Who is responsible" in page


def test_what_a_legal_hold_keeps_is_read_by_who_decides_about_it_and_told_in_the_log(
    control: Control, base: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    document, version = one(control, "held.md")["document"]["id"], new_id()
    with connect(base.urls["control"], autocommit=True) as conn:
        conn.execute(
            """INSERT INTO held_version (id, document_id, source, path, version, title, text, cause)
               VALUES (%s, %s, 'handbook', 'held.md', 1, 'Leave', 'It was 30 days.', 'changed')""",
            (version, document),
        )
    (row,) = control.ask("GET", "/api/knowledge/held?source=handbook").body["held"]
    assert (row["path"], row["cause"], row["characters"]) == ("held.md", "changed", 15)
    assert "text" not in row
    assert [each["id"] for each in one(control, "held.md")["kept"]] == [str(version)]
    place, why = f"/api/knowledge/held/{version}/read", {"reason": "case 7"}
    ben, sam = control.sign_in("ben@acme.example"), control.sign_in("sam@acme.example")
    assert control.ask("POST", place, why, **ben).status in (403, 404)
    assert control.ask("POST", place, {}, **sam).status == 422
    assert control.ask("POST", place, why, **sam).body["version"]["text"] == "It was 30 days."
    assert control.ask("POST", f"/api/knowledge/held/{document}/read", why, **sam).code == "document_unknown"
    monkeypatch.setenv("GROUNDPLAN_URL", f"http://127.0.0.1:{control.port}")
    monkeypatch.setenv("GROUNDPLAN_TOKEN", control.home.operator_token.read_text().strip())
    run = CliRunner()
    assert "held.md" in run.invoke(app, ["held"]).output
    assert run.invoke(app, ["held", str(version), "--reason", "case 7"]).output.strip() == "It was 30 days."
    with connect(base.urls["control"], autocommit=True) as conn:
        read = conn.execute("SELECT count(*) FROM audit_entry WHERE action = 'knowledge.held_read'").fetchone()
        conn.execute("DELETE FROM held_version")
    assert read == (2,)


def test_what_a_finding_quotes_is_for_whoever_may_read_it(control: Control, base: Database) -> None:
    """Everybody with a duty sees findings: also of the sheet of salaries. The kind is none that the checks of a scan
    report, since a scan that ends meanwhile would close it."""
    kind = "knowledge.quoted"
    subjects = {"leave": "source/handbook/leave.md", "secret": "source/handbook/secret.md", "site": "source/site"}
    with closing(connect(base.urls["control"])) as conn, conn.transaction():
        for name, subject in subjects.items():
            finding_store.report(
                conn,
                Finding(
                    kind=kind, subject=subject, message=f"{name}: out of range", hint="Correct it.",
                    owner="ana@acme.example", quote=f"row 4: {name} 250000",
                ),
            )  # fmt: skip

    def quoted(path: str = f"/api/findings?kind={kind}&limit=1000", **who: str) -> set[str]:
        answer = control.ask("GET", path, **who)
        assert answer.status == 200, answer.body
        rows = answer.body["findings" if "findings" in answer.body else "items"]
        assert all("quote" not in row for row in rows)
        said = {row["message"].partition(":")[0]: row["message"] for row in rows if "out of range" in row["message"]}
        return {name for name, message in said.items() if message.endswith(f": row 4: {name} 250000")}

    sam, ana = control.sign_in("sam@acme.example"), control.sign_in("ana@acme.example")
    assert quoted(**ana) == {"leave", "secret", "site"}, "it is told to her"
    assert quoted(**sam) == quoted("/api/inbox", **sam) == {"leave"}, "not of what others read"
    assert quoted() == {"site"}, "the operator reads nothing"
    secret = next(row["id"] for row in documents(control) if row["path"] == "secret.md")
    assert quoted(f"/api/knowledge/documents/{secret}", **sam) == set()
    assert quoted(f"/api/knowledge/documents/{secret}", **ana) == {"secret"}
    with closing(connect(base.urls["control"])) as conn, conn.transaction():
        finding_store.replace_findings(conn, [], kinds=[kind])


def test_who_holds_no_duty_is_led_to_the_search_and_sees_no_door_that_is_closed(control: Control) -> None:
    ben = control.sign_in("ben@acme.example")
    answer = control.ask("GET", "/knowledge", **ben)
    assert (answer.status, answer.headers["location"]) == (303, "/knowledge/search")
    tabs = Console(control, "", "", ben).page("/knowledge/search").partition('aria-label="Knowledge"')[2]
    assert (
        "/knowledge/search" in tabs.partition("</nav>")[0] and "/knowledge/findings" not in tabs.partition("</nav>")[0]
    )
    steward = Console(control, "", "", control.sign_in("sam@acme.example"))
    assert "/knowledge/findings" in steward.page("/knowledge/search") and "handbook" in steward.page("/knowledge")
