"""Masks our own secrets in what an upstream sends: some repeat them. Finds a secret only if it is in one piece."""

from __future__ import annotations

HIDDEN = b"[hidden]"
MIN_SECRET_LENGTH = 16
"""Characters of the shortest secret that is masked in answers: shorter ones (`EMPTY`, `test`) are words."""


def maskable_spellings(secret: str) -> tuple[bytes, ...]:
    """The spellings of a secret to mask in answers; none for a short one."""
    return spellings(secret.encode()) if len(secret) >= MIN_SECRET_LENGTH else ()


def spellings(secret: bytes) -> tuple[bytes, ...]:
    """The spellings that a secret may have in JSON."""
    if not secret:
        return ()
    return (secret,) if b"/" not in secret else (secret, secret.replace(b"/", b"\\/"))


def mask(data: bytes, secrets: tuple[bytes, ...]) -> bytes:
    """`data` with all of the secrets masked."""
    for each in secrets:
        if data.find(each) >= 0:
            data = data.replace(each, HIDDEN)
    return data
