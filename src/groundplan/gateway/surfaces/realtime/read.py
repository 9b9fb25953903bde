"""Reads events of a client, long ones in a thread, so that the calls of others go on meanwhile."""

from __future__ import annotations

from functools import partial
from typing import Any

from groundplan.gateway.offload import READ_BYTES, in_thread
from groundplan.gateway.surfaces.realtime.events import read_client


async def read_event(text: str) -> dict[str, Any]:
    """As `read_client`."""
    if len(text) <= READ_BYTES:
        return read_client(text)
    return await in_thread(partial(read_client, text))
