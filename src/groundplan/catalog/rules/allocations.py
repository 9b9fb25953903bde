"""Rules for allocations: no cost is allocated twice, and shares name workloads that exist."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Final

from groundplan.catalog.allocation import AllocationDoc
from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import Problem

_COST_FIELDS: Final = ("cost", "rate", "currency", "per", "quantity", "purchase", "life", "count", "capacity")


def allocation_problems(workspace: Workspace) -> Iterator[Problem]:
    """Costs that are declared twice, and shares of unknown workloads. Several costs of one term may cover the same
    object if their sources differ."""
    earlier_docs: list[tuple[str, AllocationDoc]] = []
    for name, doc in workspace.allocations.items():
        for other, earlier in earlier_docs:
            if _is_duplicate(earlier, doc):
                yield Problem(
                    f"{doc.term} of {doc.covers} from '{doc.source}' is allocated by {other} on some of these days",
                    "allocation_twice",
                    f"Where one follows the other, end {other} with until: before this one begins with from:; where "
                    "both are spent, say by source: which contract, invoice or purchase each is from.",
                    workspace.where("allocation", name, "term"),
                )
        earlier_docs.append((name, doc))
        for workload in doc.shares:
            if workload not in workspace.workloads:
                yield Problem(
                    f"there is no workload {workload}",
                    "unknown_workload",
                    f"Declared are: {', '.join(sorted(workspace.workloads)) or 'none'}.",
                    workspace.where("allocation", name, "shares"),
                )


def _is_duplicate(first: AllocationDoc, second: AllocationDoc) -> bool:
    """Whether both allocate one source on the same days: the same cost, or a cost and its successor."""
    if (first.term, first.covers, first.source) != (second.term, second.covers, second.source) or not _overlap(
        first, second
    ):
        return False
    return _cost_key(first) == _cost_key(second) or _follows(first, second) or _follows(second, first)


def _cost_key(doc: AllocationDoc) -> tuple[object, ...]:
    return tuple(getattr(doc, name) for name in _COST_FIELDS)


def _follows(first: AllocationDoc, second: AllocationDoc) -> bool:
    """Whether the second allocation begins later. It is then most likely the new amount of the first one, whose end was
    forgotten."""
    return second.since is not None and (first.since is None or first.since < second.since)


def _overlap(first: AllocationDoc, second: AllocationDoc) -> bool:
    start = max(first.since or date.min, second.since or date.min)
    return start <= min(first.until or date.max, second.until or date.max)
