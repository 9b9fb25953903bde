"""`init` and `check` on files alone."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from tests.unit.test_cli_main import run

from groundplan.catalog.check import validate
from groundplan.catalog.scaffold import init
from groundplan.cli.unknown_settings import misspelt_settings
from groundplan.cli.up import missing_secrets
from groundplan.core.errors import Invalid


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


def test_init_asks_for_a_price_that_no_list_has(tmp_path: Path) -> None:
    folder = tmp_path / "company"
    upstream = ("init", str(folder), "--upstream", "https://models.example/v1", "--upstream-model")
    done = run(*upstream, "in-house-7b", "--json")
    assert done.returncode == 65
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "price_missing" and "in-house-7b" in error["message"]
    assert "--price" in error["hint"] and "--price free" in error["hint"]
    assert not folder.exists()
    assert run(*upstream, "in-house-7b", "--price", "free").returncode == 0
    assert run("check", str(folder)).returncode == 0


def test_an_amount_that_init_cannot_read_names_its_option_and_how_it_is_written(tmp_path: Path) -> None:
    for price, budget, option, hint in (("0,15/0,60", "5", "--price", "IN/OUT"), ("1/2", "50EUR", "--budget", "5/day")):
        with pytest.raises(Invalid) as caught:
            init(tmp_path / "x", upstream="https://m.example/v1", upstream_model="m", price=price, budget=budget)
        assert option in caught.value.message and hint in caught.value.hint


def test_check_of_a_file_names_its_folder(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("")
    done = run("check", str(tmp_path / "a.yaml"))
    assert done.returncode == 65 and f"Name its folder: {tmp_path}" in done.stderr


def test_a_listed_model_needs_no_price_and_the_next_command_works(tmp_path: Path) -> None:
    folder = tmp_path / "my company"
    done = run("init", str(folder), "--upstream", "https://models.example/v1", "--upstream-model", "gpt-4.1-mini")
    assert done.returncode == 0, done.stderr
    program, *following = shlex.split(done.stdout.partition("Next: ")[2].partition(",")[0])
    assert Path(program).name == "groundplan" and following == ["check", str(folder)]
    assert run(*following).returncode == 0


def test_up_tells_where_a_price_is_missing_before_it_starts_anything(tmp_path: Path) -> None:
    folder, home = tmp_path / "company", tmp_path / "home"
    upstream = ("--upstream", "https://models.example/v1", "--upstream-model", "in-house-7b")
    assert run("init", str(folder), *upstream, "--price", "1/2").returncode == 0
    company = folder / "groundplan.yaml"
    company.write_text("".join(line for line in company.read_text().splitlines(True) if "price:" not in line))
    done = run("up", "--workspace", str(folder), "--home", str(home), "--port", "0", "--control-port", "0")
    assert done.returncode == 65
    assert "price_missing" in done.stderr and "groundplan.yaml:" in done.stderr
    assert not (home / "postgres").exists()


def test_up_tells_which_keys_are_not_there(tmp_path: Path) -> None:
    folder = tmp_path / "company"
    upstream = ("--upstream", "https://api.anthropic.com", "--upstream-model", "claude-sonnet-4-5")
    assert run("init", str(folder), *upstream, "--upstream-key", "env:NOT_THERE_AT_ALL").returncode == 0
    (told,) = missing_secrets(validate(folder))
    assert told.startswith("groundplan.yaml:") and "calls of main will fail" in told
    assert told.endswith("Set NOT_THERE_AT_ALL where `groundplan up` starts.")


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


def test_a_variable_that_is_named_almost_as_one_of_ours_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = ("PORT", "PORT_8600_TCP_ADDR", "SERVICE_HOST", "SERVICE_PORT", "EXAMPLES", "MY_KEY", "HOME", "TLS_CERT")
    assert misspelt_settings({f"GROUNDPLAN_{name}": "1" for name in others} | {"DATABSE_URL": "1"}) == []
    (one, two) = misspelt_settings({"GROUNDPLAN_DATABSE_URL": "1", "GROUNDPLAN_OIDC_CLIENT_ID": "1"})
    assert "GROUNDPLAN_DATABSE_URL" in one.message and one.hint.startswith("Write GROUNDPLAN_DATABASE_URL,")
    assert two.hint.startswith("Write GROUNDPLAN_OIDC_CLIENT,")
    folder = tmp_path / "company"
    made = ("--upstream", "https://m.example/v1", "--upstream-model", "m", "--price", "free")
    assert run("init", str(folder), *made).returncode == 0
    monkeypatch.setenv("GROUNDPLAN_DRAIN_SECOND", "600")
    told = json.loads(run("check", str(folder), "--json").stdout)["warnings"]
    assert [(each["code"], each["hint"]) for each in told] == [
        ("setting_unknown", "Write GROUNDPLAN_DRAIN_SECONDS, or remove it.")
    ]
