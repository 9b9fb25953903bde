"""Rotates the checkpoint key: the old and the new key both sign the checkpoint from which on the new key signs.

The note of the n-th rotation is `rotated/<n>` beside the log: a checkpoint with the lines `previous <key>` and
`next <key>`, so that a verifier with either key can follow to the other. The name of the log stays. Works on files,
while no other process writes the log. Does not decide when to rotate, and does not revoke what a stolen key has signed:
that is found with a checkpoint that somebody else kept.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from groundplan.core.audit.checkpoint import (
    Note,
    VerifierKey,
    parse_checkpoint,
    parse_key,
    parse_note,
    sign,
)
from groundplan.core.audit.keys import load_private
from groundplan.core.audit.log import AuditLog, read_origin
from groundplan.core.errors import Conflict, Invalid
from groundplan.core.home import Home, list_names, sync_folder, write_atomically

FOLDER = "rotated"
NEXT = "checkpoint.next"


@dataclass(frozen=True, slots=True)
class Rotation:
    """A rotation signed by both keys."""

    note: Note
    previous: VerifierKey
    next: VerifierKey


def rotate(home: Home) -> Rotation:
    """Switch to a new signing key and delete the old private key. Completes a rotation that was interrupted.

    Raises `Conflict` (`audit_locked`: an `up` runs; `audit_empty`: nothing was signed yet), `Unavailable`.
    """
    old = load_private(home, "checkpoint")
    fresh = _next_key(home)
    if not _signed_by(home.audit, fresh):
        _hand_over(home.audit, old, fresh)
    _install_key(home, fresh)
    return list(rotations(home.audit))[-1]


def end_rotation(home: Home) -> bool:
    """Complete a rotation that was interrupted after both keys had signed the handover, from which on the new key must
    sign. Returns whether there was one. No other process may write the log."""
    if not (home.keys / NEXT).exists():
        return False
    fresh = _next_key(home)
    if not _signed_by(home.audit, fresh):
        if not _is_handed_over(home.audit, fresh):
            return False
        _hand_over(home.audit, load_private(home, "checkpoint"), fresh)
    _install_key(home, fresh)
    return True


def _is_handed_over(folder: Path, fresh: Ed25519PrivateKey) -> bool:
    """Whether the last handover is to this key."""
    found = list(rotations(folder))
    return bool(found) and found[-1].next == VerifierKey(found[-1].next.name, fresh.public_key().public_bytes_raw())


def _install_key(home: Home, fresh: Ed25519PrivateKey) -> None:
    write_atomically(home.keys / "checkpoint.pub", base64.b64encode(fresh.public_key().public_bytes_raw()) + b"\n")
    (home.keys / NEXT).replace(home.keys / "checkpoint.key")
    sync_folder(home.keys)


def rotations(folder: Path) -> Iterator[Rotation]:
    """Yield the rotations of a log that are signed by both of their keys, oldest first; others are left out."""
    for path in (folder / FOLDER / str(number) for number in _rotation_numbers(folder)):
        try:
            note = parse_note(path.read_bytes())
            point = parse_checkpoint(note.text)
            lines = dict(line.split(" ", 1) for line in note.text.splitlines()[3:] if " " in line)
            found = Rotation(note, parse_key(lines["previous"]), parse_key(lines["next"]))
        except (Invalid, KeyError, OSError):
            continue
        named = found.previous.name == found.next.name == point.origin
        if named and note.signed_by(found.previous) and note.signed_by(found.next):
            yield found


def _rotation_numbers(folder: Path) -> list[int]:
    """The numbers of a log's rotations, oldest first. Raises OSError."""
    return sorted(int(name) for name in list_names(folder / FOLDER) if name.isascii() and name.isdigit())


def key_chain(folder: Path, key: VerifierKey) -> list[VerifierKey]:
    """The keys of the log that rotations connect with the trusted `key`, in the order of their use."""
    chain = [key]
    found = list(rotations(folder))
    for rotation in found:
        if rotation.previous == chain[-1]:
            chain.append(rotation.next)
    for rotation in reversed(found):
        if rotation.next == chain[0]:
            chain.insert(0, rotation.previous)
    return chain


def _next_key(home: Home) -> Ed25519PrivateKey:
    """The key to rotate to: the one that an interrupted attempt left, or a new one."""
    path = home.keys / NEXT
    if not path.exists():
        fresh = Ed25519PrivateKey.generate()
        write_atomically(path, base64.b64encode(fresh.private_bytes_raw()) + b"\n")
        return fresh
    return Ed25519PrivateKey.from_private_bytes(base64.b64decode(path.read_bytes()))


def _hand_over(folder: Path, old: Ed25519PrivateKey, fresh: Ed25519PrivateKey) -> None:
    with AuditLog(folder, old) as log:
        point = log.checkpoint
        if not point.size:
            raise Conflict("the log has no entry yet", code="audit_empty", hint="Rotate a key that has signed.")
        before = VerifierKey(point.origin, old.public_key().public_bytes_raw())
        after = VerifierKey(point.origin, fresh.public_key().public_bytes_raw())
        text = f"{point.text()}previous {before.encode()}\nnext {after.encode()}\n"
        note = sign(text, old, point.origin).with_signature(sign(text, fresh, point.origin).signatures[0])
        if not _is_handed_over(folder, fresh):
            (folder / FOLDER).mkdir(mode=0o700, exist_ok=True)
            number = 1 + max(_rotation_numbers(folder), default=0)
            write_atomically(folder / FOLDER / str(number), note.encode(), 0o644)
        write_atomically(folder / "checkpoint", sign(point.text(), fresh, point.origin).encode(), 0o644)
        write_atomically(folder / "log.pub", after.encode().encode() + b"\n", 0o644)


def _signed_by(folder: Path, key: Ed25519PrivateKey) -> bool:
    origin = read_origin(folder)
    if origin is None:
        return False
    note = parse_note((folder / "checkpoint").read_bytes())
    return note.signed_by(VerifierKey(origin, key.public_key().public_bytes_raw()))
