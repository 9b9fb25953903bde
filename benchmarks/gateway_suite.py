"""All figures of the gateway in one run, as a table or as JSON. Run it as `python benchmarks/gateway.py`.

Governance is on: key, three limits, three budgets, journal with fdatasync, ledger, audit, metrics. Beside the gateway,
in the same run: the upstream directly, nginx as a bare proxy (where installed), a bare ASGI pass-through, the least
that counts as a gateway, and others that are named with their commands (`--peer`); of those with a target it is said
which are absent. A figure during which other processes took much of the machine is marked `disturbed`.
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
from typing import Any

import uvloop
from benchmarks.gateway_bed import (
    HERE,
    Installation,
    blueprint,
    caught_up,
    children,
    closed,
    free_port,
    load,
    measured,
    memory_mib,
    sync_ms,
    wait_http,
)
from benchmarks.gateway_neighbours import NAMES
from benchmarks.gateway_peers import Peer, declared, least, measure_peer, nginx, passthrough
from benchmarks.gateway_soak import GROWTH_MIB
from benchmarks.gateway_steps import measure_steps
from benchmarks.gateway_streams import Round, allow_files
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
"""Over which memory is to be flat."""
ABSENT = "absent: no command was named for it (--peer)"


class Suite:
    """One installation, and the figures that were taken of it."""

    def __init__(self, made: Installation, seconds: float) -> None:
        self.made, self.seconds = made, seconds
        self.figures: dict[str, Any] = {}
        self.pids: dict[str, list[int]] = {}
        self.blueprints = 1

    def start(self) -> None:
        made = self.made
        made.database()
        made.spawn("upstream", sys.executable, str(HERE / "gateway_upstream.py"), "--port", str(made.upstream))
        made.spawn("shipper", sys.executable, "-m", "groundplan.gateway.journal.shipper", "--home", str(made.home.root))
        start_s = made.worker()
        worker = made.pids["worker"]
        self.pids = {"worker": worker, "shipper": made.pids["shipper"], "postgres": children(made.postmaster)}
        self.pids["upstream"] = made.pids["upstream"]
        self.figures |= {"sync_p50_ms": sync_ms(made.folder)["p50_ms"], "start_s": round(start_s, 2)}
        self.figures["idle_mib"] = memory_mib(worker[0])
        load(made.port, "--conc", "32", "--secs", "1")

    def calm(self) -> float:
        """Until shipping has nothing left of the run before."""
        return caught_up(self.pids["shipper"])

    def apply(self, **changes: Any) -> None:
        """Another blueprint whose workload is changed, or whose deployment has another port."""
        self.blueprints += 1
        made = blueprint(changes.pop("port", self.made.upstream))
        (workload,) = made.workloads
        self.made.apply(structs.replace(made, number=self.blueprints, workloads=[structs.replace(workload, **changes)]))
        time.sleep(2)

    def basic(self) -> None:
        """32 and 128 connections, 300 a second, streams, and the baselines."""
        port, seconds, figures = self.made.port, self.seconds, self.figures
        figures["closed_c32"] = closed(port, self.pids, seconds)
        figures["catch_up_s"] = self.calm()
        figures["closed_c128"] = closed(port, self.pids, seconds, 1, connections=128)
        self.calm()
        rate = ("--conc", "8", "--rate", "300")
        figures["open_300"] = measured(port, self.pids, *rate, "--secs", str(seconds * 2))
        figures["open_300_direct"] = load(self.made.upstream, *rate, "--secs", str(seconds))
        # for as long as the calls: a disk that stands still now and then must be seen beside them
        figures["sync_300"] = sync_ms(self.made.folder, round(seconds * 2 * 300), 1 / 300)
        self.calm()
        streams = ("--conc", "16", "--stream", "--secs", str(seconds))
        figures["stream_c16"] = measured(port, self.pids, *streams)
        few = ("--conc", "16", "--stream", "--rate", "50")
        # at even gaps a stream of 100 ms ends just when another one begins
        for name, more in (("stream_open_50", ()), ("stream_open_50_random", ("--random",))):
            figures[name] = measured(port, self.pids, *few, *more)
            figures[f"{name}_direct"] = load(self.made.upstream, *few, *more)
        figures["direct_c32"] = closed(self.made.upstream, {"upstream": self.pids["upstream"]}, seconds, 1)
        figures["asgi_c32"] = passthrough(self.made, seconds)
        figures |= least(self.made, seconds)
        figures["nginx_c32"] = nginx(self.made, seconds)
        figures["after_mib"] = memory_mib(self.pids["worker"][0])

    def slow_upstream(self) -> None:
        """300 a second before an upstream that takes 20 ms."""
        port = free_port()
        script = str(HERE / "gateway_upstream.py")
        self.made.spawn("slow", sys.executable, script, "--port", str(port), "--delay-ms", str(SLOW_MS))
        wait_listening(port)
        self.apply(port=port)
        rate = ("--conc", "16", "--rate", "300", "--secs", str(self.seconds * 2))
        load(self.made.port, *rate[:-1], "1")
        for name, more in (("open_300_20ms", ()), ("open_300_20ms_random", ("--random",))):
            self.figures[name] = measured(self.made.port, self.pids, *rate, *more)
            self.figures[f"{name}_direct"] = load(port, *rate, *more)
        self.apply()

    def long_prompts(self) -> None:
        """Prompts of 200 kB, and what they leave in memory."""
        worker = self.pids["worker"][0]
        before = memory_mib(worker)
        run = closed(self.made.port, self.pids, self.seconds, 1, "--bytes", "200000")
        self.figures["prompts_200kb"] = run | {"before_mib": before, "after_mib": memory_mib(worker)}
        self.calm()

    def cached(self) -> None:
        """The same load with every answer from the cache."""
        self.apply(cache=Cache(seconds=3600, max_bytes=1 << 26, scope="workload"))
        load(self.made.port, "--conc", "1", "--secs", "0.2")
        self.figures["cached_c32"] = closed(self.made.port, self.pids, self.seconds)
        self.calm()
        streams = ("--conc", "16", "--stream", "--secs", str(self.seconds))
        self.figures["cached_stream_c16"] = measured(self.made.port, self.pids, *streams)
        self.apply()

    def open_streams(self) -> None:
        """Many streams that are open together."""
        allow_files()
        port = free_port()
        script = str(HERE / "gateway_upstream.py")
        self.made.spawn("streams", sys.executable, script, "--port", str(port), "--gap-ms", "500")
        wait_listening(port)
        self.apply(port=port)
        worker = self.pids["worker"][0]
        self.figures["open_streams"] = uvloop.run(Round(self.made.port).go(OPEN_STREAMS, worker))
        self.apply()

    def neighbours(self) -> None:
        """The same load while others keep the cores busy; nothing may be lost or refused."""
        found: dict[str, Any] = {}
        for name in NAMES:
            process = self.made.spawn(
                name, sys.executable, "-m", "benchmarks.gateway_neighbours", name, cwd=HERE.parent
            )
            time.sleep(6)
            rate = ("--conc", "8", "--rate", "300", "--secs", str(self.seconds))
            alive = process.poll() is None
            found[name] = {
                "alive": alive,
                "closed_c32": closed(self.made.port, self.pids, self.seconds, 1),
                "open_300": measured(self.made.port, self.pids, *rate),
            }
            process.terminate()
            process.wait(30)
            self.calm()
        found["lost"] = sum(run[kind]["errors"] for run in found.values() for kind in ("closed_c32", "open_300"))
        self.figures["neighbours"] = found

    def two_workers(self) -> None:
        """CPU of two workers together, for each call."""
        self.made.worker("worker-1", 1)
        time.sleep(2)
        pids = self.pids | {"worker": [*self.pids["worker"], *self.made.pids["worker-1"]]}
        load(self.made.port, "--conc", "64", "--secs", "1")
        self.figures["two_workers_c128"] = closed(self.made.port, pids, self.seconds, 3, connections=128)
        self.calm()

    def long(self, calls: int) -> None:
        """Memory over very many calls: after the first third of them, and after all."""
        memory = []
        for part in (calls // 3, calls - calls // 3):
            load(self.made.port, "--conc", "32", "--secs", "3600", "--most", str(part))
            memory.append(memory_mib(self.pids["worker"][0]))
        self.figures |= {"long_calls": calls, "long_third_mib": memory[0], "long_mib": memory[1]}
        self.calm()

    def steps(self) -> None:
        """The cost of turning governance on; the installation's own worker and shipper are stopped for it."""
        for name in ("worker", "worker-1", "shipper"):
            self.made.stop(name)
        self.figures["steps"] = measure_steps(self.made, self.seconds, self.blueprints + 1)

    def peers(self, peers: list[Peer]) -> None:
        found = {peer.name: measure_peer(self.made, peer, self.seconds) for peer in peers}
        self.figures["peers"] = found | unnamed(found)


def unnamed(peers: Iterable[str]) -> dict[str, str]:
    """Peers that have a target, and that nobody named a command for."""
    named = {name.lower() for name in peers}
    return {name: ABSENT for name in PEER_TARGETS if name not in named}


def wait_listening(port: int) -> None:
    wait_http(port, "/", 20)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """All that was asked for, in an order in which nothing disturbs what comes after it."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gateway-bench-")))
        suite = Suite(Installation(stack, folder), arguments.seconds)
        suite.start()
        suite.basic()
        if arguments.cache:
            suite.cached()
        if arguments.all:
            for part in (suite.slow_upstream, suite.long_prompts, suite.open_streams, suite.neighbours):
                part()
        if arguments.long:
            suite.long(arguments.long)
        if arguments.all:
            suite.peers(declared(arguments.peer, arguments.peer_path, arguments.peer_model, arguments.peer_header))
        if arguments.all:
            suite.two_workers()
            suite.steps()
        return suite.figures | {"verdict": verdict(suite.figures)}


def reached(figures: dict[str, Any]) -> dict[str, float]:
    """What stands beside a target, of all that was measured."""
    closed_run, open_run, direct = figures["closed_c32"], figures["open_300"], figures["open_300_direct"]
    found: dict[str, float] = {
        "cpu_ms": closed_run["worker_cpu_ms"],
        "rps": closed_run["rps"],
        "rps_c128": figures["closed_c128"]["rps"],
        "p50_added_ms": round(open_run["p50_ms"] - direct["p50_ms"], 3),
        "p99_added_ms": round(open_run["p99_ms"] - direct["p99_ms"], 3),
        "stream_cpu_ms": figures["stream_c16"]["worker_cpu_ms"],
        "first_chunk_added_ms": _first(figures, "stream_open_50"),
        "first_chunk_added_random_ms": _first(figures, "stream_open_50_random"),
        "start_s": figures["start_s"],
        "idle_mib": figures["idle_mib"],
    }
    if "cached_c32" in figures:
        found["cached_cpu_ms"] = figures["cached_c32"]["worker_cpu_ms"]
    if "long_mib" in figures:
        found["long_mib"] = figures["long_mib"]
        found["long_growth_mib"] = round(figures["long_mib"] - figures["long_third_mib"], 1)
    if "open_300_20ms" in figures:
        slow = figures["open_300_20ms"]["p50_ms"] - figures["open_300_20ms_direct"]["p50_ms"]
        found["p50_added_20ms_ms"] = round(slow, 3)
        slow = figures["open_300_20ms_random"]["p50_ms"] - figures["open_300_20ms_random_direct"]["p50_ms"]
        found["p50_added_20ms_random_ms"] = round(slow, 3)
        found["rps_200kb"] = figures["prompts_200kb"]["rps"]
        found["streams_mib"] = figures["open_streams"]["during_mib"]
        found["lost_beside_neighbours"] = figures["neighbours"]["lost"]
        two = figures["two_workers_c128"]["worker_cpu_ms"]
        found["two_workers_ratio"] = round(two / figures["closed_c128"]["worker_cpu_ms"], 2)
        steps = figures["steps"]
        governed, least_ms = steps["shipping"]["worker_cpu_ms"], figures["least_c32"]["least_cpu_ms"]
        bare_ms = figures["asgi_c32"]["asgi_cpu_ms"]
        found["governance_adds"] = round((governed - least_ms) / least_ms, 2)
        found["governance_adds_asgi"] = round((governed - bare_ms) / bare_ms, 2)
        found["governance_ratio"] = round(governed / least_ms, 2)
        found["governance_ratio_forwarder"] = round(governed / steps["bare"]["worker_cpu_ms"], 2)
    return found


def _first(figures: dict[str, Any], name: str) -> float:
    """Milliseconds until the first chunk, beside the upstream alone."""
    told, alone = float(figures[name]["first_p50_ms"]), float(figures[f"{name}_direct"]["first_p50_ms"])
    return round(told - alone, 3)


def verdict(figures: dict[str, Any]) -> dict[str, Any]:
    """Each target with what was reached."""
    found: dict[str, Any] = {
        "disturbed": any(figures[name]["disturbed"] for name in ("closed_c32", "open_300", "stream_c16"))
    }
    for name, value in reached(figures).items():
        target = TARGETS[name]
        met = value >= target if name in AT_LEAST else value <= target
        found[name] = {"reached": value, "target": target, "met": met}
    for name, run in figures.get("peers", {}).items():
        for rate, level in (("rps", "c32"), ("rps_c128", "c128")):
            if isinstance(run, dict) and run[rate]:
                times = round(figures[f"closed_{level}"]["rps"] / run[rate], 1)
                target = PEER_TARGETS.get(name.lower(), 1.0)
                found[f"times {name} {level}"] = {"reached": times, "target": target, "met": times >= target}
    return found


def shown(figures: dict[str, Any]) -> None:
    """The table."""
    verdicts = figures["verdict"]
    print("DISTURBED by other load: repeat" if verdicts.pop("disturbed") else "undisturbed")
    for name, row in verdicts.items():
        print(f"{name:22} {row['reached']:>10}  target {row['target']:>6}  {'met' if row['met'] else 'MISSED'}")
    for step, run in figures.get("steps", {}).items():
        told = " disturbed" if run["disturbed"] else ""
        print(f"step {step:17} {run['worker_cpu_ms']:>10.4f} ms CPU, {run['rps']:.0f}/s{told}")
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


def asked(words: list[str] | None = None) -> argparse.Namespace:
    """What is to be measured: everything, where other gateways are to stand beside it."""
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
    found = parser.parse_args(words)
    found.all = found.all or bool(found.peer)
    found.cache = found.cache or found.all
    if found.long is None:
        found.long = LONG_CALLS if found.all else 0
    return found


def main() -> int:
    arguments = asked()
    figures = measure(arguments)
    if arguments.json:
        print(json.dumps(figures))
    else:
        shown(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
