"""Connections that say nothing for a while are probed by the kernel: one whose other end is gone without a word (its
network, its power) ends within a minute, and networks that forget silent connections do not forget these.

Nothing is done for it by this process: it is said once of a listening socket, whose connections inherit it, and once of
each that is opened. While something is sent that nobody confirms the kernel probes nothing, and sends it again for a
quarter of an hour: of that a long answer's connection is asked. Whoever is there, and merely slow, is not cut off.
"""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from typing import Any

FIRST_SECONDS, NEXT_SECONDS, PROBES = 30, 10, 3
"""Silence before the first probe, and between the following ones; so many are left unanswered by whoever is gone."""
UNCONFIRMED_MS = 45_000
"""Of whoever confirmed nothing for so long, of what was sent meanwhile, nobody is there any more."""
_INFO = getattr(socket, "TCP_INFO", None)
_TOLD = struct.Struct("24xI28xI")
"""Of Linux' struct tcp_info how many packets are not confirmed, and for how many ms nothing was."""
_TCP = (("TCP_KEEPIDLE", FIRST_SECONDS), ("TCP_KEEPINTVL", NEXT_SECONDS), ("TCP_KEEPCNT", PROBES))


def probe(connection: Any) -> None:
    """Have a socket probed, or what has its `setsockopt`; nothing where it is none that can be."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _TCP:
            if (option := getattr(socket, name, None)) is not None:
                connection.setsockopt(socket.IPPROTO_TCP, option, value)


def is_gone(connection: Any) -> bool:
    """Whether whoever is at the other end of a socket does not confirm what is sent there. Who takes nothing, and says
    so, does; False where the system does not tell."""
    if _INFO is None:
        return False
    try:
        told = connection.getsockopt(socket.IPPROTO_TCP, _INFO, _TOLD.size)
    except OSError:
        return False
    unconfirmed, silent_ms = _TOLD.unpack(told) if len(told) == _TOLD.size else (0, 0)
    return bool(unconfirmed and silent_ms >= UNCONFIRMED_MS)
