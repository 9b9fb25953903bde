"""Every shipped connector keeps the contract against real sources: an S3 server, a web server, databases."""

from __future__ import annotations

import http.server
import json
import mailbox
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from dulwich import porcelain

from groundplan.core.errors import Invalid, NotFound, Unavailable
from groundplan.knowledge.model import Readers
from groundplan.knowledge.sources import push_store
from groundplan.knowledge.sources.file_systems import options_for
from groundplan.knowledge.sources.folder import FolderConnector
from groundplan.knowledge.sources.git import GitConnector
from groundplan.knowledge.sources.mail import MailConnector
from groundplan.knowledge.sources.model import Connector
from groundplan.knowledge.sources.object_store import ObjectStoreConnector
from groundplan.knowledge.sources.pace import RateLimiter
from groundplan.knowledge.sources.push import PushConnector
from groundplan.knowledge.sources.sql import Layout, Postgres, SqlConnector, Sqlite
from groundplan.knowledge.sources.web import WebConnector
from groundplan.testing.connectors import check, list_changes
from groundplan.testing.database import Database


class FolderSource:
    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(exist_ok=True)

    def put(self, name: str, text: str) -> str:
        (self.root / f"{name}.md").write_text(text, encoding="utf-8")
        return f"{name}.md"

    def remove(self, name: str) -> None:
        (self.root / f"{name}.md").unlink()

    def restrict(self, name: str, reader: str) -> None:
        (self.root / f".{name}.md.governed.yaml").write_text(f"readers: [{reader}]\n", encoding="utf-8")

    def connector(self) -> Connector:
        return FolderConnector(self.root)


class GitSource(FolderSource):
    def __init__(self, root: Path) -> None:
        super().__init__(root / "work")
        self.mirror = root / "mirror"
        self.repository = porcelain.init(str(self.root))

    def commit(self) -> None:
        porcelain.add(
            str(self.root), [str(file) for file in self.root.rglob("*") if ".git/" not in str(file) and file.is_file()]
        )
        porcelain.commit(
            str(self.root), message=b"change", author=b"a <a@acme.example>", committer=b"a <a@acme.example>"
        )

    def put(self, name: str, text: str) -> str:
        key = super().put(name, text)
        self.commit()
        return key

    def remove(self, name: str) -> None:
        porcelain.remove(str(self.root), [str(self.root / f"{name}.md")])
        self.commit()

    def restrict(self, name: str, reader: str) -> None:
        super().restrict(name, reader)
        self.commit()

    def connector(self) -> Connector:
        return GitConnector(str(self.root), self.mirror)


class MailSource:
    def __init__(self, path: Path, *, maildir: bool) -> None:
        self.path, self.maildir = path, maildir
        self.texts: dict[str, str] = {}
        self.receivers: dict[str, str] = {}

    def _write(self) -> None:
        box = mailbox.Maildir(self.path) if self.maildir else mailbox.mbox(self.path)
        box.clear()
        for name, text in self.texts.items():
            message = EmailMessage()
            message["From"], message["To"], message["Message-ID"] = (
                "Ana <ana@acme.example>",
                self.receivers.get(name, "ben@acme.example"),
                f"<{name}@acme>",
            )
            message["Subject"] = name
            message.set_content(text)
            box.add(message)
        box.flush()
        box.close()

    def put(self, name: str, text: str) -> str:
        self.texts[name] = text
        self._write()
        return f"{name}@acme.eml"

    def remove(self, name: str) -> None:
        del self.texts[name]
        self._write()

    def restrict(self, name: str, reader: str) -> None:
        self.receivers[name] = reader
        self._write()

    def connector(self) -> Connector:
        return MailConnector(self.path, participants=True)


class SqliteSource:
    def __init__(self, path: Path, *, changed: bool) -> None:
        self.path, self.layout = path, Layout("articles", changed="stamp" if changed else None, readers="team")
        with self._db() as db:
            db.execute("CREATE TABLE articles (id TEXT PRIMARY KEY, body TEXT, team TEXT, stamp INTEGER)")

    @contextmanager
    def _db(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(self.path)
        try:
            with db:
                yield db
        finally:
            db.close()

    def put(self, name: str, text: str) -> str:
        with self._db() as db:
            db.execute(
                """INSERT INTO articles VALUES (?, ?, 'hr, !interns', 1) ON CONFLICT (id) DO UPDATE SET
                   body = excluded.body, stamp = stamp + 1""",
                (name, text),
            )
        return name

    def remove(self, name: str) -> None:
        with self._db() as db:
            db.execute("DELETE FROM articles WHERE id = ?", (name,))

    def restrict(self, name: str, reader: str) -> None:
        with self._db() as db:
            db.execute("UPDATE articles SET team = ?, stamp = stamp + 1 WHERE id = ?", (reader, name))

    def connector(self) -> Connector:
        return SqlConnector(Sqlite(self.path), self.layout)


class PostgresSource:
    def __init__(self, database: Database) -> None:
        self.dsn = database.superuser
        self.conn = psycopg.connect(self.dsn, autocommit=True)
        self.conn.execute("CREATE TABLE articles (id int PRIMARY KEY, body text, team text[], stamp bigint)")

    def put(self, name: str, text: str) -> str:
        self.conn.execute(
            """INSERT INTO articles VALUES (%s, %s, '{hr}', 1) ON CONFLICT (id) DO UPDATE SET body = excluded.body""",
            (ord(name), text),
        )
        return str(ord(name))

    def remove(self, name: str) -> None:
        self.conn.execute("DELETE FROM articles WHERE id = %s", (ord(name),))

    def restrict(self, name: str, reader: str) -> None:
        self.conn.execute("UPDATE articles SET team = ARRAY[%s] WHERE id = %s", (reader, ord(name)))

    def connector(self) -> Connector:
        return SqlConnector(Postgres(self.dsn), Layout("public.articles", readers="team"))


class PushSource:
    def __init__(self, database: Database) -> None:
        self.conn = psycopg.connect(database.urls["control"], autocommit=True)

    def put(self, name: str, text: str) -> str:
        with self.conn.transaction():
            row = push_store.Pushed(text.encode(), "md", None, {}, None)  # type: ignore[arg-type]
            push_store.put_document(self.conn, "s", name, row)
        return name

    def remove(self, name: str) -> None:
        with self.conn.transaction():
            push_store.withdraw_document(self.conn, "s", name)

    def restrict(self, name: str, reader: str) -> None:
        with self.conn.transaction():
            row = push_store.Pushed(f"The {name} text.".encode(), "md", [reader], {}, None)  # type: ignore[arg-type]
            push_store.put_document(self.conn, "s", name, row)

    def connector(self) -> Connector:
        return PushConnector(self.conn, "s")


class WebSource:
    """A site with a sitemap; `fetched` are the paths that were requested."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes] = {}
        self.fetched: list[str] = []
        self.robots: bytes | None = b"User-agent: *\nDisallow: /private\n"
        self.sitemap = True
        source = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                source.fetched.append(self.path)
                data, media = source.answer(self.path)
                self.send_response(200 if data is not None else 302 if self.path == "/away" else 404)
                if self.path == "/away":
                    self.send_header("Location", "http://127.0.0.2:1/elsewhere")
                self.send_header("Content-Type", media)
                self.end_headers()
                self.wfile.write(data or b"")

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, path: str) -> tuple[bytes | None, str]:
        if path == "/robots.txt":
            return self.robots, "text/plain"
        if path == "/sitemap.xml" and self.sitemap:
            places = "".join(f"<url><loc>{self.origin}{page}</loc></url>" for page in self.pages)
            return f"<?xml version='1.0'?><urlset>{places}</urlset>".encode(), "application/xml"
        return self.pages.get(path), "text/html; charset=utf-8"

    def put(self, name: str, text: str) -> str:
        self.pages[f"/{name}"] = f"<html><body><p>{text}</p></body></html>".encode()
        return name

    def remove(self, name: str) -> None:
        del self.pages[f"/{name}"]

    def connector(self) -> Connector:
        return WebConnector(f"{self.origin}/", rate=1000)

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def web() -> Iterator[WebSource]:
    source = WebSource()
    yield source
    source.close()


S3 = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


class S3Source:
    def __init__(self, endpoint: str) -> None:
        import boto3  # type: ignore[import-untyped]  # noqa: PLC0415 -- heavy

        self.endpoint = endpoint
        self.client = boto3.client(
            "s3", endpoint_url=endpoint, aws_access_key_id="id", aws_secret_access_key="secret", region_name="us-east-1"
        )
        self.client.create_bucket(Bucket="docs")

    def put(self, name: str, text: str) -> str:
        self.client.put_object(Bucket="docs", Key=f"in/{name}.md", Body=text.encode())
        return f"{name}.md"

    def remove(self, name: str) -> None:
        self.client.delete_object(Bucket="docs", Key=f"in/{name}.md")

    def restrict(self, name: str, reader: str) -> None:
        body = f"readers: [{reader}]\n".encode()
        self.client.put_object(Bucket="docs", Key=f"in/.{name}.md.governed.yaml", Body=body)

    def connector(self) -> Connector:
        return ObjectStoreConnector("s3://docs/in", options_for("s3://docs/in", self.endpoint, "id:secret"), 1000)


@pytest.fixture
def s3() -> Iterator[S3Source]:
    server = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", S3],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "MOTO_S3_DEFAULT_MAX_KEYS": "5"},
    )
    assert server.stdout is not None
    try:
        yield S3Source(f"http://127.0.0.1:{server.stdout.readline().strip()}")
    finally:
        server.kill()
        server.communicate()


def test_folder(tmp_path: Path) -> None:
    check(FolderSource(tmp_path / "docs"))


def test_git(tmp_path: Path) -> None:
    check(GitSource(tmp_path))


def test_git_reports_changes_of_sidecars_and_follows_no_links(tmp_path: Path) -> None:
    source = GitSource(tmp_path)
    source.put("a", "A")
    (source.root / "in").mkdir()
    (source.root / "in/b.md").write_text("B", encoding="utf-8")
    (source.root / "link.md").symlink_to("/etc/hostname")
    source.commit()
    first, _, cursor = list_changes(source)
    assert set(first) == {"a.md", "in/b.md"}
    (source.root / "in/.readers").write_text("hr\n", encoding="utf-8")
    source.commit()
    changed, is_complete, _ = list_changes(source, cursor)
    assert (set(changed), is_complete) == ({"in/b.md"}, False)
    connector = source.connector()
    list(connector.changes(cursor))
    assert [level.readers for level in connector.folder_rules("in/b.md")] == [Readers(frozenset({"hr"}))]
    connector.close()


@pytest.mark.parametrize("maildir", [True, False])
def test_mail(tmp_path: Path, maildir: bool) -> None:
    source = MailSource(tmp_path / "archive", maildir=maildir)
    check(source)
    connector = source.connector()
    list(connector.changes(None))
    assert connector.read("b@acme.eml").governed_values["readers"] == ["ana@acme.example", "ben@acme.example"]
    connector.close()


@pytest.mark.parametrize("changed", [True, False])
def test_sqlite(tmp_path: Path, changed: bool) -> None:
    source = SqliteSource(tmp_path / "a.db", changed=changed)
    check(source)
    connector = source.connector()
    content = connector.read("b")
    assert (content.governed_values["readers"], content.governed_values["deny"]) == (["hr"], ["interns"])
    assert connector.tables()[0].columns == ["id", "body", "team", "stamp"]
    with pytest.raises(Unavailable):
        list(SqlConnector(Sqlite(tmp_path / "none.db"), Layout("articles")).changes(None))
    connector.close()


def test_postgres_rows_and_grants(database: Database) -> None:
    source = PostgresSource(database)
    check(source)
    source.conn.execute(f"GRANT SELECT ON articles TO {database.name}_search")
    connector = SqlConnector(Postgres(source.dsn), Layout("articles", grants=True))
    list(connector.changes(None))
    (level,) = connector.folder_rules("97")
    assert level.readers == Readers(frozenset({f"{database.name}_search"}))
    misconfigured = SqlConnector(Postgres(source.dsn), Layout("articles", changed="nothing"))
    with pytest.raises(Unavailable) as caught:
        list(misconfigured.changes(None))
    misconfigured.close()
    assert "no column 'nothing'" in caught.value.message
    connector.close()
    source.conn.close()


def test_push(database: Database) -> None:
    source = PushSource(database)
    check(source)
    source.conn.close()


def test_object_store(s3: S3Source) -> None:
    check(s3)
    s3.client.put_object(Bucket="docs", Key="in/pay/b.md", Body=b"B")
    s3.client.put_object(Bucket="docs", Key="in/pay/.readers", Body=b"hr\n")
    connector = s3.connector()
    assert "pay/b.md" in [change.key for change in connector.changes(None)]
    assert [level.readers for level in connector.folder_rules("pay/b.md")] == [Readers(frozenset({"hr"}))]
    with pytest.raises(Unavailable):
        list(
            ObjectStoreConnector("s3://none/in", options_for("s3://none", s3.endpoint, "id:secret"), 1000).changes(None)
        )


ALL_USERS = "http://acs.amazonaws.com/groups/global/AllUsers"
NAMES = {"a1b2": "ana@acme.example", "c3d4": "hr", "AllUsers": "public"}


def _readers_by_level(source: S3Source, name: str) -> list[set[str] | None]:
    """The readers of each level, by their declared names; None for a level without a rule."""
    connector = ObjectStoreConnector(
        "s3://docs/in", options_for("s3://docs/in", source.endpoint, "id:secret"), 1000, NAMES
    )
    list(connector.changes(None))
    try:
        return [None if level.readers is None else set(level.readers.allow) for level in connector.folder_rules(name)]
    finally:
        connector.close()


ODD_NAMES = (
    "ä ñ/C# 1?%20+&.md", "twice//as.md", "line\nbreak.md", "../up.md", "in/./here.md", "star*[1].md",
    f"{'x' * 500}/{'y' * 410}.md",
)  # fmt: skip


def test_listings_of_several_pages_and_odd_names(s3: S3Source) -> None:
    from botocore.exceptions import ClientError  # type: ignore[import-untyped]  # noqa: PLC0415 -- heavy

    plain = [s3.put(f"{number:02}", f"The {number}.") for number in range(12)]
    stored = set()
    for name in ODD_NAMES:
        with suppress(ClientError):  # names that this server cannot store
            s3.client.put_object(Bucket="docs", Key=f"in/{name}", Body=name.encode())
            stored.add(name)
    assert len(stored) >= 4
    s3.client.put_object(Bucket="docs", Key="in/folder/", Body=b"")
    s3.client.put_object(Bucket="docs", Key="in-between.md", Body=b"of another folder")
    connector = s3.connector()
    found = {change.key for change in connector.changes(None)}
    read = stored - {"../up.md"}
    assert found == {*plain, *read}, "names with a leading dot are hidden, and all pages were listed"
    for name in read:
        assert connector.read(name).data == name.encode(), name
    connector.close()


def test_an_incomplete_listing_is_an_error_and_deletes_nothing(s3: S3Source, monkeypatch: pytest.MonkeyPatch) -> None:
    from s3fs import S3FileSystem  # noqa: PLC0415 -- heavy

    for number in range(12):
        s3.put(f"{number:02}", f"The {number}.")
    original_call = S3FileSystem._call_s3

    async def call_without_token(self: Any, method: str, *rest: Any, **more: Any) -> Any:
        answer = await original_call(self, method, *rest, **more)
        return (
            {k: v for k, v in answer.items() if k != "NextContinuationToken"} if method == "list_objects_v2" else answer
        )

    monkeypatch.setattr(S3FileSystem, "_call_s3", call_without_token)
    connector = s3.connector()
    with pytest.raises(Unavailable, match="a page of its listing does not say 'NextContinuationToken'"):
        list(connector.changes(None))
    connector.close()


def test_s3_access_lists_determine_the_readers(s3: S3Source) -> None:
    def grant(**grants: str) -> None:
        s3.client.put_object_acl(Bucket="docs", Key="in/a.md", **grants)

    s3.put("a", "A")
    assert _readers_by_level(s3, "a.md") == [set()], "the owner has no declared name"
    grant(GrantRead="id=a1b2, id=e5f6", GrantFullControl="id=c3d4")
    assert _readers_by_level(s3, "a.md") == [{"ana@acme.example", "hr"}]
    grant(GrantWriteACP="id=a1b2", GrantReadACP="id=c3d4")
    assert _readers_by_level(s3, "a.md") == [set()]
    grant(GrantRead=f'uri="{ALL_USERS}"')
    assert _readers_by_level(s3, "a.md") == [{"public"}]
    s3.client.put_public_access_block(
        Bucket="docs", PublicAccessBlockConfiguration={"IgnorePublicAcls": True, "BlockPublicAcls": False}
    )
    assert _readers_by_level(s3, "a.md") == [set()], "S3 itself ignores public access lists"
    s3.client.put_bucket_acl(Bucket="docs", ACL="public-read")
    assert _readers_by_level(s3, "a.md") == [set()], "permission to list the bucket is no permission to read objects"


def test_an_unreadable_access_list_is_an_error(s3: S3Source) -> None:
    """The server enforces the policies of its keys, and the key of the source may only read objects."""
    import boto3  # noqa: PLC0415 -- heavy

    s3.put("a", "A")
    iam = boto3.client(
        "iam", endpoint_url=s3.endpoint, aws_access_key_id="id", aws_secret_access_key="secret", region_name="us-east-1"
    )
    iam.create_user(UserName="source")
    allowed = {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    iam.put_user_policy(UserName="source", PolicyName="read", PolicyDocument=policy)
    access_key = iam.create_access_key(UserName="source")["AccessKey"]
    httpx.post(f"{s3.endpoint}/moto-api/reset-auth", content=b"0").raise_for_status()
    key = f"{access_key['AccessKeyId']}:{access_key['SecretAccessKey']}"
    connector = ObjectStoreConnector("s3://docs/in", options_for("s3://docs/in", s3.endpoint, key), 1000, NAMES)
    assert [change.key for change in connector.changes(None)] == ["a.md"]
    assert connector.read("a.md").data == b"A"
    with pytest.raises(Invalid) as caught:
        connector.folder_rules("a.md")
    assert (caught.value.code, "GetObjectAcl" in (caught.value.hint or "")) == ("readers_unreadable", True)
    connector.close()


def test_an_unreachable_store_is_unavailable(s3: S3Source) -> None:
    connector = ObjectStoreConnector("s3://docs/in", options_for("s3://docs", "http://127.0.0.1:9", "id:secret"), 1000)
    with pytest.raises(Unavailable) as caught:
        list(connector.changes(None))
    assert caught.value.code == "source_missing"


def test_web_with_a_sitemap(web: WebSource) -> None:
    check(web)


def test_a_site_is_crawled_within_its_robots_rules_and_origin(web: WebSource) -> None:
    web.sitemap = False
    web.pages = {
        "/": b"<a href='/a'>a</a> <a href='/private/x'>x</a> <a href='http://127.0.0.2:1/'>o</a> <a href='/away'>y</a>",
        "/a": b"<p>A</p><a href='/hidden'>h</a><a href='/'>home</a>",
        "/hidden": b"<meta name='robots' content='noindex'><p>H</p>",
        "/private/x": b"<p>X</p>",
    }
    found, is_complete, _ = list_changes(web)
    assert (set(found), is_complete) == ({"index", "a"}, True)
    assert "/private/x" not in web.fetched
    web.robots = None
    found, _, _ = list_changes(web)
    assert "private/x" in found
    with pytest.raises(NotFound):
        web.connector().read("nothing")


def test_a_site_without_readable_robots_rules_is_not_crawled() -> None:
    with pytest.raises(Unavailable):
        list(WebConnector("http://127.0.0.1:9/", rate=1000).changes(None))


def test_the_rate_limiter_spaces_requests() -> None:
    now, slept = [0.0], list[float]()

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    pace = RateLimiter(4, clock=lambda: now[0], sleep=sleep)
    for _ in range(5):
        pace.wait()
    assert now[0] == pytest.approx(1.0)
    pace.slow_down(2)
    pace.wait()
    pace.wait()
    assert slept[-1] == pytest.approx(2.0)
