"""Runs of `gateway.py --json` side by side, as the table of docs/performance.md; what misses its target is bold.

    python -m benchmarks.gateway_table 'NAME=FILE' ...

Reads the values from those files and measures nothing. Older files lack values that were not measured then.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.gateway_suite import PEER_TARGETS, TARGETS

#: Title of a row, its name in a file's verdict, and the format of its numbers.
ROWS = (
    ("CPU of a call, 32 connections, ms", "cpu_ms", ".3f"),
    ("Calls/s, 32 connections", "rps", ",.0f"),
    ("Calls/s, 128 connections", "rps_c128", ",.0f"),
    ("Two workers: CPU of a call to that of one", "two_workers_ratio", ".2f"),
    ("Added at 300/s: p50, ms", "p50_added_ms", ".2f"),
    ("Added at 300/s: p99, ms", "p99_added_ms", ".2f"),
    ("Added before 20 ms: p50, ms", "p50_added_20ms_ms", ".2f"),
    ("the same, calls at random times", "p50_added_20ms_random_ms", ".2f"),
    ("Stream of 20 chunks: CPU, ms", "stream_cpu_ms", ".2f"),
    ("First chunk, added: p50, ms", "first_chunk_added_ms", ".2f"),
    ("the same, streams at random times", "first_chunk_added_random_ms", ".2f"),
    ("Prompts of 200 kB a second", "rps_200kb", ",.0f"),
    ("Answer from the cache: CPU, ms", "cached_cpu_ms", ".3f"),
    ("Memory: idle, MiB", "idle_mib", ".0f"),
    ("Memory: 2,000 open streams, MiB", "streams_mib", ".0f"),
    ("Memory after a million calls, MiB", "long_mib", ".0f"),
    ("Lost beside neighbours", "lost_beside_neighbours", ".0f"),
    ("Governance adds, times the least gateway", "governance_adds", ".2f"),
    ("Governance adds, times the bare pass-through", "governance_adds_asgi", ".2f"),
    ("A whole call, times the least gateway", "governance_ratio", ".2f"),
    ("LiteLLM, 32 connections, ×", "times litellm c32", ".0f"),
    ("LiteLLM, 128 connections, ×", "times litellm c128", ".0f"),
    ("Portkey, 32, ×", "times portkey c32", ".1f"),
    ("Portkey, 128, ×", "times portkey c128", ".1f"),
    ("MLflow, 32, ×", "times mlflow c32", ".1f"),
    ("MLflow, 128, ×", "times mlflow c128", ".1f"),
    ("TensorZero, 32, ×", "times tensorzero c32", ".1f"),
    ("TensorZero, 128, ×", "times tensorzero c128", ".1f"),
)

ROW_TARGETS = TARGETS | {name: PEER_TARGETS[name.split()[1]] for _, name, _ in ROWS if name.startswith("times ")}


def format_cell(verdict: dict[str, Any], name: str, number_format: str) -> str:
    """The value reached, in bold if it misses its target; empty if it was not measured."""
    row = verdict.get(name) or verdict.get(name.removesuffix(" c32"))  # older files have peers at 32 connections only
    if row is None:
        return ""
    text = f"{row['reached']:{number_format}}"
    return text if row["met"] else f"**{text}**"


def machine_rows(figures: dict[str, Any]) -> list[tuple[str, str]]:
    """Rows without a target: how quick the machine was in that run, and the cost of a call outside its worker."""
    rows = (
        ("Bare ASGI pass-through: CPU, ms", figures.get("asgi_c32", {}).get("asgi_cpu_ms"), ".3f"),
        ("The least gateway: CPU, ms", figures.get("least_c32", {}).get("least_cpu_ms"), ".3f"),
        ("The disk's own fdatasync at 300/s: p50, ms", figures.get("sync_300", {}).get("p50_ms"), ".2f"),
        ("the same: p99, ms", figures.get("sync_300", {}).get("p99_ms"), ".2f"),
        ("the same: the longest of all, ms", figures.get("sync_300", {}).get("most_ms"), ".0f"),
        ("CPU of a call in the shipper, ms", figures["closed_c32"]["shipper_cpu_ms"], ".3f"),
        ("CPU of a call in PostgreSQL, ms", figures["closed_c32"]["postgres_cpu_ms"], ".3f"),
    )
    return [(title, f"{number:{number_format}}" if number else "") for title, number, number_format in rows]


def table(runs: dict[str, dict[str, Any]]) -> str:
    """The runs as a Markdown table, a column each."""
    lines = ["| | Target | " + " | ".join(runs) + " |", "|---|---|" + "---|" * len(runs)]
    for row in zip(*(machine_rows(figures) for figures in runs.values()), strict=True):
        lines.append(f"| *{row[0][0]}* | | " + " | ".join(text for _, text in row) + " |")
    for title, name, number_format in ROWS:
        cells = [format_cell(figures["verdict"], name, number_format) for figures in runs.values()]
        if any(cells):
            lines.append(f"| {title} | {ROW_TARGETS[name]:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", metavar="NAME=FILE")
    runs = dict(word.split("=", 1) for word in parser.parse_args().runs)
    print(table({name: json.loads(Path(file).read_text(encoding="utf-8")) for name, file in runs.items()}))


if __name__ == "__main__":
    main()
