"""The Merkle tree of RFC 6962, section 2.1: hashes, inclusion and consistency proofs and their verification.

Pure functions over 32-byte SHA-256 hashes. Does not read files and does not know what a leaf means.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

EMPTY_ROOT = hashlib.sha256().digest()
Subtree = Callable[[int, int], bytes]
"""(start, end) -> the root over leaves start..end-1; see `over`."""


def leaf_hash(data: bytes) -> bytes:
    """The hash of one leaf."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash over two subtrees."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def split(size: int) -> int:
    """The largest power of two below `size` (> 1)."""
    return 1 << ((size - 1).bit_length() - 1)


def root_of(hashes: Sequence[bytes]) -> bytes:
    """The root over leaf hashes, in O(n). The last hash may stand for a smaller subtree than the others."""
    if not hashes:
        return EMPTY_ROOT
    sha256 = hashlib.sha256
    row = list(hashes)
    while len(row) > 1:
        odd = row[-1:] if len(row) % 2 else []
        row = [sha256(b"\x01" + left + right).digest() for left, right in zip(row[::2], row[1::2], strict=False)] + odd
    return row[0]


def inclusion_proof(index: int, size: int, subtree: Subtree) -> list[bytes]:
    """The audit path of leaf `index` in a tree of `size`. Raises `IndexError` unless 0 <= index < size."""
    if not 0 <= index < size:
        raise IndexError(index)
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + split(end - start)
        if index < middle:
            path.append(subtree(middle, end))
            end = middle
        else:
            path.append(subtree(start, middle))
            start = middle
    return path[::-1]


def verify_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether `proof` shows that the leaf hash `leaf` is number `index` of the tree of `size` with `root`."""
    if not 0 <= index < size or len(leaf) != len(EMPTY_ROOT):
        return False
    node, last, value = index, size - 1, leaf
    for hash in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            value = node_hash(hash, value)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            value = node_hash(value, hash)
        node, last = node >> 1, last >> 1
    return last == 0 and value == root


def consistency_proof(old: int, size: int, subtree: Subtree) -> list[bytes]:
    """The proof that the tree of `size` continues the one of `old`. Raises `IndexError` unless 0 < old <= size."""
    if not 0 < old <= size:
        raise IndexError(old)
    path: list[bytes] = []
    start, end, whole = 0, size, True
    while old != end:
        middle = start + split(end - start)
        if old <= middle:
            path.append(subtree(middle, end))
            end = middle
        else:
            path.append(subtree(start, middle))
            start, whole = middle, False
    if not whole:
        path.append(subtree(start, end))
    return path[::-1]


def verify_consistency(old: int, size: int, old_root: bytes, root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether `proof` shows that the tree of `size` with `root` continues the tree of `old` with `old_root`."""
    if not 0 < old <= size:
        return False
    if old == size:
        return not proof and old_root == root
    path = list(proof)
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    if not path:
        return False
    node, last = old - 1, size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    first = second = path[0]
    for hash in path[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            first, second = node_hash(hash, first), node_hash(hash, second)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            second = node_hash(second, hash)
        node, last = node >> 1, last >> 1
    return last == 0 and first == old_root and second == root
