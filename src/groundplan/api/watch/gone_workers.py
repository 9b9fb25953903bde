"""Background check: gateway workers that were silent for a day are fenced, with a finding until their journals are
shipped.

Their machine, or the volume of their HOME, may be lost, which cannot be known from here. A fenced worker that comes
back ends, and another takes its place with slices of its own; its share of concurrency limits is free again. Its budget
slices stay reserved, since only its journal says what was spent, until somebody declares it lost.
"""

from __future__ import annotations

from shlex import quote

from groundplan.api import gateways_store
from groundplan.api.context import Services
from groundplan.api.propagation_store import longest_grace_s
from groundplan.core.audit.entry import SYSTEM
from groundplan.identity import service as identity
from groundplan.ledger import finding_store
from groundplan.ledger.finding import Finding

LOOK_SECONDS = 600.0
SILENT_SECONDS = 86_400.0
"""To which the longest grace of any workload is added: until then a worker may serve."""
KIND = "gateway.gone"


def fence_silent_workers(services: Services) -> int:
    """Fence silent workers and update the findings; returns how many were fenced."""
    with services.transaction() as conn:
        fenced = identity.fence_silent(conn, SYSTEM, SILENT_SECONDS + longest_grace_s(conn))
        finding_store.replace_findings(
            conn, map(_finding, gateways_store.silent_fenced_workers(conn, SILENT_SECONDS)), kinds=(KIND,)
        )
    return len(fenced)


def _finding(row: gateways_store.Row) -> Finding:
    return Finding(
        kind=KIND,
        subject=f"gateway/{row['epoch']}",
        severity="high",
        message=f"A gateway worker of {row['host']} ({row['home']}) sent its last heartbeat at "
        f"{row['heartbeat_at']:%Y-%m-%d %H:%M} UTC: its last calls may not be in the ledger, and the budget that it "
        "held stays reserved.",
        hint="Start `groundplan up` with that HOME again, which ships its journal. If that HOME is lost for good, "
        f"`groundplan gateways lost {quote(row['host'])} {quote(row['home'])} --reason WHY` ends its calls; compare "
        "the provider's invoice.",
    )
