"""Fixtures with data of the days before today, which are created again after midnight (UTC): a run may pass midnight
and the end of a month, after which data created before is not of the current month."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Generic, TypeVar

Value = TypeVar("Value")


def today() -> datetime:
    """The beginning of the current day (UTC). Not for use at import, which may be hours before the tests."""
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


class DailyValue(Generic[Value]):
    """A value that is created at most once a day, at its first use; all values exist until the end of the stack."""

    def __init__(self, make: Callable[[], AbstractContextManager[Value]], stack: ExitStack) -> None:
        self._make, self._stack = make, stack
        self._values: dict[datetime, Value] = {}

    def get(self) -> Value:
        day = today()
        if day not in self._values:
            self._values[day] = self._stack.enter_context(self._make())
        return self._values[day]


@contextmanager
def daily_value(make: Callable[[], AbstractContextManager[Value]]) -> Iterator[DailyValue[Value]]:
    with ExitStack() as stack:
        yield DailyValue(make, stack)
