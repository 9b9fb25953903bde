"""The pictures are of the example company as its people approved it, or there are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from groundplan.testing import screenshots

ROOT = Path(__file__).parents[2]


class Page:
    """A page of an installation in which these changes wait, one list for each time that it is asked."""

    def __init__(self, *pending: list[str]) -> None:
        self.pending = list(pending)

    def evaluate(self, _: str, path: str) -> dict[str, Any]:
        assert path == "/api/changes?state=pending"
        subjects = self.pending.pop(0) if len(self.pending) > 1 else self.pending[0]
        return {"changes": [{"summary": {"subject": subject}} for subject in subjects]}

    def wait_for_timeout(self, _: float) -> None: ...


def test_pictures_are_taken_once_everything_is_approved(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page(["workload/a", "model/b"], ["workload/a"], [])
    screenshots.wait_until_approved(cast("Any", page))
    assert page.pending == [[]]
    monkeypatch.setattr(screenshots, "APPROVAL_SECONDS", 0)
    with pytest.raises(RuntimeError, match="still not approved: workload/a"):
        screenshots.wait_until_approved(cast("Any", Page(["workload/a"])))


def test_the_change_of_the_picture_of_a_plan_is_one_of_the_example_company() -> None:
    declared = (ROOT / screenshots.EXAMPLE / "workloads" / "staff-assistant.yaml").read_text()
    assert screenshots.DECLARED in declared
