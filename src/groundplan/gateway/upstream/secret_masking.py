"""Takes our own secrets out of what an upstream sends: some repeat them. Found where one stands in one piece."""

from __future__ import annotations

HIDDEN = b"[hidden]"
LEAST_SECRET = 16
"""Characters of a secret that is looked for in answers: shorter ones (`EMPTY`, `test`) are words."""


def sought(secret: str) -> tuple[bytes, ...]:
    """What to look for in answers; nothing for a word."""
    return spelled(secret.encode()) if len(secret) >= LEAST_SECRET else ()


def spelled(secret: bytes) -> tuple[bytes, ...]:
    """A secret as JSON may have it."""
    if not secret:
        return ()
    return (secret,) if b"/" not in secret else (secret, secret.replace(b"/", b"\\/"))


def without(data: bytes, secrets: tuple[bytes, ...]) -> bytes:
    """What an upstream sent, without these."""
    for each in secrets:
        if data.find(each) >= 0:
            data = data.replace(each, HIDDEN)
    return data
