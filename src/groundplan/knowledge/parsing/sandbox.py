"""Parses documents in a confined child process: outcomes come in order, whatever a document does to the child.

A document that exceeds its time or ends its process is refused; the next one gets a new process, and so does one whose
process was left short of memory by those before it. Up to `AHEAD` documents are sent ahead, so that parent and child
work at the same time. One thread uses a sandbox at a time.
"""

from __future__ import annotations

import os
import selectors
import time
from collections import deque
from collections.abc import Iterable, Iterator
from enum import Enum
from types import TracebackType
from typing import Self

import msgspec

from groundplan.knowledge.parsing import ocr
from groundplan.knowledge.parsing.child import Child
from groundplan.knowledge.parsing.confine import MEMORY_BYTES
from groundplan.knowledge.parsing.model import Job, Outcome, Parsed, Refused
from groundplan.knowledge.parsing.prepare import HEAVY, SCANNED
from groundplan.knowledge.parsing.worker import LENGTH

SECONDS = 30.0
"""Time limit of one document, from when the one before it is done."""
RECOGNISING_SECONDS = 300.0
RECOGNISING_BYTES = 4 << 30
"""Address space of the child that recognises text; it uses a sixth of it."""
AHEAD = 16
_AHEAD_BYTES = 8 << 20
_RECOGNISING_JOBS = 20
_JOBS = 5000
"""Number of documents after which a process is replaced: libraries leak, and its CPU time is limited."""


class _NoFrame(Enum):
    TIMED_OUT = "timed out"
    CHILD_ENDED = "child ended"


class Sandbox:
    """A context manager that parses documents; the child starts with the first one."""

    def __init__(self, seconds: float = SECONDS, memory_bytes: int = MEMORY_BYTES, jobs: int = _JOBS) -> None:
        """`seconds` is the time limit of one document; after `jobs` documents the child is replaced."""
        self._seconds, self._memory, self._jobs = seconds, memory_bytes, jobs
        self._child: Child | None = None
        self._decoder = msgspec.msgpack.Decoder(Outcome)
        self._unread = bytearray()
        self._unsent = bytearray()
        self._count = self._in_flight = 0
        self._ocr_sandbox: Sandbox | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the child and the sandbox that recognises text."""
        if self._ocr_sandbox is not None:
            self._ocr_sandbox.close()
            self._ocr_sandbox = None
        child, self._child = self._child, None
        self._in_flight = 0
        if child is None:
            return
        child.close()
        self._unread.clear()
        self._unsent.clear()

    def parse_all(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Outcome]]:
        """Each job with its outcome, in order."""
        if self._in_flight:
            self.close()  # an earlier caller stopped iterating: pending answers are about other documents
        waiting: deque[Job] = deque()
        iterator = iter(jobs)
        has_more = True
        while has_more or waiting:
            while has_more and len(waiting) < AHEAD and sum(len(job.data) for job in waiting) < _AHEAD_BYTES:
                job = next(iterator, None)
                if job is None:
                    has_more = False
                    break
                waiting.append(job)
                self._send(job)
            if waiting:
                outcome = self._next_outcome(waiting)
                job = waiting.popleft()
                yield job, self._recognise(job, outcome)

    def parse(self, job: Job) -> Outcome:
        """Parse one document."""
        return next(iter(self.parse_all([job])))[1]

    def _recognise(self, job: Job, outcome: Outcome) -> Outcome:
        """Parse a document again by the child with more memory and time, if its pages are pictures and their text can
        be recognised here, or if it needs that child anyway; else return its outcome."""
        refused = outcome.code if isinstance(outcome, Refused) else ""
        scanned = refused == SCANNED or (isinstance(outcome, Parsed) and outcome.pictures > 0)
        if job.recognise or not (refused == HEAVY or (scanned and ocr.is_installed())):
            return outcome
        if self._ocr_sandbox is None:
            self._ocr_sandbox = Sandbox(RECOGNISING_SECONDS, RECOGNISING_BYTES, _RECOGNISING_JOBS)
        recognised = self._ocr_sandbox.parse(msgspec.structs.replace(job, recognise=True))
        return outcome if isinstance(recognised, Refused) and isinstance(outcome, Parsed) else recognised

    def _start(self) -> Child:
        if self._child is None:
            self._child = Child("groundplan.knowledge.parsing.worker", str(self._memory), blocking=False)
        return self._child

    def _send(self, job: Job) -> None:
        self._start()
        body = msgspec.msgpack.encode(job)
        self._unsent += LENGTH.pack(len(body)) + body
        self._in_flight += 1

    def _next_outcome(self, waiting: deque[Job]) -> Outcome:
        """The outcome of the first of `waiting`; all of them were sent."""
        body = self._read_frame(time.monotonic() + self._seconds)
        if body is _NoFrame.CHILD_ENDED and self._count:
            self._restart_with(waiting)  # documents parsed before may be what ended the child
            body = self._read_frame(time.monotonic() + self._seconds)
        job, rest = waiting[0], list(waiting)[1:]
        if isinstance(body, bytes):
            self._count += 1
            self._in_flight -= 1
            outcome: Parsed | Refused = self._decoder.decode(body)
            ran_out_of_memory = isinstance(outcome, Refused) and outcome.code == "document_memory"
            if ran_out_of_memory or (self._count >= self._jobs and not rest):
                self._restart_with(rest)
            return outcome
        self._restart_with(rest)
        if body is _NoFrame.TIMED_OUT:
            return Refused(
                key=job.key, code="document_time", message=f"reading it took longer than {self._seconds:.0f} s",
                hint="Split it into parts, or save it again in a simpler form.",
            )  # fmt: skip
        return Refused(
            key=job.key, code="document_hostile", message="reading it ended the parser, whose memory is limited",
            hint="Open it in the program that made it and save it again; do not keep a file that you do not know.",
        )  # fmt: skip

    def _restart_with(self, waiting: Iterable[Job]) -> None:
        """Replace the child and send it the `waiting` jobs."""
        self.close()
        self._count = 0
        for job in waiting:
            self._send(job)

    def _read_frame(self, deadline: float) -> bytes | _NoFrame:
        """Read the next answer, while sending what is still unsent."""
        child = self._start()
        with selectors.DefaultSelector() as selector:
            selector.register(child.output, selectors.EVENT_READ)
            if self._unsent:
                selector.register(child.input, selectors.EVENT_WRITE)
            while (frame := self._take_frame()) is None:
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    return _NoFrame.TIMED_OUT
                for key, _ in selector.select(min(remaining, 1.0)):
                    if key.fileobj is child.output:
                        data = child.output.read()
                        if not data:
                            return _NoFrame.CHILD_ENDED
                        self._unread += data
                    elif not self._write_pending(child):
                        return _NoFrame.CHILD_ENDED
                    elif not self._unsent:
                        selector.unregister(child.input)
            return frame

    def _take_frame(self) -> bytes | None:
        """Take the first frame from what was read; None while it is incomplete."""
        if len(self._unread) < LENGTH.size:
            return None
        (length,) = LENGTH.unpack_from(self._unread)
        if len(self._unread) < LENGTH.size + length:
            return None
        body = bytes(self._unread[LENGTH.size : LENGTH.size + length])
        del self._unread[: LENGTH.size + length]
        return body

    def _write_pending(self, child: Child) -> bool:
        """Write some of what is unsent; returns False if the child has ended."""
        try:
            sent = os.write(child.input.fileno(), self._unsent[: 1 << 20])
        except BlockingIOError:
            return True
        except OSError:
            return False
        del self._unsent[:sent]
        return True
