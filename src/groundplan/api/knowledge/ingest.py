"""Ingests the documents of the current blueprint's sources into the index, one ingestion at a time per process."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

import psycopg

from groundplan.api.context import Services
from groundplan.api.served_blueprint import current_or_none
from groundplan.core.database import database_url
from groundplan.core.errors import GroundplanError
from groundplan.knowledge.index.build import never_stop
from groundplan.knowledge.service import IngestContext, ingest_sources
from groundplan.knowledge.service_client import RemoteEmbedder

log = logging.getLogger("groundplan.api.knowledge.ingest")
_ingest_lock = threading.Lock()
PATIENCE_SECONDS: Final = 5.0
"""How long other sources wait for the one that is being read: a source with rate limits may take days."""

Between = Callable[[str], None]
"""Called with the name of a source between two of its documents."""


def ingest_current(
    services: Services,
    only: frozenset[str] | None = None,
    between: Between | None = None,
    ends: Callable[[], bool] = never_stop,
) -> dict[str, Any]:
    """Read all sources again, or those in `only`; only changes are indexed. Returns `{"reports": [...]}`, empty where
    there is nothing to read. Once `ends` returns True, the embedding service is not waited for.

    Raises `Unavailable` where the database or the embedding service is.
    """
    with _ingest_lock:
        return _ingest(services, only, between, ends=ends)


def _ingest(
    services: Services, only: frozenset[str] | None, between: Between | None, busy: frozenset[str] = frozenset(),
    stop: Callable[[], bool] = never_stop, ends: Callable[[], bool] = never_stop,
) -> dict[str, Any]:  # fmt: skip
    """As `ingest_current`, without the `busy` sources and the lock. `stop` pauses the work that follows the import of
    all sources; the next ingestion continues it."""
    folder = services.folder()
    with services.transaction() as conn:
        blueprint = current_or_none(conn)
    if folder is None or blueprint is None or not blueprint.sources:
        return {"reports": []}
    reports = ingest_sources(
        database_url(services.home, services.settings, "control"),
        blueprint.sources,
        RemoteEmbedder(services.home, stop=ends),
        IngestContext(
            folder,
            services.clock.now().date(),
            blueprint.review_days,
            blueprint.terms,
            mirrors=services.home.root / "mirrors",
            models=services.settings.models,
            progress=None if between is None else lambda source, _: between(source),
            stop=stop,
        ),
        {one.name for one in blueprint.sources if one.name not in busy and (only is None or one.name in only)},
    )
    return {"reports": [asdict(report) for report in reports]}


def _time_limit(seconds: float) -> Callable[[], bool]:
    """A function that returns whether `seconds` have passed since its first call."""
    until: list[float] = []

    def over() -> bool:
        if not until:
            until.append(time.monotonic() + seconds)
        return time.monotonic() > until[0]

    return over


class Indexer:
    """Runs ingestions in the background on request; `done` is whether the newest request has finished.

    Where the database or the embedder is unavailable, it retries: five times after a second, then with doubled delays
    up to a minute; a new request does not wait for that. Ingestions of single sources take at most a fifth of the time.
    Requests during the long read of a source are handled between two of its documents.
    """

    def __init__(self, services: Services, retry_seconds: float = 1.0, most_seconds: float = 60.0) -> None:
        self._services = services
        self._retry, self._most = retry_seconds, most_seconds
        self._wanted = threading.Event()
        self._asked = threading.Event()
        self._hurry = threading.Event()
        self._stop = threading.Event()
        self._idle = threading.Event()
        self._lock = threading.Lock()
        self._all, self._some = False, frozenset[str]()
        self._not_before = 0.0
        self._reading = ("", 0.0)
        """(source being read, monotonic time since when without handling others)"""
        self._owed = False
        """Whether other sources of this run are still to be read."""
        self._busy: list[str] = []
        self._later = False
        """Whether a busy source was requested."""
        self._thread = threading.Thread(target=self._run, name="indexing", daemon=True)

    def start(self) -> None:
        self.ask()
        self._thread.start()

    def ask(self) -> None:
        """Request an ingestion of all sources; `done` is False until it has finished."""
        self._idle.clear()
        with self._lock:
            self._all = True
        self._asked.set()
        self._hurry.set()
        self._wanted.set()

    def again(self) -> None:
        """Request another ingestion of all sources without resetting `done`."""
        with self._lock:
            self._all = True
        self._wanted.set()

    def look_at(self, source: str) -> None:
        """Request an ingestion of one source soon: documents were pushed to it, or its rules changed."""
        with self._lock:
            self._some |= {source}
        self._asked.set()
        self._wanted.set()

    @property
    def done(self) -> bool:
        return self._idle.is_set()

    def stop(self) -> None:
        self._stop.set()
        self._asked.set()
        self._hurry.set()
        self._wanted.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        failures = 0
        while True:
            self._wanted.wait()
            if self._stop.is_set():
                return
            self._wanted.clear()
            self._asked.clear()
            only = self._next()
            began = time.monotonic()
            try:
                self._owed, self._reading = only is None, ("", 0.0)
                if only is None or only:
                    ingest_current(self._services, only, self._between, self._stop.is_set)
                failures = 0
            except (GroundplanError, psycopg.Error) as error:
                log.info("sources are not indexed yet: %s", error)
                self._rest(began, 1)
                with self._lock:
                    self._all, self._some = self._all or only is None, self._some | (only or frozenset())
                self._wanted.set()
                self._asked.wait(min(self._retry * 2 ** max(0, failures - 4), self._most))
                failures = min(failures + 1, 30)
                continue
            except Exception:  # the boundary of a thread: what comes next is taken in all the same
                log.exception("sources could not be indexed")
            if only is not None:
                self._rest(began, 4)
            if self._later:
                self._later = False
                self.again()
            if not self._wanted.is_set():
                self._idle.set()

    def _between(self, source: str) -> None:
        """Handle requests for other sources once this one has kept them waiting; then it continues for as long."""
        began = time.monotonic()
        if self._reading[0] != source:
            self._reading = (source, began)
        taken = began - self._reading[1]
        if taken < PATIENCE_SECONDS or not (self._owed or self._wanted.is_set()) or self._stop.is_set():
            return
        with self._lock:
            if not (self._all or self._owed) and began < self._not_before:
                return
            asked, only = None if self._all else self._some, None if self._all or self._owed else self._some
            self._all, self._some, self._owed = False, frozenset(), False
            self._wanted.clear()
        self._busy.append(source)
        busy = frozenset(self._busy)
        self._later = self._later or asked is None or not busy.isdisjoint(asked)
        try:
            if only is None or only - busy:
                _ingest(self._services, only, self._between, busy, _time_limit(taken), self._stop.is_set)
        except (GroundplanError, psycopg.Error) as error:
            log.info("other sources are not indexed yet: %s", error)
            with self._lock:
                self._all, self._some = self._all or only is None, self._some | (only or frozenset())
            self._wanted.set()
        except Exception:  # the boundary of a look: the source that is being read goes on
            log.exception("other sources could not be indexed")
        finally:
            self._busy.pop()
            self._reading = (source, time.monotonic())
        if only is not None:
            self._rest(began, 4)

    def _rest(self, began: float, times: int) -> None:
        """Delay the next ingestion by `times` the duration of this one, unless all sources are requested."""
        now = time.monotonic()
        self._not_before = now + times * (now - began)

    def _next(self) -> frozenset[str] | None:
        """The names of the sources to ingest now; None means all."""
        self._hurry.wait(max(0.0, self._not_before - time.monotonic()))
        self._hurry.clear()
        with self._lock:
            only = None if self._all else self._some
            self._all, self._some = False, frozenset()
        return only
