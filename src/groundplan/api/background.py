"""Work beside the requests of the control process: the audit sequencer, indexing, and kills written offline."""

from __future__ import annotations

import json
import logging
import threading
from contextlib import ExitStack

import psycopg

from groundplan.api.context import Services
from groundplan.api.crossings import Crossings
from groundplan.api.ingest import Indexing
from groundplan.api.retention import Retention
from groundplan.core.audit.entry import OPERATOR
from groundplan.core.audit.keys import load_private
from groundplan.core.audit.sequencer import Sequencer
from groundplan.core.database import database_url
from groundplan.core.errors import GroundplanError
from groundplan.identity import service as identity

log = logging.getLogger("groundplan.api.background")
WATCH_SECONDS = 1.0


def start(services: Services, indexing: Indexing, stack: ExitStack) -> None:
    """Start everything; `stack` stops it in reverse."""
    kills = KillFile(services)
    kills.take_over()
    kills.start()
    stack.callback(kills.stop)
    sequencer = Sequencer(
        database_url(services.home, services.settings, "control"),
        services.home.audit,
        load_private(services.home, "checkpoint"),
    )
    sequencer.start()
    stack.callback(sequencer.stop)
    retention = Retention(services)
    retention.start()
    stack.callback(retention.stop)
    indexing.start()
    stack.callback(indexing.stop)
    crossings = Crossings(services)
    crossings.start()
    stack.callback(crossings.stop)


class KillFile:
    """Watches HOME/run/kill.json, which `groundplan kill` writes where this API did not answer."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kill-file", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._stopping.wait(WATCH_SECONDS):
            self.take_over()

    def take_over(self) -> int:
        """Put the kills of the file into the live policy, then remove it; how many there were.

        Gateways heed the file until it is gone, so there is no moment at which a kill does not hold.
        """
        path = self._services.home.run / "kill.json"
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            kills = [(str(item["scope"]), str(item["reason"])) for item in held]
        except FileNotFoundError:
            return 0
        except (OSError, ValueError, KeyError, TypeError):
            log.error("%s cannot be read; gateways go on by what they read before", path)
            return 0
        try:
            with self._services.transaction() as conn:
                for scope, reason in kills:
                    identity.kill(conn, OPERATOR, scope, f"{reason} (written offline)")
        except (GroundplanError, psycopg.Error) as error:
            log.error("%s cannot be taken over yet: %s", path, error)
            return 0
        path.unlink(missing_ok=True)
        return len(kills)
