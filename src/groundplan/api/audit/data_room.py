"""The data room of an auditor: one archive in which every figure can be traced to its facts offline.

The sample is drawn by a seed, so anybody with the seed draws the same. Prompts and answers are not included; the log's
own files are, so that nothing in the archive has to be trusted. Nothing is changed here.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
from psycopg import Connection

from groundplan.api import controls
from groundplan.api.audit import data_room_store
from groundplan.core.audit import proof as audit_proof
from groundplan.core.audit.verify import copy_log
from groundplan.core.home import Home
from groundplan.ledger import queries

MAX_SAMPLE = 1000
"""The most calls in a sample."""
STALE_SECONDS = 86_400
"""Exports in HOME/run that are older belong to a process that was killed."""

README = """This is the data room of {company}: {scope}, {since} to {until}.

manifest.json    what is in here, with the SHA-256 of every file, and the seed of the sample
summary.json     calls, cost and refusals of the period by workload, summed over all calls, not over the sample
calls/ID.json    the receipt of each sampled call: steps, attempts, passages by name, charges, and its place in the log
changes.json     every change that was asked for in the period, with its approvals and refusals
evidence.json    what was shown in the period, by facts or by people; digests are in the log
controls/        each framework control by control, as of the end
register.json    models, deployments, providers, prompts, integrations, sources and workloads as of the end
log/             the audit log's own files

To check it with nothing of Groundplan but one script of 150 lines: python verify_log.py log
With the program: groundplan audit verify log
A receipt's entry is the leaf `audit.index`; `proofs/ID.json` proves that the log holds it under the checkpoint in log/.
"""


@dataclass(frozen=True, slots=True)
class RoomRequest:
    """The period (`since` included, `until` excluded), scope, sample size and seed of a data room."""

    since: datetime
    until: datetime
    workload: str | None
    sample: int
    seed: str


def write_room(home: Home, conn: Connection[Any], room: RoomRequest, now: datetime, path: Path) -> dict[str, Any]:
    """Make the archive at `path` and return its manifest. Raises `NotFound` where nothing is declared."""
    current = controls.current(conn)
    digests: dict[str, str] = {}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:

        def put(name: str, data: bytes) -> None:
            archive.writestr(name, data)
            digests[name] = hashlib.sha256(data).hexdigest()

        size = _put_log(home, put)
        sampled = data_room_store.sample(conn, room.since, room.until, room.workload, room.seed, room.sample)
        for call in sampled:
            _put_call(home, conn, call, size, put)
        put("summary.json", _json(data_room_store.summary(conn, room.since, room.until, room.workload)))
        put("changes.json", _json(data_room_store.changes(conn, room.since, room.until)))
        put("evidence.json", _json(data_room_store.evidence(conn, room.since, room.until, room.workload)))
        evidence = controls.decisive_evidence(conn, now)
        for framework in controls.frameworks(conn, now):
            put(f"controls/{framework.framework.name}.json", _json(controls.framework_json(framework, evidence, now)))
        entries = controls.register_entries(conn, current, now)
        put("register.json", _json([entry.to_json() for entry in entries]))
        scope = f"workload {room.workload}" if room.workload else "all workloads"
        readme = README.format(
            company=current.blueprint.company, scope=scope, since=room.since.date(), until=room.until.date()
        )
        put("README.txt", readme.encode())
        manifest = {
            "company": current.blueprint.company,
            "blueprint": current.blueprint.number,
            "from": room.since,
            "to": room.until,
            "workload": room.workload,
            "seed": room.seed,
            "sampled": [str(call) for call in sampled],
            "calls": data_room_store.count(conn, room.since, room.until, room.workload),
            "log_entries": size,
            "made_at": now,
            "files": dict(sorted(digests.items())),
        }
        archive.writestr("manifest.json", _json(manifest))
    return manifest


def delete_stale_exports(home: Home, now: datetime) -> None:
    """Delete files of exports whose process was killed: archives and copies of the whole log."""
    for path in home.run.glob("room-*"):
        with suppress(FileNotFoundError):  # an export that ends at this moment deletes its own files
            if now.timestamp() - path.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _put_log(home: Home, put: Callable[[str, bytes], None]) -> int:
    """Put a copy of the log's files into the archive; returns the number of entries that they have."""
    with tempfile.TemporaryDirectory(prefix="room-", dir=home.run) as folder:
        copied = Path(folder) / "log"
        size = copy_log(home.audit, copied)
        for file in sorted(path for path in copied.rglob("*") if path.is_file()):
            put(f"log/{file.relative_to(copied)}", file.read_bytes())
    return size


def _put_call(home: Home, conn: Connection[Any], call: UUID, size: int, put: Callable[[str, bytes], None]) -> None:
    """Put the receipt of a call into the archive, with the inclusion proof of its audit entry."""
    receipt = queries.receipt(conn, call)
    put(f"calls/{call}.json", _json(receipt))
    audit = receipt["audit"]
    if audit is None or audit["index"] is None or audit["index"] >= size:
        return
    proof = audit_proof.inclusion_proof(home.audit, audit["index"])
    value: Mapping[str, Any] = {
        "index": proof.index,
        "entry": proof.entry.decode("utf-8"),
        "hashes": [hash_.hex() for hash_ in proof.hashes],
        "checkpoint": proof.checkpoint.decode("utf-8"),
    }
    put(f"proofs/{call}.json", _json(value))


def _json(value: Any) -> bytes:
    # laid out by msgspec: in Python that takes seconds, and many times the memory, of thousands of workloads
    return msgspec.json.format(json.dumps(value, ensure_ascii=False, default=str).encode("utf-8"), indent=1)
