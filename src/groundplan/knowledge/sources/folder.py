"""A folder of documents: which files there are, and who may read them by the files beside them.

Beside documents (never documents themselves, since hidden files are left out):
- `.readers`, for its folder and those below: a name a line, `!name` refuses, `#` starts a comment.
- `.governed.yaml`, for its folder and those below: owner, state, sensitivity, readers, ... as in front matter.
- `.NAME.governed.yaml`, for the document NAME alone: what a PDF cannot say of itself.
- `.acl` at the top: the output of `getfacl -R`, for who may read which file there.
Where any of these cannot be read for certain, the documents below it are not read at all. Nothing outside the folder
is followed, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from groundplan.core.errors import GroundplanError, Invalid, NotFound, TooLarge, Unavailable
from groundplan.knowledge.model import Readers
from groundplan.knowledge.parsing.model import MAX_BYTES
from groundplan.knowledge.parsing.text import mapping
from groundplan.knowledge.sources.acl import Acl, parse_acl
from groundplan.knowledge.sources.model import Around, Change, Content, Cursor

READERS_FILE = ".readers"
GOVERNED_FILE = ".governed.yaml"
ACL_FILE = ".acl"
MAX_SIDECAR_BYTES = 4 << 20


class Folder:
    """The connector of a folder. Keys are paths with forward slashes."""

    whole = True

    def __init__(self, root: Path) -> None:
        self._given = root
        self._root = root.resolve()
        self._around: dict[str, Around | GroundplanError] = {}
        self._acl: Acl | GroundplanError | None = None

    def close(self) -> None:
        """Nothing is open."""

    def changes(self, cursor: Cursor | None) -> Iterator[Change]:  # noqa: ARG002 -- all of it, each time
        """Every file, in the order of paths. Raises `Unavailable` (source_missing) where the folder cannot be listed,
        so that nobody mistakes that for a folder whose documents were deleted."""
        try:
            entries = sorted(self._root.iterdir())
        except OSError as error:
            raise Unavailable(
                f"the folder {self._given} cannot be read: {error.strerror}",
                code="source_missing",
                hint="Check the source's `path` and the rights of its folder; its documents stay as they were.",
            ) from error
        self._around.clear()
        self._acl = self._read_acl()
        yield from self._below(entries)

    def _below(self, entries: Sequence[Path]) -> Iterator[Change]:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            key = entry.relative_to(self._root).as_posix()
            if entry.is_dir() and not entry.is_symlink():
                try:
                    below = sorted(entry.iterdir())
                except OSError:
                    yield Change(key, "unreadable")
                    continue
                yield from self._below(below)
            elif entry.is_file() or entry.is_symlink():
                yield Change(key, self._version(entry))

    def _version(self, file: Path) -> str:
        try:
            status = file.lstat()
        except OSError:
            return "unreadable"
        sidecar = self._sidecar(file)
        beside = ""
        if sidecar.exists():
            other = sidecar.stat()
            beside = f"+{other.st_mtime_ns}.{other.st_size}"
        return f"{status.st_mtime_ns}.{status.st_size}.{status.st_ino}{beside}"

    def read(self, key: str) -> Content:
        file = self._root / key
        if not file.resolve().is_relative_to(self._root):
            raise Invalid("it is a link out of the source's folder", code="document_outside", hint="Copy it here.")
        try:
            if file.is_dir():
                raise Invalid("the folder cannot be listed", code="document_unreadable", hint="Check its rights.")
            status = file.stat()
            if status.st_size > MAX_BYTES:
                raise TooLarge(
                    f"it is larger than {MAX_BYTES >> 20} MiB", code="document_too_large", hint="Split it into parts."
                )
            data = file.read_bytes()
        except FileNotFoundError as error:
            raise NotFound("it went away meanwhile", code="document_gone", hint="Nothing needs to be done.") from error
        except OSError as error:
            raise _unreadable(error) from error
        sidecar = self._sidecar(file)
        told = _yaml(sidecar) if sidecar.exists() else {}
        return Content(data, modified_at=datetime.fromtimestamp(status.st_mtime, UTC), told=told)

    def around(self, key: str) -> Sequence[Around]:
        """Levels of the folders from the top down. Raises `Invalid` where one cannot be read for certain."""
        levels: list[Around] = []
        folders = [PurePosixPath(), *reversed(PurePosixPath(key).parents[:-1])]
        for folder in folders:
            name = "" if folder == PurePosixPath() else folder.as_posix()
            if name not in self._around:
                self._around[name] = self._read_around(name)
            level = self._around[name]
            if isinstance(level, GroundplanError):
                raise level
            if level.readers is not None or level.told:
                levels.append(level)
        if isinstance(self._acl, GroundplanError):
            raise self._acl
        if self._acl is not None and (allowed := self._acl.readers(key)) is not None:
            levels.append(Around(f"folder/{ACL_FILE}", allowed))
        return levels

    def _read_around(self, name: str) -> Around | GroundplanError:
        folder = self._root / name
        try:
            readers = _readers(folder / READERS_FILE)
            file = folder / GOVERNED_FILE
            return Around(f"folder/{name or '.'}", readers, _yaml(file) if file.exists() else {})
        except GroundplanError as error:
            return error

    def _read_acl(self) -> Acl | GroundplanError | None:
        file = self._root / ACL_FILE
        try:
            return parse_acl(_text(file)) if file.exists() else None
        except GroundplanError as error:
            return error

    @staticmethod
    def _sidecar(file: Path) -> Path:
        return file.with_name(f".{file.name}{GOVERNED_FILE}")


def _text(file: Path) -> str:
    try:
        if file.stat().st_size > MAX_SIDECAR_BYTES:
            raise TooLarge(f"{file.name} is too large", code="readers_file", hint="It should be a few lines.")
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(
            f"{file.name} of its folder cannot be read", code="readers_file", hint="Save it as UTF-8."
        ) from error


def _yaml(file: Path) -> dict[str, object]:
    return dict(mapping(_text(file), file.name))


def _readers(file: Path) -> Readers | None:
    """`.readers` as readers, None where there is no such file."""
    if not file.exists():
        return None
    names = [name for line in _text(file).splitlines() if (name := line.partition("#")[0].strip())]
    return named_readers(names)


def named_readers(names: Sequence[str]) -> Readers:
    """Names, of which `!name` refuses."""
    allow = frozenset(_reader(name) for name in names if not name.startswith("!"))
    return Readers(allow, frozenset(_reader(name[1:]) for name in names if name.startswith("!") and name[1:].strip()))


def _reader(name: str) -> str:
    name = name.strip()
    return name.lower() if "@" in name else name


def _unreadable(error: OSError) -> Invalid:
    return Invalid(
        f"it cannot be read: {error.strerror}", code="document_unreadable", hint="Check the rights of the file."
    )
