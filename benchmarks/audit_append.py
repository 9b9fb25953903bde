"""How many audit entries a second become durable: tiles, checkpoint and their fdatasync, with group commit.

Measures the file path of the log only; the entries (about 400 bytes) are made before, and PostgreSQL is not used.
`p50_ms` and `p99_ms` are the times of a whole group, which is what an entry in it waits at most once its group began.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from groundplan.core.audit.entry import Entry, gateway_actor
from groundplan.core.audit.log import AuditLog
from groundplan.core.ids import new_id

EPOCH = new_id()


def group_of(size: int) -> list[bytes]:
    """Entries such as a finished call makes."""
    detail = {
        "workload": "staff-assistant",
        "deployment": "gpt-eu",
        "site": "azure-sweden",
        "cost_usd": "0.000123450000",
    }
    now = datetime.now(UTC)
    return [
        Entry(id := new_id(), now, "call.settled", gateway_actor(EPOCH), f"call/{id}", detail).encode()
        for _ in range(size)
    ]


def disk_p50_ms(folder: Path) -> float:
    """The median of one fdatasync of 4 KiB on this disk, in milliseconds."""
    times: list[float] = []
    descriptor = os.open(folder / "probe", os.O_WRONLY | os.O_CREAT, 0o600)
    for _ in range(200):
        os.write(descriptor, b"x" * 4096)
        begun = time.perf_counter()
        os.fdatasync(descriptor)
        times.append(time.perf_counter() - begun)
    os.close(descriptor)
    return statistics.median(times) * 1000


def commit() -> str:
    """The commit of this checkout, or unknown."""
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"


def measure(folder: Path, seconds: float, group: int) -> dict[str, object]:
    """Append groups for about `seconds` of appending and return the figures."""
    times: list[float] = []
    with AuditLog(folder / "audit", Ed25519PrivateKey.generate()) as log:
        log.append(group_of(group))
        first = log.checkpoint.size
        while sum(times) < seconds:
            entries = group_of(group)
            begun = time.perf_counter()
            log.append(entries)
            times.append(time.perf_counter() - begun)
        total = log.checkpoint.size - first
    times.sort()
    return {
        "durable_per_s": round(total / sum(times)),
        "p50_ms": round(statistics.median(times) * 1000, 3),
        "p99_ms": round(times[min(len(times) - 1, int(len(times) * 0.99))] * 1000, 3),
        "fdatasync_p50_ms": round(disk_p50_ms(folder), 3),
        "entries": total,
        "group": group,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "commit": commit(),
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long to append")
    parser.add_argument("--group", type=int, default=2048, help="entries in a group commit")
    parser.add_argument("--folder", type=Path, help="on the disk to measure (default: a temporary folder here)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder or Path.cwd(), prefix=".bench-audit-") as folder:
        figures = measure(Path(folder), options.seconds, options.group)
    if options.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:>18}  {value}")


if __name__ == "__main__":
    main()
