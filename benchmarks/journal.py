"""The cost of reserving, settling and finishing a call on the gateway's event loop: CPU, with a real journal and real
fdatasync.

Prints a line, or JSON with `--json`. Does not measure the rest of the request path.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from pathlib import Path

from groundplan.core.ids import new_id
from groundplan.gateway.budgets.leases import Slices
from groundplan.gateway.journal.journal import Journal
from groundplan.ledger.model import Charge, Finish, Reservation, Settlement, Usage

STEPS = [("identify", 3), ("admit", 9), ("cache", 1), ("ground", 1), ("serve", 4200), ("settle", 12)]


async def record_call(journal: Journal, slices: Slices, call: bytes, charges: list[Charge]) -> None:
    """Write the three records of a plain call, with both waits for durability of the request path."""
    slices.reserve((call, 0), charges)
    at = 1_790_000_000_000
    reserved = journal.reserve(
        Reservation(call, 0, at, "assistant", "", "k", "/v1/chat/completions", "gpt-eu", "azure", "m", 1, 10, charges)
    )
    if (durable := journal.durable(reserved)) is not None:
        await durable
    slices.settle((call, 0), 7)
    journal.settle(Settlement(call, 0, at, 7, "ok", 200, Usage(input=812, output=90), False, [], 4200))
    finished = journal.finish(
        Finish(call, at, "assistant", "", "k", "/v1", "ok", 200, "", "gpt-eu", "none", 1, 4300, 4200, STEPS, [])
    )
    if (durable := journal.durable(finished)) is not None:
        await durable


def measure_records(journal: Journal, slices: Slices, charges: list[Charge], calls: list[bytes]) -> float:
    """CPU microseconds of the thread per call, without waiting for durability."""
    at, usage, flags = 1_790_000_000_000, Usage(input=812, output=90), list[str]()
    started = time.thread_time()
    for call in calls:
        slices.reserve((call, 0), charges)
        journal.reserve(
            Reservation(
                call, 0, at, "assistant", "", "k", "/v1/chat/completions", "gpt-eu", "azure", "m", 1, 10, charges
            )
        )
        slices.settle((call, 0), 7)
        journal.settle(Settlement(call, 0, at, 7, "ok", 200, usage, False, flags, 4200))
        journal.finish(
            Finish(call, at, "assistant", "", "k", "/v1", "ok", 200, "", "gpt-eu", "none", 1, 4300, 4200, STEPS, [])
        )
    return (time.thread_time() - started) / len(calls) * 1e6


async def measure(folder: Path, count: int, parallel: int) -> dict[str, float]:
    """Figures of `count` calls, of which `parallel` run at a time."""
    epoch = new_id()
    journal = Journal.open(folder / str(epoch), epoch, asyncio.get_running_loop(), 64 << 20)
    slices = Slices()
    charges = [Charge("assistant", "2026-11", 10), Charge("company", "2026-11", 10)]
    for charge in charges:
        slices.add_grant(charge.budget, charge.period, 1 << 60)
    figures = {"records_us": measure_records(journal, slices, charges, [new_id().bytes for _ in range(count)])}
    remaining = iter(range(count))
    durations: list[float] = []

    async def make_calls() -> None:
        for _ in remaining:
            started = time.perf_counter()
            await record_call(journal, slices, new_id().bytes, charges)
            durations.append(time.perf_counter() - started)

    started, cpu_before = time.perf_counter(), time.process_time()
    await asyncio.gather(*(make_calls() for _ in range(parallel)))
    durations.sort()
    figures["durable_calls_per_s"] = count / (time.perf_counter() - started)
    figures["durable_cpu_us"] = (time.process_time() - cpu_before) / count * 1e6
    figures["p50_ms"], figures["p99_ms"] = (
        durations[len(durations) // 2] * 1e3,
        durations[int(len(durations) * 0.99)] * 1e3,
    )
    figures["syncs"] = journal.counters.syncs
    await journal.close()
    return figures


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--parallel", type=int, default=32)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        figures = asyncio.run(measure(Path(folder), options.calls, options.parallel))
    figures |= {"calls": options.calls, "parallel": options.parallel, "cpus": os.cpu_count() or 0}
    print(json.dumps(figures) if options.json else "  ".join(f"{name} {value:,.2f}" for name, value in figures.items()))


if __name__ == "__main__":
    main()
