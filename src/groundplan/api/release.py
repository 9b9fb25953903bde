"""Releases for the routes: calls of `release` with the keys and clock of this HOME, in JSON shapes. Decides nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from psycopg import Connection

from groundplan.core.audit.keys import load_private
from groundplan.core.clock import Clock, SystemClock
from groundplan.core.errors import Conflict
from groundplan.core.home import Home
from groundplan.governance import model as governance_model
from groundplan.governance.approvals import Answer, Approver
from groundplan.release import approvals, service
from groundplan.release import store as release_store
from groundplan.release.model import problem_json
from groundplan.release.publish import Signing

Db = Connection[Any]
REPEATED_ROLLBACK_PERIOD = timedelta(minutes=10)
"""For this long after a rollback, another one has to name its target."""
MAX_CONCURRENT_PLANS = 3
"""How many plans and releases run at the same time: a quarter of the connections."""
MAX_CACHED = 20
"""The number of changes whose missing approvals are cached."""
Files = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _CachedMissing:
    key: approvals.UnapprovedPartsKey
    problems: list[dict[str, Any]]


class Releases:
    """Plans, releases and approvals of one HOME, each in the transaction of the given connection."""

    def __init__(self, home: Home, clock: Clock | None = None, demo: bool = False) -> None:
        self.turns = threading.BoundedSemaphore(MAX_CONCURRENT_PLANS)
        self._missing_cache: dict[UUID, _CachedMissing] = {}
        self._missing_lock = threading.Lock()
        self._signing = Signing(load_private(home, "blueprint"), clock or SystemClock(), demo=demo)

    def genesis(self, conn: Db, files: Files) -> bool:
        """Create blueprint 1 if there is no blueprint; returns whether it did."""
        if release_store.newest_blueprint(conn) is not None:
            return False
        try:
            service.genesis(conn, self._signing, files)
        except Conflict as error:
            if error.code == "already_started":
                return False
            raise
        return True

    def plan(self, conn: Db, files: Files) -> dict[str, Any]:
        return service.preview(conn, self._signing, files).to_json()

    def apply(self, conn: Db, actor: str, files: Files, reason: str) -> dict[str, Any]:
        return service.apply(conn, self._signing, actor, files, reason=reason).to_json()

    def rollback(self, conn: Db, actor: str, to: int | None, without_revoked: bool, reason: str) -> dict[str, Any]:
        if to is None:
            self._check_once(conn)
        result = service.rollback(conn, self._signing, actor, to, without_revoked=without_revoked, reason=reason)
        return result.to_json()

    def _check_once(self, conn: Db) -> None:
        """Raise `Conflict` (`rolled_back_already`) if somebody rolled back a moment ago: of two people in the same
        incident, or of a request that is repeated, the second would bring back what the first has undone."""
        release_store.lock_releases(conn)
        newest, now = release_store.newest_blueprint(conn), self._signing.clock.now()
        if newest is None or newest.rollback_of is None or now - newest.created_at > REPEATED_ROLLBACK_PERIOD:
            return
        raise Conflict(
            f"blueprint {newest.number} went back to {newest.rollback_of} a moment ago", code="rolled_back_already",
            hint=f"`groundplan rollback {newest.number - 1}` brings back what that undid, `groundplan rollback N` "
            "another one.",
        )  # fmt: skip

    def approve(self, conn: Db, approver: Approver, change: UUID, answer: Answer) -> dict[str, Any]:
        return approvals.approve(conn, self._signing, approver, change, answer).to_json()

    def refuse(self, conn: Db, approver: Approver | None, change: UUID, answer: Answer) -> dict[str, Any]:
        result = approvals.refuse(conn, self._signing, approver, change, answer)
        return {"change": str(result.id), "state": result.state}

    def request_approval(
        self, conn: Db, actor: str, asked: governance_model.ApprovalRequest
    ) -> governance_model.Change:
        """Request an approval of something outside the blueprint."""
        return approvals.request_approval(conn, self._signing, actor, asked)

    def request_part_approvals(
        self, conn: Db, actor: str, reason: str, workload: str | None, files: Files | None
    ) -> list[governance_model.Change]:
        """Request approvals of the parts that production uses without one."""
        return approvals.request_part_approvals(conn, self._signing, actor, reason, workload=workload, files=files)

    def unapproved_parts(
        self, transaction: Callable[[], AbstractContextManager[Db]], change: UUID
    ) -> list[dict[str, Any]]:
        """The parts that a pending change of a workload uses without an approval, as JSON. Computed once for concurrent
        requests: one makes the plan, and the others wait without a connection."""
        with transaction() as conn:
            key = approvals.unapproved_parts_key(conn, self._signing, change)
        if key is None:
            return []
        with self._missing_lock:
            cached = self._missing_cache.get(change)
            if cached is None or cached.key != key:
                with self.turns, transaction() as conn:
                    missing = approvals.unapproved_parts(conn, self._signing, change)
                cached = _CachedMissing(key, [problem_json(problem) for problem in missing])
                self._missing_cache = dict([*self._missing_cache.items()][-MAX_CACHED:])
                self._missing_cache[change] = cached
        return cached.problems

    def expire_approval(self, conn: Db, change: UUID) -> int | None:
        """End an approval; the number of the new blueprint without what it allowed, or None."""
        return approvals.expire_approval(conn, self._signing, change).number

    def advance_ramps(self, conn: Db, unhealthy: frozenset[str]) -> int | None:
        """Move ramps to their next step; the number of the new blueprint, or None if no step is over."""
        return service.advance_ramps(conn, self._signing, unhealthy).number

    def reprice(self, conn: Db) -> int | None:
        """Apply prices that begin today; the number of the new blueprint, or None if none began."""
        return service.reprice(conn, self._signing).number

    def withdraw(self, conn: Db, actor: str, change: UUID) -> dict[str, Any]:
        result = approvals.withdraw(conn, self._signing, actor, change)
        return {**result.to_json(), "policy": result.policy}
