"""A person's request to be erased: documents, kept calls, reviews, caches, account; holds; the signed receipt."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from tests.integration.test_api_control import WORKSPACE, Control, run_control
from tests.integration.test_knowledge_api import documents, wait
from typer.testing import CliRunner

from groundplan.api.erasure import store as erasure_store
from groundplan.api.retention import sweep
from groundplan.cli.main import app
from groundplan.core.audit import receipt as receipts
from groundplan.core.audit.keys import load_public
from groundplan.core.audit.subject import SubjectKeys
from groundplan.core.errors import Invalid
from groundplan.core.ids import new_id
from groundplan.ledger import completion_store, content_store
from groundplan.testing.database import Cluster, Database

SOURCE = """
kind: source
name: pushed
connector: {type: push}
sensitivity: internal
owner: ana
readers: [everyone]
---
kind: source
name: handbook
path: ./handbook
sensitivity: internal
owner: ana
readers: [everyone]
---
"""
LATER = datetime.now(UTC) + timedelta(days=30)


@dataclass
class World:
    control: Control
    database: Database
    conn: psycopg.Connection[Any]
    keys: SubjectKeys

    def person(self, email: str, *, here: bool) -> UUID:
        id = new_id()
        self.conn.execute(
            "INSERT INTO person (id, email, name, active) VALUES (%s, %s, %s, %s)", (id, email, email, here)
        )
        return id

    def content(self, whose: UUID, text: str) -> UUID:
        """A kept prompt."""
        call = new_id()
        sealed = self.keys.seal(self.conn, whose, f"{call}\n{text}")
        row = content_store.Row(call, datetime.now(UTC), "assistant", "full", LATER, sealed, {}, cut=False)
        with psycopg.connect(self.database.urls["shipper"], autocommit=True) as writer:
            content_store.add(writer, [row])
        return call

    def completion(self, whose: UUID, text: str) -> UUID:
        """A stored chat completion."""
        call = new_id()
        sealed = self.keys.seal(self.conn, whose, f"chatcmpl-1\n{text}")
        row = completion_store.Row(call, "chatcmpl-1", "assistant", new_id(), "local", "m", LATER, sealed)
        with psycopg.connect(self.database.urls["gateway"], autocommit=True) as gateway:
            assert completion_store.add(gateway, row)
        return call

    def question(self, whose: UUID, text: str) -> UUID:
        """To which nothing was found."""
        id = new_id()
        row = (id, whose, self.keys.seal(self.conn, whose, text), LATER)
        self.conn.execute(
            """INSERT INTO knowledge_signal (id, workload, kind, person_id, asked, expires_at)
               VALUES (%s, 'assistant', 'unanswered', %s, %s, %s)""",
            row,
        )
        return id

    def answer(self, whose: UUID) -> UUID:
        """A cached one."""
        call = new_id()
        with psycopg.connect(self.database.urls["shipper"], autocommit=True) as writer:
            writer.execute(
                """INSERT INTO answer (call_id, workload, cleared, made_at, expires_at, size, subjects, sealed)
                   VALUES (%s, 'assistant', 0, now(), %s, 1, '{}', %s)""",
                (call, LATER, self.keys.seal(self.conn, whose, f"{call}\ngqNFdmU=")),
            )
        return call

    def review(self, whose: UUID, said: str) -> UUID:
        id = new_id()
        self.conn.execute(
            """INSERT INTO held_call (id, kind, workload, key_id, person_id, gateway, asked, said, due_at)
               VALUES (%s, 'answer', 'assistant', %s, %s, %s, %s, %s, %s)""",
            (
                id, new_id(), whose, new_id(), self.keys.seal(self.conn, whose, "?"),
                self.keys.seal(self.conn, whose, said), LATER,
            ),
        )  # fmt: skip
        return id

    def left(self, table: str, key: UUID) -> bool:
        row = self.conn.execute(f"SELECT count(*) FROM {table} WHERE call_id = %s".encode(), (key,)).fetchone()
        return bool(row and row[0])

    def asked(self, **more: Any) -> dict[str, Any]:
        answer = self.control.ask("POST", "/api/erasures", {"reason": "request of 25 November", **more})
        assert answer.status == 200, answer.body
        return dict(answer.body)

    def confirmed(self, id: str) -> dict[str, Any]:
        answer = self.control.ask("POST", f"/api/erasures/{id}/confirm", {}, **self.control.sign_in("sam@acme.example"))
        assert answer.status == 200, answer.body
        return dict(answer.body)


@pytest.fixture(scope="module")
def world(postgres_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("erasure")
    handbook = folder / "workspace/handbook"
    (handbook / "held").mkdir(parents=True)
    (handbook / "party.md").write_text("# Party\n\nEve Own brings the cake, ask eve@acme.example.\n")
    (handbook / "held/case.md").write_text("---\nlegal_hold: true\n---\n# Case\n\nEve Own against the company.\n")
    (handbook / "eve-own.md").write_text("# Plan\n\nThe plan of somebody.\n")
    (handbook / "eve-own-2019.md").write_text("# Old\n\nOf long ago.\n")
    (handbook / "mine.md").write_text("---\nowner: eve@acme.example\n---\n# Mine\n\nOf somebody.\n")
    (handbook / "other.md").write_text("# Other\n\nNobody is named in it.\n")
    kept = "keep: {content: full, for: 60d}\n"  # else the control process deletes every half minute what is kept here
    text = WORKSPACE.replace("deployments: [local]\n", f"deployments: [local]\nsources: [handbook, pushed]\n{kept}")
    text = text.replace("approvals: {parts: []}\n", "approvals: {parts: []}\nowners: {compliance: sam}\n")
    (folder / "workspace/knowledge.yaml").write_text(SOURCE.strip().removesuffix("---"), encoding="utf-8")
    with postgres_cluster.database() as database, pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.integration.test_api_control.WORKSPACE", text)
        with (
            run_control(database, folder) as control,
            psycopg.connect(database.urls["control"], autocommit=True) as conn,
        ):
            wait(control, lambda: len(documents(control)) >= 6)
            yield World(control, database, conn, SubjectKeys.of(control.home))


def named(world: World) -> set[str]:
    """Where a row of documents, or the list of deletions, has the name in a path."""
    tables = ("document", "tombstone", "finding", "document_version", "audit_entry")
    found = set()
    for table in tables:
        said = "convert_from(t.body, 'UTF8')" if table == "audit_entry" else "t::text"
        query = f"SELECT count(*) FROM {table} t WHERE {said} ILIKE '%eve-own%'"
        if world.conn.execute(query.encode()).fetchone() != (0,):
            found.add(table)
    return found | ({"list"} if "eve-own" in (world.control.home.root / "tombstones.jsonl").read_text() else set())


def parts(answer: dict[str, Any], which: str) -> dict[str, tuple[int, str]]:
    return {one["what"]: (one["count"], one["why"]) for one in answer[which]}


def test_one_request_erases_a_person_everywhere_but_what_must_stay(world: World) -> None:
    eve, ben = world.person("eve@acme.example", here=False), world.person("ben@acme.example", here=True)
    own, of_other, naming, written = (
        world.content(eve, "where is my pay slip"), world.content(ben, "what is for lunch"),
        world.content(ben, "did Eve Own sign it"), world.content(ben, json.dumps({"prompt": "ask Eve\nOwn"})),
    )  # fmt: skip
    of_steve = world.content(ben, "did Steve Own sign it")
    question, question_of_other = world.question(ben, "what did Eve Own do"), world.question(ben, "what is for lunch")
    cached = world.answer(ben)
    review = world.review(eve, "Dear Eve")
    stored, stored_of_other = world.completion(eve, "her question"), world.completion(ben, "his question")
    ids = {row["path"]: row["id"] for row in documents(world.control)}
    gone = world.control.ask("POST", f"/api/knowledge/documents/{ids['eve-own-2019.md']}/delete", {"reason": "old"})
    assert gone.status == 200, gone.body
    body = {"source": "pushed", "documents": [{"path": "x.pdf", "text": "no PDF, by Eve Own", "media": "pdf"}]}
    assert world.control.ask("POST", "/api/knowledge/push", body).status == 200
    before = world.asked(person="eve@acme.example", also=["Eve Own"], dry_run=True)
    assert parts(before, "erased")["pushed files that are no documents"][0] == 1
    assert parts(before, "erased")["prompts and answers of calls"][0] == 3
    assert parts(before, "erased")["names of deleted documents"][0] == 2
    assert named(world) >= {"document", "tombstone"}
    assert world.left("content", own)

    asked = world.asked(person="eve@acme.example", also=["Eve Own"])
    refused = world.control.ask("POST", f"/api/erasures/{asked['id']}/confirm", {})
    assert refused.status == 403  # the operator asks, a person with the duty decides
    by_link = world.control.follow_link("sam@acme.example")
    refused = world.control.ask("POST", f"/api/erasures/{asked['id']}/confirm", {}, **by_link)
    assert refused.code == "proof_missing", "the duty is there, and a link is no proof of who follows it"
    assert any(
        row["kind"] == "governance.erasure" for row in world.control.ask("GET", "/api/findings").body["findings"]
    )
    done = world.confirmed(asked["id"])
    erased, kept = parts(done, "erased"), parts(done, "kept")
    assert (erased["documents"][0], kept["documents"]) == (2, (1, "a legal hold keeps them"))
    assert erased["names of deleted documents"][0] == kept["files of these names"][0] == 2
    assert kept["documents that name them as owner, steward or reader"][0] == 1
    assert named(world) == set(), "also of what was deleted before"
    assert erased["pushed files that are no documents"][0] == 1
    assert world.conn.execute("SELECT count(*) FROM pushed").fetchone() == (0,)
    told = world.control.ask("GET", "/api/knowledge/deletions").body["deletions"]
    assert sorted(row["path"] for row in told) == ["(its name was erased)", "(its name was erased)", "party.md"]
    assert erased["prompts and answers of calls"][0] == 3
    assert erased["texts in reviews"][0] == 1
    assert erased["stored chat completions"][0] == 1
    assert not world.left("stored_completion", stored)
    assert world.left("stored_completion", stored_of_other), "an id is unique for its owner only"
    assert "key of the person" in erased["account"][1]
    assert not world.left("content", own)
    assert not world.left("content", naming) and not world.left("content", written)
    assert not world.left("answer", cached), "each cache is emptied: none is given any more"
    assert erased["questions to which nothing was found"][0] == 1
    rows = world.conn.execute("SELECT id, asked IS NULL, person_id FROM knowledge_signal")
    assert {id: told for id, *told in rows} == {question: [True, None], question_of_other: [False, ben]}
    assert world.left("content", of_other) and world.left("content", of_steve)
    held = world.conn.execute("SELECT asked, said, state FROM held_call WHERE id = %s", (review,)).fetchone()
    assert held == (None, None, "gone")
    assert {row["path"] for row in documents(world.control) if not row["deleted_at"]} == {
        "held/case.md", "mine.md", "other.md"
    }  # fmt: skip
    assert world.conn.execute("SELECT name FROM person WHERE id = %s", (eve,)).fetchone() == ("erased",)

    public = load_public(world.control.home, "checkpoint").public_bytes_raw()
    receipt = receipts.read_receipt(done["receipt"].encode(), public)
    assert all(parts(receipt.body, which) == parts(done, which) for which in ("erased", "kept"))
    said = json.dumps(receipt.body).lower()
    assert "eve" not in said and ".md" not in said
    signed = {one["what"]: set(one["names"]) for one in receipt.body["erased"]}
    assert signed["documents"] == {f"handbook/{ids[path]}" for path in ("party.md", "eve-own.md")}
    assert signed["names of deleted documents"] == {f"handbook/{ids[f'eve-own{y}.md']}" for y in ("", "-2019")}
    entry = world.conn.execute("SELECT convert_from(body, 'UTF8') FROM audit_entry WHERE action = 'person.erasure'")
    assert json.loads(entry.fetchall()[-1][0])["detail"]["receipt"] == receipt.digest
    with pytest.raises(Invalid):
        receipts.read_receipt(done["receipt"].replace('"count":3', '"count":4').encode(), public)
    stored = world.control.ask("GET", f"/api/erasures/{asked['id']}").body
    assert (stored["state"], stored["asked"], stored["receipt"]) == ("done", None, done["receipt"])
    again = world.control.ask(
        "POST", f"/api/erasures/{asked['id']}/confirm", {}, **world.control.sign_in("sam@acme.example")
    )
    assert again.code == "erasure_decided"


def test_sealed_texts_are_read_a_few_at_a_time(database: Database) -> None:
    """One may be as long as a request and its answer."""
    made = {new_id(): f"sealed:{new_id()}:{number}" for number in range(2 * erasure_store._FETCH_SIZE + 1)}
    rows = [
        content_store.Row(call, datetime.now(UTC), "assistant", "full", LATER, sealed, {}, cut=False)
        for call, sealed in made.items()
    ]
    with psycopg.connect(database.urls["shipper"]) as writer:
        content_store.add(writer, rows)
    with psycopg.connect(database.urls["control"]) as conn:
        read = erasure_store.sealed_texts(conn, erasure_store.CONTENT)
        found = dict([next(read)])
        assert conn.execute("SELECT name FROM pg_cursors").fetchall() == [("texts_of_content",)]
        assert found | dict(read) == {call: [sealed] for call, sealed in made.items()}


def test_files_of_a_batch_that_an_application_ordered_for_somebody_are_theirs(database: Database) -> None:
    """With a key that is nobody's, and acts for them."""
    eve, (asked, came, other) = new_id(), (new_id() for _ in range(3))
    with psycopg.connect(database.superuser, autocommit=True) as conn:
        for id in (asked, came, other):
            conn.execute(
                "INSERT INTO api_file (id, workload, purpose, filename, bytes) VALUES (%s, 'w', 'batch', 'f', 1)", (id,)
            )
        conn.execute(
            """INSERT INTO batch (id, workload, key_id, person, endpoint, input_file, output_file, completion_window,
                 status, expires_at) VALUES (%s, 'w', %s, %s, '/v1/embeddings', %s, %s, '24h', 'completed', now())""",
            (new_id(), new_id(), str(eve), asked, came),
        )
        free, busy = erasure_store.erasable_files(conn, eve)
        assert (set(free), busy) == ({asked, came}, 0)
        conn.execute("UPDATE batch SET status = 'in_progress'")
        assert erasure_store.erasable_files(conn, eve) == ([], 2)


def test_names_of_files_and_of_announced_ones_go_with_whose_they_are(database: Database) -> None:
    """Rows of files stay for 90 days, and what was announced for two hours."""
    eve, mine, theirs, file = (new_id() for _ in range(4))
    with psycopg.connect(database.superuser, autocommit=True) as conn:
        conn.execute("INSERT INTO person (id, email, name) VALUES (%s, 'eve@acme.example', 'E')", (eve,))
        for key, person in ((mine, eve), (theirs, None)):
            conn.execute(
                """INSERT INTO api_key (id, hash, prefix, workload, person_id, created_by)
                   VALUES (%s, %s, 'gp_', 'w', %s, 'operator')""",
                (key, key.bytes, person),
            )
            conn.execute(
                """INSERT INTO api_upload (id, workload, key_id, filename, purpose, bytes, created_at, expires_at)
                   VALUES (%s, 'w', %s, 'Eve.pdf', 'user_data', 9, now(), now() + interval '1 hour')""",
                (new_id(), key),
            )
        conn.execute(
            """INSERT INTO api_file (id, workload, purpose, filename, bytes, key_id)
               VALUES (%s, 'w', 'user_data', 'Eve.pdf', 9, %s)""",
            (file, mine),
        )
    with psycopg.connect(database.urls["control"]) as conn:
        assert erasure_store.erasable_files(conn, eve) == ([file], 0)
        erasure_store.mark_files_deleted(conn, [file])
        assert erasure_store.delete_uploads(conn, eve) == 1
        conn.commit()
        assert conn.execute("SELECT filename, deleted_at IS NULL FROM api_file").fetchall() == [("", False)]
        assert conn.execute("SELECT key_id FROM api_upload").fetchall() == [(theirs,)]


def test_what_is_under_a_legal_hold_stays_whatever_is_asked_and_whatever_its_time(world: World) -> None:
    fay = world.person("fay@acme.example", here=False)
    call = world.content(fay, "an important question")
    compliance = world.control.sign_in("sam@acme.example")
    body = {"reason": "a lawsuit"}
    assert world.control.ask("POST", "/api/people/fay@acme.example/hold", body).status == 403
    assert world.control.ask("POST", "/api/people/fay@acme.example/hold", body, **compliance).status == 200
    assert world.control.ask("POST", "/api/people/fay@acme.example/hold", body, **compliance).code == "person_hold"
    done = world.confirmed(world.asked(person="fay@acme.example")["id"])
    assert parts(done, "kept")["prompts and answers of calls"] == (1, "a legal hold keeps them")
    assert "a lawsuit" in parts(done, "kept")["account, key and files"][1]
    with psycopg.connect(world.database.superuser, autocommit=True) as admin:
        admin.execute("UPDATE content SET expires_at = now() - interval '1 day' WHERE call_id = %s", (call,))
    with world.conn.transaction():
        sweep(world.conn, None)
    assert world.left("content", call)
    assert (
        world.control.ask("POST", "/api/people/fay@acme.example/hold", {**body, "end": True}, **compliance).status
        == 200
    )
    with world.conn.transaction():
        sweep(world.conn, None)
    assert not world.left("content", call)


def test_the_command_asks_tells_and_writes_the_receipt(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.person("gus@acme.example", here=True)
    monkeypatch.setenv("GROUNDPLAN_URL", f"http://127.0.0.1:{world.control.port}")
    home = ("--home", str(world.control.home.root))
    run = CliRunner()
    told = run.invoke(app, ["erase", "--person", "gus@acme.example", "--reason", "asked", *home])
    assert told.exit_code == 0, told.output
    assert "still here" in told.output
    waiting = [one for one in erasure_store.list_requests(world.conn) if one.state == "waiting"]
    id = str(waiting[0].id)
    world.confirmed(id)
    file = tmp_path / "receipt"
    assert run.invoke(app, ["erase", "--request", id, "--receipt", str(file), *home]).exit_code == 0
    checked = run.invoke(app, ["erase", "--verify", str(file), *home])
    assert "The signature is valid" in checked.output
    file.write_text(file.read_text().replace("asked", "other"))
    assert run.invoke(app, ["erase", "--verify", str(file), *home]).exit_code != 0
    short = run.invoke(app, ["erase", "--person", "x", "--reason", "asked", *home])
    assert short.exit_code != 0
