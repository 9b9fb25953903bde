"""The Merkle tree against the plain recursive definition of RFC 6962 and against known roots."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundplan.core.audit import merkle


def plain_root(leaves: Sequence[bytes]) -> bytes:
    """MTH as the RFC writes it."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return hashlib.sha256(b"\x01" + plain_root(leaves[:k]) + plain_root(leaves[k:])).digest()


def subtree_of(hashes: Sequence[bytes]) -> merkle.Subtree:
    return lambda start, end: merkle.root_of(hashes[start:end])


def plain_path(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    """PATH as the RFC writes it."""
    if len(leaves) == 1:
        return []
    k = merkle.split(len(leaves))
    if m < k:
        return [*plain_path(m, leaves[:k]), plain_root(leaves[k:])]
    return [*plain_path(m - k, leaves[k:]), plain_root(leaves[:k])]


def plain_subproof(m: int, leaves: Sequence[bytes], whole: bool) -> list[bytes]:
    """SUBPROOF as the RFC writes it."""
    if m == len(leaves):
        return [] if whole else [plain_root(leaves)]
    k = merkle.split(len(leaves))
    if m <= k:
        return [*plain_subproof(m, leaves[:k], whole), plain_root(leaves[k:])]
    return [*plain_subproof(m - k, leaves[k:], False), plain_root(leaves[:k])]


def leaves_of(size: int) -> list[bytes]:
    return [i.to_bytes(4, "big") for i in range(size)]


def test_the_empty_tree_and_the_empty_leaf_have_their_published_hashes() -> None:
    assert merkle.root_of([]).hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert merkle.leaf_hash(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"


def test_split_is_the_largest_smaller_power_of_two() -> None:
    assert [merkle.split(n) for n in (2, 3, 4, 5, 8, 9, 256, 257)] == [1, 2, 2, 4, 4, 8, 128, 256]


@given(st.integers(0, 600))
def test_the_root_is_the_recursive_one(size: int) -> None:
    leaves = leaves_of(size)
    assert merkle.root_of([merkle.leaf_hash(leaf) for leaf in leaves]) == plain_root(leaves)


@st.composite
def pair(draw: st.DrawFn) -> tuple[int, int]:
    size = draw(st.integers(1, 300))
    return draw(st.integers(0, size - 1)), size


@given(pair(), st.data())
def test_inclusion_is_proved_for_the_right_leaf_only(position: tuple[int, int], data: st.DataObject) -> None:
    index, size = position
    leaves = leaves_of(size)
    hashes = [merkle.leaf_hash(leaf) for leaf in leaves]
    root = merkle.root_of(hashes)
    proof = merkle.inclusion_proof(index, size, subtree_of(hashes))
    assert proof == plain_path(index, leaves)
    assert merkle.verify_inclusion(index, size, hashes[index], proof, root)
    other = data.draw(st.integers(0, size - 1))
    assert merkle.verify_inclusion(other, size, hashes[index], proof, root) == (other == index)
    assert not merkle.verify_inclusion(index, size, merkle.leaf_hash(b"forged"), proof, root)
    assert not merkle.verify_inclusion(index, size, hashes[index], [*proof, root], root)
    assert not merkle.verify_inclusion(index, size, hashes[index], proof, merkle.EMPTY_ROOT)
    if proof:
        assert not merkle.verify_inclusion(index, size, hashes[index], proof[:-1], root)


@given(pair(), st.data())
def test_consistency_is_proved_for_the_true_past_only(position: tuple[int, int], data: st.DataObject) -> None:
    old, size = position[0] + 1, position[1]
    leaves = leaves_of(size)
    hashes = [merkle.leaf_hash(leaf) for leaf in leaves]
    before, after = merkle.root_of(hashes[:old]), merkle.root_of(hashes)
    proof = merkle.consistency_proof(old, size, subtree_of(hashes))
    assert proof == plain_subproof(old, leaves, True)
    assert merkle.verify_consistency(old, size, before, after, proof)
    forked = merkle.root_of([merkle.leaf_hash(b"forged"), *hashes[1:old]])
    assert not merkle.verify_consistency(old, size, forked, after, proof)
    assert not merkle.verify_consistency(old, size, before, forked, proof)
    assert not merkle.verify_consistency(old, size, before, after, [*proof, after])
    if proof:
        position_in_proof = data.draw(st.integers(0, len(proof) - 1))
        broken = [*proof[:position_in_proof], merkle.EMPTY_ROOT, *proof[position_in_proof + 1 :]]
        assert not merkle.verify_consistency(old, size, before, after, broken)


def test_positions_outside_the_tree_are_refused() -> None:
    hashes = [merkle.leaf_hash(leaf) for leaf in leaves_of(3)]
    for index in (-1, 3):
        with pytest.raises(IndexError):
            merkle.inclusion_proof(index, 3, subtree_of(hashes))
        assert not merkle.verify_inclusion(index, 3, hashes[0], [], hashes[0])
    for old in (0, 4):
        with pytest.raises(IndexError):
            merkle.consistency_proof(old, 3, subtree_of(hashes))
        assert not merkle.verify_consistency(old, 3, hashes[0], hashes[0], [])
    assert not merkle.verify_consistency(3, 5, hashes[0], hashes[0], [])
