"""Builds the arrays of `problem` from named places and workloads: rows, links between parts, and rules.

Pure and complete: nothing is priced, dropped or decided. Forbidden choices are included with their rules, so that they
can be shown, and so that relaxing a rule can be priced.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from groundplan.placement.problem import (
    BURST,
    FALLBACK,
    PRIMARY,
    TERMS,
    Indices,
    Ints,
    Options,
    Parts,
    Problem,
    RowKind,
    Rows,
    Sites,
    Tiers,
    validate,
)

_TOO_LARGE = 2**62


@dataclass(frozen=True, slots=True)
class UnitOffer:
    """Units of a resource that can be bought at a site: nodes on demand, or a reserved term."""

    name: str
    resource: str
    """of the site, or the name of a quota"""
    size: int
    price: int
    """picodollars a month and unit"""
    max_units: int


@dataclass(frozen=True, slots=True)
class Place:
    """A site."""

    name: str
    domain: str
    """failure domain"""
    capacity: Mapping[str, int] = field(default_factory=dict)
    """resource -> amount; a resource without capacity is not limited here"""
    opening: int = 0
    offers: tuple[UnitOffer, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """One way to run one part of a workload. `site` None: nowhere, for a burst that a level of 0 makes needless, or a
    fallback that a quota of kind `availability` may make so."""

    site: str | None
    terms: Mapping[str, int] = field(default_factory=dict)
    uses: Mapping[str, int] = field(default_factory=dict)
    """resource at the site, or name of a quota -> amount"""
    config: str = ""
    level: int = 0
    rules: tuple[str, ...] = ()
    """hard rules that forbid it, each in words without the workload's name: `residency EU`"""


@dataclass(frozen=True, slots=True)
class Piece:
    """One part of a workload: its primary load or a slice of it, its burst, its fallback; or how much a pool holds."""

    choices: tuple[Choice, ...]
    role: int = PRIMARY
    current: str | None = None
    """site where it runs today"""


@dataclass(frozen=True, slots=True)
class Job:
    """A workload."""

    name: str
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Quota:
    """A limit across sites: a provider's tokens a minute, a budget, tonnes of carbon."""

    name: str
    capacity: int
    kind: RowKind = "quota"


@dataclass(frozen=True, slots=True)
class SpreadRule:
    """A limit on how many of these workloads' primaries are in one failure domain."""

    name: str
    jobs: tuple[str, ...]
    max_primaries: int


class _RowTable:
    """The rows while they are collected; the same key is the same row."""

    def __init__(self) -> None:
        self.index: dict[tuple[str | int, ...], int] = {}
        self.names: list[str] = []
        self.kinds: list[RowKind] = []
        self.sites: list[int] = []
        self.capacities: list[int] = []

    def add(self, key: tuple[str | int, ...], name: str, kind: RowKind, site: int, capacity: int) -> int:
        if key not in self.index:
            self.index[key] = len(self.names)
            self.names.append(name)
            self.kinds.append(kind)
            self.sites.append(site)
            self.capacities.append(capacity)
        return self.index[key]


def assemble(
    places: Sequence[Place], jobs: Sequence[Job], quotas: Sequence[Quota] = (), spreads: Sequence[SpreadRule] = ()
) -> Problem:
    """The problem of these places and workloads, in their order. Raises `Invalid` as `problem.validate` does."""
    table = _RowTable()
    _add_rows(table, places, quotas)
    domains = {name: number for number, name in enumerate(dict.fromkeys(place.domain for place in places))}
    domain_of = {place.name: domains[place.domain] for place in places}
    pieces = [(number, job, piece) for number, job in enumerate(jobs) for piece in _sorted_pieces(job)]
    options, rules = _options(table, places, domain_of, pieces, spreads)
    index = {place.name: number for number, place in enumerate(places)}
    today = ((-1 if piece.current is None else index.get(piece.current, -1)) for *_, piece in pieces)
    return validate(
        Problem(
            workloads=tuple(job.name for job in jobs),
            sites=Sites(
                names=tuple(place.name for place in places),
                domain=_int32(domain_of[place.name] for place in places),
                opening=_int64(place.opening for place in places),
            ),
            parts=Parts(
                workload=_int32(number for number, *_ in pieces),
                role=np.array([piece.role for *_, piece in pieces], dtype=np.int8),
                current=_int32(today),
            ),
            options=options,
            rows=Rows(tuple(table.names), tuple(table.kinds), _int32(table.sites), _int64(table.capacities)),
            tiers=_tiers(table, places),
            rules=rules,
        )
    )


def _add_rows(table: _RowTable, places: Sequence[Place], quotas: Sequence[Quota]) -> None:
    for number, place in enumerate(places):
        for resource, amount in place.capacity.items():
            table.add(("site", place.name, resource), f"{place.name} {resource}", "capacity", number, amount)
        for offer in place.offers:
            if any(quota.name == offer.resource for quota in quotas):
                continue
            key = ("site", place.name, offer.resource)
            table.add(key, f"{place.name} {offer.resource}", "capacity", number, 0)
    for quota in quotas:
        table.add(("quota", quota.name), quota.name, quota.kind, -1, quota.capacity)


def _tiers(table: _RowTable, places: Sequence[Place]) -> Tiers:
    offers = [(place, offer) for place in places for offer in place.offers]
    return Tiers(
        names=tuple(f"{place.name} {offer.name}" for place, offer in offers),
        row=_int32(_tier_row(table, place, offer) for place, offer in offers),
        size=_int64(offer.size for _, offer in offers),
        price=_int64(offer.price for _, offer in offers),
        max_units=_int64(offer.max_units for _, offer in offers),
    )


def _tier_row(table: _RowTable, place: Place, offer: UnitOffer) -> int:
    """The row that an offer widens: a quota of its name, else its site's."""
    quota = table.index.get(("quota", offer.resource))
    return table.index["site", place.name, offer.resource] if quota is None else quota


def _options(
    table: _RowTable,
    places: Sequence[Place],
    domain_of: Mapping[str, int],
    pieces: Sequence[tuple[int, Job, Piece]],
    spreads: Sequence[SpreadRule],
) -> tuple[Options, tuple[str, ...]]:
    """All options with their rows, and the rules that exclude some of them."""
    index = {place.name: number for number, place in enumerate(places)}
    ties = [_part_links(job, piece, spreads) for _, job, piece in pieces]
    flat = [(number, job, each) for number, (_, job, piece) in enumerate(pieces) for each in piece.choices]
    uses = [_uses(table, ties[number], choice, domain_of) for number, _, choice in flat]
    rules: dict[str, int] = {}
    broken = [
        [rules.setdefault(f"{job.name}: {rule}", len(rules)) for rule in dict.fromkeys(choice.rules)]
        for _, job, choice in flat
    ]
    options = Options(
        part=_int32(number for number, *_ in flat),
        site=_int32(-1 if choice.site is None else index[choice.site] for *_, choice in flat),
        config=tuple(choice.config for *_, choice in flat),
        level=np.array([choice.level for *_, choice in flat], dtype=np.int8),
        terms=_terms([choice for *_, choice in flat]),
        row_start=_start_offsets(uses),
        row=_int32(row for each in uses for row in each),
        use=_int64(amount for each in uses for amount in each.values()),
        rule_start=_start_offsets(broken),
        rule=_int32(rule for each in broken for rule in each),
    )
    return options, tuple(rules)


def _sorted_pieces(job: Job) -> list[Piece]:
    return sorted(job.pieces, key=lambda piece: piece.role)


@dataclass(frozen=True, slots=True)
class _PartLinks:
    """The links of one part of a workload to the others, the same for all its choices."""

    job: str
    role: int
    slices: int
    """primary parts of the workload"""
    apart: bool
    """whether it has rows that keep the fallback in another failure domain"""
    burst: bool
    """whether it has rows that tie primary and burst to the same level"""
    spreads: tuple[SpreadRule, ...]


def _part_links(job: Job, piece: Piece, spreads: Sequence[SpreadRule]) -> _PartLinks:
    roles = [each.role for each in job.pieces]
    return _PartLinks(
        job=job.name,
        role=piece.role,
        slices=roles.count(PRIMARY),
        apart=FALLBACK in roles and piece.role != BURST,
        burst=BURST in roles and piece.role != FALLBACK,
        spreads=tuple(rule for rule in spreads if piece.role == PRIMARY and job.name in rule.jobs),
    )


def _uses(table: _RowTable, ties: _PartLinks, choice: Choice, domain_of: Mapping[str, int]) -> dict[int, int]:
    """Row -> amount of one choice: capacity, quotas, and the rows that link the parts of its workload."""
    found: dict[int, int] = {}
    for name, amount in choice.uses.items():
        row = table.index.get(("site", choice.site or "", name), table.index.get(("quota", name)))
        if row is not None:
            found[row] = found.get(row, 0) + amount
    if choice.site is not None:
        domain = domain_of[choice.site]
        if ties.apart:
            key = ("apart", ties.job, domain)
            row = table.index.get(key)
            if row is None:
                row = table.add(key, f"{ties.job}: fallback apart in domain {domain}", "apart", -1, ties.slices)
            found[row] = ties.slices if ties.role == FALLBACK else 1
        for rule in ties.spreads:
            found[
                table.add(("spread", rule.name, domain), rule.name, "spread", -1, rule.max_primaries * ties.slices)
            ] = 1
    if ties.burst:
        level = ("burst", ties.job, choice.level)
        row = table.index.get(level)
        if row is None:
            row = table.add(level, f"{ties.job}: burst as its level {choice.level} says", "burst", -1, 0)
        found[row] = 1 if ties.role == PRIMARY else -ties.slices
    return found


def _terms(choices: Sequence[Choice]) -> Ints:
    """[choices, terms] prices; a term that is not among `TERMS` is left out."""
    position = {term: at for at, term in enumerate(TERMS)}
    found = np.zeros((len(choices), len(TERMS)), dtype=np.int64)
    for at, choice in enumerate(choices):
        for term, price in choice.terms.items():
            if term in position:
                found[at, position[term]] = max(-_TOO_LARGE, min(_TOO_LARGE, price))
    return found


def _start_offsets(each: Sequence[Sequence[int] | Mapping[int, int]]) -> Ints:
    starts = np.zeros(len(each) + 1, dtype=np.int64)
    np.cumsum([len(one) for one in each], out=starts[1:])
    return starts


def _int32(values: Iterable[int]) -> Indices:
    return np.fromiter(values, dtype=np.int32)


def _int64(values: Iterable[int]) -> Ints:
    """[n] the numbers, limited to 2^62: `validate` refuses such large ones."""
    return np.fromiter((max(-_TOO_LARGE, min(_TOO_LARGE, value)) for value in values), dtype=np.int64)
