"""The files beside documents that say what holds for them, wherever a tree of files is kept; `folder` names them.

`read` gives the bytes of a path in the tree, None where there is no such file; it raises `Invalid` where there is one
that cannot be read. What cannot be understood is an error for every document below it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from groundplan.core.errors import GroundplanError, Invalid, TooLarge
from groundplan.knowledge.model import Readers
from groundplan.knowledge.parsing.text import mapping
from groundplan.knowledge.sources.acl import Acl, parse_acl
from groundplan.knowledge.sources.model import Around

READERS_FILE = ".readers"
GOVERNED_FILE = ".governed.yaml"
ACL_FILE = ".acl"
MAX_BYTES = 4 << 20
MAX_YAML_BYTES = 64 << 10
"""Of what is read as YAML, which takes a thousand times as long as a list of names."""


class Sidecars:
    """What the files beside documents say; each is read once."""

    def __init__(self, read: Callable[[str], bytes | None]) -> None:
        self._read = read
        self._folders: dict[str, Around | GroundplanError] = {}
        self._acl: Acl | GroundplanError | None = None
        self._acl_read = False

    def around(self, key: str) -> Sequence[Around]:
        """Levels of the folders from the top down. Raises `Invalid` where one cannot be read for certain."""
        levels: list[Around] = []
        for folder in (PurePosixPath(), *reversed(PurePosixPath(key).parents[:-1])):
            name = "" if folder == PurePosixPath() else folder.as_posix()
            if name not in self._folders:
                self._folders[name] = self._folder(name)
            level = self._folders[name]
            if isinstance(level, GroundplanError):
                raise level
            if level.readers is not None or level.told:
                levels.append(level)
        if not self._acl_read:
            self._acl, self._acl_read = self._access_list(), True
        if isinstance(self._acl, GroundplanError):
            raise self._acl
        if self._acl is not None and (allowed := self._acl.readers(key)) is not None:
            levels.append(Around(f"folder/{ACL_FILE}", allowed, complete=True))
        return levels

    def beside(self, key: str) -> Mapping[str, Any]:
        """What the document's own sidecar says."""
        text = self._text(sidecar_of(key))
        return {} if text is None else mapping(text, PurePosixPath(sidecar_of(key)).name)

    def _folder(self, name: str) -> Around | GroundplanError:
        try:
            readers = self._text(_join(name, READERS_FILE))
            told = self._text(_join(name, GOVERNED_FILE))
            return Around(
                f"folder/{name or '.'}",
                None if readers is None else named_readers(readers.splitlines()),
                {} if told is None else mapping(told, GOVERNED_FILE),
            )
        except GroundplanError as error:
            return error

    def _access_list(self) -> Acl | GroundplanError | None:
        try:
            text = self._text(ACL_FILE)
            return None if text is None else parse_acl(text)
        except GroundplanError as error:
            return error

    def _text(self, path: str) -> str | None:
        data = self._read(path)
        if data is None:
            return None
        name = PurePosixPath(path).name
        if len(data) > (MAX_YAML_BYTES if name.endswith(".yaml") else MAX_BYTES):
            raise too_large(name)
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise unreadable(name) from error
        if "\0" in text:
            raise unreadable(name)
        return text


def unreadable(name: str) -> Invalid:
    return Invalid(f"{name} of its folder cannot be read", code="readers_file", hint="Save it as UTF-8.")


def too_large(name: str) -> TooLarge:
    return TooLarge(f"{name} is too large", code="readers_file", hint="It should be a few lines.")


def sidecar_of(key: str) -> str:
    """`a/b.pdf` -> `a/.b.pdf.governed.yaml`"""
    path = PurePosixPath(key)
    return path.with_name(f".{path.name}{GOVERNED_FILE}").as_posix()


def is_hidden(key: str) -> bool:
    """Whether a path is no document: it or a folder above it begins with a dot."""
    return any(part.startswith(".") for part in PurePosixPath(key).parts)


def named_readers(lines: Sequence[str]) -> Readers:
    """Names, of which `!name` refuses; `#` starts a comment."""
    names = [name for line in lines if (name := line.partition("#")[0].strip())]
    allow = frozenset(_reader(name) for name in names if not name.startswith("!"))
    return Readers(allow, frozenset(_reader(name[1:]) for name in names if name.startswith("!") and name[1:].strip()))


def _reader(name: str) -> str:
    name = name.strip()
    return name.lower() if "@" in name else name


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
