"""Reads the output of `getfacl -R` as readers of documents, by the kernel's rules: users, groups, others, masks. Pure.

Reading a file takes the right to read it and the right to pass through each folder above it. The owner's entry decides
for the owner and a user's entry for that user, whatever rights their groups have; a group's entry decides for its
members, so that members of a group without the right are refused even if all others may read. `other` with the right
means everybody. Names are taken as they are: groups are Groundplan's groups, users are e-mail addresses.

Access is never wider than the kernel's. It is narrower in some cases, since readers are names and one refusal is
enough: for members of a refused group whom another entry lets in; for people who pass a folder by one entry and read
the file in it by another; and where a mask removes every right.
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
_SUPERUSER = "root"
"""The kernel refuses root nothing, and it is no person's address."""


@dataclass(frozen=True, slots=True)
class _Entry:
    type: str
    name: str
    reads: bool
    passes: bool


@dataclass(frozen=True, slots=True)
class Rights:
    """Who may read a file or list a folder; for a folder, also who may pass through it."""

    reads: Readers
    passes: Readers


@dataclass(frozen=True, slots=True)
class Acl:
    """Rights by path. A path that is not listed takes the readers of the nearest listed folder above it."""

    files: Mapping[str, Rights]

    def readers(self, key: str) -> Readers | None:
        """Who may read the document; None if neither it nor a folder above it is listed."""
        path = PurePosixPath(key)
        above = [folder.as_posix() for folder in path.parents]
        nearest = next((each for each in (path.as_posix(), *above) if each in self.files), None)
        if nearest is None:
            return None
        return _intersection(
            [self.files[nearest].reads, *(self.files[each].passes for each in above if each in self.files)]
        )


def parse_acl(text: str) -> Acl:
    """Parse the output of `getfacl -R`. Raises `Invalid` (readers_file) with the number of a line that is no entry."""
    files: dict[str, Rights] = {}
    path: str | None = None
    header: dict[str, str] = {}
    entries: list[_Entry] = []
    for number, line in enumerate([*text.split("\n"), ""], 1):
        line = line.removesuffix("\r")  # a name may end with a space, and contain other line separators
        if match := _FILE.fullmatch(line):
            path, header, entries = _unescape(match["path"]).removeprefix("./").rstrip("/") or ".", {}, []
        elif match := _HEADER.fullmatch(line):
            header[match["what"]] = _reader_name(match["name"])
        elif not line.strip():
            if path is not None:
                files[path] = Rights(_holders(entries, header, "reads"), _holders(entries, header, "passes"))
            path = None
        elif match := _ENTRY.fullmatch(line.strip()):
            rights = match["rights"]
            entries.append(_Entry(match["type"], _reader_name(match["name"]), rights[0] == "r", rights[2] in "xst"))
        elif not line.lstrip().startswith(("#", "default:")):
            raise Invalid(
                f"line {number} of .acl is not an entry", code="readers_file", hint="Make it with `getfacl -R .`."
            )
    return Acl(files)


def _unescape(text: str) -> str:
    """A name without the octal escapes that getfacl writes for unusual bytes."""
    raw = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), text.encode())
    return raw.decode("utf-8", "backslashreplace")


def _reader_name(name: str) -> str:
    name = _unescape(name)
    return name.lower() if "@" in name else name


def _holders(entries: Sequence[_Entry], header: Mapping[str, str], right: str) -> Readers:
    """Who has a right: `reads` or `passes`."""
    is_public = any(getattr(each, right) for each in entries if each.type == "other")
    is_unmasked = all(getattr(each, right) for each in entries if each.type == "mask")
    owner = header.get("owner", "")
    users: dict[str, bool] = {}
    groups: dict[str, bool] = {}
    for each in entries:
        has = getattr(each, right)
        if each.type == "user" and not each.name:
            users[owner] = has
        elif each.type == "user" and each.name != owner:
            users[each.name] = has and is_unmasked
        elif each.type == "group":
            # a person needs the right by one of their groups only
            name = each.name or header.get("group", "")
            groups[name] = groups.get(name, False) or (has and is_unmasked)
    if is_public and (users.get("") is False or groups.get("") is False):
        raise Invalid(
            ".acl names no owner or group of a file that refuses them", code="readers_file",
            hint="Make it with `getfacl -R .`, with its comments.",
        )  # fmt: skip
    users.pop(_SUPERUSER, None)
    allow = {name for name, has in (*users.items(), *groups.items()) if has and name}
    deny = {name for name, has in users.items() if not has and name}
    if is_public:
        allow.add(EVERYONE)
        deny |= {name for name, has in groups.items() if not has}
    return Readers(frozenset(allow), frozenset(deny))


def _intersection(levels: Sequence[Readers]) -> Readers:
    """Those who are allowed at every level and denied at none."""
    names: Iterable[str] = frozenset[str]().union(*(level.allow for level in levels))
    allow = {name for name in names if all(name in level.allow or EVERYONE in level.allow for level in levels)}
    return Readers(frozenset(allow), frozenset[str]().union(*(level.deny for level in levels)))
