"""Sets of a known structure can be measured on: each kind is read, and says what knowing everything would save."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from benchmarks.routing_sets import KINDS, main, make_set, oracle_savings
from benchmarks.routing_usable import read_usable


@pytest.mark.parametrize("name", sorted(KINDS))
def test_each_kind_can_be_read(name: str, tmp_path: Path) -> None:
    kind = replace(KINDS[name], rows=120)
    found = make_set(kind, seed=3)
    path = tmp_path / "set.jsonl"
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in found.rows), encoding="utf-8")
    usable = read_usable(path)
    assert len(usable.matrix.samples) + usable.rows_left_out == 120
    assert (usable.rows_left_out > 0) == (kind.lacking > 0)
    assert len(usable.matrix.models) == kind.models and usable.models_left_out == ()
    assert usable.by_prompts == (name in ("one_group", "six_groups"))
    assert 0 <= oracle_savings(found.chances, found.costs) < 1


def test_nothing_is_to_be_saved_where_nothing_differs() -> None:
    chances = np.full((50, 2), 0.5)
    assert oracle_savings(chances, np.ones((50, 2))) == 0
    assert oracle_savings(chances, np.tile([1.0, 0.25], (50, 1))) == pytest.approx(0.75)


def test_the_same_seed_writes_the_same_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("one", "other"):
        assert main([str(tmp_path / folder), "--only", "few", "--rows", "30"]) == 0
    one, other = ((tmp_path / folder / "few.jsonl").read_bytes() for folder in ("one", "other"))
    assert one == other and len(one.splitlines()) == 30
    assert "few: " in capsys.readouterr().out
