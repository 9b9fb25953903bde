"""What other gateways reach under the same load: nginx, a bare ASGI pass-through, the least that counts as a gateway,
and any that is named with its command.

A peer is started by its command, in which `{port}` and `{upstream}` are replaced, waited for, measured and stopped with
all that it started. One that chooses its port itself prints a line `port=N`.
One that does not come up or does not answer is told so. Installs nothing.
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
    children,
    closed,
    free_port,
    load,
    measured,
    memory_mib,
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
    """Another gateway: its shell command, and where and how it is asked."""

    name: str
    command: str
    path: str = "/v1/chat/completions"
    model: str = "gpt"
    headers: tuple[str, ...] = field(default=())

    def options(self, upstream: int) -> tuple[str, ...]:
        """For the load; `{upstream}` is replaced in headers too."""
        headers = [header.replace("{upstream}", str(upstream)) for header in self.headers]
        lines = [part for header in headers for part in ("--header", header)]
        return ("--path", self.path, "--model", self.model, *lines)


def declared(commands: list[str], paths: list[str], models: list[str], headers: list[str]) -> list[Peer]:
    """Peers of `NAME=COMMAND`, with `NAME=/path`, `NAME=model` and `NAME=header: value` of those that need them."""

    def of(name: str, values: list[str]) -> list[str]:
        return [value.partition("=")[2] for value in values if value.partition("=")[0] == name]

    found = []
    for text in commands:
        name, _, command = text.partition("=")
        if not name or not command:
            raise SystemExit(f"--peer is NAME=COMMAND, not {text!r}")
        path, model = of(name, paths) or ["/v1/chat/completions"], of(name, models) or ["gpt"]
        found.append(Peer(name, command, path[-1], model[-1], tuple(of(name, headers))))
    return found


def measure_peer(made: Installation, peer: Peer, seconds: float) -> dict[str, Any] | str:
    """Its figures at 32 connections, and its rate at 128; or why there are none."""
    port = free_port()
    command = peer.command.replace("{port}", str(port)).replace("{upstream}", str(made.upstream))
    log = made.folder / f"peer-{peer.name}.log"
    with log.open("ab") as out:
        process = subprocess.Popen(command, shell=True, stdout=out, stderr=out, start_new_session=True)
    try:
        port, problem = _wait(process, port, peer.options(made.upstream), log)
        if problem:
            last = log.read_text(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
            return f"{problem}: {last[0][:200]}"
        pids, around = tree(process.pid), {"upstream": made.pids["upstream"]}
        options = peer.options(made.upstream)
        figures = closed(port, {peer.name: pids} | around, seconds, 1, *options)
        figures["rps_c128"] = closed(port, {}, seconds, 1, *options, connections=128)["rps"]
        return figures | {"mib": round(sum(memory_mib(pid) for pid in pids), 1)}
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def _wait(process: subprocess.Popen[bytes], port: int, options: tuple[str, ...], log: Path) -> tuple[int, str]:
    """Until it answers a call: (its port, what is wrong where it never does)."""
    end = time.monotonic() + START_SECONDS
    sample = "it does not listen"
    while time.monotonic() < end:
        if process.poll() is not None:
            return port, f"absent or failed (exit {process.returncode})"
        chosen = re.search(r"(?m)^port=(\d+)$", log.read_text(errors="replace"))
        port = int(chosen[1]) if chosen else port
        with suppress(LoadFailed):
            answer = load(port, "--conc", "1", "--secs", "1", "--most", "1", *options)
            if answer["ok"]:
                return port, ""
            sample = answer["sample_error"] or sample
        time.sleep(0.5)
    return port, f"no answer within {START_SECONDS:g} s ({sample[:200]!r})"


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for one in found:
        found += [child for child in children(one) if child not in found]
    return found


def passthrough(made: Installation, seconds: float) -> dict[str, Any]:
    """A bare ASGI application under uvicorn."""
    port = free_port()
    script = str(HERE / "gateway_upstream.py")
    process = made.spawn("asgi", sys.executable, script, "--port", str(port), "--forward", str(made.upstream))
    time.sleep(2)
    try:
        return closed(port, {name: made.pids[name] for name in ("asgi", "upstream")}, seconds, 1)
    finally:
        process.terminate()


def least(made: Installation, seconds: float) -> dict[str, dict[str, Any]]:
    """`gateway_least`: as much as it can, 300 calls a second, and streams."""
    port = free_port()
    options = ["--port", str(port), "--upstream", str(made.upstream), "--key", KEY]
    options += ["--file", str(made.folder / "least.db")]
    process = made.spawn("least", sys.executable, "-m", "benchmarks.gateway_least", *options, cwd=HERE.parent)
    wait_http(port, "/", 20)
    pids = {name: made.pids[name] for name in ("least", "upstream")}
    stream = ("--conc", "16", "--stream")
    try:
        return {
            "least_c32": closed(port, pids, seconds, 1),
            "least_open_300": measured(port, pids, "--conc", "8", "--rate", "300", "--secs", str(seconds)),
            "least_stream_c16": measured(port, pids, *stream, "--secs", str(seconds)),
            "least_stream_open_50": measured(port, pids, *stream, "--rate", "50"),
        }
    finally:
        process.terminate()


def nginx(made: Installation, seconds: float) -> dict[str, Any] | str:
    """nginx as a bare proxy."""
    if shutil.which("nginx") is None:
        return "absent"
    port = free_port()
    configuration: Path = made.folder / "nginx.conf"
    configuration.write_text(NGINX.format(folder=made.folder, port=port, upstream=made.upstream))
    process = made.spawn("nginx", "nginx", "-c", str(configuration), "-e", str(made.folder / "nginx.err"))
    time.sleep(1)
    try:
        return closed(port, {"nginx": children(process.pid), "upstream": made.pids["upstream"]}, seconds, 1)
    finally:
        process.terminate()
