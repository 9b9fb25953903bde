"""How reliably and how precisely tampering with an audit log is detected: random mutations of 13 kinds in its files.

Each mutation is applied to the files of one log, verified from those files alone (no database, no earlier checkpoint,
only the log's public key) and undone. `found`: the verification fails. `located`: it names the altered entry, tile or
file. The mutations are those of somebody without the key, who cannot renew the signature; what the holder of the key
can do (fork, truncate, sign again) is detected by anyone with another checkpoint, reported under `with_key`.
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
class TargetLog:
    """A log to tamper with, its public key, and another key to sign with."""

    folder: Path
    public: bytes
    other: Ed25519PrivateKey

    def random_bundle(self, rng: random.Random) -> tuple[int, int]:
        """(index, width) of a random bundle."""
        index = rng.randrange(-(-SIZE // WIDTH))
        return index, min(WIDTH, SIZE - index * WIDTH)

    def tile_file(self, level: int | str, index: int, width: int) -> Path:
        return self.folder / tile_path("entries" if isinstance(level, str) else level, index, width)

    def write_bundle(self, index: int, width: int, entries: list[bytes]) -> Path:
        path = self.tile_file("entries", index, width)
        path.write_bytes(encode_bundle(entries))
        return path


@dataclass(frozen=True)
class Mutation:
    """The place of a mutation: entries by index, files by path."""

    entries: frozenset[int] = frozenset()
    files: frozenset[str] = frozenset()

    def is_located(self, verdict: Verdict) -> bool:
        """Whether a problem names one of the entries or files, as its place or in its message."""
        for problem in verdict.problems:
            if problem.where in self.entries or problem.where in self.files:
                return True
            if any(file in problem.message for file in self.files):
                return True
        return False


def flip_entry_bit(target: TargetLog, rng: random.Random) -> Mutation:
    """Flip one bit of one entry."""
    index, width = target.random_bundle(rng)
    entries, position = Tiles(target.folder).entries(index, width), rng.randrange(width)
    body = bytearray(entries[position])
    body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
    target.write_bundle(index, width, [*entries[:position], bytes(body), *entries[position + 1 :]])
    return Mutation(frozenset({index * WIDTH + position}))


def replace_entry(target: TargetLog, rng: random.Random) -> Mutation:
    """Replace one entry by a forged one of another length."""
    index, width = target.random_bundle(rng)
    entries, position = Tiles(target.folder).entries(index, width), rng.randrange(width)
    entries[position] = b'{"forged":%d}' % rng.randrange(10**9)
    target.write_bundle(index, width, entries)
    return Mutation(frozenset({index * WIDTH + position}))


def flip_length_bit(target: TargetLog, rng: random.Random) -> Mutation:
    """Flip one bit of an entry's length."""
    index, width = target.random_bundle(rng)
    entries, position = Tiles(target.folder).entries(index, width), rng.randrange(width)
    path = target.tile_file("entries", index, width)
    data = bytearray(path.read_bytes())
    data[sum(2 + len(entry) for entry in entries[:position]) + rng.randrange(2)] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    return Mutation(frozenset({index * WIDTH + position}), frozenset({tile_path("entries", index, width)}))


def remove_entry(target: TargetLog, rng: random.Random) -> Mutation:
    """Remove one entry."""
    index, width = target.random_bundle(rng)
    entries, position = Tiles(target.folder).entries(index, width), rng.randrange(width)
    target.write_bundle(index, width, entries[:position] + entries[position + 1 :])
    return Mutation(frozenset({index * WIDTH + position}))


def insert_entry(target: TargetLog, rng: random.Random) -> Mutation:
    """Insert one entry."""
    index, width = target.random_bundle(rng)
    entries, position = Tiles(target.folder).entries(index, width), rng.randrange(width + 1)
    entries.insert(position, b'{"forged":%d}' % rng.randrange(10**9))
    target.write_bundle(index, width, entries)
    return Mutation(frozenset({index * WIDTH + position, index * WIDTH + width}))


def duplicate_entry(target: TargetLog, rng: random.Random) -> Mutation:
    """Overwrite one entry by another of its bundle."""
    index, width = target.random_bundle(rng)
    entries = Tiles(target.folder).entries(index, width)
    from_position, position = rng.sample(range(width), 2)
    entries[position] = entries[from_position]
    target.write_bundle(index, width, entries)
    return Mutation(frozenset({index * WIDTH + position}))


def swap_in_bundle(target: TargetLog, rng: random.Random) -> Mutation:
    """Swap two entries of a bundle."""
    index, width = target.random_bundle(rng)
    entries = Tiles(target.folder).entries(index, width)
    first, second = rng.sample(range(width), 2)
    entries[first], entries[second] = entries[second], entries[first]
    target.write_bundle(index, width, entries)
    return Mutation(frozenset({index * WIDTH + first, index * WIDTH + second}))


def swap_between_bundles(target: TargetLog, rng: random.Random) -> Mutation:
    """Swap two entries of different bundles."""
    first, second = rng.sample(range(SIZE // WIDTH), 2)
    tiles = Tiles(target.folder)
    first_entries, second_entries = tiles.entries(first), tiles.entries(second)
    first_position, second_position = rng.randrange(WIDTH), rng.randrange(WIDTH)
    first_entries[first_position], second_entries[second_position] = (
        second_entries[second_position],
        first_entries[first_position],
    )
    target.write_bundle(first, WIDTH, first_entries)
    target.write_bundle(second, WIDTH, second_entries)
    return Mutation(frozenset({first * WIDTH + first_position, second * WIDTH + second_position}))


def truncate_file(target: TargetLog, rng: random.Random) -> Mutation:
    """Truncate a file."""
    level, index, width = rng.choice(_all_files())
    path = target.tile_file(level, index, width)
    data = path.read_bytes()
    length = rng.randrange(len(data))
    path.write_bytes(data[:length])
    entries = frozenset(range(index * WIDTH, index * WIDTH + width)) if level == "entries" else frozenset()
    return Mutation(entries, frozenset({str(path.relative_to(target.folder))}))


def delete_file(target: TargetLog, rng: random.Random) -> Mutation:
    """Delete a file."""
    level, index, width = rng.choice(_all_files())
    path = target.tile_file(level, index, width)
    path.unlink()
    entries = frozenset({index * WIDTH}) if level == "entries" else frozenset()
    return Mutation(entries, frozenset({str(path.relative_to(target.folder))}))


def flip_hash_bit(target: TargetLog, rng: random.Random) -> Mutation:
    """Flip one bit of a hash tile."""
    level, index, width = rng.choice([tile for tile in _all_files() if tile[0] != "entries"])
    path = target.tile_file(level, index, width)
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)
    entries = frozenset(range(index * WIDTH, index * WIDTH + width)) if level == 0 and width < WIDTH else frozenset()
    return Mutation(entries, frozenset({str(path.relative_to(target.folder))}))


def replace_with_hash(target: TargetLog, rng: random.Random) -> Mutation:
    """Replace one entry together with its hash, so that both agree."""
    index, width = target.random_bundle(rng)
    entries, position = Tiles(target.folder).entries(index, width), rng.randrange(width)
    entries[position] = b'{"forged":%d}' % rng.randrange(10**9)
    target.write_bundle(index, width, entries)
    path = target.tile_file(0, index, width)
    path.write_bytes(b"".join(leaf_hash(entry) for entry in entries))
    return Mutation(frozenset({index * WIDTH + position}), frozenset({str(path.relative_to(target.folder))}))


def change_checkpoint(target: TargetLog, rng: random.Random) -> Mutation:
    """Change the size in the checkpoint; sign it with another key or keep the old signature."""
    path = target.folder / "checkpoint"
    note = parse_note(path.read_bytes())
    point = parse_checkpoint(note.text)
    text = note.text.replace(f"\n{point.size}\n", f"\n{point.size - 1 - rng.randrange(point.size - 1)}\n")
    if rng.random() < 0.5:
        path.write_bytes(note.encode().replace(note.text.encode(), text.encode()))
    else:
        path.write_bytes(sign(text, target.other, point.origin).encode())
    return Mutation(files=frozenset({"checkpoint"}))


def _all_files() -> list[tuple[int | str, int, int]]:
    """(level, index, width) of every file of the log."""
    count = -(-SIZE // WIDTH)
    low: list[tuple[int | str, int, int]] = [
        (level, index, min(WIDTH, SIZE - index * WIDTH)) for level in ("entries", 0) for index in range(count)
    ]
    return [*low, (1, 0, SIZE // WIDTH)]


KINDS: dict[str, Callable[[TargetLog, random.Random], Mutation]] = {
    "a bit of an entry": flip_entry_bit,
    "an entry replaced": replace_entry,
    "a length": flip_length_bit,
    "an entry missing": remove_entry,
    "an entry added": insert_entry,
    "an entry twice": duplicate_entry,
    "two entries swapped": swap_in_bundle,
    "two entries of different tiles swapped": swap_between_bundles,
    "a file cut": truncate_file,
    "a file missing": delete_file,
    "a hash": flip_hash_bit,
    "an entry with its hash": replace_with_hash,
    "a checkpoint": change_checkpoint,
}
"""12 kinds in entries and tiles, and the checkpoint itself."""


def make_log(folder: Path) -> TargetLog:
    """A log of `SIZE` entries."""
    key = Ed25519PrivateKey.generate()
    with AuditLog(folder, key) as log:
        log.append([b'{"action":"call","id":%d,"subject":"workload/assistant"}' % n for n in range(SIZE)])
    return TargetLog(folder, key.public_key().public_bytes_raw(), Ed25519PrivateKey.generate())


def measure(folder: Path, mutations: int, seed: int) -> dict[str, object]:
    """Apply the mutations, equally many of each kind, and count how many verification finds and locates."""
    target = make_log(folder / "audit")
    rng = random.Random(seed)
    files = {path: path.read_bytes() for path in target.folder.rglob("*") if path.is_file()}
    names = list(KINDS)
    applied: Counter[str] = Counter()
    found: Counter[str] = Counter()
    located: Counter[str] = Counter()
    started = time.perf_counter()
    for number in range(mutations):
        name = names[number % len(names)]
        mutation = KINDS[name](target, rng)
        verdict = verify(target.folder, target.public)
        applied[name] += 1
        found[name] += not verdict.ok
        located[name] += mutation.is_located(verdict)
        for path, data in files.items():
            if not path.exists() or path.read_bytes() != data:
                path.write_bytes(data)
    assert verify(target.folder, target.public).ok, "the log is restored"
    return {
        "mutations": applied.total(),
        "kinds": len(KINDS),
        "found": found.total(),
        "located": located.total(),
        "by_kind": {name: {"made": applied[name], "found": found[name], "located": located[name]} for name in names},
        "with_key": measure_key_holder(folder, rng, 60),
        "seconds": round(time.perf_counter() - started, 1),
        "entries": SIZE,
        "seed": seed,
        "machine": machine(),
        "commit": commit(),
    }


def measure_key_holder(folder: Path, rng: random.Random, times: int) -> dict[str, int]:
    """Forks and truncations by the holder of the key: how many an earlier checkpoint, and the signature of a witness,
    detect. From the files alone each of these logs verifies."""
    key = Ed25519PrivateKey.generate()
    counts: Counter[str] = Counter()
    for number in range(times):
        honest = folder / f"honest-{number}"
        size = rng.randrange(20, 600)
        _append_entries(honest, key, size)
        kept_checkpoint = (honest / "checkpoint").read_bytes()
        witness = Witness(folder / f"witness-{number}", "w", Ed25519PrivateKey.generate(), _verifier_keys(honest, key))
        signature = witness.add(CosignRequest(0, (), parse_note(kept_checkpoint)))
        forged = folder / f"forged-{number}"
        is_truncated = number % 2 == 0
        _append_entries(
            forged, key, rng.randrange(1, size) if is_truncated else size + 50, b"h" if is_truncated else b"f"
        )
        _store_witnessed(forged, witness, parse_note(kept_checkpoint).with_signature(signature).encode())
        public = key.public_key().public_bytes_raw()
        counts["made"] += 1
        counts["by_a_kept_checkpoint"] += not verify(forged, public, earlier=[kept_checkpoint]).ok
        counts["by_the_witness"] += not verify(forged, public, witnesses=[witness.public]).ok
    return dict(counts)


def _append_entries(folder: Path, key: Ed25519PrivateKey, size: int, word: bytes = b"h") -> None:
    with AuditLog(folder, key) as log:
        log.append([word + b"%d" % number for number in range(size)])


def _verifier_keys(folder: Path, key: Ed25519PrivateKey) -> list[VerifierKey]:
    origin = parse_checkpoint(parse_note((folder / "checkpoint").read_bytes()).text).origin
    return [VerifierKey(origin, key.public_key().public_bytes_raw())]


def _store_witnessed(folder: Path, witness: Witness, note: bytes) -> None:
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
