"""Days and months of `groundplan cost` are refused in words before anybody is asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from groundplan.cli import cost_ahead
from groundplan.cli.cost import app
from groundplan.core.errors import Invalid


@pytest.mark.parametrize(
    ("arguments", "code", "form"),
    [
        (["book", "--from", "yesterday"], "day_syntax", "2026-11-01"),
        (["own", "--to", "2026-11-31"], "day_syntax", "2026-11-01"),
        (["export", "file.csv", "--from", "1.11.2026"], "day_syntax", "2026-11-01"),
        (["forecast", "--launch", "soon=2"], "day_syntax", "2026-11-01"),
        (["statement", "--month", "november"], "month_syntax", "2026-11"),
        (["statement", "--month", "2026-13"], "month_syntax", "2026-11"),
    ],
)
def test_what_is_no_day_is_refused_with_how_to_write_one(
    tmp_path: Path, arguments: list[str], code: str, form: str
) -> None:
    env = {"GROUNDPLAN_URL": "http://127.0.0.1:9", "GROUNDPLAN_TOKEN": "t"}
    found = CliRunner().invoke(app, [*arguments, "--home", str(tmp_path)], env=env)
    assert isinstance(found.exception, Invalid), found.output
    assert found.exception.code == code and form in (found.exception.hint or "")


def test_a_budget_that_begins_elsewhere_has_its_period_written_out() -> None:
    row = {"title": "core", "expected_usd": "1", "limit_usd": "9", "ends": None, "history_days": 90}
    told = cost_ahead._runways_table({"budgets": [{**row, "period": "2026-11-15..2026-12-15"}], "more": 0})
    assert "15 Nov 2026 to 14 Dec 2026" in told and "it lasts" in told
