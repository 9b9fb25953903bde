"""`why` tells when each attempt began, connected and first answered, as far as it was measured."""

from __future__ import annotations

from typing import Any

from groundplan.api import explain


def explain_attempt(**attempt: Any) -> str:
    first = {"number": 0, "deployment": "d", "site": "s", "outcome": "ok", "cost_usd": "0.1", "estimated": False}
    call = {
        "workload": "w", "at": "now", "blueprint": 1, "who": None, "acting": False, "status": "ok", "error_code": None,
        "attempts": [{**first, **attempt}], "reserved_usd": "1", "cost_usd": "0.1",
    }  # fmt: skip
    return next(line for line in explain.explain_call(call) if line.startswith("Attempt 1"))


def test_what_was_measured_is_told() -> None:
    line = explain_attempt(started_ms=1.25, connect_ms=3.0, first_byte_ms=20.04, duration_ms=30.0)
    assert line.endswith("; began after 1.2 ms, connected in 3.0 ms, first byte after 20.0 ms, took 30.0 ms.")


def test_what_was_not_is_left_out() -> None:
    assert explain_attempt(started_ms=0.5, connect_ms=None, first_byte_ms=None, duration_ms=2.0).endswith(
        "0.1 USD; began after 0.5 ms, took 2.0 ms."
    )
    assert explain_attempt().endswith("0.1 USD.")


def test_what_was_wrong_is_told_where_no_status_says_it() -> None:
    line = explain_attempt(outcome="not_billed", flags=["hedge", "no_connection"])
    assert line.startswith("Attempt 1 went to d at s: not billed (no connection), ")
