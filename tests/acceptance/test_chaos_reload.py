"""The chaos suite while code and blueprints are replaced: `groundplan reload` and `apply` at both replicas all along.

What must hold is what `test_chaos_gateway` holds them to; nobody's call fails for a reload, also of one that fails
since its database, its workers or `up` itself were killed meanwhile. Restricted data is left out: on a machine that is
busy with replacing everything twice, live policy may not be confirmed each second, and such calls are refused then.
"""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.chaos_books import faults, held_for_nothing
from tests.acceptance.chaos_traffic import Traffic
from tests.acceptance.chaos_workspace import COST, COUNTED, GROUNDED, HEDGED, TIGHT
from tests.acceptance.chaos_world import UNRECOVERED, Chaos, World, world
from tests.acceptance.stack import Stack, wait_until

HURT_SECONDS = 8.0
"""About as long as a reload of both takes."""
RECOVERED_SECONDS = 90.0
ROUNDS = 10
SITE = """kind: site
name: spare
title: {title}
type: private
jurisdiction: EU
"""
HURT = {"reload_failed", "reload_slow", "not_running", "database_unavailable"}
"""How a command may end whose replica, or its database, was hurt."""


class Renewal(threading.Thread):
    """Brings one replica new code and new blueprints, one after the other, until it is `over`."""

    def __init__(self, replica: Stack, chance: random.Random, turn: threading.Lock) -> None:
        super().__init__(daemon=True)
        self.over = False
        self.done: list[str] = []
        """What was done, or the code of an error."""
        self.wrong: list[str] = []
        self._replica, self._chance, self._turn = replica, chance, turn

    def run(self) -> None:
        while not self.over:
            try:
                self._once()
            except Exception as error:  # noqa: BLE001 -- told by the test, which a thread cannot fail
                self.wrong.append(repr(error))
            time.sleep(0.2)

    def _once(self) -> None:
        if self._chance.random() < 0.35:
            with self._turn:  # both have the same workspace
                file = self._replica.workspace / "spare.yaml"
                file.write_text(SITE.format(title=f"Room {self._chance.randrange(10**9)}"))
                told = self._replica.cli("apply", "--workspace", str(file.parent), code=None)
            self._note("apply", told)
        else:
            self._note("reload", self._replica.cli("reload", code=None))

    def _note(self, what: str, told: Any) -> None:
        code = "" if told is None else told.get("error", {}).get("code", "")
        self.done.append(code or what)
        if told is None or (code and code not in HURT):
            self.wrong.append(f"{what}: {told}")


def one_round(made: World, seed: int, *, hurt: bool) -> list[str]:
    """One round of both; what was done. `hurt`: parts are killed, paused and cut meanwhile."""
    number = seed % len(TIGHT)
    workloads = (TIGHT[number], "steady", "cached", HEDGED, GROUNDED, COUNTED[number % len(COUNTED)])
    traffic, chance = Traffic(made, workloads, seed), random.Random(seed)
    chaos, turn = Chaos(made, chance, chance.choice(("one", "one", "two"))), threading.Lock()
    renewals = [Renewal(replica, random.Random(seed * 7 + at), turn) for at, replica in enumerate(made.replicas)]
    traffic.start()
    for each in renewals:
        each.start()
    if hurt:
        chaos.run(HURT_SECONDS)
    else:
        time.sleep(HURT_SECONDS)
    for each in renewals:
        each.over = True
    for each in renewals:
        each.join(RECOVERED_SECONDS * 2)
    traffic.stop()
    end = time.monotonic() + RECOVERED_SECONDS
    while not made.quiet() and time.monotonic() < end:
        time.sleep(0.3)
    found = [*faults(made.books()), *(wrong for each in renewals for wrong in each.wrong)]
    done = [what for each in renewals for what in each.done]
    assert not found, f"seed {seed}: {', '.join(chaos.story)}; {', '.join(done)}:\n" + "\n".join(found[:40])
    return done


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("hurt", [False, True])
def test_books_are_right_and_no_call_fails_while_code_and_blueprints_are_replaced(tmp_path: Path, hurt: bool) -> None:
    with world(tmp_path, tight=COST * 60) as made:
        done = [what for seed in range(ROUNDS) for what in one_round(made, seed, hurt=hurt)]
        assert done.count("reload") >= ROUNDS and "apply" in done
        assert hurt or not HURT.intersection(done)
        assert sum(seen.status == 200 for seen in made.seen) > 100 * ROUNDS
        made.stop()
        made.together(Stack.start)
        made.stop()
        wait_until(lambda: made.administer(UNRECOVERED) == [(0,)], 90, "every journal is recovered")
        found = faults(made.books()) + held_for_nothing(made.books())
        assert not found, "\n".join(found[:40])
