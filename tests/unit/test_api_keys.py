"""The form of API keys."""

from __future__ import annotations

import hashlib
import zlib

from hypothesis import given
from hypothesis import strategies as st

from groundplan.identity.keys import PREFIX, PREFIX_CHARACTERS, hash_key, key_prefix, make_key

BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def test_a_made_key_has_its_form_and_is_never_repeated() -> None:
    keys = {make_key() for _ in range(500)}
    assert len(keys) == 500
    for key in keys:
        assert len(key) == 49 and key.startswith(PREFIX) and set(key[3:]) <= set(BASE62)
        assert hash_key(key) == hashlib.sha256(key.encode()).digest()
        assert key_prefix(key) == key[:PREFIX_CHARACTERS] and len(key_prefix(key)) == 9


def test_a_made_key_ends_with_the_checksum_that_scanners_expect() -> None:
    for _ in range(500):
        random, check = (key := make_key())[3:43], 0
        for character in key[43:]:
            check = check * 62 + BASE62.index(character)
        assert check == zlib.crc32(random.encode())


@given(st.text())
def test_any_text_is_hashed_without_an_error(text: str) -> None:
    assert len(hash_key(text)) == 32
