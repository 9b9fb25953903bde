"""Metric families as data, and the Prometheus text format (0.0.4) of them. Pure; what is measured is `metrics`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from groundplan.gateway.meters import DURATION_US, Histogram

CONTENT_TYPE = b"content-type: text/plain; version=0.0.4; charset=utf-8\r\n"
Labels = tuple[tuple[str, str], ...]


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One line: `suffix` follows the family's name."""

    suffix: str
    labels: list[tuple[str, str]]
    value: float | int


class Family(msgspec.Struct, frozen=True, array_like=True):
    """One metric: `type` is counter, gauge or histogram."""

    name: str
    type: str
    help: str
    samples: list[Sample]


def single(name: str, type_: str, help_: str, value: float) -> Family:
    """A family with one sample without labels."""
    return Family(name, type_, help_, [Sample("", [], value)])


def histogram(name: str, help_: str, series: Mapping[Labels, Histogram]) -> Family:
    """Cumulative buckets in seconds, sum and count, for each set of labels."""
    samples: list[Sample] = []
    for labels, counted in sorted(series.items()):
        total = 0
        for bound, count in zip(DURATION_US, counted.buckets, strict=False):
            total += count
            samples.append(Sample("_bucket", [*labels, ("le", repr(bound / 1e6))], total))
        total += counted.buckets[-1]
        samples.append(Sample("_bucket", [*labels, ("le", "+Inf")], total))
        samples.append(Sample("_sum", list(labels), counted.total_us / 1e6))
        samples.append(Sample("_count", list(labels), total))
    return Family(name, "histogram", help_, samples)


def render(workers: Iterable[tuple[str, list[Family]]]) -> bytes:
    """The families of all workers, each once, every sample with its `worker`."""
    merged: dict[str, tuple[Family, list[str]]] = {}
    for worker, families in workers:
        for family in families:
            _, lines = merged.setdefault(family.name, (family, []))
            lines += [_line(family.name, worker, sample) for sample in family.samples]
    out: list[str] = []
    for name, (family, lines) in merged.items():
        out.append(f"# HELP {name} {_escape(family.help, quotes=False)}")
        out.append(f"# TYPE {name} {family.type}")
        out += lines
    return ("\n".join(out) + "\n").encode()


def _line(name: str, worker: str, sample: Sample) -> str:
    pairs = [("worker", worker), *sample.labels] if worker else sample.labels
    labels = ",".join(f'{key}="{_escape(value, quotes=True)}"' for key, value in pairs)
    braced = f"{{{labels}}}" if labels else ""
    return f"{name}{sample.suffix}{braced} {sample.value!r}"


def _escape(text: str, *, quotes: bool) -> str:
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n")
    return escaped.replace('"', '\\"') if quotes else escaped
