"""Which values have not the form that a company declares, found by a confined child process that can be ended.

A regular expression may take longer than anybody waits, and while it does no other thread of its process runs. One
thread uses it at a time.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence

import msgspec

from groundplan.knowledge.parsing.child import Child
from groundplan.knowledge.quality.forms_worker import LENGTH, FormRequest

SECONDS = 5.0
"""For the values of one column."""
TRIES = 3
"""After so many columns for which it took longer, a form is not tried any more."""


class FormChecker:
    """The child starts with the first question. `close` it."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._child: Child | None = None
        self._failed: Counter[str] = Counter()
        self._decoder = msgspec.msgpack.Decoder(list[int])

    def misfits(self, pattern: str, values: Sequence[str]) -> list[int] | None:
        """Numbers of the values that have not the form `pattern` as a whole, in order; None where that takes longer
        than it may, or more memory."""
        if not values:
            return []
        if self._failed[pattern] >= TRIES:
            return None
        found = self._ask(msgspec.msgpack.encode(FormRequest(pattern, list(values))))
        if found is None:
            self._failed[pattern] += 1
            self.close()
        return found

    def close(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child is not None:
            child.close()

    def _ask(self, body: bytes) -> list[int] | None:
        child = self._child
        if child is None:
            child = self._child = Child("groundplan.knowledge.quality.forms_worker")
            if _read(child) is None:
                return None
        late = threading.Event()

        def end() -> None:
            late.set()
            child.kill()  # whoever writes to it or reads from it comes to an end

        over = threading.Timer(self._seconds, end)
        over.daemon = True
        over.start()
        try:
            child.input.write(LENGTH.pack(len(body)) + body)
            child.input.flush()
            told = _read(child)
        except OSError:
            return None
        finally:
            over.cancel()
            over.join()
        return self._decoder.decode(told) if told and not late.is_set() else None


def _read(child: Child) -> bytes | None:
    """The body of the child's next frame; None where it has ended."""
    head = child.output.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (size,) = LENGTH.unpack(head)
    body = child.output.read(size)
    return body if len(body) == size else None
