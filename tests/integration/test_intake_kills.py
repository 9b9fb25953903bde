"""An intake that is killed, from every kind of source: the next one goes on, and each document is there once."""

from __future__ import annotations

import http.server
import os
import pickle
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from dulwich import porcelain
from tests.integration.nursery import run_code
from tests.knowledge_intake import Intake

from groundplan.blueprint.model import Connector as Declared
from groundplan.blueprint.model import Source
from groundplan.knowledge.ingest import ingest_source
from groundplan.knowledge.model import IngestReport
from groundplan.knowledge.sources import push_store
from groundplan.knowledge.sources.open import open_connector
from groundplan.testing.database import Database

COUNT = 90
DSN = "GROUNDPLAN_TEST_NOTES"
NAMES = [f"n{number:03}" for number in range(COUNT)]


def text(name: str, round: int) -> str:
    return f"# Note {name}\n\nThis is {name} of round {round}.\n"


@dataclass
class Place:
    """`put` writes documents of a round; `key` is what one of them is called."""

    settings: dict[str, Any]
    put: Callable[[list[str], int], None]
    key: Callable[[str], str]
    close: Callable[[], object] = lambda: None


def git(root: Path, _: Intake) -> Place:
    work = root / "work"
    work.mkdir()
    porcelain.init(str(work))

    def put(names: list[str], round: int) -> None:
        for name in names:
            (work / f"{name}.md").write_text(text(name, round))
        porcelain.add(str(work), [str(work / f"{name}.md") for name in names])
        porcelain.commit(str(work), message=b"x", author=b"a <a@x.example>", committer=b"a <a@x.example>")

    return Place({"type": "git", "url": str(work)}, put, "{}.md".format)


def sql(root: Path, _: Intake) -> Place:
    def put(names: list[str], round: int) -> None:
        with closing(sqlite3.connect(root / "a.db")) as db, db:
            db.execute("CREATE TABLE IF NOT EXISTS notes (id TEXT PRIMARY KEY, body TEXT)")
            rows = [(name, f"This is {name} of round {round}.") for name in names]
            db.executemany("INSERT INTO notes VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET body = excluded.body", rows)

    return Place({"type": "sql", "path": "a.db", "table": "notes"}, put, str)


def postgres(_: Path, intake: Intake) -> Place:
    dsn = intake.database.superuser
    os.environ[DSN] = dsn

    def put(names: list[str], round: int) -> None:
        with psycopg.connect(dsn) as db:
            db.execute("CREATE TABLE IF NOT EXISTS notes (id text PRIMARY KEY, body text)")
            db.cursor().executemany(
                "INSERT INTO notes VALUES (%s, %s) ON CONFLICT (id) DO UPDATE SET body = excluded.body",
                [(name, f"This is {name} of round {round}.") for name in names],
            )

    return Place({"type": "sql", "dsn": f"env:{DSN}", "table": "notes"}, put, str, lambda: os.environ.pop(DSN, None))


def mail(root: Path, _: Intake) -> Place:
    rounds: dict[str, int] = {}

    def put(names: list[str], round: int) -> None:
        rounds.update(dict.fromkeys(names, round))
        (root / "box").write_text("".join(
            f"From a Tue Nov 24 10:00:00 2026\nFrom: a@x.example\nMessage-ID: <{name}>\nSubject: {name}\n\n"
            f"This is {name} of round {number}.\n\n" for name, number in rounds.items()
        ))  # fmt: skip

    return Place({"type": "mail", "path": "box", "readers": "participants"}, put, "{}.eml".format)


def push(_: Path, intake: Intake) -> Place:
    def put(names: list[str], round: int) -> None:
        for name in names:
            with intake.conn.transaction():
                row = push_store.Pushed(text(name, round).encode(), "md", None, {}, None)  # type: ignore[arg-type]
                push_store.put_document(intake.conn, "s", name, row)

    return Place({"type": "push"}, put, str)


def web(_: Path, __: Intake) -> Place:
    rounds: dict[str, int] = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.strip("/")
            if name == "sitemap.xml":
                places = "".join(f"<url><loc>{origin}/{each}</loc></url>" for each in rounds)
                self.answer(200, f"<urlset>{places}</urlset>", "application/xml")
            elif name in rounds:
                self.answer(200, f"<p>This is {name} of round {rounds[name]}.</p>", "text/html; charset=utf-8")
            else:
                self.answer(404, "", "text/html")

        def answer(self, status: int, body: str, media: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", media)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    origin = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def close() -> None:
        server.shutdown()
        server.server_close()

    def put(names: list[str], round: int) -> None:
        rounds.update(dict.fromkeys(names, round))

    return Place({"type": "web", "url": f"{origin}/", "rate": 10_000}, put, str, close)


KINDS = {each.__name__: each for each in (git, sql, postgres, mail, push, web)}
CHILD = """
import os, pickle, signal, sys
from pathlib import Path
import psycopg
from groundplan.knowledge.ingest import ingest_source
from groundplan.knowledge.intake import batch
from groundplan.knowledge.sources.open import open_connector

class Dying(psycopg.Connection):
    left = int(sys.argv[3])
    def execute(self, *arguments, **options):
        Dying.left -= 1
        if Dying.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().execute(*arguments, **options)

class Killed:
    def __init__(self, connector, after):
        self._connector, self._left = connector, after
    def __getattr__(self, name):
        return getattr(self._connector, name)
    def read(self, key):
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return self._connector.read(key)

batch.BATCH = 20
source, root = pickle.loads(bytes.fromhex(sys.argv[4]))
conn = Dying.connect(sys.argv[1], autocommit=True)
ingest_source(conn, source, Killed(open_connector(source, root, conn, mirrors=root / "mirrors"), int(sys.argv[2])))
"""


@pytest.fixture
def intake(database: Database) -> Iterator[Intake]:
    intake = Intake(database)
    yield intake
    intake.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_intake_is_gone_on_with(intake: Intake, tmp_path: Path, kind: str) -> None:
    place = KINDS[kind](tmp_path, intake)
    settings = dict(place.settings)
    source = Source(
        name="s", path="", sensitivity="internal", owner="ana@acme.example", readers=["everyone"],
        connector=Declared(type=settings.pop("type"), settings=settings),
    )  # fmt: skip

    def killed(read: int, statement: int) -> None:
        given = pickle.dumps((source, tmp_path)).hex()
        ended = run_code(CHILD, intake.database.urls["control"], str(read), str(statement), given)
        assert ended == -signal.SIGKILL

    def ingest() -> IngestReport:
        connector = open_connector(source, tmp_path, intake.conn, mirrors=tmp_path / "mirrors")
        return ingest_source(intake.conn, source, connector)

    def stored(round: int) -> int:
        row = intake.conn.execute(
            "SELECT count(DISTINCT document_id) FROM chunk WHERE text LIKE %s", (f"%of round {round}.%",)
        ).fetchone()
        assert row is not None
        return int(row[0])

    try:
        place.put(NAMES, 1)
        grown = [0]
        for read, statement in ((1, -1), (-1, 16), (35, -1), (-1, 30)):
            killed(read, statement)
            grown.append(stored(1))
        assert grown == sorted(grown)
        assert 0 < grown[-1] < COUNT
        assert ingest().failed == 0
        assert intake.live_paths() == {place.key(name) for name in NAMES}
        assert stored(1) == COUNT
        assert intake.conn.execute("SELECT max(version) FROM document").fetchone() == (1,)
        place.put(NAMES[::2], 2)
        killed(25, -1)
        assert ingest().failed == 0
        assert (stored(1), stored(2)) == (COUNT // 2, COUNT // 2)
        count = intake.conn.execute(
            "SELECT count(*), count(DISTINCT document_id) FROM chunk WHERE text <> ''"
        ).fetchone()
        assert count == (COUNT, COUNT)
        again = ingest()
        assert (again.added, again.changed, again.deleted, again.failed) == (0, 0, 0, 0)
    finally:
        place.close()
