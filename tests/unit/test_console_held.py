"""The page of what a legal hold keeps: the text as it was, or how to get the bytes of what was pushed."""

from __future__ import annotations

from typing import Any

from groundplan.console.render import templates

VERSION = {
    "id": "7", "document_id": None, "source": "handbook", "path": "leave.md", "title": "Leave", "version": 2,
    "cause": "gone", "at": "2026-11-26T12:00:00+00:00", "text": "It was <b>30</b> days.", "bytes": None,
}  # fmt: skip


SESSION = {"duties": [], "operator": True}


def page(**changed: Any) -> str:
    template = templates.get_template("document_held.html")
    return "".join(
        template.blocks["main"](
            template.new_context(
                {"version": VERSION | changed, "tab": "documents", "session": SESSION, "sees_all": True}
            )
        )
    )


def test_the_text_is_shown_as_it_was_and_what_becomes_of_it() -> None:
    shown = page()
    assert "<pre>It was &lt;b&gt;30&lt;/b&gt; days.</pre>" in shown and "Version 2, as it was read here." in shown
    assert "It was removed at its source" in shown and "it is erased once the hold has ended" in shown


def test_of_what_was_pushed_only_the_bytes_are_kept_and_the_way_to_them_is_told() -> None:
    shown = page(version=None, cause="changed", text=None, bytes=812)
    assert "As it was pushed." in shown and "Only its 812 bytes are kept" in shown and "<pre>" not in shown
    assert "groundplan knowledge held 7 --reason" in shown
