"""The experiment that one call is in. Values only; `assign` draws them."""

from __future__ import annotations

import msgspec

from groundplan.economics.experiment.model import Experiment


class Mark(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the receipt of a call says of the experiment that it is in."""

    experiment: str
    trial: str
    """Its name."""
    arm: str
    unit: str = ""
    """A digest of whom the arm was drawn for."""
    of: str = ""
    """The call that was shown, where this one was made beside it."""


class Trial:
    """The experiment of one call. `mark` None: its receipt says nothing, since it went as without."""

    __slots__ = ("experiment", "mark")

    def __init__(self, experiment: Experiment, mark: Mark | None) -> None:
        self.experiment = experiment
        self.mark = mark

    @property
    def shadowed(self) -> bool:
        """Whether a second answer is made beside it."""
        return self.mark is None

    @property
    def beside(self) -> bool:
        """Whether it is itself made beside another call, or for a replay."""
        return self.mark is not None and bool(self.mark.of)

    @property
    def key(self) -> bytes:
        """What keeps the cached answers of its arms apart."""
        return b"" if self.mark is None else f"{self.mark.experiment}\0{self.mark.arm}".encode()
