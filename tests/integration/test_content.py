"""Prompts and answers are kept only where a workload says so: redacted, sealed, audited when read, deleted in time."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import psycopg
import pytest
from tests.acceptance.stack import Answer, Stack, Upstream, request, wait_until

from groundplan.api.retention import sweep
from groundplan.blueprint.model import Blueprint, Keep, Workload
from groundplan.core.audit.keys import create_keys
from groundplan.core.audit.store import destroy_subject_key
from groundplan.core.audit.subject import SubjectKeys
from groundplan.core.database import database_url
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.core.settings import load_settings
from groundplan.gateway.telemetry.content_link import Content
from groundplan.gateway.telemetry.content_writer import ContentWriter
from groundplan.ledger import content_store
from groundplan.testing.database import Database

WORKSPACE = """\
kind: company
name: acme
---
kind: person
name: ana
email: ana@acme.example
full_name: Ana Lind
---
kind: person
name: eve
email: eve@acme.example
full_name: Eve Own
---
kind: site
name: here
type: private
jurisdiction: EU
---
kind: deployment
name: model
site: here
model: acme/model
url: {url}
price: {{input: 1 USD/Mtok, output: 10 USD/Mtok}}
---
kind: workload
name: quiet
purpose: Keeps nothing
stage: pilot
owners: {{business: ana@acme.example, security: ana@acme.example}}
---
kind: workload
name: careful
purpose: Keeps what is redacted
stage: pilot
keep: {{content: redacted, for: 30 days}}
owners: {{business: ana@acme.example, security: ana@acme.example}}
---
kind: workload
name: thrifty
title: Versicherungsvertragsänderungsantragsbearbeitungsassistentenverwaltungsoberfläche
purpose: Has-little-to-spend-and-says-so-in-a-word-that-has-no-place-at-which-it-could-be-broken-into-two
stage: pilot
limits: {{max_output: 20}}
owners: {{business: ana@acme.example, security: ana@acme.example}}
---
kind: budget
name: thrifty
covers: workload/thrifty
limit: 0.004 USD/month
---
kind: budget
name: quiet
covers: workload/quiet
limit: 1000 USD/month
---
kind: budget
name: careful
covers: workload/careful
limit: 1000 USD/month
"""
CARD = "4111 1111 1111 1111"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("content")
    upstream = Upstream(folder / "upstream")
    upstream.start()
    workspace = folder / "workspace"
    workspace.mkdir()
    (workspace / "acme.yaml").write_text(WORKSPACE.format(url=upstream.url))
    found = Stack(folder, workspace)
    try:
        found.start()
        yield found
    finally:
        found.stop()
        upstream.stop()


@pytest.fixture(scope="module")
def careful(stack: Stack) -> str:
    """A key of the workload that keeps content."""
    return stack.key("careful")


def ask(stack: Stack, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    token = (stack.home / "operator.token").read_text().strip()
    sent = {"authorization": f"Bearer {token}", **{name.replace("_", "-"): value for name, value in headers.items()}}
    return request(stack.control_port, method, path, body, {k: v for k, v in sent.items() if v})


def call_of(answer: Answer) -> str:
    return str(answer.body["groundplan"]["call_id"])


def rows(stack: Stack) -> list[tuple[Any, ...]]:
    url = database_url(Home(stack.home), load_settings({}), "control")
    with psycopg.connect(url, autocommit=True) as conn:
        return conn.execute("SELECT call_id, kind, sealed, found FROM content ORDER BY at").fetchall()


def test_content_is_kept_redacted_and_read_with_an_audit_entry(stack: Stack) -> None:
    quiet, careful = stack.key("quiet"), stack.key("careful", "--user", "ana@acme.example")
    before = {row[0] for row in rows(stack)}
    nothing = call_of(stack.chat(quiet, f"pay {CARD}"))
    kept = call_of(stack.chat(careful, f"pay {CARD} for ana@acme.example"))
    (stored,) = wait_until(lambda: [row for row in rows(stack) if row[0] not in before], 60, "one of both is kept")
    assert str(stored[0]) == kept
    assert stored[1] == "redacted" and stored[3] == {"card": 2, "email": 2}, "asked, and echoed"
    assert stored[2].startswith("sealed:") and "[card]" not in stored[2], "nobody can read it as it lies there"
    wait_until(lambda: ask(stack, "GET", f"/api/calls/{kept}").status == 200, 60, "the receipt is there")
    receipt = ask(stack, "GET", f"/api/calls/{kept}").body
    assert receipt["content"]["kind"] == "redacted" and "prompt" not in receipt["content"]
    until = datetime.fromisoformat(receipt["content"]["expires_at"])
    assert timedelta(days=29) < until - datetime.now(UTC) < timedelta(days=31)
    read = ask(stack, "POST", f"/api/calls/{kept}/content").body
    assert read["prompt"]["messages"][0]["content"] == "pay [card] for [email]"
    assert read["answer"]["choices"][0]["message"]["content"] and "groundplan" not in read["answer"]
    log = ask(stack, "GET", "/api/audit?limit=20").body["entries"]
    entry = next(entry for entry in log if entry["action"] == "content.read")
    assert entry["subject"] == "workload/careful" and entry["actor"] == "operator"
    wait_until(lambda: ask(stack, "GET", f"/api/calls/{nothing}").status == 200, 60, "the receipt is there")
    assert ask(stack, "GET", f"/api/calls/{nothing}").body["content"] is None
    missing = ask(stack, "POST", f"/api/calls/{nothing}/content")
    assert missing.status == 404 and missing.body["error"]["code"] == "content_unknown"


def test_a_stream_is_kept_as_one_answer(stack: Stack, careful: str) -> None:
    before = len(rows(stack))
    assert stack.chat(careful, "hello", stream=True).status == 200
    wait_until(lambda: len(rows(stack)) == before + 1, 60, "the stream is kept")
    call = str(rows(stack)[-1][0])
    wait_until(lambda: ask(stack, "GET", f"/api/calls/{call}").status == 200, 60, "the receipt is there")
    answer = ask(stack, "POST", f"/api/calls/{call}/content").body["answer"]
    assert set(answer) == {"0"} and len(answer["0"]) > 5


def sign_in(stack: Stack, person: str) -> dict[str, str]:
    """Headers of a browser that followed a one-time link."""
    url = ask(stack, "POST", "/api/login-links", {"person": person}).body["url"]
    reply = request(stack.control_port, "GET", "/" + url.split("/", 3)[3])
    cookie = reply.headers["set-cookie"].partition(";")[0]
    session = request(stack.control_port, "GET", "/api/session", headers={"cookie": cookie}).body
    return {"authorization": "", "cookie": cookie, "x_csrf_token": session["csrf"]}


def test_only_permitted_duties_of_the_workload_read_content(stack: Stack, careful: str) -> None:
    call = call_of(stack.chat(careful, "hello"))
    wait_until(lambda: call in {str(row[0]) for row in rows(stack)}, 60, "it is kept")
    wait_until(lambda: ask(stack, "GET", f"/api/calls/{call}").status == 200, 60, "the receipt is there")
    eve, ana = sign_in(stack, "eve@acme.example"), sign_in(stack, "ana@acme.example")
    refused = ask(stack, "POST", f"/api/calls/{call}/content", **eve)
    assert refused.status == 403 and refused.body["error"]["code"] == "duty_missing"
    assert ask(stack, "POST", f"/api/calls/{call}/content", **ana).status == 200, "ana holds security of the workload"
    forged = ask(stack, "POST", f"/api/calls/{call}/content", **{**ana, "x_csrf_token": ""})
    assert forged.status == 403 and forged.body["error"]["code"] == "csrf"


def test_a_playground_question_is_a_call_of_the_signed_in_person(stack: Stack) -> None:
    ana, eve = sign_in(stack, "ana@acme.example"), sign_in(stack, "eve@acme.example")
    body = {"workload": "quiet", "question": "hello"}
    answer = ask(stack, "POST", "/api/playground", body, **ana)
    assert answer.status == 200 and answer.body["status"] == 200 and answer.body["answer"]
    assert answer.body["facts"]["deployment"] == "model" and answer.body["facts"]["budget_remaining_usd"]
    assert answer.body["attempts"] == 1 and answer.body["why"][0].startswith("It is placed at model: ")
    call = answer.body["call_id"]
    wait_until(lambda: ask(stack, "GET", f"/api/calls/{call}").status == 200, 60, "the receipt is there")
    assert ask(stack, "GET", f"/api/calls/{call}").body["person"] == "ana@acme.example"
    refused = ask(stack, "POST", "/api/playground", body, **eve)
    assert refused.status == 403 and refused.body["error"]["code"] == "duty_missing"
    forged = ask(stack, "POST", "/api/playground", body, **{**ana, "x_csrf_token": "x"})
    assert forged.status == 403 and forged.body["error"]["code"] == "csrf"
    unknown = ask(stack, "POST", "/api/playground", {**body, "workload": "nobody"})
    assert unknown.status == 404 and unknown.body["error"]["code"] == "workload_unknown"


def test_a_dying_shipper_loses_counted_content_and_no_facts(stack: Stack, careful: str) -> None:
    before = {str(row[0]) for row in rows(stack)}
    (shipper,) = stack.pids("gateway.journal.shipper")
    os.kill(shipper, 9)
    calls = [call_of(stack.chat(careful, "hello")) for _ in range(5)]
    for call in calls:
        wait_until(lambda call=call: ask(stack, "GET", f"/api/calls/{call}").status == 200, 60, "the fact is there")

    def all_accounted() -> bool:
        told = request(stack.port, "GET", "/metrics").body.decode()
        lost = [line for line in told.splitlines() if line.startswith("groundplan_gateway_content_lost_total")]
        counted = sum(float(line.rsplit(" ", 1)[1]) for line in lost)
        return len({str(row[0]) for row in rows(stack)} - before) + counted >= 5

    wait_until(all_accounted, 60, "what is not kept is counted")


def test_one_scrape_has_metrics_of_worker_and_shipper(stack: Stack) -> None:
    def told() -> str:
        return str(request(stack.port, "GET", "/metrics").body.decode())

    def both() -> str | None:
        """A scrape that tells of both, once the shipper is there again and has shipped."""
        text = told()
        up = all(f'groundplan_gateway_worker_up{{worker="{name}"}} 1' in text for name in ("shipper", "0"))
        return text if up and 'groundplan_shipper_rounds_total{worker="shipper"} 0' not in text else None

    found = wait_until(both, 60, "the shipper is there again and has shipped")
    lines = dict(line.rsplit(" ", 1) for line in found.splitlines() if not line.startswith("#"))
    assert float(lines['groundplan_shipper_age_seconds{worker="shipper"}']) < 30
    assert float(lines['process_resident_memory_bytes{worker="shipper"}']) > 1e6


def blueprint(*workloads: Workload) -> Blueprint:
    return Blueprint(
        number=2, company="a", separation="solo", sites=[], deployments=[], sources=[], workloads=list(workloads),
        budgets=[], placements=[],
    )  # fmt: skip


def keeps(name: str, content: str, seconds: int) -> Workload:
    return Workload(
        name=name, purpose="p", stage="pilot", sensitivity="internal", audience="employees", residency=[],
        deployments=[], budgets=[], keep=Keep(content=content, seconds=seconds),
    )  # fmt: skip


def put(conn: Any, workload: str, kind: str, age: timedelta, until: timedelta) -> UUID:
    now, call = datetime.now(UTC), new_id()
    content_store.add(conn, [content_store.Row(call, now - age, workload, kind, now + until, "sealed:x", {}, False)])
    return call


def test_content_past_its_retention_is_deleted(database: Database) -> None:
    day, hour = timedelta(days=1), timedelta(hours=1)
    with psycopg.connect(database.superuser) as conn:
        stays = put(conn, "w", "redacted", hour, day)
        past = put(conn, "w", "redacted", 2 * hour, -hour)
        full = put(conn, "w", "full", hour, day)
        old = put(conn, "w", "redacted", 3 * day, 9 * day)
        gone = put(conn, "removed", "redacted", hour, day)
        conn.commit()
    with psycopg.connect(database.urls["control"]) as conn:
        assert sweep(conn, None) == {"w": 1}, "without a blueprint only what is past its time goes"
        assert sweep(conn, blueprint(keeps("w", "redacted", 86_400))) == {"w": 2, "removed": 1}
        left = {row[0] for row in conn.execute("SELECT call_id FROM content").fetchall()}
        told = conn.execute("SELECT subject FROM audit_entry WHERE action = 'content.delete'").fetchall()
    assert left == {stays} and not left & {past, full, old, gone}
    assert sorted(row[0] for row in told) == ["workload/removed", "workload/w", "workload/w"]


def test_cached_answers_are_deleted_with_the_rule_that_permitted_them(database: Database) -> None:
    """They stand there in full, for other workers and the next start, until their own time is over."""

    def left(*workloads: Workload) -> list[str]:
        with psycopg.connect(database.urls["control"]) as conn:
            sweep(conn, blueprint(*workloads))
            return [row[0] for row in conn.execute("SELECT workload FROM answer ORDER BY number").fetchall()]

    with psycopg.connect(database.superuser, autocommit=True) as conn:
        for workload, age in (("w", 60), ("w", 7200), ("other", 60), ("removed", 60)):
            conn.execute(
                "INSERT INTO answer (call_id, workload, cleared, made_at, expires_at, size, subjects, sealed)"
                " VALUES (%s, %s, 0, now() - make_interval(secs => %s), now() + interval '1 day', 9, '{}', 'x')",
                (new_id(), workload, age),
            )
    assert left(keeps("w", "full", 86_400), keeps("other", "full", 86_400)) == ["w", "w", "other"]
    assert left(keeps("w", "full", 3600), keeps("other", "redacted", 86_400)) == ["w"]
    assert left(msgspec.structs.replace(keeps("w", "full", 3600), keep=None)) == []


def test_unanswered_questions_are_deleted_with_the_rule_that_permitted_them(database: Database) -> None:
    """That something was asked stays."""
    person = new_id()

    def left(*workloads: Workload) -> list[tuple[str, str | None]]:
        with psycopg.connect(database.urls["control"]) as conn:
            sweep(conn, blueprint(*workloads))
            return conn.execute("SELECT workload, asked FROM knowledge_signal ORDER BY at, workload").fetchall()

    with psycopg.connect(database.superuser, autocommit=True) as conn:
        for workload, age, until in (("w", 7200, 9000), ("w", 3000, -5), ("w", 60, 9000), ("other", 30, 9000)):
            conn.execute(
                "INSERT INTO knowledge_signal (id, at, workload, kind, person_id, asked, expires_at) VALUES (%s,"
                " now() - make_interval(secs => %s), %s, 'unanswered', %s, 'x', now() + make_interval(secs => %s))",
                (new_id(), age, workload, person, until),
            )
    day = 86_400
    assert left(keeps("w", "full", day), keeps("other", "redacted", day)) == [
        ("w", "x"), ("w", None), ("w", "x"), ("other", "x"),
    ]  # fmt: skip
    assert left(keeps("w", "redacted", 3600)) == [("w", None), ("w", None), ("w", "x"), ("other", None)]
    assert left() == [("w", None)] * 3 + [("other", None)]


def test_erasing_a_person_deletes_their_content(database: Database, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    create_keys(home)
    person, call = new_id(), new_id()
    writer = ContentWriter(home, database.urls["shipper"])
    writer._enqueue(Content(call.bytes, 1_800_000_000_000, "w", str(person), "full", 3600, b'{"a":1}', b"{}"))
    writer._enqueue(Content(new_id().bytes, 1_800_000_000_000, "w", "nobody", "full", 3600, b"{}", b"{}"))
    writer.open()
    writer.close()
    with psycopg.connect(database.superuser) as conn:
        row = conn.execute("SELECT sealed FROM content WHERE call_id = %s", (call,)).fetchone()
        assert row is not None
        assert conn.execute("SELECT count(*) FROM content").fetchone() == (1,), "what cannot be erased is not kept"
        keys = SubjectKeys.of(home)
        text = keys.unseal(conn, row[0])
        assert text is not None and text.startswith(f"{call}\n") and '"a": 1' in text
        destroy_subject_key(conn, str(person))
        assert keys.unseal(conn, row[0]) is None


def test_deleting_expired_content_reads_no_row(database: Database) -> None:
    """Such as after a week in which nothing was deleted: it is counted where it is."""
    with psycopg.connect(database.urls["owner"]) as owner:
        owner.execute(
            """INSERT INTO content (call_id, at, workload, kind, expires_at, sealed)
               SELECT gen_random_uuid(), now() - interval '1 day', 'w' || n % 3, 'redacted',
                 now() + CASE WHEN n % 2 = 0 THEN interval '1 hour' ELSE interval '-1 s' END, 'sealed:x:y'
               FROM generate_series(1, 60000) n"""
        )
    with psycopg.connect(database.urls["control"]) as conn:
        tracemalloc.start()
        try:
            assert content_store.delete_expired(conn) == {f"w{n}": 10_000 for n in range(3)}
            assert content_store.apply_rules(conn, [("w0", True, 7 * 86_400)]) == {"w1": 10_000, "w2": 10_000}
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert most < 500_000
    with psycopg.connect(database.urls["control"]) as conn:
        assert content_store.apply_rules(conn, [("w0", True, 7 * 86_400)]) == {}
        read = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'content'"
        assert conn.execute(read).fetchall()[0][0] <= 10, "and of the ten thousand that stay only the oldest"
        assert content_store.apply_rules(conn, [("w0", True, 3600)]) == {"w0": 10_000}


def test_content_that_cannot_be_encrypted_blocks_no_other(database: Database, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    create_keys(home)
    broken, call = new_id(), new_id()
    with psycopg.connect(database.superuser) as conn:
        conn.execute("INSERT INTO subject_key (subject, wrapped) VALUES (%s, 'of another HOME')", (str(broken),))
    writer = ContentWriter(home, database.urls["shipper"])
    for person, one in ((broken, new_id()), (new_id(), call)):
        writer._enqueue(Content(one.bytes, 1_800_000_000_000, "w", str(person), "full", 3600, b"{}", b"{}"))
    writer.open()
    writer.close()
    with psycopg.connect(database.superuser) as conn:
        assert conn.execute("SELECT call_id FROM content").fetchall() == [(call,)]
    assert writer.lost == 1


def test_more_than_fits_is_counted_not_queued(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("groundplan.gateway.telemetry.content_writer.MAX_WAITING_BYTES", 10)
    writer = ContentWriter(Home(tmp_path), database.urls["shipper"])
    for _ in range(3):
        writer._enqueue(Content(new_id().bytes, 1, "w", str(new_id()), "full", 60, b"12345", b""))
    assert writer.lost == 1
