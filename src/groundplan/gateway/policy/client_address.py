"""The address a call comes from: that of the connection, or the one that a trusted proxy reports. Pure.

`X-Forwarded-For` counts only from proxies that the company declares; it is read from the right, so that an entry that
the client wrote itself is never believed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from groundplan.core.errors import Denied

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address


def networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """Networks in CIDR notation, which was checked when they were declared."""
    return tuple(ip_network(text) for text in texts)


def client_address(peer: str, forwarded: bytes | None, trusted: Sequence[Network]) -> Address | None:
    """The address of the client, None if it cannot be told.

    `peer`: address of the connection; `forwarded`: the value of X-Forwarded-For; `trusted`: networks of our proxies.
    """
    address = _parse_address(peer)
    if address is None or forwarded is None or not _is_in(address, trusted):
        return address
    for text in reversed(forwarded.decode("latin-1").split(",")):
        address = _parse_address(text.strip())
        if address is None or not _is_in(address, trusted):
            return address
    return address


def check_network(allowed: Sequence[Network], peer: str, forwarded: bytes | None, trusted: Sequence[Network]) -> None:
    """Raise `Denied` if the client is in none of the networks that its key allows."""
    address = client_address(peer, forwarded, trusted)
    if address is None or not _is_in(address, allowed):
        raise Denied(
            f"this key may not be used from {address or 'a place without an address'}",
            code="key_network",
            hint="Call from a network that the key allows. Where that is a proxy's address, the company declares it in "
            "trusted_proxies.",
        )


_PORT = re.compile(r"([0-9.]+|\[[^\]]*\])(?::[0-9]{1,5})?", re.ASCII)


def _parse_address(text: str) -> Address | None:
    """The address in a text; None if it is none. Some proxies append the port: `192.0.2.1:443`, `[2001:db8::1]:443`."""
    found = _PORT.fullmatch(text)
    text = text if found is None else found[1].strip("[]")
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _is_in(address: Address, among: Sequence[Network]) -> bool:
    return any(address in network for network in among)  # false for networks of the other IP version
