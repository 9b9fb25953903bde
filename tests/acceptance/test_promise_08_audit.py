"""Promise 8: everything that matters is in an audit log that verifies from files alone; altered entries are named."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from groundplan.core.audit.checkpoint import parse_checkpoint, parse_note
from groundplan.core.audit.merkle import leaf_hash, verify_inclusion
from groundplan.core.audit.tiles import tile_path, tiles_of
from tests.acceptance.stack import Stack, installation, wait_until
from tests.integration.nursery import run_command


def verify(home: Path) -> tuple[int, dict[str, Any]]:
    completed = run_command(("audit", "verify", "--home", str(home), "--json"), os.environ, 60)
    return completed.returncode, json.loads(completed.stdout)


def log_size(home: Path) -> int:
    """Number of entries that the log's checkpoint covers."""
    return parse_checkpoint(parse_note((home / "audit" / "checkpoint").read_bytes()).text).size


def is_in_log(stack: Stack, call: str) -> bool:
    """Whether a call is in the ledger and its entry is in the log."""
    reply = stack.control("GET", f"/api/calls/{call}")
    return reply.status == 200 and reply.body["audit"] is not None and reply.body["audit"]["index"] is not None


def check_auditor_export(stack: Stack, folder: Path, first: str) -> None:
    """Export the auditor's archive, and check its figures, receipts and proofs without the installation."""
    last = datetime.now(UTC).date().isoformat()
    options = ("--from", first, "--to", last, "--sample", "3", "--seed", "auditor-7")
    stack.cli("export", "room", *options, "--out", str(folder / "a.zip"))
    stack.cli("export", "room", *options, "--out", str(folder / "b.zip"))
    room = folder / "room"
    with zipfile.ZipFile(folder / "a.zip") as archive, zipfile.ZipFile(folder / "b.zip") as again:
        manifest = json.loads(archive.read("manifest.json"))
        assert json.loads(again.read("manifest.json"))["sampled"] == manifest["sampled"], (
            "the same seed draws the same sample"
        )
        for name, digest in manifest["files"].items():
            assert hashlib.sha256(archive.read(name)).hexdigest() == digest
        archive.extractall(room)
    assert manifest["calls"] == 5 and len(manifest["sampled"]) == 3
    assert sum(row["calls"] for row in json.loads((room / "summary.json").read_text())) == 5
    verifier = Path(__file__).parents[2] / "docs" / "verify_log.py"
    verified = subprocess.run(
        [sys.executable, str(verifier), str(room / "log")], capture_output=True, text=True, timeout=60
    )
    assert verified.returncode == 0, verified.stdout
    for call in manifest["sampled"]:
        receipt = json.loads((room / "calls" / f"{call}.json").read_text())
        proof = json.loads((room / "proofs" / f"{call}.json").read_text())
        assert receipt["audit"]["index"] == proof["index"] and call in proof["entry"]
        checkpoint = parse_checkpoint(parse_note(proof["checkpoint"].encode()).text)
        hashes = [bytes.fromhex(each) for each in proof["hashes"]]
        leaf = leaf_hash(proof["entry"].encode())
        assert verify_inclusion(proof["index"], checkpoint.size, leaf, hashes, checkpoint.root)
    audit_entries = stack.control("GET", "/api/audit?limit=20&without=call").body["entries"]
    assert sum(entry["action"] == "export.room" for entry in audit_entries) == 2


def test_a_copied_log_verifies_and_a_changed_entry_is_reported(tmp_path: Path) -> None:
    with installation(tmp_path) as (stack, _upstream):
        key = stack.key()
        before = stack.cli("audit", "verify")["entries"]
        first = datetime.now(UTC).date().isoformat()
        answers = [stack.chat(key, f"question {number}") for number in range(5)]
        assert {answer.status for answer in answers} == {200}
        calls = [answer.headers["groundplan-call-id"] for answer in answers]
        wait_until(
            lambda: all(is_in_log(stack, call) for call in calls),
            30,
            "each call is in the log, without other activity within 5 s",
        )
        wait_until(lambda: log_size(stack.home) >= before + 5, 30, "the checkpoint covers them")
        assert stack.cli("audit", "verify")["entries"] >= before + 5
        copy = tmp_path / "copy"
        copy.mkdir()
        shutil.copytree(stack.home / "audit", copy / "audit")
        check_auditor_export(stack, tmp_path, first)
    code, verdict = verify(copy)
    assert (code, verdict["ok"]) == (0, True)
    *_, (index, width) = tiles_of(log_size(copy), 0)  # older tiles with fewer entries are superseded
    bundle = copy / "audit" / tile_path("entries", index, width)
    data = bytearray(bundle.read_bytes())
    data[len(data) // 2] ^= 1
    bundle.write_bytes(data)
    code, verdict = verify(copy)
    assert (code, verdict["ok"]) == (1, False)
    assert verdict["problems"], "the altered entry is named"
