"""Connections that say nothing for a while are probed by the kernel: one whose other end is gone without a word (its
network, its power) ends within a minute, and networks that forget silent connections do not forget these.

Nothing is done by this process: it is said once of a listening socket, whose connections inherit it, and once of each
that is opened. Whoever is there, and merely slow, is not cut off by it.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any

FIRST_SECONDS, NEXT_SECONDS, PROBES = 30, 10, 3
"""Silence before the first probe, and between the following ones; so many are left unanswered by whoever is gone."""
_TCP = (("TCP_KEEPIDLE", FIRST_SECONDS), ("TCP_KEEPINTVL", NEXT_SECONDS), ("TCP_KEEPCNT", PROBES))


def probe(connection: Any) -> None:
    """Have a socket probed, or what has its `setsockopt`; nothing where it is none that can be."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _TCP:
            if (option := getattr(socket, name, None)) is not None:
                connection.setsockopt(socket.IPPROTO_TCP, option, value)
