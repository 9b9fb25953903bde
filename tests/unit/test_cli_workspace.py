"""`init` and `check` on files alone."""

from __future__ import annotations

import json
from pathlib import Path

from tests.unit.test_cli_main import run


def test_init_then_check(tmp_path: Path) -> None:
    folder = tmp_path / "company"
    made = run(
        "init", str(folder), "--upstream", "http://127.0.0.1:9/v1", "--upstream-model", "m", "--upstream-key",
        "env:UPSTREAM_KEY", "--price", "0.15/0.60", "--budget", "20", "--json",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["files"]
    checked = run("check", str(folder), "--json")
    assert checked.returncode == 0, checked.stdout
    assert json.loads(checked.stdout)["workloads"] == 1


def test_init_refuses_a_folder_that_holds_something(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    done = run("init", str(tmp_path), "--json")
    assert done.returncode == 75
    assert (tmp_path / "file").read_text() == "mine"


def test_check_tells_all_problems_with_their_places(tmp_path: Path) -> None:
    folder = tmp_path / "w"
    assert run("init", str(folder)).returncode == 0
    file = next(path for path in sorted(folder.glob("*.yaml")) if "kind: workload" in path.read_text())
    file.write_text(file.read_text().replace("purpose:", "porpose:").replace("stage:", "stagee:"))
    done = run("check", str(folder), "--json")
    assert done.returncode == 65
    problems = json.loads(done.stdout)["error"]["problems"]
    assert len(problems) >= 2
    assert all(problem["where"].startswith(file.name) for problem in problems)
    assert any("purpose" in problem["hint"] + problem["message"] for problem in problems)


def test_check_of_a_missing_folder(tmp_path: Path) -> None:
    done = run("check", str(tmp_path / "nowhere"))
    assert done.returncode == 65
    assert "workspace_missing" in done.stderr


def test_schema_is_json() -> None:
    done = run("check", "--schema")
    assert done.returncode == 0
    assert "$schema" in json.loads(done.stdout)
