"""TCP keepalive: the kernel probes silent connections, so that one whose peer vanished (network, power) ends within a
minute, and networks that forget idle connections keep these.

It is set once for a listening socket, whose connections inherit it, and once for each connection that is opened. While
sent data is unacknowledged the kernel does not probe but retransmits for a quarter of an hour; `is_peer_gone` finds
that for the connection of a long answer. A peer that is alive but slow is not cut off.
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import Any

FIRST_SECONDS, NEXT_SECONDS, PROBES = 30, 10, 3
"""Silence before the first probe, and between the following ones; after so many unanswered ones the peer is gone."""
UNCONFIRMED_MS = 45_000
"""A peer that has acknowledged no sent data for so long is gone."""
_INFO = getattr(socket, "TCP_INFO", None)
_TCP_INFO_FIELDS = struct.Struct("24xI28xI")
"""Of Linux' struct tcp_info: unacknowledged packets, and milliseconds since the last acknowledgement."""
_TCP = (("TCP_KEEPIDLE", FIRST_SECONDS), ("TCP_KEEPINTVL", NEXT_SECONDS), ("TCP_KEEPCNT", PROBES))


def enable_keepalive(connection: Any) -> None:
    """Let the kernel probe a socket, or anything with its `setsockopt`; does nothing where that is impossible."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _TCP:
            if (option := getattr(socket, name, None)) is not None:
                connection.setsockopt(socket.IPPROTO_TCP, option, value)


def is_peer_gone(connection: Any) -> bool:
    """Whether the peer of a socket does not acknowledge what is sent. A peer with a full window still acknowledges;
    False where the system does not say."""
    if _INFO is None:
        return False
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, _INFO, _TCP_INFO_FIELDS.size)
    except OSError:
        return False
    unacknowledged, silent_ms = _TCP_INFO_FIELDS.unpack(info) if len(info) == _TCP_INFO_FIELDS.size else (0, 0)
    return bool(unacknowledged and silent_ms >= UNCONFIRMED_MS)
