"""What tests fill with the days before today, made anew once a day has passed: a run goes over midnight, and then over
the end of a month, after whose first moment nothing of what was made before is of this month."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Generic, TypeVar

Made = TypeVar("Made")


def today() -> datetime:
    """When the day of now began (UTC). Not to be asked as a module is read, which may be hours before its tests."""
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


class OfToday(Generic[Made]):
    """Made at most once a day, by whoever asks first; what was made is there until the end of all."""

    def __init__(self, make: Callable[[], AbstractContextManager[Made]], stack: ExitStack) -> None:
        self._make, self._stack = make, stack
        self._made: dict[datetime, Made] = {}

    def get(self) -> Made:
        day = today()
        if day not in self._made:
            self._made[day] = self._stack.enter_context(self._make())
        return self._made[day]


@contextmanager
def of_today(make: Callable[[], AbstractContextManager[Made]]) -> Iterator[OfToday[Made]]:
    with ExitStack() as stack:
        yield OfToday(make, stack)
