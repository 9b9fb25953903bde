"""The output of `getfacl -R` as readers of documents: users, groups, everybody, and their mask. Pure.

A named user whose entry does not let them read is refused, as the kernel does, whatever their groups may. `other` that
may read is everybody. Names are taken as they are: groups are Groundplan's groups, users are e-mail addresses.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from groundplan.core.errors import Invalid
from groundplan.knowledge.model import Readers

_ENTRY = re.compile(r"(?P<type>user|group|mask|other):(?P<name>[^:]*):(?P<rights>[r-][w-][xXsStT-])(?:\s+#.*)?")
_FILE = re.compile(r"# file: (?P<path>.*)")
_HEADER = re.compile(r"# (?P<what>owner|group): (?P<name>.*)")


@dataclass(frozen=True, slots=True)
class Acl:
    """Readers by path; a path that is not there has those of the nearest folder that is."""

    files: Mapping[str, Readers]

    def readers(self, key: str) -> Readers | None:
        path = key
        while path and path not in self.files:
            path = path.rpartition("/")[0]
        return self.files.get(path or ".")


def parse_acl(text: str) -> Acl:
    """Raises `Invalid` (readers_file) with the line that is not understood."""
    files: dict[str, Readers] = {}
    path: str | None = None
    heads: dict[str, str] = {}
    entries: list[tuple[str, str, bool]] = []
    for number, line in enumerate([*text.splitlines(), ""], 1):
        line = line.strip()
        if match := _FILE.fullmatch(line):
            path, heads, entries = _plain(match["path"]), {}, []
        elif match := _HEADER.fullmatch(line):
            heads[match["what"]] = match["name"]
        elif not line:
            if path is not None:
                files[path] = _readers(entries, heads)
            path = None
        elif match := _ENTRY.fullmatch(line):
            entries.append((match["type"], match["name"], match["rights"].startswith("r")))
        elif not line.startswith(("#", "default:")):
            raise Invalid(
                f"line {number} of .acl is no entry", code="readers_file", hint="Make it with `getfacl -R .`."
            )
    return Acl(files)


def _plain(path: str) -> str:
    """getfacl writes unusual bytes as octal numbers behind a backslash."""
    raw = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), path.encode())
    return raw.decode("utf-8", "replace").removeprefix("./").rstrip("/") or "."


def _readers(entries: list[tuple[str, str, bool]], heads: Mapping[str, str]) -> Readers:
    mask = all(reads for type_, _, reads in entries if type_ == "mask")
    allow: set[str] = set()
    deny: set[str] = set()
    for type_, name, reads in entries:
        if type_ == "other":
            allow |= {"everyone"} if reads else set()
        elif type_ == "user" and not name:
            allow |= {heads["owner"]} if reads and "owner" in heads else set()
        elif type_ in ("user", "group"):
            who = name or heads.get("group", "")
            if reads and mask and who:
                allow.add(who)
            elif type_ == "user":
                deny.add(who)
    return Readers(frozenset(map(_name, allow)), frozenset(map(_name, deny)))


def _name(name: str) -> str:
    return name.lower() if "@" in name else name
