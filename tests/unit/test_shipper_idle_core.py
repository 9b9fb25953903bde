"""When shipping waits for an idle core: only where one may come."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from groundplan.gateway.journal.shipper import is_machine_full


@pytest.mark.parametrize(("running", "full"), [(1, False), (3, False), (4, True), (9, True)])
def test_a_machine_is_full_where_more_threads_want_to_run_than_it_has_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, running: int, full: bool
) -> None:
    """The thread that asks is one of them."""
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    (tmp_path / "loadavg").write_text(f"7.60 11.15 13.43 {running}/484 1303\n")
    assert is_machine_full(tmp_path / "loadavg") is full


@pytest.mark.parametrize("text", [None, "", "0.1 0.2 0.3\n", "0.1 0.2 0.3 many/484 1\n"])
def test_a_machine_that_does_not_tell_is_not_full(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "loadavg").write_text(text)
    assert not is_machine_full(tmp_path / "loadavg")
