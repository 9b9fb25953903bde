"""Two replicas on one PostgreSQL while gateways, workers, the database and upstreams are killed, paused and cut.

After each round the books must be right (`chaos_books`): no budget is exceeded, nor any limit in any minute over both
replicas, every attempt that an upstream counted is in one row, no call is without its audit entry, and no client sees
an error where a fallback is declared, but for the refusals of a gateway that its database is away from: of restricted
data, of an empty slice, of sources, of a start.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.acceptance.chaos_books import faults, held_for_nothing
from tests.acceptance.chaos_traffic import Batch, Traffic
from tests.acceptance.chaos_workspace import COST, COUNTED, GROUNDED, HEDGED, RESTRICTED, TIGHT
from tests.acceptance.chaos_world import UNRECOVERED, Chaos, World, world
from tests.acceptance.stack import Stack, wait_until

HURT_SECONDS = 4.0
RECOVERED_SECONDS = 90.0
"""Most that is waited for; on a machine that does nothing else it is a few."""


def one_round(made: World, number: int, seed: int) -> None:
    workloads = (TIGHT[number], "steady", "cached", HEDGED, RESTRICTED, GROUNDED, COUNTED[number % len(COUNTED)])
    traffic = Traffic(made, workloads, seed)
    chance = random.Random(seed)
    chaos = Chaos(made, chance, chance.choice(("one", "one", "two")))
    batch = Batch(made, "steady")
    traffic.start()
    time.sleep(0.3)
    chaos.run(HURT_SECONDS)
    time.sleep(0.5)
    end = time.monotonic() + RECOVERED_SECONDS
    while number == len(TIGHT) - 1 and not (used_up(made) and counted_up(made)) and time.monotonic() < end:
        time.sleep(0.2)  # on a slow machine: whatever is wrong shows at budgets that have an end
    traffic.stop()
    of_batch = batch.faults(RECOVERED_SECONDS)
    end = time.monotonic() + RECOVERED_SECONDS
    while not made.quiet() and time.monotonic() < end:
        time.sleep(0.3)
    found = of_batch + faults(made.books())
    assert not found, f"seed {seed}: {', '.join(chaos.story)}:\n" + "\n".join(found[:40])
    assert sum(seen.status == 200 for seen in made.seen) > 20 * (number + 1), f"seed {seed}: hardly anything was served"


def used_up(made: World) -> bool:
    """Whether any budget has refused a call."""
    return any(seen.code == "budget_exhausted" for seen in list(made.seen))


def counted_up(made: World) -> bool:
    """Whether any limit has refused a call."""
    return any(seen.code == "rate_limit_exceeded" for seen in list(made.seen))


def served(made: World, workload: str) -> int:
    return sum(seen.status == 200 and seen.workload == workload for seen in made.seen)


def rounds(folder: Path, group: int, *, again: bool) -> None:
    """Five rounds in one world, then its end: nothing may be held of any budget, and the audit log verifies. `again`:
    nor once it has begun and ended again, which it does anyway where a journal was left."""
    with world(folder, tight=COST * 40) as made:
        for number in range(len(TIGHT)):
            one_round(made, number, seed=group * len(TIGHT) + number)
        assert used_up(made), "no budget was ever used up"
        assert counted_up(made), "no limit was ever used up"
        assert any(call.cache == "exact" for call in made.books().calls)
        assert served(made, RESTRICTED) > 20 and served(made, GROUNDED) > 20
        for replica in made.replicas:
            if (replica.home / "audit" / "checkpoint").exists():  # only where it was the one that writes the log
                assert replica.cli("audit", "verify")["ok"]
        made.stop()
        if again or made.administer(UNRECOVERED) != [(0,)]:
            made.together(Stack.start)
            made.stop()
        wait_until(lambda: made.administer(UNRECOVERED) == [(0,)], 90, "every journal is recovered")
        found = faults(made.books()) + held_for_nothing(made.books())
        assert not found, "\n".join(found[:40])


@pytest.mark.timeout(900)
def test_books_are_right_after_five_rounds_of_chaos(tmp_path: Path) -> None:
    rounds(tmp_path, 0, again=False)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("group", range(10))
def test_books_are_right_after_five_of_all_fifty_rounds_of_chaos(tmp_path: Path, group: int) -> None:
    rounds(tmp_path, group, again=True)
