"""Reading a journal back in tests: the records of a segment file, and the state that they add up to."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from uuid import UUID

from groundplan.core.errors import Invalid
from groundplan.gateway.journal.records import Ending, Entry, Record, SegmentReader
from groundplan.gateway.journal.recovery import EpochState


def read_segment(path: Path, last_sequence: int | None = None) -> tuple[list[Entry], Ending]:
    """Return all valid records of a segment file and how it ends; `path` is `.../<epoch>/NNNNNNNN.seg`.

    Raises `Invalid` when the path is not named like a segment, and OSError when it cannot be read.
    """
    try:
        epoch, number = UUID(path.parent.name), int(path.name.split(".", 1)[0])
    except ValueError as error:
        raise Invalid(
            f"{path.name} is not a journal segment",
            code="journal_path",
            hint="Segments are named <epoch>/NNNNNNNN.seg.",
        ) from error
    reader = SegmentReader(path.read_bytes(), epoch, number, last_sequence)
    entries = list(reader)
    assert reader.ending is not None
    return entries, reader.ending


def replay(records: Iterable[Record]) -> EpochState:
    """Return the state after all records of an epoch, without a crash."""
    state = EpochState()
    for record in records:
        state.apply(record)
    return state
