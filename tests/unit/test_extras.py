"""What is declared and needs an optional package is refused where that is not installed."""

from __future__ import annotations

import pytest
from tests.unit.test_release_plan import BASE, plan_of

from groundplan.release import extras


@pytest.mark.parametrize(
    ("said", "module", "extra"),
    [
        ("http: 2", "pyqwest", "http2"),
        ("proxy: https://proxy.acme.example:3128", "pyqwest", "http2"),
        ("api: mistral", "any_llm", "providers"),
    ],
)
def test_what_needs_a_package_that_is_not_there_is_refused_by_plan(
    said: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = BASE.replace("name: gpt-eu\n", f"name: gpt-eu\n{said}\n", 1)
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == module else object())
    (refused,) = plan_of(text).refusals
    assert refused.code == "extra_missing" and f"groundplan[{extra}]" in refused.hint
    assert refused.where is not None and refused.where.line == text.split("\n").index(said) + 1
    monkeypatch.setattr(extras, "find_spec", lambda _: object())
    assert plan_of(text).refusals == ()
