"""Databases of versions to which steps of the schema had come in another order, or in other words, than they have now:
each ends with the schema of a new one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from psycopg import Connection
from tests.integration.test_migrations import bare_database

from groundplan import migrations
from groundplan.core.database import connect
from groundplan.core.errors import Invalid
from groundplan.migrations.chain import statements
from groundplan.migrations.signs import SIGNS
from groundplan.runtime.migrate import _prepare, head, migrate, revision
from groundplan.runtime.missed_steps import overtaken
from groundplan.runtime.table_dump import dump_tables, load_tables
from groundplan.testing.database import Cluster, Database

SCRIPTS = Path(migrations.__file__).parent
AS_FIRST = """
    REVOKE SELECT ON semantic_region FROM overtaken_control; DROP INDEX call_budget_refused, batch_line_running;
    ALTER POLICY document_changed ON document USING (true); ALTER POLICY chunk_changed ON chunk USING (true);
    ALTER TABLE source_declared RENAME COLUMN said TO mark; ALTER TABLE batch DROP COLUMN left_usd;
    ALTER TABLE person_running ALTER COLUMN calls TYPE numeric[]"""
"""What steps that were corrected in the hours after they came had made before."""


def _schema(url: str) -> set[tuple[str, ...]]:
    """Columns, indexes, triggers, constraints and functions with their texts, and rights to relations."""
    statement = """
      SELECT 'column', attrelid::regclass::text, attname, format_type(atttypid, atttypmod) || attnotnull
        FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
        WHERE relnamespace = 'public'::regnamespace AND attnum > 0 AND NOT attisdropped
      UNION ALL SELECT 'index', indexdef, '', '' FROM pg_indexes WHERE schemaname = 'public'
      UNION ALL SELECT 'trigger', pg_get_triggerdef(oid), '', '' FROM pg_trigger WHERE NOT tgisinternal
      UNION ALL SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace
      UNION ALL SELECT 'function', pg_get_functiondef(oid), '', '' FROM pg_proc
        WHERE pronamespace = 'public'::regnamespace AND prokind = 'f' AND proowner = (
          SELECT relowner FROM pg_class WHERE oid = 'call'::regclass)
      UNION ALL SELECT 'right', table_name, grantee, privilege_type FROM information_schema.role_table_grants
        WHERE table_schema = 'public'"""
    with connect(url) as connection:
        name = connection.info.dbname
        return {tuple(part.replace(name, "DB") for part in row) for row in connection.execute(statement.encode())}


def _made(admin: Connection[Any], at: str, never: tuple[str, ...]) -> None:
    """The schema of a database at the step `at` that never had some before it."""
    _prepare(admin)
    admin.execute("CREATE TABLE alembic_version (version_num varchar(32) CONSTRAINT alembic_version_pkc PRIMARY KEY)")
    for path in sorted(SCRIPTS.glob("0*.sql")):
        if path.stem <= at and path.stem[:4] not in never:
            admin.execute(statements(path.stem, admin.info.dbname))
    admin.execute("INSERT INTO alembic_version VALUES (%s)", (at,))


@pytest.mark.parametrize(
    ("at", "never", "as_first"),
    [
        ("0151_message_batches", ("0132", "0133", "0138", "0139"), ""),  # as on 26 November 2026
        ("0206_residency_of_documents", ("0185", "0190", "0200", "0201"), ""),
        ("0359_grants_by_join", (), ""),  # as on 28 November 2026
        ("0382_windows_kept_longer", ("0305", "0345"), AS_FIRST),
    ],
)
def test_a_database_that_was_made_between_steps_gets_all_of_them(
    postgres_cluster: Cluster, at: str, never: tuple[str, ...], as_first: str
) -> None:
    """`never`: what had not come yet to the version that made it, or upgraded it, while later ones had."""
    with bare_database(postgres_cluster, "overtaken") as url, bare_database(postgres_cluster, "in_order") as fresh:
        with connect(url, autocommit=True) as admin:
            _made(admin, at, never)
            admin.execute(as_first.encode())
        assert migrate(url) == migrate(fresh) == revision(url) == head()
        assert _schema(url) == _schema(fresh)


def test_each_sign_of_a_step_is_there_after_it(database: Database) -> None:
    with connect(database.urls["owner"]) as owner:
        assert overtaken(owner, SIGNS, "9999") == []
    newer = {path.stem for path in SCRIPTS.glob("versions/[0-9]*.py") if path.stem > "0400"}
    assert newer <= set(SIGNS), "a database may have a step that comes later before it: groundplan/migrations/signs.py"


def test_a_backup_without_a_table_of_such_a_step_is_restored(postgres_cluster: Cluster, tmp_path: Path) -> None:
    at = "0211_table_heads"
    with bare_database(postgres_cluster, "overtaken") as url, bare_database(postgres_cluster, "restored") as fresh:
        with connect(url, autocommit=True) as admin:
            _made(admin, at, ("0210",))
            admin.execute("INSERT INTO person (id, email, name) VALUES (gen_random_uuid(), 'a@b.example', 'Ana')")
        facts = dump_tables(url, tmp_path)
        assert "held_version" not in facts["tables"]
        migrate(fresh, at)
        load_tables(fresh, tmp_path, facts)
        assert migrate(fresh) == head()
        with connect(fresh) as restored:
            assert restored.execute("SELECT name FROM person").fetchall() == [("Ana",)]
            assert restored.execute("SELECT count(*) FROM held_version").fetchone() == (0,)
        migrate(url)
        with pytest.raises(Invalid, match="other tables") as refused:
            load_tables(url, tmp_path, {**facts, "tables": {**facts["tables"], "unheard_of": ["id"]}})
        assert refused.value.code == "restore_mismatch"
