"""Each format to text with its tables, titles and what it says of itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from tests import knowledge_files as files

from groundplan.core.errors import Invalid, TooLarge
from groundplan.knowledge.parsing import text
from groundplan.knowledge.parsing.model import Job, Parsed
from groundplan.knowledge.parsing.prepare import parse_job

TABLE = "| Pump | Price |\n| --- | --- |\n| P-100 | 1,250 EUR |\n| P-200 | 2,400 EUR |"
EML = b"""From: Lena <lena@acme.example>
To: ana@acme.example
Subject: =?utf-8?q?R=C3=BCckgabe?=
Date: Tue, 24 Nov 2026 10:00:00 +0100
Content-Type: text/plain; charset=utf-8

The pump P-200 came back today.
"""
PAGE = b"""<html><head><title>Returns - Acme</title><meta name="author" content="Lena"></head><body>
<nav>Home | About</nav><h2>Returns</h2><p>Pumps may be <b>returned</b> within 30&nbsp;days.</p>
<table><tr><th>Pump</th><th>Price</th></tr><tr><td>P-100</td><td>1,250 EUR</td></tr>
<tr><td>P-200</td><td>2,400 EUR</td></tr>
</table><ul><li>one</li><li>two</li></ul><script>alert(1)</script><pre>a
  b</pre></body></html>"""


def parsed(name: str, data: bytes) -> Parsed:
    return parse_job(Job(key=name, data=data, tables=True))


def full_text(document: Parsed) -> str:
    return "\n".join(piece.text for piece in document.pieces)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.docx", files.word_document()), ("a.xlsx", files.workbook()), ("a.pptx", files.slides()),
        ("a.pdf", files.pdf(table=True)),
        ("a.html", PAGE), ("a.csv", b"Pump;Price\nP-100;1,250 EUR\nP-200;2,400 EUR\n"),
    ],
)  # fmt: skip
def test_tables_are_read_as_tables(name: str, data: bytes) -> None:
    document = parsed(name, data)
    assert TABLE in full_text(document)
    assert document.tables[0].columns == ["Pump", "Price"]
    assert document.tables[0].rows == [["P-100", "1,250 EUR"], ["P-200", "2,400 EUR"]]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.docx", files.word_document()), ("a.xlsx", files.workbook()), ("a.pptx", files.slides()),
        ("a.pdf", files.pdf(table=True)), ("a.html", PAGE), ("a.md", f"# Prices\n\n{TABLE}\n".encode()),
        ("a.csv", b"Pump;Price\nP-100;1,250 EUR\nP-200;2,400 EUR\n"),
    ],
)  # fmt: skip
def test_a_table_that_is_cut_keeps_its_head_beside_later_rows(name: str, data: bytes) -> None:
    pieces = parse_job(Job(key=name, data=data, limit=40)).pieces
    (last,) = [piece for piece in pieces if piece.text.startswith("| P-200")]
    assert (last.text, last.head) == ("| P-200 | 2,400 EUR |", "| Pump | Price |")


def test_a_word_document_keeps_its_order_and_title() -> None:
    document = parsed("x/returns.docx", files.word_document(title="Returning pumps"))
    text = full_text(document)
    assert document.title == "Returning pumps"
    assert text.index("# Returns") < text.index("within 30 days") < text.index("P-100") < text.index("- Freight")


def test_a_page_is_read_without_its_scripts_and_navigation() -> None:
    document = parsed("a.html", PAGE)
    text = full_text(document)
    assert "Home" not in text
    assert "alert" not in text
    assert "## Returns" in text
    assert "Pumps may be returned within 30 days." in text
    assert "- one\n- two" in text
    assert "a\n  b" in text
    assert (document.title, document.told["page_author"]) == ("Returns - Acme", "Lena")


def test_slides_have_titles_and_notes() -> None:
    assert "# Prices" in full_text(parsed("a.pptx", files.slides()))
    assert "Notes: Say that freight is extra." in full_text(parsed("a.pptx", files.slides()))


def test_no_text_of_a_word_document_is_left_out() -> None:
    document = parsed("a.docx", files.word_with_parts())
    text = full_text(document)
    for word in (
        "in a control", "in a box.", "inserted", "in a nested table", "in the header", "in a note",
        "in a box of a cell",
    ):  # fmt: skip
        assert text.count(f"What stands {word}") == 1, word
    assert "Part A-12" in text and "y=3x" in text, "a hyphen that never ends a line, and a formula"
    assert "taken out" not in text
    assert text.index("in a control") < text.index("in a box") < text.index("in the header")


def test_texts_of_grouped_shapes_are_read() -> None:
    assert "What stands in a group within a group." in full_text(parsed("a.pptx", files.grouped_slides()))


def test_a_page_in_a_form_is_read_and_its_controls_are_not() -> None:
    page = b"<body><form id='aspnetForm'><p>Returns take 30 days.</p><select><option>Europe</select></form></body>"
    assert full_text(parsed("a.html", page)) == "Returns take 30 days."


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32"])
def test_text_of_another_encoding_is_not_taken_for_single_letters(encoding: str) -> None:
    with pytest.raises(Invalid) as caught:
        parsed("a.txt", "Pumps may be returned within 30 days.".encode(encoding))
    assert caught.value.code == "document_encoding"
    assert full_text(parsed("a.txt", "Pümps".encode("utf-16"))) == "Pümps"


def test_mail_says_who_wrote_when() -> None:
    document = parsed("a.eml", EML)
    assert document.title == "Rückgabe"
    assert "From: Lena <lena@acme.example>" in full_text(document)
    assert "P-200 came back" in full_text(document)
    assert document.told["sent_at"] == "2026-11-24T10:00:00+01:00"


def test_json_is_read_as_paths() -> None:
    assert full_text(parsed("a.json", b'{"pump": {"name": "P-100", "seals": [1, 2]}}')) == (
        "pump.name: P-100\npump.seals[1]: 1\npump.seals[2]: 2"
    )
    assert "name: b" in full_text(parsed("a.jsonl", b'{"name": "a"}\n{"name": "b"}\n'))


def test_rows_that_do_not_fit_are_told() -> None:
    assert parsed("a.csv", b"a,b\n1,2\n3\n").notes == ["1 row of a.csv has another number of cells than its head"]
    assert parsed("a.csv", b"a,b\n1,2\n3,4\n").notes == []


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("a.exe", b"MZ", "document_type"), ("a.doc", b"x", "document_type"), ("a.docm", b"x", "document_macro"),
        ("a.docx", files.with_macro(files.word_document()), "document_macro"),
        ("a.docx", b"PK nothing", "document_broken"),
        ("a.pdf", b"%PDF-1.4 nothing", "document_broken"), ("a.pdf", files.picture_pdf(), "document_scanned"),
        ("a.md", b"caf\xe9", "document_encoding"), ("a.json", b"{", "document_json"), ("a.eml", b"", "document_broken"),
        ("a.md", b"---\ntitle: [\n---\n", "front_matter"), ("a.md", b"---\ntitle: x\n", "front_matter"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_says_what_to_do(name: str, data: bytes, code: str) -> None:
    with pytest.raises(Invalid) as caught:
        parsed(name, data)
    assert caught.value.code == code
    assert caught.value.hint


@pytest.mark.parametrize(
    ("name", "data"),
    [("a.xlsx", files.zip_bomb()), ("a.md", b"x" * (11 << 20)), ("a.pdf", files.pdf(pages=2001))],
)
def test_what_is_too_large_is_refused_before_it_is_read(name: str, data: bytes) -> None:
    with pytest.raises(TooLarge):
        parsed(name, data)


def test_copies_have_the_same_content_whatever_their_layout() -> None:
    one, other = parsed("a.md", b"# Leave\n\n28 days a year."), parsed("b.txt", b"Leave: 28  days, a YEAR")
    assert one.content == other.content
    assert one.content != parsed("c.md", b"# Leave\n\n29 days a year.").content


_keys = st.sampled_from(["title", "owner", "readers", "review_by", "state"])
_values = st.one_of(
    st.text(alphabet="ab Y1-:.,#'\"[]{}&*!|>%@`~nulltruefalse", max_size=14),
    st.dates().map(str),
    st.lists(st.text(alphabet="abY1n@.-", min_size=1, max_size=6), max_size=3).map(
        lambda items: f"[{', '.join(items)}]"
    ),
)


@given(st.lists(st.tuples(_keys, _values), max_size=4))
def test_the_quick_reading_of_front_matter_is_what_yaml_says(lines: list[tuple[str, str]]) -> None:
    yaml = "".join(f"{key}: {value}\n" for key, value in lines)
    quick = text._parse_simple_yaml(yaml)
    if quick is None:
        return
    try:
        slow: Any = YAML(typ="safe", pure=True).load(yaml) or {}
    except YAMLError:
        raise AssertionError(f"YAML refuses {yaml!r}") from None
    assert quick == slow
