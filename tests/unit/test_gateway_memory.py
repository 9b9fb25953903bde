"""Memory that a crowd of calls took goes back to the machine once a worker is nearly idle, and not before."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import weakref
from contextlib import suppress

import pytest

from groundplan.gateway import memory

_CROWD = """
from groundplan.gateway.memory import give_back, resident
pieces = [bytes(4000) + bytes([at % 256]) for at in range(40_000)]
kept = pieces[::1000] + pieces[-1:]
del pieces
before = resident()
give_back()
print(before - resident())
"""


def test_what_was_freed_goes_back_to_the_machine() -> None:
    """In a process of its own: here it would depend on what other tests left."""
    told = subprocess.run([sys.executable, "-c", _CROWD], check=True, capture_output=True, text=True).stdout
    assert int(told) > 64 << 20


def test_garbage_in_cycles_goes_with_it() -> None:
    class Part:
        other: Part | None = None

    one = Part()
    one.other = Part()
    one.other.other = one
    gone = weakref.ref(one)
    del one
    memory.give_back()
    assert gone() is None


@pytest.mark.parametrize("running", [0, memory.CALLS_AT_MOST + 1])
async def test_only_a_nearly_idle_worker_is_asked(running: int, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, asked, looks = asyncio.get_running_loop(), asyncio.Event(), iter(range(1000))
    enough = asyncio.Event()

    def resident() -> int:
        if next(looks) > 5:
            enough.set()
        return 100 << 20 if next(looks) < 2 else 200 << 20

    monkeypatch.setattr(memory, "resident", resident)
    monkeypatch.setattr(memory, "give_back", lambda: loop.call_soon_threadsafe(asked.set))
    watching = asyncio.create_task(memory.watch(lambda: running, every=0.001))
    await asyncio.wait_for((enough if running else asked).wait(), 20)
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
    assert asked.is_set() == (running == 0)
