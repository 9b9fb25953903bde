"""Bytes stored on a day, from daily samples. Pure.

A day without a sample (the control process was down, or sampling had not begun) takes the last sample before it; days
before the first sample take that one. The result tells so. A past day never changes once it has a sample.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from datetime import date

Samples = Mapping[date, Mapping[str, int]]
"""Sampled day -> workload -> bytes"""


def stored_bytes_on(samples: Samples, sampled_days: list[date], day: date) -> tuple[Mapping[str, int], bool]:
    """(workload -> bytes on that day, whether it has its own sample). `sampled_days`: in order. Without any sample: no
    workloads, and False."""
    if not sampled_days:
        return {}, False
    nearest = sampled_days[max(0, bisect_right(sampled_days, day) - 1)]
    return samples[nearest], nearest == day
