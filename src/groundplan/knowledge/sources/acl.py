"""The output of `getfacl -R` as readers of documents, as the kernel decides: users, groups, everybody, masks. Pure.

To read a file takes the right to read it and the right to pass through each folder above it. The owner's entry decides
for the owner, a user's for that user, whatever their groups may; a group's for its members, so that who is in a group
without the right is refused though everybody else may. `other` with the right is everybody. Names are as they are:
groups are Groundplan's groups, users are e-mail addresses.

Nothing is opened that the kernel refuses. Some things stay closed that it would open, since readers are names, and one
refusal is enough: to a member of a group that is refused where everybody may, whom another entry lets in; to whoever
passes a folder under one name and reads the file in it under another; and where a mask takes every right away.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from groundplan.core.errors import Invalid
from groundplan.knowledge.model import Readers

_ENTRY = re.compile(r"(?P<type>user|group|mask|other):(?P<name>[^:]*):(?P<rights>[r-][w-][xXsStT-])(?:\s+#.*)?")
_FILE = re.compile(r"# file: (?P<path>.*)")
_HEADER = re.compile(r"# (?P<what>owner|group): (?P<name>.*)")
EVERYONE = "everyone"
_ROOT = "root"
"""The kernel refuses it nothing, and it is nobody's address."""


@dataclass(frozen=True, slots=True)
class _Entry:
    type: str
    name: str
    reads: bool
    passes: bool


@dataclass(frozen=True, slots=True)
class Rights:
    """Who may read a file, or list a folder; and who may pass through it, where it is a folder."""

    reads: Readers
    passes: Readers


@dataclass(frozen=True, slots=True)
class Acl:
    """Rights by path; a path that is not there is read by whoever may list the nearest folder that is."""

    files: Mapping[str, Rights]

    def readers(self, key: str) -> Readers | None:
        """Who may read the document; None where nothing is said of it or of a folder above it."""
        path = PurePosixPath(key)
        above = [folder.as_posix() for folder in path.parents]
        nearest = next((each for each in (path.as_posix(), *above) if each in self.files), None)
        if nearest is None:
            return None
        return _intersection(
            [self.files[nearest].reads, *(self.files[each].passes for each in above if each in self.files)]
        )


def parse_acl(text: str) -> Acl:
    """Raises `Invalid` (readers_file) with the line that is not understood."""
    files: dict[str, Rights] = {}
    path: str | None = None
    heads: dict[str, str] = {}
    entries: list[_Entry] = []
    for number, line in enumerate([*text.split("\n"), ""], 1):
        line = line.removesuffix("\r")  # a name may end with a space, and have other signs that end lines
        if match := _FILE.fullmatch(line):
            path, heads, entries = _plain(match["path"]).removeprefix("./").rstrip("/") or ".", {}, []
        elif match := _HEADER.fullmatch(line):
            heads[match["what"]] = _name(match["name"])
        elif not line.strip():
            if path is not None:
                files[path] = Rights(_holders(entries, heads, "reads"), _holders(entries, heads, "passes"))
            path = None
        elif match := _ENTRY.fullmatch(line.strip()):
            rights = match["rights"]
            entries.append(_Entry(match["type"], _name(match["name"]), rights[0] == "r", rights[2] in "xst"))
        elif not line.lstrip().startswith(("#", "default:")):
            raise Invalid(
                f"line {number} of .acl is not an entry", code="readers_file", hint="Make it with `getfacl -R .`."
            )
    return Acl(files)


def _plain(text: str) -> str:
    """getfacl writes unusual bytes as octal numbers behind a backslash."""
    raw = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), text.encode())
    return raw.decode("utf-8", "backslashreplace")


def _name(name: str) -> str:
    name = _plain(name)
    return name.lower() if "@" in name else name


def _holders(entries: Sequence[_Entry], heads: Mapping[str, str], right: str) -> Readers:
    """Who has a right: `reads` or `passes`."""
    others = any(getattr(each, right) for each in entries if each.type == "other")
    mask = all(getattr(each, right) for each in entries if each.type == "mask")
    owner = heads.get("owner", "")
    users: dict[str, bool] = {}
    groups: dict[str, bool] = {}
    for each in entries:
        has = getattr(each, right)
        if each.type == "user" and not each.name:
            users[owner] = has
        elif each.type == "user" and each.name != owner:
            users[each.name] = has and mask
        elif each.type == "group":
            # one of the groups that somebody is in is enough
            name = each.name or heads.get("group", "")
            groups[name] = groups.get(name, False) or (has and mask)
    if others and (users.get("") is False or groups.get("") is False):
        raise Invalid(
            ".acl names no owner or group of a file that refuses them", code="readers_file",
            hint="Make it with `getfacl -R .`, with its comments.",
        )  # fmt: skip
    users.pop(_ROOT, None)
    allow = {name for name, has in (*users.items(), *groups.items()) if has and name}
    deny = {name for name, has in users.items() if not has and name}
    if others:
        allow.add(EVERYONE)
        deny |= {name for name, has in groups.items() if not has}
    return Readers(frozenset(allow), frozenset(deny))


def _intersection(levels: Sequence[Readers]) -> Readers:
    """Whoever is let in at every level, and refused at none."""
    named: Iterable[str] = frozenset[str]().union(*(level.allow for level in levels))
    allow = {name for name in named if all(name in level.allow or EVERYONE in level.allow for level in levels)}
    return Readers(frozenset(allow), frozenset[str]().union(*(level.deny for level in levels)))
