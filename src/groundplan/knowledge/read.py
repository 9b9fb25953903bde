"""Reading a folder of documents: which files there are, what they say, and who may read them.

Text is Markdown (.md, .markdown) and plain text (.txt, .text) in UTF-8. Who may read a document is decided by the
nearest of: `readers:` in its front matter, a file `.readers` in its folder or one above, the `readers` of the source.
Refusals (`deny:` in front matter, `!name` in `.readers`) add up on the way. Where that cannot be read for certain, the
document is not read at all. Nothing here writes, and nothing outside the folder is followed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from groundplan.core.errors import GroundplanError, Invalid, TooLarge, Unavailable
from groundplan.knowledge.chunk import first_heading
from groundplan.knowledge.model import Document, Readers

PROCESSING = b"1 all-minilm-l6-v2"
"""Changes whenever chunks or vectors of the same file would come out differently; all documents are then done again."""

MAX_BYTES = 10 << 20
READERS_FILE = ".readers"
_MARKDOWN = frozenset({".md", ".markdown"})
_TEXT = frozenset({".txt", ".text"})
_FRONT = re.compile(r"---[ \t]*\n(?P<yaml>.*?)^(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_UNSEEN = re.compile(
    # C0 and C1 controls but tab and line feed; soft hyphen, zero width space, direction marks and overrides, byte
    # order mark, line and paragraph separators, tags: what a reader does not see must not reach a model
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)


@dataclass(frozen=True, slots=True)
class Failed:
    """A document that could not be read, and why."""

    path: str
    error: GroundplanError


def clean(text: str) -> str:
    """The text with `\\n` as its line end and each unseen control character as a space; the number of lines stays."""
    return _UNSEEN.sub(" ", text.replace("\r\n", "\n").replace("\r", "\n"))


def scan(folder: Path, default: Readers) -> Iterator[Document | Failed]:
    """Every document below `folder`, in the order of paths; hidden files and folders are left out.

    Raises `Unavailable` (source_missing) where the folder itself cannot be listed, so that nobody mistakes that for a
    folder whose documents were deleted.
    """
    root = folder.resolve()
    try:
        entries = sorted(root.iterdir())
    except OSError as error:
        raise Unavailable(
            f"the folder {folder} cannot be read: {error.strerror}",
            code="source_missing",
            hint="Check the source's `path` and the rights of its folder; its documents stay as they were.",
        ) from error
    yield from _scan(root, root, entries, default)


def _scan(
    root: Path, folder: Path, entries: list[Path], inherited: Readers | GroundplanError
) -> Iterator[Document | Failed]:
    readers = _folder_readers(folder, inherited)
    for entry in entries:
        if entry.name.startswith("."):
            continue
        path = entry.relative_to(root).as_posix()
        if not entry.resolve().is_relative_to(root):
            yield Failed(path, _invalid("it is a link out of the source's folder", "document_outside", "Copy it here."))
        elif entry.is_dir() and not entry.is_symlink():
            try:
                below = sorted(entry.iterdir())
            except OSError as error:
                yield Failed(path, _unreadable(error))
                continue
            yield from _scan(root, entry, below, readers)
        elif entry.is_file():
            yield _read(entry, path, readers) if isinstance(readers, Readers) else Failed(path, readers)


def _read(file: Path, path: str, inherited: Readers) -> Document | Failed:
    try:
        return parse(path, _bytes(file), inherited, datetime.fromtimestamp(file.stat().st_mtime, UTC))
    except GroundplanError as error:
        return Failed(path, error)
    except OSError as error:
        return Failed(path, _unreadable(error))


def _bytes(file: Path) -> bytes:
    with file.open("rb") as handle:
        data = handle.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise TooLarge(
            f"it is larger than {MAX_BYTES >> 20} MiB", code="document_too_large", hint="Split it into parts."
        )
    return data


def parse(path: str, data: bytes, inherited: Readers, modified_at: datetime | None = None) -> Document:
    """A document from its bytes. Raises `Invalid` for a kind of file, an encoding or front matter that is not known."""
    suffix = Path(path).suffix.lower()
    if suffix not in _MARKDOWN | _TEXT:
        raise _invalid(
            f"files of type '{suffix or 'none'}' are not read yet",
            "document_type",
            "Save it as Markdown or plain text.",
        )
    try:
        text = clean(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise _invalid(f"it is not UTF-8 (byte {error.start})", "document_encoding", "Save it as UTF-8.") from error
    markdown = suffix in _MARKDOWN
    front, body_start = _front_matter(text) if markdown else ({}, 0)
    title = front.get("title") or (first_heading(text, body_start) if markdown else None) or Path(path).stem
    return Document(
        path=path,
        title=str(title)[:300],
        text=text,
        digest=hashlib.sha256(PROCESSING + b"\0" + data).hexdigest(),
        readers=_own_readers(front, inherited),
        markdown=markdown,
        body_start=body_start,
        modified_at=modified_at,
        review_by=_review_by(front),
    )


def _front_matter(text: str) -> tuple[Mapping[str, Any], int]:
    """The YAML between `---` lines at the very top, and where the body begins."""
    if not text.startswith("---\n"):
        return {}, 0
    match = _FRONT.match(text)
    if match is None:
        raise _invalid("its front matter has no end", "front_matter", "Close it with a line of ---.")
    try:
        front = YAML(typ="safe", pure=True).load(match["yaml"])
    except (YAMLError, ValueError) as error:
        raise _invalid(
            "its front matter is not YAML", "front_matter", "Check the lines between the --- lines."
        ) from error
    if front is None:
        return {}, match.end()
    if not isinstance(front, dict):
        raise _invalid(
            "its front matter has no keys", "front_matter", "Write `key: value` lines between the --- lines."
        )
    return front, match.end()


def _own_readers(front: Mapping[str, Any], inherited: Readers) -> Readers:
    allow = _names(front, "readers") if "readers" in front else inherited.allow
    return Readers(allow, inherited.deny | _names(front, "deny"))


def _names(front: Mapping[str, Any], key: str) -> frozenset[str]:
    names = front.get(key, [])
    if not isinstance(names, list) or not all(isinstance(name, str) and name.strip() for name in names):
        raise _invalid(f"`{key}` is not a list of names", "front_matter", f"Write `{key}: [hr, ana@acme.example]`.")
    return frozenset(_reader(name) for name in names)


def _reader(name: str) -> str:
    return name.strip().lower() if "@" in name else name.strip()


def _review_by(front: Mapping[str, Any]) -> date | None:
    value = front.get("review_by")
    if value is None or (isinstance(value, date) and not isinstance(value, datetime)):
        return value
    raise _invalid("`review_by` is not a date", "front_matter", "Write it like `review_by: 2027-01-31`.")


def _folder_readers(folder: Path, inherited: Readers | GroundplanError) -> Readers | GroundplanError:
    """Readers by the folder's `.readers`: a name a line, `!name` refuses, `#` starts a comment.

    An error, here or above, is passed down: below it nobody knows who may read.
    """
    if not isinstance(inherited, Readers):
        return inherited
    try:
        lines = (folder / READERS_FILE).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return inherited
    except (OSError, UnicodeDecodeError):
        return _invalid(f"{READERS_FILE} of its folder cannot be read", "readers_file", "Save it as UTF-8.")
    names = [name for line in lines if (name := line.partition("#")[0].strip())]
    allow = frozenset(_reader(name) for name in names if not name.startswith("!"))
    deny = frozenset(_reader(name[1:]) for name in names if name.startswith("!") and name[1:].strip())
    return Readers(allow or inherited.allow, inherited.deny | deny)


def _invalid(message: str, code: str, hint: str) -> Invalid:
    return Invalid(message, code=code, hint=hint)


def _unreadable(error: OSError) -> Invalid:
    return _invalid(f"it cannot be read: {error.strerror}", "document_unreadable", "Check the rights of the file.")
