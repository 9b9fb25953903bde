"""How well a learned router did on prompts it had not seen, as it was written into it when it was trained. No judging.

Whoever approves a router reads this; its digest covers it, so that it cannot be changed afterwards.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import msgspec

from groundplan.core.canonical import digest
from groundplan.core.errors import Invalid


class _ArtifactHead(msgspec.Struct, frozen=True):
    """What of an artifact is read; arrays are passed over."""

    models: list[str]
    points: dict[str, tuple[float, float]]
    trained: dict[str, str]
    strongest: int


_decode = msgspec.msgpack.Decoder(_ArtifactHead).decode


@dataclass(frozen=True, slots=True)
class EvaluationSummary:
    """At one share to keep; what was not written down is None, as by versions before."""

    digest: str
    """SHA-256 of its bytes."""
    models: tuple[str, ...]
    strongest: str
    """The one of them that takes whatever the router is unsure of."""
    keep: float
    point: str | None
    """Operating point that keeps it; None: nothing cheaper was proven, and the strongest model takes every call."""
    trained: str | None
    """Day, as YYYY-MM-DD."""
    origin: str | None
    prompts: int | None
    groups: int | None
    against: str | None
    """The best single model for every prompt, with which it is compared."""
    calibration: float | None
    saved: float | None
    kept: float | None
    low: float | None
    high: float | None
    """95 % interval of `kept`."""
    ridge_saved: float | None
    """What the better of two ridge regressions on words saves at the same share."""

    @property
    def shown(self) -> bool | None:
        """Whether its prompts show that the share is kept; None: no interval was written down."""
        return None if self.low is None else self.low >= self.keep


def read_evaluation(data: bytes, keep: float) -> EvaluationSummary:
    """Of the bytes of a router. Raises `Invalid` (`router_artifact`) where they are none."""
    try:
        found = _decode(data)
        point, strongest = _point(found.points, keep), found.models[found.strongest]
    except (msgspec.MsgspecError, ValueError, IndexError) as error:
        hint = "Train it again with `groundplan routing train`."
        raise Invalid(f"this is not a learned router: {error}"[:300], code="router_artifact", hint=hint) from error
    trained = found.trained

    def figure(name: str) -> float | None:
        return _number(trained, name)

    prompts, groups = figure("prompts"), figure("groups")
    return EvaluationSummary(
        digest=digest(data),
        models=tuple(found.models),
        strongest=strongest,
        keep=keep,
        point=point,
        trained=trained.get("trained"),
        origin=trained.get("from"),
        prompts=None if prompts is None else int(prompts),
        groups=None if groups is None else int(groups),
        against=trained.get("against"),
        calibration=figure("calibration"),
        saved=figure(f"saved at {point}"),
        kept=figure(f"kept at {point}"),
        low=figure(f"low at {point}"),
        high=figure(f"high at {point}"),
        ridge_saved=figure(f"ridge saved at {point}"),
    )


def _point(points: Collection[str], keep: float) -> str | None:
    """Its own, else the next stricter one, as gateways choose it."""
    return min((each for each in points if float(each) >= keep), key=float, default=None)


def _number(trained: Mapping[str, str], name: str) -> float | None:
    try:
        return float(trained[name])
    except (KeyError, ValueError):
        return None
