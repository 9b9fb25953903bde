"""Git as a source: who asks, a mirror that was left half made, and names that are no UTF-8."""

from __future__ import annotations

import base64
import gc
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, cast
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from dulwich import porcelain
from dulwich.objects import Blob, Commit, ObjectID, Tree
from dulwich.refs import Ref
from dulwich.repo import Repo
from dulwich.server import BackendRepo, DictBackend
from dulwich.web import make_wsgi_chain
from tests.knowledge_intake import Intake

from groundplan.blueprint.model import Connector as Declared
from groundplan.blueprint.model import Source
from groundplan.catalog.governed import ConnectorRule
from groundplan.core.errors import Invalid, Unavailable
from groundplan.knowledge import service
from groundplan.knowledge.deletion.delete import DeletionReason, delete, readmit
from groundplan.knowledge.model import Vectors
from groundplan.knowledge.parsing.model import Job, Outcome, Refused
from groundplan.knowledge.parsing.sandbox import Sandbox
from groundplan.knowledge.sources import git, git_history
from groundplan.knowledge.sources.git import GitConnector, remove_other_mirrors
from groundplan.knowledge.sources.model import Connector, Content
from groundplan.knowledge.sources.open import open_connector
from groundplan.testing.database import Database


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    porcelain.init(str(folder))
    (folder / "a.md").write_text("# A\n")
    commit(folder)
    return folder


def commit(folder: Path) -> None:
    files = [str(file) for file in folder.rglob("*") if ".git/" not in str(file) and file.is_file()]
    porcelain.add(str(folder), files)
    porcelain.commit(str(folder), message=b"change", author=b"a <a@x.example>", committer=b"a <a@x.example>")


class Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def requests() -> list[str]:
    """What `served` was asked."""
    return []


@pytest.fixture
def served(work: Path, requests: list[str]) -> Iterator[str]:
    """The repository over HTTP, for one user."""
    inner = make_wsgi_chain(DictBackend({"/": cast("BackendRepo", Repo(str(work)))}))
    wanted = "Basic " + base64.b64encode(b"reader:pa:ss").decode()

    def app(environ: Any, start: Any) -> Any:
        if environ.get("HTTP_AUTHORIZATION") != wanted:
            start("401 Unauthorized", [("WWW-Authenticate", "Basic"), ("Content-Length", "0")])
            return [b""]
        requests.append(environ["PATH_INFO"])
        return inner(environ, start)

    server = make_server("127.0.0.1", 0, app, handler_class=Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def declared(url: str, **more: str) -> Source:
    return Source(
        name="s", path="", sensitivity="internal", owner="ana@acme.example", readers=["everyone"],
        connector=Declared(type="git", settings={"url": url, **more}),
    )  # fmt: skip


def opened_from(source: Source, root: Path) -> Connector:
    return open_connector(source, root, None, mirrors=root / "mirrors")  # type: ignore[arg-type]


def test_a_server_gets_credentials_from_a_secret_reference(
    served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ConnectorRule(type="git", url=served, key="env:GIT_KEY").settings()["key"] == "env:GIT_KEY"
    connector = opened_from(declared(served), tmp_path)
    with pytest.raises(Unavailable) as caught:
        list(connector.changes(None))
    assert (caught.value.code, "key: env:NAME" in caught.value.hint) == ("source_missing", True)
    connector.close()
    monkeypatch.setenv("GIT_KEY", "reader:pa:ss")
    connector = opened_from(declared(served, key="env:GIT_KEY"), tmp_path)
    assert [change.key for change in connector.changes(None)] == ["a.md"]
    assert connector.read("a.md").data == b"# A\n"
    connector.close()
    assert not [file for file in (tmp_path / "mirrors").rglob("*") if file.is_file() and b"pa:ss" in file.read_bytes()]
    monkeypatch.setenv("GIT_KEY", "reader:wrong")
    connector = opened_from(declared(served, key="env:GIT_KEY"), tmp_path)
    with pytest.raises(Unavailable) as caught:
        list(connector.changes(None))
    assert "wrong" not in str(caught.value)
    connector.close()
    del caught
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # the library leaves an answer of 401 unread
        gc.collect()
    with pytest.raises(Invalid, match="password"):
        GitConnector("ssh://git.example/a", tmp_path, key="git:secret")


def test_an_unreachable_server_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        list(GitConnector("http://127.0.0.1:9/a", tmp_path / "m").changes(None))


KILLED = """
import os, signal, sys
from pathlib import Path
from groundplan.knowledge.sources import git, git_history
from groundplan.knowledge.sources.git import GitConnector
left = int(sys.argv[3])
def hook(event, _):
    global left
    if event in ("open", "os.mkdir", "os.rename", "os.link"):
        place = str(_[0])
        if "mirrors" in place:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
list(GitConnector(sys.argv[1], Path(sys.argv[2])).changes(None))
"""


def test_a_kill_at_any_moment_of_cloning_or_fetching_is_recovered(work: Path, tmp_path: Path) -> None:
    """Killed at its 1st, 2nd, 6th, ... file or folder: the next run always reads everything."""
    ended = 0
    for step in (1, *range(2, 90, 11)):
        mirrors = tmp_path / f"mirrors{step}"
        mirrors.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", KILLED, str(work), str(mirrors), str(step)], timeout=120, check=False
        )
        assert done.returncode in (-signal.SIGKILL, 0)
        connector = GitConnector(str(work), mirrors)
        assert [change.key for change in connector.changes(None)] == ["a.md"], f"killed at {step}"
        assert connector.read("a.md").data == b"# A\n"
        connector.close()
        ended += done.returncode == 0
        if ended:
            break
    assert ended, "one run was not killed any more"
    assert step > 10


@pytest.mark.parametrize("left", ["empty", "half", "locked", "objects"])
def test_a_broken_mirror_is_recreated(work: Path, tmp_path: Path, left: str) -> None:
    mirrors = tmp_path / "mirrors"
    connector = GitConnector(str(work), mirrors)
    list(connector.changes(None))
    connector.close()
    (mirror,) = mirrors.iterdir()
    if left == "empty":
        (mirror / "HEAD").unlink()
    elif left == "half":
        for part in ("refs", "objects"):
            (mirror / part).rename(mirrors / f"x{part}")
    elif left == "locked":
        (mirror / "refs/sources").mkdir(parents=True, exist_ok=True)
        (mirror / "refs/sources/HEAD.lock").touch()
        (work / "b.md").write_text("# B\n")
        commit(work)
    else:
        for pack in [*mirror.glob("objects/pack/*"), *mirror.glob("objects/??/*")]:
            pack.chmod(0o600)
            pack.write_bytes(b"")
        connector = GitConnector(str(work), mirrors)
        with pytest.raises(Unavailable, match="damaged"):
            list(connector.changes(None))
        connector.close()
    connector = GitConnector(str(work), mirrors)
    assert "a.md" in [change.key for change in connector.changes(None)]
    connector.close()


def test_commits_removed_from_the_history_leave_the_mirror(work: Path, tmp_path: Path) -> None:
    mirrors = tmp_path / "mirrors"

    def look(cursor: Any = None, branch: str | None = None) -> tuple[list[str], Any, bool]:
        connector = GitConnector(str(work), mirrors, branch=branch)
        found = list(connector.changes(cursor))
        for change in found:
            connector.read(change.key)
        connector.close()
        return [change.key for change in found], found[-1].cursor if found else cursor, connector.is_complete

    def kept(blob: ObjectID) -> bool:
        (mirror,) = mirrors.iterdir()
        with Repo(str(mirror)) as repo:
            return blob in repo.object_store

    with Repo(str(work)) as repo:
        first = repo.head()
        branch = repo.refs.follow(Ref(b"HEAD"))[0][1]
        repo.refs[Ref(b"refs/heads/other")] = first
    (work / "b.md").write_text("# B\n\nOf Ana Costa.\n")
    commit(work)
    secret = Blob.from_string(b"# B\n\nOf Ana Costa.\n").id
    keys, cursor, _ = look()
    assert (keys, kept(secret)) == (["a.md", "b.md"], True)
    look(branch="other")
    assert look(cursor)[0] == [] and kept(secret), "another branch of it is no other history"
    (work / "c.md").write_text("# C\n")
    commit(work)
    assert look(cursor)[0] == ["c.md"]
    with Repo(str(work)) as repo:
        repo.refs[branch] = first
        repo.get_worktree().reset_index()
    for name in ("b.md", "c.md"):
        (work / name).unlink(missing_ok=True)
    (work / "a.md").write_text("# A\n\nMore.\n")
    commit(work)
    assert look(cursor) == (["a.md"], {"at": repo_head(work)}, True), "whatever it does not tell is gone"
    assert not kept(secret)


def repo_head(folder: Path) -> str:
    with Repo(str(folder)) as repo:
        return repo.head().decode()


class Nothing:
    def embed(self, texts: Sequence[str]) -> Vectors:
        raise AssertionError(f"there is no text: {texts}")


def test_folders_that_unfold_without_end_cost_their_source_no_more_than_a_while(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forty folders, each ten times in the next: 10^39 files in a few kilobytes."""
    monkeypatch.setattr(git, "MAX_FILES", 50)
    with Repo(str(work)) as repository:
        store = repository.object_store
        tree = store[cast("Commit", repository[repository.head()]).tree]
        for _ in range(40):
            above = Tree()
            for number in range(10):
                above.add(b"d%d" % number, 0o040000, tree.id)
            store.add_object(above)
            tree = above
        head = Commit()
        head.tree, head.parents = tree.id, [repository.head()]
        head.author = head.committer = b"a <a@x.example>"
        head.message, head.encoding = b"bomb", b"UTF-8"
        head.author_time = head.commit_time = head.author_timezone = head.commit_timezone = 0
        store.add_object(head)
        repository.refs[Ref(b"HEAD")] = head.id
    connector = GitConnector(str(work), tmp_path / "mirrors")

    with pytest.raises(Unavailable, match="has more than 50 files") as caught:
        list(connector.changes(None))
    connector.close()
    assert caught.value.code == "source_too_large"


def test_mirrors_of_removed_sources_are_deleted(database: Database, work: Path, tmp_path: Path) -> None:
    mirrors = tmp_path / "mirrors"
    remove_other_mirrors(mirrors, [])
    connector = GitConnector(str(work), mirrors)
    list(connector.changes(None))
    connector.close()
    (mirrors / "half.new").mkdir()
    remove_other_mirrors(mirrors, [str(work)])
    assert len(list(mirrors.iterdir())) == 1
    intake = service.IngestContext(tmp_path, date(2026, 11, 27), mirrors=mirrors)
    service.ingest_sources(database.urls["control"], [], Nothing(), intake)
    assert list(mirrors.iterdir()) == []


def test_a_path_that_is_not_utf_8_is_skipped(database: Database, work: Path, tmp_path: Path) -> None:
    repository = Repo(str(work))
    blob, tree = Blob.from_string(b"# B\n"), Tree()
    tree.add(b"caf\xe9.md", 0o100644, blob.id)
    tree.add(b"c.md", 0o100644, blob.id)
    made = Commit()
    made.tree, made.parents = tree.id, [repository.head()]
    made.author = made.committer = b"a <a@x.example>"
    made.author_time = made.commit_time = 1_700_000_000
    made.author_timezone = made.commit_timezone = 0
    made.message = b"names"
    for each in (blob, tree, made):
        repository.object_store.add_object(each)
    repository.refs[Ref(b"HEAD")] = made.id
    intake = Intake(database)
    intake.ingest(GitConnector(str(work), tmp_path / "mirrors"))
    assert intake.live_paths() == {"c.md"}
    assert ("knowledge.unreadable", "caf\\xe9.md") in intake.findings()
    intake.close()


def test_a_readmitted_document_is_ingested_without_a_new_commit(
    database: Database, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look() -> set[str]:
        intake.ingest(GitConnector(str(work), tmp_path / "mirrors"))
        return intake.live_paths()

    for name in ("b.md", "picture.bin"):
        (work / name).write_text("# B\n")
    commit(work)
    intake = Intake(database)
    assert look() == {"a.md", "b.md"}
    why = DeletionReason("operator", "a mistake", datetime.now(UTC), tmp_path)
    delete(intake.conn, [intake.document_columns("b.md", "id")], why)
    assert (look(), look()) == ({"a.md"}, {"a.md"})
    readmit(intake.conn, "s", "b.md", why)
    assert look() == {"a.md", "b.md"}
    delete(intake.conn, [intake.document_columns("b.md", "id")], why)
    (work / "b.md").rename(work / "c.md")
    porcelain.remove(str(work), [str(work / "b.md")])
    commit(work)
    assert look() == {"a.md"}
    assert "deleted here under another name" in intake.findings()["knowledge.unreadable", "c.md"]
    readmit(intake.conn, "s", "b.md", why)
    assert look() == {"a.md", "c.md"}
    assert ("knowledge.unreadable", "c.md") not in intake.findings()
    read: list[str] = []
    blob = GitConnector.read

    def noted(connector: GitConnector, key: str) -> Content:
        read.append(key)
        return blob(connector, key)

    monkeypatch.setattr(GitConnector, "read", noted)
    look()
    assert read == ["b.md"], "what stays out is not read at each look"
    intake.close()


@pytest.mark.parametrize("code", ["document_time", "document_type"])
def test_unreadable_documents_are_retried(
    database: Database, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    """The machine was busy, or a library is installed since; but what is refused again is not asked for ever."""
    parse_all = Sandbox.parse_all
    asked: list[str] = []

    def refused(sandbox: Sandbox, jobs: Iterable[Job]) -> Iterator[tuple[Job, Outcome]]:
        for job in jobs:
            asked.append(job.key)
            yield job, Refused(key=job.key, code=code, message="no", hint="Wait.")

    intake = Intake(database)
    monkeypatch.setattr(Sandbox, "parse_all", refused)
    intake.ingest(GitConnector(str(work), tmp_path / "mirrors"))
    assert (intake.live_paths(), len(intake.findings())) == (set(), 1)
    monkeypatch.setattr(Sandbox, "parse_all", parse_all)
    intake.ingest(GitConnector(str(work), tmp_path / "mirrors"))
    assert (intake.live_paths(), intake.findings()) == ({"a.md"}, {})
    monkeypatch.setattr(Sandbox, "parse_all", refused)
    asked.clear()
    (work / "a.md").write_text("# Other\n")
    commit(work)
    for _ in range(4):
        intake.ingest(GitConnector(str(work), tmp_path / "mirrors"))
    assert (asked, intake.live_paths(), len(intake.findings())) == (["a.md", "a.md"], set(), 1)
    intake.close()


def dated(folder: Path, at: int, **texts: str) -> None:
    """A commit of that time."""
    for name, text in texts.items():
        (folder / f"{name}.md").write_text(text)
    porcelain.add(str(folder), [str(folder / f"{name}.md") for name in texts])
    who = b"a <a@x.example>"
    porcelain.commit(
        str(folder), message=b"change", author=who, committer=who, commit_timestamp=at, author_timestamp=at
    )


def test_each_file_has_the_time_of_the_commit_that_changed_it_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    porcelain.init(str(work))
    first, second, third = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (2021, 2022, 2023))
    dated(work, first, a="A", b="B")
    dated(work, second, b="B anew")
    dated(work, third, c="C")

    def times() -> dict[str, int | None]:
        connector = GitConnector(str(work), tmp_path / "mirrors")
        found = {}
        for change in connector.changes(None):
            at = connector.read(change.key).modified_at
            found[change.key] = None if at is None else at.year
        connector.close()
        return found

    assert times() == {"a.md": 2021, "b.md": 2022, "c.md": 2023}
    monkeypatch.setattr(git_history, "MAX_COMMITS", 1)
    assert times() == {"a.md": 2023, "b.md": 2023, "c.md": 2023}, "no newer than what was looked through"
    assert git_history.commit_time(1 << 62) <= datetime.now(UTC), "nor of a day that is still to come"


def test_a_scan_is_one_fetch_however_many_new_documents(
    database: Database, work: Path, served: str, requests: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So there is nothing to slow down, and a rate is refused."""
    monkeypatch.setenv("GIT_KEY", "reader:pa:ss")
    intake = Intake(database)

    def look() -> list[str]:
        connector = opened_from(declared(served, key="env:GIT_KEY"), tmp_path)
        intake.ingest(connector)
        connector.close()
        asked = list(requests)
        requests.clear()
        return asked

    fetch = ["/info/refs", "/git-upload-pack"]
    assert (look(), intake.live_paths()) == (fetch, {"a.md"})
    for number in range(40):
        (work / f"{number}.md").write_text(f"# {number}\n")
    commit(work)
    assert (look(), len(intake.live_paths())) == (fetch, 41)
    assert look() == ["/info/refs"], "nothing is new"
    intake.close()


def test_a_mirror_of_many_fetches_is_recreated_and_reports_only_changes(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a pack of its own, whose files are open while anything is read: after some hundreds of them a process
    has no descriptors left."""
    monkeypatch.setattr(git, "MAX_PACKS", 3)
    cursor, packs = None, []
    for number in range(8):
        (work / "a.md").write_text(f"# A{'!' * number}\n")  # of another size: it is changed within the same moment
        (work / f"{number}.md").write_text("# B\n")
        commit(work)
        source = GitConnector(str(work), tmp_path / "mirrors")
        told = list(source.changes(cursor))
        assert [change.key for change in told] == [f"{number}.md", "a.md"]
        assert source.read("a.md").data == b"# A%b\n" % (b"!" * number)
        cursor = told[-1].cursor
        source.close()
        packs.append(len(list((tmp_path / "mirrors").rglob("*.pack"))))
    assert packs == [1, 2, 3, 1, 2, 3, 1, 2]
