"""The schema: reached once by many starts at the same time, refused when it is newer or was never released, and with
roles that stay in bounds.
"""

from __future__ import annotations

import multiprocessing
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from psycopg import sql

from groundplan.cli import doctor
from groundplan.cli.doctor import _check_postgres
from groundplan.core.database import DATABASE, ROLES, connect, external_url, prepare_long_session, role_name
from groundplan.core.errors import Conflict, Denied, Invalid, Unavailable
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.migrations import BASELINE, FOLDER, revisions
from groundplan.runtime import migrate as migrate_module
from groundplan.runtime import upgrade
from groundplan.runtime.migrate import LAST_UNRELEASED, check_role, head, look, migrate, revision
from groundplan.testing.database import Cluster, Database

CUSTOMS = {
    "client_encoding": "LATIN1",
    "datestyle": "SQL, DMY",
    "intervalstyle": "iso_8601",
    "default_transaction_isolation": "serializable",
    "idle_session_timeout": "700",
    "row_security": "off",
    "timezone": "Asia/Kathmandu",
}
"""Of a server or a login, which others are served under."""


@contextmanager
def bare_database(cluster: Cluster, name: str, options: str = "") -> Iterator[str]:
    """An empty database as an administrator of some other server would give it; dropped with its roles."""
    identifier = sql.Identifier(name)
    with connect(cluster.superuser_url("postgres"), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(identifier) + sql.SQL(f" {options}"))
        try:
            yield cluster.superuser_url(name).partition("?")[0]
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(identifier))
            for role in ROLES:
                admin.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role_name(name, role))))


LaterStep = Callable[..., Path]
"""Makes a folder with the steps of this program and the given ones (as SQL) behind them, `NNN_later`."""
FIRST_LATER, SECOND_LATER = (f"{len(revisions()) + number:03}_later" for number in (1, 2))


@pytest.fixture
def later_step(tmp_path: Path) -> LaterStep:
    def make(*statements: str) -> Path:
        folder = tmp_path / "steps"
        shutil.copytree(FOLDER, folder, dirs_exist_ok=True)
        for number, statement in enumerate(statements, len(revisions()) + 1):
            (folder / f"{number:03}_later.sql").write_text(statement)
        return folder

    return make


def test_a_fresh_database_is_at_this_programs_schema(database: Database) -> None:
    assert revision(database.urls["owner"]) == head()
    assert migrate(database.urls["owner"]) == head()


def test_a_start_on_this_programs_schema_loads_nothing_that_upgrades(database: Database) -> None:
    program = (
        "import sys; import groundplan.cli.up; from groundplan.runtime.migrate import migrate\n"
        "print(migrate(sys.argv[1]), {'alembic', 'sqlalchemy'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", program, database.urls["owner"]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == f"{head()} set()"


def test_steps_run_in_the_order_of_their_numbers_and_none_twice(
    postgres_cluster: Cluster, later_step: LaterStep
) -> None:
    """Also from the middle of the areas on, where a start was killed."""
    with bare_database(postgres_cluster, "bare_steps") as url:
        assert migrate(url, "007_ledger") == revision(url) == "007_ledger"
        assert migrate(url, "003_audit") == "003_audit" and revision(url) == "007_ledger"
        assert migrate(url) == revision(url) == revisions()[-1]
        folder = later_step("CREATE TABLE later (id int)", "INSERT INTO later VALUES (1)")
        upgrade.upgrade(url, SECOND_LATER, folder)
        upgrade.upgrade(url, SECOND_LATER, folder)
        with connect(url) as connection:
            assert connection.execute("SELECT id FROM later").fetchall() == [(1,)]
        with pytest.raises(Conflict, match="schema_newer"):
            migrate(url)


def test_a_step_that_fails_leaves_the_database_at_the_one_before(
    postgres_cluster: Cluster, later_step: LaterStep
) -> None:
    with bare_database(postgres_cluster, "bare_fails") as url:
        before = migrate(url)
        with pytest.raises(Unavailable, match="division by zero") as refused:
            upgrade.upgrade(
                url, SECOND_LATER, later_step("CREATE TABLE later (id int)", "DROP TABLE later; SELECT 1/0")
            )
        assert refused.value.code == "migration_failed"
        assert revision(url) == FIRST_LATER > before
        with connect(url) as connection:
            assert connection.execute("SELECT count(*) FROM later").fetchone() == (0,)
        upgrade.upgrade(url, SECOND_LATER, later_step("SELECT 1/0", "DROP TABLE later"))
        assert revision(url) == SECOND_LATER


def test_no_role_owns_a_table_is_superuser_or_bypasses_row_level_security(database: Database) -> None:
    for role in ROLES:
        with connect(database.urls[role]) as connection:
            found = connection.execute(
                "SELECT rolsuper, rolbypassrls, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = current_user"
            ).fetchone()
            assert found == (False, False, False, False)
            owned = connection.execute(
                "SELECT count(*) FROM pg_tables WHERE schemaname = 'public' AND tableowner = current_user"
            ).fetchone()
            assert owned is not None
            assert bool(owned[0]) == (role == "owner")


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("control", "UPDATE audit_entry SET body = ''"),
        ("control", "DELETE FROM audit_entry"),
        ("control", "UPDATE alembic_version SET version_num = '9999'"),
        ("control", "CREATE TABLE mine (one int)"),
        ("gateway", "SELECT * FROM document"),
        ("gateway", "UPDATE api_key SET revoked_at = NULL"),
        ("shipper", "DELETE FROM call"),
        ("shipper", "UPDATE policy_epoch SET number = 9223372036854775807"),  # after which nothing can be stopped
        (
            "shipper",
            """INSERT INTO audit_entry (id, at, action, actor, subject, body, leaf_index)
               VALUES (gen_random_uuid(), now(), 'call', 'system', 'company', '{}', 0)""",
        ),
        ("shipper", "SELECT hash FROM api_key"),
        ("search", "SELECT name FROM person"),
        ("gateway", "SELECT next_policy_number('kill', 'company', true)"),
        ("search", "UPDATE document SET title = ''"),
        ("search", "SET ROLE groundplan_control"),
        (  # else whatever a type of their own does on its way into a table of the owner's acts as the owner
            "search",
            """CREATE TEMP TABLE mine (budget text, period text, cost_usd numeric); CREATE TRIGGER forged AFTER INSERT
               ON mine REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION roll_charges()""",
        ),
    ],
)
def test_a_role_may_not_do_what_is_not_its_work(database: Database, role: str, statement: str) -> None:
    urls = {str(name): url for name, url in database.urls.items()}
    with connect(urls[role]) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(statement.encode())


def test_nothing_of_a_caller_acts_as_the_owner(database: Database) -> None:
    with connect(database.urls["gateway"], autocommit=True) as gateway:
        gateway.execute("CREATE FUNCTION pg_temp.who() RETURNS text LANGUAGE sql AS 'SELECT current_user::text'")
        gateway.execute(
            """CREATE TEMP VIEW ticket_call AS SELECT 't' AS ticket, pg_temp.who() AS workload, now() AS at,
                 true AS asked, gen_random_uuid() AS call_id"""
        )
        gateway.execute("GRANT SELECT ON ticket_call TO PUBLIC")
        told = gateway.execute(
            "SELECT told_workload FROM tell_ticket('t', NULL, 'e', false, NULL, now(), 'system', true)"
        ).fetchall()
    assert told == []
    with connect(database.urls["owner"]) as owner:
        open_ones = owner.execute(
            """SELECT oid::regprocedure FROM pg_proc WHERE prosecdef AND pronamespace = 'public'::regnamespace
                 AND (NOT EXISTS (SELECT FROM unnest(proconfig) c WHERE c ~ '^search_path=.*, pg_temp$')
                   OR EXISTS (SELECT FROM aclexplode(coalesce(proacl, acldefault('f', proowner))) WHERE grantee = 0))"""
        ).fetchall()
    assert open_ones == []


def test_who_may_make_functions_among_ours_is_told(database: Database, tmp_path: Path) -> None:
    for granted, told in (("", ["ok"]), ("GRANT CREATE ON SCHEMA public TO PUBLIC", ["ok", "warn"])):
        with connect(database.superuser, autocommit=True) as admin:
            admin.execute(granted.encode())
        assert [check.state for check in _check_postgres(Home(tmp_path), database.settings(tmp_path))] == told


@pytest.mark.parametrize(("seconds", "told"), [(90, "behind"), (-90, "ahead of"), (1, "")])
def test_clocks_that_are_apart_are_told(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int, told: str
) -> None:
    """Of replicas that share a limit the one that is behind finds each minute used up."""
    monkeypatch.setattr(doctor, "time", SimpleNamespace(time=lambda: time.time() - seconds))
    *_, last = _check_postgres(Home(tmp_path), database.settings(tmp_path))
    assert (last.name, last.state) == (("clock", "warn") if told else ("postgres", "ok"))
    assert not told or f"90 s {told} that of PostgreSQL" in last.message


def test_documents_are_seen_only_by_their_readers(database: Database) -> None:
    reader, stranger, document, chunk = (new_id() for _ in range(4))
    with connect(database.urls["control"]) as control:
        for person, email in ((reader, "hana@example.com"), (stranger, "ben@example.com")):
            control.execute("INSERT INTO person (id, email, name) VALUES (%s, %s, %s)", (person, email, email))
        control.execute(
            "INSERT INTO source (name, sensitivity, owner, path) VALUES ('hr', 'confidential', 'hana', 'hr')"
        )
        control.execute(
            "INSERT INTO document (id, source, path, title, digest) VALUES (%s, 'hr', 'pay.md', 'Pay', 'x')",
            (document,),
        )
        control.execute(
            "INSERT INTO document_reader (document_id, reader) VALUES (%s, 'hana@example.com')", (document,)
        )
        control.execute(
            "INSERT INTO chunk (id, document_id, number, text, start_char, end_char, start_line, end_line, changed) "
            "VALUES (%s, %s, 0, 'secret', 0, 6, 1, 1, 1)",
            (chunk, document),
        )
    with connect(database.urls["search"]) as search:
        for asking, seen in ((str(reader), 1), (str(stranger), 0), ("", 0)):
            search.execute("SELECT set_config('groundplan.person', %s, true)", (asking,))
            for count in ("SELECT count(*) FROM document", "SELECT count(*) FROM chunk"):
                assert search.execute(count.encode()).fetchone() == (seen,)


def test_a_newer_schema_is_refused_and_left_alone(database: Database) -> None:
    with connect(database.urls["owner"]) as owner:
        owner.execute("UPDATE alembic_version SET version_num = '9999_future'")
    with pytest.raises(Conflict, match="schema_newer"):
        migrate(database.urls["owner"])
    assert revision(database.urls["owner"]) == "9999_future"


def test_a_database_with_the_last_unreleased_schema_is_taken_over_as_it_is(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upgrade, "upgrade", lambda *_, **__: pytest.fail("there is nothing to run"))
    with connect(database.urls["owner"], autocommit=True) as owner:
        owner.execute("UPDATE alembic_version SET version_num = %s", (LAST_UNRELEASED,))
        assert look(database.urls["owner"]) == revision(database.urls["owner"]) == BASELINE
        assert owner.execute("SELECT version_num FROM alembic_version").fetchone() == (LAST_UNRELEASED,)
        assert migrate(database.urls["owner"], BASELINE) == BASELINE
        assert owner.execute("SELECT version_num FROM alembic_version").fetchone() == (BASELINE,)


@pytest.mark.parametrize(
    "lacks",
    [
        "DROP TABLE api_upload",
        "ALTER TABLE background_response DROP COLUMN waits",
        "CREATE OR REPLACE FUNCTION roll_calls() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
    ],
)
def test_a_database_that_lacks_parts_of_the_last_unreleased_schema_is_refused(database: Database, lacks: str) -> None:
    """Some of its steps were added after the one with the greatest number."""
    with connect(database.urls["owner"]) as owner:
        owner.execute("UPDATE alembic_version SET version_num = %s", (LAST_UNRELEASED,))
        owner.execute(lacks.encode())
    for refuses in (migrate, look):
        with pytest.raises(Conflict, match="schema_unreleased"):
            refuses(database.urls["owner"])
    with connect(database.urls["owner"]) as owner:
        assert owner.execute("SELECT version_num FROM alembic_version").fetchone() == (LAST_UNRELEASED,)


QUOTES = frozenset(
    ("chunk.head", "finding.quote", *(f"held_version.{name}" for name in ("title", "declared", "text", "data")))
)
"""Columns with contents of documents of which nothing is to be sampled since `017_no_samples_of_quotes`."""


def test_no_sample_of_contents_outlives_them_in_the_planners_statistics(postgres_cluster: Cluster) -> None:
    def sampled(connection: psycopg.Connection[Any]) -> set[str]:
        rows = connection.execute("SELECT tablename || '.' || attname FROM pg_stats WHERE schemaname = 'public'")
        return {name for (name,) in rows} & QUOTES

    with bare_database(postgres_cluster, "bare_samples") as url:
        migrate(url, BASELINE)
        with connect(url, autocommit=True) as connection:
            for number in range(20):
                text = f"what was said in {number % 3}"
                connection.execute(
                    """INSERT INTO finding (id, kind, severity, subject, message, hint, quote)
                    VALUES (%s, 'k', 'warning', %s, '', '', %s)""",
                    (new_id(), str(number), text),
                )
                connection.execute(
                    """INSERT INTO held_version (id, source, path, title, declared, text, data, cause)
                    VALUES (%s, 's', %s, %s, %s, %s, %s, 'gone')""",
                    (new_id(), str(number), text, f'{{"a": "{text}"}}', text, text.encode()),
                )
            connection.execute("ANALYZE finding, held_version, chunk")
            assert sampled(connection) == QUOTES - {"chunk.head"}, "chunk has no rows"
            migrate(url)
            assert sampled(connection) == set()
            connection.execute("ANALYZE finding, held_version, chunk")
            assert sampled(connection) == set()


@pytest.mark.parametrize("found", ["0001_foundation", "0359_grants_by_join", "0417_uses_of_tools_are_no_calls"])
def test_an_older_unreleased_schema_is_refused_and_left_alone(database: Database, found: str) -> None:
    with connect(database.urls["owner"]) as owner:
        owner.execute("UPDATE alembic_version SET version_num = %s", (found,))
    for refuses in (migrate, look):
        with pytest.raises(Conflict, match="schema_unreleased") as refused:
            refuses(database.urls["owner"])
        assert found in str(refused.value) and LAST_UNRELEASED in refused.value.hint
    assert revision(database.urls["owner"]) == found


@pytest.mark.parametrize(
    ("statement", "code", "told"),
    [
        ("ALTER DATABASE {db} SET default_transaction_read_only = on", "database_read_only", "may only read"),
        ("ALTER TABLE audit_entry OWNER TO CURRENT_USER", "database_rights", "--no-owner"),
        ("REVOKE ALL ON audit_entry FROM {of}_control", "database_rights", "--no-privileges"),
        ("DROP ROLE {db}_control", "database_rights", "RENAME TO {of};"),  # as after a restore under another name
    ],
)
def test_a_database_that_nothing_can_be_served_from_is_refused_by_its_cause(
    database: Database, statement: str, code: str, told: str
) -> None:
    names = {"db": database.name, "of": DATABASE}
    with connect(database.superuser, autocommit=True) as admin:
        admin.execute(statement.format(**names).encode())
    for refuses in (migrate, look):
        with pytest.raises((Denied, Unavailable), match=re.escape(told.format(**names))) as refused:
            refuses(database.urls["owner"])
        assert refused.value.code == code


def test_an_external_database_is_migrated_by_an_administrator(postgres_cluster: Cluster) -> None:
    with bare_database(postgres_cluster, "bare_admin") as url:
        with connect(url, autocommit=True) as admin:
            for name, value in CUSTOMS.items():
                admin.execute(f"ALTER DATABASE bare_admin SET {name} = '{value}'".encode())
            admin.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")  # as of a server that was older than 15
        url = external_url(url, "owner")
        assert revision(url) is None
        assert migrate(url) == head()
        check_role(external_url(url, "search"), "bare_admin_search")
        with pytest.raises(Invalid, match="database_pooled"):
            check_role(url, "bare_admin_search")
        with connect(external_url(url, "search")) as search:
            assert search.execute("SELECT count(*) FROM document").fetchone() == (0,)
            told = dict(search.execute("SELECT lower(name), setting FROM pg_settings").fetchall())
            assert search.execute("SELECT has_schema_privilege('public', 'CREATE')").fetchone() == (False,)
            assert not {name for name, value in CUSTOMS.items() if told[name] == value}
            assert isinstance((search.execute("SELECT now()").fetchone() or (None,))[0], datetime)
            for name, value in (("tcp_keepalives_idle", "10"), ("idle_in_transaction_session_timeout", "5min")):
                assert search.execute("SELECT current_setting(%s)", (name,)).fetchone() == (value,), "else for hours"


def test_tables_are_made_where_every_role_finds_them(postgres_cluster: Cluster) -> None:
    with bare_database(postgres_cluster, "bare_own") as url:
        with connect(url, autocommit=True) as admin:
            admin.execute("CREATE SCHEMA AUTHORIZATION CURRENT_USER")  # which comes first for this login alone
            admin.execute("ALTER DATABASE bare_own SET statement_timeout = '1min'")  # too short for an index
        assert migrate(url) == head()
        with connect(url) as upgrading:
            prepare_long_session(upgrading)
            assert upgrading.execute("SHOW statement_timeout").fetchone() == ("0",)
        check_role(external_url(url, "search"), "bare_own_search")
        with connect(url, autocommit=True) as admin:
            admin.execute("ALTER DATABASE bare_own SET search_path = elsewhere")
        assert migrate(url) == head()
        with pytest.raises(Invalid, match="database_search_path"):
            check_role(external_url(url, "search"), "bare_own_search")


@pytest.mark.parametrize(
    ("options", "prepared", "code"),
    [
        ("ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0", "SELECT", "database_encoding"),
        ("ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0", "SELECT", "database_encoding"),
        ("", "CREATE SCHEMA ext; CREATE EXTENSION vector SCHEMA ext", "database_extension"),
    ],
)
def test_a_database_that_cannot_hold_everything_is_refused_before_anything_is_made(
    postgres_cluster: Cluster, options: str, prepared: str, code: str
) -> None:
    with bare_database(postgres_cluster, "bare_unfit", options) as url:
        with connect(url, autocommit=True) as admin:
            for statement in prepared.split(";"):
                admin.execute(statement.encode())
        with pytest.raises((Invalid, Denied), match=code):
            migrate(url)
        assert revision(url) is None


def test_whoever_waits_for_a_server_says_so_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server without room for one more is waited for as one that starts: a reload said for minutes nothing of it."""
    told: list[str] = []
    monkeypatch.setenv("GROUNDPLAN_DATABASE_URL", "postgresql://u@127.0.0.1:1/d")
    monkeypatch.setattr(migrate_module, "_PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr("groundplan.runtime.migrate.time.sleep", lambda _: told.append(capsys.readouterr().err))
    assert migrate_module.main(("--home", str(tmp_path))) == 69
    assert "database_unavailable" in told[0] and not any(told[1:])


def test_many_starts_at_once_upgrade_once(postgres_cluster: Cluster) -> None:
    with bare_database(postgres_cluster, "bare_race") as url:
        with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn")) as pool:
            assert set(pool.map(migrate, [url] * 4)) == {head()}


def test_a_step_that_waits_for_a_table_lets_others_use_it(
    postgres_cluster: Cluster, monkeypatch: pytest.MonkeyPatch, later_step: LaterStep
) -> None:
    """Whoever waits for it keeps all others out who come later: gateways beside a backup, for as long as that takes."""
    monkeypatch.setattr(upgrade, "TURN_SECONDS", 0.05)
    folder = later_step("ALTER TABLE budget_slice ADD COLUMN later int")
    with bare_database(postgres_cluster, "bare_busy") as url:
        before = migrate(url)
        with connect(url) as backup:
            backup.execute("SELECT count(*) FROM budget_slice")
            with pytest.raises(Unavailable, match="migration_waits"):
                upgrade.upgrade(url, FIRST_LATER, folder, patience=0.01)
            assert revision(url) == before
        upgrade.upgrade(url, FIRST_LATER, folder, patience=0.01)
        assert revision(url) == FIRST_LATER


def test_a_step_that_waits_crosswise_with_a_call_runs_again_and_says_so(
    postgres_cluster: Cluster, monkeypatch: pytest.MonkeyPatch, later_step: LaterStep
) -> None:
    """Each has a table that the other one waits for: PostgreSQL ends who looks for that first, here the step."""
    monkeypatch.setattr(upgrade, "TURN_SECONDS", 20.0)  # it looks for that after a second, as a step waits for one
    monkeypatch.setattr(upgrade, "PAUSE_SECONDS", 0.05)
    folder, told = later_step("LOCK experiment_pair; LOCK replay_run"), list[str]()
    waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'replay_run'::regclass"
    with bare_database(postgres_cluster, "bare_cross") as url, ThreadPoolExecutor(1) as pool:
        migrate(url)
        calls = postgres_cluster.superuser_url("bare_cross")
        with connect(calls) as call, connect(url, autocommit=True) as looking:
            call.execute("SET deadlock_timeout = '1h'")
            call.execute("LOCK TABLE replay_run IN ROW EXCLUSIVE MODE")
            to, progress = FIRST_LATER, told.append
            upgrading = pool.submit(upgrade.upgrade, url, to, folder, patience=30, progress=progress)
            while looking.execute(waits).fetchone() == (0,):
                assert not upgrading.done()
            call.execute("SELECT count(*) FROM experiment_pair")
            while not told:
                assert not upgrading.done()
            call.rollback()
        upgrading.result()
        assert revision(url) == to
    assert len(told) == 1 and "in use no more" in told[0] and "the oldest transaction, of" in told[0]


def test_whoever_waits_for_another_start_says_so(postgres_cluster: Cluster) -> None:
    told: list[str] = []
    with bare_database(postgres_cluster, "bare_second") as url, ThreadPoolExecutor(1) as pool:
        with connect(url, autocommit=True) as first:
            first.execute("SELECT pg_advisory_lock(%s)", (migrate_module._LOCK_KEY,))
            second = pool.submit(migrate, url, None, told.append)
            while not told:
                assert not second.done()
        assert second.result() == head()
    assert told == ["another start is upgrading this database, and is waited for"]


def test_what_a_full_disk_does_not_take_of_an_upgrades_words_ends_it_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: str) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys.stderr, "write", full)
    migrate_module._say("another start is upgrading this database, and is waited for")


def test_what_postgresql_refuses_beside_the_steps_is_told(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    full = psycopg.errors.DiskFull("could not extend file: No space left on device")
    monkeypatch.setattr(migrate_module, "_shield", lambda _: (_ for _ in ()).throw(full))
    with pytest.raises(Unavailable, match="No space left") as refused:
        migrate(database.urls["owner"])
    assert (refused.value.code, refused.value.exit_code) == ("migration_failed", 69) and refused.value.hint


def test_a_user_who_may_not_make_roles_is_told_what_to_ask_for(postgres_cluster: Cluster) -> None:
    with bare_database(postgres_cluster, "bare_plain") as url, connect(url, autocommit=True) as admin:
        admin.execute("CREATE ROLE plain_user LOGIN PASSWORD 'pw'")
        try:
            plain = f"postgresql://plain_user:pw@127.0.0.1:{postgres_cluster.port}/bare_plain"
            with pytest.raises(Denied, match="CREATE ROLE bare_plain_control NOLOGIN"):
                migrate(plain)
            assert revision(url) is None
        finally:
            admin.execute("DROP ROLE plain_user")


def test_a_name_that_cannot_name_roles_is_refused(postgres_cluster: Cluster) -> None:
    with bare_database(postgres_cluster, "Odd-Name") as url, pytest.raises(Invalid, match="database_name"):
        migrate(url)
