"""What a worker remembers of who calls: of people as many as somebody asks about."""

from __future__ import annotations

from pathlib import Path

from tests.integration.gateway_stack import blueprint, deployment, workload

from groundplan.core.clock import SystemClock
from groundplan.core.home import Home
from groundplan.core.ids import new_id
from groundplan.gateway.budgets.leases import Slices
from groundplan.gateway.policy.live import LiveView
from groundplan.gateway.policy.snapshot import index


def test_nobody_is_remembered_where_nobody_counts_people(tmp_path: Path) -> None:
    live = LiveView("", Home(tmp_path), new_id(), SystemClock(), Slices())
    tasks = [workload("free", ["one"]), workload("pilot", ["one"], people=3)]
    live.catalog = index(blueprint(1, [deployment("one", 1)], tasks))
    for number in range(1000):
        live.count("free", f"person {number}")
        live.count("gone", f"person {number}")
    for name in ("ana", "bob", "ana", ""):
        live.count("pilot", name)
    assert live._users == {"pilot": {"ana", "bob"}}
    assert (live.people("pilot"), live.people("free")) == ({"ana", "bob"}, frozenset())
