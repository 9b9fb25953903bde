"""Owners and stewards who hold no duty: they see and answer the findings and documents that are theirs, and nothing
else is named, counted or told apart from what is not there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.integration.test_api_control import WORKSPACE, Answer, Control, run_control
from tests.integration.test_experiment_pages import Console

from groundplan.core.database import connect
from groundplan.ledger import finding_store
from groundplan.ledger.finding import Finding
from groundplan.testing.database import Cluster, Database

SOURCES = """
kind: source
name: handbook
path: ./handbook
sensitivity: internal
owner: ana
readers: [everyone]
---
kind: source
name: papers
path: ./papers
sensitivity: internal
owner: ana
readers: [hr]
---
kind: term
name: pump
title: pump
meaning: A machine that moves liquids
forbidden: [pumping machine]
"""
OLD = "valid_until: 2020-01-01"
FILES = {
    "handbook/benefits/.governed.yaml": "owner: fay@acme.example\n",
    "handbook/benefits/pension.md": "# Pension\n\nThe pumping machine pays.\n",
    "handbook/benefits/plan.md": "# Plan\n\nWhat is paid, and when.\n",
    "handbook/benefits/paid.md": f"---\n{OLD}\n---\n# Paid\n\nIt was paid once.\n",
    "handbook/travel/.governed.yaml": "owner: tom@acme.example\nsteward: gil@acme.example\n",
    "handbook/travel/trips.md": "# Trips\n\nA trip by pumping machine.\n",
    "handbook/mine.md": "---\nowner: ben@acme.example\n---\n# Mine\n\nA pumping machine of Ben's own.\n",
    "handbook/news.md": "# News\n\nA pumping machine was bought.\n",
    "papers/pay/.governed.yaml": "owner: pia@acme.example\n",
    "papers/pay/salaries.md": "# Salaries\n\nOne pumping machine for each.\n",
}
NOBODY = "00000000-0000-0000-0000-000000000000"
DOCUMENTS = 7


@pytest.fixture(scope="module")
def base(postgres_cluster: Cluster) -> Iterator[Database]:
    with postgres_cluster.database() as database:
        yield database


@pytest.fixture(scope="module")
def control(base: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    folder = tmp_path_factory.mktemp("own")
    for name, text in FILES.items():
        path = folder / "workspace" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    text = WORKSPACE.replace("deployments: [local]\n", "deployments: [local]\nsources: [handbook, papers]\n")
    people = "".join(
        f"---\nkind: person\nname: {name}\nemail: {name}@acme.example\nfull_name: {name.title()}\n"
        for name in ("fay", "tom", "gil", "ben", "pia", "eve")
    )
    (folder / "workspace/knowledge.yaml").write_text(SOURCES.strip() + "\n" + people)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.integration.test_api_control.WORKSPACE", text)
        with run_control(base, folder, module="groundplan.console.app") as found:
            found.sign_in("sam@acme.example")
            deadline = time.monotonic() + 60
            while not assessed(found):
                assert time.monotonic() < deadline, found.ask("GET", "/api/findings").body
                time.sleep(0.2)
            yield found


def assessed(control: Control) -> bool:
    rows = control.ask("GET", "/api/knowledge/documents").body["documents"]
    told = {row["kind"] for row in control.ask("GET", "/api/findings?kind=knowledge.").body["findings"]}
    return (
        len(rows) == DOCUMENTS
        and all(row["scanned"] and row["quality"] is not None for row in rows)
        and {"knowledge.glossary", "knowledge.expired"} <= told
    )


def session(control: Control, name: str) -> dict[str, str]:
    return control.sign_in(f"{name}@acme.example")


def paths(rows: list[dict[str, Any]]) -> set[tuple[str, str]]:
    """(kind, path) of findings."""
    return {(row["kind"].removeprefix("knowledge."), row["subject"].removeprefix("source/")) for row in rows}


def findings(control: Control, who: dict[str, str], query: str = "") -> list[dict[str, Any]]:
    answer = control.ask("GET", f"/api/findings{query}", **who)
    assert answer.status == 200, answer.body
    return list(answer.body["findings"])


def document_of(control: Control, path: str) -> str:
    rows = control.ask("GET", "/api/knowledge/documents").body["documents"]
    return str(next(row["id"] for row in rows if row["path"] == path))


THEIRS = {
    "fay": {("glossary", "handbook/benefits/pension.md"), ("expired", "handbook/benefits/paid.md")},
    "tom": {("glossary", "handbook/travel/trips.md")},
    "gil": {("glossary", "handbook/travel/trips.md")},
    "ben": {("glossary", "handbook/mine.md")},
    "pia": {("glossary", "papers/pay/salaries.md")},
    "eve": set(),
}
"""Of whom a folder or a document names as its owner. Those of a source hold the duty data for it."""


@pytest.mark.parametrize("name", sorted(THEIRS))
def test_findings_are_seen_and_counted_by_whoever_answers_for_their_documents(control: Control, name: str) -> None:
    who = session(control, name)
    found = findings(control, who)
    assert paths(found) == THEIRS[name]
    assert name == "pia" or "papers" not in str(found), "of what others read nothing"
    inbox = control.ask("GET", "/api/inbox", **who).body
    assert [row["id"] for row in inbox["items"]] == [row["id"] for row in found]
    assert inbox["count"] == len(found) and inbox["more"] == 0 and all(row["mine"] for row in inbox["items"])
    counts = control.ask("GET", "/api/findings/kinds", **who).body["kinds"]
    assert sum(counts.values()) == len(found) == control.ask("GET", "/api/status", **who).body["findings"]
    everything = findings(control, {})
    others = [row for row in everything if row["id"] not in {each["id"] for each in found}]
    assert others and findings(control, who, f"?subject={others[0]['subject']}&closed=true") == []
    page = control.ask("GET", "/api/findings?limit=1", **who).body
    assert (page["next"] is not None) == (len(found) > 1)


def test_a_finding_about_another_document_is_for_whoever_may_know_of_that(control: Control, base: Database) -> None:
    """That there is a document like mine tells what is in it, and whoever may write one could ask so."""
    plan, salaries = document_of(control, "benefits/plan.md"), document_of(control, "pay/salaries.md")
    known = opened(base, "source/handbook/mine.md", "ben@acme.example", other=plan)
    hidden = opened(base, "source/handbook/benefits/pension.md", "fay@acme.example", other=salaries)
    crossed = opened(base, "source/papers/pay/salaries.md", "pia@acme.example", other=plan)
    kind = "?kind=knowledge.sensor"
    seen = {name: {row["id"] for row in findings(control, session(control, name), kind)} for name in THEIRS}
    assert seen == {"fay": set(), "tom": set(), "gil": set(), "eve": set(), "ben": {known}, "pia": {crossed}}
    assert {row["id"] for row in findings(control, {}, kind)} == {known, hidden, crossed}
    with connect(base.urls["control"]) as conn, conn.transaction():
        finding_store.replace_findings(conn, [], kinds=["knowledge.sensor"])


def test_a_document_is_decided_about_by_its_owner_and_steward(control: Control) -> None:
    id = document_of(control, "benefits/paid.md")
    fay, tom = session(control, "fay"), session(control, "tom")
    place = f"/api/knowledge/documents/{id}"
    found = control.ask("GET", place, **fay)
    assert found.status == 200 and [row["kind"] for row in found.body["findings"]] == ["knowledge.expired"]
    assert found.body["used_by"] is None and found.body["document"]["origins"]["owner"]["from"].startswith("folder/")
    decision = {"what": "valid_until", "value": "2999-01-01", "reason": "it is paid on"}
    assert control.ask("POST", f"{place}/decide", decision, **tom).code == "document_not_yours", "he may read it"
    assert control.ask("POST", f"{place}/decide", decision, **fay).body["document"]["standing"] == "approved"
    today = datetime.now(UTC).date()
    link = control.ask("POST", f"{place}/links", {"until": f"{today + timedelta(days=2)}", "reason": "council"}, **fay)
    assert link.status == 201 and len(control.ask("GET", f"{place}/links", **fay).body["links"]) == 1
    assert control.ask("GET", f"{place}/links", **tom).code == "document_not_yours"
    withdraw = f"{place}/links/{link.body['name']}/withdraw"
    assert control.ask("POST", withdraw, {}, **tom).code == "document_not_yours"
    assert control.ask("POST", withdraw, {}, **fay).status == 200
    trips = f"/api/knowledge/documents/{document_of(control, 'travel/trips.md')}"
    for name in ("tom", "gil"):
        reviewed = {"what": "reviewed", "value": today.isoformat(), "reason": "looked at"}
        assert control.ask("POST", f"{trips}/decide", reviewed, **session(control, name)).status == 200
    assert control.ask("GET", f"{place}/access?person=ana@acme.example", **fay).code == "duty_missing"


def test_a_document_tells_of_what_is_told_of_all_of_its_folder(control: Control, base: Database) -> None:
    place = f"/api/knowledge/documents/{document_of(control, 'benefits/plan.md')}"
    found = Finding(
        kind="knowledge.personal_data", subject="source/handbook/benefits/", message="many", hint="Take it out.",
        owner="sam@acme.example",
        detail={"holds": "personal_data", "source": "handbook", "whose": ["fay@acme.example"]},
    )  # fmt: skip
    told = []
    with connect(base.urls["control"], autocommit=True) as conn:
        finding_store.report(conn, found)
        for personal in ('{"!aws_key": 1}', '{"email": 2}'):
            conn.execute("UPDATE document SET personal = %s WHERE path = 'benefits/plan.md'", (personal,))
            body = control.ask("GET", place, **session(control, "fay")).body
            told.append([row["message"] for row in body["findings"] if row["kind"] == found.kind])
        held = control.ask("GET", "/api/knowledge/documents?holds=personal_data", **session(control, "fay")).body
        page = Console(control, "", "", session(control, "fay")).page("/inbox")
        conn.execute("UPDATE document SET personal = '{}' WHERE path = 'benefits/plan.md'")
        finding_store.replace_findings(conn, [], kinds=[found.kind])
    assert told == [[], ["many"]] and [row["path"] for row in held["documents"]] == ["benefits/plan.md"]
    assert "/knowledge/documents?source=handbook&amp;holds=personal_data" in page


def test_whom_only_a_document_names_sees_its_finding_and_decides_nothing(control: Control) -> None:
    ben, place = session(control, "ben"), f"/api/knowledge/documents/{document_of(control, 'mine.md')}"
    assert set(control.ask("GET", place, **ben).body) == {"document", "newer", "access"}
    assert control.ask("GET", "/api/knowledge/documents", **ben).body["documents"] == []
    said = {"what": "state", "value": "retired", "reason": "x"}
    refused = control.ask("POST", f"{place}/decide", said, **ben)
    assert refused.code == "document_not_yours" and "itself names you" in refused.body["error"]["message"]
    assert ".governed.yaml" in refused.body["error"]["hint"], "he is not told to ask himself, or only the others"
    assert control.ask("POST", f"{place}/delete", {"reason": "x"}, **ben).code == "document_not_yours"


def test_what_is_not_theirs_is_as_if_it_were_not_there(control: Control) -> None:
    fay, salaries = session(control, "fay"), document_of(control, "pay/salaries.md")
    ways: list[tuple[str, str, Any]] = [
        ("GET", "", None), ("GET", "/links", None), ("POST", "/delete", {"reason": "x"}),
        ("POST", "/decide", {"what": "state", "value": "retired", "reason": "x"}),
        ("POST", "/links", {"until": "2999-01-01", "reason": "x"}), ("POST", "/links/word/withdraw", {}),
    ]  # fmt: skip
    for method, place, body in ways:
        hidden, none = (
            control.ask(method, f"/api/knowledge/documents/{id}{place}", body, **fay) for id in (salaries, NOBODY)
        )
        assert (hidden.status, hidden.body) == (none.status, none.body) and hidden.status == 404, (place, hidden.body)
        assert hidden.body["error"]["hint"]
    assert "salaries" not in str(control.ask("GET", "/api/knowledge/documents?text=salaries", **fay).body)
    assert control.ask("GET", "/api/knowledge/documents?source=papers", **fay).body == {"documents": [], "next": None}
    own = control.ask("GET", "/api/knowledge/documents", **fay).body["documents"]
    assert {row["path"] for row in own} == {"benefits/paid.md", "benefits/pension.md", "benefits/plan.md"}
    for path in ("/api/knowledge/sources", "/api/knowledge/deletions", "/api/knowledge/lineage", "/api/audit"):
        refused = control.ask("GET", path, **fay)
        assert (refused.status, refused.code) == (403, "duty_missing") and refused.body["error"]["hint"]


def opened(base: Database, subject: str, owner: str | None, **detail: str) -> str:
    found = Finding(
        kind="knowledge.sensor", subject=subject, message="a gap", hint="Look.", owner=owner, detail=dict(detail)
    )
    with connect(base.urls["control"]) as conn, conn.transaction():
        return str(finding_store.report(conn, found)[0])


def test_a_finding_is_settled_by_whoever_it_is_for(control: Control, base: Database) -> None:
    until = {"until": (datetime.now(UTC) + timedelta(days=3)).isoformat()}
    mine = opened(base, "source/handbook/benefits/pension.md", None)
    others = opened(base, "source/papers/pay/salaries.md", "pia@acme.example")
    fay, pia = session(control, "fay"), session(control, "pia")

    def both(who: dict[str, str], id: str) -> list[Answer]:
        return [
            control.ask("POST", f"/api/findings/{id}/quiet", until, **who),
            control.ask("POST", f"/api/findings/{id}/close", {"reason": "done"}, **who),
        ]

    told, none = both(fay, others), both(fay, NOBODY)
    for hidden, missing in zip(told, none, strict=True):
        assert (hidden.status, hidden.code) == (404, "finding_unknown")
        assert str(hidden.body).replace(others, NOBODY) == str(missing.body)
    assert [answer.status for answer in both(fay, mine)] == [200, 200]
    assert [answer.status for answer in both(pia, others)] == [200, 200]
    settled = findings(control, pia, "?closed=true&kind=knowledge.sensor")
    assert others in {row["id"] for row in settled} and mine not in {row["id"] for row in settled}, (
        "what was settled is shown to whom it was for"
    )
    with connect(base.urls["control"]) as conn:
        rows = conn.execute("SELECT actor FROM audit_entry WHERE action = 'finding.close'").fetchall()
    assert len(rows) == 2 and all(actor.startswith("person:") for (actor,) in rows)


def test_whose_name_a_passkey_has_sees_that_it_waits(control: Control, base: Database) -> None:
    eve = session(control, "eve")
    with connect(base.urls["control"], autocommit=True) as conn:
        ((id,),) = conn.execute("SELECT id FROM person WHERE email = 'eve@acme.example'").fetchall()
        for kind in ("identity.passkey_waits", "identity.emergency"):
            finding_store.report(conn, Finding(kind=kind, subject=f"person/{id}", message=kind, hint="Ask Eve."))
        seen = [row["kind"] for row in control.ask("GET", "/api/inbox", **eve).body["items"]]
        others = control.ask("GET", "/api/inbox", **session(control, "fay")).body["items"]
        finding_store.replace_findings(conn, [], kinds=["identity.passkey_waits", "identity.emergency"])
    assert seen == ["identity.passkey_waits"] and "person/" not in str(others)


def test_an_owner_lands_where_their_tasks_are(control: Control) -> None:
    def led(who: dict[str, str], path: str) -> str:
        answer = control.ask("GET", path, **who)
        assert answer.status == 303, answer.body
        return str(answer.headers["location"])

    fay, eve, sam = (session(control, name) for name in ("fay", "eve", "sam"))
    assert [led(who, "/begin") for who in (fay, eve, sam)] == ["/inbox", "/", "/"]
    assert [led(who, "/knowledge") for who in (fay, eve)] == ["/knowledge/findings", "/knowledge/search"]
    page = Console(control, "", "", fay).page("/inbox")
    assert "benefits/pension.md says" in page and "trips" not in page and "salaries" not in page
    tabs = page_tabs(Console(control, "", "", fay).page("/knowledge/findings"))
    assert tabs == ["/knowledge/documents", "/knowledge/findings", "/knowledge/search"]
    listed = Console(control, "", "", fay).page("/knowledge/documents")
    assert "Documents that you own or steward" in listed and "Pension" in listed and "Trips" not in listed
    one = Console(control, "", "", fay).page(f"/knowledge/documents/{document_of(control, 'benefits/pension.md')}")
    assert ">Decide<" in one and "Answers that used it" not in one and "Explain the access" not in one
    empty = Console(control, "", "", eve).page("/inbox")
    assert "you hold no duty, and no source or document names you" in empty
    assert page_tabs(Console(control, "", "", eve).page("/knowledge/search")) == ["/knowledge/search"]


def page_tabs(page: str) -> list[str]:
    tabs = page.partition('aria-label="Knowledge"')[2].partition("</nav>")[0]
    return [part.partition('"')[0] for part in tabs.split('href="')[1:]]


def test_what_a_finding_proposes_is_done_by_its_owner_on_the_console(control: Control, base: Database) -> None:
    id = document_of(control, "benefits/plan.md")
    with connect(base.urls["control"]) as conn, conn.transaction():
        found = Finding(
            kind="knowledge.table", subject="source/handbook/benefits/plan.md", message="to be reviewed",
            hint="Review it.", owner="fay@acme.example", detail={"document": id}, fix={"do": "review", "document": id},
        )  # fmt: skip
        finding, _ = finding_store.report(conn, found)
    for name, done in (("tom", "settled+already"), ("fay", "Decided")):
        browser = Console(control, "", "", session(control, name))
        assert done in browser.form("/do/knowledge/fix", finding=str(finding), subject=found.subject), name
    decided = control.ask("GET", f"/api/knowledge/documents/{id}").body["document"]["decided"]
    assert decided["reviewed"]["by"] == "fay@acme.example"
