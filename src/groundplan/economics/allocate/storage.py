"""What was kept on a day, from daily samples. Pure.

A day without a sample (the control process was down, or nothing was sampled yet) counts as the last one before it, the
days before the first sample as that one; both are said. So a past day never changes once a sample of it is there.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from datetime import date

Samples = Mapping[date, Mapping[str, int]]
"""Sampled day -> workload -> bytes"""


def kept_on(samples: Samples, known: list[date], day: date) -> tuple[Mapping[str, int], bool]:
    """(workload -> bytes on that day, whether it has its own sample). `known` are the sampled days in order. Without
    any sample nothing is known: no workloads, and False."""
    if not known:
        return {}, False
    nearest = known[max(0, bisect_right(known, day) - 1)]
    return samples[nearest], nearest == day
