"""What the demo's acts choose by chance."""

from __future__ import annotations

from groundplan.api.demo import random_entry_offset
from groundplan.core.audit.tiles import decode_bundle, encode_bundle


def test_a_tampered_copy_differs_in_one_entry_and_never_in_a_length() -> None:
    entries = [b"a", b"bc", b"d" * 300]
    bundle = encode_bundle(entries)
    seen = set()
    for _ in range(2000):
        data = bytearray(bundle)
        data[random_entry_offset(bundle)] ^= 0x01
        altered = decode_bundle(bytes(data))
        assert [len(entry) for entry in altered] == [len(entry) for entry in entries]
        (which,) = [at for at, (old, new) in enumerate(zip(entries, altered, strict=True)) if old != new]
        seen.add(which)
    assert seen == {0, 1, 2}
