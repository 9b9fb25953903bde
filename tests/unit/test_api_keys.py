"""The form of API keys."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from groundplan.identity.keys import PREFIX, SHOWN, check_key, hash_key, key_prefix, make_key


def test_a_made_key_has_its_form_and_is_never_repeated() -> None:
    keys = {make_key() for _ in range(500)}
    assert len(keys) == 500
    for key in keys:
        assert len(key) == 49 and key.startswith(PREFIX) and check_key(key)
        assert hash_key(key) == hashlib.sha256(key.encode()).digest()
        assert key_prefix(key) == key[:SHOWN] and len(key_prefix(key)) == 9


@given(st.integers(3, 48), st.characters())
def test_a_key_with_one_wrong_character_is_refused(position: int, character: str) -> None:
    key = make_key()
    changed = key[:position] + character + key[position + 1 :]
    assert check_key(changed) == (changed == key)


@given(st.text())
def test_any_text_is_refused_without_an_error(text: str) -> None:
    assert not check_key(text)
    assert not check_key(PREFIX + text)
    assert len(hash_key(text)) == 32
