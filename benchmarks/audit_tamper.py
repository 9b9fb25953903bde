"""How surely a tampered audit log is found, and how exactly: random mutations of 12 kinds in copies of a log's files.

Each mutation is made in the files of one log, verified from those files alone (no database, no earlier checkpoint, only
the log's public key) and undone. `found`: the verification fails. `located`: it names the altered entry, or the altered
tile or file. The mutations leave the signature alone or cannot make it again, as somebody without the key; what the
holder of the key can do (fork, cut, sign anew) is found by whoever holds another checkpoint, told under `with_key`.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.provenance import commit, machine

from groundplan.core.audit.checkpoint import VerifierKey, parse_checkpoint, parse_note, sign
from groundplan.core.audit.log import AuditLog
from groundplan.core.audit.merkle import leaf_hash
from groundplan.core.audit.tiles import WIDTH, Tiles, encode_bundle, tile_path
from groundplan.core.audit.verify import Verdict, verify
from groundplan.core.audit.witness import FOLDER, CosignRequest, Witness

SIZE = 2_900
"""11 full bundles and a partial one."""


@dataclass(frozen=True)
class Scene:
    """A log to tamper with, and its public key from elsewhere."""

    folder: Path
    public: bytes
    other: Ed25519PrivateKey

    def bundle(self, draw: random.Random) -> tuple[int, int]:
        """(index, width) of a random bundle."""
        index = draw.randrange(-(-SIZE // WIDTH))
        return index, min(WIDTH, SIZE - index * WIDTH)

    def path(self, level: int | str, index: int, width: int) -> Path:
        return self.folder / tile_path("entries" if isinstance(level, str) else level, index, width)

    def write(self, index: int, width: int, entries: list[bytes]) -> Path:
        path = self.path("entries", index, width)
        path.write_bytes(encode_bundle(entries))
        return path


@dataclass(frozen=True)
class Told:
    """Where a mutation was made: entries by index, files by path."""

    entries: frozenset[int] = frozenset()
    files: frozenset[str] = frozenset()

    def located(self, verdict: Verdict) -> bool:
        """Whether a problem names one of the entries or files, as its place or in its words."""
        for problem in verdict.problems:
            if problem.where in self.entries or problem.where in self.files:
                return True
            if any(file in problem.message for file in self.files):
                return True
        return False


def _bit(scene: Scene, draw: random.Random) -> Told:
    """One bit of one entry."""
    index, width = scene.bundle(draw)
    entries, at = Tiles(scene.folder).entries(index, width), draw.randrange(width)
    body = bytearray(entries[at])
    body[draw.randrange(len(body))] ^= 1 << draw.randrange(8)
    scene.write(index, width, [*entries[:at], bytes(body), *entries[at + 1 :]])
    return Told(frozenset({index * WIDTH + at}))


def _replaced(scene: Scene, draw: random.Random) -> Told:
    """One entry by a forged one of another length."""
    index, width = scene.bundle(draw)
    entries, at = Tiles(scene.folder).entries(index, width), draw.randrange(width)
    entries[at] = b'{"forged":%d}' % draw.randrange(10**9)
    scene.write(index, width, entries)
    return Told(frozenset({index * WIDTH + at}))


def _length(scene: Scene, draw: random.Random) -> Told:
    """One bit of an entry's length."""
    index, width = scene.bundle(draw)
    entries, at = Tiles(scene.folder).entries(index, width), draw.randrange(width)
    path = scene.path("entries", index, width)
    data = bytearray(path.read_bytes())
    data[sum(2 + len(entry) for entry in entries[:at]) + draw.randrange(2)] ^= 1 << draw.randrange(8)
    path.write_bytes(data)
    return Told(frozenset({index * WIDTH + at}), frozenset({tile_path("entries", index, width)}))


def _missing(scene: Scene, draw: random.Random) -> Told:
    """One entry taken out."""
    index, width = scene.bundle(draw)
    entries, at = Tiles(scene.folder).entries(index, width), draw.randrange(width)
    scene.write(index, width, entries[:at] + entries[at + 1 :])
    return Told(frozenset({index * WIDTH + at}))


def _added(scene: Scene, draw: random.Random) -> Told:
    """One entry put in."""
    index, width = scene.bundle(draw)
    entries, at = Tiles(scene.folder).entries(index, width), draw.randrange(width + 1)
    entries.insert(at, b'{"forged":%d}' % draw.randrange(10**9))
    scene.write(index, width, entries)
    return Told(frozenset({index * WIDTH + at, index * WIDTH + width}))


def _twice(scene: Scene, draw: random.Random) -> Told:
    """One entry in the place of another of its bundle as well."""
    index, width = scene.bundle(draw)
    entries = Tiles(scene.folder).entries(index, width)
    at, to = draw.sample(range(width), 2)
    entries[to] = entries[at]
    scene.write(index, width, entries)
    return Told(frozenset({index * WIDTH + to}))


def _swapped(scene: Scene, draw: random.Random) -> Told:
    """Two entries of a bundle."""
    index, width = scene.bundle(draw)
    entries = Tiles(scene.folder).entries(index, width)
    at, to = draw.sample(range(width), 2)
    entries[at], entries[to] = entries[to], entries[at]
    scene.write(index, width, entries)
    return Told(frozenset({index * WIDTH + at, index * WIDTH + to}))


def _swapped_far(scene: Scene, draw: random.Random) -> Told:
    """Two entries of different bundles."""
    first, second = draw.sample(range(SIZE // WIDTH), 2)
    tiles = Tiles(scene.folder)
    here, there = tiles.entries(first), tiles.entries(second)
    at, to = draw.randrange(WIDTH), draw.randrange(WIDTH)
    here[at], there[to] = there[to], here[at]
    scene.write(first, WIDTH, here)
    scene.write(second, WIDTH, there)
    return Told(frozenset({first * WIDTH + at, second * WIDTH + to}))


def _cut(scene: Scene, draw: random.Random) -> Told:
    """A file that ends early."""
    level, index, width = draw.choice(_tiles())
    path = scene.path(level, index, width)
    data = path.read_bytes()
    keep = draw.randrange(len(data))
    path.write_bytes(data[:keep])
    entries = frozenset(range(index * WIDTH, index * WIDTH + width)) if level == "entries" else frozenset()
    return Told(entries, frozenset({str(path.relative_to(scene.folder))}))


def _gone(scene: Scene, draw: random.Random) -> Told:
    """A file that is not there."""
    level, index, width = draw.choice(_tiles())
    path = scene.path(level, index, width)
    path.unlink()
    entries = frozenset({index * WIDTH}) if level == "entries" else frozenset()
    return Told(entries, frozenset({str(path.relative_to(scene.folder))}))


def _hash(scene: Scene, draw: random.Random) -> Told:
    """One bit of a hash tile."""
    level, index, width = draw.choice([tile for tile in _tiles() if tile[0] != "entries"])
    path = scene.path(level, index, width)
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)
    below = frozenset(range(index * WIDTH, index * WIDTH + width)) if level == 0 and width < WIDTH else frozenset()
    return Told(below, frozenset({str(path.relative_to(scene.folder))}))


def _with_hash(scene: Scene, draw: random.Random) -> Told:
    """One entry together with its hash, so that both agree."""
    index, width = scene.bundle(draw)
    entries, at = Tiles(scene.folder).entries(index, width), draw.randrange(width)
    entries[at] = b'{"forged":%d}' % draw.randrange(10**9)
    scene.write(index, width, entries)
    path = scene.path(0, index, width)
    path.write_bytes(b"".join(leaf_hash(entry) for entry in entries))
    return Told(frozenset({index * WIDTH + at}), frozenset({str(path.relative_to(scene.folder))}))


def _checkpoint(scene: Scene, draw: random.Random) -> Told:
    """A checkpoint with another size or root, signed by somebody else or by nobody."""
    path = scene.folder / "checkpoint"
    note = parse_note(path.read_bytes())
    point = parse_checkpoint(note.text)
    text = note.text.replace(f"\n{point.size}\n", f"\n{point.size - 1 - draw.randrange(point.size - 1)}\n")
    if draw.random() < 0.5:
        path.write_bytes(note.encode().replace(note.text.encode(), text.encode()))
    else:
        path.write_bytes(sign(text, scene.other, point.origin).encode())
    return Told(files=frozenset({"checkpoint"}))


def _tiles() -> list[tuple[int | str, int, int]]:
    """(level, index, width) of every file of the log."""
    count = -(-SIZE // WIDTH)
    low: list[tuple[int | str, int, int]] = [
        (level, index, min(WIDTH, SIZE - index * WIDTH)) for level in ("entries", 0) for index in range(count)
    ]
    return [*low, (1, 0, SIZE // WIDTH)]


KINDS: dict[str, Callable[[Scene, random.Random], Told]] = {
    "a bit of an entry": _bit,
    "an entry replaced": _replaced,
    "a length": _length,
    "an entry missing": _missing,
    "an entry added": _added,
    "an entry twice": _twice,
    "two entries swapped": _swapped,
    "two entries of different tiles swapped": _swapped_far,
    "a file cut": _cut,
    "a file missing": _gone,
    "a hash": _hash,
    "an entry with its hash": _with_hash,
    "a checkpoint": _checkpoint,
}
"""12 kinds in entries and tiles, and the checkpoint itself."""


def make(folder: Path) -> Scene:
    """A log of `SIZE` entries."""
    key = Ed25519PrivateKey.generate()
    with AuditLog(folder, key) as log:
        log.append([b'{"action":"call","id":%d,"subject":"workload/assistant"}' % n for n in range(SIZE)])
    return Scene(folder, key.public_key().public_bytes_raw(), Ed25519PrivateKey.generate())


def measure(folder: Path, mutations: int, seed: int) -> dict[str, object]:
    """Make the mutations, equally many of each kind, and count what verification says."""
    scene = make(folder / "audit")
    draw = random.Random(seed)
    files = {path: path.read_bytes() for path in scene.folder.rglob("*") if path.is_file()}
    names = list(KINDS)
    made: Counter[str] = Counter()
    found: Counter[str] = Counter()
    located: Counter[str] = Counter()
    begun = time.perf_counter()
    for number in range(mutations):
        name = names[number % len(names)]
        told = KINDS[name](scene, draw)
        verdict = verify(scene.folder, scene.public)
        made[name] += 1
        found[name] += not verdict.ok
        located[name] += told.located(verdict)
        for path, data in files.items():
            if not path.exists() or path.read_bytes() != data:
                path.write_bytes(data)
    assert verify(scene.folder, scene.public).ok, "the log is whole again"
    return {
        "mutations": made.total(),
        "kinds": len(KINDS),
        "found": found.total(),
        "located": located.total(),
        "by_kind": {name: {"made": made[name], "found": found[name], "located": located[name]} for name in names},
        "with_key": with_key(folder, draw, 60),
        "seconds": round(time.perf_counter() - begun, 1),
        "entries": SIZE,
        "seed": seed,
        "machine": machine(),
        "commit": commit(),
    }


def with_key(folder: Path, draw: random.Random, times: int) -> dict[str, int]:
    """Forks, cuts and rewritten beginnings by the holder of the key, before somebody with a checkpoint of an earlier
    size, and before what a witness signed: how many each finds. From the files alone each of them holds."""
    key = Ed25519PrivateKey.generate()
    counted: Counter[str] = Counter()
    for number in range(times):
        honest = folder / f"honest-{number}"
        size = draw.randrange(20, 600)
        _grown(honest, key, size)
        kept = (honest / "checkpoint").read_bytes()
        witness = Witness(folder / f"witness-{number}", "w", Ed25519PrivateKey.generate(), _keys(honest, key))
        line = witness.add(CosignRequest(0, (), parse_note(kept)))
        forged = folder / f"forged-{number}"
        cut = number % 2 == 0
        _grown(forged, key, draw.randrange(1, size) if cut else size + 50, b"h" if cut else b"f")
        _keep(forged, witness, parse_note(kept).with_signature(line).encode())
        public = key.public_key().public_bytes_raw()
        counted["made"] += 1
        counted["by_a_kept_checkpoint"] += not verify(forged, public, earlier=[kept]).ok
        counted["by_the_witness"] += not verify(forged, public, witnesses=[witness.public]).ok
    return dict(counted)


def _grown(folder: Path, key: Ed25519PrivateKey, size: int, word: bytes = b"h") -> None:
    with AuditLog(folder, key) as log:
        log.append([word + b"%d" % number for number in range(size)])


def _keys(folder: Path, key: Ed25519PrivateKey) -> list[VerifierKey]:
    origin = parse_checkpoint(parse_note((folder / "checkpoint").read_bytes()).text).origin
    return [VerifierKey(origin, key.public_key().public_bytes_raw())]


def _keep(folder: Path, witness: Witness, note: bytes) -> None:
    (folder / FOLDER).mkdir()
    (folder / FOLDER / witness.public.id.hex()).write_bytes(note)
    (folder / FOLDER / f"{witness.public.id.hex()}.pub").write_text(witness.public.encode())


def main() -> None:
    """Print the figures; exit 1 where something was not found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=20261125)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix=".bench-tamper-") as folder:
        figures = measure(Path(folder), options.mutations, options.seed)
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:>12}  {value}")
    if figures["found"] != figures["mutations"] or figures["located"] != figures["mutations"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
