"""Reading folders: readers by the nearest rule, hygiene, and errors that stop one document only."""

from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.core.errors import GroundplanError, Invalid, Unavailable
from groundplan.knowledge.model import Document, Readers
from groundplan.knowledge.read import MAX_BYTES, Failed, clean, parse, scan

EVERYONE = Readers(frozenset({"everyone"}))


def _scan(folder: Path, default: Readers = EVERYONE) -> tuple[dict[str, Document], dict[str, Failed]]:
    found = list(scan(folder, default))
    read = {one.path: one for one in found if isinstance(one, Document)}
    return read, {one.path: one for one in found if isinstance(one, Failed)}


def _write(folder: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")


def test_the_nearest_rule_says_who_reads_and_refusals_add_up(tmp_path: Path) -> None:
    _write(
        tmp_path,
        {
            "a.md": "# A",
            "hr/.readers": "hr  # people team\n!contractors\n",
            "hr/pay.md": "# Pay",
            "hr/deep/plan.txt": "plan",
            "hr/news.md": "---\nreaders: [everyone, Ana@Acme.example]\ndeny: [sales]\n---\n# News",
        },
    )
    read, failed = _scan(tmp_path)
    assert not failed
    assert read["a.md"].readers == EVERYONE
    assert read["hr/pay.md"].readers == Readers(frozenset({"hr"}), frozenset({"contractors"}))
    assert read["hr/deep/plan.txt"].readers == read["hr/pay.md"].readers
    assert read["hr/news.md"].readers == Readers(
        frozenset({"everyone", "ana@acme.example"}), frozenset({"contractors", "sales"})
    )


def test_front_matter_gives_title_and_review_date() -> None:
    document = parse("x.md", b"---\ntitle: Travel\nreview_by: 2025-01-31\n---\n# Other\n", EVERYONE)
    assert (document.title, document.review_by) == ("Travel", date(2025, 1, 31))
    assert document.text[document.body_start :] == "# Other\n"
    assert parse("x.md", b"# Heading\n", EVERYONE).title == "Heading"
    assert parse("deep/notes.txt", b"# Heading\n", EVERYONE).title == "notes"


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("x.md", b"---\nreaders: hr\n---\n", "front_matter"),
        ("x.md", b"---\nreaders: [1]\n---\n", "front_matter"),
        ("x.md", b"---\n: [\n---\n", "front_matter"),
        ("x.md", b"---\n- a\n---\n", "front_matter"),
        ("x.md", b"---\nreaders: [hr]\n", "front_matter"),
        ("x.md", b"---\nreview_by: soon\n---\n", "front_matter"),
        ("x.md", b"\xff\xfe", "document_encoding"),
        ("x.pdf", b"%PDF", "document_type"),
    ],
)
def test_a_document_whose_readers_are_not_certain_is_not_read(name: str, data: bytes, code: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse(name, data, EVERYONE)
    assert caught.value.code == code
    assert caught.value.hint


def test_one_bad_document_does_not_stop_the_others(tmp_path: Path) -> None:
    _write(tmp_path, {"good.md": "# Good", "sub/also.md": "text", ".hidden.md": "no"})
    (tmp_path / "bad.md").write_bytes(b"\xff")
    (tmp_path / "big.txt").write_bytes(b"a" * (MAX_BYTES + 1))
    (tmp_path / "out.md").symlink_to("/etc/hostname")
    read, failed = _scan(tmp_path)
    assert set(read) == {"good.md", "sub/also.md"}
    assert {path: one.error.code for path, one in failed.items()} == {
        "bad.md": "document_encoding",
        "big.txt": "document_too_large",
        "out.md": "document_outside",
    }


def test_below_an_unreadable_readers_file_nothing_is_read(tmp_path: Path) -> None:
    _write(tmp_path, {"open/a.md": "a", "hr/b.md": "b", "hr/deep/c.md": "---\nreaders: [everyone]\n---\n"})
    (tmp_path / "hr" / ".readers").write_bytes(b"\xff")
    read, failed = _scan(tmp_path)
    assert set(read) == {"open/a.md"}
    assert {one.error.code for one in failed.values()} == {"readers_file"}
    assert set(failed) == {"hr/b.md", "hr/deep/c.md"}


def test_a_missing_folder_is_not_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        _scan(tmp_path / "gone")
    assert caught.value.code == "source_missing"
    assert _scan(tmp_path) == ({}, {})


def test_what_a_reader_does_not_see_is_cleaned() -> None:
    assert clean("a\x00b\u202ec\r\nd\re\tf\U000e0041\u200bg") == "a b c\nd\ne\tf  g"


@given(st.text())
def test_cleaning_keeps_lines_and_is_stable(text: str) -> None:
    cleaned = clean(text)
    assert cleaned.count("\n") == text.replace("\r\n", "\n").replace("\r", "\n").count("\n")
    assert clean(cleaned) == cleaned
    assert "\x00" not in cleaned


@given(st.binary(max_size=200))
def test_any_bytes_are_a_document_or_a_clear_error(data: bytes) -> None:
    for start in (b"", b"---\n"):
        try:
            parse("x.md", start + data, EVERYONE)
        except GroundplanError as error:
            assert error.hint
