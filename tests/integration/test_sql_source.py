"""Tables as sources: names with capitals, grants that are not all, rows that are too long or no UTF-8."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from pydantic import ValidationError
from tests.knowledge_intake import Intake

from groundplan.blueprint.model import Connector as Declared
from groundplan.blueprint.model import Source
from groundplan.catalog.governed import ConnectorRule
from groundplan.core.errors import NotFound, TooLarge, Unavailable
from groundplan.knowledge.model import Readers
from groundplan.knowledge.sources.open import open_connector
from groundplan.knowledge.sources.sql import Layout, Postgres, SqlConnector, Sqlite
from groundplan.testing.database import Database


@pytest.fixture
def intake(database: Database) -> Iterator[Intake]:
    intake = Intake(database)
    yield intake
    intake.close()


@pytest.fixture
def source(database: Database) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A database of its own kind, as its owner."""
    conn = psycopg.connect(database.superuser, autocommit=True)
    roles = [f"{database.name}_{name}" for name in ("staff", "hr")]
    for role in roles:
        conn.execute(f"CREATE ROLE {role}")
    yield conn
    conn.execute("DROP SCHEMA IF EXISTS shut CASCADE")
    for role in roles:
        conn.execute(f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")
    conn.close()


def readers(dsn: str, table: str) -> Readers | None:
    connector = SqlConnector(Postgres(dsn), Layout(table, grants=True))
    try:
        list(connector.changes(None))
        (level,) = connector.folder_rules("1")
        assert level.is_access_list
        return level.readers
    finally:
        connector.close()


def allowed(*names: str) -> Readers:
    return Readers(frozenset(names))


def test_grants_of_names_with_capitals_and_of_schemas(
    database: Database, source: psycopg.Connection[tuple[object, ...]]
) -> None:
    staff, hr = f"{database.name}_staff", f"{database.name}_hr"
    source.execute('CREATE TABLE public."Articles" (id int PRIMARY KEY, "Body" text)')
    source.execute(f'GRANT SELECT ON "Articles" TO {staff}; INSERT INTO "Articles" VALUES (1, \'A\')')
    assert readers(database.superuser, "Articles") == allowed(staff)
    assert readers(database.superuser, "public.Articles") == allowed(staff)
    source.execute("CREATE SCHEMA shut; CREATE TABLE shut.pay (id int PRIMARY KEY)")
    source.execute(f"GRANT SELECT ON shut.pay TO {staff}, {hr}")
    assert readers(database.superuser, "shut.pay") == allowed(), "who may not use the schema reads nothing in it"
    source.execute(f"GRANT USAGE ON SCHEMA shut TO {hr}")
    assert readers(database.superuser, "shut.pay") == allowed(hr)
    source.execute(f"REVOKE SELECT ON shut.pay FROM {hr}, {staff}; GRANT SELECT ON shut.pay TO PUBLIC")
    assert readers(database.superuser, "shut.pay") == allowed(hr)
    source.execute("GRANT USAGE ON SCHEMA shut TO PUBLIC")
    assert readers(database.superuser, "shut.pay") == allowed("everyone")
    with pytest.raises(Unavailable, match="Nothing"):
        readers(database.superuser, "Nothing")


def test_rows_under_row_level_security_have_no_readers(
    intake: Intake, source: psycopg.Connection[tuple[object, ...]]
) -> None:
    database = intake.database
    source.execute("CREATE TABLE pay (id int PRIMARY KEY, who text); INSERT INTO pay VALUES (1, 'ana')")
    source.execute(f"GRANT SELECT ON pay TO {database.name}_staff")
    intake.ingest(SqlConnector(Postgres(database.superuser), Layout("pay", grants=True)))
    assert intake.readers("1") == {f"{database.name}_staff"}
    source.execute("ALTER TABLE pay ENABLE ROW LEVEL SECURITY")
    source.execute(f"CREATE VIEW seen AS SELECT * FROM pay; GRANT SELECT ON seen TO {database.name}_staff")
    intake.ingest(SqlConnector(Postgres(database.superuser), Layout("pay", grants=True)))
    assert (intake.live_paths(), intake.readers("1")) == ({"1"}, set())
    assert "row-level security of pay" in intake.findings()["knowledge.source_missing", ""]
    with pytest.raises(Unavailable, match="row-level security of pay"):
        readers(database.superuser, "seen")


@pytest.mark.parametrize("option", ["security_invoker", "security_invoker = on", "security_invoker = off"])
def test_a_security_invoker_view_has_no_readers(
    intake: Intake, source: psycopg.Connection[tuple[object, ...]], option: str
) -> None:
    """Whoever was granted it alone reads nothing there: the table below it decides."""
    staff = f"{intake.database.name}_staff"
    source.execute("CREATE TABLE pay (id int PRIMARY KEY, who text); INSERT INTO pay VALUES (1, 'ana')")
    source.execute(f"CREATE VIEW inner_pay WITH ({option}, check_option = local) AS SELECT * FROM pay")
    source.execute(f"CREATE VIEW seen AS SELECT * FROM inner_pay; GRANT SELECT ON seen TO {staff}")
    with pytest.raises(psycopg.errors.InsufficientPrivilege) if "off" not in option else nullcontext():
        with source.transaction():
            source.execute(f"SET LOCAL ROLE {staff}")
            source.execute("SELECT * FROM inner_pay" if "off" not in option else "SELECT * FROM seen")
    intake.ingest(SqlConnector(Postgres(intake.database.superuser), Layout("seen", grants=True)))
    if option.endswith("off"):
        assert intake.readers("1") == {staff}
    else:
        assert (intake.live_paths(), intake.readers("1")) == ({"1"}, set())
        assert "security_invoker of inner_pay" in intake.findings()["knowledge.source_missing", ""]


NAMES: Mapping[str, Sequence[str]] = {
    "int": ("1", "-7"), "numeric": ("1.50", "1.5"), "uuid": ("0193f2c4-1111-7abc-8def-0123456789ab",),
    "char(4)": ("ab", "abcd"), "varchar": ("a b", "Ä'\"%s"), "timestamptz": ("2026-03-01 09:30:00+01",),
    "date": ("2026-03-01",), "float8": ("0.1", "1e-300", "NaN"), "inet": ("10.0.0.1/24",), "boolean": ("true",),
    "bytea": ("\\x00ff",), "name": ("a",),
}  # fmt: skip


@pytest.mark.parametrize("type_", NAMES)
def test_a_row_is_found_by_its_key_whatever_its_type(
    database: Database, source: psycopg.Connection[tuple[object, ...]], type_: str
) -> None:
    source.execute(f"CREATE TABLE things (key {type_}, body text)")
    for name in NAMES[type_]:
        source.execute("INSERT INTO things VALUES (%s, %s)", (name, f"body of {name}"))
    connector = SqlConnector(Postgres(database.superuser), Layout("things", id="key"))
    try:
        keys = [change.key for change in connector.changes(None)]
        assert len(keys) == len(NAMES[type_])
        found = {connector.read(key).data.decode().partition("body of ")[2].strip() for key in keys}
        assert found == {" ".join(name.split()) for name in NAMES[type_]}
        with pytest.raises(NotFound):
            connector.read("there-is-no-such-document")
    finally:
        connector.close()


def test_rows_are_read_by_their_key_index(
    database: Database, source: psycopg.Connection[tuple[object, ...]], tmp_path: Path
) -> None:
    """Else a table of a hundred thousand rows is read a hundred thousand times."""
    source.execute("CREATE TABLE things (id bigint PRIMARY KEY, body text)")
    source.execute("INSERT INTO things SELECT n, 'body ' || n FROM generate_series(1, 20000) n; ANALYZE things")
    engine = Postgres(database.superuser)
    engine.row(Layout("things"), "1")
    scans = "SELECT seq_tup_read, idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'things'"
    engine._second_conn().execute("SELECT pg_stat_force_next_flush()")
    before = source.execute(scans).fetchone()
    for number in range(100, 150):
        row = engine.row(Layout("things"), str(number))
        assert row is not None and row["body"] == f"body {number}"
    engine._second_conn().execute("SELECT pg_stat_force_next_flush()")
    after = source.execute(scans).fetchone()
    engine.close()
    assert before is not None and after is not None
    assert after[0] == before[0], "no row but those that were asked for"

    file = tmp_path / "things.db"
    with closing(sqlite3.connect(file)) as db, db:
        db.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, body TEXT)")
        db.executemany("INSERT INTO things VALUES (?, ?)", [(n, f"body {n}") for n in range(20_000)])
        db.execute("CREATE TABLE tokens (id BLOB PRIMARY KEY, body TEXT)")
        db.executemany("INSERT INTO tokens VALUES (?, ?)", [(n.to_bytes(16), f"body {n}") for n in range(20_000)])
        db.execute("CREATE TABLE untyped (id PRIMARY KEY, body)")
        db.executemany("INSERT INTO untyped VALUES (?, ?)", [(1, "number"), ("2", "text"), (b"3", "bytes")])
    lite = Sqlite(file)
    began = time.process_time()
    for number in range(2000):
        row = lite.row(Layout("things"), str(number))
        assert row is not None and row["body"] == f"body {number}"
    for number in range(2000):
        row = lite.row(Layout("tokens"), number.to_bytes(16).hex().upper())
        assert row is not None and row["body"] == f"body {number}"
    assert time.process_time() - began < 3
    assert [(lite.row(Layout("untyped"), key) or {})["body"] for key in ("1", "2", "33")] == ["number", "text", "bytes"]
    lite.close()


def test_a_row_that_is_too_long_is_skipped_in_postgresql(
    intake: Intake, source: psycopg.Connection[tuple[object, ...]]
) -> None:
    source.execute("CREATE TABLE notes (id text PRIMARY KEY, at int, body text, more jsonb)")
    source.execute(
        """INSERT INTO notes VALUES ('a', 1, 'short', '{"k": [1]}'), ('b', 1, repeat('x', 12000000), '{}'),
             ('c', 1, 'short', to_jsonb(repeat('y', 12000000)))"""
    )
    for changed in (None, "at"):
        connector = SqlConnector(Postgres(intake.database.superuser), Layout("notes", changed=changed))
        assert [change.key for change in connector.changes(None)] == ["a", "b", "c"]
        assert b"- more: {'k': [1]}" in connector.read("a").data
        for key in "bc":
            with pytest.raises(TooLarge):
                connector.read(key)
        connector.close()
    connector = SqlConnector(Postgres(intake.database.superuser), Layout("notes"))
    first = {change.key: change.version for change in connector.changes(None)}
    assert [row[0] for row in connector.tables()[0].rows] == ["a", "b", "c"]
    source.execute("UPDATE notes SET body = body || 'z'")
    assert all(first[change.key] != change.version for change in connector.changes(None))
    connector.close()
    report = intake.ingest(SqlConnector(Postgres(intake.database.superuser), Layout("notes")))
    assert (report.added, report.failed, intake.live_paths()) == (1, 2, {"a"})


def test_values_unknown_to_python_do_not_fail_the_table(
    intake: Intake, source: psycopg.Connection[tuple[object, ...]]
) -> None:
    source.execute("CREATE TABLE readings (at timestamptz PRIMARY KEY, until date, body text, more jsonb)")
    source.execute(
        """INSERT INTO readings VALUES ('2024-05-01 12:00+00', 'infinity', 'first', '{}'),
             ('2025-05-01 12:00+00', '0044-03-15 BC', 'second', (repeat('[', 5000) || repeat(']', 5000))::jsonb),
             ('2026-05-01 12:00+00', NULL, 'third', '{"k": 1}')"""
    )
    report = intake.ingest(SqlConnector(Postgres(intake.database.superuser), Layout("readings", "at", changed="at")))
    assert (report.added, report.failed) == (3, 0), "and a time is a name as any other"
    keys = sorted(intake.live_paths())
    assert "- until: infinity" in intake.document_text(keys[0])
    assert "BC" in intake.document_text(keys[1])
    assert [intake.document_columns(key, "modified_at").year for key in keys] == [2024, 2025, 2026], (
        "by the column of changes"
    )


def test_rows_with_duplicate_keys_are_reported_and_not_guessed(
    intake: Intake, source: psycopg.Connection[tuple[object, ...]]
) -> None:
    source.execute("CREATE TABLE pages (id int, body text)")
    source.execute("INSERT INTO pages VALUES (1, 'one'), (2, 'two'), (2, 'another two'), (NULL, 'none')")
    report = intake.ingest(SqlConnector(Postgres(intake.database.superuser), Layout("pages")))
    assert (report.added, report.failed, intake.live_paths()) == (1, 2, {"1"})
    assert "several rows of pages have this id" in intake.findings()["knowledge.unreadable", "2"]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "a.db"
    with closing(sqlite3.connect(path)) as db, db:
        db.executescript("CREATE TABLE articles (id TEXT PRIMARY KEY, body TEXT, team TEXT)")
        db.executemany("INSERT INTO articles VALUES (?, ?, 'hr')", [(name, name) for name in "abcdef"])
    return path


def test_sqlite_tables_with_their_schema(table: Path) -> None:
    connector = SqlConnector(Sqlite(table), Layout("main.articles", readers="team"))
    assert [change.key for change in connector.changes(None)] == list("abcdef")
    assert b"- body: b" in connector.read("b").data
    connector.close()


def test_a_number_and_an_equal_text_are_one_key_in_sqlite(intake: Intake, tmp_path: Path) -> None:
    """Else one row would be given the place of the other, and which one would be chance."""
    path = tmp_path / "b.db"
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE pages (id, body)")
        db.executemany("INSERT INTO pages VALUES (?, ?)", [(1, "one"), (2, "two"), ("1", "another one"), ("a", "text")])
        db.executemany("INSERT INTO pages VALUES (?, ?)", [(name, "x" * (11 << 20)) for name in (0, 10, "b")])
    report = intake.ingest(SqlConnector(Sqlite(path), Layout("pages")))
    assert (report.added, report.failed, intake.live_paths()) == (2, 4, {"2", "a"})
    assert "several rows of pages have this id" in intake.findings()["knowledge.unreadable", "1"]
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("INSERT INTO pages VALUES (NULL, 'no name')")
    report = intake.ingest(SqlConnector(Sqlite(path), Layout("pages")))
    assert (report.deleted, intake.live_paths()) == (0, {"2", "a"}), "one without a name hides no other"


@pytest.mark.parametrize("big", [False, True])
def test_row_keys_are_formatted_as_sqlite_does(intake: Intake, tmp_path: Path, big: bool) -> None:
    """Rows that bytes or real numbers name were "removed meanwhile", all of them, and nothing was told."""
    path = tmp_path / "c.db"
    names: list[bytes | float | str] = [UUID(int=5).bytes, b"\xff\x00", 1e20, 0.1, "text"]
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE pages (id PRIMARY KEY, body)")
        db.executemany("INSERT INTO pages VALUES (?, ?)", [(name, f"body {at}") for at, name in enumerate(names)])
        if big:
            db.executemany(
                "INSERT INTO pages VALUES (?, ?)", [(name, "x" * (11 << 20)) for name in (b"\x00", b"\xfe", 7.5)]
            )
    report = intake.ingest(SqlConnector(Sqlite(path), Layout("pages")))
    keys = [f"{5:032X}", "FF00", "1.0e+20", "0.1", "text"]
    assert (report.added, report.failed, intake.live_paths()) == (5, 3 * big, set(keys))
    assert all(f"body {at}" in intake.document_text(key) for at, key in enumerate(keys))
    assert f"id: {5:032X}" in intake.document_text(keys[0])
    again = intake.ingest(SqlConnector(Sqlite(path), Layout("pages")))
    assert (again.added, again.changed, again.deleted) == (0, 0, 0)


def test_a_case_insensitive_key_column_confuses_no_rows(tmp_path: Path) -> None:
    """The row 'a' was searched as the document 'A' too, and 'A' not at all."""
    rows = [("a", "one", "hr"), ("A", "two", "everyone"), ("b", "three", "hr")]
    path = tmp_path / "d.db"
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE pages (id TEXT COLLATE NOCASE, body, team)")
        db.executemany("INSERT INTO pages VALUES (?, ?, ?)", rows)
    connector = SqlConnector(Sqlite(path), Layout("pages", readers="team"))
    assert {change.key for change in connector.changes(None)} == {"a", "A", "b"}
    for name, text, team in rows:
        content = connector.read(name)
        assert f"body: {text}".encode() in content.data and content.governed_values["readers"] == [team]
    connector.close()


def test_a_row_that_is_too_long_or_not_utf_8_is_skipped_in_sqlite(intake: Intake, table: Path) -> None:
    with closing(sqlite3.connect(table)) as db, db:
        for name in "acf":
            db.execute("UPDATE articles SET body = ? WHERE id = ?", ("x" * (11 << 20), name))
        db.execute("UPDATE articles SET body = CAST(x'636166e9' AS TEXT) WHERE id = 'd'")
        db.execute("INSERT INTO articles VALUES ('x' || char(0), 'unseen', 'hr' || char(0) || ', !interns')")
        db.execute("INSERT INTO articles VALUES ('y', 'unseen' || char(0) || 'text', 'hr' || char(0))")
    report = intake.ingest(SqlConnector(Sqlite(table), Layout("articles", readers="team")))
    assert (report.added, intake.live_paths()) == (3, {"b", "e", "y"})
    found = {about: message for (_, about), message in intake.findings().items() if "unreadable" in _}
    assert {about for about, message in found.items() if "longer than" in message} == {"a", "c", "f", "x "}
    assert "not UTF-8" in found["d"]
    assert intake.readers("y") == {"hr"}
    connector = SqlConnector(Sqlite(table), Layout("articles"))
    assert len(connector.tables()[0].rows) == 8
    connector.close()


def test_an_sqlite_file_breaking_during_the_read_is_unavailable(intake: Intake, table: Path) -> None:
    with closing(sqlite3.connect(table)) as db, db:
        db.executemany("INSERT INTO articles VALUES (?, ?, 'hr')", [(f"n{n}", "x" * 3000) for n in range(300)])
    intake.ingest(SqlConnector(Sqlite(table), Layout("articles")))
    assert len(intake.live_paths()) == 306
    data = bytearray(table.read_bytes())
    data[len(data) // 2 :] = b"\xff" * (len(data) - len(data) // 2)
    table.write_bytes(data)
    intake.ingest(SqlConnector(Sqlite(table), Layout("articles")))
    assert len(intake.live_paths()) == 306
    assert "cannot be read" in intake.findings()["knowledge.source_missing", ""]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"type": "sql", "table": "t", "path": "a.db", "grants": True}, "grants are those of PostgreSQL"),
        ({"type": "git", "url": "https://git.example/a", "rate": 5}, "rate bounds"),
        ({"type": "mail", "path": "box", "rate": 5}, "rate bounds"),
        ({"type": "push", "rate": 5}, "rate bounds"),
        ({"type": "web", "url": "https://a.example/", "key": "env:KEY"}, "key is for"),
    ],
)
def test_settings_without_effect_are_refused(settings: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        ConnectorRule(**settings)  # type: ignore[arg-type]
    for kind in ({"type": "store", "url": "s3://a/b"}, {"type": "sql", "table": "t", "path": "a.db"}):
        rule = ConnectorRule(**kind, rate=50)  # type: ignore[arg-type]
        assert rule.settings()["rate"] == 50, "what is said holds, also where it is what another kind does by itself"
    assert ConnectorRule(type="sql", table="t", dsn="env:DSN", grants=True).settings()["grants"] is True


@pytest.mark.parametrize("kind", ["path", "dsn"])
def test_rows_are_read_no_faster_than_declared(
    intake: Intake,
    database: Database,
    source: psycopg.Connection[tuple[object, ...]],
    tmp_path: Path,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = "CREATE TABLE articles (id int PRIMARY KEY, body text)"
    rows = "INSERT INTO articles VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd'), (5, 'e')"
    monkeypatch.setenv("ARTICLES", database.superuser)

    def execute(*statements: str) -> None:
        if kind == "dsn":
            for statement in statements:
                source.execute(statement.encode())
            return
        with closing(sqlite3.connect(tmp_path / "a.db")) as db, db:
            for statement in statements:
                db.execute(statement)

    execute(made, rows)
    where = {"path": "a.db"} if kind == "path" else {"dsn": "env:ARTICLES"}
    rule = ConnectorRule(type="sql", table="articles", rate=25, **where)  # type: ignore[arg-type]

    def look() -> list[float]:
        asked: list[float] = []
        declared = Source(
            name="s", path="", sensitivity="internal", owner="ana@acme.example", readers=["everyone"],
            connector=Declared(type=rule.type, settings=rule.settings()),
        )  # fmt: skip
        connector = open_connector(declared, tmp_path, intake.conn, mirrors=tmp_path)
        assert isinstance(connector, SqlConnector)
        row = connector._engine.row

        def noted(layout: Layout, key: str) -> Mapping[str, Any] | None:
            asked.append(time.monotonic())
            return row(layout, key)

        monkeypatch.setattr(connector._engine, "row", noted)
        intake.ingest(connector)
        connector.close()
        return asked

    first = look()
    assert len(first) == len(intake.live_paths()) == 5
    assert first[-1] - first[0] >= 4 / 25 - 0.001
    execute("UPDATE articles SET body = 'x' WHERE id = 3")
    assert len(look()) == 1, "what did not change is not asked for"
