"""Verifies a copy of an audit log with nothing but Python and `cryptography`: `python verify_log.py FOLDER [options]`.

FOLDER holds checkpoint, log.pub and tile/ (C2SP tlog-tiles, RFC 6962). Every entry and every hash is read. Exit 0 where
all holds, 1 where not. Options: --key FILE (a log.pub that you got elsewhere), --earlier FILE (a checkpoint that you
kept: the log must continue it), --witness KEY (name+id+key of a witness whose co-signature must be there).
"""

import argparse
import base64
import hashlib
import sys
from datetime import datetime, timezone
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def sha(data):
    return hashlib.sha256(data).digest()


def tile(folder, level, index, width=256):
    """The bytes of a tile; a full one serves for a partial one."""
    digits = f"{index:03d}" if index < 1000 else None
    if digits is None:
        groups = []
        while index:
            groups.append(f"{index % 1000:03d}")
            index //= 1000
        digits = "/".join(f"x{group}" for group in reversed(groups[1:])) + f"/{groups[0]}"
    full = folder / "tile" / str(level) / digits
    partial = full.with_name(full.name + ".p") / str(width)
    return (partial if width < 256 and partial.exists() else full).read_bytes()


def entries_of(data, first, problems):
    position = 0
    while position < len(data):
        length = int.from_bytes(data[position : position + 2], "big")
        if position + 2 + length > len(data):
            problems.append(f"entry {first}: it or its length was altered")
            return
        yield data[position + 2 : position + 2 + length]
        position, first = position + 2 + length, first + 1


def root_of(hashes):
    """RFC 6962, 2.1; the last hash may stand for a smaller subtree."""
    row = list(hashes)
    while len(row) > 1:
        pairs = [sha(b"\x01" + row[i] + row[i + 1]) for i in range(0, len(row) - 1, 2)]
        row = pairs + (row[-1:] if len(row) % 2 else [])
    return row[0] if row else sha(b"")


def parse_note(data):
    text, _, tail = data.decode().rpartition("\n\n")
    lines = [line[2:].rsplit(" ", 1) for line in tail.splitlines() if line.startswith("\u2014 ")]
    return text + "\n", [(name, base64.b64decode(signature)) for name, signature in lines]


def parse_key(text):
    name, _, rest = text.strip().partition("+")
    raw = base64.b64decode(rest.partition("+")[2])
    return name, sha(name.encode() + b"\n" + raw)[:4], raw[0], raw[1:]


def signed(note, key):
    """True (by the log), the time (by a witness), or None."""
    text, lines = note
    name, id, kind, public = key
    for who, signature in lines:
        if who != name or signature[:4] != id:
            continue
        seconds, body = (int.from_bytes(signature[4:12], "big"), signature[12:]) if kind == 4 else (0, signature[4:])
        message = f"cosignature/v1\ntime {seconds}\n{text}" if kind == 4 else text
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(body, message.encode())
        except InvalidSignature:
            continue
        at = datetime.fromtimestamp(seconds, timezone.utc)  # noqa: UP017 -- runs on an auditor's older Python, too
        return at if kind == 4 else True
    return None


def point_of(note):
    origin, size, root = note[0].split("\n")[:3]
    return origin, int(size), base64.b64decode(root)


def read_leaves(folder, size, problems):
    leaves = []
    for index in range(-(-size // 256)):
        first, width = index * 256, min(256, size - index * 256)
        found = [sha(b"\x00" + e) for e in entries_of(tile(folder, "entries", index, width), first, problems)]
        stored = tile(folder, 0, index, width)
        stored = [stored[at : at + 32] for at in range(0, width * 32, 32)]
        for at in range(max(len(found), width)):
            if found[at : at + 1] != stored[at : at + 1]:
                problems.append(f"entry {first + at}: it is not the one that was logged")
                break
        leaves += found[:width]
    return leaves


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--key", type=Path)
    parser.add_argument("--earlier", type=Path, action="append", default=[])
    parser.add_argument("--witness", action="append", default=[])
    options = parser.parse_args()
    folder, problems = options.folder, []
    note = parse_note((folder / "checkpoint").read_bytes())
    origin, size, root = point_of(note)
    keys = [parse_key((options.key or folder / "log.pub").read_text())]
    rotated = sorted((folder / "rotated").glob("[0-9]*"), key=lambda path: int(path.name))
    for handed in [parse_note(path.read_bytes()) for path in rotated]:
        named = dict(line.split(" ", 1) for line in handed[0].splitlines()[3:])
        before, after = parse_key(named["previous"]), parse_key(named["next"])
        if before == keys[-1] and signed(handed, before) and signed(handed, after):
            keys.append(after)
    if not signed(note, keys[-1]):
        problems.append("checkpoint: it is not signed by this key")
    leaves = read_leaves(folder, size, problems)
    if len(leaves) != size or root_of(leaves) != root:
        problems.append("checkpoint: the entries give another root than the signed one")
    told = []
    for path in options.earlier:
        old = parse_note(path.read_bytes())
        name, before, old_root = point_of(old)
        if name != origin or not any(signed(old, key) for key in keys):
            problems.append(f"{path}: it is not from this log")
        elif before > size or root_of(leaves[:before]) != old_root:
            problems.append(f"{path}: the log does not continue it: it was cut, forked or rewritten")
    for key in map(parse_key, options.witness):
        kept = folder / "witnessed" / key[1].hex()
        seen = parse_note(kept.read_bytes()) if kept.exists() else None
        at = signed(seen, key) if seen else None
        if at is None or point_of(seen)[1] > size or root_of(leaves[: point_of(seen)[1]]) != point_of(seen)[2]:
            problems.append(f"witness {key[0]}: it has not signed what this log continues")
        else:
            told.append(f"witnessed by {key[0]} at {at:%Y-%m-%dT%H:%M:%SZ}, {point_of(seen)[1]} entries")
    print("\n".join(problems) or f"{size} entries hold, " + ("; ".join(told) or "self-signed"))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
