"""Runs of the gateway's benchmark beside one another."""

from __future__ import annotations

from benchmarks.gateway_table import table


def run(cpu: float, **more: dict[str, float]) -> dict[str, object]:
    closed = {"shipper_cpu_ms": 0.05, "postgres_cpu_ms": 0.03}
    return {"closed_c32": closed, "verdict": {"cpu_ms": {"reached": cpu, "target": 0.13, "met": cpu <= 0.13}} | more}


def test_a_figure_that_misses_its_target_is_bold_and_what_was_not_measured_is_left_empty() -> None:
    peer = {"times litellm": {"reached": 71.4, "target": 70.0, "met": True}}
    rows = table({"a": run(0.1), "b": run(0.1304, **peer)}).splitlines()
    assert rows[0] == "| | Target | a | b |"
    assert "| CPU of a call, 32 connections, ms | 0.13 | 0.100 | **0.130** |" in rows
    assert "| LiteLLM, 32 connections, × | 70 |  | 71 |" in rows
    assert not [row for row in rows if "TensorZero" in row]
    assert {row.count("|") for row in rows} == {5}
