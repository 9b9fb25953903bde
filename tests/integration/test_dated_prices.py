"""Against PostgreSQL: a price with a date holds from its day on, without another apply and without an approval."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime

import msgspec
import pytest
from tests.integration.test_placement_over_time import services
from tests.integration.test_release import BASE, Conn, FixedClock, clock, conn, signing

from groundplan.api.context import Services
from groundplan.api.watch import dated_prices
from groundplan.blueprint.artifact import verify_signature
from groundplan.blueprint.model import Rates
from groundplan.catalog import model as doc
from groundplan.catalog.workspace import Workspace
from groundplan.core import audit
from groundplan.core.errors import NotFound, Problem
from groundplan.core.money import PICO
from groundplan.release import publish, service, store
from groundplan.release.compile.pricing import declared_or_listed
from groundplan.release.publish import Signing
from groundplan.release.units import workload_digest

__all__ = ["clock", "conn", "services", "signing"]

EURO = """\
---
kind: deployment
name: euro
site: rack
model: acme/euro
url: http://127.0.0.1:9/v2
price: {input: 1 EUR/Mtok, output: 2 EUR/Mtok}
"""
RATES = "{from: 2026-01-01, rate: 1.10 USD}, {from: 2026-12-01, rate: 1.20 USD}"
PRICES = """\
price:
- {input: 1 USD/Mtok, output: 2 USD/Mtok}
- {from: 2026-12-01, input: 3 USD/Mtok, output: 4 USD/Mtok}
"""
FILES = {
    "a.yaml": BASE.replace("price: {input: 1 USD/Mtok, output: 2 USD/Mtok}\n", PRICES).replace(
        "approvals: {parts: []}\n",
        f"approvals: {{parts: []}}\ncurrencies: {{EUR: {{source: the bank, rates: [{RATES}]}}}}\n",
    )
    + EURO
}


def inputs(conn: Conn) -> dict[str, int]:
    current = service.current(conn)
    assert current is not None
    return {each.name: each.rates.input for each in current.blueprint.deployments}


def test_a_price_begins_on_its_day_with_a_signed_blueprint_of_the_same_content(
    conn: Conn, signing: Signing, clock: FixedClock
) -> None:
    service.genesis(conn, signing, FILES)
    old = service.current(conn)
    assert old is not None and inputs(conn) == {"own": PICO, "euro": PICO * 11 // 10}
    begins = {each.name: (each.rates.then_from, each.rates.then) for each in old.blueprint.deployments}
    assert {name: (day, then.input) for name, (day, then) in begins.items() if then is not None} == {
        "own": ("2026-12-01", 3 * PICO), "euro": ("2026-12-01", PICO * 12 // 10),
    }  # fmt: skip
    clock.time = datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC)
    assert service.reprice(conn, signing).number is None
    clock.time = datetime(2026, 12, 1, tzinfo=UTC)
    done = service.reprice(conn, signing)
    assert (done.number, done.pending) == (2, ())
    assert inputs(conn) == {"own": 3 * PICO, "euro": PICO * 12 // 10}
    assert service.reprice(conn, signing).number is None, "looking twice is looking once"
    new, stored = service.current(conn), store.newest_blueprint(conn)
    assert new is not None and stored is not None
    assert verify_signature(stored.body, stored.signature, signing.key.public_key().public_bytes_raw())
    (one,), (two,) = old.blueprint.workloads, new.blueprint.workloads
    assert workload_digest(old.blueprint, one) == workload_digest(new.blueprint, two)
    assert (stored.created_by, "the price of own that begins" in stored.reason) == (audit.SYSTEM, True)
    assert one.deployments == two.deployments == ["own", "euro"], "where calls go is for whoever applies"
    assert service.apply(conn, signing, "operator", FILES).number == 3
    assert inputs(conn) == {"own": 3 * PICO, "euro": PICO * 12 // 10}


def test_a_price_begins_also_where_what_is_served_breaks_a_rule_of_a_new_release(
    conn: Conn, signing: Signing, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.genesis(conn, signing, FILES)
    monkeypatch.setattr(publish, "verify_blueprint", lambda _: [Problem("a new rule", "placement_invalid", "Mend it.")])
    clock.time = datetime(2026, 12, 1, tzinfo=UTC)
    assert service.reprice(conn, signing).number == 2 and inputs(conn)["own"] == 3 * PICO


def test_going_back_undoes_what_somebody_changed_also_after_a_price_began(
    conn: Conn, signing: Signing, clock: FixedClock
) -> None:
    service.genesis(conn, signing, FILES)
    more = {"a.yaml": FILES["a.yaml"].replace("200 USD/month", "300 USD/month")}
    assert service.apply(conn, signing, "operator", more).number == 2
    clock.time = datetime(2026, 12, 1, tzinfo=UTC)
    assert service.reprice(conn, signing).number == 3
    assert service.rollback(conn, signing, "operator").number == 4
    four = service.current(conn)
    assert four is not None and four.blueprint.rollback_of == 1
    assert [each.limit for each in four.blueprint.budgets] == [200 * PICO]
    assert inputs(conn) == {"own": 3 * PICO, "euro": PICO * 12 // 10}, "at today's prices"
    assert service.rollback(conn, signing, "operator").number == 5, "and what was undone is there again"
    five = service.current(conn)
    assert five is not None and [each.limit for each in five.blueprint.budgets] == [300 * PICO]


def test_where_only_a_price_began_there_is_nothing_to_go_back_to(
    conn: Conn, signing: Signing, clock: FixedClock
) -> None:
    service.genesis(conn, signing, FILES)
    clock.time = datetime(2026, 12, 1, tzinfo=UTC)
    assert service.reprice(conn, signing).number == 2
    with pytest.raises(NotFound, match="nothing to go back to"):
        service.rollback(conn, signing, "operator")


def test_a_blueprint_that_knows_no_price_to_come_gets_it_on_its_day(
    conn: Conn, signing: Signing, clock: FixedClock
) -> None:
    service.genesis(conn, replace(signing, prices=declared_or_listed), FILES)
    clock.time = datetime(2026, 12, 1, tzinfo=UTC)
    assert service.reprice(conn, signing).number == 2
    assert inputs(conn) == {"own": 3 * PICO, "euro": PICO * 12 // 10}


def test_a_list_that_was_changed_waits_for_an_apply(conn: Conn, signing: Signing, clock: FixedClock) -> None:
    service.genesis(conn, signing, FILES)

    def dearer(workspace: Workspace, deployment: doc.DeploymentDoc, day: date) -> Rates | Problem:
        found = declared_or_listed(workspace, deployment, day)
        return msgspec.structs.replace(found, output=found.output + 1) if isinstance(found, Rates) else found

    clock.time = datetime(2026, 12, 1, tzinfo=UTC)
    assert service.reprice(conn, replace(signing, prices=dearer)).number is None
    assert service.apply(conn, replace(signing, prices=dearer), "operator", FILES).number == 2


def test_the_day_is_looked_at_beside_the_requests(services: Services, clock: FixedClock) -> None:
    looking = dated_prices.DatedPrices(services)
    assert looking.apply_due_prices() is None, "nothing is served yet"
    with services.transaction() as conn:
        services.releases.genesis(conn, FILES)
    assert looking.apply_due_prices() is None
    clock.time = datetime(2026, 12, 1, 0, 0, 3, tzinfo=UTC)
    assert looking.apply_due_prices() == 2
    assert looking.apply_due_prices() is None
    with services.transaction() as conn:
        assert inputs(conn) == {"own": 3 * PICO, "euro": PICO * 12 // 10}
