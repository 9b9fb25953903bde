"""Details of a run for every benchmark of knowledge: command, machine, commit, and the load by other processes.

Measures nothing by itself.
"""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.gateway_bed import DISTURBED_SHARE, machine_cpu_seconds
from benchmarks.provenance import commit, machine


class Watch:
    """Measures the share of the machine's processors that other processes take during a measurement."""

    def __enter__(self) -> Watch:
        self._load = os.getloadavg()[0]
        self._busy_before, self._total_before = machine_cpu_seconds()
        self._own_before = _own_seconds()
        return self

    def __exit__(self, *_: object) -> None:
        busy_after, total_after = machine_cpu_seconds()
        others = busy_after - self._busy_before - (_own_seconds() - self._own_before)
        self._share = max(0.0, others) / max(0.01, total_after - self._total_before)

    def figures(self) -> dict[str, Any]:
        """`load_average` before and after; `others_share` of all processors; `valid`: whether that is small enough for
        wall-clock times to be meaningful."""
        return {
            "load_average": [round(self._load, 2), round(os.getloadavg()[0], 2)],
            "others_share": round(self._share, 3),
            "most_others_share": DISTURBED_SHARE,
            "valid": self._share <= DISTURBED_SHARE,
        }


def run_details(corpus: str) -> dict[str, Any]:
    """The corpus, command, machine and commit of a run."""
    script = f"benchmarks/{Path(sys.argv[0]).name}"
    return {
        "corpus": corpus,
        "command": f"python {shlex.join([script, *sys.argv[1:]])}",
        "machine": machine(),
        "commit": commit(),
    }


def _own_seconds() -> float:
    """Processor seconds of this process and all its children, including those that have ended."""
    own, total = psutil.Process(), 0.0
    for process in (own, *own.children(recursive=True)):
        with suppress(psutil.Error):
            total += sum(process.cpu_times()[:4])
    return total
