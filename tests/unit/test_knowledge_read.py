"""Reading a folder: which files are documents, whose rules hold for them, and what any bytes come to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.core.errors import GroundplanError, Invalid, TooLarge, Unavailable
from groundplan.knowledge.model import Readers
from groundplan.knowledge.parsing.model import MAX_BYTES, Job, Parsed
from groundplan.knowledge.parsing.prepare import parse_job
from groundplan.knowledge.parsing.text import clean
from groundplan.knowledge.sources.folder import FolderConnector, modification_time
from groundplan.knowledge.sources.sidecars import orphan_sidecars


def _write(folder: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")


def _parsed(name: str, data: bytes) -> Parsed:
    return parse_job(Job(key=name, data=data))


def test_each_folder_says_who_reads_below_it(tmp_path: Path) -> None:
    _write(tmp_path, {"a.md": "# A", "hr/.readers": "hr  # people team\n!contractors\n", "hr/in/pay.md": "# Pay"})
    folder = FolderConnector(tmp_path)
    assert [change.key for change in folder.changes(None)] == ["a.md", "hr/in/pay.md"]
    assert folder.folder_rules("a.md") == []
    (level,) = folder.folder_rules("hr/in/pay.md")
    assert (level.origin, level.readers) == ("folder/hr", Readers(frozenset({"hr"}), frozenset({"contractors"})))


def test_titles_come_from_front_matter_heading_or_name() -> None:
    document = _parsed("x.md", b"---\ntitle: Travel\nreview_by: 2025-01-31\n---\n# Other\n")
    assert (document.title, document.told["review_by"]) == ("Travel", "2025-01-31")
    assert [piece.text for piece in document.pieces] == ["# Other"]
    assert _parsed("x.md", b"# Heading\n").title == "Heading"
    assert _parsed("deep/notes.txt", b"# Heading\n").title == "notes"


def test_front_matter_that_is_nearly_one_opens_nothing() -> None:
    assert _parsed("x.md", b"--- \t\nreaders: [hr]\n---\n# Pay\n").told["readers"] == ["hr"]
    for above in (b"\n", b" \n\n", b"\r\n"):
        with pytest.raises(Invalid, match="first line"):
            _parsed("x.md", above + b"---\nreaders: [hr]\n---\n# Pay\n")
    rule = _parsed("x.md", b"\n---\nA line above and below.\n---\n")
    assert (rule.told, "A line above" in rule.pieces[0].text) == ({}, True)


def test_hidden_files_are_no_documents_and_nothing_outside_is_read(tmp_path: Path) -> None:
    _write(tmp_path, {"good.md": "# Good", "sub/also.md": "text", ".hidden.md": "no", ".git/x.md": "no"})
    (tmp_path / "out.md").symlink_to("/etc/hostname")
    (tmp_path / "away").symlink_to("/etc")
    with (tmp_path / "big.txt").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    folder = FolderConnector(tmp_path)
    assert [change.key for change in folder.changes(None)] == ["away", "big.txt", "good.md", "out.md", "sub/also.md"]
    for name in ("away", "out.md"):
        with pytest.raises(Invalid) as outside:
            folder.read(name)
        assert outside.value.code == "document_outside"
    with pytest.raises(TooLarge):
        folder.read("big.txt")
    assert folder.read("good.md").data == b"# Good"


def test_a_link_opens_no_document_of_another_folder(tmp_path: Path) -> None:
    _write(tmp_path, {"hr/.readers": "hr\n", "hr/pay.md": "# Pay", "open/.readers": "everyone\n"})
    (tmp_path / "open" / "news.md").symlink_to("../hr/pay.md")
    folder = FolderConnector(tmp_path)
    assert [change.key for change in folder.changes(None)] == ["hr/pay.md", "open/news.md"]
    with pytest.raises(Invalid, match="it is a symbolic link"):
        folder.read("open/news.md")


def test_a_folder_that_becomes_a_link_while_it_is_read_leads_nowhere(tmp_path: Path) -> None:
    _write(tmp_path, {"in/open/a.md": "# A", "in/open/deep/b.md": "# B", "out/a.md": "# Pay", "out/deep/b.md": "# Pay"})
    folder = FolderConnector(tmp_path / "in")
    keys = [change.key for change in folder.changes(None)]
    assert [folder.read(key).data for key in keys] == [b"# A", b"# B"]
    (tmp_path / "in/open").rename(tmp_path / "in/.was")
    (tmp_path / "in/open").symlink_to(tmp_path / "out")
    for key in keys:
        with pytest.raises(Invalid) as caught:
            folder.read(key)
        assert caught.value.code == "document_outside"


@pytest.mark.parametrize("seconds", [1e13, -1e13, 1e20])
def test_a_time_that_no_calendar_has_is_none(seconds: float) -> None:
    """Some file systems keep one: it costs no document."""
    assert modification_time(seconds) is None
    assert modification_time(0.0) == datetime(1970, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("kind", ["pipe", "out", "nowhere", "large"])
def test_a_readers_file_that_is_none_closes_its_folder(tmp_path: Path, kind: str) -> None:
    _write(tmp_path, {"in/hr/a.md": "a", "lines.txt": "ana's secret\n"})
    beside = tmp_path / "in" / "hr" / ".readers"
    if kind == "pipe":
        os.mkfifo(beside)
        os.mkfifo(tmp_path / "in" / "hr" / "pipe.md")
    elif kind == "large":
        with beside.open("wb") as file:
            file.truncate(4 << 30)
    else:
        beside.symlink_to("../../lines.txt" if kind == "out" else "nothing")
    folder = FolderConnector(tmp_path / "in")
    assert [change.key for change in folder.changes(None)] == ["hr/a.md"]
    with pytest.raises(Invalid) as caught:
        folder.folder_rules("hr/a.md")
    assert caught.value.code == "readers_file"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (".readers", ""), (".readers", "# hr\n\n"), (".readers", "!\n"), ("hr/.governed.yaml", " \n"),
        ("hr/.a.md.governed.yaml", ""), (".acl", ""),
        (".acl", "# file: other/hr/a.md\n# owner: ana@x.example\n# group: hr\nuser::rw-\ngroup::r--\nother::---\n"),
        (".acl", "user::rw-\ngroup::r--\nother::---\n"),
    ],
)  # fmt: skip
def test_what_is_left_of_a_permission_opens_nothing(tmp_path: Path, name: str, text: str) -> None:
    """A file that was cut off, commented out, or made of another folder or without its names."""
    _write(tmp_path, {"hr/a.md": "a", name: text})
    folder = FolderConnector(tmp_path)
    assert [change.key for change in folder.changes(None)] == ["hr/a.md"]
    with pytest.raises(Invalid) as caught:
        folder.folder_rules("hr/a.md")
        folder.read("hr/a.md")
    assert caught.value.code == "readers_file"
    assert caught.value.hint


def test_a_name_may_be_as_long_as_the_system_allows(tmp_path: Path) -> None:
    """Though the file that could stand beside it would have a longer one."""
    name = "ü" * 126 + ".md"
    _write(tmp_path, {name: "a"})
    folder = FolderConnector(tmp_path)
    assert [change.key for change in folder.changes(None)] == [name]
    assert (folder.folder_rules(name), folder.read(name).data) == ([], b"a")


def test_folders_may_be_as_deep_as_the_system_allows(tmp_path: Path) -> None:
    deep = tmp_path
    for _ in range(1100):
        deep /= "d"
        deep.mkdir()
    _write(tmp_path, {"e.md": "e"})
    (deep / "a.md").write_text("a")
    try:
        assert [change.key[-4:] for change in FolderConnector(tmp_path).changes(None)] == ["a.md", "e.md"]
    finally:  # Python before 3.13 cannot delete what is so deep
        (deep / "a.md").unlink()
        while deep != tmp_path:
            deep.rmdir()
            deep = deep.parent


def test_a_folder_that_cannot_be_listed_hides_no_other_and_deletes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(tmp_path, {"a/x.md": "x", "b/y.md": "y", "c.md": "c"})
    listed = Path.iterdir

    def iterdir(self: Path) -> Iterator[Path]:
        if self.name == "a":
            raise PermissionError(13, "Permission denied")
        return listed(self)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    found: list[str] = []
    with pytest.raises(Unavailable, match="Permission denied"):
        for change in FolderConnector(tmp_path).changes(None):
            found.append(change.key)
    assert found == ["b/y.md", "c.md"]


def test_below_an_unreadable_readers_file_nothing_is_read(tmp_path: Path) -> None:
    _write(tmp_path, {"open/a.md": "a", "hr/b.md": "b", "hr/deep/c.md": "---\nreaders: [everyone]\n---\n"})
    (tmp_path / "hr" / ".readers").write_bytes(b"\xff")
    folder = FolderConnector(tmp_path)
    list(folder.changes(None))
    assert folder.folder_rules("open/a.md") == []
    for name in ("hr/b.md", "hr/deep/c.md"):
        with pytest.raises(Invalid) as caught:
            folder.folder_rules(name)
        assert caught.value.code == "readers_file"


def test_sidecars_whose_documents_are_not_there_are_alone() -> None:
    paths = {
        "a.md",
        ".a.md.governed.yaml",
        "in/.b.pdf.governed.yaml",
        "in/.governed.yaml",
        ".readers",
        "c/.b.pdf",
        "c/x",
    }
    assert orphan_sidecars(paths) == ["in/.b.pdf.governed.yaml"]
    assert orphan_sidecars(paths | {"in/b.pdf"}) == []


def test_a_missing_folder_is_not_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        list(FolderConnector(tmp_path / "gone").changes(None))
    assert caught.value.code == "source_missing"
    assert list(FolderConnector(tmp_path).changes(None)) == []


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
    for name in ("x.md", "x.html", "x.csv", "x.json", "x.txt"):
        for start in (b"", b"---\n"):
            try:
                parse_job(Job(key=name, data=start + data))
            except GroundplanError as error:
                assert error.hint
