"""What replays and experiments have shown of a cheaper deployment, as evidence beside the money it would save. Pure.

The newest of each that ended counts; one that ended without a verdict (its budget, its last day, a person) shows
nothing. An experiment that runs, or waits for its approval, says that it does.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from groundplan.economics.experiment.model import SHADOW
from groundplan.economics.experiment.record import Recorded
from groundplan.economics.replay.opportunities import Shown
from groundplan.economics.replay.run import Run

_VERDICTS: Final = {"kept": "good enough", "better": "better", "worse": "worse", "guard": "not good enough"}
_Ended = tuple[datetime, Shown]
_OPEN: Final = frozenset({"asked", "running"})
_GOOD: Final = frozenset({"kept", "better"})


def shown(runs: Iterable[Run], experiments: Iterable[Recorded], since: datetime) -> dict[tuple[str, str], Shown]:
    """(workload, candidate) -> what was shown of it since then: by its newest replay, and by its newest experiment."""
    found: dict[tuple[str, str], list[_Ended]] = {}
    for newest in (
        _newest([(run.ended_at, (run.workload, run.candidate), _by_replay(run)) for run in runs], since),
        _newest([(_when(made), (made.workload, made.candidate), _by_experiment(made)) for made in experiments], since),
    ):
        for key, ended in newest.items():
            found.setdefault(key, []).append(ended)
    return {key: _together(every) for key, every in found.items()}


def _newest(
    every: Iterable[tuple[datetime | None, tuple[str, str], Shown | None]], since: datetime
) -> dict[tuple[str, str], _Ended]:
    found: dict[tuple[str, str], _Ended] = {}
    for at, key, told in every:
        if at is not None and told is not None and at >= since and (key not in found or at > found[key][0]):
            found[key] = at, told
    return found


def _together(every: list[_Ended]) -> Shown:
    """What is said last is what may be done after the newest; a nightly replay does not hide what people said, nor
    propose anew what an experiment has tried."""
    told = [each for _, each in sorted(every, key=lambda each: each[0], reverse=True)]
    last = next((each for each in told if each.tried), told[0])
    return Shown("; ".join(each.told for each in told), min(each.most for each in told), last.then, last.tried)


def _by_replay(run: Run) -> Shown | None:
    if run.state != "done" or run.proposal is None or run.ended_at is None:
        return None
    quality: dict[str, Any] = run.proposal["quality"]
    worse = ", ".join(each["segment"] or "calls without a feature" for each in run.proposal["worse"])
    alone = "" if run.proposal["known"] else ", as its judge alone says"
    told = (
        f"a replay on {run.ended_at.date()} found answers as good on {quality['value']:.0%} of its calls "
        f"({quality['low']:.0%} to {quality['high']:.0%}){alone}" + (f", worse on {worse}" if worse else "")
    )
    return Shown(told, float(quality["high"]), "try it in shadow, or let a router send it those calls")


def _when(made: Recorded) -> datetime | None:
    """When it ended, or will: one that runs for long counts as long as it does."""
    return made.until if made.state in _OPEN else made.ended_at


def _by_experiment(made: Recorded) -> Shown | None:
    if made.state in _OPEN:
        return Shown(made.standing, 1.0, "what it finds will be here", tried=True)
    if made.state != "ended" or made.outcome not in _VERDICTS or made.ended_at is None:
        return None
    good = made.outcome in _GOOD
    quality = (made.figures or {}).get("quality")
    most = 1.0 if good or made.type != SHADOW or not quality else float(quality["high"])
    told = f"the {made.kind} {made.name}, ended on {made.ended_at.date()}, found it {_VERDICTS[made.outcome]}"
    then = "let it take the calls" if good else "a router may still send it those that it answers as well"
    return Shown(f"{told}: {made.outcome_reason}", most, then, tried=True)
