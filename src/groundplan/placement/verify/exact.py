"""Sums of 64-bit integers that cannot overflow: each number is added as two halves, the totals are Python integers.

No floating point is used in this package.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[Any]
"""int64, or Python integers (dtype object) where 64 bits do not suffice"""

SAFE = 2**62
_HALF = 31


def exact_sum(values: Numbers) -> int:
    """The exact sum."""
    if values.dtype == object:
        return int(sum(values.tolist()))
    high, low = values >> _HALF, values & ((1 << _HALF) - 1)
    return (int(high.sum()) << _HALF) + int(low.sum())


def exact_group_sums(values: Numbers, group: NDArray[Any], groups: int) -> list[int]:
    """The exact sum of each group; `group` has numbers from 0 to groups - 1."""
    order = np.argsort(group, kind="stable")
    ends = np.searchsorted(group[order], np.arange(groups + 1))
    ordered = values[order]
    return [exact_sum(ordered[begin:end]) for begin, end in pairwise(ends)]


def largest(values: Sequence[Any] | Numbers) -> int:
    """The largest absolute value, 0 of none; correct for the smallest 64-bit integer too."""
    array = np.asarray(values)
    return max(abs(int(array.max())), abs(int(array.min()))) if array.size else 0


def as_python_ints(values: Numbers) -> Numbers:
    """The same numbers as Python integers."""
    return values.astype(object)
