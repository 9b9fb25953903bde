"""Which limits cover a call: every cover, each kind of use, each time; and nobody else's."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import product

import pytest
from msgspec.structs import replace

from groundplan.blueprint.model import Deployment, Limit, ProviderKey, Workload
from groundplan.economics.price import FREE
from groundplan.gateway.budgets.leases import CONCURRENT, COST, REQUESTS, TOKENS, Quota, Slices, is_quota
from groundplan.gateway.budgets.limit_book import build_limit_book
from groundplan.gateway.budgets.periods import current_key
from groundplan.ledger.model import Charge

CALLER = ("company", "team/core", "workload/assistant", "key/k1", "key", "user/ana@acme.example", "user")
UPSTREAM = ("deployment/one", "model/scripted/one")
TIMES = ("minute", "hour", "day", "month")
KINDS = (*product((REQUESTS, TOKENS, COST), TIMES), (CONCURRENT, "now"))
PEOPLE = {"ana@acme.example": "p1", "ben@acme.example": "p2"}
AT = datetime(2026, 11, 25, 14, 33, tzinfo=UTC).timestamp()


def workload(name: str, team: str | None) -> Workload:
    return Workload(
        name=name, purpose="t", stage="pilot", sensitivity="internal", audience="employees", residency=[], team=team,
        deployments=["one"], budgets=[],
    )  # fmt: skip


def deployment(name: str) -> Deployment:
    return Deployment(
        name=name, site="s", model=f"scripted/{name}", upstream_model=name, url="http://127.0.0.1:1/v1", rates=FREE
    )


def covering_quotas(limit: Limit, name: str, team: str | None, key: str, person: str, place: str) -> list[Quota]:
    """What covers a call of somebody, and its attempt at `place`."""
    book = build_limit_book([limit], [], [])
    assert book is not None
    return [
        *book.caller_quotas(workload(name, team), key, person, PEOPLE).quotas,
        *book.deployment_quotas(deployment(place)),
    ]


@pytest.mark.parametrize("cover", [*CALLER, *UPSTREAM])
def test_every_cover_counts_every_kind_of_use_in_every_time_and_is_never_exceeded(cover: str) -> None:
    for kind, period in KINDS:
        limit = Limit(name="most", covers=cover, type=kind, amount=3, period=period)
        (quota,) = covering_quotas(limit, "assistant", "core", "k1", "p1", "one")
        assert (quota.type, quota.period, quota.limit, quota.covers) == (kind, period, 3, cover)
        held, span = Slices(), current_key(quota.period, "", "UTC", AT)
        held.add_grant(quota.name, span, quota.limit)
        taken = [held.reserve((bytes([n]), 0), [Charge(quota.name, span, 1)]) is None for n in range(5)]
        assert taken == [True] * 3 + [False] * 2


@pytest.mark.parametrize("cover", [*CALLER[1:], *UPSTREAM])
def test_somebody_else_is_not_covered_or_has_a_count_of_their_own(cover: str) -> None:
    limit = Limit(name="most", covers=cover, type=REQUESTS, amount=3, period="day")
    mine = covering_quotas(limit, "assistant", "core", "k1", "p1", "one")
    theirs = covering_quotas(limit, "other", None, "k2", "p2", "two")
    if cover in ("key", "user"):
        assert len(mine) == len(theirs) == 1 and mine[0].name != theirs[0].name
    else:
        assert len(mine) == 1 and theirs == []
    assert covering_quotas(limit, "assistant", "core", "k1", "", "one") == ([] if cover.startswith("user") else mine)
    nobodys = covering_quotas(limit, "assistant", "core", "", "", "one")
    assert nobodys == ([] if cover.startswith(("user", "key")) else mine), "what nobody asked for, as a shadow is"


def test_the_calls_of_a_day_are_one_count_for_all_who_call_a_workload_and_none_for_what_nobody_asked() -> None:
    counted, other = replace(workload("assistant", None), calls_per_day=7), workload("other", None)
    book = build_limit_book([], [], [counted, other])
    assert book is not None and build_limit_book([], [], [other]) is None
    (quota,) = book.caller_quotas(counted, "k1", "p1", PEOPLE).quotas
    assert book.caller_quotas(counted, "k2", "", PEOPLE).quotas == (quota,)
    assert (quota.type, quota.period, quota.limit, quota.covers) == (REQUESTS, "day", 7, "workload/assistant")
    assert book.limit_amounts == {(quota.family, "day"): 7} and is_quota(quota.name)
    assert (
        book.caller_quotas(counted, "", "", PEOPLE).quotas == () == book.caller_quotas(other, "k1", "", PEOPLE).quotas
    )


def test_what_covers_a_call_is_counted_in_the_periods_of_its_time() -> None:
    kinds = ((TOKENS, "minute"), (REQUESTS, "day"), (CONCURRENT, "now"), (COST, "month"))
    limits = [Limit(name=k, covers="company", type=k, amount=9, period=p) for k, p in kinds]
    book = build_limit_book(limits, [], [])
    assert book is not None
    covering = book.caller_quotas(workload("assistant", None), "k1", "", PEOPLE)
    for at in (AT, AT + 59.999, AT + 60, AT - 60, AT + 86_400 * 6):  # also a clock that is set back
        now = covering.periods_at(at)
        assert now.since <= at < now.until
        charges = [*now.call_charges, *now.attempt_charges(7, 8)]
        expected = {REQUESTS: 1, CONCURRENT: 1, TOKENS: 7, COST: 8}
        assert charges == [
            Charge(quota.name, current_key(quota.period, "", "UTC", at), expected[quota.type])
            for quota in covering.quotas
        ]
        assert [(told.quota.type, told.key[1]) for same in now.reported for told in same] == [
            (REQUESTS, current_key("day", "", "UTC", at)),
            (TOKENS, current_key("minute", "", "UTC", at)),
        ]
        assert all(at < told.end for same in now.reported for told in same)
    assert covering.periods_at(AT) is covering.periods_at(AT + 1), "looked up once in a minute"


def test_what_is_declared_for_one_key_of_a_line_holds_for_all_of_it_as_it_grows() -> None:
    """A key is declared by the id that it has now, which may be one that it was rotated to already."""
    second = Limit(name="second", covers="key/k2", type=REQUESTS, amount=3, period="day")
    third = Limit(name="third", covers="key/k3", type=REQUESTS, amount=3, period="day")
    book = build_limit_book([second, third], [], [])
    assert book is not None
    task = workload("assistant", None)

    def covering(key: str, people: dict[str, str], *line: str) -> list[str]:
        return [quota.limit_name for quota in book.caller_quotas(task, key, "", people, frozenset(line)).quotas]

    assert covering("k1", {}) == [] == covering("k9", {}, "k8", "k9")
    assert covering("k2", {}) == ["second"]
    assert covering("k1", {}, "k1", "k2") == ["second"], "another policy, so other people"
    assert covering("k1", {}, "k1", "k2", "k3") == ["second", "third"]
    assert book.limit_amounts == {("requests/second", "day"): 3, ("requests/third", "day"): 3}, (
        "by which what is held is cut"
    )


def test_of_people_only_those_are_looked_for_whom_a_limit_names() -> None:
    """There may be a hundred thousand, and after each change of policy every caller is looked up anew."""

    class Many(dict[str, str]):
        def __iter__(self) -> Iterator[str]:
            raise AssertionError("all of them are gone through")

        items = values = keys = __iter__  # type: ignore[assignment]

    limits = [Limit(name="most", covers="user/ana@acme.example", type=REQUESTS, amount=3, period="day")]
    book = build_limit_book(limits, [], [])
    assert book is not None
    people = Many({"ana@acme.example": "p1", "ben@acme.example": "p2"})
    asked = [book.caller_quotas(workload("assistant", None), "k", person, people) for person in ("p1", "p2", "")]
    assert [len(each.quotas) for each in asked] == [1, 0, 0]
    moved = Many({"ana@acme.example": "p2"})
    asked = [book.caller_quotas(workload("assistant", None), "k", person, moved) for person in ("p1", "p2", "")]
    assert [len(each.quotas) for each in asked] == [0, 1, 0], "who has the address by now"


def test_a_key_at_a_provider_has_its_count_wherever_it_stands() -> None:
    """What is put before it, or taken away, gives it nobody else's."""
    first, second, other = (ProviderKey(key=f"env:{name}", requests=[(3, "day")]) for name in ("A", "B", "C"))

    def counted(*keys: ProviderKey) -> list[str]:
        place = replace(deployment("one"), keys=list(keys))
        book = build_limit_book([], [place], [])
        assert book is not None
        return [book.provider_key_quotas(place, index)[0].name for index in range(len(keys))]

    one, two = counted(first, second)
    assert (counted(second, first), counted(second)) == ([two, one], [two])
    assert len({one, two, *counted(other)}) == 3
    assert is_quota(one) and "env" not in one
    words = replace(deployment("one"), keys=[ProviderKey(key="env:A", tokens=[(9, "minute")])])
    book = build_limit_book([], [words], [])
    assert book is not None and book.limit_amounts == {(book.provider_key_quotas(words, 0)[0].family, "minute"): 9}
