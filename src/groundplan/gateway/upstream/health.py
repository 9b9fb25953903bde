"""Circuit breakers: which deployments are attempted last, because they fail in a row or too often, asked to be called
later, or are far slower than others with the same model. One call at a time probes whether one has recovered. Pure;
times are arguments, in monotonic seconds.

Local to one worker and forgotten with it; objectives and incidents are elsewhere, and so is the preference among
healthy deployments.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from groundplan.blueprint.model import Deployment

FAILURES = 3
"""Failures in a row that open a breaker."""
MAX_OPEN_SECONDS = 15.0
MAX_RETRY_AFTER_SECONDS = 600.0
"""Longest retry-after that is honoured, as for a key; after it one call probes."""
MAX_SOLE_RETRY_AFTER_SECONDS = 60.0
"""Longest retry-after that is honoured if no other deployment is left: providers' own limits are of minutes, and a
pause of hours is often garbage."""
WINDOW_SECONDS = 30.0
WINDOW_FAILURES = 5
WINDOW_SHARE = 0.5
"""With at least `WINDOW_FAILURES`: this share of the attempts since the first failure opens the breaker."""
SLOW_FACTOR = 3.0
"""Times the median of its siblings with the same model."""
MIN_SLOW_US = 100_000
"""A deployment that is faster than this is never too slow."""
SLOW_SAMPLES = 32
"""Answers before a deployment's speed is judged, and between two judgements."""
SLOW_SECONDS = 10.0
PROBE_SECONDS = 1.0
"""How long other calls wait for the result of a probe; doubled with each probe that has none by then: a deployment that
accepts calls and stays silent would otherwise hold up one call each second for as long as a first byte is waited
for."""
FORGET_SECONDS = 600.0
"""How long after it may be attempted again a deployment that nobody has used is forgotten."""


class _Window:
    """Attempts since a first failure."""

    __slots__ = ("began", "failed", "total")

    def __init__(self, began: float) -> None:
        self.began = began
        self.failed = self.total = 0


class _RetryAfter:
    """A deployment asked at `asked_at` to be left alone until `until`; from `probe_at` on, one call may probe it if no
    other is left."""

    __slots__ = ("asked_at", "probe_at", "until")

    def __init__(self, now: float, seconds: float) -> None:
        self.asked_at = now
        self.until = now + min(MAX_RETRY_AFTER_SECONDS, seconds)
        self.probe_at = now + min(MAX_SOLE_RETRY_AFTER_SECONDS, seconds)


class _Speed:
    """Microseconds until the first byte, as a moving mean."""

    __slots__ = ("count", "mean")

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0


class Probe(NamedTuple):
    """One call is to find out whether a deployment has recovered; others wait until then."""

    name: str
    until: float


class Health:
    """The breakers of all deployments, by name."""

    __slots__ = (
        "_answer_speeds",
        "_declared",
        "_failures",
        "_open_until",
        "_opened_at",
        "_probes",
        "_reasons",
        "_retry_afters",
        "_stream_speeds",
        "_windows",
    )  # fmt: skip

    def __init__(self) -> None:
        self._failures: dict[str, int] = {}
        self._open_until: dict[str, float] = {}
        """Until when each unhealthy deployment is attempted last; after that, by one call at a time."""
        self._probes: dict[str, int] = {}
        """How many calls have probed each unhealthy deployment since the last of them failed."""
        self._opened_at: dict[str, float] = {}
        self._reasons: dict[str, str] = {}
        self._windows: dict[str, _Window] = {}
        self._answer_speeds: dict[str, _Speed] = {}
        self._stream_speeds: dict[str, _Speed] = {}
        self._retry_afters: dict[str, _RetryAfter] = {}
        self._declared: dict[str, tuple[Any, ...]] = {}

    def order(self, deployments: Sequence[Deployment], now: float) -> list[Deployment]:
        """The same deployments, those with an open breaker last. One whose time is over keeps its place: the call that
        attempts it probes it (`may_attempt`)."""
        if not self._open_until:
            return list(deployments)
        ready: list[Deployment] = []
        cooling: list[Deployment] = []
        for deployment in deployments:
            (cooling if self._open_until.get(deployment.name, 0.0) > now else ready).append(deployment)
        return ready + cooling

    def due_for_probe(self, deployments: Sequence[Deployment], now: float) -> Deployment | None:
        """The first deployment whose time is over, so that one call is to probe it."""
        for deployment in deployments:
            until = self._open_until.get(deployment.name)
            if until is not None and until <= now:
                return deployment
        return None

    @property
    def has_problems(self) -> bool:
        """Whether any breaker is not closed."""
        return bool(self._open_until)

    def is_closed(self, name: str) -> bool:
        """Whether the breaker is closed."""
        return name not in self._open_until

    def is_failing(self, name: str) -> bool:
        """Whether the last attempt failed."""
        return name in self._failures

    def may_attempt(self, name: str, now: float) -> bool:
        """Whether it may be attempted now before healthy ones: its breaker is closed, or its time is over and this call
        becomes the probe. Others wait for the result up to a second, and longer after each probe without a result."""
        until = self._open_until.get(name)
        if until is None:
            return True
        if until > now:
            return False
        trying = self._probes.get(name, 0)
        self._probes[name] = trying + 1
        self._open_until[name] = now + min(MAX_OPEN_SECONDS, PROBE_SECONDS * 2 ** min(8, trying))
        return True

    def current_probe(self, name: str) -> Probe | None:
        """The probe of a call that `may_attempt` has just let through; None if the breaker is closed, so that there is
        nothing to find out."""
        until = self._open_until.get(name)
        return None if until is None else Probe(name, until)

    def cancel_probe(self, probe: Probe, now: float) -> None:
        """Cancel a probe that was not sent, so that the next call may probe. If it has found something out, or another
        call probes by now, nothing changes."""
        name, until = probe
        trying = self._probes.get(name, 0)
        if trying and self._open_until.get(name) == until:
            self._probes[name] = trying - 1
            self._open_until[name] = now
        retry_after = self._retry_afters.get(name)
        if retry_after is not None and retry_after.probe_at == until:
            retry_after.probe_at = now

    def record_failure(self, name: str, now: float, retry_after: float | None = None) -> None:
        """Record a failed attempt; `retry_after`: seconds for which the deployment asked to be left alone."""
        failures = self._failures.get(name, 0) + 1
        self._failures[name] = failures
        self._probes.pop(name, None)
        window = self._windows.get(name)
        if window is None or now - window.began > WINDOW_SECONDS:
            window = self._windows[name] = _Window(now)
        window.failed += 1
        window.total += 1
        if failures >= FAILURES:
            seconds = min(MAX_OPEN_SECONDS, 1.0 * 2 ** min(8, failures - FAILURES))
            self._open(name, now, seconds, f"{failures} failures in a row")
        elif window.failed >= WINDOW_FAILURES and window.failed >= WINDOW_SHARE * window.total:
            self._open(name, now, 1.0, f"{window.failed} of {window.total} attempts failed")
        if retry_after is not None and retry_after > 0:
            self._retry_afters[name] = _RetryAfter(now, retry_after)
            self._open(name, now, min(MAX_RETRY_AFTER_SECONDS, retry_after), "it asked to be called later")

    def _open(self, name: str, now: float, seconds: float, reason: str) -> None:
        self._opened_at.setdefault(name, now)
        self._open_until[name] = max(self._open_until.get(name, 0.0), now + seconds)
        self._reasons[name] = reason

    def retry_after_left(self, name: str, now: float, *, is_last_resort: bool = False) -> float:
        """Seconds for which the deployment asked to be left alone; `is_last_resort`: until one call may probe it all
        the same, because no other deployment is left."""
        retry_after = self._retry_afters.get(name) if self._retry_afters else None
        if retry_after is None:
            return 0.0
        if retry_after.until <= now:
            del self._retry_afters[name]
            return 0.0
        return max(0.0, (retry_after.probe_at if is_last_resort else retry_after.until) - now)

    def begin_early_probe(self, name: str, now: float) -> Probe | None:
        """A probe of a deployment that asked to be left alone; None if this call may not probe. Others wait for the
        result up to a second."""
        retry_after = self._retry_afters.get(name)
        if retry_after is None or retry_after.probe_at > now:
            return None
        retry_after.probe_at = now + PROBE_SECONDS
        return Probe(name, retry_after.probe_at)

    def states(self, now: float) -> dict[str, str]:
        """`open` (attempted last) or `half_open` (to be probed by one call) for each deployment that is not
        `closed`."""
        return {name: "open" if until > now else "half_open" for name, until in self._open_until.items()}

    def reasons(self) -> dict[str, str]:
        """Why each deployment that is not `closed` is attempted last, in words."""
        return {name: self._reasons[name] for name in self._open_until}

    def record_success(self, name: str, began: float = float("inf")) -> None:
        """Record a successful attempt that began at `began`. It closes the breaker only if it began after that
        opened."""
        if not self._windows:
            return
        window = self._windows.get(name)
        if window is None:
            return
        window.total += 1
        self._failures.pop(name, None)
        retry_after = self._retry_afters.get(name)
        if retry_after is not None:
            if began < retry_after.asked_at:
                return  # it has asked to be left alone since
            del self._retry_afters[name]
        if name in self._open_until and began >= self._opened_at[name]:
            self._close(name)

    def _close(self, name: str) -> None:
        for book in (self._failures, self._open_until, self._probes, self._opened_at, self._reasons, self._windows):
            book.pop(name, None)

    def declare(self, deployments: Iterable[Deployment]) -> set[str]:
        """Set the current deployments; forget and return those that have changed or are gone."""
        before, now = self._declared, {each.name: _identity(each) for each in deployments}
        known = {*before, *self._windows, *self._retry_afters, *self._answer_speeds, *self._stream_speeds}
        others = {name for name in known if name not in now or now[name] != before.get(name)}
        self._declared = now
        for name in others:
            for book in (self._retry_afters, self._answer_speeds, self._stream_speeds):
                book.pop(name, None)
            self._close(name)
        return others

    def forget_old(self, now: float) -> None:
        """Forget deployments that nobody has attempted for long, such as the fallbacks of healthy ones."""
        for name in [name for name, until in self._open_until.items() if until + FORGET_SECONDS < now]:
            self._close(name)

    def record_latency(
        self,
        deployment: Deployment,
        siblings: Sequence[Deployment],
        microseconds: int,
        now: float,
        *,
        streamed: bool = False,
    ) -> None:
        """Record the time until the first byte of one answer; of a stream, until its first token. `siblings`: all
        deployments that could have given it."""
        speeds = self._stream_speeds if streamed else self._answer_speeds
        speed = speeds.get(deployment.name)
        if speed is None:
            speed = speeds[deployment.name] = _Speed()
        speed.count += 1
        speed.mean += (microseconds - speed.mean) * max(0.05, 1 / speed.count)
        if speed.count % SLOW_SAMPLES == 0 and speed.mean > MIN_SLOW_US:
            self._check_speed(deployment, siblings, speeds, now)

    def _check_speed(
        self, deployment: Deployment, siblings: Sequence[Deployment], speeds: dict[str, _Speed], now: float
    ) -> None:
        others = sorted(
            found.mean
            for other in siblings
            if other.model == deployment.model
            and other.name != deployment.name
            and self.is_closed(other.name)
            and (found := speeds.get(other.name)) is not None
            and found.count >= SLOW_SAMPLES
        )
        if not others or speeds[deployment.name].mean <= SLOW_FACTOR * others[len(others) // 2]:
            return
        # it is judged again after as many new answers, of which a probe is the first
        del speeds[deployment.name]
        self._windows.setdefault(deployment.name, _Window(now))
        self._open(deployment.name, now, SLOW_SECONDS, "far slower than others with the same model")


def _identity(deployment: Deployment) -> tuple[Any, ...]:
    """The fields that make it another deployment if they change."""
    return (
        deployment.site, deployment.model, deployment.upstream_model, deployment.url, deployment.key, deployment.keys,
        deployment.api, deployment.http, deployment.tls, deployment.proxy, deployment.proxy_key,
    )  # fmt: skip
