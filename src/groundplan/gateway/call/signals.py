"""Sends signals of searches to PostgreSQL: questions to which nothing was found, and feedback on what was found.

Signals are queued in the worker and written in the background. The question is personal: it is stored, sealed under the
key of its person, only if the workload keeps content and the call is in the sample, and for as long as content is kept;
otherwise only the fact that nothing was found. Signals are for the owners of the missing knowledge, not for billing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

from groundplan.blueprint.model import Workload
from groundplan.core.audit.subject import SubjectKeys
from groundplan.core.clock import Clock
from groundplan.core.detect import redact
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.gateway.database import database_unavailable
from groundplan.gateway.telemetry.content_link import is_sampled
from groundplan.gateway.thread_connections import ThreadConnections
from groundplan.gateway.write_behind import WriteBehindQueue
from groundplan.knowledge.signals import signal_store
from groundplan.knowledge.signals.signal_store import UNANSWERED, Signal

MAX_WAITING = 2_000
_unavailable = partial(
    database_unavailable,
    "the database is not reachable, so the signal may not be kept",
    "Send it again with the same `id`: it is kept once.",
)


@dataclass(frozen=True, slots=True)
class Unsealed:
    """A signal whose question, if any, is still in clear text; it is redacted and sealed in the background."""

    signal: Signal
    redacted: bool = False

    def sealed(self, conn: Any, keys: SubjectKeys) -> Signal:
        """The signal as it is stored."""
        signal = self.signal
        if signal.asked is None or signal.person is None:
            return signal
        text = redact(signal.asked)[0] if self.redacted else signal.asked
        return replace(signal, asked=keys.seal(conn, signal.person, text))


class Signals(WriteBehindQueue[Unsealed]):
    """The signals of one worker, on their way to PostgreSQL; connects at the first one."""

    def __init__(self, home: Home, url: str, clock: Clock) -> None:
        super().__init__("questions without an answer", MAX_WAITING)
        self._home, self._clock = home, clock
        self._database = ThreadConnections(url, "signals", 1, _unavailable)

    def unanswered(self, workload: Workload, about: str, question: str, call: UUID, id: UUID | None = None) -> Unsealed:
        """A signal that nothing was found. `about`: id of the person who asked, else of the key; `call` decides whether
        the question is among those whose content is kept."""
        keep, id = workload.keep, id or new_id()
        if keep is None or not is_sampled(keep, call.bytes):
            return Unsealed(Signal(workload.name, UNANSWERED, call=call, id=id))
        until = self._clock.now() + timedelta(seconds=keep.seconds)
        signal = Signal(workload.name, UNANSWERED, call=call, person=UUID(about), asked=question, until=until, id=id)
        return Unsealed(signal, redacted=keep.content != "full")

    async def keep(self, signal: Unsealed) -> None:
        """Store a signal; durable on return. Raises `Unavailable`."""
        await self.put([signal])

    async def put(self, facts: Sequence[Unsealed]) -> None:
        await self._database.run(lambda conn: self._add(conn, facts))

    async def close(self) -> None:
        await super().close()
        await self._database.close()

    def _add(self, conn: Any, signals: Sequence[Unsealed]) -> None:
        keys = SubjectKeys.of(self._home)
        with conn.transaction():
            for each in signals:
                signal_store.add_signal(conn, each.sealed(conn, keys))
