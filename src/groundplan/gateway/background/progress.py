"""The progress of a response in the background that this worker makes, for whoever follows it. Making it is the
runner's.
"""

from __future__ import annotations

import asyncio

from groundplan.gateway.background.events import EventLog
from groundplan.ledger.background_store import Row


class Run:
    """One that is being made here. `changed` is set, and another one made, whenever there is more of it."""

    __slots__ = ("changed", "followed", "on_its_way", "over", "row", "taken", "task", "waits")

    def __init__(self, row: Row) -> None:
        self.row = row
        self.taken = EventLog(row.id, row.at, self.tell)
        self.changed = asyncio.Event()
        self.on_its_way = 0
        """How many of its first events are being kept."""
        self.followed = 0.0
        """Until when of the loop's clock another worker follows it."""
        self.over = False
        """What it came to is written down, or it is made here no more."""
        self.waits = False
        """It could not be made yet, and is nobody's again."""
        self.task: asyncio.Task[None] | None = None

    def tell(self) -> None:
        """Whoever follows it."""
        self.changed.set()
        self.changed = asyncio.Event()
