"""The parser's process: reads frames of msgpack from standard input and answers each with one, until the input ends.

A frame is four bytes of length, then a `Job` or an `Outcome`. The process is confined before it reads the first job,
and writes nothing but its answers. It reports documents that it cannot parse; its parent reports those that end it.
"""

from __future__ import annotations

import os
import struct
import sys
from typing import BinaryIO

import msgspec

from groundplan.core.errors import GroundplanError
from groundplan.knowledge.parsing.confine import MEMORY_BYTES, confine
from groundplan.knowledge.parsing.model import Job, Outcome, Parsed, Refused
from groundplan.knowledge.parsing.prepare import parse_job

LENGTH = struct.Struct("<I")


def answer_job(job: Job) -> Outcome:
    """Parse one job; every failure becomes an outcome."""
    try:
        return parse_job(job)
    except GroundplanError as error:
        return Refused(key=job.key, code=error.code, message=error.message, hint=error.hint or "")
    except MemoryError:
        return _refusal(job, "document_memory", "it needs more memory than a document may", "Split it into parts.")
    except RecursionError:
        return _refusal(job, "document_nesting", "it is nested too deeply", "Save it anew in a simpler form.")
    except Exception as error:  # noqa: BLE001 -- process boundary: a library may raise anything on hostile bytes
        reason = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
        return _refusal(job, "document_broken", f"it is damaged: {reason}", "Open and save it anew, then replace it.")


def _refusal(job: Job, code: str, message: str, hint: str) -> Refused:
    return Refused(key=job.key, code=code, message=message, hint=hint)


def serve(source: BinaryIO, target: BinaryIO, *, confined: bool = True) -> None:
    """Answer every frame of `source` in order. `confined`: whether the kernel enforces the confinement."""
    decoder, encoder = msgspec.msgpack.Decoder(Job), msgspec.msgpack.Encoder()
    while head := source.read(LENGTH.size):
        outcome = answer_job(decoder.decode(source.read(LENGTH.unpack(head)[0])))
        if not confined and isinstance(outcome, Parsed):
            outcome = msgspec.structs.replace(outcome, confined=False)
        body = encoder.encode(outcome)
        target.write(LENGTH.pack(len(body)) + body)
        target.flush()


def main() -> int:
    """Entry of `python -m groundplan.knowledge.parsing.worker [MEMORY_BYTES]`."""
    target = os.fdopen(os.dup(1), "wb")
    # what a library prints must not get between the frames
    os.dup2(2, 1)
    confined = confine(int(sys.argv[1]) if len(sys.argv) > 1 else MEMORY_BYTES)
    serve(sys.stdin.buffer, target, confined=confined)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
