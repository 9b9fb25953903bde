"""Rules for allocations between documents: what is divided is divided once, among workloads that exist."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from groundplan.catalog.allocation import AllocationDoc
from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import Problem


def allocations(workspace: Workspace) -> Iterator[Problem]:
    """No two of one term cover the same at the same time; shares name workloads that exist."""
    seen: list[tuple[str, AllocationDoc]] = []
    for name, doc in workspace.allocations.items():
        for other, earlier in seen:
            if (earlier.term, earlier.covers) == (doc.term, doc.covers) and _meet(earlier, doc):
                yield Problem(
                    f"{doc.term} of {doc.covers} is allocated by {other} on some of these days already",
                    "allocation_twice",
                    f"End {other} with until: before this one begins with from:, or give it another term.",
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


def _meet(one: AllocationDoc, two: AllocationDoc) -> bool:
    begins = max(one.since or date.min, two.since or date.min)
    return begins <= min(one.until or date.max, two.until or date.max)
