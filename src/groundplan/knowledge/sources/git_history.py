"""Finds when files of a repository last changed, by its commits. The library is that of `groundplan[knowledge]`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

MAX_COMMITS: Final = 20_000
SECONDS: Final = 20.0
"""Time limit for walking a history."""


class History:
    """Times of the last change of files. Files last changed before the part of the history that was walked get the time
    of its oldest commit: they are no newer."""

    def __init__(self, times: Mapping[bytes, datetime], oldest: datetime | None) -> None:
        self._times, self._oldest = times, oldest

    def time_of(self, path: bytes) -> datetime | None:
        return self._times.get(path, self._oldest)


def read_history(repository: Any, head: str, paths: Iterable[bytes]) -> History:
    """Walk the history back from `head` until the newest change of each path is known, within the limits."""
    from dulwich.errors import MissingCommitError  # noqa: PLC0415 -- heavy

    remaining = set(paths)
    times: dict[bytes, datetime] = {}
    oldest: datetime | None = None
    deadline = time.monotonic() + SECONDS
    # a shallow repository has only a part of its history
    with suppress(KeyError, MissingCommitError):
        for number, entry in enumerate(repository.get_walker(include=[head.encode()])):
            if not remaining or number >= MAX_COMMITS or time.monotonic() > deadline:
                break
            oldest = commit_time(entry.commit.commit_time)
            for path in _changed_paths(entry):
                if path in remaining:
                    remaining.discard(path)
                    times[path] = oldest
    return History(times, oldest)


def _changed_paths(entry: Any) -> Iterable[bytes]:
    for found in entry.changes():
        # for a commit with several parents, the changes against all of them
        for change in found if isinstance(found, list) else [found]:
            if change is not None and change.new is not None and change.new.path is not None:
                yield change.new.path


def commit_time(seconds: int) -> datetime:
    """The time of a commit. Its author may have written any number: times in the future or outside of the calendar
    become now."""
    now = datetime.now(UTC)
    try:
        return min(datetime.fromtimestamp(max(0, seconds), UTC), now)
    except (OverflowError, ValueError, OSError):
        return now
