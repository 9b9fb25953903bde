"""The log over time: searched, its reading recorded, sealed elsewhere, people erased and kept erased by a restore."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg_pool import ConnectionPool
from tests.acceptance.stack import free_port, wait_until
from tests.integration.test_api_control import Control, run_control

from groundplan.api.audit import call_archive
from groundplan.api.background import JOBS
from groundplan.api.context import Services
from groundplan.core.audit import OPERATOR, SYSTEM, Entry, person_actor, record, record_many
from groundplan.core.audit import store as audit_store
from groundplan.core.audit.checkpoint import VerifierKey
from groundplan.core.audit.entry import decode
from groundplan.core.audit.keys import create_keys, load_private
from groundplan.core.audit.log import AuditLog
from groundplan.core.audit.seal import seal
from groundplan.core.audit.subject import SubjectKeys
from groundplan.core.audit.verify import verify
from groundplan.core.audit.witness_server import witness_key
from groundplan.core.database import connect
from groundplan.core.errors import Conflict, Invalid
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.core.settings import load_settings
from groundplan.identity import erase, service
from groundplan.identity.model import GenesisPeople, GenesisPerson
from groundplan.testing import ManualClock
from groundplan.testing.database import Cluster, Database

Conn = psycopg.Connection[tuple[Any, ...]]
NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)


@pytest.fixture
def conn(database: Database) -> Iterator[Conn]:
    with connect(database.urls["control"], autocommit=True) as conn:
        yield conn


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    made.create()
    create_keys(made)
    return made


@pytest.fixture
def ana(conn: Conn) -> UUID:
    people = (GenesisPerson("ana@acme.example", "Ana"), GenesisPerson("sam@acme.example", "Sam"))
    return service.create_genesis_people(conn, GenesisPeople(people))["ana@acme.example"]


def list_actions(conn: Conn, **wanted: Any) -> list[str]:
    return [one.entry.action for one in audit_store.list_entries(conn, wanted=audit_store.EntryFilter(**wanted))]


def test_the_log_is_searched_by_who_what_workload_and_time(conn: Conn) -> None:
    ana = person_actor(new_id())
    record(conn, action="key.created", actor=ana, subject="key/1", detail={"workload": "assistant"}, at=NOW)
    record(conn, action="kill", actor=OPERATOR, subject="workload/assistant", detail={}, at=NOW + timedelta(hours=1))
    record(conn, action="key.revoked", actor=OPERATOR, subject="key/2", detail={"workload": "other"}, at=NOW)
    assert list_actions(conn, actor=ana) == ["key.created"]
    assert sorted(list_actions(conn, action="key.")) == ["key.created", "key.revoked"]
    assert sorted(list_actions(conn, workload="assistant")) == ["key.created", "kill"]
    assert list_actions(conn, since=NOW + timedelta(minutes=1)) == ["kill"]
    assert list_actions(conn, until=NOW) == [] and list_actions(conn, actor=ana, action="kill") == []


def test_an_erased_person_is_readable_nowhere_and_the_log_still_verifies(conn: Conn, home: Home, ana: UUID) -> None:
    keys = SubjectKeys.of(home)
    token = keys.seal(conn, ana, "Ana asked about her salary")
    with AuditLog(home.audit, load_private(home, "checkpoint")) as log:
        log.append([f'{{"sealed":"{token}"}}'.encode()])
    with pytest.raises(Conflict) as caught:
        erase.erase(conn, home, OPERATOR, ana, NOW)
    assert caught.value.code == "still_here"
    service.deactivate_person(conn, OPERATOR, ana)
    told = erase.erase(conn, home, OPERATOR, ana, NOW)
    assert "name and address" in told["erased"] and told["kept"] == []
    assert keys.unseal(conn, token) is None and verify(home.audit).ok
    rows = str(conn.execute("SELECT * FROM person WHERE id = %s", (ana,)).fetchall())
    assert "Ana" not in rows and "ana@" not in rows
    assert "Ana" not in str([one.entry for one in audit_store.list_entries(conn, limit=500)])


def test_a_restore_does_not_bring_back_what_was_erased(conn: Conn, home: Home, ana: UUID) -> None:
    keys = SubjectKeys.of(home)
    token = keys.seal(conn, ana, "secret")
    (backup,) = conn.execute("SELECT wrapped FROM subject_key WHERE subject = %s", (str(ana),)).fetchall()
    service.deactivate_person(conn, OPERATOR, ana)
    erase.erase(conn, home, OPERATOR, ana, NOW)
    bodies = [bytes(body) for (body,) in conn.execute("SELECT body FROM audit_entry ORDER BY queued").fetchall()]
    for way in ("the list in HOME", "the log alone"):
        conn.execute("UPDATE subject_key SET wrapped = %s WHERE subject = %s", (backup[0], str(ana)))
        assert keys.unseal(conn, token) == "secret", "an older backup has the key"
        if way == "the log alone":
            (home.root / "erased").unlink()
            with AuditLog(home.audit, load_private(home, "checkpoint")) as log:
                log.append(bodies)
        assert erase.reapply_erasures(conn, home) == 1
        assert keys.unseal(conn, token) is None, way
    assert erase.read_erased_list(home) == {ana}


def test_approvers_stay_readable_until_their_retention_ends(conn: Conn, home: Home, ana: UUID) -> None:
    change = new_id()
    conn.execute(
        """INSERT INTO change (id, digest, type, base, sources, summary, needs, requested_by, requested_at, state)
           VALUES (%s, 'd', 'workload', 0, '{}', '{}', '[]', 'operator', %s, 'applied')""",
        (change, NOW),
    )
    conn.execute(
        """INSERT INTO approval (id, change_id, digest, duty, subject, person_id, decision, comment, unseparated, at)
           VALUES (%s, %s, 'd', 'business', 'company', %s, 'approved', '', false, %s)""",
        (new_id(), change, ana, NOW),
    )
    service.deactivate_person(conn, OPERATOR, ana)
    told = erase.erase(conn, home, OPERATOR, ana, NOW)
    assert told["kept"] == ["name and address"] and told["until"] == (NOW + erase.APPROVAL_RETENTION).date()
    assert erase.erase_due_names(conn, NOW + erase.APPROVAL_RETENTION - timedelta(days=1)) == 0
    six_years = NOW.replace(year=NOW.year + 6) - NOW
    assert six_years <= erase.APPROVAL_RETENTION, "with two leap days, too"
    clock = ManualClock(NOW + erase.APPROVAL_RETENTION + timedelta(days=1))
    services: Any = SimpleNamespace(clock=clock, transaction=lambda: nullcontext(conn))
    (look,) = (work for name, _, work in JOBS if name == "forgetting names")
    assert (look(services), look(services)) == (1, 0), "however long the control process runs"
    assert "Ana" not in str(conn.execute("SELECT name FROM person").fetchall())


def test_a_sealed_copy_grows_verifies_and_writes_full_tiles_once(home: Home, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    with AuditLog(home.audit, load_private(home, "checkpoint")) as log:
        log.append([b"%d" % number for number in range(600)])
        first = seal(home.audit, f"file://{target}")
        assert (first.entries, first.segments) == (600, 4) and verify(target).ok
        sealed = {
            path: path.stat().st_mtime_ns for path in target.rglob("*") if path.is_file() and ".p" not in str(path)
        }
        log.append([b"%d" % number for number in range(600, 800)])
        again = seal(home.audit, f"file://{target}")
    assert (again.entries, again.segments) == (800, 2)
    verdict = verify(target, (home.audit / "log.pub").read_bytes())
    assert verdict.ok and verdict.entries == 800
    full = [path for path in sealed if path.parent.name in ("0", "entries")]
    assert full and all(path.stat().st_mtime_ns == sealed[path] for path in full)
    assert not [path for path in target.rglob("*") if "key" in path.name]
    assert (target / "checkpoints" / "600").exists()
    with pytest.raises(Invalid):
        seal(home.audit, "nothing-like-that://x")


@pytest.fixture(scope="module")
def archived_database(postgres_cluster: Cluster) -> Iterator[Database]:
    """Where the first 256 entries are of calls whose facts have left."""
    old = datetime.now(UTC) - timedelta(days=500)
    made = [Entry(new_id(int(old.timestamp() * 1000)), old, "call", SYSTEM, "x", {}) for _ in range(256)]
    with postgres_cluster.database() as database:
        with connect(database.urls["control"], autocommit=True) as conn:
            record_many(conn, made)
        yield database


@pytest.fixture(scope="module")
def control(archived_database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    folder = tmp_path_factory.mktemp("kept")
    with run_control(archived_database, folder, "--workspace", str(folder / "workspace")) as found:
        yield found


def test_the_same_query_of_the_log_is_logged_once(control: Control) -> None:
    def reads() -> list[Any]:
        rows = control.ask("GET", "/api/audit?action=audit.read").body["entries"]
        return [row["detail"]["asked"] for row in rows]

    control.ask("GET", "/api/audit?workload=assistant")
    control.ask("GET", "/api/audit?workload=assistant")
    assert reads().count({"workload": "assistant"}) == 1
    control.ask("GET", "/api/audit?who=ana@acme.example")
    told = str(reads())
    assert "person:" in told and "ana@" not in told, "people are named by id"
    assert control.ask("GET", "/api/audit?who=nobody@acme.example").body == {"entries": [], "archived": None}
    assert "nobody@" not in str(reads()), "nor are strangers named"
    assert control.ask("GET", "/api/audit?workload=x'--").status == 422
    assert {"action": "audit.read"} in reads()


def test_entries_that_have_left_are_proven_and_their_files_verified(
    control: Control, archived_database: Database, tmp_path: Path
) -> None:
    settings = replace(load_settings({}), archive_url=str(tmp_path))
    with ConnectionPool[Any](archived_database.urls["control"], min_size=1, open=True) as pool:
        with pool.connection() as there:
            rows = wait_until(lambda: audit_store.sequenced_from(there, 0, 256)[255:], 30, "places")
            audit_store.set_contiguous_until(there, 256)
            id = decode(rows[0][1]).id
        services = Services(control.home, settings, None, False, None, pool, ManualClock(datetime.now(UTC)))  # type: ignore[arg-type]
        assert call_archive.archive_entries(services, 256) == 1
    (told,) = control.ask("GET", "/api/audit/archive").body["ranges"]
    assert control.ask("GET", "/api/audit/archive?after=256").body["ranges"] == []
    listed = control.ask("GET", "/api/audit?action=call&limit=500").body
    assert (listed["entries"], listed["archived"]["until"]) == ([], 256)
    proof = control.ask("GET", f"/api/audit/{id}/proof").body
    assert proof["proof"]["holds"] and proof["proof"]["index"] == 255
    assert control.ask("GET", f"/api/audit/{new_id(0)}/proof").status == 404
    verified = control.ask("GET", "/api/audit/verify").body
    assert (verified["ok"], verified["archived"]) == (True, 1)
    (tmp_path / told["file"]).unlink()
    verified = control.ask("GET", "/api/audit/verify").body
    assert not verified["ok"] and told["file"] in str(verified["problems"])


@pytest.mark.soak
def test_the_witness_signs_and_its_silence_is_reported(
    postgres_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As installed: a control process that is told of a witness, and the witness as a process."""
    folder, port = tmp_path / "witness", free_port()
    public = VerifierKey("witness.example/acme", witness_key(folder).public_key().public_bytes_raw(), cosigns=True)
    monkeypatch.setenv("GROUNDPLAN_WITNESSES", f"http://127.0.0.1:{port} {public.encode()}")
    workspace = ("--workspace", str(tmp_path / "workspace"))
    with postgres_cluster.database() as database, run_control(database, tmp_path, *workspace) as control:
        wait_until(lambda: (control.home.audit / "checkpoint").exists(), 20, "the log is begun")
        wait_until(lambda: "does not answer" in str(_told(control)), 20, "its silence is in the inbox")
        command = [
            *(sys.executable, "-m", "groundplan.core.audit.witness_server", "--folder", str(folder)),
            *("--name", public.name, "--log", str(control.home.audit / "log.pub"), "--port", str(port)),
        ]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert process.stdout is not None
        try:
            assert process.stdout.readline().startswith(public.encode()), "it prints the key to be trusted"
            wait_until(lambda: verify(control.home.audit, witnesses=[public]).ok, 20, "it signed")
            wait_until(lambda: _told(control) == [], 20, "the finding is closed")
            done = subprocess.run(
                [
                    *(sys.executable, "-m", "groundplan.cli.main", "audit", "verify", str(control.home.audit)),
                    *("--witness", public.encode()),
                ],
                capture_output=True, text=True, timeout=60,
            )  # fmt: skip
            assert done.returncode == 0 and "witnessed by witness.example/acme at 20" in done.stdout
        finally:
            process.terminate()
            process.wait(60)
            process.stdout.close()


def _told(control: Control) -> list[str]:
    items = control.ask("GET", "/api/inbox").body["items"]
    return [item["message"] for item in items if item["kind"] == "governance.witness"]


S3 = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


@pytest.mark.soak
def test_where_the_store_locks_objects_sealed_tiles_are_locked(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the command, on a server of S3 with object lock; locked versions cannot be deleted before their day."""
    import boto3  # type: ignore[import-untyped]  # noqa: PLC0415 -- heavy
    from botocore.exceptions import ClientError  # type: ignore[import-untyped]  # noqa: PLC0415

    with AuditLog(home.audit, load_private(home, "checkpoint")) as log:
        log.append([b"%d" % number for number in range(300)])
    server = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", S3], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert server.stdout is not None
    try:
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        for name, value in (("ENDPOINT_URL", url), ("ACCESS_KEY_ID", "id"), ("SECRET_ACCESS_KEY", "secret")):
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        client = boto3.client("s3")
        client.create_bucket(Bucket="logs", ObjectLockEnabledForBucket=True)
        command = [*(sys.executable, "-W", "ignore", "-m", "groundplan.cli.main", "audit", "seal", "s3://logs/copy")]
        for segments in (2, 0):
            done = subprocess.run(
                [*command, "--lock-days", "30", "--home", str(home.root)], capture_output=True, text=True, timeout=60
            )
            assert f"300 entries sealed, {segments} new" in done.stdout, done.stderr
        held = client.head_object(Bucket="logs", Key="copy/tile/entries/000")
        assert held["ObjectLockMode"] == "COMPLIANCE"
        assert held["ObjectLockRetainUntilDate"] > datetime.now(UTC) + timedelta(days=29)
        with pytest.raises(ClientError):
            client.delete_object(Bucket="logs", Key="copy/tile/entries/000", VersionId=held["VersionId"])
    finally:
        server.kill()
        server.communicate()
