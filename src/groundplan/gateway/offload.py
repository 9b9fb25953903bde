"""Work on what one caller sent that takes longer than others may wait: in a thread of its own, while the loop goes on.

Such work is of one call, and touches nothing that another one, or the loop, has. The interpreter lets one thread run at
a time, so it is not made faster by this, and whatever runs outside of Python for long without giving way (a search by a
regular expression) is to be cut in pieces by whoever does it. There are a few threads only: who sends much waits for
others who do, but none that only reads for those that look for something.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from groundplan.core.errors import GroundplanError

Made = TypeVar("Made")
READ_BYTES = 512 << 10
"""A larger body is read, and put into the words of another API, apart: up to 100 ms for each MiB."""
CHECKED_BYTES = 16 << 10
"""A larger text is looked at apart by guardrails: up to two seconds for each MiB."""
InParts = Generator[Callable[[], Any], Any, Made]
"""Work of which some may be made apart: that is what it yields, and it goes on with what that gives, or raises."""
_READERS, _CHECKERS = ThreadPoolExecutor(2, "reads bodies"), ThreadPoolExecutor(2, "checks texts")


async def in_thread(work: Callable[[], Made], *, checks: bool = False) -> Made:
    """What `work` gives, or raises. Whoever is cancelled meanwhile does not wait for its end."""
    return await asyncio.get_running_loop().run_in_executor(_CHECKERS if checks else _READERS, work)


def at_once(steps: InParts[Made]) -> Made:
    """All of it here and now."""
    try:
        work = next(steps)
        while True:
            try:
                found = work()
            except GroundplanError as error:
                work = steps.throw(error)
            else:
                work = steps.send(found)
    except StopIteration as end:
        made: Made = end.value
        return made


async def in_parts(steps: InParts[Made], *, long: bool) -> Made:
    """All of it, apart what it yields where that is `long`."""
    if not long:
        return at_once(steps)
    try:
        work = next(steps)
        while True:
            try:
                found = await in_thread(work, checks=True)
            except GroundplanError as error:
                work = steps.throw(error)
            else:
                work = steps.send(found)
    except StopIteration as end:
        made: Made = end.value
        return made
