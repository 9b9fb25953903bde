"""Words around numbers. English only."""

from __future__ import annotations


def each(period: str) -> str:
    """`a day`, `an hour`."""
    return f"{'an' if period == 'hour' else 'a'} {period}"


def counted(number: int, one: str, many: str | None = None) -> str:
    """`1 workload`, `2 workloads`, `1,204 entries` (`many` where it is not `one` with an s)."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
