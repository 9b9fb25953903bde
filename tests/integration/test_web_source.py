"""A web site as a source: what is not found any more counts as gone only where everything that names pages was read."""

from __future__ import annotations

import gzip
import http.server
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from tests.knowledge_intake import Intake

from groundplan.core.errors import Unavailable
from groundplan.knowledge.sources import web
from groundplan.knowledge.sources.robots import Robots
from groundplan.knowledge.sources.sitemaps import parse_sitemap
from groundplan.knowledge.sources.web import WebConnector
from groundplan.testing.database import Database

HTML = "text/html; charset=utf-8"


class Site:
    """`answers`: path -> (status, type, body, location)."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, str, bytes, str]] = {}
        self.endless = self.cut = ""
        self.encodings: dict[str, str] = {}
        self.modified: dict[str, str] = {}
        self.asked: Callable[[str], None] = lambda _: None
        """Called with each path before it is answered."""
        self.closing = threading.Event()
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked(self.path)
                status, media, data, location = site.answers.get(self.path, (404, HTML, b"", ""))
                self.send_response(status)
                self.send_header("Content-Type", media)
                if self.path in site.encodings:
                    self.send_header("Content-Encoding", site.encodings[self.path])
                if self.path in site.modified:
                    self.send_header("Last-Modified", site.modified[self.path])
                if location:
                    self.send_header("Location", location)
                more = 1 if self.path == site.cut else 1 << 20 if self.path == site.endless else 0
                self.send_header("Content-Length", str(len(data) + more))
                self.end_headers()
                with suppress(OSError):
                    while self.path == site.endless and not site.closing.wait(0.05):
                        self.wfile.write(b"x")
                    self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def put(self, path: str, data: str | bytes, media: str = HTML, status: int = 200, location: str = "") -> None:
        self.answers[path] = (status, media, data.encode() if isinstance(data, str) else data, location)

    def refuse(self, path: str, status: int, location: str = "") -> None:
        self.put(path, b"", status=status, location=location)

    def name(self, *pages: str, place: str = "/sitemap.xml", index: bool = False) -> None:
        each = "".join(f"<x><loc>{self.origin}{page}</loc></x>" for page in pages)
        kind = "sitemapindex" if index else "urlset"
        self.put(place, f"<?xml version='1.0'?><{kind}>{each}</{kind}>", "application/xml")

    def close(self) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    for name in "abc":
        site.put(f"/{name}", f"<p>This is {name}.</p>")
    yield site
    site.close()


@pytest.fixture
def intake(database: Database) -> Iterator[Intake]:
    intake = Intake(database)
    yield intake
    intake.close()


def ingest_site(intake: Intake, site: Site) -> tuple[set[str], str]:
    """What is searched afterwards, and what is told of the source itself."""
    intake.ingest(WebConnector(f"{site.origin}/", rate=1000))
    return intake.live_paths(), intake.findings().get(("knowledge.source_missing", ""), "")


XML = "application/xml"
AWAY: dict[str, tuple[int, str, bytes]] = {
    "an error": (503, HTML, b""),
    "refused": (403, HTML, b""),
    "not there": (404, HTML, b""),
    "a page in its place": (200, HTML, b"<!doctype html><html><p>Sorry</p>"),
    "cut off": (200, XML, b"<urlset><x><loc>http://"),
    "empty": (200, XML, b"<urlset></urlset>"),
    "entities": (200, XML, b"<!-- " + b"x" * 3000 + b" --><!DOCTYPE a [<!ENTITY b 'c'>]><urlset></urlset>"),
    "no gzip": (200, "application/gzip", gzip.compress(b"<urlset></urlset>")[:-12]),
}


@pytest.mark.parametrize("case", AWAY)
def test_a_sitemap_that_fails_deletes_no_page(site: Site, intake: Intake, case: str) -> None:
    site.name("/a", "/b", "/c")
    assert ingest_site(intake, site) == ({"a", "b", "c"}, "")
    before = site.answers["/sitemap.xml"]
    site.answers["/sitemap.xml"] = (*AWAY[case], "")
    site.put("/", "<a href='/a'>a</a>")
    live, told = ingest_site(intake, site)
    assert live >= {"a", "b", "c"}
    assert "sitemap" in told
    assert ingest_site(intake, site)[0] >= {"a", "b", "c"}, "nor at the next look"
    site.answers["/sitemap.xml"] = before
    site.name("/a", "/b")
    assert ingest_site(intake, site) == ({"a", "b"}, "")


def test_one_failing_sitemap_of_several_deletes_no_page(site: Site, intake: Intake) -> None:
    site.put("/robots.txt", f"Sitemap: {site.origin}/all.xml\n", "text/plain")
    site.name("/one.xml.gz", "/two.txt", "/three.xml", place="/all.xml", index=True)
    packed = gzip.compress(f"<urlset><x><loc>{site.origin}/a</loc></x></urlset>".encode())
    site.put("/one.xml.gz", packed, "application/gzip")
    site.put("/two.txt", f"{site.origin}/b\n", "text/plain")
    site.name("/c", "http://[broken", place="/three.xml")
    assert ingest_site(intake, site) == ({"a", "b", "c"}, "")
    site.refuse("/three.xml", 500)
    site.put("/b", "<p>This is another b.</p>")
    live, told = ingest_site(intake, site)
    assert live == {"a", "b", "c"}
    assert "/three.xml: it answers 500" in told
    assert intake.document_text("b") == "This is another b.", "what was found is taken over all the same"


def test_sitemaps_that_name_one_another_are_read_once(site: Site, intake: Intake) -> None:
    site.name("/sitemap.xml", "/two.xml", "/one.xml", index=True)
    site.name("/sitemap.xml", "/two.xml", place="/two.xml", index=True)
    site.name("/a", "/b", place="/one.xml")
    assert ingest_site(intake, site) == ({"a", "b"}, "")
    site.name("/a", place="/one.xml")
    assert ingest_site(intake, site) == ({"a"}, ""), "and what is gone is gone"


def test_a_page_listed_twice_is_one_document_and_stays_unchanged(site: Site, intake: Intake) -> None:
    site.put("/a/", "<p>This is a, otherwise.</p>")
    site.name("/a", "/a/", "/b")
    assert ingest_site(intake, site) == ({"a", "b"}, "")
    versions = intake.document_columns("a", "version")
    assert ingest_site(intake, site) == ({"a", "b"}, "")
    assert intake.document_columns("a", "version") == versions


def test_links_are_resolved_by_the_pages_base(site: Site, intake: Intake) -> None:
    site.put("/", "<base href='/deep/'><a href='d'>d</a>")
    site.put("/deep/d", "<p>This is d.</p>")
    assert ingest_site(intake, site)[0] == {"index", "deep/d"}


@pytest.mark.parametrize("status", [401, 403, 404, 500, 302])
def test_an_unreadable_start_page_deletes_no_page(site: Site, intake: Intake, status: int) -> None:
    site.put("/", "<a href='/a'>a</a> <a href='/b'>b</a> <a href='http://[broken'>x</a>")
    assert ingest_site(intake, site) == ({"index", "a", "b"}, "")
    site.refuse("/", status, "http://127.0.0.2:1/elsewhere" if status == 302 else "")
    live, told = ingest_site(intake, site)
    assert live == {"index", "a", "b"}
    assert "the first page" in told
    site.put("/robots.txt", "User-agent: *\nDisallow: /\n", "text/plain")
    assert ingest_site(intake, site)[0] == {"index", "a", "b"}
    del site.answers["/robots.txt"]
    site.put("/", "<a href='/a'>a</a>")
    assert ingest_site(intake, site) == ({"index", "a"}, ""), "what is linked no more is gone"


def test_an_unreadable_page_hides_no_pages_behind_it(site: Site, intake: Intake) -> None:
    site.put("/", "<a href='/a'>a</a>")
    site.put("/a", "<p>This is a.</p><a href='/b'>b</a>")
    assert ingest_site(intake, site)[0] == {"index", "a", "b"}
    site.refuse("/a", 503)
    assert ingest_site(intake, site)[0] == {"index", "a", "b"}
    site.put("/a", b"<p>caf\xe9</p><a href='/b'>b</a>", "text/html")
    assert ingest_site(intake, site)[0] == {"index", "b"}, "what it links to stays, itself cannot be read"
    site.put("/a", b"<p>caf\xe9</p><a href='/b'>b</a>", "text/html; charset=iso-8859-1")
    assert ingest_site(intake, site)[0] == {"index", "a", "b"}
    assert intake.document_text("a").startswith("café")
    began = time.monotonic()
    site.put("/a", b"<p>-" + b"9a" * 300_000 + b"</p><a href='/b'>b</a>", "text/html; charset=punycode")
    assert ingest_site(intake, site)[0] == {"index", "a", "b"}
    assert time.monotonic() - began < 12, "no site chooses what its text is decoded with"
    site.refuse("/b", 302, "http://[")
    assert ingest_site(intake, site)[0] == {"index", "a"}
    site.put("/", "<meta name='robots' content='noindex'><a href='/a'>a</a>")
    assert ingest_site(intake, site)[0] == {"a"}, "its links are followed though it asks not to be found"
    site.put("/", "<meta name='robots' content='nofollow'><a href='/a'>a</a>")
    assert ingest_site(intake, site)[0] == {"index"}, "its links are not, as it asks"


def test_a_site_that_refuses_all_pages_keeps_its_documents(site: Site, intake: Intake) -> None:
    site.name("/a", "/b")
    ingest_site(intake, site)
    site.refuse("/a", 403)
    assert ingest_site(intake, site) == ({"b"}, ""), "one page is withdrawn"
    site.refuse("/b", 403)
    live, told = ingest_site(intake, site)
    assert (live, "none of its pages may be read" in told) == ({"b"}, True)


def test_a_sitemap_decompression_bomb_is_refused() -> None:
    with pytest.raises(ValueError, match="unpacks to more"):
        parse_sitemap(gzip.compress(b" " * (60 << 20)))


def test_compressed_responses_are_decompressed(site: Site, intake: Intake) -> None:
    """As servers of files do that were stored so, whatever is asked for."""
    site.put("/robots.txt", gzip.compress(b"User-agent: *\nDisallow: /b"), "text/plain")
    site.name("/a", "/b", "/c", "/d")
    sitemap = site.answers["/sitemap.xml"][2]
    site.put("/sitemap.xml", gzip.compress(gzip.compress(sitemap)), "application/gzip")
    site.put("/a", gzip.compress(b"<title>Leave</title><p>Thirty days.</p>"))
    site.put("/d", gzip.compress(gzip.compress(gzip.compress(b"<title>Leave</title><p>Thirty days.</p>"))))
    site.encodings = {"/robots.txt": "gzip", "/sitemap.xml": "x-gzip", "/a": "identity, gzip", "/c": "br"}
    site.encodings["/d"] = "gzip, gzip, gzip"

    assert ingest_site(intake, site) == ({"a"}, "")
    # who may not be read is known only where the rules are
    site.put("/robots.txt", gzip.compress(b"User-agent: *\nDisallow: /b")[:-9], "text/plain")
    assert "the rules of" in ingest_site(intake, site)[1]
    assert intake.live_paths() == {"a"}


def test_a_page_decompression_bomb_is_skipped(site: Site, intake: Intake) -> None:
    site.name("/a", "/b")
    site.put("/a", gzip.compress(b" " * (60 << 20)))
    site.encodings = {"/a": "gzip"}

    assert ingest_site(intake, site) == ({"b"}, "")
    assert "larger than 10 MiB" in intake.findings()["knowledge.unreadable", "a"]


def test_a_sitemap_may_have_the_protocols_maximum_size(site: Site, intake: Intake) -> None:
    site.name("/a", "/b")
    status, media, data, location = site.answers["/sitemap.xml"]
    site.answers["/sitemap.xml"] = (status, media, data + b" " * (12 << 20), location)

    assert ingest_site(intake, site) == ({"a", "b"}, "")


@pytest.mark.parametrize("status", [500, 302])
def test_a_site_whose_robots_file_fails_is_not_crawled(site: Site, status: int) -> None:
    site.refuse("/robots.txt", status, "http://127.0.0.2:1/robots.txt")
    with pytest.raises(Unavailable):
        list(WebConnector(f"{site.origin}/", rate=1000).changes(None))


def test_a_page_is_reread_at_the_url_where_it_was_found(site: Site) -> None:
    site.put("/", "<a href='/list/?page=2'>2</a> <a href='/a%2Fb'>a</a>")
    site.put("/list/?page=2", "<p>The second.</p>")
    site.put("/a%2Fb", "<p>With a slash.</p>")
    found = WebConnector(f"{site.origin}/", rate=1000)
    keys = [change.key for change in found.changes(None)]
    assert keys == ["index", "list?page=2", "a/b"]
    assert [b"The second" in found.read(keys[1]).data, b"slash" in found.read(keys[2]).data] == [True, True]
    found.close()


def test_a_disallow_rule_applies_after_an_allow_all_rule(site: Site, intake: Intake) -> None:
    site.name("/a", "/b", "/c")
    site.put("/robots.txt", "User-agent: *\nAllow: /\nDisallow: /b\nDisallow: /*c$\n", "text/plain")
    assert ingest_site(intake, site) == ({"a"}, "")


def test_endless_and_truncated_pages_are_one_finding_each(
    site: Site, intake: Intake, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.name("/a", "/b", "/c")
    site.endless, site.cut = "/b", "/c"

    def hasten(path: str) -> None:
        """Of the page that is asked for after this one; a busy machine may take long to give what has an end."""
        monkeypatch.setattr(web, "PAGE_SECONDS", 0.5 if path == "/a" else 60.0)

    site.asked = hasten
    live, told = ingest_site(intake, site)
    assert (live, told) == ({"a"}, "")
    found = {about: message for (_, about), message in intake.findings().items()}
    assert "takes longer than" in found["b"]
    assert "ends in the middle" in found["c"]


def test_a_page_with_an_impossible_time_is_read(site: Site, intake: Intake) -> None:
    """And so are those behind it."""
    site.name("/a", "/b")
    site.modified["/a"] = "Mon, 9 Nov 2026 99999999999999999999:00:00 GMT"
    assert ingest_site(intake, site) == ({"a", "b"}, "")


def test_a_site_with_endless_urls_does_not_fill_memory(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    allows = Robots.allows

    def counted(robots: Robots, url: str) -> bool:
        asked.append(url)
        return allows(robots, url)

    monkeypatch.setattr(Robots, "allows", counted)
    for at in range(3):
        links = "".join(f"<a href='/p{at}-{number}'>x</a>" for number in range(2000))
        site.put(f"/p{at}-0" if at else "/", f"<p>Page {at}.</p><a href='/p{at + 1}-0'>next</a>{links}")
    connector = WebConnector(f"{site.origin}/", pages=3, rate=1000)
    try:
        assert next(iter(connector.changes(None))).key == "index"
        list(connector.changes(None))
    finally:
        connector.close()
    assert not connector.is_complete
    assert len(asked) < 50, "addresses that are not read anyway are not kept"
