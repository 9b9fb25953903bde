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
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from groundplan.core.errors import Invalid, NotFound, TooLarge, Unavailable
from groundplan.knowledge.parsing.model import MAX_BYTES, Table
from groundplan.knowledge.sources.model import Around, Change, Content, Cursor
from groundplan.knowledge.sources.sidecars import Sidecars, sidecar_of, unreadable


class Folder:
    """The connector of a folder. Keys are paths with forward slashes."""

    whole = True

    def __init__(self, root: Path) -> None:
        self._given = root
        self._root = root.resolve()
        self._sidecars = Sidecars(self._beside)

    def close(self) -> None:
        """Nothing is open."""

    def tables(self) -> Sequence[Table]:
        return ()

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
        self._sidecars = Sidecars(self._beside)
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
        beside = ""
        with suppress(OSError):
            other = (file.parent / sidecar_of(file.name)).stat()
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
            raise Invalid(
                f"it cannot be read: {error.strerror}", code="document_unreadable", hint="Check the rights of the file."
            ) from error
        told = self._sidecars.beside(key)
        return Content(data, modified_at=datetime.fromtimestamp(status.st_mtime, UTC), told=told)

    def around(self, key: str) -> Sequence[Around]:
        return self._sidecars.around(key)

    def _beside(self, path: str) -> bytes | None:
        file = self._root / path
        try:
            return file.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise unreadable(file.name) from error
