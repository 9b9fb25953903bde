"""The experiment that one call is in. Values only; `assign` draws them."""

from __future__ import annotations

import msgspec

from groundplan.economics.experiment.model import Experiment


class Mark(msgspec.Struct, frozen=True, omit_defaults=True):
    """The experiment of a call in its receipt."""

    experiment: str
    trial: str
    """Name of the experiment."""
    arm: str
    unit: str = ""
    """Digest of the unit for which the arm was drawn."""
    of: str = ""
    """Id of the shown call, where this one is its shadow."""


class Trial:
    """The experiment of one call. `mark` None: not in the receipt, as the experiment did not change the call."""

    __slots__ = ("experiment", "mark")

    def __init__(self, experiment: Experiment, mark: Mark | None) -> None:
        self.experiment = experiment
        self.mark = mark

    @property
    def shadowed(self) -> bool:
        """Whether a shadow call follows it."""
        return self.mark is None

    @property
    def beside(self) -> bool:
        """Whether it is itself a shadow call, or made for a replay."""
        return self.mark is not None and bool(self.mark.of)

    @property
    def key(self) -> bytes:
        """Part of the cache key that separates the answers of its arms."""
        return b"" if self.mark is None else f"{self.mark.experiment}\0{self.mark.arm}".encode()
