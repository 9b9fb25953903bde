"""The cost of open streams: N streams at once through one worker of a real installation, in rounds, with the worker's
memory before, during and after.

    python -m benchmarks.gateway_streams [--streams 2000] [--rounds 3] [--gap-ms 500]

Each stream has 20 events, `--gap-ms` apart, so all are open at once for most of a round. One process opens them all.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import uvloop
from benchmarks.gateway_bed import HERE, KEY, Installation, cpu_seconds, memory_mib
from benchmarks.gateway_load import request_bytes


class StreamRound:
    """The streams of one round, and how they ended."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.request = request_bytes(port, "auto", KEY, stream=True)
        self.opened = self.completed = 0
        self.failures: list[str] = []

    async def stream(self) -> None:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError as error:
            self.failures.append(repr(error))
            return
        try:
            writer.write(self.request)
            head = await reader.readuntil(b"\r\n\r\n")
            self.opened += 1
            if b"transfer-encoding" not in head:
                self.failures.append((head + await reader.read(2000))[-300:].decode("latin-1"))
                return
            body = await reader.readuntil(b"\r\n0\r\n\r\n")
            if head[9:12] == b"200" and b"[DONE]" in body:
                self.completed += 1
            else:
                self.failures.append((head + body)[-300:].decode("latin-1"))
        except asyncio.IncompleteReadError as error:
            self.failures.append(error.partial[-300:].decode("latin-1"))
        except (OSError, asyncio.LimitOverrunError) as error:
            self.failures.append(repr(error))
        finally:
            writer.close()

    async def measure(self, count: int, worker: int) -> dict[str, Any]:
        before_mib, started, cpu_before = memory_mib(worker), time.perf_counter(), cpu_seconds([worker])
        tasks = []
        for number in range(count):
            tasks.append(asyncio.create_task(self.stream()))
            if number % 50 == 49:
                await asyncio.sleep(0.01)
        while self.opened + len(self.failures) < count:  # noqa: ASYNC110 -- ends with the streams
            await asyncio.sleep(0.05)
        during_mib = memory_mib(worker)
        await asyncio.gather(*tasks)
        return {
            "streams": count, "good": self.completed, "bad": len(self.failures),
            "sample_error": (self.failures or [""])[0],
            "before_mib": before_mib, "during_mib": during_mib, "after_mib": memory_mib(worker),
            "kib_per_stream": round((during_mib - before_mib) * 1024 / count, 1),
            "cpu_ms_per_stream": round(1000 * (cpu_seconds([worker]) - cpu_before) / count, 3),
            "seconds": round(time.perf_counter() - started, 1),
        }  # fmt: skip


def raise_file_limit() -> None:
    """Raise the limit of open files to the hard limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gap-ms", type=float, default=500)
    arguments = parser.parse_args()
    raise_file_limit()
    with ExitStack() as stack:
        installation = Installation(
            stack, Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gateway-streams-")))
        )
        installation.start_database()
        upstream_command = (
            sys.executable,
            str(HERE / "gateway_upstream.py"),
            "--port",
            str(installation.upstream_port),
        )
        installation.spawn("upstream", *upstream_command, "--gap-ms", str(arguments.gap_ms))
        installation.spawn(
            "shipper", sys.executable, "-m", "groundplan.gateway.journal.shipper", "--home", str(installation.home.root)
        )
        installation.start_worker()
        for _ in range(arguments.rounds):
            print(
                json.dumps(
                    uvloop.run(
                        StreamRound(installation.port).measure(arguments.streams, installation.pids["worker"][0])
                    )
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
