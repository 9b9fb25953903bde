"""Files that somebody named on the command line: what cannot be read is their mistake, told with what to name instead.

Opens nothing of HOME; what is missing there is no mistake of the person who asks.
"""

from __future__ import annotations

from pathlib import Path

from groundplan.core.errors import Invalid, TooLarge

MAX_SENT = 16 << 20
"""Bytes that the API takes of one file."""


def read_given(path: Path, *, code: str, hint: str, most: int = -1) -> bytes:
    """The content of `path`, of a large file the first `most` bytes. Raises `Invalid` with `code` and `hint`."""
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError as error:
        raise Invalid(
            f"{path} cannot be read: {error.strerror or type(error).__name__}", code=code, hint=hint
        ) from error


def read_sent(path: Path, kind: str, *, hint: str, smaller: str) -> bytes:
    """The content of a file that is sent to the API. Raises `Invalid` (KIND_unreadable) with `hint`, and `TooLarge`
    (KIND_too_large) with `smaller` as what to do, before the API does."""
    data = read_given(path, code=f"{kind}_unreadable", hint=hint, most=MAX_SENT + 1)
    if len(data) > MAX_SENT:
        raise TooLarge("the file is larger than 16 MiB", code=f"{kind}_too_large", hint=smaller)
    return data


def read_given_text(path: Path, *, code: str, hint: str) -> str:
    """The same as text. Raises `Invalid` also where it is no UTF-8."""
    try:
        return read_given(path, code=code, hint=hint).decode("utf-8")
    except UnicodeDecodeError as error:
        raise Invalid(f"{path} is not UTF-8 text", code=code, hint=hint) from error
