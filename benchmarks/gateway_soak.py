"""A worker over a long time: an hour at half of what it can do, and the memory curve over a million calls.

    benchmarks/gateway_soak.py --minutes 60 --json       at half load for so long
    benchmarks/gateway_soak.py --calls 1000000 --json    at full load, so many calls

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

from benchmarks.gateway_bed import HERE, Installation, children, load, machine_busy, measured, memory_mib, sync_ms

from groundplan.core.database import database_url

GROWTH_MIB = 8.0
"""What the worker may have more in the last third than in the first: caches of sizes that are bounded."""
PARTS = 20
"""Points of each curve."""
CATCH_UP_S = 1800.0
SETTLED_S = 20.0
"""The ledger is complete once nothing came for so long: no book has a call whose connection was refused."""
FULL_S = "40"
"""For how long it is asked for all that it can, so that shipping has its share of the machine."""


class Soak:
    """One installation, and the curves that were taken of it."""

    def __init__(self, made: Installation) -> None:
        self.made = made
        self.answered = 0
        self.refused = 0
        """Calls that got an error; a worker that is late refuses some."""
        self.figures: dict[str, Any] = {}

    def start(self) -> None:
        made = self.made
        made.database()
        made.spawn("upstream", sys.executable, str(HERE / "gateway_upstream.py"), "--port", str(made.upstream))
        made.spawn("shipper", sys.executable, "-m", "groundplan.gateway.journal.shipper", "--home", str(made.home.root))
        made.worker()
        self.pids = {name: made.pids[name] for name in ("worker", "shipper")}
        self.pids["postgres"] = children(made.postmaster)
        self.figures |= {"sync_p50_ms": sync_ms(made.folder)["p50_ms"], "idle_mib": memory_mib(self.pids["worker"][0])}

    def part(self, *options: str) -> dict[str, Any]:
        """One point of a curve: what was answered, and the worker's memory and journal after it."""
        run = measured(self.made.port, self.pids, *options)
        self.answered += run["ok"]
        self.refused += run["errors"]
        worker, shipper = self.pids["worker"][0], self.pids["shipper"][0]
        journal = sum(path.stat().st_size for path in self.made.home.journal.rglob("*.seg"))
        return {
            "calls": self.answered, "errors": run["errors"], "sample_error": run["sample_error"],
            "rps": run["rps"], "p99_ms": run["p99_ms"],
            "worker_mib": memory_mib(worker), "shipper_mib": memory_mib(shipper),
            "worker_cpu_ms": run["worker_cpu_ms"], "journal_mib": round(journal / (1 << 20), 1),
            "others_share": run["others_share"],
        }  # fmt: skip

    def half_load(self, minutes: float) -> None:
        """At half of what it answers when it is asked for all that it can."""
        full = load(self.made.port, "--conc", "32", "--secs", FULL_S)
        self.answered, self.refused = self.answered + full["ok"], self.refused + full["errors"]
        rate = str(round(full["rps"] / 2, 1))
        seconds = str(round(minutes * 60 / PARTS, 1))
        curve = [self.part("--conc", "16", "--rate", rate, "--secs", seconds) for _ in range(PARTS)]
        self.figures["half_load"] = {"minutes": minutes, "rate": float(rate), **judged(curve)}

    def calls(self, count: int) -> None:
        """As fast as it goes, until so many were answered."""
        most = str(-(-count // PARTS))
        curve = [self.part("--conc", "32", "--secs", "7200", "--most", most) for _ in range(PARTS)]
        self.figures["calls"] = {"wanted": count, **judged(curve)}

    def books(self) -> None:
        """Whether the ledger has every call that was answered once, and nothing is held any more."""
        began, url = time.monotonic(), database_url(self.made.home, self.made.settings, "owner")
        before, grown = 0, began
        with psycopg.connect(url, autocommit=True) as connection:
            while time.monotonic() - began < CATCH_UP_S:
                (calls,) = connection.execute("SELECT count(*) FROM call").fetchone() or (0,)
                if calls > before:
                    before, grown = calls, time.monotonic()
                if calls >= self.answered + self.refused or time.monotonic() - grown > SETTLED_S:
                    break
                time.sleep(1.0)
            row = connection.execute(
                """SELECT (SELECT count(*) FROM call), count(*), count(DISTINCT call_id), sum(cost_usd)::text,
                     count(*) FILTER (WHERE state = 'open' OR estimated) FROM attempt"""
            ).fetchone()
            (audited,) = connection.execute("SELECT count(*) FROM audit_entry WHERE action = 'call'").fetchone() or (0,)
        calls, attempts, distinct, cost, odd = row or (0, 0, 0, "0", 0)
        self.figures["ledger"] = {
            "answered": self.answered, "calls": calls, "attempts": attempts, "audited": audited, "cost_usd": cost,
            "open_or_estimated": odd, "caught_up_s": round(time.monotonic() - began, 1),
            "refused": self.refused,
            "exact": attempts == distinct == self.answered
            and calls == audited == self.answered + self.refused
            and not odd,
        }  # fmt: skip


def judged(curve: list[dict[str, Any]]) -> dict[str, Any]:
    """A curve with what is to be said of it."""
    memory, third = [part["worker_mib"] for part in curve], len(curve) // 3
    grown = round(max(memory[-third:]) - max(memory[:third]), 1)
    return {
        "answered": curve[-1]["calls"],
        "errors": sum(part["errors"] for part in curve),
        "worker_mib": memory,
        "grown_mib": grown,
        "flat": grown <= GROWTH_MIB,
        "p99_ms": [part["p99_ms"] for part in curve],
        "others_share": round(sum(part["others_share"] for part in curve) / len(curve), 2),
        "curve": curve,
    }


def measure(minutes: float, calls: int) -> dict[str, Any]:
    busy, every = machine_busy()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        soak = Soak(Installation(stack, folder))
        soak.start()
        if minutes:
            soak.half_load(minutes)
        if calls:
            soak.calls(calls)
        soak.books()
        figures = soak.figures
    now_busy, now_every = machine_busy()
    figures["machine_busy"] = round((now_busy - busy) / max(1.0, now_every - every), 2)
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
            told = "flat" if run["flat"] else "NOT FLAT"
            print(f"{name}: {run['errors']} errors, {run['worker_mib'][0]} to {run['worker_mib'][-1]} MiB, {told}")
    print(f"ledger: {figures['ledger']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
