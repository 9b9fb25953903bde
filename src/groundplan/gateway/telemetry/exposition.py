"""Metric families as data, and the Prometheus text format (0.0.4) of them. Pure; `worker_families` fills them.

The text is rendered in small pieces, so that a worker can answer calls between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

import msgspec

from groundplan.gateway.telemetry.call_counters import DURATION_US, Histogram

CONTENT_TYPE = b"content-type: text/plain; version=0.0.4; charset=utf-8\r\n"
Labels = tuple[tuple[str, str], ...]
PIECE_SERIES = 50
"""Series in a piece of text."""
_BOUNDS = (*(repr(bound / 1e6) for bound in DURATION_US), "+Inf")


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One value with its labels: a line of the text format."""

    labels: list[tuple[str, str]]
    value: float | int


class Series(msgspec.Struct, frozen=True, array_like=True):
    """One set of labels of a histogram: counts by `DURATION_US`, the last beyond it, and the sum in microseconds."""

    labels: list[tuple[str, str]]
    buckets: list[int]
    total_us: int


class Family(msgspec.Struct, frozen=True, array_like=True):
    """One metric: `type` is counter, gauge or histogram. A histogram has `series` instead of samples."""

    name: str
    type: str
    help: str
    samples: list[Sample]
    series: list[Series] = []


def with_these_bounds(series: Iterable[Series]) -> list[Series]:
    """Return the series with the bounds of this version, without those of another one: a worker of before an upgrade
    may still run, or have left its counts."""
    return [each for each in series if len(each.buckets) == len(_BOUNDS)]


def single_sample(name: str, type_: str, help_: str, value: float) -> Family:
    """Return a family with one sample without labels."""
    return Family(name, type_, help_, [Sample([], value)])


def histogram_family(name: str, help_: str, counted: Mapping[Labels, Histogram]) -> Family:
    """Return a histogram family with a series for each set of labels."""
    series = [Series(list(labels), one.buckets, one.total_us) for labels, one in sorted(counted.items())]
    return Family(name, "histogram", help_, [], series)


def render(workers: Iterable[tuple[str, list[Family]]]) -> bytes:
    """Render the families of all workers, each family once, every sample with its `worker` label."""
    return b"".join(render_pieces(workers))


def render_pieces(workers: Iterable[tuple[str, list[Family]]]) -> Iterator[bytes]:
    """As `render`, piece by piece."""
    merged: dict[str, list[tuple[str, Family]]] = {}
    for worker, families in workers:
        for family in families:
            merged.setdefault(family.name, []).append((worker, family))
    for name, told in merged.items():
        first = told[0][1]
        yield f"# HELP {name} {_escape_help(first.help)}\n# TYPE {name} {first.type}\n".encode()
        for worker, family in told:
            for at in range(0, len(family.samples), PIECE_SERIES):
                yield _samples(name, worker, family.samples[at : at + PIECE_SERIES])
            for at in range(0, len(family.series), PIECE_SERIES):
                yield _series(name, worker, family.series[at : at + PIECE_SERIES])


def _samples(name: str, worker: str, samples: Iterable[Sample]) -> bytes:
    lines = []
    for sample in samples:
        labels = _labels(worker, sample.labels)
        lines.append(f"{name}{{{labels}}} {sample.value!r}\n" if labels else f"{name} {sample.value!r}\n")
    return "".join(lines).encode()


def _series(name: str, worker: str, series: Iterable[Series]) -> bytes:
    lines = []
    for one in series:
        labels = _labels(worker, one.labels)
        start = f'{name}_bucket{{{labels},le="' if labels else f'{name}_bucket{{le="'
        total = 0
        for bound, count in zip(_BOUNDS, one.buckets, strict=True):
            total += count
            lines.append(f'{start}{bound}"}} {total}\n')
        end = f"{{{labels}}}" if labels else ""
        lines.append(f"{name}_sum{end} {one.total_us / 1e6!r}\n{name}_count{end} {total}\n")
    return "".join(lines).encode()


def _labels(worker: str, labels: Iterable[tuple[str, str]]) -> str:
    text = ",".join([f'{name}="{_escape(value)}"' for name, value in labels])
    if not worker:
        return text
    return f'worker="{_escape(worker)}",{text}' if text else f'worker="{_escape(worker)}"'


@lru_cache(4096)
def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _escape_help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")
