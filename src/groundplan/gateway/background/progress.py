"""The progress of a background response that this worker makes, for those that stream it. `runner` makes it."""

from __future__ import annotations

import asyncio

from groundplan.gateway.background.events import EventLog
from groundplan.ledger.background_store import Row


class BackgroundRun:
    """A background response that this worker makes. `changed` is set, and replaced, whenever there is progress."""

    __slots__ = ("changed", "followed_until", "is_over", "log", "row", "storing", "task", "waits")

    def __init__(self, row: Row) -> None:
        self.row = row
        self.log = EventLog(row.id, row.at, self.notify_followers)
        self.changed = asyncio.Event()
        self.storing = 0
        """How many of the first buffered events are being stored."""
        self.followed_until = 0.0
        """Until which loop time another worker follows it."""
        self.is_over = False
        """Whether the outcome is stored, or the run has ended here without one."""
        self.waits = False
        """Whether it was postponed, for any worker."""
        self.task: asyncio.Task[None] | None = None

    def notify_followers(self) -> None:
        """Wake up those that wait for `changed`."""
        self.changed.set()
        self.changed = asyncio.Event()
