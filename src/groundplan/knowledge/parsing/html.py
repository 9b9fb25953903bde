"""Reads HTML as Markdown: headings, paragraphs, lists, tables and code, without scripts, styles, navigation and
elements that their own attributes hide. Pure; elements that a style sheet hides are not recognised."""

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
from groundplan.knowledge.parsing.text import TextDocument, clean, decode, restricting_front_matter

_SKIPPED = frozenset(
    {"script", "style", "noscript", "template", "svg", "nav", "iframe", "object", "select", "textarea", "button"}
)
_BLOCKS = frozenset(
    {"p", "div", "section", "article", "main", "header", "footer", "ul", "ol", "dl", "dt", "dd", "blockquote", "figure",
     "address", "aside", "details", "summary", "hr", "table", "body", "html", "figcaption", "form", "fieldset"}
)  # fmt: skip
_TABLE_PARTS = frozenset({"tr", "td", "th", "caption"})
_SEPARATING = _BLOCKS | {"br", "li", "pre"}
"""Elements that separate words: in a table cell each of them becomes a space."""
_VOID = frozenset(
    {"br", "hr", "img", "meta", "link", "input", "area", "base", "col", "embed", "source", "track", "wbr"}
)
_HEADING = re.compile(r"h([1-6])")
_HIDDEN_STYLE = re.compile(
    r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse))\s*(?:!|;|$)", re.IGNORECASE
)
_ENDED_BY_NEXT = frozenset({"li", "dt", "dd", "tr", "td", "th"})
"""Elements whose end tag is optional if another one of the same kind begins; a paragraph ends with any block."""
MAX_DEPTH = 400


class _Page(HTMLParser):
    """Collects blocks of text while it parses tags. A table that contains another table is layout: its contents become
    ordinary blocks."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[str] = []
        self.words: list[str] = []
        self.title = ""
        self.metadata: dict[str, str] = {}
        self.tables: list[Table] = []
        self.links: list[str] = []
        self.base = ""
        self._skip_depth = 0
        self._open: list[str] = []
        self._hidden_depth: int | None = None
        """Number of open elements around the outermost hidden one; None outside of hidden elements."""
        self._prefix = ""
        self._in_title = self._verbatim = self._in_caption = False
        self._grids: list[Grid | None] = []
        """The open tables, innermost last; None for layout tables."""

    @property
    def _grid(self) -> Grid | None:
        return self._grids[-1] if self._grids else None

    @property
    def _is_skipping(self) -> bool:
        """Whether text at this place is left out."""
        return self._skip_depth > 0 or self._hidden_depth is not None

    def _begin_hidden(self, tag: str, attributes: Mapping[str, str]) -> None:
        if self._hidden_depth == len(self._open) - 1 and self._ends_before(self._open[-1], tag):
            self._open.pop()
            self._hidden_depth = None
        if self._hidden_depth is not None or tag in _VOID or len(self._open) >= MAX_DEPTH:
            return
        if attributes.get("hidden", "until-found") != "until-found" or _HIDDEN_STYLE.search(
            attributes.get("style", "")
        ):
            self._hidden_depth = len(self._open)

    def _ends_before(self, last: str, tag: str) -> bool:
        """Whether the start of `tag` ends the open element `last`."""
        block = tag in _BLOCKS or _HEADING.fullmatch(tag) is not None
        return (last in _ENDED_BY_NEXT and tag == last) or (last == "p" and block)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self._begin_hidden(tag, attributes)
        if tag in _SKIPPED:
            if tag == "nav" and self._grid is None:
                self._flush()
            self._skip_depth += 1
        if tag == "meta" and attributes.get("name") in ("robots", "author", "description"):
            self.metadata[attributes["name"]] = attributes.get("content", "")
        elif tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        elif tag == "base" and attributes.get("href") and not self.base:
            self.base = attributes["href"]
        self._in_title = self._in_title or (tag == "title" and not self._is_skipping)
        if not self._is_skipping:
            self._start_visible(tag, attributes)
        if tag not in _VOID and len(self._open) < MAX_DEPTH:
            self._open.append(tag)

    def _start_visible(self, tag: str, attributes: Mapping[str, str]) -> None:
        if tag == "table":
            self._begin_table()
        elif self._grid is not None:
            self._start_in_table(self._grid, tag, attributes)
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
        elif tag in _BLOCKS or tag in _TABLE_PARTS:
            self._flush()

    def _start_in_table(self, grid: Grid, tag: str, attributes: Mapping[str, str]) -> None:
        if tag in ("tr", "td", "th"):
            self._in_caption = False
        if tag == "tr":
            grid.begin_row()
        elif tag in ("td", "th"):
            grid.begin_cell(attributes)
        elif tag == "caption":
            self._in_caption = True
        elif tag in _SEPARATING or _HEADING.fullmatch(tag):
            grid.add(" ")

    def _begin_table(self) -> None:
        if len(self._grids) >= MAX_DEPTH:
            return
        if (outer := self._grid) is not None:
            self._grids[-1] = None
            self._write_table(outer, layout=True)
        self._flush()
        self._in_caption = False
        self._grids.append(Grid())

    def handle_endtag(self, tag: str) -> None:
        silent = self._is_skipping
        if tag in _SKIPPED and self._skip_depth:
            self._skip_depth -= 1
        self._in_title = self._in_title and tag != "title"
        if not silent:
            self._end_visible(tag)
        if tag in self._open:
            while self._open and self._open.pop() != tag:
                pass
            if self._hidden_depth is not None and len(self._open) <= self._hidden_depth:
                self._hidden_depth = None

    def _end_visible(self, tag: str) -> None:
        if tag == "table" and self._grids:
            self._end_table()
        elif (grid := self._grid) is not None:
            self._end_in_table(grid, tag)
        elif tag == "pre":
            self._flush()
            self._verbatim = False
        elif tag in _BLOCKS or tag in _TABLE_PARTS or tag == "li" or _HEADING.fullmatch(tag):
            self._flush()

    def _end_in_table(self, grid: Grid, tag: str) -> None:
        if tag in ("td", "th"):
            grid.end_cell()
        elif tag == "tr":
            grid.end_row()
        elif tag == "caption":
            self._in_caption = False
        elif tag in _SEPARATING or _HEADING.fullmatch(tag):
            grid.add(" ")

    def _end_table(self) -> None:
        grid = self._grids.pop()
        self._in_caption = False
        if grid is not None:
            self._write_table(grid)
        self._flush()

    def _write_table(self, grid: Grid, *, layout: bool = False) -> None:
        """Write the contents that a table has so far; a single row, or a single column of layout, as text."""
        rows, title = grid.finish(), " ".join("".join(grid.title).split())
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
        elif self._is_skipping:
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
        """Close what is open and return the page as Markdown."""
        self.close()
        while self._grids:
            self._end_table()
        self._flush()
        lines: list[str] = []
        for block in self.blocks:
            continues_list = lines and block.startswith("- ") and lines[-1].startswith("- ")
            lines += [block] if continues_list or not lines else ["", block]
        return "\n".join(lines) + "\n"


def read_html(data: bytes) -> TextDocument:
    """Read a page. Its metadata are `page_author`, `page_description`, `page_robots` (`noindex`), and its front matter
    if that restricts something. Raises `Invalid`."""
    text = _decode_page(data)
    metadata, start = restricting_front_matter(text)
    page = read_markup(text[start:])
    return dataclasses.replace(page, metadata={**metadata, **page.metadata}) if metadata else page


def read_markup(text: str) -> TextDocument:
    """As `read_html`, from decoded text."""
    page = _Page()
    page.feed(text)
    return TextDocument(
        clean(page.finish()),
        markdown=True,
        title=" ".join(page.title.split()) or None,
        metadata={f"page_{name}": value for name, value in page.metadata.items()},
        tables=tuple(page.tables),
        links=tuple(_resolve_link(page.base, link) for link in page.links),
    )


def _resolve_link(base: str, link: str) -> str:
    """A link resolved against the `<base>` address of its page."""
    try:
        return urljoin(base, link) if base else link
    except ValueError:
        return link


_CHARSET = re.compile(rb"<meta[^>]{0,200}charset=[\"']?([A-Za-z0-9_-]{2,40})", re.IGNORECASE)


def declared_encoding(data: bytes) -> str:
    """The encoding that a page declares in its head, unless it is a form of UTF; empty if it declares none."""
    match = _CHARSET.search(data[:4096])
    encoding = match[1].decode("ascii").lower() if match is not None else ""
    return "" if encoding.startswith("utf") else encoding


def _decode_page(data: bytes) -> str:
    """The text of a page: UTF-8 if it is valid, else by the encoding that the page declares. Raises `Invalid`."""
    encoding = declared_encoding(data)
    text = None
    if encoding and (encoding.startswith("iso-2022") or not _is_utf_8(data)):
        text = decode_as(data, encoding)
    return decode(data if text is None else text.encode())


def _is_utf_8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
