"""Disables large memory pages for processes that tests start.

A search service or a gateway asks Linux to move its loaded data into large pages, which is a quarter of the computing
of a search service's start and pays off within hours. Tests start hundreds of processes and end them after seconds.
Tests of large pages allow them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

ALLOWED = "TESTS_LARGE_PAGES"
"""Environment variable that allows large pages in a process forked from a nursery."""
_PR_SET_THP_DISABLE = 41


def forbid() -> None:
    """Forbid them in this process and those that it starts, if the system can."""
    _set(1)


def allow() -> None:
    _set(0)


@contextmanager
def allowed() -> Iterator[None]:
    """Allow them in this context, for this process and those that it starts."""
    allow()
    try:
        yield
    finally:
        forbid()


def _set(forbidden: int) -> None:
    control = getattr(ctypes.CDLL(None), "prctl", None)
    if control is not None:
        control(_PR_SET_THP_DISABLE, *(ctypes.c_ulong(each) for each in (forbidden, 0, 0, 0)))
