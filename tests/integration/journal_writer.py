"""A program for the kill test: one gateway worker without HTTP. It tells on standard output what it did, right after it
did it.

Lines: `R call attempt` a reservation is written, `B call attempt cost` the provider billed, `S call attempt` the
settlement is written, `D call` the finish is durable, `X` the budget was short.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from pathlib import Path

from groundplan.blueprint.model import Budget
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.gateway.budgets.lease_client import LeaseClient
from groundplan.gateway.budgets.leases import Slices
from groundplan.gateway.journal.journal import SMALLEST_SEGMENT, Journal
from groundplan.ledger.model import Charge, Finish, Reservation, Settlement, Usage

PERIOD = "total"
"""One that does not end, whatever day it is."""
BOUND = 10**10


def say(line: str) -> None:
    os.write(1, line.encode() + b"\n")


class Writer:
    """Calls with one or two attempts, some of which inherit the reservation of the first."""

    def __init__(self, home: Home, url: str, seed: int, limits: dict[str, int]) -> None:
        self.random = random.Random(seed)
        self.epoch = new_id()
        loop = asyncio.get_running_loop()
        self.journal = Journal.open(home.journal / str(self.epoch), self.epoch, loop, SMALLEST_SEGMENT * 4)
        self.slices = Slices()
        self.leases = LeaseClient(url, self.journal, self.slices, home=home.root)
        self.budgets = {
            name: Budget(name=name, covers="company", limit=limit, period="total") for name, limit in limits.items()
        }

    async def call(self) -> None:
        call, started = new_id().bytes, time.time_ns() // 1_000_000
        names = [name for name in self.budgets if name == "company" or self.random.random() < 0.7]
        charges = [Charge(name, PERIOD, BOUND) for name in names]
        if await self.leases.acquire((call, 0), charges, [self.budgets[name] for name in names]) is not None:
            say("X")
            return
        attempt = 0
        self.reserve(call, attempt, charges)
        if self.random.random() < 0.3:
            self.journal.settle(Settlement(call, 0, started, 0, "not_billed", 0, Usage(), False, [], 1))
            say(f"B {call.hex()} 0 0")
            attempt = 1
            self.reserve(call, attempt, [Charge(name, PERIOD, 0) for name in names])
            say(f"S {call.hex()} 0")
            self.slices.transfer_reservation((call, 0), (call, 1))
        await asyncio.sleep(self.random.random() * 0.01)
        cost = self.random.randint(0, BOUND)
        say(f"B {call.hex()} {attempt} {cost}")
        self.journal.settle(Settlement(call, attempt, started, cost, "ok", 200, Usage(), False, [], 1))
        self.slices.settle((call, attempt), cost)
        finished = self.journal.finish(
            Finish(call, started, "w", "", "k", "/v1", "ok", 200, "", "d", "none", 1, 1, 1, [], [])
        )
        durable = self.journal.durable(finished)
        await asyncio.sleep(0)
        say(f"S {call.hex()} {attempt}")
        if durable is not None:
            await durable
        say(f"D {call.hex()}")

    def reserve(self, call: bytes, attempt: int, charges: list[Charge]) -> None:
        at = time.time_ns() // 1_000_000
        self.journal.reserve(Reservation(call, attempt, at, "w", "", "k", "/v1", "d", "s", "m", 1, BOUND, charges))
        say(f"R {call.hex()} {attempt}")

    async def run(self) -> None:
        await self.leases.start()
        while True:
            await asyncio.gather(*(self.call() for _ in range(8)))


async def run(arguments: list[str]) -> None:
    home, url, seed = Home(Path(arguments[0])), arguments[1], int(arguments[2])
    limits = {name: int(limit) for name, limit in (item.split("=") for item in arguments[3:])}
    await Writer(home, url, seed, limits).run()


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1:]))
