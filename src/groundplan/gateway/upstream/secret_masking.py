"""Masks our own secrets in what an upstream sends: some repeat them. Finds a secret only if it is in one piece."""

from __future__ import annotations

_ESCAPED_CHARACTERS: tuple[dict[bytes, bytes], ...] = (
    {},
    {b"/": b"\\/"},
    {each: b"\\u%04X" % ord(each) for each in (b"+", b"&", b"<", b">", b"'", b"`")},
    {each: b"\\u%04x" % ord(each) for each in (b"&", b"<", b">")},
    {each: b"\\u%04x" % ord(each) for each in (b"=", b"&", b"<", b">", b"'")},
)
"""Printable characters that writers of JSON escape though they need not: none, PHP's, .NET's, Go's, Gson's."""
HIDDEN = b"[hidden]"
MIN_SECRET_LENGTH = 16
"""Characters of the shortest secret that is masked in answers: shorter ones (`EMPTY`, `test`) are words."""


def maskable_spellings(secret: str) -> tuple[bytes, ...]:
    """The spellings of a secret to mask in answers; none for a short one."""
    return spellings(secret.encode()) if len(secret) >= MIN_SECRET_LENGTH else ()


def spellings(secret: bytes) -> tuple[bytes, ...]:
    """The spellings that a secret may have in JSON, the longest first."""
    if not secret:
        return ()
    found = set[bytes]()
    for escaped in _ESCAPED_CHARACTERS:
        spelled = secret
        for character, escape in escaped.items():
            spelled = spelled.replace(character, escape)
        found.add(spelled)
    return tuple(sorted(found, key=len, reverse=True))


def mask(data: bytes, secrets: tuple[bytes, ...]) -> bytes:
    """`data` with all of the secrets masked."""
    for each in secrets:
        if data.find(each) >= 0:
            data = data.replace(each, HIDDEN)
    return data
