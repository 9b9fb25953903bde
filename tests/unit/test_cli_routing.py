"""`groundplan routing`: a router is kept only where it proved itself, as the next version, and drift shows."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.unit.test_routing_model import make_matrix
from typer.testing import CliRunner

from groundplan.cli import training
from groundplan.cli.client import ControlClient
from groundplan.cli.routing import app
from groundplan.core.errors import Conflict, Invalid, NotFound
from groundplan.core.ids import new_id
from groundplan.economics.routing.learn.evaluate import evaluate
from groundplan.economics.routing.learn.fit import train
from groundplan.economics.routing.versions import registry


def run(*arguments: str) -> Any:
    """What a command prints as JSON; raises what it refuses with."""
    found = CliRunner().invoke(app, [*arguments, "--json"])
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return json.loads(found.stdout)


def write_prompts(path: Path, *, told_apart: bool, rows: int = 390, seed: int = 2) -> Path:
    """Prompts of which half need the large model; `told_apart`: one can see which."""
    dice = np.random.default_rng(seed)
    made = []
    for i in range(rows):
        hard = bool(dice.random() < 0.5)
        shown = hard if told_apart else bool(dice.random() < 0.5)
        prompt = f"prove that {i} is a sum of primes" if shown else f"say hello to guest {i}"
        scores = {"large": 1.0, "small": 0.0 if hard else 1.0}
        costs = {"large": 0.01, "small": 0.001}
        made.append({"id": str(i), "group": f"g{i}", "prompt": prompt, "scores": scores, "costs": costs})
    path.write_text("\n".join(map(json.dumps, made)))
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder with the answers `set.jsonl` and a `home`, where `support` was trained on them; what was told of it."""
    folder = tmp_path_factory.mktemp("trained")
    answers = write_prompts(folder / "set.jsonl", told_apart=True)
    return folder, run("train", str(answers), "--name", "support", "--home", str(folder / "home"))


def test_a_router_is_trained_kept_judged_and_found_drifted(trained: tuple[Path, Any], tmp_path: Path) -> None:
    folder, first = trained
    answers, home = folder / "set.jsonl", ("--home", str(folder / "home"))
    assert first["router"] == "support@1"
    assert set(first["same_choice"]) == {"typos", "case", "spaces", "polite", "reworded"}
    assert first["same_choice_at"] == "0.99"
    assert 0.4 < first["one_choice"] < 0.8, "of the point that is asked for: at a stricter one nobody might be routed"
    assert set(first["same_choice_away"]) == set(first["same_choice"])
    (kept,) = run("list", *home)["routers"]
    assert (kept["router"], kept["digest"], kept["prompts"]) == ("support@1", first["digest"], "390")
    assert first["points"]["0.99"]["saved"] > 0.3
    assert (folder / "home/routers/support@1.router").stat().st_mode & 0o777 == 0o600
    assert first["operating_points"]["0.99"] in first["points"]
    assert float(kept["low at 0.99"]) >= 0.99 and kept["against"] == "large"
    judged = run("evaluate", str(answers), "--router", "support@1", *home)
    assert not judged["drifted"]
    assert judged["points"]["0.99"]["shown"] and judged["points"]["0.99"]["low"] >= 0.99
    changed = write_prompts(tmp_path / "other.jsonl", told_apart=False)
    assert run("evaluate", str(changed), "--router", "support", *home)["drifted"]
    with pytest.raises(NotFound) as told:
        run("evaluate", str(answers), "--router", "support@7", *home)
    assert told.value.code == "router_unknown"


def test_a_router_that_is_judged_on_its_own_prompts_says_that_they_may_flatter_it(
    trained: tuple[Path, Any], tmp_path: Path
) -> None:
    own, home = trained[0] / "set.jsonl", ("--home", str(trained[0] / "home"))
    others = tmp_path / "others.jsonl"
    rows = [json.loads(line) for line in own.read_text().splitlines()]
    others.write_text("\n".join(json.dumps(row | {"prompt": f"{row['prompt']} soon{row['id']}x"}) for row in rows))
    for answers, known in ((own, 1.0), (others, 0.0)):
        said = CliRunner().invoke(app, ["evaluate", str(answers), "--router", "support", *home]).stdout
        assert ("were in its training" in said) is bool(known)
        assert run("evaluate", str(answers), "--router", "support", *home)["all_words_known"] == known


def test_a_router_that_proves_nothing_is_not_kept(tmp_path: Path) -> None:
    answers = write_prompts(tmp_path / "set.jsonl", told_apart=False)
    with pytest.raises(Conflict) as told:
        run("train", str(answers), "--name", "support", "--home", str(tmp_path))
    assert told.value.code == "router_unproven"
    assert not (tmp_path / "routers").exists()


def test_what_too_few_prompts_do_not_show_is_not_kept(tmp_path: Path) -> None:
    answers = write_prompts(tmp_path / "set.jsonl", told_apart=True, rows=240)
    with pytest.raises(Conflict) as told:
        run("train", str(answers), "--name", "support", "--home", str(tmp_path))
    assert (told.value.code, "keeps 100.0%" in told.value.message) == ("router_unproven", True)
    assert "is not shown" in told.value.message and "387 without a single loss" in str(told.value.hint)
    assert not (tmp_path / "routers").exists()
    assert run("train", str(answers), "--name", "support", "--keep", "0.98", "--home", str(tmp_path))["router"]
    router = registry.load_router(tmp_path / "routers", "support@1")
    assert set(router.points) == {"0.98", "0.95"}, "what is not shown is in no router"


def test_nothing_to_save_is_told_as_that(tmp_path: Path) -> None:
    answers = write_prompts(tmp_path / "set.jsonl", told_apart=True)
    rows = [json.loads(line) | {"scores": {"large": 1.0, "small": 1.0}} for line in answers.read_text().splitlines()]
    answers.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(Conflict) as told:
        run("train", str(answers), "--name", "support", "--home", str(tmp_path))
    assert "saves nothing against small for every call" in told.value.message
    assert "small alone is the right one" in str(told.value.hint)


def test_a_share_that_a_stricter_point_shows_is_told_with_what_that_saves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a table that says of its own point that it is not shown."""

    def unsure(*given: Any, **more: Any) -> Any:
        found = evaluate(*given, **more)
        return replace(found, routed={**found.routed, "0.98": replace(found.routed["0.98"], low=0.9)})

    monkeypatch.setattr(training, "evaluate", unsure)
    answers = write_prompts(tmp_path / "set.jsonl", told_apart=True)
    asked = ["train", str(answers), "--name", "support", "--keep", "0.98", "--home", str(tmp_path)]
    said = CliRunner().invoke(app, asked).stdout
    assert "0.98 is shown by the point that aims at 0.99 alone, which saves 4" in said


@pytest.mark.parametrize(
    "version", ["/home/x/support@3.router", "support@latest", "support@²", "support@0", "../x", "*"]
)
def test_what_is_no_version_is_refused(tmp_path: Path, version: str) -> None:
    answers = write_prompts(tmp_path / "set.jsonl", told_apart=True)
    with pytest.raises(Invalid) as told:
        run("evaluate", str(answers), "--router", version, "--home", str(tmp_path))
    assert (told.value.code, bool(told.value.hint)) == ("router_version", True)


@pytest.mark.parametrize(
    ("more", "code"),
    [(("--keep", keep), "keep_range") for keep in ("nan", "-1", "2", "0.4")] + [(("--name", "Not one"), "router_name")],
)
def test_what_cannot_be_kept_is_refused_before_anything_is_learned(
    tmp_path: Path, more: tuple[str, str], code: str
) -> None:
    with pytest.raises(Invalid) as told:
        run("train", str(tmp_path / "absent.jsonl"), "--name", "support", *more, "--home", str(tmp_path))
    assert (told.value.code, bool(told.value.hint)) == (code, True)


def test_two_that_are_kept_at_once_get_versions_of_their_own(tmp_path: Path) -> None:
    router = train(make_matrix(60), None, (0.95,), name="support")

    def kept(number: int) -> tuple[str, str]:
        version = registry.save_router(tmp_path, replace(router, trained={"number": str(number)}))
        return version, str(number)

    with ThreadPoolExecutor(8) as pool:
        found = dict(pool.map(kept, range(16)))
    assert sorted(found) == sorted(f"support@{number}" for number in range(1, 17))
    for version, number in found.items():
        assert registry.load_router(tmp_path, version).trained == {"number": number}
    assert len(list(tmp_path.iterdir())) == 16


def test_a_set_of_few_rows_is_not_said_to_drift(trained: tuple[Path, Any], tmp_path: Path) -> None:
    home = ("--home", str(trained[0] / "home"))
    for rows, drifted in ((40, None), (60, False), (120, False)):
        few = write_prompts(tmp_path / "few.jsonl", told_apart=True, rows=rows, seed=rows)
        assert run("evaluate", str(few), "--router", "support", *home)["drifted"] is drifted


def test_explain_says_why_a_call_went_where_it_did_also_where_nothing_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    placed = {"route": None, "chosen": ["It is placed at one: the cheapest in the EU."]}
    first, second = str(new_id()), str(new_id())
    answers = {f"/api/calls/{first}": placed, f"/api/calls/{second}": {"route": None, "chosen": []}}
    monkeypatch.setattr(ControlClient, "connect", lambda _: SimpleNamespace(get=answers.__getitem__))
    assert run("explain", first) == {"call": first, "chosen": placed["chosen"]}
    with pytest.raises(NotFound, match="no model was chosen"):
        run("explain", second)


def test_explain_tells_of_a_workload_what_its_choice_of_models_saves(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"told": ["Choosing models saved $1."], "quality": [], "days": 30}
    asked: list[tuple[str, str]] = []

    def get(path: str, workload: str) -> dict[str, object]:
        asked.append((path, workload))
        return told

    monkeypatch.setattr(ControlClient, "connect", lambda _: SimpleNamespace(get=get))
    assert run("explain", "support") == told
    assert asked == [("/api/routing/trade-off", "support")]
