"""The fitted serving model: a blend of linear fits and trees for each time and kind of serving, with its errors.

Evaluated with numpy alone. Hardware that was never measured gets the plain roofline with a wide interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import exp, log

import numpy as np

from groundplan.placement.reference.store import FOLDER, load_reference
from groundplan.placement.serving.model import BYTES, Basis, Estimate, Serving, Setting
from groundplan.placement.serving.physics import Roofline, components, features, roofline
from groundplan.placement.serving.trees import Floats, Trees

TIMES = ("per_token", "first_token")
KINDS = ("whole", "split")
BLEND_WEIGHTS = (1 / 6, 1 / 6, 2 / 3)
"""weights of the three fits, for both times: trees count four times (`benchmarks/serving_model.py --nested`)"""
UNMEASURED_SPREAD = 1.4
"""natural logarithm: hardware that was never measured may be four times faster or slower"""


@dataclass(frozen=True, slots=True, eq=False)
class FittedTime:
    """The model of one time of one kind of serving: a weighted mean of three fits of its logarithm, by a sum of the
    roofline's components with non-negative weights, by a linear model, and by trees on the roofline's residual."""

    centre: Floats
    scale: Floats
    weight: Floats
    sums: Floats
    trees: Trees
    shares: tuple[float, float, float]
    """of the sum, the linear fit and the trees"""

    def predict(self, table: Floats, base: Floats, components: Floats) -> Floats:
        """[rows] natural logarithms of milliseconds. `base`: [rows] those of the roofline."""
        scaled = (table - self.centre) / self.scale
        linear = self.weight[0] + scaled @ self.weight[1:]
        summed = np.log(np.maximum(components @ self.sums, 1e-3))
        of_sum, of_linear, of_trees = self.shares
        blended: Floats = of_sum * summed + of_linear * linear + of_trees * (self.trees.predict(table) + base)
        return blended


@dataclass(frozen=True, slots=True, eq=False)
class ServingModel:
    """The fitted times with the models and hardware that they were fitted on."""

    parts: dict[tuple[str, str], FittedTime]
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

    def predict_many(self, settings: Sequence[Setting]) -> list[Serving]:
        """The predicted times of each setting."""
        rooflines = [roofline(each) for each in settings]
        table = np.array([features(each, roofline_) for each, roofline_ in zip(settings, rooflines, strict=True)])
        times = {time: self._predict_logs(time, settings, rooflines, table) for time in TIMES}
        return [
            Serving(
                first_token=self._estimate("first_token", setting, times["first_token"][number]),
                per_token=self._estimate("per_token", setting, times["per_token"][number]),
                basis=self.basis(setting),
                fits=fits_memory(setting),
            )
            for number, setting in enumerate(settings)
        ]

    def predict(self, setting: Setting) -> Serving:
        return self.predict_many([setting])[0]

    def _predict_logs(
        self, time: str, settings: Sequence[Setting], rooflines: Sequence[Roofline], table: Floats
    ) -> Floats:
        base = np.array([log(getattr(roofline_, time)) for roofline_ in rooflines])
        logs = np.zeros(len(settings))
        for kind in KINDS:
            chosen = np.array([_kind(each) == kind for each in settings])
            if chosen.any() and (time, kind) in self.parts:
                pairs = zip(settings, rooflines, chosen, strict=True)
                sums = np.array([components(each, roofline_)[time] for each, roofline_, own in pairs if own])
                logs[chosen] = self.parts[time, kind].predict(table[chosen], base[chosen], sums)
        for number, setting in enumerate(settings):
            if setting.hardware.name not in self.hardware:
                logs[number] = base[number] + self.level[f"{time} {_kind(setting)}"]
        return logs

    def _estimate(self, time: str, setting: Setting, middle: float) -> Estimate:
        basis = self.basis(setting)
        low, high = self.spread.get(f"{time} {_kind(setting)} {basis}", (-UNMEASURED_SPREAD, UNMEASURED_SPREAD))
        return Estimate(exp(middle), exp(middle + low), exp(middle + high))


def _kind(setting: Setting) -> str:
    return "split" if setting.split else "whole"


def fits_memory(setting: Setting) -> bool:
    """Whether the weights and the cache of one request fit into the memory of one worker."""
    m, h, d = setting.shape, setting.hardware, setting.decode
    width = BYTES[setting.precision]
    weights = ((m.total - m.dense) + m.dense * d.data) * width
    cache_gb = (setting.prompt + setting.output) * m.kv * 2 / 1e9
    return weights + cache_gb <= 0.9 * h.memory * d.units


@cache
def shipped_model() -> ServingModel:
    """The model that ships with Groundplan."""
    metadata = load_reference("serving_model")
    with np.load(FOLDER / "serving_model.npz") as file:
        arrays = {name: file[name] for name in file.files}
    parts = {}
    for time in TIMES:
        for kind in KINDS:
            prefix = f"{time}.{kind}."
            names = ("roots", "feature", "threshold", "left", "right", "value")
            trees = Trees(**{name: arrays[prefix + name] for name in names}, depth=int(arrays[prefix + "depth"]))
            linear = {name: arrays[prefix + name] for name in ("centre", "scale", "weight", "sums")}
            parts[time, kind] = FittedTime(**linear, trees=trees, shares=BLEND_WEIGHTS)
    spread = {name: (low, high) for name, (low, high) in metadata["spread"].items()}
    return ServingModel(
        parts, frozenset(metadata["families"]), frozenset(metadata["hardware"]), spread, metadata["level"]
    )
