"""Which declared limits cover a call, and which an attempt at a deployment. Pure; built once for each blueprint.

`call.limits` takes from them; `leases` has what is left of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from groundplan.blueprint.model import Deployment, Limit, Workload
from groundplan.gateway.budgets.leases import CONCURRENT, MEASURED, REQUESTS, TOKENS, Key, Quota
from groundplan.gateway.budgets.periods import ENDLESS, spans
from groundplan.ledger.model import Charge

_REMEMBERED = 10_000
DAY_CALLS = "#calls"
"""Suffix of the name of a quota that is a workload's `calls_per_day`; no limit has such a name."""


@dataclass(frozen=True, slots=True)
class ReportedLimit:
    """A limit in a period, as callers see it in headers."""

    openai_headers: bytes
    """OpenAI's header lines, with placeholders for what is left and the time until the end of the period."""
    anthropic_headers: bytes
    """Anthropic's header lines, with a placeholder for what is left."""
    quota: Quota
    key: Key
    """(quota name, period)"""
    end: float
    """End of the period, seconds since the epoch; 0: never."""


@dataclass(frozen=True, slots=True)
class QuotaPeriods:
    """The current periods of the quotas that cover a call, from `since` until `until` (seconds since the epoch)."""

    since: float
    until: float
    call_charges: list[Charge]
    """One charge of each quota that the whole call uses. Shared by all calls of that time: never changed."""
    attempt_quotas: tuple[tuple[str, str, bool], ...]
    """(quota, period, whether it counts tokens) of each quota that every attempt uses."""
    reported: tuple[tuple[ReportedLimit, ...], ...]
    """The limits that headers report, grouped by their header word; no group is empty."""

    def attempt_charges(self, tokens: int, amount: int) -> list[Charge]:
        """Return the charges of an attempt that uses so many tokens and picodollars."""
        return [Charge(name, period, tokens if counts else amount) for name, period, counts in self.attempt_quotas]


NO_QUOTA_PERIODS = QuotaPeriods(0.0, 0.0, [], (), ())
"""For calls that no limit covers."""


class CoveringQuotas:
    """The quotas that cover a call, whichever deployment serves it."""

    __slots__ = ("_current", "counts_tokens", "per_attempt", "per_call", "quotas")

    def __init__(self, quotas: Iterable[Quota]) -> None:
        self.quotas: tuple[Quota, ...] = tuple(sorted(quotas, key=lambda quota: quota.type in MEASURED))
        """Quotas that each attempt uses (`MEASURED`) come last."""
        self.per_call = tuple(quota for quota in self.quotas if quota.type not in MEASURED)
        """Quotas of which the whole call uses one: requests, concurrent calls."""
        self.per_attempt = self.quotas[len(self.per_call) :]
        self.counts_tokens = any(quota.type == TOKENS for quota in self.per_attempt)
        """Whether any of them counts tokens."""
        self._current = NO_QUOTA_PERIODS

    def periods_at(self, now: float) -> QuotaPeriods:
        """Return their periods at `now`, looked up again only when the first of these ends."""
        known = self._current
        if not known.since <= now < known.until:
            known = self._current = self._periods(now)
        return known

    def _periods(self, now: float) -> QuotaPeriods:
        found = spans([(quota.period, "", "UTC") for quota in self.quotas], now)
        keys = [key for key, _, _ in found]
        once = [Charge(quota.name, key, 1) for quota, key in zip(self.per_call, keys, strict=False)]
        later = zip(self.per_attempt, keys[len(once) :], strict=True)
        return QuotaPeriods(
            max(start for _, start, _ in found),
            min(end for _, _, end in found),
            once,
            tuple((quota.name, key, quota.type == TOKENS) for quota, key in later),
            tuple(
                reported
                for type in HEADER_WORDS
                if (
                    reported := tuple(
                        reported_limit(quota, key, end)
                        for quota, (key, _, end) in zip(self.quotas, found, strict=True)
                        if quota.type == type
                    )
                )
            ),
        )


HEADER_WORDS = {REQUESTS: b"requests", TOKENS: b"tokens"}
"""Types of limits that headers report, with their word in header names."""
_ANTHROPIC_HEADERS = b"anthropic-ratelimit-%b-limit: %d\r\nanthropic-ratelimit-%b-remaining: %%d\r\n"
_OPENAI_HEADERS = b"x-ratelimit-limit-%b: %d\r\nx-ratelimit-remaining-%b: %%d\r\nx-ratelimit-reset-%b: %%b\r\n"


def reported_limit(quota: Quota, period: str, end: float) -> ReportedLimit:
    """Return the headers of a quota in a period that ends at `end`, in seconds since the epoch."""
    word, endless = HEADER_WORDS[quota.type], period in ENDLESS
    reset = b"" if endless else _reset(word, end)
    lines = _ANTHROPIC_HEADERS % (word, quota.limit, word) + reset
    return ReportedLimit(
        _OPENAI_HEADERS % (word, quota.limit, word, word), lines, quota, (quota.name, period), 0.0 if endless else end
    )


def _reset(word: bytes, end: float) -> bytes:
    return (
        f"anthropic-ratelimit-{word.decode()}-reset: {datetime.fromtimestamp(end, UTC):%Y-%m-%dT%H:%M:%SZ}\r\n".encode()
    )


@dataclass(slots=True)
class LimitBook:
    """The limits of one blueprint by what they cover."""

    limits_by_cover: dict[str, tuple[Limit, ...]]
    """Limits by what they cover; `user` and `key` are those of each user and key."""
    needs_live_policy: bool
    """Whether limits cover people by e-mail address or keys by id, which need live policy to resolve."""
    covers_deployments: bool = True
    """Whether limits cover deployments or models."""
    user_covers: Sequence[str] = ()
    """Covers that name people by e-mail address: few are named, while there may be very many people."""
    key_ids: frozenset[str] = frozenset()
    """Ids of the keys that limits name."""
    daily_calls: Mapping[str, Quota] = field(default_factory=dict)
    """By workload, how many calls its callers may make a day, where that is declared."""
    limit_amounts: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """(`Quota.family`, period) -> declared amount."""
    _quotas_by_caller: dict[tuple[str, str, str], CoveringQuotas] = field(default_factory=dict)
    _quotas_by_deployment: dict[tuple[str, str, str], tuple[Quota, ...]] = field(default_factory=dict)
    _people: Mapping[str, str] | None = None

    def caller_quotas(
        self,
        workload: Workload,
        key: str,
        person: str,
        people: Mapping[str, str],
        line: frozenset[str] = frozenset(),
        *,
        within: bool = False,
    ) -> CoveringQuotas:
        """Return the quotas that cover a call whichever deployment serves it: of company, team, workload, key and user.

        `key` and `person` are ids, `people` the ids of active people by e-mail address, `line` those of all keys that
        `key` was rotated to. A call without a key and a call `within` another one do not count as calls of a day; the
        latter does not count as concurrent either.
        """
        if self.needs_live_policy and people is not self._people:
            self._quotas_by_caller.clear()
            self._people = people
        cache_key = (f"#{workload.name}" if within else workload.name, key, person)
        found = self._quotas_by_caller.get(cache_key)
        if found is None:
            if len(self._quotas_by_caller) >= _REMEMBERED:
                self._quotas_by_caller.clear()
            found = self._quotas_by_caller[cache_key] = self._caller_quotas(
                workload, key, person, people, line, within=within
            )
        return found

    def _caller_quotas(
        self,
        workload: Workload,
        key: str,
        person: str,
        people: Mapping[str, str],
        line: frozenset[str],
        *,
        within: bool,
    ) -> CoveringQuotas:
        covers = ["company", f"workload/{workload.name}"]
        covers += [f"key/{id}" for id in sorted(self.key_ids & (line | {key} if line else {key}))]
        covers += [f"team/{workload.team}"] if workload.team else []
        if person:
            covers += [cover for cover in self.user_covers if people.get(cover.removeprefix("user/")) == person]
        each = [(cover, who) for cover, who in (("key", key), ("user", person)) if who]
        found_calls = self.daily_calls.get(workload.name) if key and not within else None
        covering = [*(() if found_calls is None else (found_calls,)), *self._quotas(covers, each)]
        return CoveringQuotas(q for q in covering if not (within and q.type == CONCURRENT))

    def deployment_quotas(self, deployment: Deployment) -> tuple[Quota, ...]:
        """Return the quotas that cover an attempt at this deployment."""
        if not self.covers_deployments:
            return ()
        cache_key = ("", deployment.name, deployment.model)
        found = self._quotas_by_deployment.get(cache_key)
        if found is None:
            covers = [f"deployment/{deployment.name}", f"model/{deployment.model}"]
            found = self._quotas_by_deployment[cache_key] = tuple(self._quotas(covers, []))
        return found

    def provider_key_quotas(self, deployment: Deployment, index: int) -> tuple[Quota, ...]:
        """Return the quotas of one of a deployment's keys at its provider."""
        cache_key = ("#", deployment.name, str(index))
        found = self._quotas_by_deployment.get(cache_key)
        if found is None:
            key, limit_name = deployment.keys[index], f"{deployment.name}#{index}"
            name = f"{deployment.name}#{key.fingerprint}"
            each = [(REQUESTS, most, period) for most, period in key.requests]
            each += [(TOKENS, most, period) for most, period in key.tokens]
            covers = f"key {index + 1} of deployment/{deployment.name}"
            found = self._quotas_by_deployment[cache_key] = tuple(
                Quota(f"{t}/{name}", t, m, p, limit_name, covers) for t, m, p in each
            )
        return found

    def _quotas(self, covers: Iterable[str], each: Iterable[tuple[str, str]]) -> Iterable[Quota]:
        for cover in covers:
            for limit in self.limits_by_cover.get(cover, ()):
                yield _quota(limit, f"{limit.type}/{limit.name}")
        for cover, who in each:
            for limit in self.limits_by_cover.get(cover, ()):
                yield _quota(limit, f"{limit.type}/{limit.name}/{who}")


def _quota(limit: Limit, name: str) -> Quota:
    return Quota(name, limit.type, limit.amount, limit.period, limit.name, limit.covers)


def _daily_calls_quota(workload: str, most: int) -> Quota:
    return Quota(f"{REQUESTS}/{workload}{DAY_CALLS}", REQUESTS, most, "day", workload, f"workload/{workload}")


def build_limit_book(
    limits: Sequence[Limit], deployments: Sequence[Deployment], workloads: Sequence[Workload]
) -> LimitBook | None:
    """Return the book of a blueprint; None where it declares no limit."""
    calls = {
        each.name: _daily_calls_quota(each.name, each.calls_per_day)
        for each in workloads
        if each.calls_per_day is not None
    }
    if not limits and not calls and not any(key.requests or key.tokens for d in deployments for key in d.keys):
        return None
    by_cover: dict[str, tuple[Limit, ...]] = {}
    for limit in limits:
        by_cover[limit.covers] = (*by_cover.get(limit.covers, ()), limit)
    users = tuple(cover for cover in by_cover if cover.startswith("user/"))
    keys = frozenset(cover.removeprefix("key/") for cover in by_cover if cover.startswith("key/"))
    on_places = any(cover.startswith(("deployment/", "model/")) for cover in by_cover)
    book = LimitBook(by_cover, bool(users or keys), on_places, users, keys, calls)
    declared = [*calls.values()]
    declared += [_quota(limit, f"{limit.type}/{limit.name}") for limit in limits]
    declared += [
        quota
        for each in deployments
        for index in range(len(each.keys))
        for quota in book.provider_key_quotas(each, index)
    ]
    return replace(book, limit_amounts={(quota.family, quota.period): quota.limit for quota in declared})
