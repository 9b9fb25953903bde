"""Bounds the memory of a worker that large complete answers take together until their clients have them.

An answer may have 64 MiB, and comes as fast as its upstream sends it: no machine has memory for five hundred at once.
So an answer that grows beyond a little reserves memory here as it comes; if there is none, it waits, reading nothing,
until other answers have released theirs. More important workloads go first and have the last of it; the answers of one
workload never get all of it. One answer at a time may exceed the limit, and one of each workload its workload's limit,
so that they never all wait for each other. Knows no HTTP; reading and releasing is the attempt's business. Bodies of
requests have a separate memory of the same size, in `http.server`.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from collections.abc import Callable
from operator import attrgetter
from typing import NamedTuple

from groundplan.gateway.http.server_state import MAX_WORKLOAD_SHARE
from groundplan.gateway.upstream.connection import BODY_LIMIT, UpstreamFailure
from groundplan.gateway.upstream.pressure import RANK_SHARES

CHECK_SECONDS = 1.0
"""How often a waiting answer checks whether it holds up others."""
CROWDED = "crowded"
"""The kind of failure of an answer for which there was no memory in time, and of a connection for which there is no
local resource."""


class AnswerMemory:
    """The memory of one worker, in bytes. Changed only through shares."""

    __slots__ = (
        "_arrivals",
        "_overdrawn",
        "_overdrawn_of",
        "_waiters",
        "_workload_bytes",
        "held_bytes",
        "limit",
        "refused_answers",
    )

    def __init__(self, limit: int = 256 << 20) -> None:
        self.limit = limit
        self.held_bytes = 0
        self.refused_answers = 0
        """Number of answers for which there was no memory in time."""
        self._overdrawn: MemoryShare | None = None
        """The one share that may exceed the limit."""
        self._workload_bytes: dict[str, int] = {}
        """Bytes held, by workload."""
        self._overdrawn_of: dict[str, MemoryShare] = {}
        """For each workload, the one share that may exceed the workload's limit."""
        self._waiters: list[_Waiter] = []
        """The most important first, then the longest waiting. While there are any, one share exceeds the limit, or that
        of their workload."""
        self._arrivals = 0

    @property
    def waiting_count(self) -> int:
        """Number of answers that wait for memory."""
        return len(self._waiters)

    def try_resize(self, share: MemoryShare, size: int, *, forced: bool = False) -> bool:
        """Let a share grow to `size` bytes; False if it has to wait. `forced`: even if there is no memory."""
        held, of_workload = (
            self.held_bytes + size - share.size,
            self._workload_bytes.get(share.workload, 0) + size - share.size,
        )
        if not forced and self._overdrawn is not share:
            exceeds_limit = held > self.limit * share.limit_share
            if (exceeds_limit and self._overdrawn is not None) or self._waits_for_workload(share, size):
                return False
            if exceeds_limit:
                self._overdrawn = share
            if self._exceeds_workload_limit(share, size):
                self._overdrawn_of[share.workload] = share
        self.held_bytes, share.size = held, size
        if share.workload:
            self._workload_bytes[share.workload] = of_workload
        return True

    def _exceeds_workload_limit(self, share: MemoryShare, size: int) -> bool:
        """Whether the share's workload would exceed its limit."""
        return (
            bool(share.workload)
            and self._workload_bytes.get(share.workload, 0) + size - share.size > self.limit * MAX_WORKLOAD_SHARE
        )

    def _waits_for_workload(self, share: MemoryShare, size: int) -> bool:
        """Whether the share has to wait for others of its workload, however much memory is free."""
        return self._overdrawn_of.get(share.workload) not in (None, share) and self._exceeds_workload_limit(share, size)

    def shrink(self, share: MemoryShare, size: int) -> None:
        """Reduce a share to `size` bytes, and let others grow."""
        workload, freed = share.workload, share.size - size
        self.held_bytes -= freed
        share.size = size
        overdrawn = self._overdrawn
        if overdrawn is not None and (not overdrawn.size or self.held_bytes <= self.limit * overdrawn.limit_share):
            self._overdrawn = None
        if workload:
            if remaining := self._workload_bytes.pop(workload) - freed:
                self._workload_bytes[workload] = remaining
            overdrawn_of_workload = self._overdrawn_of.get(workload)
            if overdrawn_of_workload is not None and (
                not overdrawn_of_workload.size
                or not self._exceeds_workload_limit(overdrawn_of_workload, overdrawn_of_workload.size)
            ):
                del self._overdrawn_of[workload]
        self._admit_waiters()

    def _admit_waiters(self) -> None:
        """Let waiting shares grow, in order, as far as there is memory. One that waits for others of its workload holds
        up nobody else."""
        for waiter in list(self._waiters):
            if self._waits_for_workload(waiter.share, waiter.size):
                continue
            if not self.try_resize(waiter.share, waiter.size):
                return
            self._waiters.remove(waiter)
            waiter.future.set_result(None)

    def wait(self, share: MemoryShare, size: int) -> asyncio.Future[None] | None:
        """A future that is done once the share has `size` bytes; None if it has them now."""
        others_wait_for_it = share in (self._overdrawn, self._overdrawn_of.get(share.workload))
        if (others_wait_for_it or self._is_next(share)) and self.try_resize(share, size):
            return None
        future = asyncio.get_running_loop().create_future()
        self._arrivals += 1
        insort(self._waiters, _Waiter((share.rank, self._arrivals), share, size, future), key=_queue_position)
        return future

    def _is_next(self, share: MemoryShare) -> bool:
        """Whether no waiting share comes before this one."""
        for waiter in self._waiters:
            if waiter.share.rank > share.rank:
                return True
            if waiter.share.workload == share.workload or not self._waits_for_workload(waiter.share, waiter.size):
                return False
        return True

    def cancel_wait(self, future: asyncio.Future[None]) -> None:
        """Cancel the wait for `future`; does nothing if it is done."""
        for at, waiter in enumerate(self._waiters):
            if waiter.future is future:
                del self._waiters[at]
                self._admit_waiters()
                return


class _Waiter(NamedTuple):
    """A share that waits to grow to `size` bytes."""

    position: tuple[int, int]
    share: MemoryShare
    size: int
    future: asyncio.Future[None]


_queue_position = attrgetter("position")


class MemoryShare:
    """The memory of one answer. `rank` is its workload's (`pressure.RANKS`). `workload`: its name; if empty, no
    workload limit applies."""

    __slots__ = ("_memory", "had_to_wait", "limit_share", "rank", "size", "workload")

    def __init__(self, memory: AnswerMemory, rank: int = 0, workload: str = "") -> None:
        self._memory = memory
        self.workload = workload
        self.rank = rank
        self.limit_share = RANK_SHARES[rank]
        """Share of the limit up to which this rank may grow; the rest is for more important ones."""
        self.size = 0
        self.had_to_wait = False
        """There was no memory for it at once, so its timing says nothing about its upstream."""

    async def grow(self, size: int, seconds: float, unless: Callable[[], bool] | None = None) -> int:
        """As `BodyMemory.grow`: reserve `size` bytes and as many again, so that an upstream that sends little, or only
        announces much, gets little.

        Raises `UpstreamFailure` (`crowded`) if there is no memory within `seconds`. `unless` returns true if others are
        held up while this answer is not read: then reading continues without memory.
        """
        memory, wanted = self._memory, min(2 * size, BODY_LIMIT + 1)
        if wanted <= self.size or (future := memory.wait(self, wanted)) is None:
            return self.size
        self.had_to_wait = True
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        try:
            while not future.done():
                remaining = end - loop.time()
                if remaining <= 0:
                    memory.refused_answers += 1
                    raise UpstreamFailure(
                        CROWDED, "other large answers took all the memory that there is for them", sent=True,
                        hint="Try again, ask for less at once, or give answers more memory: GROUNDPLAN_REQUEST_MEMORY.",
                    )  # fmt: skip
                await asyncio.wait((future,), timeout=min(remaining, CHECK_SECONDS))
                if unless is not None and not future.done() and unless():
                    memory.try_resize(self, wanted, forced=True)
                    break
        finally:
            memory.cancel_wait(future)
        return self.size

    def shrink_to(self, size: int) -> None:
        """The answer is complete with `size` bytes: release the rest."""
        if size < self.size:
            self._memory.shrink(self, size)

    def release(self) -> None:
        """The answer is no longer needed. May be called repeatedly."""
        if self.size:
            self._memory.shrink(self, 0)

    def explains_failure(self, kind: str, *, is_late: bool = False) -> bool:
        """Whether waiting for memory explains a failure of this kind: an upstream may give up on a client that reads
        nothing, and has less time for the rest. `is_late`: the failure was the call's deadline."""
        return kind == CROWDED or (self.had_to_wait and (kind == "cut" or (is_late and kind == "timeout")))
