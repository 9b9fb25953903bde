"""Names that declarations get from what another tool calls its things."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from groundplan.catalog.imports.naming import one_line, slug, unique


@given(st.text(max_size=200))
def test_a_name_is_one_that_declarations_may_have(text: str) -> None:
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", slug(text))


def test_a_title_without_latin_letters_is_called_what_it_is() -> None:
    assert slug("Регламент", "framework") == "framework" and slug("", "site") == "site"
    assert slug("EU AI Act (2024)", "framework") == "eu-ai-act-2024"


@given(st.lists(st.text(alphabet="ab-", min_size=1, max_size=63), max_size=20))
def test_names_that_are_taken_get_a_number(wanted: list[str]) -> None:
    taken: set[str] = set()
    given_names = [unique(name, taken) for name in wanted]
    assert len(set(given_names)) == len(wanted) and all(len(name) <= 63 for name in given_names)


def test_a_line_is_short_and_printable() -> None:
    assert one_line("a\nb\x1b[31m") == "a b [31m" and one_line("\n") == "unnamed" and len(one_line("x" * 500)) == 120
