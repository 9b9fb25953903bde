"""Reads sidecars: the files beside documents that state their readers and governed values (listed in `folder`), in any
tree of files.

A malformed sidecar is an error for every document below it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from groundplan.core.errors import GroundplanError, Invalid, TooLarge
from groundplan.knowledge.model import Readers
from groundplan.knowledge.parsing.text import parse_mapping
from groundplan.knowledge.sources.acl import Acl, parse_acl
from groundplan.knowledge.sources.model import FolderRules

READERS_FILE = ".readers"
GOVERNED_FILE = ".governed.yaml"
ACL_FILE = ".acl"
MAX_BYTES = 4 << 20
MAX_YAML_BYTES = 64 << 10
"""Largest sidecar that is parsed as YAML, which takes a thousand times as long as a list of names."""


class Sidecars:
    """The sidecars of one tree; each is read once."""

    def __init__(self, read: Callable[[str], bytes | None]) -> None:
        """`read` returns the bytes of a path in the tree, or None if there is no such file; it raises `Invalid` for a
        file that cannot be read."""
        self._read = read
        self._folders: dict[str, FolderRules | GroundplanError] = {}
        self._acl: Acl | GroundplanError | None = None
        self._acl_read = False

    def folder_rules(self, key: str) -> Sequence[FolderRules]:
        """The rules of the folders above a document, from the top down. Raises `Invalid` if any cannot be read for
        certain."""
        levels: list[FolderRules] = []
        for folder in (PurePosixPath(), *reversed(PurePosixPath(key).parents[:-1])):
            name = "" if folder == PurePosixPath() else folder.as_posix()
            if name not in self._folders:
                self._folders[name] = self._read_folder(name)
            level = self._folders[name]
            if isinstance(level, GroundplanError):
                raise level
            if level.readers is not None or level.values:
                levels.append(level)
        if not self._acl_read:
            self._acl, self._acl_read = self._read_access_list(), True
        if isinstance(self._acl, GroundplanError):
            raise self._acl
        if self._acl is not None:
            levels.append(FolderRules(f"folder/{ACL_FILE}", _acl_readers(self._acl, key), is_access_list=True))
        return levels

    def document_values(self, key: str) -> Mapping[str, Any]:
        """The values in the document's own sidecar."""
        text = self._read_text(sidecar_of(key))
        return {} if text is None else parse_mapping(text, PurePosixPath(sidecar_of(key)).name)

    def _read_folder(self, name: str) -> FolderRules | GroundplanError:
        try:
            readers = self._read_text(_join(name, READERS_FILE))
            values = self._read_text(_join(name, GOVERNED_FILE))
            return FolderRules(
                f"folder/{name or '.'}",
                None if readers is None else _parse_readers(readers.splitlines()),
                {} if values is None else parse_mapping(values, GOVERNED_FILE),
            )
        except GroundplanError as error:
            return error

    def _read_access_list(self) -> Acl | GroundplanError | None:
        try:
            text = self._read_text(ACL_FILE)
            return None if text is None else parse_acl(text)
        except GroundplanError as error:
            return error

    def _read_text(self, path: str) -> str | None:
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
        if not text.strip():
            raise Invalid(
                f"{name} beside it is empty", code="readers_file",
                hint="Write again what it said, or delete the file.",
            )  # fmt: skip
        return text


def _acl_readers(acl: Acl, key: str) -> Readers:
    """The readers of a document by the access list. Raises `Invalid` if neither it nor a folder above it is listed, as
    in a list made in another folder."""
    found = acl.readers(key)
    if found is None:
        raise Invalid(
            f"{ACL_FILE} says nothing of it, nor of a folder above it", code="readers_file",
            hint="Make it in the folder where it stands: `getfacl -R . > .acl`, with its comments.",
        )  # fmt: skip
    return found


def unreadable(name: str) -> Invalid:
    return Invalid(f"{name} of its folder cannot be read", code="readers_file", hint="Save it as UTF-8.")


def too_large(name: str) -> TooLarge:
    return TooLarge(f"{name} is too large", code="readers_file", hint="It should be a few lines.")


def sidecar_of(key: str) -> str:
    """`a/b.pdf` -> `a/.b.pdf.governed.yaml`"""
    path = PurePosixPath(key)
    return path.with_name(f".{path.name}{GOVERNED_FILE}").as_posix()


def document_of(key: str) -> str | None:
    """`a/.b.pdf.governed.yaml` -> `a/b.pdf`; None if the path is no sidecar of a document."""
    path = PurePosixPath(key)
    name = path.name[1:].removesuffix(GOVERNED_FILE)
    return path.with_name(name).as_posix() if name and path.name == f".{name}{GOVERNED_FILE}" else None


def orphan_sidecars(paths: Collection[str]) -> list[str]:
    """The sidecars among all paths of a tree whose documents do not exist."""
    return sorted(path for path in paths if (document := document_of(path)) is not None and document not in paths)


def is_hidden(key: str) -> bool:
    """Whether the path, or a folder above it, begins with a dot: then it is no document."""
    return any(part.startswith(".") for part in PurePosixPath(key).parts)


def _parse_readers(lines: Sequence[str]) -> Readers:
    """The readers in the lines of a file: `!name` denies, `#` starts a comment. Raises `Invalid` if there are none: the
    file may have lost its names."""
    names = [name for line in lines if (name := line.partition("#")[0].strip())]
    allow = frozenset(_reader_name(name) for name in names if not name.startswith("!"))
    deny = frozenset(_reader_name(name[1:]) for name in names if name.startswith("!") and name[1:].strip())
    if not allow and not deny:
        raise Invalid(
            f"{READERS_FILE} of its folder names nobody", code="readers_file",
            hint="Name who may read what is in it, or delete the file.",
        )  # fmt: skip
    return Readers(allow, deny)


def _reader_name(name: str) -> str:
    name = name.strip()
    return name.lower() if "@" in name else name


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
