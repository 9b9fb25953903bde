"""How a run over sources ends: what goes wrong costs one document or one source, is told, and the rest goes on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psycopg
import pytest
from tests.knowledge_intake import Intake, ScriptedConnector, source

from groundplan.api.knowledge import ingest as api_ingest
from groundplan.core.errors import NotFound, Unavailable
from groundplan.core.home import Home
from groundplan.knowledge import ingest as knowledge_ingest
from groundplan.knowledge import service, service_client
from groundplan.knowledge.intake import run
from groundplan.knowledge.model import Vectors
from groundplan.knowledge.parsing.model import Job, Parsed
from groundplan.knowledge.parsing.sandbox import Sandbox
from groundplan.knowledge.quality.assess import assess
from groundplan.knowledge.sources.folder import FolderConnector
from groundplan.knowledge.sources.model import Change, Connector
from groundplan.testing.database import Database


@pytest.fixture
def intake(database: Database) -> Iterator[Intake]:
    intake = Intake(database)
    yield intake
    intake.close()


def texts(*names: str) -> dict[str, bytes | Exception]:
    return {name: f"# {name}\n\nThis is {name}.\n".encode() for name in names}


def test_an_error_nobody_foresaw_costs_one_document(intake: Intake, caplog: pytest.LogCaptureFixture) -> None:
    given = ScriptedConnector(
        {**texts("a", "b", "c", "d")}, folder_errors={"c": RuntimeError("secret place")}, is_complete=False
    )
    given.texts["b"] = KeyError("secret place")
    with caplog.at_level(logging.ERROR):
        report = intake.ingest(given)
    assert (report.added, report.failed, intake.live_paths()) == (2, 2, {"a", "d"})
    assert intake.findings() == {
        ("knowledge.unreadable", "b"): "b is not searched: reading it failed (KeyError)",
        ("knowledge.unreadable", "c"): "c is not searched: reading it failed (RuntimeError)",
    }
    assert "secret place" in caplog.text, "where it went wrong is in the log"
    given.texts["b"], given.folder_errors = texts("b")["b"], {}
    intake.ingest(given)
    assert given.cursors == [None, {"number": 0}], "what failed is asked for again"
    assert (intake.live_paths(), intake.findings()) == ({"a", "b", "c", "d"}, {})


def test_how_far_a_run_is_is_told_while_it_goes_on(intake: Intake) -> None:
    seen: list[tuple[Any, ...]] = []

    def now(_: str = "") -> datetime:
        (told,) = intake.conn.execute("SELECT progress FROM source WHERE name = 's'").fetchone() or ({},)
        seen.append(tuple(told.get(name) for name in ("running", "read", "of")))
        return datetime(2026, 1, 1, tzinfo=UTC)

    connector = ScriptedConnector({f"{n}.md": f"# {n}\n".encode() for n in range(3)}, modified_at=now)
    for of in (None, 3):
        intake.ingest(connector)
        now()
        assert (seen[0], seen[-1]) == ((True, 0, of), (False, 3, of))
        seen.clear()
        connector.texts["0.md"] = b"# other\n"


def test_a_source_that_breaks_off_keeps_what_it_told_and_loses_nothing(intake: Intake) -> None:
    intake.ingest(ScriptedConnector(texts("a", "b", "z")))
    given = ScriptedConnector({**texts("a", "c")}, final_error=RuntimeError("x"))
    report = intake.ingest(given)
    assert (report.added, report.deleted, report.failed) == (1, 0, 1)
    assert intake.live_paths() == {"a", "b", "c", "z"}
    assert intake.findings() == {("knowledge.source_missing", ""): "reading it failed (RuntimeError)"}
    given.final_error = None
    assert (intake.ingest(given).deleted, intake.findings()) == (2, {})


def test_what_went_away_meanwhile_is_no_error(intake: Intake) -> None:
    intake.ingest(ScriptedConnector(texts("a", "b")))
    gone = NotFound("it was removed meanwhile", code="document_gone", hint="Nothing.")
    report = intake.ingest(ScriptedConnector({**texts("a"), "b": gone}))
    assert (report.deleted, report.failed, intake.findings(), intake.live_paths()) == (1, 0, {}, {"a"})


def test_where_many_are_out_of_reach_what_was_read_stays(intake: Intake) -> None:
    away = Unavailable("no answer", code="source_missing", hint="Later.")
    given = ScriptedConnector({**texts("a"), **{f"n{n}": away for n in range(run.MAX_DEFERRED + 5)}, **texts("z")})
    intake.ingest(given)
    assert intake.live_paths() == {"a"}
    assert intake.findings()["knowledge.source_missing", ""] == "no answer"
    assert "z" not in given.reads


def test_what_postgresql_refuses_costs_one_document(intake: Intake) -> None:
    intake.ingest(ScriptedConnector(texts("a", "b", "c")))
    bad = b"---\nweight: .inf\n---\n# b\n"
    report = intake.ingest(ScriptedConnector({**texts("a", "c", "d"), "b": bad, **texts("e")}))
    assert (report.added, report.changed, report.failed) == (2, 0, 1)
    assert intake.live_paths() == {"a", "c", "d", "e"}
    ((about, message),) = intake.findings().items()
    assert about == ("knowledge.unreadable", "b")
    assert "PostgreSQL does not take it" in message


def test_a_name_that_is_told_twice_is_one_document(intake: Intake) -> None:
    class Twice(ScriptedConnector):
        def changes(self, cursor: Any) -> Iterator[Any]:
            for change in super().changes(cursor):
                yield change
                yield change

    assert intake.ingest(Twice(texts("a", "b"))).failed == 0
    assert intake.live_paths() == {"a", "b"}
    assert intake.document_text("a").count("This is a.") == 1


class Still:
    """An embedder."""

    def embed(self, texts: Any) -> Vectors:
        return np.tile(np.float32(1 / 384**0.5), (len(texts), 384))


def ingest(intake: Intake, folder: Path, *names: str) -> list[Any]:
    return service.ingest_sources(
        intake.database.urls["control"], [source(name) for name in names], Still(),
        service.IngestContext(folder, date(2026, 11, 25)),
    )  # fmt: skip


def test_a_source_that_fails_stops_no_other(intake: Intake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("bad", "good"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.md").write_text(f"# A\n\nThis is of {name}.\n")
    conclude, look = knowledge_ingest._record_results, assess

    def broken(conn: Any, of: Any, *rest: Any, **more: Any) -> None:
        if of.name == "bad":
            conn.execute("SELECT 1 / 0")
        conclude(conn, of, *rest, **more)

    monkeypatch.setattr(knowledge_ingest, "_record_results", broken)
    bad, good = ingest(intake, tmp_path, "bad", "good")
    assert (bad.failed, good.added, good.failed) == (1, 1, 0)
    assert intake.findings("bad")["knowledge.failed", ""] == "taking it over failed (DivisionByZero)"
    assert not intake.findings("good")
    done = intake.conn.execute("SELECT count(*) FROM chunk WHERE embedding IS NOT NULL AND text <> ''").fetchone()
    assert done == (2,), "vectors are made all the same"
    monkeypatch.setattr(knowledge_ingest, "_record_results", conclude)

    def unsightly(conn: Any, name: str, today: date, *more: Any) -> Any:
        if name == "bad":
            raise RecursionError("x")
        return look(conn, name, today, *more)

    monkeypatch.setattr(service, "assess", unsightly)
    (tmp_path / "good/b.md").write_text("# B\n\nThis is the other text.\n")
    ingest(intake, tmp_path, "bad", "good")
    assert intake.findings("bad")["knowledge.failed", ""] == "looking at its quality failed (RecursionError)"
    assert intake.document_columns("b.md", "quality") is not None
    monkeypatch.setattr(service, "assess", look)
    (tmp_path / "good/b.md").unlink()
    ingest(intake, tmp_path, "bad", "good")
    assert not intake.findings("bad")


def test_where_the_database_is_away_the_run_ends(
    intake: Intake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(conn: psycopg.Connection[Any], *_: Any, **__: Any) -> None:
        with psycopg.connect(intake.database.superuser, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", (conn.info.backend_pid,))
        conn.execute("SELECT 1")

    monkeypatch.setattr(knowledge_ingest, "_record_results", cut)
    (tmp_path / "bad").mkdir()
    with pytest.raises(psycopg.OperationalError):
        ingest(intake, tmp_path, "bad")


def test_no_document_is_given_the_text_of_another() -> None:
    """Somebody stops asking while answers are on their way."""
    with Sandbox() as sandbox:
        first = sandbox.parse_all([Job(key=f"{n}.md", data=b"# One\n\nof the first source") for n in range(10)])
        next(first)
        found = [outcome for _, outcome in sandbox.parse_all([Job(key="x.md", data=b"# Two\n\nof the second")])]
    assert isinstance(found[0], Parsed)
    assert (found[0].key, found[0].title) == ("x.md", "Two")


def test_a_folder_whose_file_cannot_be_looked_at_is_read_on(intake: Intake, tmp_path: Path) -> None:
    class Breaking(FolderConnector):
        def read(self, key: str) -> Any:
            if key == "b.md":
                raise MemoryError
            return super().read(key)

    for name in "abc":
        (tmp_path / f"{name}.md").write_text(f"# {name}\n")
    connector: Connector = Breaking(tmp_path)
    assert intake.ingest(connector).failed == 1
    assert intake.live_paths() == {"a.md", "c.md"}


def test_a_source_that_takes_days_keeps_no_other_waiting(
    intake: Intake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A site may ask for minutes between two pages: what was taken from somebody must not wait for its end."""
    on = threading.Event()

    class Slow(ScriptedConnector):
        def changes(self, cursor: Any) -> Iterator[Any]:  # noqa: ARG002 -- all of it, each time
            for number in range(2000):
                if not on.wait(0.05) or number < 3:
                    self.texts[f"p{number}"] = f"# Page {number}\n".encode()
                    yield Change(f"p{number}", "1")

    def opened(of: Any, *_: Any, **__: Any) -> Connector:
        return slow if of.name == "slow" else FolderConnector(tmp_path / of.name)

    slow = Slow({})
    (tmp_path / "quick").mkdir()
    (tmp_path / "quick" / "a.md").write_text("# A\n\nThirty days.\n")
    blueprint = SimpleNamespace(sources=[source("slow"), source("quick")], review_days={}, terms=())
    services = SimpleNamespace(
        folder=lambda: tmp_path, transaction=nullcontext, home=SimpleNamespace(root=tmp_path / "home"),
        settings=SimpleNamespace(models=tmp_path), clock=SimpleNamespace(now=lambda: datetime.now(UTC)),
    )  # fmt: skip
    monkeypatch.setattr(service, "open_or_unavailable", opened)
    monkeypatch.setattr(api_ingest, "current_or_none", lambda _: blueprint)
    monkeypatch.setattr(api_ingest, "database_url", lambda *_: intake.database.urls["control"])
    monkeypatch.setattr(api_ingest, "RemoteEmbedder", lambda _, stop: Still())  # noqa: ARG005
    monkeypatch.setattr(api_ingest, "PATIENCE_SECONDS", 0.3)
    indexer = api_ingest.Indexer(services)  # type: ignore[arg-type]

    def embedded(path: str) -> bool:
        query = """SELECT count(*) FROM document d JOIN chunk c ON c.document_id = d.id
                   WHERE d.path = %s AND d.deleted_at IS NULL AND c.embedding IS NOT NULL"""
        row = intake.conn.execute(query, (path,)).fetchone()
        return bool(row and row[0])

    def wait(true: Callable[[], bool]) -> None:
        until = time.monotonic() + 60
        while not true():
            assert time.monotonic() < until and not indexer.is_done
            time.sleep(0.05)

    indexer.start()
    try:
        wait(lambda: embedded("a.md"))
        assert not on.is_set()
        (tmp_path / "quick" / "b.md").write_text("# B\n\nForty days.\n")
        indexer.request_source("quick")
        wait(lambda: embedded("b.md"))
        (tmp_path / "quick" / "a.md").unlink()
        blueprint.sources.append(source("more"))
        (tmp_path / "more").mkdir()
        (tmp_path / "more" / "c.md").write_text("# C\n\nFifty days.\n")
        indexer.request_all()
        wait(lambda: embedded("c.md"))
        assert intake.live_paths("quick") == {"b.md"}
        on.set()
        until = time.monotonic() + 60
        while not indexer.is_done:
            assert time.monotonic() < until
            time.sleep(0.05)
    finally:
        on.set()
        indexer.stop()
    assert {"p0", "p1", "p2"} <= intake.live_paths("slow")


def test_a_stop_waits_for_no_search_service(
    intake: Intake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "quick").mkdir()
    (tmp_path / "quick" / "a.md").write_text("# A\n\nThirty days.\n")
    blueprint = SimpleNamespace(sources=[source("quick")], review_days={}, terms=())
    services = SimpleNamespace(
        folder=lambda: tmp_path, transaction=nullcontext, home=Home(tmp_path / "home"),
        settings=SimpleNamespace(models=tmp_path), clock=SimpleNamespace(now=lambda: datetime.now(UTC)),
    )  # fmt: skip
    waiting = threading.Event()

    def noted(*_: Any) -> None:
        waiting.set()

    monkeypatch.setattr(service, "open_or_unavailable", lambda of, *_, **__: FolderConnector(tmp_path / of.name))
    monkeypatch.setattr(api_ingest, "current_or_none", lambda _: blueprint)
    monkeypatch.setattr(api_ingest, "database_url", lambda *_: intake.database.urls["control"])
    monkeypatch.setattr(service_client, "lookup", noted)
    indexer = api_ingest.Indexer(services)  # type: ignore[arg-type]
    indexer.start()
    with caplog.at_level(logging.INFO):
        assert waiting.wait(60), "words are there, and vectors are asked for"
        indexer.stop()
    assert not indexer._thread.is_alive()
    assert "sources are not indexed yet" in caplog.text and intake.live_paths("quick") == {"a.md"}


def test_tries_get_rarer_and_nobody_who_asks_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    tries = 0
    enough, again = threading.Event(), threading.Event()

    class Waits(threading.Event):
        """Keeps how long it was waited for; after so many tries until somebody asks, however long that takes."""

        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0.0)
            if len(waits) == 9:
                enough.set()
            return super().wait(timeout if len(waits) < 9 else 120)

    def away(_: Any, only: frozenset[str] | None, *__: Any) -> None:
        nonlocal tries
        assert only is None, "all sources are asked for"
        tries += 1
        if tries == 10:
            again.set()
        raise Unavailable("the database is away", code="database_unavailable", hint="Later.")

    monkeypatch.setattr(api_ingest, "ingest_current", away)
    indexer = api_ingest.Indexer(SimpleNamespace(), retry_seconds=0.02, max_retry_seconds=30)  # type: ignore[arg-type]
    indexer._new_request = Waits()
    indexer.start()
    try:
        assert enough.wait(60)
        assert waits == sorted(waits) and waits[-1] > 4 * waits[0] > 0, "each wait is longer than the one before"
        assert not indexer.is_done
        indexer.request_all()
        assert again.wait(60), "it was waited for all the same"
    finally:
        indexer.stop()
