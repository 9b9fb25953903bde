"""API keys of the gateway: how they are made, recognised and hashed. Does not store them or know what they may do.

`gp_` + 40 random base62 characters (238 bits) + 6 base62 characters of the CRC-32 of those 40, most significant first.
The checksum lets secret scanners find leaked keys without false alarms. The gateway does not check it: it looks keys up
by their hash.
"""

from __future__ import annotations

import hashlib
import secrets
import zlib

PREFIX = "gp_"
PREFIX_CHARACTERS = len(PREFIX) + 6
"""Number of characters that are shown to tell keys apart."""

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM = 40
_CHECK = 6


def _checksum(random: str) -> str:
    number = zlib.crc32(random.encode("ascii"))
    digits = []
    for _ in range(_CHECK):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


def make_key() -> str:
    """A new key; show it once and keep only `hash_key` of it."""
    random = "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM))
    return f"{PREFIX}{random}{_checksum(random)}"


def hash_key(text: str) -> bytes:
    """SHA-256 of a key: what is stored and looked up. No salt or stretching is needed for 238 random bits."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def key_prefix(text: str) -> str:
    """The start of a key, to tell keys apart in lists."""
    return text[:PREFIX_CHARACTERS]
