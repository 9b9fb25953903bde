"""Audit entries per second that become durable: tiles, checkpoint and their fdatasync, with group commit; and the speed
of verification and proofs at `--proofs` entries.

Measures the file path of the log only; the entries (about 400 bytes) are created before, and PostgreSQL is not used.
`p50_ms` and `p99_ms` are the times of a whole group: the longest wait of an entry once its group has started.
`verify_per_s` and the proofs are CPU time of one thread over files that were just written.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.provenance import commit, machine

from groundplan.core.audit.entry import Entry, gateway_actor
from groundplan.core.audit.log import AuditLog
from groundplan.core.audit.proof import consistency_proof, inclusion_proof
from groundplan.core.audit.verify import verify
from groundplan.core.ids import new_id

EPOCH = new_id()


def make_entries(size: int) -> list[bytes]:
    """`size` entries as finished calls write them."""
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


def measure_fdatasync_ms(folder: Path) -> float:
    """The median of one fdatasync of 4 KiB on this disk, in milliseconds."""
    times: list[float] = []
    descriptor = os.open(folder / "probe", os.O_WRONLY | os.O_CREAT, 0o600)
    for _ in range(200):
        os.write(descriptor, b"x" * 4096)
        started = time.perf_counter()
        os.fdatasync(descriptor)
        times.append(time.perf_counter() - started)
    os.close(descriptor)
    return statistics.median(times) * 1000


def measure(folder: Path, seconds: float, group: int) -> dict[str, object]:
    """Append groups for about `seconds` of appending and return the figures."""
    times: list[float] = []
    with AuditLog(folder / "audit", Ed25519PrivateKey.generate()) as log:
        log.append(make_entries(group))
        size_before = log.checkpoint.size
        while sum(times) < seconds:
            entries = make_entries(group)
            started = time.perf_counter()
            log.append(entries)
            times.append(time.perf_counter() - started)
        total = log.checkpoint.size - size_before
    times.sort()
    return {
        "durable_per_s": round(total / sum(times)),
        "p50_ms": round(statistics.median(times) * 1000, 3),
        "p99_ms": round(times[min(len(times) - 1, int(len(times) * 0.99))] * 1000, 3),
        "fdatasync_p50_ms": round(measure_fdatasync_ms(folder), 3),
        "entries": total,
        "group": group,
        "machine": machine(),
        "commit": commit(),
    }


def measure_proofs(folder: Path, size: int, samples: int = 400) -> dict[str, object]:
    """Figures of verifying a log of `size` entries, and of `samples` random proofs of inclusion and of consistency."""
    key = Ed25519PrivateKey.generate()
    with AuditLog(folder / "proved", key) as log:
        while log.checkpoint.size < size:
            log.append(make_entries(min(65_536, size - log.checkpoint.size)))
    started = time.process_time()
    verdict = verify(folder / "proved", key.public_key().public_bytes_raw())
    seconds = time.process_time() - started
    rng = random.Random(size)
    inclusion = [
        _cpu_ms(lambda index: inclusion_proof(folder / "proved", index), rng.randrange(size)) for _ in range(samples)
    ]
    consistency = [
        _cpu_ms(lambda index: consistency_proof(folder / "proved", index), rng.randrange(1, size))
        for _ in range(samples)
    ]
    return {
        "proved_entries": size,
        "verified": verdict.ok,
        "verify_per_s": round(size / seconds),
        "inclusion_p50_ms": _quantile(inclusion, 0.5),
        "inclusion_p99_ms": _quantile(inclusion, 0.99),
        "consistency_p50_ms": _quantile(consistency, 0.5),
        "consistency_p99_ms": _quantile(consistency, 0.99),
    }


def _cpu_ms(work: Callable[[int], object], index: int) -> float:
    started = time.process_time()
    work(index)
    return (time.process_time() - started) * 1000


def _quantile(times: list[float], q: float) -> float:
    return round(sorted(times)[int(len(times) * q)], 3)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long to append")
    parser.add_argument("--group", type=int, default=512, help="entries in a group commit")
    parser.add_argument("--proofs", type=int, default=1_000_000, help="entries of the log that is proved; 0: none")
    parser.add_argument("--folder", type=Path, help="on the disk to measure (default: a temporary folder here)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder or Path.cwd(), prefix=".bench-audit-") as folder:
        figures = measure(Path(folder), options.seconds, options.group)
        if options.proofs:
            figures |= measure_proofs(Path(folder), options.proofs)
    if options.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:>18}  {value}")


if __name__ == "__main__":
    main()
