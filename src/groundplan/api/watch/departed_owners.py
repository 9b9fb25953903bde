"""Background check: findings about duties that only people hold who have left. They become critical when the time to
name a successor is over, and close when somebody holds the duty. Nothing stops serving.
"""

from __future__ import annotations

from groundplan.api import store
from groundplan.api.context import Services

LOOK_SECONDS = 5.0


def update_findings(services: Services) -> int:
    """Bring the findings up to date; how many were opened, raised or closed."""
    with services.transaction() as conn:
        return store.update_departed_owner_findings(conn, services.clock.now().date())
