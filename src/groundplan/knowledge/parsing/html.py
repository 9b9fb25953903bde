"""HTML as Markdown: headings, paragraphs, lists, tables and code, without scripts, styles, navigation, and what a page
says of itself that it does not show. Pure; what a style sheet hides is not known."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from urllib.parse import urljoin

from msgspec.structs import replace

from groundplan.knowledge.parsing.charsets import decode_as
from groundplan.knowledge.parsing.html_tables import Grid
from groundplan.knowledge.parsing.model import Table
from groundplan.knowledge.parsing.tabular import as_table, markdown_table
from groundplan.knowledge.parsing.text import TextDocument, clean, decode, narrowing_matter

_SILENT = frozenset(
    {"script", "style", "noscript", "template", "svg", "nav", "iframe", "object", "select", "textarea", "button"}
)
_BLOCKS = frozenset(
    {"p", "div", "section", "article", "main", "header", "footer", "ul", "ol", "dl", "dt", "dd", "blockquote", "figure",
     "address", "aside", "details", "summary", "hr", "table", "body", "html", "figcaption", "form", "fieldset"}
)  # fmt: skip
_CELLS = frozenset({"tr", "td", "th", "caption"})
_APART = _BLOCKS | {"br", "li", "pre"}
"""Between what stands before and after one of these in a cell there is a space."""
_VOID = frozenset(
    {"br", "hr", "img", "meta", "link", "input", "area", "base", "col", "embed", "source", "track", "wbr"}
)
_HEADING = re.compile(r"h([1-6])")
_UNSHOWN = re.compile(
    r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse))\s*(?:!|;|$)", re.IGNORECASE
)
_ENDED_BY_NEXT = frozenset({"li", "dt", "dd", "tr", "td", "th"})
"""Need no end where one more of them begins; a paragraph ends with any block."""
MAX_DEPTH = 400


class _Page(HTMLParser):
    """Collects blocks of text while the tags go by. A table with a table in one of its cells is layout: what stands in
    it are blocks like any other."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[str] = []
        self.words: list[str] = []
        self.title = ""
        self.told: dict[str, str] = {}
        self.tables: list[Table] = []
        self.links: list[str] = []
        self.base = ""
        self._silent = 0
        self._open: list[str] = []
        self._unshown: int | None = None
        """How many are open around the outermost that is not shown."""
        self._prefix = ""
        self._in_title = self._verbatim = self._in_caption = False
        self._grids: list[Grid | None] = []
        """Of the open tables, the innermost last; None: layout."""

    @property
    def _grid(self) -> Grid | None:
        return self._grids[-1] if self._grids else None

    @property
    def _unheard(self) -> bool:
        """Nothing that comes now is taken."""
        return self._silent > 0 or self._unshown is not None

    def _begin_unshown(self, tag: str, given: Mapping[str, str]) -> None:
        if self._unshown == len(self._open) - 1 and self._ends(self._open[-1], tag):
            self._open.pop()
            self._unshown = None
        if self._unshown is not None or tag in _VOID or len(self._open) >= MAX_DEPTH:
            return
        if given.get("hidden", "until-found") != "until-found" or _UNSHOWN.search(given.get("style", "")):
            self._unshown = len(self._open)

    def _ends(self, last: str, tag: str) -> bool:
        """Whether the one that was opened last ends where another begins."""
        block = tag in _BLOCKS or _HEADING.fullmatch(tag) is not None
        return (last in _ENDED_BY_NEXT and tag == last) or (last == "p" and block)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self._begin_unshown(tag, given)
        if tag in _SILENT:
            if tag == "nav" and self._grid is None:
                self._flush()
            self._silent += 1
        if tag == "meta" and given.get("name") in ("robots", "author", "description"):
            self.told[given["name"]] = given.get("content", "")
        elif tag == "a" and given.get("href"):
            self.links.append(given["href"])
        elif tag == "base" and given.get("href") and not self.base:
            self.base = given["href"]
        self._in_title = self._in_title or (tag == "title" and not self._unheard)
        if not self._unheard:
            self._layout(tag, given)
        if tag not in _VOID and len(self._open) < MAX_DEPTH:
            self._open.append(tag)

    def _layout(self, tag: str, given: Mapping[str, str]) -> None:
        if tag == "table":
            self._begin_table()
        elif self._grid is not None:
            self._within(self._grid, tag, given)
        elif match := _HEADING.fullmatch(tag):
            self._flush()
            self._prefix = "#" * int(match[1]) + " "
        elif tag == "li":
            self._flush()
            self._prefix = "- "
        elif tag == "pre":
            self._flush()
            self._verbatim = True
        elif tag == "br":
            self.handle_data("\n" if self._verbatim else " ")
        elif tag in _BLOCKS or tag in _CELLS:
            self._flush()

    def _within(self, grid: Grid, tag: str, given: Mapping[str, str]) -> None:
        if tag in ("tr", "td", "th"):
            self._in_caption = False
        if tag == "tr":
            grid.begin_row()
        elif tag in ("td", "th"):
            grid.begin_cell(given)
        elif tag == "caption":
            self._in_caption = True
        elif tag in _APART or _HEADING.fullmatch(tag):
            grid.add(" ")

    def _begin_table(self) -> None:
        if len(self._grids) >= MAX_DEPTH:
            return
        if (outer := self._grid) is not None:
            self._grids[-1] = None
            self._write(outer, layout=True)
        self._flush()
        self._in_caption = False
        self._grids.append(Grid())

    def handle_endtag(self, tag: str) -> None:
        silent = self._unheard
        if tag in _SILENT and self._silent:
            self._silent -= 1
        self._in_title = self._in_title and tag != "title"
        if not silent:
            self._end(tag)
        if tag in self._open:
            while self._open and self._open.pop() != tag:
                pass
            if self._unshown is not None and len(self._open) <= self._unshown:
                self._unshown = None

    def _end(self, tag: str) -> None:
        if tag == "table" and self._grids:
            self._end_table()
        elif (grid := self._grid) is not None:
            self._end_within(grid, tag)
        elif tag == "pre":
            self._flush()
            self._verbatim = False
        elif tag in _BLOCKS or tag in _CELLS or tag == "li" or _HEADING.fullmatch(tag):
            self._flush()

    def _end_within(self, grid: Grid, tag: str) -> None:
        if tag in ("td", "th"):
            grid.end_cell()
        elif tag == "tr":
            grid.end_row()
        elif tag == "caption":
            self._in_caption = False
        elif tag in _APART or _HEADING.fullmatch(tag):
            grid.add(" ")

    def _end_table(self) -> None:
        grid = self._grids.pop()
        self._in_caption = False
        if grid is not None:
            self._write(grid)
        self._flush()

    def _write(self, grid: Grid, *, layout: bool = False) -> None:
        """What a table has until here."""
        rows, title = grid.left(), " ".join("".join(grid.title).split())
        if len(rows) > 1 and not (layout and max(map(len, rows)) == 1):
            table, _ = as_table(f"table {len(self.tables) + 1}", rows)
            if title:
                table = replace(table, title=" ".join(filter(None, (title, table.title))))
            self.tables.append(table)
            self.blocks.append(markdown_table(table).rstrip())
        else:
            self.blocks += [text for text in (title, *(" ".join(dict.fromkeys(row)) for row in rows)) if text.strip()]

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title += data
        elif self._unheard:
            return
        elif (grid := self._grid) is not None and (grid.in_cell or self._in_caption):
            (grid.title.append if self._in_caption else grid.add)(data)
        else:
            self.words.append(data)

    def _flush(self) -> None:
        text = "".join(self.words)
        self.words, prefix, self._prefix = [], self._prefix, ""
        if self._verbatim and text.strip():
            self.blocks.append("```\n" + text.strip("\n") + "\n```")
        elif words := " ".join(text.split()):
            self.blocks.append(prefix + words)

    def finish(self) -> str:
        self.close()
        while self._grids:
            self._end_table()
        self._flush()
        lines: list[str] = []
        for block in self.blocks:
            joined = lines and block.startswith("- ") and lines[-1].startswith("- ")
            lines += [block] if joined or not lines else ["", block]
        return "\n".join(lines) + "\n"


def read_html(data: bytes) -> TextDocument:
    """A page. Its `author` and `description` are told, what `noindex` says as `robots`, and what its front matter says,
    where that narrows something. Raises `Invalid`."""
    text = _decoded(data)
    told, start = narrowing_matter(text)
    page = read_markup(text[start:])
    return dataclasses.replace(page, told={**told, **page.told}) if told else page


def read_markup(text: str) -> TextDocument:
    """As `read_html`, where the encoding is known."""
    page = _Page()
    page.feed(text)
    return TextDocument(
        clean(page.finish()),
        markdown=True,
        title=" ".join(page.title.split()) or None,
        told={f"page_{name}": value for name, value in page.told.items()},
        tables=tuple(page.tables),
        links=tuple(_joined(page.base, link) for link in page.links),
    )


def _joined(base: str, link: str) -> str:
    """A link by the address that its page says its links go by."""
    try:
        return urljoin(base, link) if base else link
    except ValueError:
        return link


_CHARSET = re.compile(rb"<meta[^>]{0,200}charset=[\"']?([A-Za-z0-9_-]{2,40})", re.IGNORECASE)


def declared_encoding(data: bytes) -> str:
    """A page's own word about its encoding, other than a form of UTF; empty where it says nothing."""
    match = _CHARSET.search(data[:4096])
    said = match[1].decode("ascii").lower() if match is not None else ""
    return "" if said.startswith("utf") else said


def _decoded(data: bytes) -> str:
    """As UTF-8 where it is that, else by the page's own word about its encoding. Raises `Invalid`."""
    said = declared_encoding(data)
    text = None
    if said and (said.startswith("iso-2022") or not _is_utf_8(data)):
        text = decode_as(data, said)
    return decode(data if text is None else text.encode())


def _is_utf_8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
