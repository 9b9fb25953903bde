"""Runs long work on one client's data in a thread, while the event loop serves other calls.

Such work belongs to one call and touches nothing of other calls or of the loop. The interpreter runs one thread at a
time, so the work does not become faster, and code that holds the interpreter for long (a regular expression) must be
split by its caller. There are few threads: clients with large bodies wait for each other. Reading and guardrails have
threads of their own, so that reading never waits for a guardrail.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from groundplan.core.errors import GroundplanError

Result = TypeVar("Result")
READ_BYTES = 512 << 10
"""A larger body is parsed and translated in a thread: up to 100 ms for each MiB."""
CHECKED_BYTES = 16 << 10
"""A larger text is checked by guardrails in a thread: up to two seconds for each MiB."""
WorkSteps = Generator[Callable[[], Any], Any, Result]
"""Work that yields those of its parts that may run in a thread; each yield gives the result of the part, or raises its
error."""
_READERS, _CHECKERS = ThreadPoolExecutor(2, "reads bodies"), ThreadPoolExecutor(2, "checks texts")


async def in_thread(work: Callable[[], Result], *, checks: bool = False) -> Result:
    """Run `work` in a thread; returns its result. A caller that is cancelled does not wait for its end. `checks`: in a
    thread for guardrails."""
    return await asyncio.get_running_loop().run_in_executor(_CHECKERS if checks else _READERS, work)


def run_inline(steps: WorkSteps[Result]) -> Result:
    """Run all steps in this thread."""
    try:
        work = next(steps)
        while True:
            try:
                result = work()
            except GroundplanError as error:
                work = steps.throw(error)
            else:
                work = steps.send(result)
    except StopIteration as end:
        final: Result = end.value
        return final


async def run_steps(steps: WorkSteps[Result], *, offload: bool) -> Result:
    """Run all steps; with `offload`, the parts that they yield run in a thread."""
    if not offload:
        return run_inline(steps)
    try:
        work = next(steps)
        while True:
            try:
                result = await in_thread(work, checks=True)
            except GroundplanError as error:
                work = steps.throw(error)
            else:
                work = steps.send(result)
    except StopIteration as end:
        final: Result = end.value
        return final
