"""The worker's own few numbers in Prometheus text format. Only of this worker: a scrape may meet another one next
time."""

from __future__ import annotations

import re

from groundplan.gateway.context import Gateway

_LABEL = re.compile(r'[\\"\n]')


def render(gateway: Gateway) -> bytes:
    """Exposition text, version 0.0.4."""
    worker = f'worker="{gateway.epoch}"'
    lines = ["# TYPE groundplan_gateway_calls_total counter"]
    for status, count in sorted(gateway.statuses.items()):
        lines.append(f'groundplan_gateway_calls_total{{{worker},status="{status}"}} {count}')
    lines.append("# TYPE groundplan_gateway_attempts_total counter")
    for (deployment, outcome), count in sorted(gateway.attempts.items()):
        name = _LABEL.sub("_", deployment)
        labels = f'{worker},deployment="{name}",outcome="{outcome}"'
        lines.append(f"groundplan_gateway_attempts_total{{{labels}}} {count}")
    catalog = gateway.live.catalog
    gauges = {
        "groundplan_gateway_running": gateway.running,
        "groundplan_gateway_open_reservations": gateway.slices.open_count,
        "groundplan_gateway_journal_lag_bytes": gateway.journal.lag_bytes,
        "groundplan_gateway_journal_healthy": int(gateway.journal.healthy),
        "groundplan_gateway_policy_age_seconds": round(min(gateway.live.age(), 1e9), 3),
        "groundplan_gateway_policy_number": gateway.live.policy.number,
        "groundplan_gateway_blueprint": catalog.number if catalog else 0,
    }
    for name, value in gauges.items():
        lines.append(f"# TYPE {name} gauge\n{name}{{{worker}}} {value}")
    return ("\n".join(lines) + "\n").encode()
