"""When files of a repository were last changed, by its commits. The library is that of `groundplan[knowledge]`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

MAX_COMMITS: Final = 20_000
SECONDS: Final = 20.0
"""Longest that a history is looked through."""


class History:
    """Times of the files of one commit. What was last changed before the part that was looked through has the time of
    its oldest commit: it is no newer."""

    def __init__(self, times: Mapping[bytes, datetime], oldest: datetime | None) -> None:
        self._times, self._oldest = times, oldest

    def time_of(self, path: bytes) -> datetime | None:
        return self._times.get(path, self._oldest)


def read_history(repository: Any, head: str, paths: Iterable[bytes]) -> History:
    """Look through the history from `head` back until the newest change of each path is known."""
    from dulwich.errors import MissingCommitError  # noqa: PLC0415 -- heavy

    left = set(paths)
    times: dict[bytes, datetime] = {}
    oldest: datetime | None = None
    until = time.monotonic() + SECONDS
    # of a repository that has a part of its history only, that part
    with suppress(KeyError, MissingCommitError):
        for number, entry in enumerate(repository.get_walker(include=[head.encode()])):
            if not left or number >= MAX_COMMITS or time.monotonic() > until:
                break
            oldest = commit_time(entry.commit.commit_time)
            for path in _changed_paths(entry):
                if path in left:
                    left.discard(path)
                    times[path] = oldest
    return History(times, oldest)


def _changed_paths(entry: Any) -> Iterable[bytes]:
    for found in entry.changes():
        # of a commit with several parents, what differs from all of them
        for change in found if isinstance(found, list) else [found]:
            if change is not None and change.new is not None and change.new.path is not None:
                yield change.new.path


def commit_time(seconds: int) -> datetime:
    """The time of a commit, which whoever made it wrote: none that is still to come, or that no calendar has."""
    now = datetime.now(UTC)
    try:
        return min(datetime.fromtimestamp(max(0, seconds), UTC), now)
    except (OverflowError, ValueError, OSError):
        return now
