"""Locates the messages of an mbox file or a maildir by reading it once in small pieces.

In an mbox, a line that begins with `From ` begins a message if it is the first line or follows an empty line, and has a
date, as every writer of such files puts it there; else it is text. Only the id of a message and the marks of deleted
messages are parsed here, and no more than its head is held in memory.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

HEAD_BYTES: Final = 256 << 10
"""Longest head of a message that is searched, in bytes."""
_PIECE_BYTES: Final = 64 << 10
_FIRST_LINE = re.compile(
    rb"From .{0,300}?(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? +(?:\d{1,2} +)?"
    rb"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[ ,]"
)
_ESCAPED_FROM = re.compile(rb"^>(>*From )", re.MULTILINE)
_DELETED = re.compile(
    rb"^(?:x-mozilla-status:[ \t]*[0-9a-f]{3}[89a-f]|x-status:[ \t]*[a-z]*d)", re.IGNORECASE | re.MULTILINE
)
"""Marks of mail programs for a deleted message, which stays in the file until that is compacted."""
_SKIPPED_BOXES: Final = frozenset({"trash", "deleted items", "deleted messages", "junk", "spam", "drafts"})
_ID = re.compile(rb"^message-id:\s*<([^>\s]{1,200})>", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class MessagePlace:
    """A message: its file, offset, length in bytes and their SHA-256; `name` is its id, or that digest without one."""

    file: Path
    start: int
    length: int
    digest: str
    name: str


def message_head(data: bytes) -> bytes:
    """The head of a message, with the empty line after it."""
    ends = [at for mark in (b"\n\n", b"\r\n\r\n") if (at := data.find(mark)) >= 0]
    return data[: min([*ends, len(data), HEAD_BYTES])] + b"\n\n"


def message_places(path: Path) -> Iterator[MessagePlace]:
    """Every message that was not deleted, oldest first. Raises `OSError`, and `ValueError` if the file is no mbox."""
    if not path.is_dir():
        with path.open("rb") as file:
            yield from _split_mbox(path, file)
        return
    if not (path / "cur").is_dir():
        raise ValueError("the folder is no maildir")
    files = [
        file
        for box in _mailboxes(path)
        for folder in ("new", "cur")
        if (box / folder).is_dir()
        for file in (box / folder).iterdir()
        if not file.name.startswith(".") and not _is_trash(file.name) and file.is_file() and not file.is_symlink()
    ]
    # a name begins with the time of delivery, and keeps that when the message is read
    for each in sorted(files, key=lambda file: file.name.partition(":")[0]):
        with each.open("rb") as opened:
            message = _MessageReader(0)
            while piece := opened.read(_PIECE_BYTES):
                message.add(piece)
        yield message.place(each)


def _mailboxes(path: Path) -> Iterator[Path]:
    """A maildir and the mailboxes in it (`.Projects.2026`), except for trash, junk and drafts."""
    yield path
    for box in path.iterdir():
        last = box.name.rpartition(".")[2].lower()
        if box.name.startswith(".") and last not in _SKIPPED_BOXES and (box / "cur").is_dir() and not box.is_symlink():
            yield box


def _is_trash(name: str) -> bool:
    """Whether a file of a maildir is flagged as deleted; it stays until the trash is emptied."""
    return "T" in name.partition(":2,")[2]


def read_message(place: MessagePlace) -> bytes | None:
    """The bytes of the message; None if it is not there any more."""
    try:
        with place.file.open("rb") as file:
            file.seek(place.start)
            data = file.read(place.length)
    except FileNotFoundError:
        return None
    return data if hashlib.sha256(data).hexdigest() == place.digest else None


def unquote_mbox(data: bytes) -> bytes:
    """A message of an mbox without the `>` that escapes lines beginning with `From `."""
    return _ESCAPED_FROM.sub(rb"\1", data)


class _MessageReader:
    """A message while it is read. An empty line is held back, since it may belong to the start of the next message."""

    def __init__(self, start: int) -> None:
        self._start, self._length = start, 0
        self._hash = hashlib.sha256()
        self._head = b""
        self._held_back = b""

    def add(self, piece: bytes) -> None:
        piece, self._held_back = self._held_back + piece, b""
        self._hash.update(piece)
        self._length += len(piece)
        if len(self._head) < HEAD_BYTES:
            self._head += piece[:HEAD_BYTES]

    def keep_back(self, line: bytes) -> None:
        if self._held_back:
            self.add(b"")
        self._held_back = line

    @property
    def is_deleted(self) -> bool:
        return _DELETED.search(message_head(self._head)) is not None

    def place(self, file: Path) -> MessagePlace:
        digest = self._hash.hexdigest()
        match = _ID.search(message_head(self._head))
        name = match[1].decode("ascii", "replace") if match else digest[:32]
        return MessagePlace(file, self._start, self._length, digest, name)


def _split_mbox(path: Path, file: BinaryIO) -> Iterator[MessagePlace]:
    message: _MessageReader | None = None
    offset, starts_line, after_blank = 0, True, True
    in_first_line = False
    while piece := file.readline(_PIECE_BYTES):
        offset += len(piece)
        ends_line = piece.endswith(b"\n")
        if starts_line and after_blank and piece.startswith(b"From ") and (message is None or _FIRST_LINE.match(piece)):
            if message is not None and not message.is_deleted:
                yield message.place(path)
            message, in_first_line = _MessageReader(offset), not ends_line
        elif message is None:
            if piece.strip():
                raise ValueError("its first line does not begin a message")
        elif in_first_line:
            message, in_first_line = _MessageReader(offset), not ends_line  # continuation of a long first line
        elif starts_line and piece in (b"\n", b"\r\n"):
            message.keep_back(piece)
        else:
            message.add(piece)
        after_blank = starts_line and piece in (b"\n", b"\r\n")
        starts_line = ends_line
    if message is not None and not message.is_deleted:
        yield message.place(path)
