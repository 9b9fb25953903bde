"""The private keys of an installation: files in HOME/keys, made at the first start. Does not rotate them.

checkpoint.key and blueprint.key are Ed25519 seeds (32 bytes, base64), subject.key is an AES-SIV key (64 bytes, base64)
that wraps the per-person keys. checkpoint.pub and blueprint.pub are the public halves (32 bytes, base64). All 0600.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from groundplan.core.errors import Unavailable
from groundplan.core.home import Home, is_readable_by_others, write_atomically

SigningKey = Literal["checkpoint", "blueprint"]
SIGNING_KEYS: tuple[SigningKey, ...] = ("checkpoint", "blueprint")
_WRAPPING_BYTES = 64


def create_keys(home: Home) -> None:
    """Generate the keys that are missing; existing ones are never replaced. Safe to repeat, under the lock of HOME."""
    home.keys.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in SIGNING_KEYS:
        private = home.keys / f"{name}.key"
        if not private.exists():
            _write(private, Ed25519PrivateKey.generate().private_bytes_raw())
        public = home.keys / f"{name}.pub"
        if not public.exists():
            _write(public, load_private(home, name).public_key().public_bytes_raw())
    subject = home.keys / "subject.key"
    if not subject.exists():
        _write(subject, secrets.token_bytes(_WRAPPING_BYTES))


def load_private(home: Home, name: SigningKey) -> Ed25519PrivateKey:
    """Load a signing key. Raises `Unavailable` (`key_missing`, `key_unsafe`, `key_unreadable`, `key_damaged`)."""
    return Ed25519PrivateKey.from_private_bytes(_read(home.keys / f"{name}.key", 32, secret=True))


def load_public(home: Home, name: SigningKey) -> Ed25519PublicKey:
    """Load the public half of a signing key. Raises `Unavailable`."""
    return Ed25519PublicKey.from_public_bytes(_read(home.keys / f"{name}.pub", 32, secret=False))


def load_wrapping(home: Home) -> bytes:
    """Load the key (64 bytes) that wraps the per-person keys. Raises `Unavailable`."""
    return _read(home.keys / "subject.key", _WRAPPING_BYTES, secret=True)


def _write(path: Path, key: bytes) -> None:
    write_atomically(path, base64.b64encode(key) + b"\n")


def _read(path: Path, length: int, *, secret: bool) -> bytes:
    try:
        with path.open("rb") as file:
            if secret and is_readable_by_others(os.fstat(file.fileno())):
                raise Unavailable(
                    f"others may read the key {path}",
                    code="key_unsafe",
                    hint=f"Check who had access; then chmod 600 {path}. Where a volume's fsGroup did it: "
                    "fsGroupChangePolicy: OnRootMismatch.",
                )
            key = base64.b64decode(file.read().strip(), validate=True)
    except FileNotFoundError as error:
        raise Unavailable(
            f"there is no key {path}",
            code="key_missing",
            hint="Start with the HOME that holds the keys, or restore it.",
        ) from error
    except OSError as error:
        raise Unavailable(
            f"the key {path} cannot be read: {error.strerror}",
            code="key_unreadable",
            hint="Check the disk, and the rights, of HOME/keys. Where it is the process that has too many files open, "
            "raise its limit.",
            retry_after=1.0,
        ) from error
    except binascii.Error as error:
        raise Unavailable(
            f"the key {path} is no key: {error}",
            code="key_damaged",
            hint="Restore the folder keys from a backup.",
        ) from error
    if len(key) != length:
        raise Unavailable(
            f"the key {path} is {len(key)} bytes long instead of {length}",
            code="key_damaged",
            hint="Restore the folder keys from a backup.",
        )
    return key
