"""The address a call comes from: that of the connection, or the one that a trusted proxy tells. Pure.

`X-Forwarded-For` counts only from proxies that the company declares; read from the right, so that what a client writes
itself is never believed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from groundplan.core.errors import Denied

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address


def networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Networks of their CIDR notation; what was checked when it was declared."""
    return tuple(ip_network(text) for text in texts)


def client_address(peer: str, forwarded: bytes | None, trusted: Sequence[Network]) -> Address | None:
    """The address of the client, None where it cannot be told.

    `peer`: whoever is connected; `forwarded`: the value of X-Forwarded-For; `trusted`: networks of our proxies.
    """
    address = _address(peer)
    if address is None or forwarded is None or not _within(address, trusted):
        return address
    for text in reversed(forwarded.decode("latin-1").split(",")):
        address = _address(text.strip())
        if address is None or not _within(address, trusted):
            return address
    return address


def check_network(allowed: Sequence[Network], peer: str, forwarded: bytes | None, trusted: Sequence[Network]) -> None:
    """Raise `Denied` where the client is in none of the networks that its key allows."""
    address = client_address(peer, forwarded, trusted)
    if address is None or not _within(address, allowed):
        raise Denied(
            f"this key may not be used from {address or 'a place without an address'}",
            code="key_network",
            hint="Call from a network that the key allows. Where that is a proxy's address, the company declares it in "
            "trusted_proxies.",
        )


_PORT = re.compile(r"([0-9.]+|\[[^\]]*\])(?::[0-9]{1,5})?", re.ASCII)


def _address(text: str) -> Address | None:
    """None where it is none. Some proxies write the port behind it: `192.0.2.1:443`, `[2001:db8::1]:443`."""
    found = _PORT.fullmatch(text)
    text = text if found is None else found[1].strip("[]")
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _within(address: Address, among: Sequence[Network]) -> bool:
    return any(address in network for network in among)  # none of another version is
