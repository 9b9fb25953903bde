"""What the gateway costs, measured from outside on a real installation: PostgreSQL, shipper, one worker with its
journal.

    python benchmarks/gateway.py [--json] [--seconds 4] [--long 200000] [--cache]

Beside it, in the same run: the upstream directly, nginx as a bare proxy (where installed) and a bare ASGI pass-through.
CPU is utime+stime of the process by /proc, per answered request. A run during which other processes took much of the
machine
is marked `disturbed`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
from msgspec import structs

from groundplan.blueprint import artifact
from groundplan.blueprint.model import Blueprint, Budget, Cache, Deployment, Rates, Site, Workload
from groundplan.core.audit.keys import create_keys, load_private
from groundplan.core.database import database_url
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.core.money import PICO
from groundplan.core.settings import load_settings
from groundplan.runtime.migrate import migrate
from groundplan.runtime.postgres import EmbeddedPostgres

HERE = Path(__file__).resolve().parent
TICK = os.sysconf("SC_CLK_TCK")
DISTURBED = 0.15
"""Share of the machine that other processes may take before a run counts as disturbed."""
KEY = "gp_benchmark0000000000000000000000000000000000"
TARGETS = {
    "cpu_ms": 0.20, "rps": 4500, "p50_added_ms": 0.8, "p99_added_ms": 3.0, "stream_cpu_ms": 0.7, "start_s": 5.0,
    "idle_mib": 120,
}  # fmt: skip
NGINX = """worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.err;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 100000000;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; uwsgi_temp_path
  {folder}/u;
  scgi_temp_path {folder}/s;
  upstream u {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 100000000; }}
  server {{ listen 127.0.0.1:{port} backlog=4096; location / {{
    proxy_http_version 1.1; proxy_set_header Connection ""; proxy_pass http://u; }} }} }}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def cpu_seconds(pids: list[int]) -> float:
    total = 0
    for pid in pids:
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
    return total / TICK


def children(pid: int) -> list[int]:
    found = [pid]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1]) == pid:
                    found.append(int(entry.name))
    return found


def machine_busy() -> tuple[float, float]:
    """(busy, all) seconds of the machine since it started."""
    numbers = [int(n) for n in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(numbers) - numbers[3] - numbers[4]) / TICK, sum(numbers) / TICK


def memory_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return round(int(line.split()[1]) / 1024, 1)
    return 0.0


def sync_p50_ms(folder: Path) -> float:
    """The disk's own fdatasync of 512 bytes into a preallocated file."""
    path = folder / "sync"
    path.write_bytes(bytes(1 << 20))
    descriptor = os.open(path, os.O_WRONLY)
    os.fsync(descriptor)
    times = []
    for number in range(300):
        os.pwrite(descriptor, bytes([number % 255 + 1]) * 512, number * 512)
        start = time.perf_counter()
        os.fdatasync(descriptor)
        times.append(time.perf_counter() - start)
    os.close(descriptor)
    return round(sorted(times)[150] * 1000, 3)


class Installation:
    """Everything that runs, and the processes to look at."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self.stack, self.folder = stack, folder
        self.home = Home(folder / "home")
        self.settings = replace(load_settings({}), home=self.home.root)
        self.upstream = free_port()
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self.listening.getsockname()[1]
        self.pids: dict[str, list[int]] = {}
        self.postmaster = 0

    def spawn(self, name: str, *command: str, fds: tuple[int, ...] = ()) -> subprocess.Popen[bytes]:
        log = (self.folder / f"{name}.log").open("ab")
        process = subprocess.Popen(command, stdout=log, stderr=log, pass_fds=fds)
        log.close()

        def stop() -> None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()

        self.stack.callback(stop)
        self.pids[name] = [process.pid]
        return process

    def database(self) -> None:
        self.home.create()
        create_keys(self.home)
        server = EmbeddedPostgres(self.home)
        server.start()
        self.postmaster = server.pid or 0
        self.stack.callback(server.remove)
        migrate(database_url(self.home, self.settings, "owner"))
        self.apply(blueprint(self.upstream))
        with psycopg.connect(database_url(self.home, self.settings, "control")) as connection:
            connection.execute(
                "INSERT INTO api_key (id, hash, prefix, workload, created_by) "
                "VALUES (%s, %s, 'gp_', 'assistant', 'operator')",
                (new_id(), hashlib.sha256(KEY.encode()).digest()),
            )
            connection.execute("SELECT next_policy_number('key', 'benchmark', false)")

    def apply(self, made: Blueprint) -> None:
        body = artifact.encode(made)
        signature = artifact.sign(body, load_private(self.home, "blueprint"))
        with psycopg.connect(database_url(self.home, self.settings, "control")) as connection:
            connection.execute(
                "INSERT INTO blueprint (number, body, digest, signature, key_id, sources, created_by, reason) "
                "VALUES (%s, %s, %s, %s, 'k', '{}', 'operator', 'benchmark')",
                (made.number, body, artifact.digest(body), signature),
            )
            connection.execute("SELECT pg_notify('groundplan_blueprint', %s)", (str(made.number),))

    def worker(self) -> float:
        """Start a worker; seconds until it is ready."""
        start = time.perf_counter()
        fd = self.listening.fileno()
        home = str(self.home.root)
        command = (sys.executable, "-m", "groundplan.gateway.app", "--home", home, "--fd", str(fd))
        self.spawn("worker", *command, fds=(fd,))
        wait_http(self.port, "/readyz", 20)
        return time.perf_counter() - start


def blueprint(upstream: int) -> Blueprint:
    rates = Rates(input=400_000_000_000, output=1_600_000_000_000)
    place = Deployment(
        name="gpt",
        site="cloud",
        model="openai/gpt",
        upstream_model="gpt",
        url=f"http://127.0.0.1:{upstream}/v1",
        rates=rates,
    )
    names = ["company", "team", "assistant"]
    covers = ["company", "team/platform", "workload/assistant"]
    budgets = [
        Budget(name=n, covers=c, limit=1_000_000 * PICO, period="month") for n, c in zip(names, covers, strict=True)
    ]
    workload = Workload(
        name="assistant", purpose="benchmark", stage="pilot", sensitivity="internal", audience="employees",
        residency=[],
        deployments=["gpt"], budgets=names, calls_per_day=1_000_000_000,
    )  # fmt: skip
    return Blueprint(
        number=1, company="acme", separation="solo", sites=[Site(name="cloud", type="cloud", jurisdiction="EU")],
        deployments=[place], sources=[], workloads=[workload], budgets=budgets, placements=[],
    )  # fmt: skip


def wait_http(port: int, path: str, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(OSError):
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                head = f"GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
                connection.sendall(head.encode())
                if b" 200 " in connection.recv(64):
                    return
        time.sleep(0.01)
    raise SystemExit(f"port {port} did not answer {path}")


def load(port: int, *options: str) -> dict[str, Any]:
    command = [sys.executable, str(HERE / "gateway_load.py"), "--port", str(port), "--key", KEY, *options]
    answer: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return answer


def measured(port: int, pids: dict[str, list[int]], *options: str) -> dict[str, Any]:
    """One run with the CPU of each process per answered request, and whether others disturbed it."""
    before = {name: cpu_seconds(found) for name, found in pids.items()}
    loaders = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy, all_time = machine_busy()
    result = load(port, *options)
    answered = max(1, result["ok"])
    used = {name: cpu_seconds(found) - before[name] for name, found in pids.items()}
    for name, seconds in used.items():
        result[f"{name}_cpu_ms"] = round(1000 * seconds / answered, 4)
    busy_now, all_now = machine_busy()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    ours = sum(used.values()) + after.ru_utime + after.ru_stime - loaders.ru_utime - loaders.ru_stime
    result["others_share"] = round(max(0.0, busy_now - busy - ours) / max(0.01, all_now - all_time), 2)
    result["disturbed"] = result["others_share"] > DISTURBED
    return result


def closed(port: int, pids: dict[str, list[int]], seconds: float, repeats: int = 3) -> dict[str, Any]:
    """The median run by rate."""
    runs = [measured(port, pids, "--conc", "32", "--secs", str(seconds)) for _ in range(repeats)]
    return sorted(runs, key=lambda run: run["rps"])[len(runs) // 2]


def cached(made: Installation, pids: dict[str, list[int]], seconds: float) -> dict[str, Any]:
    """The same load with every answer from the cache."""
    plain = blueprint(made.upstream)
    workloads = [
        structs.replace(w, cache=Cache(seconds=3600, max_bytes=1 << 26, scope="workload")) for w in plain.workloads
    ]
    made.apply(structs.replace(plain, number=2, workloads=workloads))
    time.sleep(2)
    load(made.port, "--conc", "1", "--secs", "0.2")
    found = {"cached_c32": closed(made.port, pids, seconds)}
    caught_up(pids["shipper"])
    found["cached_stream_c16"] = measured(made.port, pids, "--conc", "16", "--stream", "--secs", str(seconds))
    return found


def measure(seconds: float, long: int, cache: bool = False) -> dict[str, Any]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gateway-bench-")))
        made = Installation(stack, folder)
        made.database()
        made.spawn("upstream", sys.executable, str(HERE / "gateway_upstream.py"), "--port", str(made.upstream))
        made.spawn("shipper", sys.executable, "-m", "groundplan.gateway.shipper", "--home", str(made.home.root))
        start_s = made.worker()
        worker = made.pids["worker"][0]
        figures: dict[str, Any] = {"sync_p50_ms": sync_p50_ms(folder), "start_s": round(start_s, 2)}
        figures["idle_mib"] = memory_mib(worker)
        load(made.port, "--conc", "32", "--secs", "1")
        pids = {"worker": [worker], "shipper": made.pids["shipper"], "postgres": children(made.postmaster)}
        pids["upstream"] = made.pids["upstream"]
        figures["closed_c32"] = closed(made.port, pids, seconds)
        figures["catch_up_s"] = caught_up(pids["shipper"])
        figures["open_300"] = measured(made.port, pids, "--conc", "8", "--rate", "300", "--secs", str(seconds * 2))
        figures["open_300_direct"] = load(made.upstream, "--conc", "8", "--rate", "300", "--secs", str(seconds))
        caught_up(pids["shipper"])
        figures["stream_c16"] = measured(made.port, pids, "--conc", "16", "--stream", "--secs", str(seconds))
        figures["direct_c32"] = closed(made.upstream, {"upstream": made.pids["upstream"]}, seconds, 1)
        figures["asgi_c32"] = passthrough(made, seconds)
        figures["nginx_c32"] = nginx(made, seconds)
        figures["after_mib"] = memory_mib(worker)
        if cache:
            figures |= cached(made, pids, seconds)
        if long:
            load(made.port, "--conc", "32", "--secs", "3600", "--most", str(long))
            figures["long_calls"], figures["long_mib"] = long, memory_mib(worker)
        return figures | {"verdict": verdict(figures)}


def caught_up(shipper: list[int], most: float = 90.0) -> float:
    """Wait until shipping has nothing left of the run before, on the same two cores; returns the seconds."""
    start = time.monotonic()
    while time.monotonic() - start < most:
        before = cpu_seconds(shipper)
        time.sleep(1.0)
        if cpu_seconds(shipper) - before < 0.05:
            break
    return round(time.monotonic() - start, 1)


def passthrough(made: Installation, seconds: float) -> dict[str, Any]:
    port = free_port()
    script = str(HERE / "gateway_upstream.py")
    process = made.spawn("asgi", sys.executable, script, "--port", str(port), "--forward", str(made.upstream))
    time.sleep(2)
    try:
        return closed(port, {"asgi": made.pids["asgi"]}, seconds, 1)
    finally:
        process.terminate()


def nginx(made: Installation, seconds: float) -> dict[str, Any] | str:
    if shutil.which("nginx") is None:
        return "absent"
    port = free_port()
    configuration = made.folder / "nginx.conf"
    configuration.write_text(NGINX.format(folder=made.folder, port=port, upstream=made.upstream))
    process = made.spawn("nginx", "nginx", "-c", str(configuration), "-e", str(made.folder / "nginx.err"))
    time.sleep(1)
    try:
        return closed(port, {"nginx": children(process.pid)}, seconds, 1)
    finally:
        process.terminate()


def verdict(figures: dict[str, Any]) -> dict[str, Any]:
    """Each target with what was reached."""
    closed_run, open_run, direct = figures["closed_c32"], figures["open_300"], figures["open_300_direct"]
    reached = {
        "cpu_ms": closed_run["worker_cpu_ms"],
        "rps": closed_run["rps"],
        "p50_added_ms": round(open_run["p50_ms"] - direct["p50_ms"], 3),
        "p99_added_ms": round(open_run["p99_ms"] - direct["p99_ms"], 3),
        "stream_cpu_ms": figures["stream_c16"]["worker_cpu_ms"],
        "start_s": figures["start_s"],
        "idle_mib": figures["idle_mib"],
    }
    met = {name: value >= TARGETS[name] if name == "rps" else value <= TARGETS[name] for name, value in reached.items()}
    disturbed = closed_run["disturbed"] or open_run["disturbed"] or figures["stream_c16"]["disturbed"]
    return {"disturbed": disturbed} | {
        name: {"reached": reached[name], "target": TARGETS[name], "met": met[name]} for name in reached
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--long", type=int, default=0, help="calls of a long run, after which memory is told")
    parser.add_argument("--cache", action="store_true", help="also with every answer from the cache")
    arguments = parser.parse_args()
    figures = measure(arguments.seconds, arguments.long, arguments.cache)
    if arguments.json:
        print(json.dumps(figures))
        return 0
    verdicts = figures["verdict"]
    print("DISTURBED by other load: repeat" if verdicts.pop("disturbed") else "undisturbed")
    for name, row in verdicts.items():
        print(f"{name:14} {row['reached']:>10}  target {row['target']:>6}  {'met' if row['met'] else 'MISSED'}")
    for name in ("closed_c32", "open_300", "open_300_direct", "stream_c16", "direct_c32", "asgi_c32", "nginx_c32"):
        print(f"{name:16} {json.dumps(figures[name])}")
    for name in ("cached_c32", "cached_stream_c16"):
        if name in figures:
            print(f"{name:16} {json.dumps(figures[name])}")
    print(f"disk fdatasync p50 {figures['sync_p50_ms']} ms, memory after {figures['after_mib']} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
