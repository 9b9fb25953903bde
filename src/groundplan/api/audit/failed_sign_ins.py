"""Failed sign-ins in the audit log: the kind of attempt, and the client by a keyed pseudonym.

They are caused by strangers, so at most `MAX_ENTRIES_PER_MINUTE` get an entry; the others are counted, and the next
entry contains their number. Many within a short time become a finding. Without a database only the entry is lost.
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

MAX_ENTRIES_PER_MINUTE = 20
"""The most entries per minute."""
MINUTE_SECONDS, WINDOW_SECONDS, MANY_FAILURES = 60.0, 600.0, 25
KIND = "identity.failed_sign_ins"
UNKNOWN = "sign-in/unknown"
_SIGN_IN_PATHS = ("/login/", "/sign-in/", "/api/sign-in/")
_NOT_ATTEMPTS = frozenset({"not_signed_in", "session"})
"""Error codes of requests without any attempt to sign in."""
log = logging.getLogger("groundplan.api.audit.failed_sign_ins")


class FailedSignIns:
    """The failed sign-ins of one control process."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._lock = threading.Lock()
        self._written: deque[float] = deque()
        self._failures: deque[float] = deque()
        self._skipped = 0

    def record_if_failed(self, request: Request, error: GroundplanError) -> None:
        """Record the request if it is a failed sign-in."""
        if not _is_failed_sign_in(request, error):
            return
        room, skipped, failures = self._count()
        if room:
            self._write(request, error, skipped)
        if failures == MANY_FAILURES:
            self._report(failures)

    def _count(self) -> tuple[bool, int, int]:
        """(whether an entry may be written, failures without one since the last, failures in ten minutes)"""
        now = self._services.clock.monotonic()
        with self._lock:
            for times, age in ((self._written, MINUTE_SECONDS), (self._failures, WINDOW_SECONDS)):
                while times and times[0] < now - age:
                    times.popleft()
            self._failures.append(now)
            if len(self._failures) > 100_000:
                self._failures.popleft()
            if len(self._written) >= MAX_ENTRIES_PER_MINUTE:
                self._skipped += 1
                return False, 0, len(self._failures)
            self._written.append(now)
            skipped, self._skipped = self._skipped, 0
            return True, skipped, len(self._failures)

    def _write(self, request: Request, error: GroundplanError, skipped: int) -> None:
        home = self._services.home
        try:
            address = str(error.details.get("address", ""))
            subject = f"sign-in/{pseudonym(home, address)}" if address else UNKNOWN
            client = pseudonym(home, request.client.host if request.client is not None else "")
            detail = {"code": error.code, "client": client, **({"more": skipped} if skipped else {})}
            with self._services.transaction() as conn:
                record(conn, action="login.failed", actor=SYSTEM, subject=subject, detail=detail)
        except (psycopg.Error, GroundplanError) as failed:
            log.warning("a failed sign-in is not in the audit log: %s", failed.__class__.__name__)

    def _report(self, failures: int) -> None:
        try:
            with self._services.transaction() as conn:
                finding_store.report(conn, _finding(failures))
        except (psycopg.Error, GroundplanError) as failed:
            log.warning("many failed sign-ins are no finding yet: %s", failed.__class__.__name__)


def _is_failed_sign_in(request: Request, error: GroundplanError) -> bool:
    if isinstance(error, Unauthenticated):
        return error.code not in _NOT_ATTEMPTS
    return request.url.path.startswith(_SIGN_IN_PATHS) and (
        isinstance(error, Denied) or error.code == "passkey_refused"
    )


def _finding(many: int) -> Finding:
    return Finding(
        kind=KIND,
        severity="high",
        subject="company",
        message=f"{many} sign-ins failed within ten minutes.",
        hint="See who tries: groundplan audit list --action login.failed; the same client has the same pseudonym.",
        detail={"within_ten_minutes": many},
    )
