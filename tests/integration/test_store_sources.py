"""SFTP and WebDAV as sources, against servers that are processes of their own: the contract of connectors, what goes
wrong on the way, and an intake that is killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from tests.store_servers import Server, serve

from groundplan.blueprint.model import Connector as Declared
from groundplan.blueprint.model import Source
from groundplan.core.errors import Unavailable
from groundplan.knowledge.ingest import ingest_source
from groundplan.knowledge.model import IngestReport, Readers
from groundplan.knowledge.sources.model import Connector
from groundplan.knowledge.sources.open import open_connector
from groundplan.testing.connectors import check
from groundplan.testing.database import Database

SCHEMES = {"sftp": "sftp", "webdav": "webdav+http"}


@dataclass
class Place:
    """A folder that a server shows."""

    root: Path
    kind: str
    server: Server

    def put(self, name: str, text: str) -> str:
        file = self.root / f"in/{name}.md"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return f"{name}.md"

    def remove(self, name: str) -> None:
        (self.root / f"in/{name}.md").unlink()

    def source(self, **more: str) -> Source:
        settings: dict[str, str | int | float] = {
            "url": f"{SCHEMES[self.kind]}://127.0.0.1:{self.server.port}/in",
            "key": f"env:{KEY}",
            "rate": 10_000,
        }
        if self.server.host_key is not None:
            settings["host_key"] = self.server.host_key
        return Source(
            name="s", path="", sensitivity="internal", owner="ana@acme.example", readers=["everyone"],
            connector=Declared(type="store", settings={**settings, **more}),
        )  # fmt: skip

    def connector(self, **more: str) -> Connector:
        return open_connector(self.source(**more), self.root, None, mirrors=self.root)  # type: ignore[arg-type]


KEY = "GROUNDPLAN_TEST_STORE_KEY"


@pytest.fixture(params=sorted(SCHEMES))
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    root = tmp_path / "served"
    root.mkdir()
    with serve(request.param, root) as server:
        monkeypatch.setenv(KEY, server.key)
        yield Place(root, request.param, server)


def test_the_contract_is_kept_with_folders_and_their_readers(place: Place) -> None:
    check(place)
    place.put("C# pay/ä b#1?%20", "B")
    (place.root / "in/C# pay/.readers").write_text("hr\n")
    connector = place.connector()
    assert [change.key for change in connector.changes(None)] == ["C# pay/ä b#1?%20.md", "a.md", "b.md"]
    assert connector.read("C# pay/ä b#1?%20.md").data == b"B"
    assert connector.read("a.md").modified_at is not None
    assert [level.readers for level in connector.folder_rules("C# pay/ä b#1?%20.md")] == [Readers(frozenset({"hr"}))]
    connector.close()


def check_missing(place: Place, **more: str) -> str:
    connector = place.connector(**more)
    try:
        with pytest.raises(Unavailable) as caught:
            list(connector.changes(None))
    finally:
        connector.close()
    assert caught.value.code == "source_missing"
    return caught.value.message


def test_what_cannot_be_listed_whole_is_away_and_nothing_is_taken_for_deleted(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.put("a", "A")
    place.put("deep/b", "B")
    url = str(place.source().connector.settings["url"])  # type: ignore[union-attr]
    assert "127.0.0.1" in check_missing(place, url=f"{url}/nowhere")
    monkeypatch.setenv(KEY, "reader:wrong")
    assert check_missing(place)
    monkeypatch.setenv(KEY, place.server.key)
    if place.kind == "sftp":
        other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKr1VqPSs2bTZSL6o4EVPxRpKp4Zc7kYpBqAd6vM1Zk9"
        assert "Host key" in check_missing(place, host_key=other), "somebody else answers there"
    place.put("closed/c", "C")
    assert check_missing(place), "one folder that cannot be listed"
    shutil.rmtree(place.root / "in/closed")
    connector = place.connector()
    assert len(list(connector.changes(None))) == 2
    place.server.process.kill()
    place.server.process.wait()
    with pytest.raises(Unavailable):
        connector.read("a.md")
    with pytest.raises(Unavailable):
        list(connector.changes(None))
    connector.close()
    assert check_missing(place)


CHILD = """
import os, pickle, signal, sys
from pathlib import Path
import psycopg
from groundplan.knowledge.ingest import ingest_source
from groundplan.knowledge.sources.open import open_connector

class Killed:
    def __init__(self, connector, after):
        self._connector, self._left = connector, after
    def __getattr__(self, name):
        return getattr(self._connector, name)
    def read(self, key):
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)
        self._left -= 1
        return self._connector.read(key)

source = pickle.loads(sys.stdin.buffer.read())
conn = psycopg.connect(sys.argv[1], autocommit=True)
ingest_source(conn, source, Killed(open_connector(source, Path("/"), conn, mirrors=Path("/")), int(sys.argv[2])))
"""


def test_an_intake_is_incremental_and_goes_on_where_it_was_killed(place: Place, database: Database) -> None:
    import pickle  # noqa: PLC0415 -- only here

    for number in range(230):
        place.put(f"n{number:03}", f"# Note {number}\n\nThis is note {number}.\n")
    child = [sys.executable, "-c", CHILD, database.urls["control"], "215"]
    done = subprocess.run(child, input=pickle.dumps(place.source()), timeout=240, env=dict(os.environ), check=False)
    assert done.returncode == -signal.SIGKILL
    with psycopg.connect(database.urls["control"], autocommit=True) as conn:

        def ingest() -> IngestReport:
            connector = open_connector(place.source(), place.root, conn, mirrors=place.root)
            try:
                return ingest_source(conn, place.source(), connector)
            finally:
                connector.close()

        (stored,) = conn.execute("SELECT count(*) FROM document").fetchone() or (0,)
        assert 0 < stored < 230
        report = ingest()
        assert (report.read, report.added, report.changed, report.failed) == (230, 230 - stored, 0, 0)
        place.put("n007", "# Note 7\n\nThis is another note.\n")
        place.remove("n008")
        report = ingest()
        assert (report.added, report.changed, report.deleted) == (0, 1, 1)
        shutil.rmtree(place.root / "in")
        assert ingest().deleted == 0
        kinds = conn.execute("SELECT kind FROM finding WHERE closed_at IS NULL").fetchall()
        assert kinds == [("knowledge.source_missing",)]
        live = conn.execute("SELECT count(*) FROM document WHERE deleted_at IS NULL").fetchone()
        assert live == (229,), "a folder that is not there is not a deletion"
