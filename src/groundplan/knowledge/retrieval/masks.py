"""Which rows of a view may be seen by whoever sees some of its classes. Knows no person and no question."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

import numpy as np
from numpy.typing import NDArray

_BYTES: Final = 64 << 20
"""Of what is kept for one view."""


class MaskCache:
    """Those that were asked for last are kept: among a million rows one takes a millisecond, and many a question
    follows another of the same person. Whatever changes anywhere ends them all, so their time tells that something did,
    and of nobody's documents more. Threads may share it."""

    def __init__(self, classes: NDArray[np.int32]) -> None:
        self._classes = classes
        self._max_entries = max(1, _BYTES // max(1, len(classes)))
        self._masks: OrderedDict[bytes, NDArray[np.bool_]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, visible_classes: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """By row, from what it is by class. Nobody writes there."""
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
