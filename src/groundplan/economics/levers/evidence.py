"""Evidence of replays and experiments about a cheaper deployment, shown beside its savings. Pure.

The newest of each that ended counts; one that ended without a verdict (by its budget, its last day, a person) is no
evidence. An experiment that runs or waits for approval is mentioned.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from groundplan.economics.experiment.model import SHADOW
from groundplan.economics.experiment.record import ExperimentRecord
from groundplan.economics.replay.opportunities import TrialEvidence
from groundplan.economics.replay.run import Run

_VERDICTS: Final = {"kept": "good enough", "better": "better", "worse": "worse", "guard": "not good enough"}
_Ended = tuple[datetime, TrialEvidence]
_OPEN_STATES: Final = frozenset({"asked", "running"})
_GOOD_VERDICTS: Final = frozenset({"kept", "better"})


def trial_evidence(
    runs: Iterable[Run], experiments: Iterable[ExperimentRecord], since: datetime
) -> dict[tuple[str, str], TrialEvidence]:
    """(workload, candidate) -> evidence since then, of its newest replay and its newest experiment."""
    found: dict[tuple[str, str], list[_Ended]] = {}
    for newest in (
        _newest([(run.ended_at, (run.workload, run.candidate), _from_replay(run)) for run in runs], since),
        _newest(
            [(_end_of(made), (made.workload, made.candidate), _from_experiment(made)) for made in experiments], since
        ),
    ):
        for key, ended in newest.items():
            found.setdefault(key, []).append(ended)
    return {key: _combine(every) for key, every in found.items()}


def _newest(
    every: Iterable[tuple[datetime | None, tuple[str, str], TrialEvidence | None]], since: datetime
) -> dict[tuple[str, str], _Ended]:
    found: dict[tuple[str, str], _Ended] = {}
    for at, key, told in every:
        if at is not None and told is not None and at >= since and (key not in found or at > found[key][0]):
            found[key] = at, told
    return found


def _combine(every: list[_Ended]) -> TrialEvidence:
    """Combine evidence, newest first. The next step is that of an experiment if there is one: a nightly replay must not
    hide what people found, nor propose again what an experiment has tried."""
    told = [each for _, each in sorted(every, key=lambda each: each[0], reverse=True)]
    last = next((each for each in told if each.tried), told[0])
    return TrialEvidence("; ".join(each.told for each in told), min(each.most for each in told), last.then, last.tried)


def _from_replay(run: Run) -> TrialEvidence | None:
    if run.state != "done" or run.proposal is None or run.ended_at is None:
        return None
    quality: dict[str, Any] = run.proposal["quality"]
    worse = ", ".join(each["segment"] or "calls without a feature" for each in run.proposal["worse"])
    alone = "" if run.proposal["known"] else ", as its judge alone says"
    told = (
        f"a replay on {run.ended_at.date()} found answers as good on {quality['value']:.0%} of its calls "
        f"({quality['low']:.0%} to {quality['high']:.0%}){alone}" + (f", worse on {worse}" if worse else "")
    )
    return TrialEvidence(told, float(quality["high"]), "try it in shadow, or let a router send it those calls")


def _end_of(made: ExperimentRecord) -> datetime | None:
    """When an experiment ended or will end, so that a running one always counts."""
    return made.until if made.state in _OPEN_STATES else made.ended_at


def _from_experiment(made: ExperimentRecord) -> TrialEvidence | None:
    if made.state in _OPEN_STATES:
        return TrialEvidence(made.standing, 1.0, "what it finds will be here", tried=True)
    if made.state != "ended" or made.outcome not in _VERDICTS or made.ended_at is None:
        return None
    good = made.outcome in _GOOD_VERDICTS
    quality = (made.figures or {}).get("quality")
    most = 1.0 if good or made.type != SHADOW or not quality else float(quality["high"])
    told = f"the {made.kind} {made.name}, ended on {made.ended_at.date()}, found it {_VERDICTS[made.outcome]}"
    then = "let it take the calls" if good else "a router may still send it those that it answers as well"
    return TrialEvidence(f"{told}: {made.outcome_reason}", most, then, tried=True)
