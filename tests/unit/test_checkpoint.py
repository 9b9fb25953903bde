"""Checkpoints and signed notes."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from groundplan.core.audit.checkpoint import (
    Checkpoint,
    VerifierKey,
    log_origin,
    parse_checkpoint,
    parse_key,
    parse_note,
    sign,
)
from groundplan.core.errors import Invalid

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw()
ORIGIN = log_origin(PUBLIC)

# The example of the signed-note format: another program's key and signature.
PUBLISHED_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PUBLISHED_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
).encode()


def test_a_note_of_another_program_verifies() -> None:
    key, note = parse_key(PUBLISHED_KEY), parse_note(PUBLISHED_NOTE)
    assert key.name == "PeterNeumann" and key.encode() == PUBLISHED_KEY
    assert note.signed_by(key)
    assert note.encode() == PUBLISHED_NOTE
    assert not parse_note(PUBLISHED_NOTE.replace(b"your problem,", b"our problem,")).signed_by(key)


@given(st.integers(0, 2**63), st.binary(min_size=32, max_size=32))
def test_a_signed_checkpoint_is_read_back(size: int, root: bytes) -> None:
    point = Checkpoint(ORIGIN, size, root)
    note = parse_note(sign(point.text(), KEY, ORIGIN).encode())
    assert parse_checkpoint(note.text) == point
    assert note.signed_by(VerifierKey(ORIGIN, PUBLIC))
    assert not note.signed_by(VerifierKey("other", PUBLIC))
    assert not note.signed_by(VerifierKey(ORIGIN, bytes(32)))


@given(st.binary(max_size=400))
def test_any_bytes_are_refused_without_another_error(data: bytes) -> None:
    for attempt in (
        lambda: parse_note(data),
        lambda: parse_key(data.decode("latin-1")),
        lambda: parse_checkpoint(data.decode("latin-1")),
    ):
        with pytest.raises(Invalid):
            attempt()


@given(st.data())
def test_no_changed_byte_of_the_text_keeps_the_signature(data: st.DataObject) -> None:
    note = sign(Checkpoint(ORIGIN, 1234, bytes(32)).text(), KEY, ORIGIN)
    at = data.draw(st.integers(0, len(note.text) - 2))
    other = data.draw(st.characters(codec="ascii").filter(lambda c: c != note.text[at]))
    changed = (note.text[:at] + other + note.text[at + 1 :] + note.encode().decode()[len(note.text) :]).encode()
    try:
        assert not parse_note(changed).signed_by(VerifierKey(ORIGIN, PUBLIC))
    except Invalid:
        pass


@pytest.mark.parametrize(
    "text", ["", "o\n-1\nAAAA\n", "o\n01\n" + "A" * 43 + "=\n", "o\n1\nAAAA\n", "o\n1\n", "\n1\n" + "A" * 43 + "=\n"]
)
def test_a_malformed_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        parse_checkpoint(text)
    assert caught.value.code == "checkpoint"


def test_extension_lines_are_allowed() -> None:
    text = Checkpoint(ORIGIN, 5, bytes(32)).text()
    assert parse_checkpoint(text + "extension\n") == Checkpoint(ORIGIN, 5, bytes(32))
