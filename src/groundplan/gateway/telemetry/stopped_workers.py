"""What gateway workers counted that do not tell any more, so that the totals of their slot never go backwards.

Each worker writes what it has counted to HOME/run/counters.d before it tells it, while a successor has its place, and
at its end; a scrape adds the files of all that did not tell themselves. Amounts of money are summed in picodollars,
since sums of fractions depend on their order. The next worker of a slot folds the files of those that are gone into
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

from groundplan.core.endpoints import lives
from groundplan.core.home import Home
from groundplan.core.money import PICO
from groundplan.gateway.telemetry.exposition import Family, Labels, Sample, Series

_BASE = "base"
"""In the place of an id: the sum of those that are gone."""
_NAME = re.compile(rf"([0-9]{{1,4}})-([0-9a-f]{{16}}|{_BASE})\.msgpack")
_MOST = (1 << 63) - 1
_OWN = "process_"
"""How metrics begin that are of one process and nobody else's."""
STALE_SECONDS = 600.0
"""A worker whose place another one has writes far more often: an older file is of one that is gone, whatever process
has its number by now."""
_LOOKS = 3
"""For files that are folded while they are read."""


class Counted(msgspec.Struct, frozen=True, array_like=True):
    """One counter or histogram. `pico`: its samples are millionths of a millionth."""

    name: str
    type: str
    help: str
    pico: bool
    samples: list[tuple[list[tuple[str, str]], int]]
    series: list[Series]


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """A file: of a worker as it was told, or the sum of several, with the ids of those that are in it already."""

    pid: int
    told: list[Family]
    summed: list[Counted] = []
    of: list[str] = []

    @property
    def counted(self) -> list[Counted]:
        return self.summed or counted(self.told)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Kept).decode


# sums ----------------------------------------------------------------------------------------------------------------


def _goes_on(family: Family) -> bool:
    """Whether a successor goes on with it."""
    return family.type != "gauge" and not family.name.startswith(_OWN)


def counted(families: Iterable[Family]) -> list[Counted]:
    """The counters and histograms among them that a successor goes on with."""
    return [_counted(each) for each in families if _goes_on(each)]


def _counted(family: Family) -> Counted:
    pico = any(isinstance(sample.value, float) for sample in family.samples)
    samples = [(each.labels, round(each.value * PICO) if pico else int(each.value)) for each in family.samples]
    return Counted(family.name, family.type, family.help, pico, samples, family.series)


def added(one: Iterable[Counted], other: Iterable[Counted]) -> list[Counted]:
    """Both, summed by their names and labels."""
    found: dict[str, Counted] = {}
    for each in (*one, *other):
        known = found.get(each.name)
        found[each.name] = each if known is None else _sum(known, each)
    return list(found.values())


def _sum(one: Counted, other: Counted) -> Counted:
    samples: dict[Labels, int] = {}
    for labels, value in (*one.samples, *other.samples):
        key = tuple(labels)
        samples[key] = min(_MOST, samples.get(key, 0) + value)
    series: dict[Labels, Series] = {}
    for each in (*one.series, *other.series):
        key = tuple(each.labels)
        series[key] = _both(series[key], each) if key in series else each
    summed = [(list(labels), value) for labels, value in samples.items()]
    return Counted(one.name, one.type, one.help, one.pico or other.pico, summed, list(series.values()))


def _both(one: Series, other: Series) -> Series:
    if len(one.buckets) != len(other.buckets):
        return other  # of code that had other bounds
    buckets = [mine + theirs for mine, theirs in zip(one.buckets, other.buckets, strict=True)]
    return Series(one.labels, buckets, one.total_us + other.total_us)


def gone_on(family: Family, left: Counted | None) -> Family:
    """A family of a slot, with what others counted there before. Amounts are those of whole picodollars, also where
    there is nothing to add."""
    if not _goes_on(family):
        return family
    own = _counted(family)
    return shown(own if left is None else _sum(own, left))


def shown(one: Counted) -> Family:
    """As it is told."""
    samples = [Sample(labels, value / PICO if one.pico else value) for labels, value in one.samples]
    return Family(one.name, one.type, one.help, samples, one.series)


# files ---------------------------------------------------------------------------------------------------------------


def _folder(home: Home) -> Path:
    return home.run / "counters.d"


def _files(home: Home, slot: str | None = None) -> list[tuple[str, str, Path]]:
    """(slot, id, file), the sums last: whoever finds a file gone finds it in them."""
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
    """Whole or not at all; what a loss of power takes along begins at nothing again."""
    path = _folder(home) / f"{slot}-{id}.msgpack"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(_encode(kept))
    temporary.replace(path)


def write(home: Home, slot: int, id: str, families: Iterable[Family]) -> None:
    """What this worker has counted. Raises `OSError`."""
    _write(home, str(slot), id, Kept(os.getpid(), list(filter(_goes_on, families))))


def read(home: Home, told: Iterable[str]) -> dict[str, list[Counted]]:
    """Slot -> what all its workers counted but those with the ids `told`."""
    found = _all(home, set(told))
    known = {(slot, id) for slot, _, kept in found for id in kept.of}
    sums: dict[str, list[Counted]] = {}
    for slot, id, kept in found:
        if (slot, id) not in known:
            sums[slot] = added(sums.get(slot, []), kept.counted)
    return sums


def _all(home: Home, apart: set[str]) -> list[tuple[str, str, Kept]]:
    """Looked for again where one went meanwhile: it is in a sum now, which may not have been there."""
    found: list[tuple[str, str, Kept]] = []
    for _ in range(_LOOKS):
        files = [(slot, id, path, _read(path)) for slot, id, path in _files(home) if id not in apart]
        found = [(slot, id, kept) for slot, id, _, kept in files if kept is not None]
        if all(kept is not None or path.exists() for _, _, path, kept in files):
            break
    return found


def fold(home: Home, slot: int, serving: str = "") -> None:
    """Put the files of those that are gone into the sum of their slot. `serving`: id of the worker that is announced
    for it. Raises `OSError`, also where somebody else is at it."""
    with _alone(home):
        files = [(id, path, kept) for _, id, path in _files(home, str(slot)) if (kept := _read(path)) is not None]
        base = next((kept for id, _, kept in files if id == _BASE), Kept(0, []))
        gone = [
            (id, path, kept)
            for id, path, kept in files
            if id not in (_BASE, serving) and (not lives(kept.pid) or _stale(path))
        ]
        if not gone:
            return
        total = base.summed
        for id, _, kept in gone:
            total = total if id in base.of else added(total, kept.counted)
        _write(home, str(slot), _BASE, Kept(0, [], total, [id for id, _, _ in gone]))
        for _, path, _ in gone:
            path.unlink(missing_ok=True)


def _stale(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > STALE_SECONDS


@contextmanager
def _alone(home: Home) -> Iterator[None]:
    """Nobody else folds meanwhile, and nobody waits for one that was stopped while it did."""
    _folder(home).mkdir(mode=0o700, parents=True, exist_ok=True)
    with (_folder(home) / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
