"""The connector of a web site: the pages in its sitemaps, else those that its own pages link to, as robots.txt allows.

Only the host of the first page is requested, also after redirects, and never faster than declared or than the site
asks. Pages with `noindex` are left out, links of pages with `nofollow` are not followed, and endless answers are cut
off. Nothing is executed, and links are extracted by a confined process. Pages that are not found any more count as
deleted only if everything that names pages was read: each sitemap, or each page that could have a link. `nofollow` on a
single link is ignored: it is about what the page thinks of another, not about who may read it.
"""

from __future__ import annotations

import hashlib
import http.client
import re
import socket
import ssl
import threading
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit

from groundplan.core.errors import GroundplanError, Invalid, NotFound, TooLarge, Unavailable
from groundplan.knowledge.parsing.charsets import decode_as
from groundplan.knowledge.parsing.model import MAX_TEXT_BYTES, Job, Refused, Table
from groundplan.knowledge.parsing.sandbox import Sandbox
from groundplan.knowledge.sources.errors import GONE, document_gone
from groundplan.knowledge.sources.model import Change, Content, Cursor, FolderRules
from groundplan.knowledge.sources.pace import RateLimiter
from groundplan.knowledge.sources.robots import Robots, normalised_path, page_directives
from groundplan.knowledge.sources.robots import parse_robots as rules_of
from groundplan.knowledge.sources.sitemaps import MAX_BYTES as MAX_SITEMAP
from groundplan.knowledge.sources.sitemaps import Sitemap, is_page, parse_sitemap

AGENT = "groundplan"
_MAX_COMPRESSIONS = 2
"""Most compressions of one answer: each may expand to the largest size that is read."""
MAX_REDIRECTS = 5
MAX_SITEMAPS = 100
TIMEOUT_SECONDS = 20.0
PAGE_SECONDS = 60.0
"""Time limit for a whole page; a slower answer is cut off."""
_MEDIA = {
    "text/html": "html", "application/xhtml+xml": "html", "text/plain": "txt", "text/markdown": "md",
    "application/pdf": "pdf", "application/json": "json", "text/csv": "csv",
}  # fmt: skip
_PAGES = frozenset({"text/html", "application/xhtml+xml"})
_CHARSET = re.compile(rb"<meta[^>]{0,200}charset=", re.IGNORECASE)
_REFUSED = "document_refused"
"""Code of a page that refuses access; its links are not known."""
_ELSEWHERE = "document_elsewhere"
"""Code of a page that redirects to another site."""


@dataclass(frozen=True, slots=True)
class Page:
    """An answer with status 200. `directives`: `noindex` and `nofollow`, if it has them (`robots.page_directives`)."""

    url: str
    data: bytes
    media: str
    modified_at: datetime | None
    directives: frozenset[str]

    @property
    def noindex(self) -> bool:
        return "noindex" in self.directives


class WebConnector:
    """The connector of a site; `start` is its first page. Keys are addresses without the host."""

    def __init__(self, start: str, *, pages: int = 10_000, rate: float = 50.0) -> None:
        self._start, self._max_pages = start, pages
        parts = urlsplit(start)
        self._origin = (parts.scheme, parts.netloc)
        self._pace = RateLimiter(rate)
        self._robots = Robots()
        self._pages: dict[str, Page | GroundplanError] = {}
        self._addresses: dict[str, str] = {}
        """The addresses of the reported pages, by key."""
        self._sandbox = Sandbox()
        self._incomplete_reason = ""
        self._is_truncated = False
        self.is_complete = False

    def close(self) -> None:
        self._pages.clear()
        self._sandbox.close()

    def tables(self) -> Sequence[Table]:
        return ()

    def changes(self, cursor: Cursor | None) -> Iterator[Change]:
        """Every page that may be read, in the order of discovery. Raises `Unavailable` if the site does not answer, and
        at the end if a sitemap could not be read: pages that only it names stay as they were.

        After an interruption it starts again: unchanged pages are fetched again, but not parsed. The cursor remembers
        that the site has sitemaps.
        """
        self.is_complete, self._incomplete_reason, self._is_truncated = False, "", False
        self._read_robots()
        wanted = self._sitemap_pages()
        had = bool(cursor and cursor.get("sitemap"))
        if had and not wanted and not self._incomplete_reason:
            self._incomplete_reason = "it had a sitemap, and has none now"
        place = {"sitemap": had or bool(wanted)}
        waiting = deque(wanted or [self._start])
        known = {self._key(url) for url in waiting}
        done = read = 0
        while waiting and done < self._max_pages:
            url = waiting.popleft()
            key = self._key(url)
            page = self._fetch_page(url)
            done += 1
            if not wanted:
                self._queue_links(page, known, waiting, first=done == 1)
            if isinstance(page, NotFound) or (isinstance(page, Page) and page.noindex):
                continue
            read += 1
            self._pages[key], self._addresses[key] = page, url
            yield Change(key, _version(page), cursor=place)
            self._pages.pop(key, None)
        if done and not read and not self._incomplete_reason:
            self._incomplete_reason = "none of its pages may be read"
        self.is_complete = not (waiting or self._incomplete_reason or self._is_truncated)
        if self._incomplete_reason:
            raise Unavailable(
                f"{self._origin[1]} cannot be read whole: {self._incomplete_reason}", code="source_missing",
                hint="Correct it there; pages that are not found meanwhile stay as they were. It is tried again.",
            )  # fmt: skip

    def _queue_links(self, page: Page | GroundplanError, known: set[str], waiting: deque[str], *, first: bool) -> None:
        """Queue the links of a page, on a site without sitemaps. Raises `Unavailable` without a readable first page."""
        if isinstance(page, Page):
            # no more addresses than pages are read: a site can name new ones without end
            if page.media == "html" and "nofollow" not in page.directives and len(known) <= self._max_pages:
                self._extract_links(page, known, waiting)
        elif first:
            raise Unavailable(
                f"the first page {self._start} cannot be read: {page.message}", code="source_missing",
                hint="Correct `url` of the connector, or let the agent groundplan in; its pages stay as they were.",
            )  # fmt: skip
        elif page.code not in (GONE, _REFUSED, _ELSEWHERE):
            self._is_truncated = True  # its links are not known

    def _extract_links(self, page: Page, known: set[str], waiting: deque[str]) -> None:
        found = self._sandbox.parse(Job(key="page.html", data=page.data, media="html", links=True))
        if isinstance(found, Refused):
            self._is_truncated = True
            return
        for link in found.links:
            if len(known) > self._max_pages:
                return
            url = _resolve_link(page.url, link)
            if url and self._is_same_site(url) and (key := self._key(url)) not in known and self._is_allowed(url):
                known.add(key)
                waiting.append(url)

    def read(self, key: str) -> Content:
        page = self._pages.get(key)
        if page is None:
            path, _, query = key.partition("?")
            page = self._fetch_page(self._addresses.get(key) or urlunsplit((*self._origin, quote(path), query, "")))
        if isinstance(page, GroundplanError):
            raise page
        if page.noindex:
            raise document_gone("it asks not to be found")
        return Content(page.data, media=page.media, modified_at=page.modified_at)

    def folder_rules(self, key: str) -> Sequence[FolderRules]:  # noqa: ARG002 -- a site says nothing about readers
        return ()

    def _read_robots(self) -> None:
        found = self._fetch_page(self._url_of("/robots.txt"), apply_robots=False)
        if isinstance(found, Page):
            self._robots = rules_of(found.data, AGENT)
            if self._robots.delay is not None:
                self._pace.slow_down(self._robots.delay)
        elif isinstance(found, NotFound) and found.code != _ELSEWHERE:
            self._robots = Robots()
        else:
            # without its rules a site must not be crawled
            raise Unavailable(
                f"the rules of {self._origin[1]} cannot be read: {found.message}", code="source_missing",
                hint="Its pages stay as they were; it is tried again.",
            )  # fmt: skip

    def _sitemap_pages(self) -> list[str]:
        """The addresses of pages in all sitemaps, the first of those with the same key; empty without sitemaps. A
        sitemap that cannot be read is noted in `_doubt`."""
        named = self._robots.sitemaps
        waiting = deque(named or [self._url_of("/sitemap.xml")])
        pages: dict[str, str] = {}
        known: set[str] = set()
        read = 0
        while waiting:
            url = waiting.popleft()
            if url in known:
                continue  # sitemaps may name one another
            known.add(url)
            read += 1
            if read > MAX_SITEMAPS or len(pages) >= self._max_pages:
                self._is_truncated = True
                break
            if not self._is_same_site(url):
                continue  # of another site
            found = self._fetch_page(url, apply_robots=False)
            if not named and read == 1 and _is_missing_sitemap(found):
                return []
            told = _parse_found_sitemap(found)
            if isinstance(told, str):
                self._incomplete_reason = self._incomplete_reason or f"its sitemap {url}: {told}"
                continue
            waiting.extend(told.further)
            for place in told.pages:
                if self._is_same_site(place) and self._is_allowed(place):
                    pages.setdefault(self._key(place), place)
        return list(pages.values())

    def _fetch_page(self, url: str, *, apply_robots: bool = True) -> Page | GroundplanError:
        """The page after redirects within the site, or the error. `apply_robots`: whether robots.txt applies to it."""
        max_bytes = MAX_TEXT_BYTES if apply_robots else MAX_SITEMAP
        for _ in range(MAX_REDIRECTS):
            if apply_robots and not self._is_allowed(url):
                return _refusal("robots.txt does not allow it")
            self._pace.wait()
            try:
                status, headers, data = self._fetch(url, max_bytes)
            except (OSError, http.client.HTTPException, ValueError) as error:
                return Unavailable(
                    f"it cannot be reached: {error or type(error).__name__}",
                    code="source_missing",
                    hint="It is tried again.",
                )
            if status in (301, 302, 303, 307, 308):
                url = _resolve_link(url, headers.get("location", "")) or ""
                if not self._is_same_site(url):
                    return _refusal("it leads to another site", _ELSEWHERE)
                continue
            return _to_page(url, status, headers, data, max_bytes, apply_robots=apply_robots)
        return Invalid("it redirects endlessly", code="document_redirects", hint="Correct the site.")

    def _fetch(self, url: str, max_bytes: int) -> tuple[int, http.client.HTTPMessage, bytes]:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT_SECONDS, context=context)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
        try:
            path = urlunsplit(("", "", normalised_path(parts.path), parts.query, ""))
            connection.request(
                "GET", path, headers={"User-Agent": AGENT, "Accept": "text/html, text/*, application/pdf"}
            )
            with _deadline(connection):
                answer = connection.getresponse()
                data = _read_body(answer, max_bytes)
            return (
                answer.status,
                answer.headers,
                _decompress(data, answer.headers.get("content-encoding", ""), max_bytes),
            )
        finally:
            connection.close()

    def _is_same_site(self, url: str) -> bool:
        try:
            parts = urlsplit(url)
        except ValueError:
            return False
        return (parts.scheme, parts.netloc) == self._origin

    def _is_allowed(self, url: str) -> bool:
        try:
            return self._robots.allows(url)
        except ValueError:
            return False

    def _url_of(self, path: str) -> str:
        return urlunsplit((*self._origin, path, "", ""))

    @staticmethod
    def _key(url: str) -> str:
        parts = urlsplit(url)
        path = unquote(parts.path).strip("/") or "index"
        return f"{path}?{parts.query}" if parts.query else path


def _resolve_link(base: str, link: str) -> str | None:
    """The address of a link; None if it is not valid."""
    try:
        return urljoin(base, link)
    except ValueError:
        return None


def _parse_found_sitemap(found: Page | GroundplanError) -> Sitemap | str:
    """The parsed sitemap, or the reason why it cannot be read."""
    if isinstance(found, GroundplanError):
        return found.message
    try:
        return parse_sitemap(found.data)
    except ValueError as error:
        return str(error)


def _is_missing_sitemap(found: Page | GroundplanError) -> bool:
    """Whether the answer means that the site has no sitemap."""
    return isinstance(found, NotFound) if isinstance(found, GroundplanError) else is_page(found.data)


def _refusal(why: str, code: str = _REFUSED) -> NotFound:
    return NotFound(why, code=code, hint="Nothing needs to be done.")


@contextmanager
def _deadline(connection: http.client.HTTPConnection) -> Iterator[None]:
    """Cuts off an answer after `PAGE_SECONDS`, however slowly it comes. Raises `TimeoutError`."""
    late = threading.Event()

    def cut(line: socket.socket) -> None:
        late.set()
        with suppress(OSError):
            line.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(PAGE_SECONDS, cut, (connection.sock,))
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError) as error:
        if not late.is_set():
            raise
        raise TimeoutError(f"it takes longer than {PAGE_SECONDS:.0f} s") from error
    finally:
        timer.cancel()
    if late.is_set():
        raise TimeoutError(f"it takes longer than {PAGE_SECONDS:.0f} s")


def _read_body(answer: http.client.HTTPResponse, max_bytes: int) -> bytes:
    """The body of an answer, at most `max_bytes` + 1 bytes. Raises `OSError` if it ends early."""
    data = bytearray()
    while len(data) <= max_bytes and (piece := answer.read1(64 << 10)):
        data += piece
    if answer.length and len(data) <= max_bytes:
        raise ConnectionError("it ends in the middle")
    return bytes(data[: max_bytes + 1])


def _decompress(data: bytes, encodings: str, max_bytes: int) -> bytes:
    """The decompressed body, at most `max_bytes` + 1 bytes, since some servers compress without being asked. Raises
    `ValueError`."""
    names = [name for name in (each.strip().lower() for each in encodings.split(",")) if name not in ("", "identity")]
    if len(names) > _MAX_COMPRESSIONS:
        raise ValueError(f"it is packed {len(names)} times")
    for name in reversed(names if data else []):
        if name not in ("gzip", "x-gzip"):
            raise ValueError(f"it is packed as '{name}', which was not asked for")
        unpacking = zlib.decompressobj(31)
        try:
            found = unpacking.decompress(data, max_bytes + 1)
        except zlib.error as error:
            raise ValueError("it cannot be unpacked") from error
        if len(found) <= max_bytes and not unpacking.eof:
            raise ValueError("it ends in the middle")
        data = found
    return data


def _to_page(
    url: str, status: int, headers: http.client.HTTPMessage, data: bytes, max_bytes: int, *, apply_robots: bool
) -> Page | GroundplanError:
    if status in (401, 403):
        return _refusal(f"it answers {status}")
    if status in (404, 410):
        return document_gone(f"it answers {status}")
    if status != 200:
        return Unavailable(f"it answers {status}", code="source_missing", hint="It is tried again.")
    if len(data) > max_bytes:
        return TooLarge(
            f"it is larger than {max_bytes >> 20} MiB",
            code="document_too_large",
            hint="Leave it out of the sitemap.",
        )
    media = headers.get_content_type()
    if apply_robots and media not in _MEDIA:
        return Invalid(f"pages of type '{media}' are not read", code="document_type", hint="Nothing needs to be done.")
    directives = page_directives(headers.get_all("x-robots-tag", []), data if media in _PAGES else b"", AGENT)
    data = _to_utf8(data, headers.get_content_charset()) if media in ("text/html", "text/plain", "text/csv") else data
    return Page(url, data, _MEDIA.get(media, "txt"), _parse_time(headers.get("last-modified")), directives)


def _to_utf8(data: bytes, charset: str | None) -> bytes:
    """Text re-encoded as UTF-8 if only the server states its encoding."""
    text = None if _CHARSET.search(data[:4096]) else decode_as(data, charset)
    return data if text is None else text.encode("utf-8", "replace")


def _parse_time(text: str | None) -> datetime | None:
    try:
        return parsedate_to_datetime(text) if text else None
    except (ValueError, OverflowError):
        return None


def _version(page: Page | GroundplanError) -> str:
    return hashlib.sha256(page.data).hexdigest()[:32] if isinstance(page, Page) else "unreadable"
