"""Labelled pairs of requests: {"a", "b", "same"} a line, optionally with the kind of trap and the pair's group."""

from __future__ import annotations

from codecs import BOM_UTF8
from pathlib import Path

import msgspec

from groundplan.core.errors import Invalid, Where


class Pair(msgspec.Struct, frozen=True):
    """Two requests, and whether one answer serves both."""

    a: str
    b: str
    same: bool
    kind: str = ""
    group: str = ""
    """Pairs of one intent, which are right or wrong together."""


_decode = msgspec.json.Decoder(Pair).decode


def read_pairs(path: Path) -> list[Pair]:
    """All pairs of a file. Raises `Invalid` (`pairs`) with the first line that is not a pair."""
    try:
        lines = path.read_bytes().removeprefix(BOM_UTF8).splitlines()
    except OSError as error:
        hint = 'Name a file with {"a", "b", "same"} a line.'
        raise Invalid(f"{path} cannot be read: {error.strerror}", code="pairs", hint=hint) from error
    pairs = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            pairs.append(_decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Invalid(
                f"this line is not a pair: {error}",
                code="pairs",
                hint='Write {"a": TEXT, "b": TEXT, "same": true or false}.',
                where=Where(str(path), number),
            ) from error
    if not pairs:
        raise Invalid(f"{path} has no pairs", code="pairs", hint="Give at least one.")
    return pairs
