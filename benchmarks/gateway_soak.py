"""A worker over a long time: an hour at half of its capacity, and the memory curve over a million calls.

    benchmarks/gateway_soak.py --minutes 60 --json       minutes at half load
    benchmarks/gateway_soak.py --calls 1000000 --json    calls at full load

Both may be given. Afterwards the ledger must have each call once, at its cost, with nothing reserved. Governance is on:
key, three budgets and limits, journal with fdatasync, shipper, audit. Does not compare with other gateways
(`gateway.py` does).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.gateway_bed import (
    HERE,
    Installation,
    machine_cpu_seconds,
    measure_fdatasync,
    measure_load,
    memory_mib,
    process_and_children,
    run_load,
)

from groundplan.core.database import database_url

GROWTH_MIB = 8.0
"""Memory that the worker may have more in the last third than in the first: caches of bounded size."""
PARTS = 20
"""Points of each curve."""
CATCH_UP_S = 1800.0
LEDGER_IDLE_S = 20.0
"""The ledger is complete once it has not grown for so long: a call whose connection was refused is recorded nowhere."""
FULL_LOAD_S = "40"
"""Duration of the full load that tells the capacity: long enough for shipping to take its share of the machine."""


class Soak:
    """One installation, and the curves measured on it."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.answered = 0
        self.refused = 0
        """Calls that got an error; a worker that is late refuses some."""
        self.figures: dict[str, Any] = {}

    def start(self) -> None:
        installation = self.installation
        installation.start_database()
        installation.spawn(
            "upstream", sys.executable, str(HERE / "gateway_upstream.py"), "--port", str(installation.upstream_port)
        )
        installation.spawn(
            "shipper", sys.executable, "-m", "groundplan.gateway.journal.shipper", "--home", str(installation.home.root)
        )
        installation.start_worker()
        self.pids = {name: installation.pids[name] for name in ("worker", "shipper")}
        self.pids["postgres"] = process_and_children(installation.postmaster)
        self.figures |= {
            "sync_p50_ms": measure_fdatasync(installation.folder)["p50_ms"],
            "idle_mib": memory_mib(self.pids["worker"][0]),
        }

    def measure_part(self, *options: str) -> dict[str, Any]:
        """One point of a curve: the calls answered so far, and the worker's memory and journal after this part."""
        run = measure_load(self.installation.port, self.pids, *options)
        self.answered += run["ok"]
        self.refused += run["errors"]
        worker, shipper = self.pids["worker"][0], self.pids["shipper"][0]
        journal = sum(path.stat().st_size for path in self.installation.home.journal.rglob("*.seg"))
        return {
            "calls": self.answered, "errors": run["errors"], "sample_error": run["sample_error"],
            "rps": run["rps"], "p99_ms": run["p99_ms"],
            "worker_mib": memory_mib(worker), "shipper_mib": memory_mib(shipper),
            "worker_cpu_ms": run["worker_cpu_ms"], "journal_mib": round(journal / (1 << 20), 1),
            "others_share": run["others_share"],
        }  # fmt: skip

    def measure_half_load(self, minutes: float) -> None:
        """Calls at half of the worker's capacity, which a full load measures first."""
        full_load = run_load(self.installation.port, "--conc", "32", "--secs", FULL_LOAD_S)
        self.answered, self.refused = self.answered + full_load["ok"], self.refused + full_load["errors"]
        rate = str(round(full_load["rps"] / 2, 1))
        seconds = str(round(minutes * 60 / PARTS, 1))
        curve = [self.measure_part("--conc", "16", "--rate", rate, "--secs", seconds) for _ in range(PARTS)]
        self.figures["half_load"] = {"minutes": minutes, "rate": float(rate), **summarize_curve(curve)}

    def measure_calls(self, count: int) -> None:
        """Calls at full load, until `count` were answered."""
        calls_per_part = str(-(-count // PARTS))
        curve = [self.measure_part("--conc", "32", "--secs", "7200", "--most", calls_per_part) for _ in range(PARTS)]
        self.figures["calls"] = {"wanted": count, **summarize_curve(curve)}

    def check_ledger(self) -> None:
        """Whether the ledger has every answered call exactly once, and no reservation is open any more."""
        started, url = time.monotonic(), database_url(self.installation.home, self.installation.settings, "owner")
        known_calls, grown_at = 0, started
        with psycopg.connect(url, autocommit=True) as connection:
            while time.monotonic() - started < CATCH_UP_S:
                (calls,) = connection.execute("SELECT count(*) FROM call").fetchone() or (0,)
                if calls > known_calls:
                    known_calls, grown_at = calls, time.monotonic()
                if calls >= self.answered + self.refused or time.monotonic() - grown_at > LEDGER_IDLE_S:
                    break
                time.sleep(1.0)
            row = connection.execute(
                """SELECT (SELECT count(*) FROM call), count(*), count(DISTINCT call_id), sum(cost_usd)::text,
                     count(*) FILTER (WHERE state = 'open' OR estimated) FROM attempt"""
            ).fetchone()
            (audited,) = connection.execute("SELECT count(*) FROM audit_entry WHERE action = 'call'").fetchone() or (0,)
        calls, attempts, distinct, cost, open_or_estimated = row or (0, 0, 0, "0", 0)
        self.figures["ledger"] = {
            "answered": self.answered, "calls": calls, "attempts": attempts, "audited": audited, "cost_usd": cost,
            "open_or_estimated": open_or_estimated, "caught_up_s": round(time.monotonic() - started, 1),
            "refused": self.refused,
            "exact": attempts == distinct == self.answered
            and calls == audited == self.answered + self.refused
            and not open_or_estimated,
        }  # fmt: skip


def summarize_curve(curve: list[dict[str, Any]]) -> dict[str, Any]:
    """A curve with its totals, and whether its memory is flat."""
    memory, third = [part["worker_mib"] for part in curve], len(curve) // 3
    growth = round(max(memory[-third:]) - max(memory[:third]), 1)
    return {
        "answered": curve[-1]["calls"],
        "errors": sum(part["errors"] for part in curve),
        "worker_mib": memory,
        "grown_mib": growth,
        "flat": growth <= GROWTH_MIB,
        "p99_ms": [part["p99_ms"] for part in curve],
        "others_share": round(sum(part["others_share"] for part in curve) / len(curve), 2),
        "curve": curve,
    }


def measure(minutes: float, calls: int) -> dict[str, Any]:
    busy_before, total_before = machine_cpu_seconds()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        soak = Soak(Installation(stack, folder))
        soak.start()
        if minutes:
            soak.measure_half_load(minutes)
        if calls:
            soak.measure_calls(calls)
        soak.check_ledger()
        figures = soak.figures
    busy_after, total_after = machine_cpu_seconds()
    figures["machine_busy"] = round((busy_after - busy_before) / max(1.0, total_after - total_before), 2)
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=0, help="at half load; 60 in `make soak`")
    parser.add_argument("--calls", type=int, default=0, help="at full load; 1000000 is the target's number")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if not arguments.minutes and not arguments.calls:
        parser.error("say how long: --minutes 60, --calls 1000000, or both")
    figures = measure(arguments.minutes, arguments.calls)
    if arguments.json:
        print(json.dumps(figures))
        return 0
    for name in ("half_load", "calls"):
        if (run := figures.get(name)) is not None:
            flatness = "flat" if run["flat"] else "NOT FLAT"
            print(f"{name}: {run['errors']} errors, {run['worker_mib'][0]} to {run['worker_mib'][-1]} MiB, {flatness}")
    print(f"ledger: {figures['ledger']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
