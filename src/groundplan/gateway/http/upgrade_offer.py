"""Removes an offer to continue in another protocol, such as `Upgrade: h2c` of Java's own client, from a request's head:
a server may ignore such an offer (RFC 9110, 7.8). Pure.

The parser takes everything after such a head for the other protocol, also a body; so the head is written anew without
it.
"""

from __future__ import annotations

from collections.abc import Mapping

OFFER = frozenset({b"upgrade", b"http2-settings"})


def without_upgrade_offer(method: bytes, target: bytes, version: str, headers: Mapping[bytes, bytes]) -> bytes:
    """The head of a parsed request without its upgrade offer."""
    lines = [b"%b %b HTTP/%b" % (method, target, version.encode())]
    for name, value in headers.items():
        if name == b"connection":
            value = b", ".join(each for each in value.split(b",") if each.strip().lower() not in OFFER).strip()
        if name not in OFFER and value:
            lines.append(b"%b: %b" % (name, value))
    return b"\r\n".join([*lines, b"", b""])
