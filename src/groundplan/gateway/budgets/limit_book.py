"""Which declared limits cover a call, and which an attempt at a deployment. Pure; made once for each blueprint.

Taking from them is `limits`; what is left of them is `leases`.
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
"""How the name of a quota ends that is a workload's `calls_per_day`; no limit has such a name."""


@dataclass(frozen=True, slots=True)
class Told:
    """A limit in a period, as callers are told of it."""

    lines: bytes
    """Header lines, as OpenAI has them, but for what is left and the time until its end."""
    anthropics: bytes
    """The same as Anthropic has them, but for what is left."""
    quota: Quota
    key: Key
    """Its name, and the period."""
    end: float
    """0: never."""


@dataclass(frozen=True, slots=True)
class Spans:
    """The periods that what covers a call is in, from `since` until `until` (seconds since the epoch)."""

    since: float
    until: float
    once: list[Charge]
    """One of each that the whole call uses. Shared by all calls of that time: nobody changes it."""
    measured: tuple[tuple[str, str, bool], ...]
    """(quota, period, whether it counts tokens) of what each attempt uses."""
    told: tuple[tuple[Told, ...], ...]
    """What a caller is told about, apart for each word for it, one at least."""

    def charges(self, tokens: int, amount: int) -> list[Charge]:
        """What an attempt uses of each that is measured, of so many tokens and picodollars."""
        return [Charge(name, period, tokens if counts else amount) for name, period, counts in self.measured]


NO_SPANS = Spans(0.0, 0.0, [], (), ())
"""Of what nothing covers."""


class Covering:
    """What covers a call whoever serves it."""

    __slots__ = ("_spans", "measured", "once", "quotas", "tokens")

    def __init__(self, quotas: Iterable[Quota]) -> None:
        self.quotas: tuple[Quota, ...] = tuple(sorted(quotas, key=lambda quota: quota.type in MEASURED))
        """What each attempt uses (`MEASURED`) comes last."""
        self.once = tuple(quota for quota in self.quotas if quota.type not in MEASURED)
        """What the whole call uses one of: requests, concurrent calls."""
        self.measured = self.quotas[len(self.once) :]
        self.tokens = any(quota.type == TOKENS for quota in self.measured)
        """Some count tokens."""
        self._spans = NO_SPANS

    def at(self, now: float) -> Spans:
        """Their periods at `now`, looked up again only when the first of these ends."""
        known = self._spans
        if not known.since <= now < known.until:
            known = self._spans = self._looked_up(now)
        return known

    def _looked_up(self, now: float) -> Spans:
        found = spans([(quota.period, "", "UTC") for quota in self.quotas], now)
        keys = [key for key, _, _ in found]
        once = [Charge(quota.name, key, 1) for quota, key in zip(self.once, keys, strict=False)]
        later = zip(self.measured, keys[len(once) :], strict=True)
        return Spans(
            max(start for _, start, _ in found),
            min(end for _, _, end in found),
            once,
            tuple((quota.name, key, quota.type == TOKENS) for quota, key in later),
            tuple(
                told
                for type in TOLD
                if (
                    told := tuple(
                        told_of(quota, key, end)
                        for quota, (key, _, end) in zip(self.quotas, found, strict=True)
                        if quota.type == type
                    )
                )
            ),
        )


TOLD = {REQUESTS: b"requests", TOKENS: b"tokens"}
"""Of which types of limits a caller is told what is left, in the words of headers."""
_ANTHROPICS = b"anthropic-ratelimit-%b-limit: %d\r\nanthropic-ratelimit-%b-remaining: %%d\r\n"
_LINES = b"x-ratelimit-limit-%b: %d\r\nx-ratelimit-remaining-%b: %%d\r\nx-ratelimit-reset-%b: %%b\r\n"


def told_of(quota: Quota, period: str, end: float) -> Told:
    """What is told of a quota in a period that ends at `end`, in seconds since the epoch."""
    word, endless = TOLD[quota.type], period in ENDLESS
    reset = b"" if endless else _reset(word, end)
    lines = _ANTHROPICS % (word, quota.limit, word) + reset
    return Told(_LINES % (word, quota.limit, word, word), lines, quota, (quota.name, period), 0.0 if endless else end)


def _reset(word: bytes, end: float) -> bytes:
    return (
        f"anthropic-ratelimit-{word.decode()}-reset: {datetime.fromtimestamp(end, UTC):%Y-%m-%dT%H:%M:%SZ}\r\n".encode()
    )


@dataclass(slots=True)
class LimitBook:
    """The limits of one blueprint by what they cover."""

    by_cover: dict[str, tuple[Limit, ...]]
    """What is covered -> its limits; `user` and `key` are those of each."""
    live: bool
    """Some cover people by e-mail address or keys by their ids, of which live policy knows who they are."""
    on_places: bool = True
    """Some cover deployments or models."""
    users: Sequence[str] = ()
    """What it has of people by e-mail address: few are named, and there may be very many."""
    keys: frozenset[str] = frozenset()
    """What it has of keys, by their ids."""
    calls: Mapping[str, Quota] = field(default_factory=dict)
    """By workload how many calls its callers may make a day, where that is declared."""
    most: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """(`Quota.family`, period) -> what is declared of it."""
    _callers: dict[tuple[str, str, str], Covering] = field(default_factory=dict)
    _places: dict[tuple[str, str, str], tuple[Quota, ...]] = field(default_factory=dict)
    _people: Mapping[str, str] | None = None

    def of_caller(
        self,
        workload: Workload,
        key: str,
        person: str,
        people: Mapping[str, str],
        line: frozenset[str] = frozenset(),
        *,
        within: bool = False,
    ) -> Covering:
        """What covers a call whoever serves it: company, team, workload, key and user.

        `key` and `person` are ids, `people` the ids of active people by e-mail address, `line` those of all keys that
        `key` was rotated to. What nobody asked for is none of the calls of a day: a call without a key, and one
        `within` another one, which is not one more at the same time either.
        """
        if self.live and people is not self._people:
            self._callers.clear()
            self._people = people
        asked = (f"#{workload.name}" if within else workload.name, key, person)
        found = self._callers.get(asked)
        if found is None:
            if len(self._callers) >= _REMEMBERED:
                self._callers.clear()
            found = self._callers[asked] = self._covering(workload, key, person, people, line, within=within)
        return found

    def _covering(
        self,
        workload: Workload,
        key: str,
        person: str,
        people: Mapping[str, str],
        line: frozenset[str],
        *,
        within: bool,
    ) -> Covering:
        covers = ["company", f"workload/{workload.name}"]
        covers += [f"key/{id}" for id in sorted(self.keys & (line | {key} if line else {key}))]
        covers += [f"team/{workload.team}"] if workload.team else []
        if person:
            covers += [cover for cover in self.users if people.get(cover.removeprefix("user/")) == person]
        each = [(cover, who) for cover, who in (("key", key), ("user", person)) if who]
        found_calls = self.calls.get(workload.name) if key and not within else None
        covering = [*(() if found_calls is None else (found_calls,)), *self._quotas(covers, each)]
        return Covering(q for q in covering if not (within and q.type == CONCURRENT))

    def of_deployment(self, deployment: Deployment) -> tuple[Quota, ...]:
        """What covers an attempt there."""
        if not self.on_places:
            return ()
        asked = ("", deployment.name, deployment.model)
        found = self._places.get(asked)
        if found is None:
            covers = [f"deployment/{deployment.name}", f"model/{deployment.model}"]
            found = self._places[asked] = tuple(self._quotas(covers, []))
        return found

    def of_key(self, deployment: Deployment, index: int) -> tuple[Quota, ...]:
        """What one of a deployment's keys at its provider may do."""
        asked = ("#", deployment.name, str(index))
        found = self._places.get(asked)
        if found is None:
            key, told = deployment.keys[index], f"{deployment.name}#{index}"
            name = f"{deployment.name}#{key.mark}"
            each = [(REQUESTS, most, period) for most, period in key.requests]
            each += [(TOKENS, most, period) for most, period in key.tokens]
            covers = f"key {index + 1} of deployment/{deployment.name}"
            found = self._places[asked] = tuple(Quota(f"{t}/{name}", t, m, p, told, covers) for t, m, p in each)
        return found

    def _quotas(self, covers: Iterable[str], each: Iterable[tuple[str, str]]) -> Iterable[Quota]:
        for cover in covers:
            for limit in self.by_cover.get(cover, ()):
                yield _quota(limit, f"{limit.type}/{limit.name}")
        for cover, who in each:
            for limit in self.by_cover.get(cover, ()):
                yield _quota(limit, f"{limit.type}/{limit.name}/{who}")


def _quota(limit: Limit, name: str) -> Quota:
    return Quota(name, limit.type, limit.amount, limit.period, limit.name, limit.covers)


def _calls(workload: str, most: int) -> Quota:
    return Quota(f"{REQUESTS}/{workload}{DAY_CALLS}", REQUESTS, most, "day", workload, f"workload/{workload}")


def book_of(
    limits: Sequence[Limit], deployments: Sequence[Deployment], workloads: Sequence[Workload]
) -> LimitBook | None:
    """The book of a blueprint; None where it declares no limit."""
    calls = {each.name: _calls(each.name, each.calls_per_day) for each in workloads if each.calls_per_day is not None}
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
    declared += [quota for each in deployments for index in range(len(each.keys)) for quota in book.of_key(each, index)]
    return replace(book, most={(quota.family, quota.period): quota.limit for quota in declared})
