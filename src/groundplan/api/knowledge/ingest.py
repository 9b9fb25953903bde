"""Takes the documents of the current blueprint's sources into the index, one ingestion at a time in this process."""

from __future__ import annotations

import logging
import threading
from dataclasses import asdict
from typing import Any

import psycopg

from groundplan.api.context import Services
from groundplan.api.served import current_or_none
from groundplan.core.database import database_url
from groundplan.core.errors import GroundplanError
from groundplan.knowledge.remote import RemoteEmbedder
from groundplan.knowledge.service import Intake, ingest_sources

log = logging.getLogger("groundplan.api.knowledge.ingest")
_one_at_a_time = threading.Lock()


def ingest_current(services: Services) -> dict[str, Any]:
    """Read all sources again; only what changed is indexed. `{"reports": [...]}`, empty where there is nothing to read.

    Raises `Unavailable` where the database or the embedding service is.
    """
    folder = services.folder()
    with _one_at_a_time:
        with services.transaction() as conn:
            blueprint = current_or_none(conn)
        if folder is None or blueprint is None or not blueprint.sources:
            return {"reports": []}
        reports = ingest_sources(
            database_url(services.home, services.settings, "control"),
            blueprint.sources,
            RemoteEmbedder(services.home),
            Intake(
                folder,
                services.clock.now().date(),
                blueprint.review_days,
                blueprint.terms,
                mirrors=services.home.root / "mirrors",
                models=services.settings.models,
            ),
        )
    return {"reports": [asdict(report) for report in reports]}


class Indexing:
    """Runs an ingestion in the background whenever asked; `done` tells whether the newest one asked for has ended.

    Where the database or the embedder is away, it tries again: five times after a second, then after twice as long
    each time, up to a minute; whoever asks meanwhile is not kept waiting.
    """

    def __init__(self, services: Services, retry_seconds: float = 1.0, most_seconds: float = 60.0) -> None:
        self._services = services
        self._retry, self._most = retry_seconds, most_seconds
        self._wanted = threading.Event()
        self._asked = threading.Event()
        self._stop = threading.Event()
        self._idle = threading.Event()
        self._thread = threading.Thread(target=self._run, name="indexing", daemon=True)

    def start(self) -> None:
        self.ask()
        self._thread.start()

    def ask(self) -> None:
        """Read the sources soon."""
        self._idle.clear()
        self._asked.set()
        self._wanted.set()

    def again(self) -> None:
        """Look at the sources once more; what was done before counts as done meanwhile."""
        self._wanted.set()

    @property
    def done(self) -> bool:
        return self._idle.is_set()

    def stop(self) -> None:
        self._stop.set()
        self._asked.set()
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
            try:
                ingest_current(self._services)
                failures = 0
            except (GroundplanError, psycopg.Error) as error:
                log.info("sources are not indexed yet: %s", error)
                self._wanted.set()
                self._asked.wait(min(self._retry * 2 ** max(0, failures - 4), self._most))
                failures = min(failures + 1, 30)
                continue
            except Exception:  # the boundary of a thread: what comes next is taken in all the same
                log.exception("sources could not be indexed")
            if not self._wanted.is_set():
                self._idle.set()
