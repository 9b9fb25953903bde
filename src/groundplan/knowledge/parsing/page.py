"""HTML as Markdown: headings, paragraphs, lists, tables and code, without scripts, styles and navigation. Pure."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from groundplan.knowledge.parsing.model import Table
from groundplan.knowledge.parsing.text import Read, as_table, clean, decoded, markdown_table

_SILENT = frozenset(
    {"script", "style", "noscript", "template", "svg", "nav", "iframe", "object", "select", "textarea", "button"}
)
_BLOCKS = frozenset(
    {"p", "div", "section", "article", "main", "header", "footer", "ul", "ol", "dl", "dt", "dd", "blockquote", "figure",
     "address", "aside", "details", "summary", "hr", "table", "body", "html", "figcaption", "form", "fieldset"}
)  # fmt: skip
_VOID = frozenset(
    {"br", "hr", "img", "meta", "link", "input", "area", "base", "col", "embed", "source", "track", "wbr"}
)
_HEADING = re.compile(r"h([1-6])")
MAX_DEPTH = 400


class _Page(HTMLParser):
    """Collects blocks of text while the tags go by."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.blocks: list[str] = []
        self.words: list[str] = []
        self.title = ""
        self.told: dict[str, str] = {}
        self.tables: list[Table] = []
        self.links: list[str] = []
        self._silent = 0
        self._open: list[str] = []
        self._prefix = ""
        self._in_title = self._verbatim = False
        self._rows: list[list[str]] | None = None
        self._cell: list[str] | None = None

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag in _SILENT:
            self._silent += 1
        given = {name: value or "" for name, value in attributes}
        if tag == "meta" and given.get("name") in ("robots", "author", "description"):
            self.told[given["name"]] = given.get("content", "")
        elif tag == "a" and given.get("href"):
            self.links.append(given["href"])
        self._in_title = self._in_title or (tag == "title" and not self._silent)
        self._layout(tag)
        if tag not in _VOID and len(self._open) < MAX_DEPTH:
            self._open.append(tag)

    def _layout(self, tag: str) -> None:
        if tag == "table":
            self._flush()
            self._rows = []
        elif tag == "tr" and self._rows is not None:
            self._rows.append([])
        elif tag in ("td", "th") and self._rows is not None:
            self._cell = []
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
        elif tag in _BLOCKS:
            self._flush()

    def handle_endtag(self, tag: str) -> None:
        if tag in _SILENT and self._silent:
            self._silent -= 1
        self._in_title = self._in_title and tag != "title"
        if tag in ("td", "th") and self._cell is not None and self._rows:
            self._rows[-1].append(" ".join("".join(self._cell).split()))
            self._cell = None
        elif tag == "table":
            self._end_table()
        elif tag == "pre":
            self._flush()
            self._verbatim = False
        elif tag in _BLOCKS or tag == "li" or _HEADING.fullmatch(tag):
            self._flush()
        if tag in self._open:
            while self._open and self._open.pop() != tag:
                pass

    def _end_table(self) -> None:
        rows, self._rows, self._cell = [row for row in self._rows or [] if any(row)], None, None
        if len(rows) > 1:
            table, _ = as_table(f"table {len(self.tables) + 1}", rows)
            self.tables.append(table)
            self.blocks.append(markdown_table(table).rstrip())
        elif rows:
            self.blocks.append(" ".join(rows[0]))

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title += data
        elif self._silent:
            return
        elif self._cell is not None:
            self._cell.append(data)
        else:
            self.words.append(data)

    def _flush(self) -> None:
        if self._rows is not None:
            return
        text = "".join(self.words)
        self.words, prefix, self._prefix = [], self._prefix, ""
        if self._verbatim and text.strip():
            self.blocks.append("```\n" + text.strip("\n") + "\n```")
        elif words := " ".join(text.split()):
            self.blocks.append(prefix + words)

    def finish(self) -> str:
        self.close()
        if self._rows is not None:
            self._end_table()
        self._flush()
        lines: list[str] = []
        for block in self.blocks:
            joined = lines and block.startswith("- ") and lines[-1].startswith("- ")
            lines += [block] if joined or not lines else ["", block]
        return "\n".join(lines) + "\n"


def html(data: bytes) -> Read:
    """A page. Its `author` and `description` are told; what `noindex` says is told as `robots`."""
    page = _Page()
    page.feed(_decoded(data))
    return Read(
        clean(page.finish()),
        markdown=True,
        title=" ".join(page.title.split()) or None,
        told={f"page_{name}": value for name, value in page.told.items()},
        tables=tuple(page.tables),
        links=tuple(page.links),
    )


_CHARSET = re.compile(rb"<meta[^>]{0,200}charset=[\"']?([A-Za-z0-9_-]{2,40})", re.IGNORECASE)


def _decoded(data: bytes) -> str:
    """By the page's own word about its encoding where that is one of the old Western ones, else as UTF-8."""
    match = _CHARSET.search(data[:4096])
    if match and match[1].lower() in (b"iso-8859-1", b"windows-1252", b"latin1"):
        data = data.decode("cp1252", "replace").encode()
    return decoded(data)
