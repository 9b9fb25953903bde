"""`groundplan routing`: a router is kept only where it proved itself, as the next version, and drift shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from groundplan.cli.routing import app
from groundplan.core.errors import Conflict, NotFound


def run(*arguments: str) -> Any:
    """What a command prints as JSON; raises what it refuses with."""
    found = CliRunner().invoke(app, [*arguments, "--json"])
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return json.loads(found.stdout)


def written(path: Path, *, told_apart: bool) -> Path:
    """Prompts of which half need the large model; `told_apart`: one can see which."""
    dice = np.random.default_rng(2)
    rows = []
    for i in range(240):
        hard = bool(dice.random() < 0.5)
        shown = hard if told_apart else bool(dice.random() < 0.5)
        prompt = f"prove that {i} is a sum of primes" if shown else f"say hello to guest {i}"
        scores = {"large": 1.0, "small": 0.0 if hard else 1.0}
        costs = {"large": 0.01, "small": 0.001}
        rows.append({"id": str(i), "group": f"g{i}", "prompt": prompt, "scores": scores, "costs": costs})
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_a_router_is_trained_kept_judged_and_found_drifted(tmp_path: Path) -> None:
    answers = written(tmp_path / "set.jsonl", told_apart=True)
    home = ("--home", str(tmp_path / "home"))
    first = run("train", str(answers), "--name", "support", *home)
    assert first["router"] == "support@1"
    assert set(first["same_choice"]) == {"typos", "case", "spaces", "polite", "reworded"}
    (kept,) = run("list", *home)["routers"]
    assert (kept["router"], kept["digest"], kept["prompts"]) == ("support@1", first["digest"], "240")
    assert first["points"]["0.99"]["saved"] > 0.3
    assert (tmp_path / "home/routers/support@1.router").stat().st_mode & 0o777 == 0o600
    assert not run("evaluate", str(answers), "--router", "support@1", *home)["drifted"]
    changed = written(tmp_path / "other.jsonl", told_apart=False)
    assert run("evaluate", str(changed), "--router", "support", *home)["drifted"]
    with pytest.raises(NotFound) as told:
        run("evaluate", str(answers), "--router", "support@7", *home)
    assert told.value.code == "router_unknown"


def test_a_router_that_proves_nothing_is_not_kept(tmp_path: Path) -> None:
    answers = written(tmp_path / "set.jsonl", told_apart=False)
    with pytest.raises(Conflict) as told:
        run("train", str(answers), "--name", "support", "--home", str(tmp_path))
    assert told.value.code == "router_unproven"
    assert not (tmp_path / "routers").exists()
