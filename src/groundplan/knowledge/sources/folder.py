"""The connector of a folder of documents, whose readers and governed values are in sidecars.

Sidecars (never documents themselves, since hidden files are left out):
- `.readers`, for its folder and those below: a name a line, `!name` denies, `#` starts a comment.
- `.governed.yaml`, for its folder and those below: owner, state, sensitivity, readers, ... as in front matter.
- `.NAME.governed.yaml`, for the document NAME alone: for formats without front matter, such as PDF.
- `.acl` at the top: the output of `getfacl -R`, with the readers of each file there.
If any of these cannot be read for certain, the documents below it are not read at all. Symbolic links to documents are
not followed, no path leads out of the folder, even if folders are moved meanwhile, and nothing is written.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from groundplan.core.errors import Invalid, TooLarge, Unavailable
from groundplan.knowledge.parsing.model import MAX_BYTES, Table
from groundplan.knowledge.parsing.text import printable
from groundplan.knowledge.sources.errors import document_gone
from groundplan.knowledge.sources.model import Change, Content, Cursor, FolderRules
from groundplan.knowledge.sources.sidecars import MAX_BYTES as MAX_SIDECAR
from groundplan.knowledge.sources.sidecars import Sidecars, document_of, sidecar_of, too_large, unreadable

_MAX_NAME_BYTES = 255
"""Longest name of a file, in bytes, in all common file systems."""


class FolderConnector:
    """The connector of a folder. Keys are paths with forward slashes."""

    is_complete = True

    def __init__(self, root: Path) -> None:
        self._declared_root = root
        self._root = root.resolve()
        self._sidecars = Sidecars(self._read_sidecar)
        self._orphans: list[str] = []

    def close(self) -> None:
        """Nothing is open."""

    def tables(self) -> Sequence[Table]:
        return ()

    def orphan_sidecars(self) -> Sequence[str]:
        return self._orphans

    def changes(self, cursor: Cursor | None) -> Iterator[Change]:  # noqa: ARG002 -- all of it, each time
        """Every file, in the order of paths. Raises `Unavailable` (source_missing) if the folder cannot be listed, and
        at the end if one below it cannot, so that its documents are not taken for deleted."""
        try:
            stack = [iter(sorted(self._root.iterdir()))]
        except OSError as error:
            raise _listing_failed(self._declared_root, error) from error
        self._sidecars, self._orphans = Sidecars(self._read_sidecar), []
        failure: Unavailable | None = None
        while stack:
            entry = next(stack[-1], None)
            if entry is None:
                stack.pop()
            elif not entry.name.startswith("."):
                try:
                    mode = entry.lstat().st_mode
                    if stat.S_ISDIR(mode):
                        stack.append(iter(sorted(entry.iterdir())))
                except FileNotFoundError:
                    continue
                except OSError as error:
                    failure = failure or _listing_failed(entry, error)
                    continue
                if stat.S_ISREG(mode) or stat.S_ISLNK(mode):
                    yield Change(entry.relative_to(self._root).as_posix(), self._version(entry))
            else:
                self._note_orphan(entry)
        if failure is not None:
            raise failure

    def _note_orphan(self, hidden: Path) -> None:
        """Note a hidden file that is a sidecar without its document."""
        document = document_of(hidden.name)
        if document is not None and not os.path.lexists(hidden.with_name(document)):
            self._orphans.append(hidden.relative_to(self._root).as_posix())

    def _version(self, file: Path) -> str:
        try:
            status = file.lstat()
        except OSError:
            return "unreadable"
        sidecar_version = ""
        with suppress(OSError):
            sidecar = (file.parent / sidecar_of(file.name)).stat()
            sidecar_version = f"+{sidecar.st_mtime_ns}.{sidecar.st_size}"
        return f"{status.st_mtime_ns}.{status.st_size}.{status.st_ino}{sidecar_version}"

    def read(self, key: str) -> Content:
        try:
            descriptor = _open_below(self._root, key)
        except FileNotFoundError as error:
            raise document_gone() from error
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                raise Invalid(
                    "it is a symbolic link, or below one", code="document_outside",
                    hint="Copy the document itself here.",
                ) from error  # fmt: skip
            raise _unreadable(error) from error
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise Invalid("it is not a file", code="document_type", hint="Nothing needs to be done.")
            if status.st_size > MAX_BYTES:
                raise TooLarge(
                    f"it is larger than {MAX_BYTES >> 20} MiB", code="document_too_large", hint="Split it into parts."
                )
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise _unreadable(error) from error
        finally:
            os.close(descriptor)
        values = self._sidecars.document_values(key)
        return Content(data, modified_at=modification_time(status.st_mtime), governed_values=values)

    def folder_rules(self, key: str) -> Sequence[FolderRules]:
        return self._sidecars.folder_rules(key)

    def _read_sidecar(self, path: str) -> bytes | None:
        file = self._root / path
        try:
            file.lstat()
        except OSError as error:
            # no file can have a name that is too long; whether one exists at a path that is too long is not known
            if error.errno == errno.ENOENT or len(os.fsencode(file.name)) > _MAX_NAME_BYTES:
                return None
            raise unreadable(file.name) from error
        try:
            # the file must be inside: findings would quote lines of a file elsewhere, and a pipe has no end
            target = file.resolve(strict=True)
            if not target.is_relative_to(self._root):
                raise unreadable(file.name)
            with open(_open_below(self._root, target.relative_to(self._root).as_posix()), "rb") as opened:
                if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                    raise unreadable(file.name)
                data = opened.read(MAX_SIDECAR + 1)
        except OSError as error:
            raise unreadable(file.name) from error
        if len(data) > MAX_SIDECAR:
            raise too_large(file.name)
        return data


def _open_below(root: Path, path: str) -> int:
    """Open a file below a folder without following links: anybody who may write there could link to a place whose
    readers are not known. Folders are opened one after the other, so that none can be moved meanwhile. Raises
    `OSError`."""
    *folders, name = path.split("/")
    directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for folder in folders:
            child = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
            os.close(directory)
            directory = child
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=directory)
    finally:
        os.close(directory)


def modification_time(seconds: float) -> datetime | None:
    """The time in `seconds` since 1970; None if it is outside of the calendar."""
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def _unreadable(error: OSError) -> Invalid:
    return Invalid(
        f"it cannot be read: {error.strerror}", code="document_unreadable", hint="Check the rights of the file."
    )


def _listing_failed(folder: Path, error: OSError) -> Unavailable:
    return Unavailable(
        f"the folder {printable(str(folder))} cannot be read: {error.strerror}", code="source_missing",
        hint="Check the source's `path` and the rights of its folder; its documents stay as they were.",
    )  # fmt: skip
