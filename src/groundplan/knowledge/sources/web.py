"""A web site: the pages that its sitemaps name, else those that its own pages link to, as its robots.txt allows.

Only the host of the first page is asked, also where it redirects, and never faster than declared or than the site asks.
A page that says `noindex` is left out. Nothing is executed. What is not found any more counts as gone only where
everything that names pages was read: each sitemap, or each page that could have a link.
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

from groundplan.core.errors import GroundplanError, Invalid, NotFound, TooLarge, Unavailable
from groundplan.knowledge.parsing.model import MAX_TEXT_BYTES, Table
from groundplan.knowledge.parsing.page import links
from groundplan.knowledge.sources.model import Around, Change, Content, Cursor
from groundplan.knowledge.sources.pace import Pace
from groundplan.knowledge.sources.sitemaps import Sitemap, is_page, parsed

AGENT = "groundplan"
MAX_REDIRECTS = 5
MAX_SITEMAPS = 100
TIMEOUT_SECONDS = 20.0
_MEDIA = {
    "text/html": "html", "application/xhtml+xml": "html", "text/plain": "txt", "text/markdown": "md",
    "application/pdf": "pdf", "application/json": "json", "text/csv": "csv",
}  # fmt: skip
_NOINDEX = re.compile(rb"<meta[^>]{0,200}name=[\"']robots[\"'][^>]{0,200}noindex", re.IGNORECASE)
_CHARSET = re.compile(rb"<meta[^>]{0,200}charset=", re.IGNORECASE)
_GONE = "document_gone"
_REFUSED = "document_refused"
"""Code of a page that is there, and not for us: what it links to is not known."""


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
        self._doubt = ""
        self._left_out = False
        self.whole = False

    def close(self) -> None:
        self._kept.clear()

    def tables(self) -> Sequence[Table]:
        return ()

    def changes(self, cursor: Cursor | None) -> Iterator[Change]:
        """Every page that may be read, in the order of discovery. Raises `Unavailable` where the site is away, and at
        the end where a sitemap could not be read: pages that only it names stay as they were.

        Cut off, it begins anew: what did not change is fetched again, and not parsed again. The cursor remembers that
        the site has sitemaps.
        """
        self.whole, self._doubt, self._left_out = False, "", False
        self._read_robots()
        wanted = self._sitemaps()
        had = bool(cursor and cursor.get("sitemap"))
        if had and not wanted and not self._doubt:
            self._doubt = "it had a sitemap, and has none now"
        place = {"sitemap": had or bool(wanted)}
        waiting = deque(wanted or [self._start])
        known = {self._key(url) for url in waiting}
        done = read = 0
        while waiting and done < self._most:
            url = waiting.popleft()
            key = self._key(url)
            page = self._page(url)
            done += 1
            if not wanted:
                self._look_for_links(page, known, waiting, first=done == 1)
            if isinstance(page, NotFound) or (isinstance(page, Page) and page.noindex):
                continue
            read += 1
            self._kept[key] = page
            yield Change(key, _version(page), cursor=place)
            self._kept.pop(key, None)
        if done and not read and not self._doubt:
            self._doubt = "none of its pages may be read"
        self.whole = not (waiting or self._doubt or self._left_out)
        if self._doubt:
            raise Unavailable(
                f"{self._origin[1]} cannot be read whole: {self._doubt}", code="source_missing",
                hint="Mend it there; pages that are not found meanwhile stay as they were. It is tried again.",
            )  # fmt: skip

    def _look_for_links(
        self, page: Page | GroundplanError, known: set[str], waiting: deque[str], *, first: bool
    ) -> None:
        """Where pages are found by links only. Raises `Unavailable` where the first page cannot be read."""
        if isinstance(page, Page):
            if page.media == "html":
                self._follow(page, known, waiting)
        elif first:
            raise Unavailable(
                f"the first page {self._start} cannot be read: {page.message}", code="source_missing",
                hint="Correct `url` of the connector, or let the agent groundplan in; its pages stay as they were.",
            )  # fmt: skip
        elif page.code not in (_GONE, _REFUSED):
            self._left_out = True  # what it links to is not known

    def _follow(self, page: Page, known: set[str], waiting: deque[str]) -> None:
        try:
            found = links(page.data)
        except GroundplanError:
            self._left_out = True
            return
        for link in found:
            url = _joined(page.url, link)
            if url and self._ours(url) and (key := self._key(url)) not in known and self._may(url):
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
        """Addresses of pages by all sitemaps, each once; nothing where there is none. What is not read is a doubt."""
        named = self._robots.site_maps()
        waiting = deque(named or [self._at("/sitemap.xml")])
        pages: dict[str, None] = {}
        read = 0
        while waiting:
            url = waiting.popleft()
            read += 1
            if read > MAX_SITEMAPS or len(pages) >= self._most:
                self._left_out = True
                break
            if not self._ours(url):
                continue  # of another site
            found = self._page(url, asked=False)
            if named is None and read == 1 and _is_none(found):
                return []
            told = _read(found)
            if isinstance(told, str):
                self._doubt = self._doubt or f"its sitemap {url}: {told}"
                continue
            waiting.extend(told.further)
            pages |= {place: None for place in told.pages if self._ours(place) and self._may(place)}
        return list(pages)

    def _page(self, url: str, *, asked: bool = True) -> Page | GroundplanError:
        """The page after redirects within the site, or why there is none. `asked`: by the rules of robots.txt."""
        for _ in range(MAX_REDIRECTS):
            if asked and not self._may(url):
                return _refused("robots.txt does not allow it")
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
                url = _joined(url, headers.get("location", "")) or ""
                if not self._ours(url):
                    return _refused("it leads to another site")
                continue
            return _answered(url, status, headers, data, asked=asked)
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
        try:
            parts = urlsplit(url)
        except ValueError:
            return False
        return (parts.scheme, parts.netloc) == self._origin

    def _may(self, url: str) -> bool:
        try:
            return bool(self._robots.can_fetch(AGENT, url))
        except ValueError:
            return False

    def _at(self, path: str) -> str:
        return urlunsplit((*self._origin, path, "", ""))

    @staticmethod
    def _key(url: str) -> str:
        parts = urlsplit(url)
        path = unquote(parts.path).strip("/") or "index"
        return f"{path}?{parts.query}" if parts.query else path


def _joined(base: str, link: str) -> str | None:
    """The address that a link leads to; None where it is none."""
    try:
        return urljoin(base, link)
    except ValueError:
        return None


def _read(found: Page | GroundplanError) -> Sitemap | str:
    """What a sitemap names, or why it cannot be read."""
    if isinstance(found, GroundplanError):
        return found.message
    try:
        return parsed(found.data)
    except ValueError as error:
        return str(error)


def _is_none(found: Page | GroundplanError) -> bool:
    """Whether a site answers so for a sitemap that it does not have."""
    return isinstance(found, NotFound) if isinstance(found, GroundplanError) else is_page(found.data)


def _refused(why: str) -> NotFound:
    return NotFound(why, code=_REFUSED, hint="Nothing needs to be done.")


def _answered(
    url: str, status: int, headers: http.client.HTTPMessage, data: bytes, *, asked: bool
) -> Page | GroundplanError:
    if status in (401, 403):
        return _refused(f"it answers {status}")
    if status in (404, 410):
        return NotFound(f"it answers {status}", code=_GONE, hint="Nothing needs to be done.")
    if status != 200:
        return Unavailable(f"it answers {status}", code="source_missing", hint="It is tried again.")
    if len(data) > MAX_TEXT_BYTES:
        return TooLarge(
            f"it is larger than {MAX_TEXT_BYTES >> 20} MiB",
            code="document_too_large",
            hint="Leave it out of the sitemap.",
        )
    media = headers.get_content_type()
    if asked and media not in _MEDIA:
        return Invalid(f"pages of type '{media}' are not read", code="document_type", hint="Nothing needs to be done.")
    noindex = "noindex" in headers.get("x-robots-tag", "").lower() or bool(_NOINDEX.search(data[:20_000]))
    data = _as_utf8(data, headers.get_content_charset()) if media in ("text/html", "text/plain", "text/csv") else data
    return Page(url, data, _MEDIA.get(media, "txt"), _time(headers.get("last-modified")), noindex)


def _as_utf8(data: bytes, charset: str | None) -> bytes:
    """Text whose encoding only the server tells."""
    if charset in (None, "utf-8", "us-ascii") or _CHARSET.search(data[:4096]):
        return data
    try:
        return data.decode(str(charset)).encode()
    except (LookupError, ValueError):
        return data


def _time(text: str | None) -> datetime | None:
    try:
        return parsedate_to_datetime(text) if text else None
    except ValueError:
        return None


def _version(page: Page | GroundplanError) -> str:
    return hashlib.sha256(page.data).hexdigest()[:32] if isinstance(page, Page) else "unreadable"
