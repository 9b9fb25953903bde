"""Promise 8: everything that matters is in an audit log that verifies from files alone; what is altered is named."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.acceptance.stack import installation, wait_until


def verify(home: Path) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "groundplan.cli.main", "audit", "verify", "--home", str(home), "--json"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, json.loads(done.stdout)


def test_copied_files_verify_alone_and_a_changed_entry_is_named(tmp_path: Path) -> None:
    with installation(tmp_path) as (stack, _upstream):
        key = stack.key()
        before = stack.cli("audit", "verify")["entries"]
        for number in range(5):
            assert stack.chat(key, f"question {number}").status == 200
        wait_until(lambda: stack.cli("audit", "verify")["entries"] >= before + 5, 10, "each call is a leaf within 5 s")
        copy = tmp_path / "copy"
        copy.mkdir()
        shutil.copytree(stack.home / "audit", copy / "audit")
    code, verdict = verify(copy)
    assert (code, verdict["ok"]) == (0, True)
    bundles = [path for path in (copy / "audit").rglob("*") if path.is_file() and "entries" in path.parts]
    data = bytearray(bundles[0].read_bytes())
    data[len(data) // 2] ^= 1
    bundles[0].write_bytes(data)
    code, verdict = verify(copy)
    assert (code, verdict["ok"]) == (1, False)
    assert verdict["problems"], "the altered entry is named"
