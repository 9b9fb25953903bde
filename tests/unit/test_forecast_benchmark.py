"""The benchmarks of forecasts and anomalies on what they were not made for: refused or left out in words."""

from __future__ import annotations

import gzip
import sys
from pathlib import Path

import pytest
from benchmarks import anomalies, forecast

from groundplan.economics.forecast.model import DAY, Series

HEAD = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


def run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["forecast.py", str(folder), "--json"])
    return forecast.main()


@pytest.mark.parametrize(
    "data", [b"no gzip", gzip.compress(b"a,b\nsoon,1,2\n", mtime=0), gzip.compress(b"a,b\n1\n", mtime=0)[:12]]
)
def test_a_trace_that_cannot_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], data: bytes
) -> None:
    (tmp_path / "azure_llm_2023_code.csv.gz").write_bytes(data)
    assert run(tmp_path, monkeypatch) == 66
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("rows", [0, 1, 40])
def test_a_trace_that_is_short_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rows: int
) -> None:
    lines = "".join(f"2023-11-16 18:{row:02d}:00.000000,5,7\n" for row in range(rows))
    (tmp_path / "azure_llm_2023_code.csv.gz").write_bytes(gzip.compress((HEAD + lines).encode()))
    steady = Series(forecast.START, DAY, (4.0,) * 80)
    for name in ("hours", "days"):
        monkeypatch.setattr(forecast, name, lambda _seed: iter([("steady", steady, 7, 2)]))
    assert run(tmp_path, monkeypatch) in (0, 1)
    told = capsys.readouterr()
    assert ("left out" in told.err) is (rows > 0 and rows < 40) and '"series": "steady"' in told.out


def test_no_workload_is_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["anomalies.py", "--workloads", "0"])
    with pytest.raises(SystemExit):
        anomalies.main()
