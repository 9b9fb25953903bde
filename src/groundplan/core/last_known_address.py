"""Connections to PostgreSQL that use the last known address while DNS fails, and whose statements have a time limit.

A resolver that answers that the name does not exist is believed. Gateway workers resolve names beside their event loop
(`gateway.upstream.dial`); this is for processes that block on a connection.
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
"""psycopg's message, which continues with the number of the system's error."""
_NOT_FOUND_ERRORS: Final = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})
_NUMBER: Final = re.compile(r"\[Errno (-?\d+)\]")
_Made = TypeVar("_Made")
_known: Final[dict[tuple[str, str], dict[str, str]]] = {}
"""(hosts, ports) of a DSN -> connection parameters of the server that was reached last."""


class LastKnownAddress(psycopg.Connection[Any]):
    """A connection that falls back to the server's last known address while its name cannot be resolved."""

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
    """A connection whose statements time out, which closes it, even if PostgreSQL never answers.

    Only time in which this process was running counts: after it was suspended, the answer may already lie in its
    socket. Keepalives detect a dead machine, but neither a proxy that swallows everything nor a suspended server that
    another one has replaced.
    """

    max_statement_seconds: ClassVar[float] = 120.0
    """Callers repeat a statement that took longer, as while waiting for a lock, over another connection."""

    def wait(self, gen: PQGen[_Made], interval: float = 0.1, timeout: float | None = None) -> _Made:
        """Raises psycopg.Error."""
        try:
            return super().wait(_with_deadline(gen, self.max_statement_seconds, 2 * interval), interval, timeout)
        except psycopg.OperationalError:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.pgconn.finish()
            raise


def _with_deadline(gen: PQGen[_Made], max_statement_seconds: float, step: float) -> PQGen[_Made]:
    """Run `gen` for at most `most` seconds. Each wait counts as at most `step` seconds, the longest it takes while this
    process is running. Raises psycopg.OperationalError."""
    try:
        waits, left = next(gen), max_statement_seconds
        while left > 0:
            since = monotonic()
            ready = yield waits
            left -= min(step, monotonic() - since)
            waits = gen.send(ready)  # read pending data before the limit is checked
        raise psycopg.OperationalError("the server takes too long")
    except StopIteration as end:
        made: _Made = end.value
        return made


def _is_resolver_failure(told: str) -> bool:
    """Whether resolving a name failed for another reason than that the name does not exist."""
    numbers = {int(number) for number in _NUMBER.findall(told)}
    return _UNRESOLVED in told and numbers.isdisjoint(_NOT_FOUND_ERRORS)
