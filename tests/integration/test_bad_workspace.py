"""What people write wrong in a workspace: `groundplan check` names file, line and column of each, with a way out.

Each rule has its tests in test_catalog_loader and test_catalog_check; here the whole command, as one sees it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.unit.test_cli_main import run

WORKSPACE = """\
kind: company
name: acme
format: 1
---
kind: person
name: ana
email: ana@acme.example
full_name: Ana Lind
---
kind: team
name: north
includes: [south]
---
kind: team
name: south
---
kind: site
name: here
type: private
jurisdiction: EU
---
kind: deployment
name: local
site: here
model: acme/model
url: http://127.0.0.1:9/v1
price: {input: 0 USD/Mtok, output: 10 USD/Mtok}
---
kind: workload
name: assistant
purpose: Answer questions
stage: pilot
sensitivity: internal
owners: {business: ana}
---
kind: budget
name: assistant
covers: workload/assistant
limit: 100 USD/month
"""


def write_changed_workspace(folder: Path, old: bytes, new: bytes) -> Path:
    text = WORKSPACE.encode()
    assert not old or text.count(old) == 1, old
    (folder / "acme.yaml").write_bytes(text.replace(old, new) if old else text)
    return folder


def test_the_unchanged_workspace_is_valid(tmp_path: Path) -> None:
    done = run("check", str(write_changed_workspace(tmp_path, b"", b"")))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("old", "new", "code", "line"),
    [
        pytest.param(b"purpose: Answer", b"purpose: [Answer", "yaml_syntax", 32, id="wrong YAML"),
        pytest.param(b"kind: site", b"\tkind: site", "yaml_syntax", 17, id="a tab"),
        pytest.param(b"{business: ana}", b"{business: anna}", "unknown_person", 34, id="unknown owner"),
        pytest.param(b"name: south\n", b"name: south\nincludes: [north]\n", "cyclic_group", 16, id="cyclic team"),
        pytest.param(b"name: south", b"name: north", "duplicate_name", 15, id="duplicate name"),
        pytest.param(b"price: {input: 0 USD/Mtok, output: 10 USD/Mtok}\n", b"", "price_missing", 25, id="no price"),
        pytest.param(b"Ana Lind", "Ana Lünd".encode("latin-1"), "not_utf8", 8, id="not UTF-8"),
        pytest.param(b"Ana Lind", b"Ana \0 Lind", "yaml_syntax", 8, id="NUL"),
        pytest.param(b"purpose: A", b"porpose: A", "unknown_key", 31, id="unknown key"),
    ],
)  # fmt: skip
def test_a_mistake_is_reported_with_its_place(tmp_path: Path, old: bytes, new: bytes, code: str, line: int) -> None:
    folder = write_changed_workspace(tmp_path, old, new)
    for_people, for_programs = run("check", str(folder)), run("check", str(folder), "--json")
    assert for_people.returncode == for_programs.returncode == 65
    told = [p for p in json.loads(for_programs.stdout)["error"]["problems"] if p["code"] == code]
    assert told, for_programs.stdout
    assert any(problem["where"].startswith(f"acme.yaml:{line}:") for problem in told), told
    assert all(problem["hint"] and problem["message"] for problem in told)
    assert re.search(rf"^acme\.yaml:{line}:\d+: .*\[{code}\]$", for_people.stderr, re.MULTILINE), for_people.stderr
    for done in (for_people, for_programs):
        assert "Traceback" not in done.stdout + done.stderr
