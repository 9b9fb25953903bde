"""The memory of a worker that large whole answers may take together until their clients have them.

An answer may have 64 MiB, and comes as fast as its upstream sends it: five hundred that come at once would be what no
machine has. So what an answer needs beyond a little is asked for here as it comes, and whoever finds no room waits,
reading nothing meanwhile, until others have given back theirs. The more important go first, and have the last of it;
those of one workload never have all of it. One at a time goes beyond the limit, and one of each workload beyond its
own, so that never all wait for each other. Knows no HTTP; who reads and who gives back
is the attempt's. Bodies of requests have a room of their own, of the same size, in `http.server`.
"""

from __future__ import annotations

import asyncio
from bisect import insort
from collections.abc import Callable
from operator import attrgetter
from typing import NamedTuple

from groundplan.gateway.http.server_state import MAX_WORKLOAD_SHARE
from groundplan.gateway.upstream.connection import BODY_LIMIT, UpstreamFailure
from groundplan.gateway.upstream.pressure import SHARES

LOOK_SECONDS = 1.0
"""How often one who waits looks whether that holds others up."""
CROWDED = "crowded"
"""The kind of failure of an answer for which there was no room in time, and of a connection for which there is none."""


class Room:
    """Of one worker, in bytes. Changed by shares alone."""

    __slots__ = ("_alone", "_beyond", "_came", "_of", "_waiting", "held", "limit", "refused")

    def __init__(self, limit: int = 256 << 20) -> None:
        self.limit = limit
        self.held = 0
        self.refused = 0
        """Answers for which there was none in time."""
        self._beyond: Share | None = None
        """Who alone may take more than there is for it."""
        self._of: dict[str, int] = {}
        """What is held, by workload."""
        self._alone: dict[str, Share] = {}
        """Who alone may take more than there is for its workload."""
        self._waiting: list[_Waiter] = []
        """The most important first, then the longest waiting. Where there are any, one is beyond the limit, or beyond
        that of their workload."""
        self._came = 0

    @property
    def waiting(self) -> int:
        """How many wait for room."""
        return len(self._waiting)

    def take(self, share: Share, size: int, *, forced: bool = False) -> bool:
        """Have a share grow to `size` bytes; False: it has to wait. `forced`: also where there is no room."""
        held, of = self.held + size - share.size, self._of.get(share.whose, 0) + size - share.size
        if not forced and self._beyond is not share:
            over = held > self.limit * share.part
            if (over and self._beyond is not None) or self._is_bound(share, size):
                return False
            if over:
                self._beyond = share
            if self._is_much(share, size):
                self._alone[share.whose] = share
        self.held, share.size = held, size
        if share.whose:
            self._of[share.whose] = of
        return True

    def _is_much(self, share: Share, size: int) -> bool:
        """Whether its workload would have more than there is for one."""
        return bool(share.whose) and self._of.get(share.whose, 0) + size - share.size > self.limit * MAX_WORKLOAD_SHARE

    def _is_bound(self, share: Share, size: int) -> bool:
        """Whether it has to wait for others of its workload, whatever room there is."""
        return self._alone.get(share.whose) not in (None, share) and self._is_much(share, size)

    def give_back(self, share: Share, size: int) -> None:
        """A share needs no more than `size` bytes any more."""
        whose, given = share.whose, share.size - size
        self.held -= given
        share.size = size
        beyond = self._beyond
        if beyond is not None and (not beyond.size or self.held <= self.limit * beyond.part):
            self._beyond = None
        if whose:
            if left := self._of.pop(whose) - given:
                self._of[whose] = left
            alone = self._alone.get(whose)
            if alone is not None and (not alone.size or not self._is_much(alone, alone.size)):
                del self._alone[whose]
        self._hand_on()

    def _hand_on(self) -> None:
        """Those who wait go on, one after another, as far as there is room. Who waits for others of its workload holds
        up nobody else."""
        for waiter in list(self._waiting):
            if self._is_bound(waiter.share, waiter.size):
                continue
            if not self.take(waiter.share, waiter.size):
                return
            self._waiting.remove(waiter)
            waiter.future.set_result(None)

    def wait(self, share: Share, size: int) -> asyncio.Future[None] | None:
        """Done once a share has `size` bytes; None: it has them."""
        others_wait_for_it = share in (self._beyond, self._alone.get(share.whose))
        if (others_wait_for_it or self._is_first(share)) and self.take(share, size):
            return None
        future = asyncio.get_running_loop().create_future()
        self._came += 1
        insort(self._waiting, _Waiter((share.rank, self._came), share, size, future), key=_place)
        return future

    def _is_first(self, share: Share) -> bool:
        """Whether nobody waits whose turn is before."""
        for waiter in self._waiting:
            if waiter.share.rank > share.rank:
                return True
            if waiter.share.whose == share.whose or not self._is_bound(waiter.share, waiter.size):
                return False
        return True

    def leave(self, future: asyncio.Future[None]) -> None:
        """Whoever waits for it does not any more; nothing where it is done."""
        for at, waiter in enumerate(self._waiting):
            if waiter.future is future:
                del self._waiting[at]
                self._hand_on()
                return


class _Waiter(NamedTuple):
    """Who is to have how much."""

    place: tuple[int, int]
    share: Share
    size: int
    future: asyncio.Future[None]


_place = attrgetter("place")


class Share:
    """What one answer has of a room. `rank` is its workload's (`pressure.RANKS`). `whose`: which one that is; without
    it no workload's bound holds for it."""

    __slots__ = ("_room", "part", "rank", "size", "waited", "whose")

    def __init__(self, room: Room, rank: int = 0, whose: str = "") -> None:
        self._room = room
        self.whose = whose
        self.rank = rank
        self.part = SHARES[rank]
        """Of the room, beyond which the rest is for those that matter more."""
        self.size = 0
        self.waited = False
        """There was no room for it at once, so when it was there says nothing of its upstream."""

    async def grown(self, size: int, seconds: float, unless: Callable[[], bool] | None = None) -> int:
        """As `Taker`: room for `size` bytes and as many again, so that who sends little, or only says how much it will
        send, has little.

        Raises `UpstreamFailure` (`crowded`) where there is none within `seconds`. `unless` tells that others are held
        up while this one reads nothing: then it is read on, room or not.
        """
        room, wanted = self._room, min(2 * size, BODY_LIMIT + 1)
        if wanted <= self.size or (future := room.wait(self, wanted)) is None:
            return self.size
        self.waited = True
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        try:
            while not future.done():
                left = end - loop.time()
                if left <= 0:
                    room.refused += 1
                    raise UpstreamFailure(
                        CROWDED, "other large answers took all the memory that there is for them", sent=True,
                        hint="Try again, ask for less at once, or give answers more memory: GROUNDPLAN_REQUEST_MEMORY.",
                    )  # fmt: skip
                await asyncio.wait((future,), timeout=min(left, LOOK_SECONDS))
                if unless is not None and not future.done() and unless():
                    room.take(self, wanted, forced=True)
                    break
        finally:
            room.leave(future)
        return self.size

    def keep(self, size: int) -> None:
        """All of it is there, and has so many bytes."""
        if size < self.size:
            self._room.give_back(self, size)

    def give_back(self) -> None:
        """Nobody needs the answer any more. May be said again."""
        if self.size:
            self._room.give_back(self, 0)

    def excuses(self, kind: str, *, late: bool = False) -> bool:
        """Whether a failure of that kind is ours: an upstream may give up whoever reads nothing, and has less time for
        the rest. `late`: that was until the call's deadline."""
        return kind == CROWDED or (self.waited and (kind == "cut" or (late and kind == "timeout")))
