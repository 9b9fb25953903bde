"""The number of processors available to this process, which in a container may be fewer than the machine has."""

from __future__ import annotations

import os
from math import ceil
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")


def processors(groups: Path = _GROUPS) -> int:
    """Those that this process may run on, and no more than its control group (of either version) has time for."""
    bound = getattr(os, "sched_getaffinity", None)
    many = len(bound(0)) if bound is not None else os.cpu_count() or 1
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = " ".join((groups / name).read_text() for name in files).split()
            if int(quota) > 0:
                return max(1, min(many, ceil(int(quota) / int(period))))
        except (OSError, ValueError, ZeroDivisionError):  # another version, or no bound: `max`
            continue
    return many
