"""Problems that show although every process runs: calls that do not reach the ledger, deployments whose key is missing,
a certificate that cannot be used, and searches that all fail.

Each function returns sentences for `status`; nothing is repaired here.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from groundplan.api.journal_lag import first_unshipped_at, foreign_journal_problems
from groundplan.api.local_services import post_local
from groundplan.api.served_blueprint import SEARCH
from groundplan.blueprint.model import Blueprint
from groundplan.core.certificate import problem
from groundplan.core.errors import Invalid, Unavailable
from groundplan.core.home import Home
from groundplan.core.settings import resolve_secret
from groundplan.core.words import quantity
from groundplan.gateway.http.tls import ServerFiles

MAX_LAG_SECONDS: Final = 60.0
"""Calls reach the ledger within a second or two; a longer lag than this is a problem."""
MIN_FAILED_SEARCHES: Final = 3
"""Failed searches in a row that are a problem; one or two may be a coincidence."""
MAX_NAMED: Final = 5
"""The most deployments that are named, of those with the same key reference."""
CHECK_INTERVAL_SECONDS: Final = 2.0
MIN_DURATION_SECONDS: Final = 5.0
"""Problems of search that last shorter are not reported."""
_ANSWER_SECONDS: Final = 1.0


def ledger_problems(home: Home, gateways: Iterable[dict[str, Any]], now: datetime) -> list[str]:
    """Problems of gateway workers (rows of `store.gateways`), and of journals that others left, whose calls do not get
    into the ledger."""
    foreign = foreign_journal_problems(home)
    behind = {
        row["pid"]: since
        for row in gateways
        if (since := first_unshipped_at(home.journal / str(row["epoch"]), row["segment"], row["position"])) is not None
        and now.timestamp() - since / 1000 > MAX_LAG_SECONDS
    }
    if not behind:
        return foreign
    first = datetime.fromtimestamp(min(behind.values()) / 1000, UTC)
    pids = ", ".join(map(str, sorted(behind)))
    return [
        *foreign,
        f"calls since {first:%Y-%m-%d %H:%M:%S} UTC are not in the ledger (gateway {pids}): see HOME/logs/shipper.log",
    ]


def missing_key_problems(blueprint: Blueprint | None) -> list[str]:
    """Problems of deployments whose keys this process cannot resolve; gateway workers on this machine cannot either."""
    by_reference: dict[str, list[str]] = {}
    for deployment in blueprint.deployments if blueprint is not None else ():
        for reference in (deployment.key, *(key.key for key in deployment.keys), deployment.proxy_key):
            if reference is not None:
                by_reference.setdefault(reference, []).append(deployment.name)
    return [
        f"calls of {_names(names)} will fail: {why}"
        for reference, names in by_reference.items()
        if (why := _secret_problem(reference))
    ]


def certificate_problems(files: ServerFiles | None, now: datetime) -> list[str]:
    """Problems of the gateway's certificate: it cannot be used with its key and authorities, or it ends soon."""
    if files is None:
        return []
    try:
        files.context()
    except Invalid as error:
        consequence = "running gateway workers still use the previous one, and a worker that starts cannot serve"
        return [f"{error.message}: {consequence}. {error.hint}"]
    return [ending] if (ending := problem(files.cert, now)) else []


def _names(names: list[str]) -> str:
    more = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {quantity(more, 'other')}" if more > 0 else "")


def _secret_problem(reference: str) -> str:
    try:
        resolve_secret(reference)
    except Invalid as error:
        return f"{error.message}. {error.hint}"
    return ""


class SearchHealth:
    """The state of the search service, asked at most every `CHECK_INTERVAL_SECONDS`: pages would wait for a service
    that hangs. Problems that pass soon, as during its restart, are not reported."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._next_check = 0.0
        self._failing_since: float | None = None
        """Monotonic time since when the service has had a problem."""
        self._problems: list[str] = []

    def problems(self, services: Iterable[str]) -> list[str]:
        """Its problems, where search is among the `services` that are needed now."""
        if SEARCH not in services:
            self._failing_since = None
            return []
        if (now := time.monotonic()) >= self._next_check:
            self._next_check = now + CHECK_INTERVAL_SECONDS
            self._problems = _search_problems(self._home)
            self._failing_since = (
                None if not self._problems else now if self._failing_since is None else self._failing_since
            )
        return (
            self._problems
            if self._failing_since is not None and now - self._failing_since >= MIN_DURATION_SECONDS
            else []
        )


def _search_problems(home: Home) -> list[str]:
    try:
        lag = post_local(home, SEARCH, "/lag", {}, _ANSWER_SECONDS)
    except Unavailable as error:
        return [f"{error.message}: calls with sources are refused; see HOME/logs/{SEARCH}.log"]
    problems = [] if lag.get("follows", True) else [f"search does not follow PostgreSQL: see HOME/logs/{SEARCH}.log"]
    if (failed := int(lag.get("failed", 0))) >= MIN_FAILED_SEARCHES:
        problems.append(f"the last {failed} searches failed ({lag['why']}): see HOME/logs/{SEARCH}.log")
    return problems
