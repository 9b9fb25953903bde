"""What was kept over some days, from daily samples. Pure.

A day without a sample (the control process was down, or nothing was sampled yet) counts as the last one before it, the
days before the first sample as that one; both are said. So a past day never changes once a sample of it is there.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from datetime import date, timedelta

GB = 1e9


def mean_gigabytes(samples: Mapping[date, Mapping[str, int]], first: date, last: date) -> tuple[dict[str, float], bool]:
    """(workload -> gigabytes on the mean of the days from `first` to `last`, whether each of them has its own sample).
    Without any sample nothing is known: no workloads, and False."""
    known = sorted(samples)
    if not known:
        return {}, False
    total: dict[str, int] = {}
    whole = True
    days = (last - first).days + 1
    for at in range(days):
        day = first + timedelta(days=at)
        nearest = known[max(0, bisect_right(known, day) - 1)]
        whole = whole and nearest == day
        for workload, count in samples[nearest].items():
            total[workload] = total.get(workload, 0) + count
    return {workload: count / days / GB for workload, count in total.items()}, whole
