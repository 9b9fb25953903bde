"""Connects to PostgreSQL at the address at which it was found last, while those who know its name are away or fail.

That the name is not there any more is heeded. Workers look names up beside their loop (`gateway.upstream.dial`); this
is for processes that wait for a connection, and know no way to wait less for a name.
"""

from __future__ import annotations

import re
import socket
from time import monotonic
from typing import Any, ClassVar, Final, Self, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus

_UNRESOLVED: Final = "failed to resolve host"
"""How psycopg says so, with the number of the system's error."""
_NOWHERE: Final = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})
_NUMBER: Final = re.compile(r"\[Errno (-?\d+)\]")
_Made = TypeVar("_Made")
_known: Final[dict[tuple[str, str], dict[str, str]]] = {}
"""By the servers that an address names, which of them was found last, and where."""


class LastKnownAddress(psycopg.Connection[Any]):
    """See the module."""

    @classmethod
    def connect(cls, conninfo: str = "", **more: Any) -> Self:
        """As psycopg's. Raises psycopg.Error."""
        asked = conninfo_to_dict(conninfo, **more)
        servers = str(asked.get("host") or ""), str(asked.get("port") or "")
        try:
            made = super().connect(conninfo, **more)
        except psycopg.OperationalError as error:
            known = _known.get(servers) if _is_resolver_failure(str(error)) else None
            if known is None:
                raise
            return super().connect(conninfo, **{**more, **known})
        if servers[0] and not asked.get("hostaddr") and made.info.hostaddr:
            _known[servers] = {"host": made.info.host, "hostaddr": made.info.hostaddr, "port": str(made.info.port)}
        return made


class TimeLimitedConnection(LastKnownAddress):
    """One whose statements end, and the connection with them, also where nothing is heard of PostgreSQL any more. It is
    silent for as long as this process could have heard it: where that stood still, the answer lies in its socket.
    Keepalives tell that a machine is gone, and not that what stands between takes everything and passes nothing on, or
    that a server stands still in whose place another one answers by now."""

    most: ClassVar[float] = 120.0
    """Seconds; a statement that takes longer, as while others hold a lock, is asked again over another connection."""

    def wait(self, gen: PQGen[_Made], interval: float = 0.1, timeout: float | None = None) -> _Made:
        """Raises psycopg.Error."""
        try:
            return super().wait(_with_deadline(gen, self.most, 2 * interval), interval, timeout)
        except psycopg.OperationalError:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.pgconn.finish()
            raise


def _with_deadline(gen: PQGen[_Made], most: float, step: float) -> PQGen[_Made]:
    """As `gen`, which is resumed in steps shorter than `step` while this process runs, for at most so many seconds of
    them. Raises psycopg.OperationalError."""
    try:
        waits, left = next(gen), most
        while left > 0:
            since = monotonic()
            ready = yield waits
            left -= min(step, monotonic() - since)
            waits = gen.send(ready)  # what is there is read first
        raise psycopg.OperationalError("the server takes too long")
    except StopIteration as end:
        made: _Made = end.value
        return made


def _is_resolver_failure(told: str) -> bool:
    """Whether a name was not found since nobody could say, and not since it is not there."""
    numbers = {int(number) for number in _NUMBER.findall(told)}
    return _UNRESOLVED in told and numbers.isdisjoint(_NOWHERE)
