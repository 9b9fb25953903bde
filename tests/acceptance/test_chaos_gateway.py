"""Two replicas on one PostgreSQL while gateways, workers, the database and upstreams are killed, paused and cut.

After each round the invariants of `chaos_books` must hold: no budget is exceeded, nor any limit in any minute over both
replicas; every attempt that an upstream counted has exactly one row; every call has its audit entry; and no client gets
an error where a fallback is declared, except for what a gateway must refuse without its database: restricted data, an
empty slice, sources, calls at its start.
"""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.acceptance.chaos_books import faults, unreleased_grants
from tests.acceptance.chaos_traffic import Batch, Traffic
from tests.acceptance.chaos_workspace import COST, COUNTED, GROUNDED, HEDGED, RESTRICTED, TIGHT
from tests.acceptance.chaos_world import UNRECOVERED, Chaos, ChaosInstallation, run_replicas
from tests.acceptance.stack import Stack, wait_until

CHAOS_SECONDS = 4.0
RECOVERED_SECONDS = 90.0
"""Upper bound; on an otherwise idle machine it takes a few seconds."""


def run_round(installation: ChaosInstallation, number: int, seed: int) -> None:
    workloads = (TIGHT[number], "steady", "cached", HEDGED, RESTRICTED, GROUNDED, COUNTED[number % len(COUNTED)])
    traffic = Traffic(installation, workloads, seed)
    chance = random.Random(seed)
    chaos = Chaos(installation, chance, chance.choice(("one", "one", "two")))
    batch = Batch(installation, "steady")
    traffic.start()
    time.sleep(0.3)
    chaos.run(CHAOS_SECONDS)
    time.sleep(0.5)
    end = time.monotonic() + RECOVERED_SECONDS
    while (
        number == len(TIGHT) - 1
        and not (any_budget_exhausted(installation) and any_limit_exhausted(installation))
        and time.monotonic() < end
    ):
        time.sleep(0.2)  # on a slow machine: only exhausted budgets and limits show what is wrong
    traffic.stop()
    batch_faults = batch.faults(RECOVERED_SECONDS)
    end = time.monotonic() + RECOVERED_SECONDS
    while not installation.has_settled() and time.monotonic() < end:
        time.sleep(0.3)
    violations = batch_faults + faults(installation.books())
    assert not violations, f"seed {seed}: {', '.join(chaos.story)}:\n" + "\n".join(violations[:40])
    assert sum(result.status == 200 for result in installation.client_results) > 20 * (number + 1), (
        f"seed {seed}: hardly anything was served"
    )


def any_budget_exhausted(installation: ChaosInstallation) -> bool:
    """Whether any budget has refused a call."""
    return any(result.code == "budget_exhausted" for result in list(installation.client_results))


def any_limit_exhausted(installation: ChaosInstallation) -> bool:
    """Whether any limit has refused a call."""
    return any(result.code == "rate_limit_exceeded" for result in list(installation.client_results))


def count_served(installation: ChaosInstallation, workload: str) -> int:
    return sum(result.status == 200 and result.workload == workload for result in installation.client_results)


def run_rounds(folder: Path, group: int, *, restart: bool) -> None:
    """Five rounds in one installation, which is then stopped: no budget may have unreleased grants, and the audit log
    verifies. `restart`: also after it was started and stopped once more, which is always done if a journal was left."""
    with run_replicas(folder, tight=COST * 40) as installation:
        for number in range(len(TIGHT)):
            run_round(installation, number, seed=group * len(TIGHT) + number)
        assert any_budget_exhausted(installation), "no budget was ever exhausted"
        assert any_limit_exhausted(installation), "no limit was ever exhausted"
        assert any(call.cache == "exact" for call in installation.books().calls)
        assert count_served(installation, RESTRICTED) > 20 and count_served(installation, GROUNDED) > 20
        for replica in installation.replicas:
            if (replica.home / "audit" / "checkpoint").exists():  # only the replica that was elected to write the log
                assert replica.cli("audit", "verify")["ok"]
        installation.stop()
        if restart or installation.administer(UNRECOVERED) != [(0,)]:
            installation.on_both_replicas(Stack.start)
            installation.stop()
        wait_until(lambda: installation.administer(UNRECOVERED) == [(0,)], 90, "every journal is recovered")
        violations = faults(installation.books()) + unreleased_grants(installation.books())
        assert not violations, "\n".join(violations[:40])


@pytest.mark.timeout(900)
def test_books_are_right_after_five_rounds_of_chaos(tmp_path: Path) -> None:
    run_rounds(tmp_path, 0, restart=False)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("group", range(10))
def test_books_are_right_after_five_of_all_fifty_rounds_of_chaos(tmp_path: Path, group: int) -> None:
    run_rounds(tmp_path, group, restart=True)
