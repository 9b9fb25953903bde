"""How many audit entries a second become durable: tiles, checkpoint and their fdatasync, with group commit; and how
fast they are verified and proved at `--proofs` entries.

Measures the file path of the log only; the entries (about 400 bytes) are made before, and PostgreSQL is not used.
`p50_ms` and `p99_ms` are the times of a whole group, which is what an entry in it waits at most once its group began.
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
        "machine": machine(),
        "commit": commit(),
    }


def prove(folder: Path, size: int, samples: int = 400) -> dict[str, object]:
    """A log of `size` entries: verified whole, then `samples` proofs of inclusion and consistency at random places."""
    key = Ed25519PrivateKey.generate()
    with AuditLog(folder / "proved", key) as log:
        while log.checkpoint.size < size:
            log.append(group_of(min(65_536, size - log.checkpoint.size)))
    begun = time.process_time()
    verdict = verify(folder / "proved", key.public_key().public_bytes_raw())
    seconds = time.process_time() - begun
    draw = random.Random(size)
    inclusion = [
        _timed(lambda at: inclusion_proof(folder / "proved", at), draw.randrange(size)) for _ in range(samples)
    ]
    consistency = [
        _timed(lambda at: consistency_proof(folder / "proved", at), draw.randrange(1, size)) for _ in range(samples)
    ]
    return {
        "proved_entries": size,
        "verified": verdict.ok,
        "verify_per_s": round(size / seconds),
        "inclusion_p50_ms": _rank(inclusion, 0.5),
        "inclusion_p99_ms": _rank(inclusion, 0.99),
        "consistency_p50_ms": _rank(consistency, 0.5),
        "consistency_p99_ms": _rank(consistency, 0.99),
    }


def _timed(work: Callable[[int], object], at: int) -> float:
    begun = time.process_time()
    work(at)
    return (time.process_time() - begun) * 1000


def _rank(times: list[float], at: float) -> float:
    return round(sorted(times)[int(len(times) * at)], 3)


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
            figures |= prove(Path(folder), options.proofs)
    if options.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:>18}  {value}")


if __name__ == "__main__":
    main()
