"""LiteLLM's load balancing among entries of one model name -> `balance` of the workload, `weight` of deployments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

from groundplan.catalog.imports.litellm_models import Entry
from groundplan.catalog.imports.naming import one_line
from groundplan.catalog.imports.node import Config
from groundplan.catalog.imports.verdict import CARRIED, CHANGED, Finding

_BALANCE = {
    "simple-shuffle": "weighted",
    "least-busy": "least-outstanding",
    "latency-based-routing": "latency",
    "cost-based-routing": "cheapest",
}
_MOST = 1000


def read_balance(config: Config, findings: list[Finding]) -> str:
    """The `balance` for the routing strategy; LiteLLM shuffles by default."""
    found = "weighted"
    for section in ("litellm_settings", "router_settings"):
        node = config.get(section, "routing_strategy")
        strategy = (node.text() or "") if node else ""
        if node is None:
            continue
        found = _BALANCE.get(strategy, "least-outstanding")
        state = CARRIED if strategy in _BALANCE else CHANGED
        here = f"reliability: {{balance: {found}}} where several deployments share the calls"
        findings.append(Finding(state, f"{section}.routing_strategy", here, "", node.where_key))
    return found


def deployment_weights(groups: Mapping[str, list[Entry]], balanced: str, findings: list[Finding]) -> dict[str, int]:
    """Deployment -> weight as LiteLLM computes it: by `weight`, else by `rpm`, else by `tpm`; entries without any of
    these are used when the others fail."""
    found: dict[str, int] = {}
    for group, entries in groups.items():
        for order in sorted({entry.order for entry in entries}):
            members = [entry for entry in entries if entry.order == order]
            given = [entry.weight for entry in members]
            if not any(given) and balanced == "weighted" and len(members) > 1:
                given = next(filter(any, (_rates(members, key) for key in ("requests", "tokens"))), given)
                if any(given):
                    here = "weight: of its deployments by their rpm or tpm, by which LiteLLM shares the calls"
                    findings.append(Finding(CHANGED, one_line(group), here, "", members[0].node.where))
            if any(share is not None for share in given):
                asked = any(share for entry, share in zip(members, given, strict=True) if not entry.missing)
                otherwise = Decimal(not asked or balanced != "weighted")
                scaled = _scaled([otherwise if share is None else share for share in given])
                found |= {entry.name: share for entry, share in zip(members, scaled, strict=True)}
    return found


def _rates(members: Iterable[Entry], key: str) -> list[Decimal | None]:
    """The limit per minute of each entry for `key`; None: no limit."""
    said = (entry.limit.get(key) for entry in members)
    return [Decimal(rate.partition("/")[0]) if rate else None for rate in said]


def _scaled(shares: list[Decimal]) -> list[int]:
    """Integer weights in the same proportions: in hundredths if there are fractions, capped at the largest weight."""
    scale = Decimal(100 if any(share != int(share) for share in shares) else 1)
    scale = min(scale, _MOST / max(shares)) if any(shares) else scale
    return [max(min(_MOST, int(share * scale)), int(share > 0)) for share in shares]
