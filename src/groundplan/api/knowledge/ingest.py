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

DocumentHook = Callable[[str], None]
"""Called with the name of a source between two of its documents."""


def ingest_current(
    services: Services,
    only: frozenset[str] | None = None,
    on_document: DocumentHook | None = None,
    is_stopping: Callable[[], bool] = never_stop,
) -> dict[str, Any]:
    """Read all sources again, or those in `only`; only changes are indexed. Returns `{"reports": [...]}`, empty if
    there is nothing to read. Once `is_stopping` returns True, the embedding service is not waited for.

    Raises `Unavailable` if the database or the embedding service does not answer.
    """
    with _ingest_lock:
        return _ingest(services, only, on_document, is_stopping=is_stopping)


def _ingest(
    services: Services, only: frozenset[str] | None, on_document: DocumentHook | None,
    busy_sources: frozenset[str] = frozenset(), stop: Callable[[], bool] = never_stop,
    is_stopping: Callable[[], bool] = never_stop,
) -> dict[str, Any]:  # fmt: skip
    """As `ingest_current`, without `busy_sources` and without the lock. `stop` pauses the work that follows the import
    of all sources; the next ingestion continues it."""
    folder = services.folder()
    with services.transaction() as conn:
        blueprint = current_or_none(conn)
    if folder is None or blueprint is None or not blueprint.sources:
        return {"reports": []}
    reports = ingest_sources(
        database_url(services.home, services.settings, "control"),
        blueprint.sources,
        RemoteEmbedder(services.home, stop=is_stopping),
        IngestContext(
            folder,
            services.clock.now().date(),
            blueprint.review_days,
            blueprint.terms,
            mirrors=services.home.root / "mirrors",
            models=services.settings.models,
            progress=None if on_document is None else lambda source, _: on_document(source),
            stop=stop,
        ),
        {
            source.name
            for source in blueprint.sources
            if source.name not in busy_sources and (only is None or source.name in only)
        },
    )
    return {"reports": [asdict(report) for report in reports]}


def _time_limit(seconds: float) -> Callable[[], bool]:
    """A function that returns whether `seconds` have passed since its first call."""
    deadline: list[float] = []

    def is_over() -> bool:
        if not deadline:
            deadline.append(time.monotonic() + seconds)
        return time.monotonic() > deadline[0]

    return is_over


class Indexer:
    """Runs ingestions in the background on request.

    If the database or the embedder is unavailable, it retries: five times after a second, then with doubled delays up
    to a minute; a new request does not wait for that. Ingestions of single sources take at most a fifth of the time.
    Requests during the long read of a source are handled between two of its documents.
    """

    def __init__(self, services: Services, retry_seconds: float = 1.0, max_retry_seconds: float = 60.0) -> None:
        self._services = services
        self._retry_delay, self._max_retry = retry_seconds, max_retry_seconds
        self._wake = threading.Event()
        self._new_request = threading.Event()
        self._skip_delay = threading.Event()
        self._stop = threading.Event()
        self._idle = threading.Event()
        self._lock = threading.Lock()
        self._all_requested, self._requested_sources = False, frozenset[str]()
        self._not_before = 0.0
        self._reading = ("", 0.0)
        """(source being read, monotonic time since which no other request was handled)"""
        self._others_pending = False
        """Whether other sources of this run are still to be read."""
        self._busy_sources: list[str] = []
        self._busy_requested = False
        """Whether a busy source was requested."""
        self._thread = threading.Thread(target=self._run, name="indexing", daemon=True)

    def start(self) -> None:
        self.request_all()
        self._thread.start()

    def request_all(self) -> None:
        """Request an ingestion of all sources; `is_done` is False until it has finished."""
        self._idle.clear()
        with self._lock:
            self._all_requested = True
        self._new_request.set()
        self._skip_delay.set()
        self._wake.set()

    def request_again(self) -> None:
        """Request another ingestion of all sources without resetting `is_done`."""
        with self._lock:
            self._all_requested = True
        self._wake.set()

    def request_source(self, source: str) -> None:
        """Request an ingestion of one source soon, since documents were pushed to it or its rules changed."""
        with self._lock:
            self._requested_sources |= {source}
        self._new_request.set()
        self._wake.set()

    @property
    def is_done(self) -> bool:
        """Whether the newest request of `request_all` has finished."""
        return self._idle.is_set()

    def stop(self) -> None:
        self._stop.set()
        self._new_request.set()
        self._skip_delay.set()
        self._wake.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        failures = 0
        while True:
            self._wake.wait()
            if self._stop.is_set():
                return
            self._wake.clear()
            self._new_request.clear()
            only = self._take_request()
            began = time.monotonic()
            try:
                self._others_pending, self._reading = only is None, ("", 0.0)
                if only is None or only:
                    ingest_current(self._services, only, self._handle_requests, self._stop.is_set)
                failures = 0
            except (GroundplanError, psycopg.Error) as error:
                log.info("sources are not indexed yet: %s", error)
                self._delay_next(began, 1)
                self._requeue(only)
                self._new_request.wait(min(self._retry_delay * 2 ** max(0, failures - 4), self._max_retry))
                failures = min(failures + 1, 30)
                continue
            except Exception:  # the boundary of a thread: later requests must still be handled
                log.exception("sources could not be indexed")
            if only is not None:
                self._delay_next(began, 4)
            if self._busy_requested:
                self._busy_requested = False
                self.request_again()
            if not self._wake.is_set():
                self._idle.set()

    def _handle_requests(self, source: str) -> None:
        """Handle requests for other sources after `source` has kept them waiting for `PATIENCE_SECONDS`; it then
        continues for as long."""
        began = time.monotonic()
        if self._reading[0] != source:
            self._reading = (source, began)
        taken = began - self._reading[1]
        if taken < PATIENCE_SECONDS or not (self._others_pending or self._wake.is_set()) or self._stop.is_set():
            return
        with self._lock:
            if not (self._all_requested or self._others_pending) and began < self._not_before:
                return
            requested = None if self._all_requested else self._requested_sources
            only = None if self._others_pending else requested
            self._all_requested, self._requested_sources, self._others_pending = False, frozenset(), False
            self._wake.clear()
        self._busy_sources.append(source)
        busy_sources = frozenset(self._busy_sources)
        self._busy_requested = self._busy_requested or requested is None or not busy_sources.isdisjoint(requested)
        try:
            if only is None or only - busy_sources:
                _ingest(
                    self._services, only, self._handle_requests, busy_sources, _time_limit(taken), self._stop.is_set
                )
        except (GroundplanError, psycopg.Error) as error:
            log.info("other sources are not indexed yet: %s", error)
            self._requeue(only)
        except Exception:  # a failure for other sources must not end the read of this one
            log.exception("other sources could not be indexed")
        finally:
            self._busy_sources.pop()
            self._reading = (source, time.monotonic())
        if only is not None:
            self._delay_next(began, 4)

    def _requeue(self, only: frozenset[str] | None) -> None:
        """Request these sources again after a failure; None means all."""
        with self._lock:
            self._all_requested = self._all_requested or only is None
            self._requested_sources |= only or frozenset()
        self._wake.set()

    def _delay_next(self, began: float, times: int) -> None:
        """Delay the next ingestion by `times` the duration of this one, unless all sources are requested."""
        now = time.monotonic()
        self._not_before = now + times * (now - began)

    def _take_request(self) -> frozenset[str] | None:
        """The names of the sources to ingest now; None means all."""
        self._skip_delay.wait(max(0.0, self._not_before - time.monotonic()))
        self._skip_delay.clear()
        with self._lock:
            only = None if self._all_requested else self._requested_sources
            self._all_requested, self._requested_sources = False, frozenset()
        return only
