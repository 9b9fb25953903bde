"""A fitted serving model: linear and tree part for each time and kind of serving, and how far off each was.

Evaluates with numpy alone. Hardware that was never measured gets the bare roofline with a wide interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import exp, log
from typing import Literal

import numpy as np

from groundplan.placement.reference.store import FOLDER, load
from groundplan.placement.serving.model import BYTES, Estimate, Serving, Setting
from groundplan.placement.serving.physics import Roofline, components, features, roofline
from groundplan.placement.serving.trees import Floats, Trees

Basis = Literal["measured", "new model", "new hardware", "not measured", "own traffic"]
TIMES = ("per_token", "first_token")
KINDS = ("whole", "split")
SHARES = (1 / 6, 1 / 6, 2 / 3)
"""Of the three fits, for both times: trees count four times (`benchmarks/serving_model.py --nested`)."""
UNMEASURED = 1.4
"""Natural logarithm: hardware that was never measured may be four times faster or slower"""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """One time of one kind of serving, a mean of three fits of its logarithm: a sum of the roofline's components with
    weights that are not negative, a linear one, and trees on the roofline's residual."""

    centre: Floats
    scale: Floats
    weight: Floats
    sums: Floats
    trees: Trees
    shares: tuple[float, float, float]
    """of the sum, the linear fit and the trees"""

    def predict(self, table: Floats, base: Floats, components: Floats) -> Floats:
        """[rows] natural logarithms of milliseconds. `base` is the roofline's."""
        scaled = (table - self.centre) / self.scale
        linear = self.weight[0] + scaled @ self.weight[1:]
        summed = np.log(np.maximum(components @ self.sums, 1e-3))
        of_sum, of_linear, of_trees = self.shares
        blended: Floats = of_sum * summed + of_linear * linear + of_trees * (self.trees.predict(table) + base)
        return blended


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """All parts with what they were fitted on."""

    parts: dict[tuple[str, str], Part]
    """by (time, kind)"""
    families: frozenset[str]
    hardware: frozenset[str]
    spread: dict[str, tuple[float, float]]
    """`time kind basis` -> 5th and 95th percentile of log(measured / predicted) where such rows were left out"""
    level: dict[str, float]
    """`time kind` -> median log(measured / roofline)"""

    def basis(self, setting: Setting) -> Basis:
        model, machine = setting.shape.family in self.families, setting.hardware.name in self.hardware
        if not machine:
            return "not measured"
        return "measured" if model else "new model"

    def many(self, settings: Sequence[Setting]) -> list[Serving]:
        """How each setting serves."""
        lines = [roofline(each) for each in settings]
        table = np.array([features(each, line) for each, line in zip(settings, lines, strict=True)])
        times = {time: self._logs(time, settings, lines, table) for time in TIMES}
        return [
            Serving(
                first_token=self._estimate("first_token", setting, times["first_token"][number]),
                per_token=self._estimate("per_token", setting, times["per_token"][number]),
                basis=self.basis(setting),
                fits=fits(setting),
            )
            for number, setting in enumerate(settings)
        ]

    def one(self, setting: Setting) -> Serving:
        return self.many([setting])[0]

    def _logs(self, time: str, settings: Sequence[Setting], lines: Sequence[Roofline], table: Floats) -> Floats:
        base = np.array([log(getattr(line, time)) for line in lines])
        logs = np.zeros(len(settings))
        for kind in KINDS:
            chosen = np.array([_kind(each) == kind for each in settings])
            if chosen.any() and (time, kind) in self.parts:
                pairs = zip(settings, lines, chosen, strict=True)
                sums = np.array([components(each, line)[time] for each, line, own in pairs if own])
                logs[chosen] = self.parts[time, kind].predict(table[chosen], base[chosen], sums)
        for number, setting in enumerate(settings):
            if setting.hardware.name not in self.hardware:
                logs[number] = base[number] + self.level[f"{time} {_kind(setting)}"]
        return logs

    def _estimate(self, time: str, setting: Setting, middle: float) -> Estimate:
        basis = self.basis(setting)
        low, high = self.spread.get(f"{time} {_kind(setting)} {basis}", (-UNMEASURED, UNMEASURED))
        return Estimate(exp(middle), exp(middle + low), exp(middle + high))


def _kind(setting: Setting) -> str:
    return "split" if setting.split else "whole"


def fits(setting: Setting) -> bool:
    """Weights and the cache of one request fit into the memory of one worker."""
    m, h, d = setting.shape, setting.hardware, setting.decode
    width = BYTES[setting.precision]
    weights = ((m.total - m.dense) + m.dense * d.data) * width
    cache_gb = (setting.prompt + setting.output) * m.kv * 2 / 1e9
    return weights + cache_gb <= 0.9 * h.memory * d.units


@cache
def shipped() -> Fitted:
    """The model that ships with Groundplan."""
    told = load("serving_model")
    with np.load(FOLDER / "serving_model.npz") as file:
        arrays = {name: file[name] for name in file.files}
    parts = {}
    for time in TIMES:
        for kind in KINDS:
            lead = f"{time}.{kind}."
            names = ("roots", "feature", "threshold", "left", "right", "value")
            trees = Trees(**{name: arrays[lead + name] for name in names}, depth=int(arrays[lead + "depth"]))
            linear = {name: arrays[lead + name] for name in ("centre", "scale", "weight", "sums")}
            parts[time, kind] = Part(**linear, trees=trees, shares=SHARES)
    spread = {name: (low, high) for name, (low, high) in told["spread"].items()}
    return Fitted(parts, frozenset(told["families"]), frozenset(told["hardware"]), spread, told["level"])
