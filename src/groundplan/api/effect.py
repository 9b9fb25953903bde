"""Whether a change of live policy has reached every gateway: waits a moment for acknowledgements, then says who lacks.

A stopped thing is *effective* where this is complete; otherwise each waiting gateway is named, with until when it may
serve.
"""

from __future__ import annotations

import time
from typing import Any

from groundplan.api.context import Services
from groundplan.identity import service as identity

WAIT_SECONDS = 1.5
_PAUSE = 0.05


def effect_of(services: Services, number: int, wait: float = WAIT_SECONDS) -> dict[str, Any]:
    """`{"complete", "number", "acknowledged": [epoch], "waiting": [...]}` within about `wait` s."""
    deadline = time.monotonic() + wait
    while True:
        with services.transaction() as conn:
            found = identity.effective(conn, number)
        if found.complete or time.monotonic() >= deadline:
            return {
                "complete": found.complete,
                "number": number,
                "acknowledged": [str(gateway.epoch) for gateway in found.acknowledged],
                "waiting": [
                    {"epoch": str(gateway.epoch), "pid": gateway.pid, "until": gateway.until}
                    for gateway in found.waiting
                ],
            }
        time.sleep(_PAUSE)
