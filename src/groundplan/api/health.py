"""What fails although every process runs: calls that do not reach the ledger, deployments whose key is missing, a
certificate that cannot be used, and searches that all fail.

Tells it in the words of `status`; mends nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from groundplan.api.journal_lag import behind_since
from groundplan.api.local_services import post_local
from groundplan.api.served_blueprint import SEARCH
from groundplan.blueprint.model import Blueprint
from groundplan.core.certificate import problem
from groundplan.core.errors import Invalid, Unavailable
from groundplan.core.home import Home
from groundplan.core.settings import resolve_secret
from groundplan.core.words import counted
from groundplan.gateway.http.tls import ServerFiles

BEHIND_SECONDS: Final = 60.0
"""Calls are in the ledger within a second or two; after so long something keeps them from it."""
FAILED: Final = 3
"""Searches in a row, of which one or two may have met a moment."""
NAMED: Final = 5
"""Deployments that are named, of those whose key is at the same place."""
AGAIN_SECONDS: Final = 2.0
LASTS_SECONDS: Final = 5.0
"""What is wrong with it for less is not told."""
_ANSWER_SECONDS: Final = 1.0


def ledger(home: Home, workers: Iterable[dict[str, Any]], now: datetime) -> list[str]:
    """Of gateway workers, as `store.gateways` tells them, whose journals are not taken over."""
    behind = {
        row["pid"]: since
        for row in workers
        if (since := behind_since(home.journal / str(row["epoch"]), row["segment"], row["position"])) is not None
        and now.timestamp() - since / 1000 > BEHIND_SECONDS
    }
    if not behind:
        return []
    first = datetime.fromtimestamp(min(behind.values()) / 1000, UTC)
    pids = ", ".join(map(str, sorted(behind)))
    return [
        f"calls since {first:%Y-%m-%d %H:%M:%S} UTC are not in the ledger (gateway {pids}): see HOME/logs/shipper.log"
    ]


def secrets(blueprint: Blueprint | None) -> list[str]:
    """Of deployments whose keys this process does not find, nor do the gateway workers that were started beside it."""
    found: dict[str, list[str]] = {}
    for each in blueprint.deployments if blueprint is not None else ():
        for reference in (each.key, *(key.key for key in each.keys), each.proxy_key):
            if reference is not None:
                found.setdefault(reference, []).append(each.name)
    return [
        f"calls of {_names(names)} will fail: {why}" for reference, names in found.items() if (why := _why(reference))
    ]


def certificate(files: ServerFiles | None, now: datetime) -> list[str]:
    """Of the gateway's certificate: that it cannot be used with its key and authorities, or ends soon."""
    if files is None:
        return []
    try:
        files.context()
    except Invalid as error:
        told = "gateway workers that run show the one of before, and one that starts serves nobody"
        return [f"{error.message}: {told}. {error.hint}"]
    return [ending] if (ending := problem(files.cert, now)) else []


def _names(names: list[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {counted(more, 'other')}" if more > 0 else "")


def _why(reference: str) -> str:
    try:
        resolve_secret(reference)
    except Invalid as error:
        return f"{error.message}. {error.hint}"
    return ""


class Searching:
    """What the search service says of itself. It is asked now and then, since whoever looks at a page would wait for it
    where it stands still, and what passes, as while it is started again, is not told."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._next = 0.0
        self._since: float | None = None
        """Since when something is wrong with it."""
        self._told: list[str] = []

    def problems(self, services: Iterable[str]) -> list[str]:
        """Where it is among the `services` that are needed now."""
        if SEARCH not in services:
            self._since = None
            return []
        if (now := time.monotonic()) >= self._next:
            self._next = now + AGAIN_SECONDS
            self._told = _said(self._home)
            self._since = None if not self._told else now if self._since is None else self._since
        return self._told if self._since is not None and now - self._since >= LASTS_SECONDS else []


def _said(home: Home) -> list[str]:
    try:
        told = post_local(home, SEARCH, "/lag", {}, _ANSWER_SECONDS)
    except Unavailable as error:
        return [f"{error.message}: calls with sources are refused; see HOME/logs/{SEARCH}.log"]
    problems = [] if told.get("follows", True) else [f"search does not follow PostgreSQL: see HOME/logs/{SEARCH}.log"]
    if (failed := int(told.get("failed", 0))) >= FAILED:
        problems.append(f"the last {failed} searches failed ({told['why']}): see HOME/logs/{SEARCH}.log")
    return problems
