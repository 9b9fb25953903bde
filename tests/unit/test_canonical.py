"""Canonical JSON is the same whichever way it is written, and the quick way is taken only where both agree."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from groundplan.core.canonical import canonical

ascii_text = st.text(alphabet=st.characters(max_codepoint=127))
keys = st.text() | ascii_text
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats() | st.text() | ascii_text,
    lambda inner: st.lists(inner) | st.dictionaries(keys, inner) | st.tuples(inner),
    max_leaves=20,
)


def outcome(write: Any, value: Any) -> Any:
    """What comes out, or the kind of error."""
    try:
        return write(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        return type(error)


@given(values)
def test_every_value_has_the_bytes_of_the_standard(value: Any) -> None:
    assert outcome(canonical, value) == outcome(rfc8785.dumps, value)


@pytest.mark.parametrize("code", range(128))
def test_every_ascii_character_is_written_as_the_standard_says(code: int) -> None:
    value = {chr(code): [f"a{chr(code)}b"]}
    assert canonical(value) == rfc8785.dumps(value)


@pytest.mark.parametrize(
    "value",
    [2**53, -(2**53), 10**20, {1: "a"}, datetime(2026, 1, 1, tzinfo=UTC), UUID(int=1), b"bytes", {"a": {2: 3}},
     {"n": float("nan")}, "\ud800"],
)  # fmt: skip
def test_what_is_no_such_value_is_refused_as_before(value: Any) -> None:
    with pytest.raises((rfc8785.CanonicalizationError, UnicodeEncodeError)):
        canonical(value)
    with pytest.raises((rfc8785.CanonicalizationError, UnicodeEncodeError)):
        rfc8785.dumps(value)


def test_keys_are_sorted_by_utf16_units() -> None:
    assert canonical({"\U0001f600": 1, "\ufb33": 2, "a": 3}) == rfc8785.dumps({"\U0001f600": 1, "\ufb33": 2, "a": 3})
