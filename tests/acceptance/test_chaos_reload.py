"""The chaos suite during `groundplan reload` and `apply`, which run at both replicas all the time.

The invariants are those of `test_chaos_gateway`; in particular no call fails because of a reload, not even of one that
fails because its database, its workers or `up` itself were killed meanwhile. Restricted data is left out: on a machine
busy with replacing everything twice, live policy may not be confirmed each second, and such calls are refused then.
"""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.chaos_books import faults, unreleased_grants
from tests.acceptance.chaos_traffic import Traffic
from tests.acceptance.chaos_workspace import COST, COUNTED, GROUNDED, HEDGED, TIGHT
from tests.acceptance.chaos_world import UNRECOVERED, Chaos, ChaosInstallation, run_replicas
from tests.acceptance.stack import Stack, wait_until

CHAOS_SECONDS = 8.0
"""About as long as a reload of both takes."""
RECOVERED_SECONDS = 90.0
ROUNDS = 10
SITE = """kind: site
name: spare
title: {title}
type: private
jurisdiction: EU
"""
ALLOWED_ERRORS = {"reload_failed", "reload_slow", "not_running", "database_unavailable"}
"""How a command may end whose replica or database was disrupted."""


class Renewals(threading.Thread):
    """Reloads the code and applies new blueprints at one replica, one after the other, until it is `stopped`."""

    def __init__(self, replica: Stack, chance: random.Random, apply_lock: threading.Lock) -> None:
        super().__init__(daemon=True)
        self.stopped = False
        self.done: list[str] = []
        """Each command that was run, or the code of its error."""
        self.errors: list[str] = []
        self._replica, self._chance, self._apply_lock = replica, chance, apply_lock

    def run(self) -> None:
        while not self.stopped:
            try:
                self._renew_once()
            except Exception as error:  # noqa: BLE001 -- reported by the test, which a thread cannot fail
                self.errors.append(repr(error))
            time.sleep(0.2)

    def _renew_once(self) -> None:
        if self._chance.random() < 0.35:
            with self._apply_lock:  # both have the same workspace
                file = self._replica.workspace / "spare.yaml"
                file.write_text(SITE.format(title=f"Room {self._chance.randrange(10**9)}"))
                output = self._replica.cli("apply", "--workspace", str(file.parent), code=None)
            self._record("apply", output)
        else:
            self._record("reload", self._replica.cli("reload", code=None))

    def _record(self, what: str, output: Any) -> None:
        code = "" if output is None else output.get("error", {}).get("code", "")
        self.done.append(code or what)
        if output is None or (code and code not in ALLOWED_ERRORS):
            self.errors.append(f"{what}: {output}")


def run_round(installation: ChaosInstallation, seed: int, *, disrupt: bool) -> list[str]:
    """One round at both replicas; returns what was done. `disrupt`: parts are killed, paused and cut meanwhile."""
    number = seed % len(TIGHT)
    workloads = (TIGHT[number], "steady", "cached", HEDGED, GROUNDED, COUNTED[number % len(COUNTED)])
    traffic, chance = Traffic(installation, workloads, seed), random.Random(seed)
    chaos, apply_lock = Chaos(installation, chance, chance.choice(("one", "one", "two"))), threading.Lock()
    renewals = [
        Renewals(replica, random.Random(seed * 7 + at), apply_lock) for at, replica in enumerate(installation.replicas)
    ]
    traffic.start()
    for renewal in renewals:
        renewal.start()
    if disrupt:
        chaos.run(CHAOS_SECONDS)
    else:
        time.sleep(CHAOS_SECONDS)
    for renewal in renewals:
        renewal.stopped = True
    for renewal in renewals:
        renewal.join(RECOVERED_SECONDS * 2)
    traffic.stop()
    end = time.monotonic() + RECOVERED_SECONDS
    while not installation.has_settled() and time.monotonic() < end:
        time.sleep(0.3)
    violations = [*faults(installation.books()), *(error for renewal in renewals for error in renewal.errors)]
    done = [what for renewal in renewals for what in renewal.done]
    assert not violations, f"seed {seed}: {', '.join(chaos.story)}; {', '.join(done)}:\n" + "\n".join(violations[:40])
    return done


@pytest.mark.soak
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("disrupt", [False, True])
def test_books_are_right_and_no_call_fails_while_code_and_blueprints_are_replaced(
    tmp_path: Path, disrupt: bool
) -> None:
    with run_replicas(tmp_path, tight=COST * 60) as installation:
        done = [what for seed in range(ROUNDS) for what in run_round(installation, seed, disrupt=disrupt)]
        assert done.count("reload") >= ROUNDS and "apply" in done
        assert disrupt or not ALLOWED_ERRORS.intersection(done)
        assert sum(result.status == 200 for result in installation.client_results) > 100 * ROUNDS
        installation.stop()
        installation.on_both_replicas(Stack.start)
        installation.stop()
        wait_until(lambda: installation.administer(UNRECOVERED) == [(0,)], 90, "every journal is recovered")
        violations = faults(installation.books()) + unreleased_grants(installation.books())
        assert not violations, "\n".join(violations[:40])
