"""Work beside the requests of the control process: the audit sequencer, indexing, and kills written offline."""

from __future__ import annotations

import json
import logging
from contextlib import ExitStack

from groundplan.api.context import Services
from groundplan.api.ingest import Indexing
from groundplan.core.audit.entry import OPERATOR
from groundplan.core.audit.keys import load_private
from groundplan.core.audit.sequencer import Sequencer
from groundplan.core.database import database_url
from groundplan.core.errors import GroundplanError
from groundplan.identity import service as identity

log = logging.getLogger("groundplan.api.background")


def start(services: Services, indexing: Indexing, stack: ExitStack) -> None:
    """Start everything; `stack` stops it in reverse."""
    take_over_kills(services)
    sequencer = Sequencer(
        database_url(services.home, services.settings, "control"),
        services.home.audit,
        load_private(services.home, "checkpoint"),
    )
    sequencer.start()
    stack.callback(sequencer.stop)
    indexing.start()
    stack.callback(indexing.stop)


def take_over_kills(services: Services) -> int:
    """Put the kills of HOME/run/kill.json into the live policy and remove the file; how many there were."""
    path = services.home.run / "kill.json"
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        kills = [(str(item["scope"]), str(item["reason"])) for item in held]
    except FileNotFoundError:
        return 0
    except (OSError, ValueError, KeyError, TypeError):
        log.exception("%s cannot be read", path)
        return 0
    try:
        with services.transaction() as conn:
            for scope, reason in kills:
                identity.kill(conn, OPERATOR, scope, f"{reason} (written offline)")
    except GroundplanError:
        log.exception("%s cannot be taken over", path)
        return 0
    path.unlink(missing_ok=True)
    return len(kills)
