"""Figures of other gateways under the same load: nginx, a bare ASGI pass-through, the least that counts as a gateway,
and any that is named with its command.

A peer is started by its command, in which `{port}` and `{upstream}` are replaced; the benchmark waits until the peer
answers, measures it and stops it with its child processes. A peer that chooses its port itself prints a line `port=N`.
One that does not start or does not answer is reported with the reason. Installs nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gateway_bed import (
    HERE,
    KEY,
    Installation,
    LoadFailed,
    free_port,
    measure_closed_loop,
    measure_load,
    memory_mib,
    process_and_children,
    run_load,
    wait_http,
)

START_SECONDS = 90.0
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


@dataclass(frozen=True)
class Peer:
    """Another gateway: its shell command, and the path, model and headers of calls to it."""

    name: str
    command: str
    path: str = "/v1/chat/completions"
    model: str = "gpt"
    headers: tuple[str, ...] = field(default=())

    def load_options(self, upstream: int) -> tuple[str, ...]:
        """Options of the load generator; `{upstream}` is replaced in headers too."""
        headers = [header.replace("{upstream}", str(upstream)) for header in self.headers]
        lines = [part for header in headers for part in ("--header", header)]
        return ("--path", self.path, "--model", self.model, *lines)


def parse_peers(commands: list[str], paths: list[str], models: list[str], headers: list[str]) -> list[Peer]:
    """Peers of `NAME=COMMAND`, with `NAME=/path`, `NAME=model` and `NAME=header: value` for those that need them."""

    def values_of(name: str, values: list[str]) -> list[str]:
        return [value.partition("=")[2] for value in values if value.partition("=")[0] == name]

    peers = []
    for text in commands:
        name, _, command = text.partition("=")
        if not name or not command:
            raise SystemExit(f"--peer is NAME=COMMAND, not {text!r}")
        path, model = values_of(name, paths) or ["/v1/chat/completions"], values_of(name, models) or ["gpt"]
        peers.append(Peer(name, command, path[-1], model[-1], tuple(values_of(name, headers))))
    return peers


def measure_peer(installation: Installation, peer: Peer, seconds: float) -> dict[str, Any] | str:
    """The peer's figures at 32 connections and its rate at 128; or why there are none."""
    port = free_port()
    command = peer.command.replace("{port}", str(port)).replace("{upstream}", str(installation.upstream_port))
    log = installation.folder / f"peer-{peer.name}.log"
    with log.open("ab") as log_file:
        process = subprocess.Popen(command, shell=True, stdout=log_file, stderr=log_file, start_new_session=True)
    try:
        port, problem = _wait_until_answering(process, port, peer.load_options(installation.upstream_port), log)
        if problem:
            last_line = log.read_text(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
            return f"{problem}: {last_line[0][:200]}"
        pids = process_tree(process.pid)
        options = peer.load_options(installation.upstream_port)
        processes = {peer.name: pids, "upstream": installation.pids["upstream"]}
        figures = measure_closed_loop(port, processes, seconds, 1, *options)
        figures["rps_c128"] = measure_closed_loop(port, {}, seconds, 1, *options, connections=128)["rps"]
        return figures | {"mib": round(sum(memory_mib(pid) for pid in pids), 1)}
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def _wait_until_answering(
    process: subprocess.Popen[bytes], port: int, options: tuple[str, ...], log: Path
) -> tuple[int, str]:
    """Wait until the peer answers a call: (its port, the problem if it never does)."""
    deadline = time.monotonic() + START_SECONDS
    problem = "it does not listen"
    while time.monotonic() < deadline:
        if process.poll() is not None:
            return port, f"absent or failed (exit {process.returncode})"
        port_line = re.search(r"(?m)^port=(\d+)$", log.read_text(errors="replace"))
        port = int(port_line[1]) if port_line else port
        with suppress(LoadFailed):
            run = run_load(port, "--conc", "1", "--secs", "1", "--most", "1", *options)
            if run["ok"]:
                return port, ""
            problem = run["sample_error"] or problem
        time.sleep(0.5)
    return port, f"no answer within {START_SECONDS:g} s ({problem[:200]!r})"


def process_tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    pids = [pid]
    for parent in pids:
        pids += [child for child in process_and_children(parent) if child not in pids]
    return pids


def measure_passthrough(installation: Installation, seconds: float) -> dict[str, Any]:
    """Figures of a bare ASGI application under uvicorn."""
    port = free_port()
    script = str(HERE / "gateway_upstream.py")
    process = installation.spawn(
        "asgi", sys.executable, script, "--port", str(port), "--forward", str(installation.upstream_port)
    )
    time.sleep(2)
    try:
        return measure_closed_loop(port, {name: installation.pids[name] for name in ("asgi", "upstream")}, seconds, 1)
    finally:
        process.terminate()


def measure_least(installation: Installation, seconds: float) -> dict[str, dict[str, Any]]:
    """Figures of `gateway_least`: at full load, at 300 calls a second, and with streams."""
    port = free_port()
    options = ["--port", str(port), "--upstream", str(installation.upstream_port), "--key", KEY]
    options += ["--file", str(installation.folder / "least.db")]
    process = installation.spawn("least", sys.executable, "-m", "benchmarks.gateway_least", *options, cwd=HERE.parent)
    wait_http(port, "/", 20)
    pids = {name: installation.pids[name] for name in ("least", "upstream")}
    stream = ("--conc", "16", "--stream")
    try:
        return {
            "least_c32": measure_closed_loop(port, pids, seconds, 1),
            "least_open_300": measure_load(port, pids, "--conc", "8", "--rate", "300", "--secs", str(seconds)),
            "least_stream_c16": measure_load(port, pids, *stream, "--secs", str(seconds)),
            "least_stream_open_50": measure_load(port, pids, *stream, "--rate", "50"),
        }
    finally:
        process.terminate()


def measure_nginx(installation: Installation, seconds: float) -> dict[str, Any] | str:
    """Figures of nginx as a bare proxy; `absent` where it is not installed."""
    if shutil.which("nginx") is None:
        return "absent"
    port = free_port()
    configuration: Path = installation.folder / "nginx.conf"
    configuration.write_text(NGINX.format(folder=installation.folder, port=port, upstream=installation.upstream_port))
    process = installation.spawn(
        "nginx", "nginx", "-c", str(configuration), "-e", str(installation.folder / "nginx.err")
    )
    time.sleep(1)
    try:
        return measure_closed_loop(
            port, {"nginx": process_and_children(process.pid), "upstream": installation.pids["upstream"]}, seconds, 1
        )
    finally:
        process.terminate()
