"""Live policy that changes while a call waits for its budget: what may be asked since then was not reserved for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.integration.gateway_stack import blueprint, workload
from tests.unit.call_rig import BOUND, LIMIT, FixedPolicy, NoMoreGrants, Rig, call_rig

from groundplan.gateway.policy.catalog import index
from groundplan.gateway.policy.snapshot import LEASE_SECONDS
from groundplan.ledger.model import Charge


class Lifting(NoMoreGrants):
    """Lends what is asked for, after other kill switches were thrown."""

    def __init__(self, rig: Rig, kills: frozenset[str]) -> None:
        super().__init__()
        self._rig, self._kills = rig, kills

    async def acquire(
        self, token: tuple[bytes, int], charges: Sequence[Charge], declared: Any, blueprint: int = 0
    ) -> Charge | None:
        await super().acquire(token, charges, declared, blueprint)
        live, slices = self._rig.gateway.live, self._rig.slices
        assert isinstance(live, FixedPolicy)
        live.policy = replace(live.policy, kills=self._kills)
        for charge in charges:
            slices.add_grant(charge.budget, charge.period, charge.amount)
        return slices.reserve(token, charges)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("before", "after", "deployment"),
    [
        (["deployment/one"], [], "two"),
        (["deployment/two"], [], "one"),
        ([], ["deployment/one"], "two"),
        (["deployment/one"], ["deployment/two"], ""),
    ],
)
async def test_only_deployments_covered_by_the_reservation_are_asked(
    tmp_path: Path, before: list[str], after: list[str], deployment: str, stream: bool
) -> None:
    async with call_rig(tmp_path) as rig:
        live = rig.gateway.live
        assert isinstance(live, FixedPolicy)
        live.policy = replace(live.policy, kills=frozenset(before))
        rig.slices.release("all", "total")
        rig.gateway.leases = rig.grants = Lifting(rig, frozenset(after))
        reply = await rig.chat(stream=stream)
        if deployment:
            assert (reply.status, reply.headers["groundplan-deployment"]) == (200, deployment), reply.body
        else:
            assert (reply.status, reply.code) == (503, "upstream_failed"), reply.body
        assert rig.slices.open_reservations == 0
        assert {name: model.counted for name, model in rig.models.items() if model.counted} == (
            {deployment: 1} if deployment else {}
        )
        assert rig.slices.available("all", "total") + rig.slices.spent("all", "total") == BOUND < LIMIT


def test_restricted_workloads_have_no_grace_whatever_the_blueprint_says() -> None:
    made = blueprint(1, [], [workload("assistant", [], sensitivity="restricted", grace_ms=60_000)])
    assert index(made).plans["assistant"].max_policy_age == LEASE_SECONDS
