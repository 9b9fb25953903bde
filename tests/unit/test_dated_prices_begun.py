"""A price with a date is the worker's own matter: a call is reserved and settled at the price of its own moment, though
no newer blueprint has come."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from tests.integration.gateway_stack import blueprint, deployment, workload
from tests.unit.call_rig import call_rig

from groundplan.blueprint.model import Rates
from groundplan.core.money import PICO
from groundplan.economics.terms.split import split_cost
from groundplan.gateway.policy import dated_prices
from groundplan.gateway.policy.catalog import index
from groundplan.ledger.model import Reservation, Settlement, Usage

MIDNIGHT = datetime(2026, 12, 1, tzinfo=UTC)
OLD = Rates(input=PICO, output=2 * PICO)
NEW = Rates(input=30 * PICO, output=40 * PICO, effective="2026-12-01")
LAST = Rates(input=50 * PICO, output=60 * PICO, effective="2026-12-03")
DATED = msgspec.structs.replace(OLD, then=NEW, then_from="2026-12-01")


async def test_a_call_costs_what_it_cost_in_its_own_moment_in_reservation_and_settlement(tmp_path: Path) -> None:
    async with call_rig(tmp_path, ["one"], more={"one": {"rates": DATED}}) as rig:
        for moment in (MIDNIGHT - timedelta(milliseconds=1), MIDNIGHT):
            rig.gateway.clock.set_now(moment)  # type: ignore[attr-defined]
            assert (await rig.chat()).status == 200
        catalog = rig.gateway.live.catalog
        assert catalog is not None and catalog.number == 1, "no other blueprint came"
        records = await rig.records()
        reserved = [each for each in records if isinstance(each, Reservation)]
        settled = [each for each in records if isinstance(each, Settlement)]
        for rates, reservation, settlement in zip((OLD, NEW), reserved, settled, strict=True):
            usage = settlement.usage
            exact = -(-(usage.input * rates.input + usage.output * rates.output) // 1_000_000)
            assert usage.input and usage.output and settlement.cost == exact
            assert reservation.bound >= exact and reservation.charges[0].amount == reservation.bound
            assert split_cost(DATED, usage, exact)["output"][1] == usage.output * rates.output // 1_000_000
        assert reserved[1].bound > 10 * reserved[0].bound, "what is held is at the price of the moment, too"


def test_of_several_prices_each_begins_on_its_own_day_and_is_made_once() -> None:
    later = msgspec.structs.replace(OLD, then=NEW, then_from="2026-12-03")
    further = msgspec.structs.replace(DATED, then=msgspec.structs.replace(NEW, then=LAST, then_from="2026-12-03"))
    places = [deployment("one", 1, rates=further), deployment("two", 1, rates=later), deployment("flat", 1, rates=OLD)]
    catalog = index(blueprint(7, places, [workload("assistant", ["one", "two", "flat"])]))
    first, second = MIDNIGHT.timestamp(), MIDNIGHT.replace(day=3).timestamp()

    def inputs(now: float) -> list[int]:
        found = dated_prices.catalog_at(catalog, now)
        assert found.number == 7 and found.blueprint.number == 7
        return [each.rates.input // PICO for each in found.plans["assistant"].allowed("auto", places[0].kind)]

    assert inputs(first - 0.001) == [1, 1, 1] and dated_prices.catalog_at(catalog, first - 0.001) is catalog
    assert inputs(first) == inputs(second - 0.001) == [30, 1, 1]
    assert inputs(second) == [50, 30, 1], "also where nobody called in between, nor made a blueprint of the first"
    assert dated_prices.catalog_at(catalog, second) is dated_prices.catalog_at(catalog, second + 1e9)
    assert split_cost(further, Usage(input=3), 150 * PICO // 1_000_000)["input"] == (3, 150 * PICO // 1_000_000)
    assert split_cost(OLD, Usage(input=3), 90 * PICO // 1_000_000)["bound"], "without the date nothing explains it"
