"""Holidays and launches are declared once: part of the blueprint, of no approval, and known to every forecast."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
from tests.integration.test_api_control import WORKSPACE

from groundplan.api.cost import calendar as cost_calendar
from groundplan.blueprint.artifact import decode, encode
from groundplan.blueprint.model import Blueprint, Calendar, Launch
from groundplan.catalog.loader import load_files
from groundplan.core.errors import Invalid
from groundplan.economics.forecast.model import DAY, Series
from groundplan.release.compile.draft import compile_draft, declared_caps, declared_owners
from groundplan.release.difference import differences
from groundplan.release.units import workload_digest

CALENDAR = "calendar: {countries: [NO], holidays: 2026-12-24}\n"
LAUNCHES = "launches: [{day: 2027-01-04, factor: 0.5}, {day: 2026-12-01, factor: 2, name: campaign}]\n"
START = datetime(2026, 9, 28, tzinfo=UTC)


def declared(calendar: str = CALENDAR, launches: str = LAUNCHES) -> str:
    return WORKSPACE.replace("format: 1\n", f"format: 1\n{calendar}").replace(
        "deployments: [local]\n", f"deployments: [local]\n{launches}"
    )


def compiled(text: str) -> Blueprint:
    workspace = load_files({"acme.yaml": text})
    return compile_draft(
        workspace, None, declared_caps(workspace), declared_owners(workspace), today=date(2026, 11, 26)
    ).blueprint


def test_what_is_declared_is_in_the_blueprint_and_ends_no_approval() -> None:
    old, new = compiled(WORKSPACE), compiled(declared())
    assert new.calendar == Calendar(
        countries=["NO"],
        holidays=["2026-12-24"],
        launches=[
            Launch(workload="assistant", day="2026-12-01", factor=2.0, name="campaign"),
            Launch(workload="assistant", day="2027-01-04", factor=0.5),
        ],
    )
    assert decode(encode(new)) == new
    assert workload_digest(old, old.workloads[0]) == workload_digest(new, new.workloads[0])
    (company,) = differences(old, new)
    assert {row.field: row.new for row in company.fields} == {
        "calendar.countries": "NO",
        "calendar.holidays": "2026-12-24",
        "launches.assistant.2026-12-01": "2 times as much, campaign",
        "launches.assistant.2027-01-04": "0.5 times as much",
    }


@pytest.mark.parametrize(
    "text",
    [
        declared(calendar="calendar: {countries: [Norway]}\n"),
        declared(calendar="calendar: {holidays: [24 December]}\n"),
        declared(launches="launches: [{day: 2026-12-01, factor: 0}]\n"),
        declared(launches="launches: [{day: 2026-12-01, factor: 2}, {day: 2026-12-01, factor: 3}]\n"),
    ],
)
def test_what_is_no_day_no_country_and_no_launch_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as told:
        load_files({"acme.yaml": text})
    assert told.value.where is not None


def test_a_launch_of_one_workload_moves_a_sum_by_its_part() -> None:
    past = Series(START, DAY, (4.0,) * 60)
    rows = [
        {"day": past.at(place).date(), "workload": name, "calls": calls}
        for place in range(60)
        for name, calls in (("large", 3), ("small", 1))
    ]
    launch = Launch(workload="small", day=past.at(62).date().isoformat(), factor=5)
    known = cost_calendar.declared_days(Calendar(launches=[launch], holidays=["2026-12-24"]))
    for workload, factors in ((None, [2.0]), ("small", [5.0]), ("large", [])):
        found = cost_calendar.with_known_days(past, known, rows, workload, lambda row: float(row["calls"]))
        assert [each.factor for each in found.launches] == factors
        assert found.holidays == {"2026-12-24"}
    asked = cost_calendar.with_additions(known, [], [Launch(workload="", day="2026-12-01", factor=3)])
    found = cost_calendar.with_known_days(past, asked, rows, "large", lambda row: float(row["calls"]))
    assert [each.factor for each in found.launches] == [3.0], "what is asked for is of whatever is looked at"


def test_holidays_of_declared_countries_count_and_unknown_ones_are_told() -> None:
    past = Series(START, DAY, (4.0,) * 60)
    known = cost_calendar.declared_days(Calendar(countries=["NO", "XX"]))
    assert known.countries == ("NO",)
    (note,) = known.notes
    assert "'XX' are not known, so that they are left out" in note
    assert {"2026-12-25", "2027-01-01"} <= cost_calendar.with_known_days(past, known, [], None, lambda _: 0.0).holidays
    with pytest.raises(Invalid) as told:
        cost_calendar.with_additions(known, ["YY"], [])
    assert told.value.code == "country_unknown"
    assert cost_calendar.with_additions(known, ["se"], []).countries == ("NO", "SE")
