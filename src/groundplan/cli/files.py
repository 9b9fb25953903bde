"""Reads files named on the command line. A file that cannot be read is a mistake of the user, so the error says what to
name instead.

Not for files in HOME: one that is missing there is no mistake of the user.
"""

from __future__ import annotations

from pathlib import Path

from groundplan.core.errors import Invalid, TooLarge

MAX_UPLOAD_BYTES = 16 << 20
"""Size of the largest file that the API accepts."""


def read_argument_file(path: Path, *, code: str, hint: str, max_bytes: int = -1) -> bytes:
    """The content of `path`, at most the first `max_bytes` bytes. Raises `Invalid` with `code` and `hint`."""
    try:
        with path.open("rb") as file:
            return file.read(max_bytes)
    except OSError as error:
        raise Invalid(
            f"{path} cannot be read: {error.strerror or type(error).__name__}", code=code, hint=hint
        ) from error


def read_upload(path: Path, kind: str, *, hint: str, smaller: str) -> bytes:
    """The content of a file that is sent to the API. Raises `Invalid` (KIND_unreadable) with `hint`, and, before the
    API would, `TooLarge` (KIND_too_large) with the hint `smaller`."""
    data = read_argument_file(path, code=f"{kind}_unreadable", hint=hint, max_bytes=MAX_UPLOAD_BYTES + 1)
    if len(data) > MAX_UPLOAD_BYTES:
        raise TooLarge("the file is larger than 16 MiB", code=f"{kind}_too_large", hint=smaller)
    return data


def read_argument_text(path: Path, *, code: str, hint: str) -> str:
    """As `read_argument_file`, decoded from UTF-8. Raises `Invalid` also for other encodings."""
    try:
        return read_argument_file(path, code=code, hint=hint).decode("utf-8")
    except UnicodeDecodeError as error:
        raise Invalid(f"{path} is not UTF-8 text", code=code, hint=hint) from error
