"""Which deployments are to be asked last: those that fail in a row or too often, that said when to come back, or that
are far slower than others with the same model. One call at a time finds out whether one is well again. Pure; times are
arguments, in monotonic seconds.

Local to one worker and forgotten with it; objectives and incidents are elsewhere, and so is who is preferred among
those that are well.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from groundplan.blueprint.model import Deployment

FAILURES = 3
"""Failures in a row after which a deployment is asked last."""
LONGEST_SECONDS = 15.0
LONGEST_REST_SECONDS = 600.0
"""Most that a retry-after is believed, as of a key: after it one call finds out."""
ALONE_SECONDS = 60.0
"""The same where nobody else is left to answer: a provider's own limits are of minutes, and a pause of hours is often
garbage."""
WINDOW_SECONDS = 30.0
WINDOW_FAILURES = 5
WINDOW_SHARE = 0.5
"""Of at least `WINDOW_FAILURES`: so many of the attempts since the first failure, and it is asked last."""
SLOW_FACTOR = 3.0
"""Times the middle of its siblings with the same model."""
SLOW_LEAST_US = 100_000
"""What is faster than this is never too slow."""
SLOW_SAMPLES = 32
"""Answers before a deployment's speed is judged, and between two judgements."""
SLOW_SECONDS = 10.0
PROBE_SECONDS = 1.0
"""How long others wait for how a call ends that finds out, which is doubled with each one that has no end by then: one
that takes calls and says nothing would hold up one each second for as long as its first word is waited for."""
FORGOTTEN_SECONDS = 600.0
"""After which nothing is held any more against one that nobody has asked since it may be asked again."""


class _Window:
    """Attempts since a first failure."""

    __slots__ = ("began", "failed", "total")

    def __init__(self, began: float) -> None:
        self.began = began
        self.failed = self.total = 0


class _Rest:
    """It asked at `asked` to be left alone until `until`; from `finds_out` on one call may look where nobody else is
    left."""

    __slots__ = ("asked", "finds_out", "until")

    def __init__(self, now: float, seconds: float) -> None:
        self.asked = now
        self.until = now + min(LONGEST_REST_SECONDS, seconds)
        self.finds_out = now + min(ALONE_SECONDS, seconds)


class _Speed:
    """Microseconds until the first byte, as a moving mean."""

    __slots__ = ("count", "mean")

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0


class Turn(NamedTuple):
    """That a call is to find out about a deployment that is not well; others wait until then."""

    name: str
    until: float


class Health:
    """What is known against deployments, by name."""

    __slots__ = (
        "_declared", "_failures", "_opened", "_rests", "_streams", "_trying", "_until", "_whole", "_why", "_windows",
    )  # fmt: skip

    def __init__(self) -> None:
        self._failures: dict[str, int] = {}
        self._until: dict[str, float] = {}
        """Until when each that is not well is asked last, and then for one call at a time."""
        self._trying: dict[str, int] = {}
        """How many calls found out about each that is not well since the last one of them failed."""
        self._opened: dict[str, float] = {}
        self._why: dict[str, str] = {}
        self._windows: dict[str, _Window] = {}
        self._whole: dict[str, _Speed] = {}
        self._streams: dict[str, _Speed] = {}
        self._rests: dict[str, _Rest] = {}
        self._declared: dict[str, tuple[Any, ...]] = {}

    def order(self, deployments: Sequence[Deployment], now: float) -> list[Deployment]:
        """The same deployments, those that are cooling off last. One whose time is over keeps its place: whoever asks
        it finds out (`may_ask`)."""
        if not self._until:
            return list(deployments)
        ready: list[Deployment] = []
        cooling: list[Deployment] = []
        for deployment in deployments:
            (cooling if self._until.get(deployment.name, 0.0) > now else ready).append(deployment)
        return ready + cooling

    def due(self, deployments: Sequence[Deployment], now: float) -> Deployment | None:
        """The first whose time is over, so that one call is to find out whether it is well again."""
        for deployment in deployments:
            until = self._until.get(deployment.name)
            if until is not None and until <= now:
                return deployment
        return None

    @property
    def troubled(self) -> bool:
        """Whether anything is known against anybody."""
        return bool(self._until)

    def closed(self, name: str) -> bool:
        """Whether nothing is known against it."""
        return name not in self._until

    def fails(self, name: str) -> bool:
        """Whether the last attempt at it failed."""
        return name in self._failures

    def may_ask(self, name: str, now: float) -> bool:
        """Whether it may be asked now before others that are well: nothing is known against it, or its time is over and
        this call finds out. Others wait for how that ends, up to a second, and longer after each that did not end."""
        until = self._until.get(name)
        if until is None:
            return True
        if until > now:
            return False
        trying = self._trying.get(name, 0)
        self._trying[name] = trying + 1
        self._until[name] = now + min(LONGEST_SECONDS, PROBE_SECONDS * 2 ** min(8, trying))
        return True

    def turn(self, name: str) -> Turn | None:
        """Of a call that was just told that it may ask; None: nothing is known against it, so there is nothing to find
        out."""
        until = self._until.get(name)
        return None if until is None else Turn(name, until)

    def give_back(self, turn: Turn, now: float) -> None:
        """A call with that turn has found out nothing, as it was not sent: the next one may. Where it has, or where
        somebody else looks by now, nothing changes."""
        name, until = turn
        trying = self._trying.get(name, 0)
        if trying and self._until.get(name) == until:
            self._trying[name] = trying - 1
            self._until[name] = now
        rest = self._rests.get(name)
        if rest is not None and rest.finds_out == until:
            rest.finds_out = now

    def failed(self, name: str, now: float, rest: float | None = None) -> None:
        """An attempt failed; `rest`: seconds for which the deployment itself asked to be left alone."""
        failures = self._failures.get(name, 0) + 1
        self._failures[name] = failures
        self._trying.pop(name, None)
        window = self._windows.get(name)
        if window is None or now - window.began > WINDOW_SECONDS:
            window = self._windows[name] = _Window(now)
        window.failed += 1
        window.total += 1
        if failures >= FAILURES:
            seconds = min(LONGEST_SECONDS, 1.0 * 2 ** min(8, failures - FAILURES))
            self._open(name, now, seconds, f"{failures} failures in a row")
        elif window.failed >= WINDOW_FAILURES and window.failed >= WINDOW_SHARE * window.total:
            self._open(name, now, 1.0, f"{window.failed} of {window.total} attempts failed")
        if rest is not None and rest > 0:
            self._rests[name] = _Rest(now, rest)
            self._open(name, now, min(LONGEST_REST_SECONDS, rest), "it asked to be called later")

    def _open(self, name: str, now: float, seconds: float, why: str) -> None:
        self._opened.setdefault(name, now)
        self._until[name] = max(self._until.get(name, 0.0), now + seconds)
        self._why[name] = why

    def rests(self, name: str, now: float, *, alone: bool = False) -> float:
        """Seconds for which it asked to be left alone; `alone`: until one call may look all the same, where nobody else
        is left."""
        rest = self._rests.get(name) if self._rests else None
        if rest is None:
            return 0.0
        if rest.until <= now:
            del self._rests[name]
            return 0.0
        return max(0.0, (rest.finds_out if alone else rest.until) - now)

    def finds_out(self, name: str, now: float) -> Turn | None:
        """The turn to look whether one is well that asked to be left alone; None: this call has none. Others wait for
        how that ends, up to a second."""
        rest = self._rests.get(name)
        if rest is None or rest.finds_out > now:
            return None
        rest.finds_out = now + PROBE_SECONDS
        return Turn(name, rest.finds_out)

    def states(self, now: float) -> dict[str, str]:
        """`open` (asked last) or `half_open` (to be tried by one call) of the deployments that are not `closed`."""
        return {name: "open" if until > now else "half_open" for name, until in self._until.items()}

    def reasons(self) -> dict[str, str]:
        """Why each deployment that is not `closed` is asked last, in words."""
        return {name: self._why[name] for name in self._until}

    def succeeded(self, name: str, began: float = float("inf")) -> None:
        """An attempt that began at `began` was answered. Only one that is younger than the trouble ends it."""
        if not self._windows:
            return
        window = self._windows.get(name)
        if window is None:
            return
        window.total += 1
        self._failures.pop(name, None)
        rest = self._rests.get(name)
        if rest is not None:
            if began < rest.asked:
                return  # since then it has asked to be left alone
            del self._rests[name]
        if name in self._until and began >= self._opened[name]:
            self._close(name)

    def _close(self, name: str) -> None:
        for book in (self._failures, self._until, self._trying, self._opened, self._why, self._windows):
            book.pop(name, None)

    def declare(self, deployments: Iterable[Deployment]) -> set[str]:
        """What there is from now on: nothing is known of what is another one than before, or is there no more, which is
        returned."""
        before, now = self._declared, {each.name: _place(each) for each in deployments}
        known = {*before, *self._windows, *self._rests, *self._whole, *self._streams}
        others = {name for name in known if name not in now or now[name] != before.get(name)}
        self._declared = now
        for name in others:
            for book in (self._rests, self._whole, self._streams):
                book.pop(name, None)
            self._close(name)
        return others

    def forget_old(self, now: float) -> None:
        """What nobody has asked for long, as a fallback of what is well, is not held against anybody for ever."""
        for name in [name for name, until in self._until.items() if until + FORGOTTEN_SECONDS < now]:
            self._close(name)

    def timed(
        self,
        deployment: Deployment,
        siblings: Sequence[Deployment],
        microseconds: int,
        now: float,
        *,
        streamed: bool = False,
    ) -> None:
        """Time until the first byte of one answer, which says something beside those of its own kind: of a stream that
        is its first token. `siblings`: all that could have given it."""
        speeds = self._streams if streamed else self._whole
        speed = speeds.get(deployment.name)
        if speed is None:
            speed = speeds[deployment.name] = _Speed()
        speed.count += 1
        speed.mean += (microseconds - speed.mean) * max(0.05, 1 / speed.count)
        if speed.count % SLOW_SAMPLES == 0 and speed.mean > SLOW_LEAST_US:
            self._judge(deployment, siblings, speeds, now)

    def _judge(
        self, deployment: Deployment, siblings: Sequence[Deployment], speeds: dict[str, _Speed], now: float
    ) -> None:
        others = sorted(
            found.mean
            for other in siblings
            if other.model == deployment.model
            and other.name != deployment.name
            and self.closed(other.name)
            and (found := speeds.get(other.name)) is not None
            and found.count >= SLOW_SAMPLES
        )
        if not others or speeds[deployment.name].mean <= SLOW_FACTOR * others[len(others) // 2]:
            return
        # it has its next judgement after as many new answers, of which a probe is the first
        del speeds[deployment.name]
        self._windows.setdefault(deployment.name, _Window(now))
        self._open(deployment.name, now, SLOW_SECONDS, "far slower than others with the same model")


def _place(deployment: Deployment) -> tuple[Any, ...]:
    """Whatever makes it another one than before, of which nothing is known."""
    return (
        deployment.site, deployment.model, deployment.upstream_model, deployment.url, deployment.key, deployment.keys,
        deployment.api, deployment.http, deployment.tls, deployment.proxy, deployment.proxy_key,
    )  # fmt: skip
