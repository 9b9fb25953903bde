"""A web site: the pages that its sitemaps name, else those that its own pages link to, as its robots.txt allows.

Only the host of the first page is asked, also where it redirects, and never faster than declared or than the site asks.
A page that says `noindex` is left out. Nothing is executed.
"""

from __future__ import annotations

import hashlib
import http.client
import re
import ssl
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from urllib.parse import quote, unquote, urljoin, urlsplit, urlunsplit
from urllib.robotparser import RobotFileParser
from xml.etree import ElementTree

from groundplan.core.errors import GroundplanError, Invalid, NotFound, TooLarge, Unavailable
from groundplan.knowledge.parsing.model import MAX_TEXT_BYTES, Table
from groundplan.knowledge.parsing.page import links
from groundplan.knowledge.sources.model import Around, Change, Content, Cursor
from groundplan.knowledge.sources.pace import Pace

AGENT = "groundplan"
MAX_REDIRECTS = 5
MAX_SITEMAPS = 100
TIMEOUT_SECONDS = 20.0
_MEDIA = {
    "text/html": "html", "application/xhtml+xml": "html", "text/plain": "txt", "text/markdown": "md",
    "application/pdf": "pdf", "application/json": "json", "text/csv": "csv",
}  # fmt: skip
_NOINDEX = re.compile(rb"<meta[^>]{0,200}name=[\"']robots[\"'][^>]{0,200}noindex", re.IGNORECASE)
_DOCTYPE = re.compile(rb"<!(?:DOCTYPE|ENTITY)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Page:
    """An answer of 200. `noindex`: it asks not to be found."""

    url: str
    data: bytes
    media: str
    modified_at: datetime | None
    noindex: bool


class Web:
    """`start` is the first page; keys are addresses without the host."""

    def __init__(self, start: str, *, pages: int = 10_000, rate: float = 50.0) -> None:
        self._start, self._most = start, pages
        parts = urlsplit(start)
        self._origin = (parts.scheme, parts.netloc)
        self._pace = Pace(rate)
        self._robots = RobotFileParser()
        self._kept: dict[str, Page | GroundplanError] = {}
        self.whole = False

    def close(self) -> None:
        self._kept.clear()

    def tables(self) -> Sequence[Table]:
        return ()

    def changes(self, cursor: Cursor | None) -> Iterator[Change]:  # noqa: ARG002 -- all of it, each time
        """Every page that may be read, in the order of discovery. Raises `Unavailable` where the site is away.

        Cut off, it begins anew: what did not change is fetched again, and not parsed again.
        """
        self.whole = False
        self._read_robots()
        wanted = self._sitemaps()
        waiting = deque(wanted or [self._start])
        known = {self._key(url) for url in waiting}
        done = 0
        while waiting and done < self._most:
            url = waiting.popleft()
            key = self._key(url)
            page = self._page(url)
            done += 1
            if isinstance(page, NotFound):
                continue
            if isinstance(page, Page):
                if page.noindex:
                    continue
                if not wanted and page.media == "html":
                    self._follow(page, known, waiting)
            self._kept[key] = page
            yield Change(key, _version(page))
            self._kept.pop(key, None)
        self.whole = not waiting

    def _follow(self, page: Page, known: set[str], waiting: deque[str]) -> None:
        for link in links(page.data):
            url = urljoin(page.url, link)
            if self._ours(url) and (key := self._key(url)) not in known and self._may(url):
                known.add(key)
                waiting.append(url)

    def read(self, key: str) -> Content:
        page = self._kept.get(key)
        if page is None:
            page = self._page(urlunsplit((*self._origin, quote(unquote(key.partition("?")[0])), "", "")))
        if isinstance(page, GroundplanError):
            raise page
        if page.noindex:
            raise NotFound("it asks not to be found", code="document_gone", hint="Nothing needs to be done.")
        return Content(page.data, media=page.media, modified_at=page.modified_at)

    def around(self, key: str) -> Sequence[Around]:  # noqa: ARG002 -- a site says nothing about readers
        return ()

    def _read_robots(self) -> None:
        found = self._page(self._at("/robots.txt"), asked=False)
        if isinstance(found, Page):
            self._robots.parse(found.data.decode("utf-8", "replace").splitlines())
            delay = self._robots.crawl_delay(AGENT)
            if delay is not None:
                self._pace.slower(float(delay))
        elif isinstance(found, NotFound):
            self._robots.parse([])
        else:
            # a site whose rules cannot be read is left alone
            raise Unavailable(
                f"the rules of {self._origin[1]} cannot be read: {found.message}", code="source_missing",
                hint="Its pages stay as they were; it is tried again.",
            )  # fmt: skip

    def _sitemaps(self) -> list[str]:
        """Addresses of pages by all sitemaps, each once; nothing where there is none."""
        waiting = deque(self._robots.site_maps() or [self._at("/sitemap.xml")])
        pages: dict[str, None] = {}
        read = 0
        while waiting and read < MAX_SITEMAPS and len(pages) < self._most:
            url = waiting.popleft()
            read += 1
            found = self._page(url, asked=False) if self._ours(url) else None
            if not isinstance(found, Page) or _DOCTYPE.search(found.data[:2000]):
                continue
            try:
                root = ElementTree.fromstring(found.data)
            except ElementTree.ParseError:
                continue
            places = [(each.text or "").strip() for each in root.iter() if each.tag.rpartition("}")[2] == "loc"]
            if root.tag.rpartition("}")[2] == "sitemapindex":
                waiting.extend(places)
            else:
                pages |= {place: None for place in places if self._ours(place) and self._may(place)}
        return list(pages)

    def _page(self, url: str, *, asked: bool = True) -> Page | GroundplanError:
        """The page after redirects within the site, or why there is none. `asked`: by the rules of robots.txt."""
        for _ in range(MAX_REDIRECTS):
            if asked and not self._may(url):
                return NotFound("robots.txt does not allow it", code="document_gone", hint="Nothing needs to be done.")
            self._pace.wait()
            try:
                status, headers, data = self._get(url)
            except (OSError, http.client.HTTPException, ValueError) as error:
                return Unavailable(
                    f"it cannot be reached: {error or type(error).__name__}",
                    code="source_missing",
                    hint="It is tried again.",
                )
            if status in (301, 302, 303, 307, 308):
                url = urljoin(url, headers.get("location", ""))
                if not self._ours(url):
                    return NotFound("it leads to another site", code="document_gone", hint="Nothing needs to be done.")
                continue
            return _answered(url, status, headers, data)
        return Invalid("it redirects without end", code="document_redirects", hint="Mend the site.")

    def _get(self, url: str) -> tuple[int, http.client.HTTPMessage, bytes]:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(host, port, timeout=TIMEOUT_SECONDS, context=context)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
        try:
            path = urlunsplit(("", "", quote(unquote(parts.path)) or "/", parts.query, ""))
            connection.request(
                "GET", path, headers={"User-Agent": AGENT, "Accept": "text/html, text/*, application/pdf"}
            )
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read(MAX_TEXT_BYTES + 1)
        finally:
            connection.close()

    def _ours(self, url: str) -> bool:
        parts = urlsplit(url)
        return (parts.scheme, parts.netloc) == self._origin

    def _may(self, url: str) -> bool:
        return bool(self._robots.can_fetch(AGENT, url))

    def _at(self, path: str) -> str:
        return urlunsplit((*self._origin, path, "", ""))

    @staticmethod
    def _key(url: str) -> str:
        parts = urlsplit(url)
        path = unquote(parts.path).strip("/") or "index"
        return f"{path}?{parts.query}" if parts.query else path


def _answered(url: str, status: int, headers: http.client.HTTPMessage, data: bytes) -> Page | GroundplanError:
    if status in (401, 403, 404, 410):
        return NotFound(f"it answers {status}", code="document_gone", hint="Nothing needs to be done.")
    if status != 200:
        return Unavailable(f"it answers {status}", code="source_missing", hint="It is tried again.")
    if len(data) > MAX_TEXT_BYTES:
        return TooLarge(
            f"it is larger than {MAX_TEXT_BYTES >> 20} MiB",
            code="document_too_large",
            hint="Leave it out of the sitemap.",
        )
    media = headers.get_content_type()
    if media not in _MEDIA and not url.endswith((".xml", ".txt")):
        return Invalid(f"pages of type '{media}' are not read", code="document_type", hint="Nothing needs to be done.")
    noindex = "noindex" in headers.get("x-robots-tag", "").lower() or bool(_NOINDEX.search(data[:20_000]))
    return Page(url, data, _MEDIA.get(media, "txt"), _time(headers.get("last-modified")), noindex)


def _time(text: str | None) -> datetime | None:
    try:
        return parsedate_to_datetime(text) if text else None
    except ValueError:
        return None


def _version(page: Page | GroundplanError) -> str:
    return hashlib.sha256(page.data).hexdigest()[:32] if isinstance(page, Page) else "unreadable"
