"""Counts of gateway workers that do not report any more, so that the totals of their slot never go backwards.

Each worker writes its counts to HOME/run/counters.d before it reports them, while a successor has its slot, and at its
end; a scrape adds the files of all workers that did not report themselves. Amounts of money are summed in picodollars,
since sums of fractions depend on their order. The next worker of a slot folds the files of those that have stopped into
one.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from groundplan.core.endpoints import is_alive
from groundplan.core.home import Home
from groundplan.core.money import PICO
from groundplan.gateway.telemetry.exposition import Family, Labels, Sample, Series, with_these_bounds

_BASE = "base"
"""Id of the file with the sum of workers that have stopped."""
_NAME = re.compile(rf"([0-9]{{1,4}})-([0-9a-f]{{16}}|{_BASE})\.msgpack")
_MOST = (1 << 63) - 1
_PROCESS_PREFIX = "process_"
"""Prefix of metrics of one process, which no other continues."""
STALE_SECONDS = 600.0
"""A worker whose slot another one has writes far more often: an older file is of a stopped one, even if another
process has its pid by now."""
_READ_TRIES = 3
"""Attempts to read while files are being folded."""


class Counted(msgspec.Struct, frozen=True, array_like=True):
    """One counter or histogram. `pico`: its samples are millionths of a millionth."""

    name: str
    type: str
    help: str
    pico: bool
    samples: list[tuple[list[tuple[str, str]], int]]
    series: list[Series]


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """The content of a file: the families of one worker (`told`), or the sum of several (`summed`), whose ids are in
    `of`."""

    pid: int
    told: list[Family]
    summed: list[Counted] = []
    of: list[str] = []

    @property
    def counted(self) -> list[Counted]:
        counted = self.summed or continued_counts(self.told)
        return [msgspec.structs.replace(each, series=with_these_bounds(each.series)) for each in counted]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Kept).decode


# sums ----------------------------------------------------------------------------------------------------------------


def _is_continued(family: Family) -> bool:
    """Whether a successor continues this metric."""
    return family.type != "gauge" and not family.name.startswith(_PROCESS_PREFIX)


def continued_counts(families: Iterable[Family]) -> list[Counted]:
    """Return the counters and histograms that a successor continues."""
    return [_to_counted(each) for each in families if _is_continued(each)]


def _to_counted(family: Family) -> Counted:
    pico = any(isinstance(sample.value, float) for sample in family.samples)
    samples = [(each.labels, round(each.value * PICO) if pico else int(each.value)) for each in family.samples]
    return Counted(family.name, family.type, family.help, pico, samples, family.series)


def merge(first: Iterable[Counted], second: Iterable[Counted]) -> list[Counted]:
    """Return both, summed by name and labels."""
    merged: dict[str, Counted] = {}
    for each in (*first, *second):
        known = merged.get(each.name)
        merged[each.name] = each if known is None else _sum(known, each)
    return list(merged.values())


def _sum(first: Counted, second: Counted) -> Counted:
    samples: dict[Labels, int] = {}
    for labels, value in (*first.samples, *second.samples):
        key = tuple(labels)
        samples[key] = min(_MOST, samples.get(key, 0) + value)
    series: dict[Labels, Series] = {}
    for each in (*first.series, *second.series):
        key = tuple(each.labels)
        series[key] = _add_series(series[key], each) if key in series else each
    summed = [(list(labels), value) for labels, value in samples.items()]
    return Counted(first.name, first.type, first.help, first.pico or second.pico, summed, list(series.values()))


def _add_series(first: Series, second: Series) -> Series:
    buckets = [a + b for a, b in zip(first.buckets, second.buckets, strict=True)]
    return Series(first.labels, buckets, first.total_us + second.total_us)


def continue_family(family: Family, earlier: Counted | None) -> Family:
    """Add to a family of a slot the counts of earlier workers. Amounts are rounded to whole picodollars, also where
    there is nothing to add."""
    if not _is_continued(family):
        return family
    own = _to_counted(family)
    return to_family(own if earlier is None else _sum(own, earlier))


def to_family(counted: Counted) -> Family:
    """Convert back to a family."""
    samples = [Sample(labels, value / PICO if counted.pico else value) for labels, value in counted.samples]
    return Family(counted.name, counted.type, counted.help, samples, counted.series)


# files ---------------------------------------------------------------------------------------------------------------


def _folder(home: Home) -> Path:
    return home.run / "counters.d"


def _files(home: Home, slot: str | None = None) -> list[tuple[str, str, Path]]:
    """Return (slot, id, file), sums last: a reader that finds a file gone finds its counts in a sum."""
    try:
        paths = sorted(_folder(home).iterdir(), key=lambda path: (_BASE in path.name, path.name))
    except OSError:
        return []
    matches = [(match, path) for path in paths if (match := _NAME.fullmatch(path.name)) is not None]
    return [(match[1], match[2], path) for match, path in matches if slot is None or match[1] == slot]


def _read(path: Path) -> Kept | None:
    try:
        return _decode(path.read_bytes())
    except (OSError, msgspec.DecodeError):
        return None


def _write(home: Home, slot: str, id: str, kept: Kept) -> None:
    """Write a file atomically, without fsync: what a loss of power takes starts from zero again."""
    path = _folder(home) / f"{slot}-{id}.msgpack"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(_encode(kept))
    temporary.replace(path)


def write(home: Home, slot: int, id: str, families: Iterable[Family]) -> None:
    """Write the counts of this worker. Raises `OSError`."""
    _write(home, str(slot), id, Kept(os.getpid(), list(filter(_is_continued, families))))


def read(home: Home, reported_ids: Iterable[str]) -> dict[str, list[Counted]]:
    """Return by slot what all its workers counted, except those with the ids `reported_ids`."""
    found = _read_all(home, set(reported_ids))
    known = {(slot, id) for slot, _, kept in found for id in kept.of}
    sums: dict[str, list[Counted]] = {}
    for slot, id, kept in found:
        if (slot, id) not in known:
            sums[slot] = merge(sums.get(slot, []), kept.counted)
    return sums


def _read_all(home: Home, excluded_ids: set[str]) -> list[tuple[str, str, Kept]]:
    """Read all files, again where one vanished meanwhile: it is in a sum now, which may not have existed before."""
    found: list[tuple[str, str, Kept]] = []
    for _ in range(_READ_TRIES):
        files = [(slot, id, path, _read(path)) for slot, id, path in _files(home) if id not in excluded_ids]
        found = [(slot, id, kept) for slot, id, _, kept in files if kept is not None]
        if all(kept is not None or path.exists() for _, _, path, kept in files):
            break
    return found


def fold(home: Home, slot: int, serving: str = "") -> None:
    """Fold the files of stopped workers into the sum of their slot. `serving`: id of the worker that is announced for
    it. Raises `OSError`, also where another process is folding."""
    with _fold_lock(home):
        files = [(id, path, kept) for _, id, path in _files(home, str(slot)) if (kept := _read(path)) is not None]
        base = next((kept for id, _, kept in files if id == _BASE), Kept(0, []))
        stopped = [
            (id, path, kept)
            for id, path, kept in files
            if id not in (_BASE, serving) and (not is_alive(kept.pid) or _is_stale(path))
        ]
        if not stopped:
            return
        total = base.counted
        for id, _, kept in stopped:
            total = total if id in base.of else merge(total, kept.counted)
        _write(home, str(slot), _BASE, Kept(0, [], total, [id for id, _, _ in stopped]))
        for _, path, _ in stopped:
            path.unlink(missing_ok=True)


def _is_stale(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > STALE_SECONDS


@contextmanager
def _fold_lock(home: Home) -> Iterator[None]:
    """Keep others from folding meanwhile; does not wait, since the holder may be a stopped process."""
    _folder(home).mkdir(mode=0o700, parents=True, exist_ok=True)
    with (_folder(home) / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
