"""The CPU that governance adds to a call: the whole call path with and without company rules, with cached decisions.

One gateway worker and a scripted upstream in this process, real sockets, blocks of calls that alternate between a
blueprint without rules and one with 100 of them, so that other load on the machine falls on both. The figure is the
median of the differences between neighbouring blocks, in milliseconds of CPU per call; guardrails are measured
separately. `admission_added_us` is the same difference for the admission step alone, which has the decision in it,
without a network.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import uvloop

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.policy import build_policies
from benchmarks.provenance import commit, machine
from tests.unit.call_rig import Rig, call_rig

from groundplan.blueprint import model as bp
from groundplan.core.ids import new_id_bytes
from groundplan.core.money import PICO
from groundplan.gateway.call import admit
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.guard.run import needs_guard
from groundplan.gateway.http.collected_response import CollectedResponse
from groundplan.gateway.http.server import Request
from groundplan.gateway.policy.catalog import Catalog, index
from groundplan.gateway.policy.gate import gate_of
from groundplan.gateway.surfaces.chat.surface import CHAT


async def measure_block(rig: Rig, calls: int) -> float:
    """Milliseconds of CPU per call, of so many calls on one connection."""
    request = rig.request().replace(b"connection: close\r\n", b"")
    reader, writer = await asyncio.open_connection("127.0.0.1", rig.port)
    started = time.process_time()
    for _ in range(calls):
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head[:16]:
            raise SystemExit(f"a call failed: {head[:40]!r}")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        await reader.readexactly(length)
    spent = time.process_time() - started
    writer.close()
    return spent / calls * 1000


def measure_admission(rig: Rig, catalog: Catalog) -> float:
    """Microseconds of CPU to choose deployments and to decide whether the call needs guardrails."""
    policy = rig.gateway.live.policy
    request = Request(0.0)
    request.body = rig.request().partition(b"\r\n\r\n")[2]
    exchange = Exchange(new_id_bytes(), request, CollectedResponse(), CHAT)
    exchange.catalog, exchange.policy, exchange.key = catalog, policy, next(iter(policy.keys.values()))
    plan, ask, now = catalog.plans["assistant"], CHAT.read(request), time.time()
    exchange.ask, exchange.plan = ask, plan
    durations = []
    for _ in range(4000):
        started = time.thread_time_ns()
        admit.choose_deployments(exchange, plan, ask, policy, now)
        needs_guard(exchange, plan, policy)
        durations.append(time.thread_time_ns() - started)
    return statistics.median(durations) / 1000


async def measure_differences(rig: Rig, plain: Catalog, other: Catalog, pairs: int, calls: int) -> list[float]:
    """CPU that each block of calls with the other blueprint takes more than its neighbour with the plain one."""
    live: Any = rig.gateway.live
    differences = []
    for number in range(pairs + 1):
        spent = {}
        for catalog in (plain, other) if number % 2 else (other, plain):
            live.catalog = catalog
            spent[id(catalog)] = await measure_block(rig, calls)
        differences.append(spent[id(other)] - spent[id(plain)])
    return differences[1:]


async def measure(pairs: int, calls: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="gp-path-") as folder:
        async with call_rig(Path(folder), ("one",), limit=10**6 * PICO) as rig:
            live: Any = rig.gateway.live
            plain = live.catalog
            with_rules = index(msgspec.structs.replace(plain.blueprint, policies=build_policies(100)))
            with_rules = replace(with_rules, gate=gate_of(with_rules.blueprint))
            workload = msgspec.structs.replace(
                plain.blueprint.workloads[0],
                guardrails=bp.Guardrails(
                    input={"personal_data": "mask", "secrets": "block", "injection": "flag"},
                    output={"personal_data": "flag", "secrets": "block"},
                ),
            )
            with_guardrails = index(msgspec.structs.replace(plain.blueprint, workloads=[workload]))
            added_by_rules = await measure_differences(rig, plain, with_rules, pairs, calls)
            added_by_guardrails = await measure_differences(rig, plain, with_guardrails, pairs, calls)
            admission = measure_admission(rig, plain), measure_admission(rig, with_rules)
    return {
        "added_by_rules_ms": round(statistics.median(added_by_rules), 4),
        "added_by_guardrails_ms": round(statistics.median(added_by_guardrails), 4),
        "admission_added_us": round(admission[1] - admission[0], 2),
        "spread_ms": round(
            statistics.quantiles(added_by_rules, n=4)[2] - statistics.quantiles(added_by_rules, n=4)[0], 4
        ),
        "policies": 100,
        "pairs": pairs,
        "calls": calls,
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--pairs", type=int, default=21)
    parser.add_argument("--calls", type=int, default=150)
    options = parser.parse_args()
    figures = uvloop.run(measure(options.pairs, options.calls)) | {
        "targets": {"added_by_rules_ms": 0.03},
        "machine": machine(),
        "load": round(os.getloadavg()[0], 1),
        "commit": commit(),
    }
    if options.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:>24}  {value}")


if __name__ == "__main__":
    main()
