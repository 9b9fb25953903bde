"""All figures of the gateway in one run, as a table or as JSON. Run it as `python benchmarks/gateway.py`.

Governance is on: key, three limits, three budgets, journal with fdatasync, ledger, audit, metrics. The same run also
measures the upstream directly, nginx as a bare proxy (where installed), a bare ASGI pass-through, the least that counts
as a gateway, and other gateways named with their commands (`--peer`); those that have a target but no command are
listed as absent. A figure during which other processes took much of the machine is marked `disturbed`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from statistics import fmean
from typing import Any

import uvloop
from benchmarks.gateway_bed import (
    HERE,
    Installation,
    build_blueprint,
    free_port,
    measure_closed_loop,
    measure_fdatasync,
    measure_load,
    memory_mib,
    process_and_children,
    run_load,
    wait_for_shipper,
    wait_http,
)
from benchmarks.gateway_neighbours import NEIGHBOURS
from benchmarks.gateway_peers import Peer, measure_least, measure_nginx, measure_passthrough, measure_peer, parse_peers
from benchmarks.gateway_soak import GROWTH_MIB
from benchmarks.gateway_steps import measure_steps
from benchmarks.gateway_streams import StreamRound, raise_file_limit
from msgspec import structs

from groundplan.blueprint.model import Cache

TARGETS = {
    "cpu_ms": 0.13, "rps": 7500, "rps_c128": 7500, "two_workers_ratio": 1.15, "p50_added_ms": 0.7, "p99_added_ms": 2.0,
    "p50_added_20ms_ms": 0.4, "p50_added_20ms_random_ms": 0.4, "stream_cpu_ms": 0.45, "first_chunk_added_ms": 0.6,
    "first_chunk_added_random_ms": 0.6, "rps_200kb": 1500, "cached_cpu_ms": 0.08, "governance_ratio": 2.5,
    "governance_ratio_forwarder": 2.5, "governance_adds": 2.5, "governance_adds_asgi": 2.5,
    "start_s": 5.0, "idle_mib": 120, "streams_mib": 120, "long_mib": 120, "long_growth_mib": GROWTH_MIB,
    "lost_beside_neighbours": 0,
}  # fmt: skip
AT_LEAST = frozenset({"rps", "rps_c128", "rps_200kb"})
PEER_TARGETS = {"litellm": 70.0, "portkey": 8.0, "mlflow": 5.0, "tensorzero": 1.0}
SLOW_MS = 20
OPEN_STREAMS = 2000
LONG_CALLS = 1_000_000
"""Calls of the long run, over which memory has to stay flat."""
ABSENT = "absent: no command was named for it (--peer)"


class Suite:
    """One installation, and the figures measured on it."""

    def __init__(self, installation: Installation, seconds: float) -> None:
        self.installation, self.seconds = installation, seconds
        self.figures: dict[str, Any] = {}
        self.pids: dict[str, list[int]] = {}
        self.blueprints = 1

    def start(self) -> None:
        installation = self.installation
        installation.start_database()
        installation.spawn(
            "upstream", sys.executable, str(HERE / "gateway_upstream.py"), "--port", str(installation.upstream_port)
        )
        installation.spawn(
            "shipper", sys.executable, "-m", "groundplan.gateway.journal.shipper", "--home", str(installation.home.root)
        )
        start_s = installation.start_worker()
        worker = installation.pids["worker"]
        self.pids = {
            "worker": worker,
            "shipper": installation.pids["shipper"],
            "postgres": process_and_children(installation.postmaster),
        }
        self.pids["upstream"] = installation.pids["upstream"]
        self.figures |= {"sync_p50_ms": measure_fdatasync(installation.folder)["p50_ms"], "start_s": round(start_s, 2)}
        self.figures["idle_mib"] = memory_mib(worker[0])
        run_load(installation.port, "--conc", "32", "--secs", "1")

    def wait_for_shipper(self) -> float:
        """Wait until the shipper has shipped what the previous run left; returns the seconds."""
        return wait_for_shipper(self.pids["shipper"])

    def settle_database(self) -> None:
        """Wait until everything is shipped and maintained: for measurements of latency at a low rate."""
        self.wait_for_shipper()
        self.installation.maintain_database()

    def apply_changes(self, **changes: Any) -> None:
        """Apply a blueprint with these changes of its workload; `port`: another port of the upstream instead."""
        self.blueprints += 1
        blueprint = build_blueprint(changes.pop("port", self.installation.upstream_port))
        (workload,) = blueprint.workloads
        workloads = [structs.replace(workload, **changes)]
        self.installation.apply_blueprint(structs.replace(blueprint, number=self.blueprints, workloads=workloads))
        time.sleep(2)

    def measure_basics(self) -> None:
        """32 and 128 connections, 300 a second, streams, and the baselines."""
        port, seconds, figures = self.installation.port, self.seconds, self.figures
        figures["closed_c32"] = measure_closed_loop(port, self.pids, seconds)
        figures["catch_up_s"] = self.wait_for_shipper()
        figures["closed_c128"] = measure_closed_loop(port, self.pids, seconds, 1, connections=128)
        self.settle_database()
        rate = ("--conc", "8", "--rate", "300")
        figures["open_300"] = measure_load(port, self.pids, *rate, "--secs", str(seconds * 2))
        figures["open_300_direct"] = run_load(self.installation.upstream_port, *rate, "--secs", str(seconds))
        # for as long as the calls: a disk that stalls now and then has to show here too
        figures["sync_300"] = measure_fdatasync(self.installation.folder, round(seconds * 2 * 300), 1 / 300)
        self.wait_for_shipper()
        streams = ("--conc", "16", "--stream", "--secs", str(seconds))
        figures["stream_c16"] = measure_load(port, self.pids, *streams)
        open_streams = ("--conc", "16", "--stream", "--rate", "50")
        # also at random gaps: at even ones a stream of 100 ms ends just when another one begins
        for name, gaps in (("stream_open_50", ()), ("stream_open_50_random", ("--random",))):
            figures[name] = measure_load(port, self.pids, *open_streams, *gaps)
            figures[f"{name}_direct"] = run_load(self.installation.upstream_port, *open_streams, *gaps)
        figures["direct_c32"] = measure_closed_loop(
            self.installation.upstream_port, {"upstream": self.pids["upstream"]}, seconds, 1
        )
        figures["asgi_c32"] = measure_passthrough(self.installation, seconds)
        figures |= measure_least(self.installation, seconds)
        figures["nginx_c32"] = measure_nginx(self.installation, seconds)
        figures["after_mib"] = memory_mib(self.pids["worker"][0])

    def measure_slow_upstream(self) -> None:
        """300 a second before an upstream that takes 20 ms."""
        port = free_port()
        script = str(HERE / "gateway_upstream.py")
        self.installation.spawn("slow", sys.executable, script, "--port", str(port), "--delay-ms", str(SLOW_MS))
        wait_listening(port)
        self.apply_changes(port=port)
        self.settle_database()
        rate = ("--conc", "16", "--rate", "300", "--secs", str(self.seconds * 2))
        run_load(self.installation.port, *rate[:-1], "1")
        for name, gaps in (("open_300_20ms", ()), ("open_300_20ms_random", ("--random",))):
            self.figures[name] = measure_load(self.installation.port, self.pids, *rate, *gaps)
            self.figures[f"{name}_direct"] = run_load(port, *rate, *gaps)
        self.apply_changes()

    def measure_long_prompts(self) -> None:
        """Prompts of 200 kB, and the worker's memory before and after."""
        worker = self.pids["worker"][0]
        before = memory_mib(worker)
        run = measure_closed_loop(self.installation.port, self.pids, self.seconds, 1, "--bytes", "200000")
        self.figures["prompts_200kb"] = run | {"before_mib": before, "after_mib": memory_mib(worker)}
        self.wait_for_shipper()

    def measure_cached(self) -> None:
        """The same load with every answer from the cache."""
        self.apply_changes(cache=Cache(seconds=3600, max_bytes=1 << 26, scope="workload"))
        run_load(self.installation.port, "--conc", "1", "--secs", "0.2")
        self.figures["cached_c32"] = measure_closed_loop(self.installation.port, self.pids, self.seconds)
        self.wait_for_shipper()
        streams = ("--conc", "16", "--stream", "--secs", str(self.seconds))
        self.figures["cached_stream_c16"] = measure_load(self.installation.port, self.pids, *streams)
        self.apply_changes()

    def measure_open_streams(self) -> None:
        """Many streams open at once."""
        raise_file_limit()
        port = free_port()
        script = str(HERE / "gateway_upstream.py")
        self.installation.spawn("streams", sys.executable, script, "--port", str(port), "--gap-ms", "500")
        wait_listening(port)
        self.apply_changes(port=port)
        worker = self.pids["worker"][0]
        self.figures["open_streams"] = uvloop.run(StreamRound(self.installation.port).measure(OPEN_STREAMS, worker))
        self.apply_changes()

    def measure_beside_neighbours(self) -> None:
        """The same load while other processes keep the cores busy; no call may be lost or refused."""
        runs: dict[str, Any] = {}
        for name in NEIGHBOURS:
            process = self.installation.spawn(
                name, sys.executable, "-m", "benchmarks.gateway_neighbours", name, cwd=HERE.parent
            )
            time.sleep(6)
            rate = ("--conc", "8", "--rate", "300", "--secs", str(self.seconds))
            is_alive = process.poll() is None
            runs[name] = {
                "alive": is_alive,
                "closed_c32": measure_closed_loop(self.installation.port, self.pids, self.seconds, 1),
                "open_300": measure_load(self.installation.port, self.pids, *rate),
            }
            process.terminate()
            process.wait(30)
            self.wait_for_shipper()
        runs["lost"] = sum(run[kind]["errors"] for run in runs.values() for kind in ("closed_c32", "open_300"))
        self.figures["neighbours"] = runs

    def measure_two_workers(self) -> None:
        """CPU of two workers together per call, between two measurements of one: a machine that slows down meanwhile
        slows down both."""
        port, seconds = self.installation.port, self.seconds
        one = [measure_closed_loop(port, self.pids, seconds, 1, connections=128)]
        self.wait_for_shipper()
        self.installation.start_worker("worker-1", 1)
        time.sleep(2)
        pids = self.pids | {"worker": [*self.pids["worker"], *self.installation.pids["worker-1"]]}
        run_load(port, "--conc", "64", "--secs", "1")
        self.figures["two_workers_c128"] = measure_closed_loop(port, pids, seconds, 3, connections=128)
        self.wait_for_shipper()
        self.installation.stop("worker-1")
        time.sleep(2)
        one.append(measure_closed_loop(port, self.pids, seconds, 1, connections=128))
        self.figures["one_worker_c128"] = one
        self.wait_for_shipper()

    def measure_memory(self, calls: int) -> None:
        """Memory after a third of very many calls, and after all of them."""
        memory = []
        for part in (calls // 3, calls - calls // 3):
            run_load(self.installation.port, "--conc", "32", "--secs", "3600", "--most", str(part))
            memory.append(memory_mib(self.pids["worker"][0]))
        self.figures |= {"long_calls": calls, "long_third_mib": memory[0], "long_mib": memory[1]}
        self.wait_for_shipper()

    def measure_step_costs(self) -> None:
        """The cost of turning governance on; the installation's own worker and shipper are stopped for it."""
        for name in ("worker", "shipper"):
            self.installation.stop(name)
        self.figures["steps"] = measure_steps(self.installation, self.seconds, self.blueprints + 1)

    def measure_peers(self, peers: list[Peer]) -> None:
        figures = {peer.name: measure_peer(self.installation, peer, self.seconds) for peer in peers}
        self.figures["peers"] = figures | absent_peers(figures)


def absent_peers(peers: Iterable[str]) -> dict[str, str]:
    """`ABSENT` for each peer that has a target but was not measured."""
    measured = {name.lower() for name in peers}
    return {name: ABSENT for name in PEER_TARGETS if name not in measured}


def wait_listening(port: int) -> None:
    wait_http(port, "/", 20)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """The figures that the arguments ask for, in an order in which no part disturbs a later one."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gateway-bench-")))
        suite = Suite(Installation(stack, folder), arguments.seconds)
        suite.start()
        suite.measure_basics()
        if arguments.cache:
            suite.measure_cached()
        if arguments.all:
            for part in (
                suite.measure_slow_upstream,
                suite.measure_long_prompts,
                suite.measure_open_streams,
                suite.measure_beside_neighbours,
            ):
                part()
        if arguments.long:
            suite.measure_memory(arguments.long)
        if arguments.all:
            suite.measure_peers(
                parse_peers(arguments.peer, arguments.peer_path, arguments.peer_model, arguments.peer_header)
            )
        if arguments.all:
            suite.measure_two_workers()
            suite.measure_step_costs()
        return suite.figures | {"verdict": verdict(suite.figures)}


def measured_values(figures: dict[str, Any]) -> dict[str, float]:
    """The measured value of each target, where it was measured."""
    closed_run, open_run, direct = figures["closed_c32"], figures["open_300"], figures["open_300_direct"]
    values: dict[str, float] = {
        "cpu_ms": closed_run["worker_cpu_ms"],
        "rps": closed_run["rps"],
        "rps_c128": figures["closed_c128"]["rps"],
        "p50_added_ms": round(open_run["p50_ms"] - direct["p50_ms"], 3),
        "p99_added_ms": round(open_run["p99_ms"] - direct["p99_ms"], 3),
        "stream_cpu_ms": figures["stream_c16"]["worker_cpu_ms"],
        "first_chunk_added_ms": _added_first_chunk_ms(figures, "stream_open_50"),
        "first_chunk_added_random_ms": _added_first_chunk_ms(figures, "stream_open_50_random"),
        "start_s": figures["start_s"],
        "idle_mib": figures["idle_mib"],
    }
    if "cached_c32" in figures:
        values["cached_cpu_ms"] = figures["cached_c32"]["worker_cpu_ms"]
    if "long_mib" in figures:
        values["long_mib"] = figures["long_mib"]
        values["long_growth_mib"] = round(figures["long_mib"] - figures["long_third_mib"], 1)
    if "open_300_20ms" in figures:
        added = figures["open_300_20ms"]["p50_ms"] - figures["open_300_20ms_direct"]["p50_ms"]
        values["p50_added_20ms_ms"] = round(added, 3)
        added = figures["open_300_20ms_random"]["p50_ms"] - figures["open_300_20ms_random_direct"]["p50_ms"]
        values["p50_added_20ms_random_ms"] = round(added, 3)
        values["rps_200kb"] = figures["prompts_200kb"]["rps"]
        values["streams_mib"] = figures["open_streams"]["during_mib"]
        values["lost_beside_neighbours"] = figures["neighbours"]["lost"]
        two_workers_ms = figures["two_workers_c128"]["worker_cpu_ms"]
        one_worker_ms = fmean(run["worker_cpu_ms"] for run in figures["one_worker_c128"])
        values["two_workers_ratio"] = round(two_workers_ms / one_worker_ms, 2)
        steps = figures["steps"]
        governed_ms, least_ms = steps["shipping"]["worker_cpu_ms"], figures["least_c32"]["least_cpu_ms"]
        bare_ms = figures["asgi_c32"]["asgi_cpu_ms"]
        values["governance_adds"] = round((governed_ms - least_ms) / least_ms, 2)
        values["governance_adds_asgi"] = round((governed_ms - bare_ms) / bare_ms, 2)
        values["governance_ratio"] = round(governed_ms / least_ms, 2)
        values["governance_ratio_forwarder"] = round(governed_ms / steps["bare"]["worker_cpu_ms"], 2)
    return values


def _added_first_chunk_ms(figures: dict[str, Any], name: str) -> float:
    """Milliseconds that the gateway adds to the upstream's own time to the first chunk."""
    governed, direct = float(figures[name]["first_p50_ms"]), float(figures[f"{name}_direct"]["first_p50_ms"])
    return round(governed - direct, 3)


def verdict(figures: dict[str, Any]) -> dict[str, Any]:
    """Each target with the value reached, and whether that meets it."""
    rows: dict[str, Any] = {
        "disturbed": any(figures[name]["disturbed"] for name in ("closed_c32", "open_300", "stream_c16"))
    }
    for name, value in measured_values(figures).items():
        target = TARGETS[name]
        met = value >= target if name in AT_LEAST else value <= target
        rows[name] = {"reached": value, "target": target, "met": met}
    for name, run in figures.get("peers", {}).items():
        for rate_key, level in (("rps", "c32"), ("rps_c128", "c128")):
            if isinstance(run, dict) and run[rate_key]:
                times = round(figures[f"closed_{level}"]["rps"] / run[rate_key], 1)
                target = PEER_TARGETS.get(name.lower(), 1.0)
                rows[f"times {name} {level}"] = {"reached": times, "target": target, "met": times >= target}
    return rows


def print_table(figures: dict[str, Any]) -> None:
    """Print the verdict and all figures as a table."""
    verdicts = figures["verdict"]
    print("DISTURBED by other load: repeat" if verdicts.pop("disturbed") else "undisturbed")
    for name, row in verdicts.items():
        print(f"{name:22} {row['reached']:>10}  target {row['target']:>6}  {'met' if row['met'] else 'MISSED'}")
    for step, run in figures.get("steps", {}).items():
        mark = " disturbed" if run["disturbed"] else ""
        print(f"step {step:17} {run['worker_cpu_ms']:>10.4f} ms CPU, {run['rps']:.0f}/s{mark}")
    for name, run in figures.get("peers", {}).items():
        text = (
            run
            if isinstance(run, str)
            else f"{run['rps']}, {run['rps_c128']}/s, {run[f'{name}_cpu_ms']} ms CPU, {run['mib']} MiB"
        )
        print(f"peer {name:17} {text}")
    for name, run in figures.items():
        if name not in ("verdict", "steps", "peers"):
            print(f"{name:22} {json.dumps(run)}")


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    """What to measure: everything if peers are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--long", type=int, help=f"calls of a long run and its memory; with --all {LONG_CALLS:,}")
    parser.add_argument("--cache", action="store_true", help="also with every answer from the cache")
    parser.add_argument("--all", action="store_true", help="everything, as with --peer")
    parser.add_argument("--peer", action="append", default=[], help="NAME=COMMAND with {port} and {upstream}")
    parser.add_argument("--peer-path", action="append", default=[], help="NAME=/path of its chat completions")
    parser.add_argument("--peer-model", action="append", default=[], help="NAME=model that it is asked for")
    parser.add_argument("--peer-header", action="append", default=[], help="NAME=header: value that it needs")
    arguments = parser.parse_args(words)
    arguments.all = arguments.all or bool(arguments.peer)
    arguments.cache = arguments.cache or arguments.all
    if arguments.long is None:
        arguments.long = LONG_CALLS if arguments.all else 0
    return arguments


def main() -> int:
    arguments = parse_arguments()
    figures = measure(arguments)
    if arguments.json:
        print(json.dumps(figures))
    else:
        print_table(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
