"""Reads the evaluation of a learned router that was written into it at training. Computes nothing.

Approvers of a router read this; the router's digest covers it, so that it cannot be changed afterwards.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import msgspec

from groundplan.core.canonical import digest
from groundplan.core.errors import Invalid


class _ArtifactHead(msgspec.Struct, frozen=True):
    """The fields of an artifact that are read; arrays are skipped."""

    models: list[str]
    points: dict[str, tuple[float, float]]
    trained: dict[str, str]
    strongest: int


_decode = msgspec.msgpack.Decoder(_ArtifactHead).decode


@dataclass(frozen=True, slots=True)
class EvaluationSummary:
    """The evaluation at one share to keep; None: not recorded, as by earlier versions."""

    digest: str
    """SHA-256 of its bytes."""
    models: tuple[str, ...]
    strongest: str
    """The model that takes calls that the router is unsure of."""
    keep: float
    point: str | None
    """Operating point for this share; None: none was proven, and the strongest model takes every call."""
    trained: str | None
    """Day of the training, as YYYY-MM-DD."""
    origin: str | None
    prompts: int | None
    groups: int | None
    against: str | None
    """The best single model, with which it is compared."""
    calibration: float | None
    saved: float | None
    kept: float | None
    low: float | None
    high: float | None
    """95 % interval of `kept`."""
    ridge_saved: float | None
    """Savings of the better of two ridge regressions on words at the same share."""

    @property
    def shown(self) -> bool | None:
        """Whether its prompts prove the share; None: no interval was recorded."""
        return None if self.low is None else self.low >= self.keep


def read_evaluation(data: bytes, keep: float) -> EvaluationSummary:
    """Read the evaluation of a router's bytes. Raises `Invalid` (`router_artifact`) if they are no router."""
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
    """The operating point for a share: its own, else the next stricter one, as in gateways."""
    return min((each for each in points if float(each) >= keep), key=float, default=None)


def _number(trained: Mapping[str, str], name: str) -> float | None:
    try:
        return float(trained[name])
    except (KeyError, ValueError):
        return None
