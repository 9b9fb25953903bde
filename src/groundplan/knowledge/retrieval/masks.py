"""Masks of the rows of a view that belong to visible access classes. Knows no person and no question."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

import numpy as np
from numpy.typing import NDArray

_BYTES: Final = 64 << 20
"""Bytes of masks that are cached per view."""


class MaskCache:
    """The most recently used masks: a mask of a million rows takes a millisecond, and questions of the same person
    often follow each other. Any change of the index makes a new view without masks, so timing reveals that something
    changed, but nothing about anybody's documents. Thread-safe."""

    def __init__(self, classes: NDArray[np.int32]) -> None:
        self._classes = classes
        self._max_entries = max(1, _BYTES // max(1, len(classes)))
        self._masks: OrderedDict[bytes, NDArray[np.bool_]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, visible_classes: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The read-only mask by row for a mask by class."""
        key = visible_classes.tobytes()
        with self._lock:
            mask = self._masks.get(key)
            if mask is not None:
                self._masks.move_to_end(key)
                return mask
        mask = visible_classes.take(
            self._classes, mode="clip"
        )  # none is out of bounds, and no copy is made to see that
        mask.flags.writeable = False
        with self._lock:
            self._masks[key] = mask
            while len(self._masks) > self._max_entries:
                self._masks.popitem(last=False)
        return mask
