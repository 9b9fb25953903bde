"""Sign-ins that failed, in the audit log: what was tried, from where by a keyed pseudonym, and how often at most.

Strangers decide how many there are, so that only `MOST` a minute get an entry; the others are counted, and the next
entry says how many. Many in a short time are a finding. A database that is away only costs the entry.
"""

from __future__ import annotations

import logging
import threading
from collections import deque

import psycopg
from fastapi import Request

from groundplan.api.context import Services
from groundplan.core.audit import record
from groundplan.core.audit.entry import SYSTEM
from groundplan.core.audit.pseudonym import pseudonym
from groundplan.core.errors import Denied, GroundplanError, Unauthenticated
from groundplan.ledger import finding_store
from groundplan.ledger.finding import Finding

MOST = 20
"""Entries a minute."""
MINUTE, WINDOW, MANY = 60.0, 600.0, 25
KIND = "identity.failed_sign_ins"
UNKNOWN = "sign-in/unknown"
_WAYS = ("/login/", "/sign-in/", "/api/sign-in/")
_OWN = frozenset({"not_signed_in", "session"})
"""Nobody tried anything."""
log = logging.getLogger("groundplan.api.audit.failed_sign_ins")


class FailedSignIns:
    """Of one control process."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._lock = threading.Lock()
        self._written: deque[float] = deque()
        self._all: deque[float] = deque()
        self._uncounted = 0

    def note(self, request: Request, error: GroundplanError) -> None:
        """Record it where it is a sign-in that failed."""
        if not _failed(request, error):
            return
        room, more, many = self._count()
        if room:
            self._write(request, error, more)
        if many == MANY:
            self._tell(many)

    def _count(self) -> tuple[bool, int, int]:
        """Whether there is room for an entry, how many had none since, and how many there were in ten minutes."""
        now = self._services.clock.monotonic()
        with self._lock:
            for times, age in ((self._written, MINUTE), (self._all, WINDOW)):
                while times and times[0] < now - age:
                    times.popleft()
            self._all.append(now)
            if len(self._all) > 100_000:
                self._all.popleft()
            if len(self._written) >= MOST:
                self._uncounted += 1
                return False, 0, len(self._all)
            self._written.append(now)
            more, self._uncounted = self._uncounted, 0
            return True, more, len(self._all)

    def _write(self, request: Request, error: GroundplanError, more: int) -> None:
        home = self._services.home
        try:
            address = str(error.details.get("address", ""))
            subject = f"sign-in/{pseudonym(home, address)}" if address else UNKNOWN
            client = pseudonym(home, request.client.host if request.client is not None else "")
            detail = {"code": error.code, "client": client, **({"more": more} if more else {})}
            with self._services.transaction() as conn:
                record(conn, action="login.failed", actor=SYSTEM, subject=subject, detail=detail)
        except (psycopg.Error, GroundplanError) as failed:
            log.warning("a failed sign-in is not in the audit log: %s", failed.__class__.__name__)

    def _tell(self, many: int) -> None:
        try:
            with self._services.transaction() as conn:
                finding_store.tell(conn, _finding(many))
        except (psycopg.Error, GroundplanError) as failed:
            log.warning("many failed sign-ins are no finding yet: %s", failed.__class__.__name__)


def _failed(request: Request, error: GroundplanError) -> bool:
    if isinstance(error, Unauthenticated):
        return error.code not in _OWN
    return request.url.path.startswith(_WAYS) and (isinstance(error, Denied) or error.code == "passkey_refused")


def _finding(many: int) -> Finding:
    return Finding(
        kind=KIND,
        severity="high",
        subject="company",
        message=f"{many} sign-ins failed within ten minutes.",
        hint="See who tries: groundplan audit list --action login.failed; the same client has the same pseudonym.",
        detail={"within_ten_minutes": many},
    )
