"""Processes that tests start lie in small pages of memory.

A search service or a gateway asks Linux to move what it has loaded into large pages, which is a quarter of the
computing of a search service's start and pays in the hours that it serves. Tests start hundreds and end them after
seconds. Whoever looks at large pages allows them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

ALLOWED = "TESTS_LARGE_PAGES"
"""Name of the environment variable with which a process that is forked from a nursery may have large pages."""
_PR_SET_THP_DISABLE = 41


def forbid() -> None:
    """From here on, in this process and those that it starts; where Linux can."""
    _set(1)


def allow() -> None:
    _set(0)


@contextmanager
def allowed() -> Iterator[None]:
    """In this process, and those that it starts meanwhile."""
    allow()
    try:
        yield
    finally:
        forbid()


def _set(forbidden: int) -> None:
    control = getattr(ctypes.CDLL(None), "prctl", None)
    if control is not None:
        control(_PR_SET_THP_DISABLE, *(ctypes.c_ulong(each) for each in (forbidden, 0, 0, 0)))
