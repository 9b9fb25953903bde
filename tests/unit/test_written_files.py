"""Every place that writes a file, and why a kill or a loss of power in the middle of it loses nothing that matters."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import groundplan

ROOT = Path(groundplan.__file__).parent
WRITES = {"write_text", "write_bytes", "touch", "hardlink_to", "copyfile", "copytree", "copyfileobj", "mkstemp"}
WRITES |= {"NamedTemporaryFile"}

WHOLE = "beside its place, synced, and put there by its name, which is synced, too"
GROWS = "synced as it grows; whoever reads it leaves out what is torn at its end"
MARK = "empty, a lock, or a mark whose name is synced"
ANEW = "made again, or thrown away, where it is missing or not what it should be"
ASIDE = "in a folder of its own that goes, or gets its name when all is synced"
ASKED = "a file that somebody named on the command line, who asks again"

WRITERS = {
    "api/demo.py": ANEW,  # a copy of the log that the demo tampers with
    "api/routes/data_room.py": ASIDE,
    "cli/client.py": ASKED,
    "cli/drafts.py": ASKED,
    "cli/erase.py": ASKED,
    "cli/imports.py": ASKED,
    "cli/knowledge.py": ASKED,
    "cli/placement.py": ASKED,
    "core/audit/archive.py": ASIDE,
    "core/audit/log.py": WHOLE,  # tiles that no checkpoint vouches for yet are written again
    "core/audit/seal.py": ANEW,  # by the next run, which knows the size of each
    "core/audit/verify.py": ASIDE,
    "core/home.py": WHOLE,
    "economics/routing/versions/registry.py": WHOLE,
    "gateway/batches/orders/order_journal.py": WHOLE,
    "gateway/files/blobs.py": WHOLE,
    "gateway/caching/idempotency.py": GROWS,
    "gateway/journal/segments.py": WHOLE,
    "gateway/journal/shipper.py": MARK,
    "gateway/journal/tail.py": MARK,
    "gateway/telemetry/stopped_workers.py": ANEW,  # counters that begin at nothing again
    "knowledge/deletion/tombstones.py": GROWS,  # the table has the same
    "knowledge/evaluation/history.py": GROWS,  # not synced: what earlier evaluations gave
    "knowledge/retrieval/projection_file.py": ANEW,
    "ledger/archive.py": ASIDE,
    "ledger/archive_store.py": ASIDE,
    "runtime/archive.py": WHOLE,
    "runtime/compute_process.py": MARK,  # of the kernel
    "runtime/backup.py": ASIDE,
    "runtime/child.py": ANEW,  # logs
    "runtime/models.py": ASIDE,
    "runtime/locks.py": MARK,
    "runtime/postgres_place.py": ASIDE,
    "runtime/table_dump.py": ASIDE,
}


def written(source: ast.AST) -> Iterator[int]:
    """Lines of a module that open a file to write, or write one."""
    for call in ast.walk(source):
        if not isinstance(call, ast.Call):
            continue
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        given = [*call.args, *(keyword.value for keyword in call.keywords)]
        modes = [each.value for each in given if isinstance(each, ast.Constant) and isinstance(each.value, str)]
        flags = {each.attr for each in ast.walk(call) if isinstance(each, ast.Attribute)}
        to_write = any(set(mode) <= set("rwaxbt+") and set(mode) & set("wax+") for mode in modes)
        if name in WRITES or (name == "open" and (to_write or flags & {"O_WRONLY", "O_CREAT"})):
            yield call.lineno


def test_every_written_file_survives_a_power_cut_or_is_recreated() -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in ROOT.rglob("*.py") if "testing" not in path.parts}
    found = {
        path.relative_to(ROOT).as_posix(): lines
        for path, text in texts.items()
        if any(word in text for word in ("open(", *WRITES)) and (lines := list(written(ast.parse(text))))
    }
    found.pop("cli/output.py")  # standard output that goes nowhere
    assert {name: found[name] for name in found.keys() - WRITERS.keys()} == {}, "which of these is it?"
    assert WRITERS.keys() - found.keys() == set(), "it writes none any more"
