"""The installation that the gateway's benchmarks run on, and the CPU, memory and disturbance read of its processes.

Measures nothing by itself. CPU is utime+stime of a process by /proc, for each answered request.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg

from groundplan.blueprint import artifact
from groundplan.blueprint.model import Blueprint, Budget, Deployment, Limit, Rates, Site, Workload
from groundplan.core.audit.keys import create_keys, load_private
from groundplan.core.database import DATABASE, database_url
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.core.money import PICO
from groundplan.core.settings import child_environment, load_settings, mimalloc_environment
from groundplan.runtime.migrate import migrate
from groundplan.runtime.postgres import EmbeddedPostgres

HERE = Path(__file__).resolve().parent
TICK = os.sysconf("SC_CLK_TCK")
DISTURBED_SHARE = 0.15
"""Share of the machine that other processes may take before a run counts as disturbed."""
KEY = "gp_benchmark0000000000000000000000000000000000"
LIMITS = [
    Limit(name=kind, covers="workload/assistant", type=kind, amount=10**9, period=period)
    for kind, period in (("requests", "minute"), ("tokens", "minute"), ("concurrent", "now"))
]
"""Every call draws on these limits; none is refused by them."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def cpu_seconds(pids: list[int]) -> float:
    """CPU time that the processes took so far; ended ones count as none."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
    return total / TICK


def process_and_children(pid: int) -> list[int]:
    """The process and its direct children."""
    found = [pid]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1]) == pid:
                    found.append(int(entry.name))
    return found


def machine_cpu_seconds() -> tuple[float, float]:
    """(busy, total) CPU seconds of all cores since the machine started."""
    numbers = [int(n) for n in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(numbers) - numbers[3] - numbers[4]) / TICK, sum(numbers) / TICK


def memory_mib(pid: int) -> float:
    """The proportional set size of a process; 0 where the kernel does not tell it."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return round(int(line.split()[1]) / 1024, 1)
    return 0.0


def measure_fdatasync(folder: Path, samples: int = 300, pause: float = 0.0) -> dict[str, float]:
    """Latency of the disk's own fdatasync of 512 bytes into a preallocated file: `p50_ms`, `p99_ms` and `most_ms`.
    `pause`: seconds between two of them, in which cores and disk go to sleep."""
    path = folder / "sync"
    path.write_bytes(bytes(1 << 20))
    descriptor = os.open(path, os.O_WRONLY)
    os.fsync(descriptor)
    times = []
    for number in range(samples):
        time.sleep(pause)
        os.pwrite(descriptor, bytes([number % 255 + 1]) * 512, number * 512 % (1 << 20))
        start = time.perf_counter()
        os.fdatasync(descriptor)
        times.append((time.perf_counter() - start) * 1000)
    os.close(descriptor)
    times.sort()
    latencies = {"p50_ms": times[samples // 2], "p99_ms": times[samples * 99 // 100], "most_ms": times[-1]}
    return {name: round(value, 3) for name, value in latencies.items()}


def stop_process(process: subprocess.Popen[bytes]) -> None:
    """Terminate the process; kill it after 30 s."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()


class Installation:
    """Home, database, upstream and workers of one benchmark, and the process ids by name."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self.stack, self.folder = stack, folder
        self.home = Home(folder / "home")
        self.settings = replace(load_settings({}), home=self.home.root)
        self.upstream_port = free_port()
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self.listening.getsockname()[1]
        self.pids: dict[str, list[int]] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.postmaster = 0
        self._superuser_url = ""

    def spawn(
        self,
        name: str,
        *command: str,
        fds: tuple[int, ...] = (),
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a process that is stopped at the end."""
        log = (self.folder / f"{name}.log").open("ab")
        process = subprocess.Popen(command, stdout=log, stderr=log, pass_fds=fds, cwd=cwd, env=env)
        log.close()

        self.pids[name], self.processes[name] = [process.pid], process
        self.stack.callback(stop_process, process)
        return process

    def stop(self, name: str) -> None:
        """End one of the processes, if it was started."""
        if name in self.processes:
            stop_process(self.processes.pop(name))

    def start_database(self) -> None:
        """Start PostgreSQL with schema, keys, the first blueprint and the API key `KEY`."""
        self.home.create()
        create_keys(self.home)
        server = EmbeddedPostgres(self.home)
        server.start()
        self.postmaster, self._superuser_url = server.pid or 0, server.superuser_url(DATABASE)
        self.stack.callback(server.remove)
        migrate(database_url(self.home, self.settings, "owner"))
        self.apply_blueprint(build_blueprint(self.upstream_port))
        with psycopg.connect(database_url(self.home, self.settings, "control")) as connection:
            connection.execute(
                "INSERT INTO api_key (id, hash, prefix, workload, created_by) "
                "VALUES (%s, %s, 'gp_', 'assistant', 'operator')",
                (new_id(), hashlib.sha256(KEY.encode()).digest()),
            )
            connection.execute("SELECT next_policy_number('key', 'benchmark', false)")

    def maintain_database(self) -> None:
        """Vacuum, analyse and checkpoint the database, so that PostgreSQL does not do so beside the next measurement
        for the calls of an earlier one, of which there were thirty times as many a second."""
        with psycopg.connect(self._superuser_url, autocommit=True) as connection:
            connection.execute("VACUUM (ANALYZE)")
            connection.execute("CHECKPOINT")

    def apply_blueprint(self, blueprint: Blueprint) -> None:
        """Store a signed blueprint and notify the workers of it."""
        body = artifact.encode(blueprint)
        signature = artifact.sign(body, load_private(self.home, "blueprint"))
        with psycopg.connect(database_url(self.home, self.settings, "control")) as connection:
            connection.execute(
                "INSERT INTO blueprint (number, body, digest, signature, key_id, sources, created_by, reason) "
                "VALUES (%s, %s, %s, %s, 'k', '{}', 'operator', 'benchmark')",
                (blueprint.number, body, artifact.digest(body), signature),
            )
            connection.execute("SELECT pg_notify('groundplan_blueprint', %s)", (str(blueprint.number),))

    def start_worker(self, name: str = "worker", slot: int = 0) -> float:
        """Start a worker; seconds until one is ready."""
        start = time.perf_counter()
        fd = self.listening.fileno()
        home = str(self.home.root)
        command = (sys.executable, "-m", "groundplan.gateway.app", "--home", home, "--fd", str(fd))
        self.spawn(name, *command, "--slot", str(slot), fds=(fd,), env=child_environment(mimalloc_environment()))
        wait_http(self.port, "/readyz", 20)
        return time.perf_counter() - start


def build_blueprint(upstream_port: int) -> Blueprint:
    """One workload with three budgets and `LIMITS`, whose deployment is the upstream on that port of loopback."""
    rates = Rates(input=400_000_000_000, output=1_600_000_000_000)
    deployment = Deployment(
        name="gpt",
        site="cloud",
        model="openai/gpt",
        upstream_model="gpt",
        url=f"http://127.0.0.1:{upstream_port}/v1",
        rates=rates,
    )
    budget_names = ["company", "team", "assistant"]
    covers = ["company", "team/platform", "workload/assistant"]
    budgets = [
        Budget(name=name, covers=scope, limit=1_000_000 * PICO, period="month")
        for name, scope in zip(budget_names, covers, strict=True)
    ]
    workload = Workload(
        name="assistant", purpose="benchmark", stage="production", sensitivity="internal", audience="employees",
        residency=[],
        deployments=["gpt"], budgets=budget_names,
    )  # fmt: skip
    return Blueprint(
        number=1, company="acme", separation="solo", sites=[Site(name="cloud", type="cloud", jurisdiction="EU")],
        deployments=[deployment], sources=[], workloads=[workload], budgets=budgets, placements=[], limits=LIMITS,
    )  # fmt: skip


def wait_http(port: int, path: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(OSError):
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                head = f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
                connection.sendall(head.encode())
                if b" 200 " in connection.recv(64):
                    return
        time.sleep(0.01)
    raise SystemExit(f"port {port} did not answer {path}")


class LoadFailed(SystemExit):
    """The load generator failed, for example because nothing listens on the port."""


def run_load(port: int, *options: str) -> dict[str, Any]:
    """Run the load generator once and return its figures. Raises `LoadFailed`."""
    command = [sys.executable, str(HERE / "gateway_load.py"), "--port", str(port), "--key", KEY, *options]
    process = subprocess.run(command, capture_output=True, check=False)
    if process.returncode:
        raise LoadFailed(f"the load generator failed: {process.stderr.decode(errors='replace')[-2000:]}")
    figures: dict[str, Any] = json.loads(process.stdout)
    return figures


def measure_load(port: int, pids: dict[str, list[int]], *options: str) -> dict[str, Any]:
    """One load run with the CPU of each process per answered request, and whether other processes disturbed it.
    Raises `LoadFailed`, also if no request was answered: latencies of failures are no figures."""
    before = {name: cpu_seconds(process_ids) for name, process_ids in pids.items()}
    children_before = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy_before, total_before = machine_cpu_seconds()
    result = run_load(port, *options)
    answered = result["ok"]
    if not answered:
        raise LoadFailed(f"none of {result['errors']} requests was answered: {result['sample_error'] or 'no time'}")
    used = {name: cpu_seconds(process_ids) - before[name] for name, process_ids in pids.items()}
    for name, seconds in used.items():
        result[f"{name}_cpu_ms"] = round(1000 * seconds / answered, 4)
    busy_after, total_after = machine_cpu_seconds()
    children_after = resource.getrusage(resource.RUSAGE_CHILDREN)
    own_seconds = (
        sum(used.values())
        + children_after.ru_utime
        + children_after.ru_stime
        - children_before.ru_utime
        - children_before.ru_stime
    )
    result["others_share"] = round(
        max(0.0, busy_after - busy_before - own_seconds) / max(0.01, total_after - total_before), 2
    )
    result["disturbed"] = result["others_share"] > DISTURBED_SHARE
    return result


def measure_closed_loop(
    port: int, pids: dict[str, list[int]], seconds: float, repeats: int = 3, *options: str, connections: int = 32
) -> dict[str, Any]:
    """The run with the median rate, of `repeats` runs in which each connection waits for its answers."""
    options = ("--conc", str(connections), "--secs", str(seconds), *options)
    runs = [measure_load(port, pids, *options) for _ in range(repeats)]
    return sorted(runs, key=lambda run: run["rps"])[len(runs) // 2]


def wait_for_shipper(shipper: list[int], timeout: float = 90.0) -> float:
    """Wait until the shipper has shipped what the previous run left, on the same two cores; returns the seconds."""
    start = time.monotonic()
    while time.monotonic() - start < timeout:
        before = cpu_seconds(shipper)
        time.sleep(1.0)
        if cpu_seconds(shipper) - before < 0.05:
            break
    return round(time.monotonic() - start, 1)
