"""Rules for allocations between documents: what is divided is divided once, among workloads that exist."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Final

from groundplan.catalog.allocation import AllocationDoc
from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import Problem

_COST: Final = ("cost", "rate", "currency", "per", "quantity", "purchase", "life", "count", "capacity")


def allocation_problems(workspace: Workspace) -> Iterator[Problem]:
    """Several costs of one term may cover the same, each by its name, but none is declared twice; shares name workloads
    that exist."""
    seen: list[tuple[str, AllocationDoc]] = []
    for name, doc in workspace.allocations.items():
        for other, earlier in seen:
            if _twice(earlier, doc):
                yield Problem(
                    f"{doc.term} of {doc.covers} from '{doc.source}' is allocated by {other} on some of these days",
                    "allocation_twice",
                    f"Where one follows the other, end {other} with until: before this one begins with from:; where "
                    "both are spent, say by source: which contract, invoice or purchase each is from.",
                    workspace.where("allocation", name, "term"),
                )
        seen.append((name, doc))
        for workload in doc.shares:
            if workload not in workspace.workloads:
                yield Problem(
                    f"there is no workload {workload}",
                    "unknown_workload",
                    f"Declared are: {', '.join(sorted(workspace.workloads)) or 'none'}.",
                    workspace.where("allocation", name, "shares"),
                )


def _twice(one: AllocationDoc, two: AllocationDoc) -> bool:
    """From one source on the same days: the same cost, or a cost and the one that follows it."""
    if (one.term, one.covers, one.source) != (two.term, two.covers, two.source) or not _meet(one, two):
        return False
    return _cost(one) == _cost(two) or _follows(one, two) or _follows(two, one)


def _cost(doc: AllocationDoc) -> tuple[object, ...]:
    return tuple(getattr(doc, name) for name in _COST)


def _follows(one: AllocationDoc, two: AllocationDoc) -> bool:
    """Whether the second one begins later: most likely what the first one costs from then on, whether or not somebody
    thought of its end."""
    return two.since is not None and (one.since is None or one.since < two.since)


def _meet(one: AllocationDoc, two: AllocationDoc) -> bool:
    begins = max(one.since or date.min, two.since or date.min)
    return begins <= min(one.until or date.max, two.until or date.max)
