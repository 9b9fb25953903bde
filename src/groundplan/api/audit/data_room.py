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
    """Period, scope and sample of a data room."""

    since: datetime
    until: datetime
    workload: str | None
    sample: int
    seed: str


def write_room(home: Home, conn: Connection[Any], wanted: RoomRequest, now: datetime, path: Path) -> dict[str, Any]:
    """Make the archive at `path` and return its manifest. Raises `NotFound` where nothing is declared."""
    current = controls.current(conn)
    digests: dict[str, str] = {}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:

        def put(name: str, data: bytes) -> None:
            archive.writestr(name, data)
            digests[name] = hashlib.sha256(data).hexdigest()

        size = _put_log(home, put)
        sampled = data_room_store.sample(conn, wanted.since, wanted.until, wanted.workload, wanted.seed, wanted.sample)
        for call in sampled:
            _put_call(home, conn, call, size, put)
        put("summary.json", _json(data_room_store.summary(conn, wanted.since, wanted.until, wanted.workload)))
        put("changes.json", _json(data_room_store.changes(conn, wanted.since, wanted.until)))
        put("evidence.json", _json(data_room_store.evidence(conn, wanted.since, wanted.until, wanted.workload)))
        known = controls.decisive_evidence(conn, now)
        for one in controls.frameworks(conn, now):
            put(f"controls/{one.framework.name}.json", _json(controls.framework_json(one, known, now)))
        entries = controls.register_entries(conn, current, now)
        put("register.json", _json([each.to_json() for each in entries]))
        scope = f"workload {wanted.workload}" if wanted.workload else "all workloads"
        told = README.format(
            company=current.blueprint.company, scope=scope, since=wanted.since.date(), until=wanted.until.date()
        )
        put("README.txt", told.encode())
        manifest = {
            "company": current.blueprint.company,
            "blueprint": current.blueprint.number,
            "from": wanted.since,
            "to": wanted.until,
            "workload": wanted.workload,
            "seed": wanted.seed,
            "sampled": [str(call) for call in sampled],
            "calls": data_room_store.count(conn, wanted.since, wanted.until, wanted.workload),
            "log_entries": size,
            "made_at": now,
            "files": dict(sorted(digests.items())),
        }
        archive.writestr("manifest.json", _json(manifest))
    return manifest


def delete_stale_exports(home: Home, now: datetime) -> None:
    """Delete what killed exports left behind: archives and copies of the whole log."""
    for path in home.run.glob("room-*"):
        with suppress(FileNotFoundError):  # one that ends just now
            if now.timestamp() - path.stat().st_mtime > STALE_SECONDS:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _put_log(home: Home, put: Callable[[str, bytes], None]) -> int:
    with tempfile.TemporaryDirectory(prefix="room-", dir=home.run) as folder:
        copied = Path(folder) / "log"
        size = copy_log(home.audit, copied)
        for file in sorted(each for each in copied.rglob("*") if each.is_file()):
            put(f"log/{file.relative_to(copied)}", file.read_bytes())
    return size


def _put_call(home: Home, conn: Connection[Any], call: UUID, size: int, put: Callable[[str, bytes], None]) -> None:
    receipt = queries.receipt(conn, call)
    put(f"calls/{call}.json", _json(receipt))
    audit = receipt["audit"]
    if audit is None or audit["index"] is None or audit["index"] >= size:
        return
    made = audit_proof.inclusion_proof(home.audit, audit["index"])
    told: Mapping[str, Any] = {
        "index": made.index,
        "entry": made.entry.decode("utf-8"),
        "hashes": [each.hex() for each in made.hashes],
        "checkpoint": made.checkpoint.decode("utf-8"),
    }
    put(f"proofs/{call}.json", _json(told))


def _json(value: Any) -> bytes:
    # laid out by msgspec: in Python that takes seconds, and many times the memory, of thousands of workloads
    return msgspec.json.format(json.dumps(value, ensure_ascii=False, default=str).encode("utf-8"), indent=1)
