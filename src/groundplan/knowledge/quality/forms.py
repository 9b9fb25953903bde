"""Checks values against declared regular expressions in a confined child process that can be killed.

A regular expression may take arbitrarily long, and meanwhile no other thread of its process runs. One thread uses a
checker at a time.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence

import msgspec

from groundplan.knowledge.parsing.child import Child
from groundplan.knowledge.quality.forms_worker import LENGTH, FormRequest

SECONDS = 5.0
"""Time limit for the values of one column."""
TRIES = 3
"""Number of columns that may exceed the limit before a form is not tried any more."""


class FormChecker:
    """Checks forms; the child starts with the first request. `close` it."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._child: Child | None = None
        self._failed: Counter[str] = Counter()
        self._decoder = msgspec.msgpack.Decoder(list[int])

    def misfits(self, pattern: str, values: Sequence[str]) -> list[int] | None:
        """Indices of the values that do not match `pattern` completely, in order; None if that takes too much time or
        memory."""
        if not values:
            return []
        if self._failed[pattern] >= TRIES:
            return None
        found = self._request(msgspec.msgpack.encode(FormRequest(pattern, list(values))))
        if found is None:
            self._failed[pattern] += 1
            self.close()
        return found

    def close(self) -> None:
        """End the child."""
        child, self._child = self._child, None
        if child is not None:
            child.close()

    def _request(self, body: bytes) -> list[int] | None:
        child = self._child
        if child is None:
            child = self._child = Child("groundplan.knowledge.quality.forms_worker")
            if _read_frame(child) is None:
                return None
        timed_out = threading.Event()

        def end_child() -> None:
            timed_out.set()
            child.kill()  # ends the write or read below

        timer = threading.Timer(self._seconds, end_child)
        timer.daemon = True
        timer.start()
        try:
            child.input.write(LENGTH.pack(len(body)) + body)
            child.input.flush()
            answer = _read_frame(child)
        except OSError:
            return None
        finally:
            timer.cancel()
            timer.join()
        return self._decoder.decode(answer) if answer and not timed_out.is_set() else None


def _read_frame(child: Child) -> bytes | None:
    """The body of the child's next frame; None if it has ended."""
    head = child.output.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (size,) = LENGTH.unpack(head)
    body = child.output.read(size)
    return body if len(body) == size else None
