"""Exponential smoothing of level, damped trend and season (Holt-Winters, on logarithms), many settings at once.

One pass over a series gives the forecast of every setting at every origin, so looking back costs nothing more. Values
that are left out (holidays, gaps) move no state. Pure numpy; which settings are used is decided in `predict`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
ALPHAS = (0.02, 0.08, 0.2, 0.45)
"""Weight of the newest value in the level."""
BETAS = (0.0, 0.02)
"""Of the newest difference in the trend."""
GAMMAS = (0.05, 0.2)
"""Of the newest value in the season."""
DAMPING = 0.98
SETTINGS: Floats = np.array(list(product(ALPHAS, BETAS, GAMMAS)))


@dataclass(slots=True)
class State:
    """After a value: one row for each setting."""

    level: Floats
    trend: Floats
    season: Floats
    """settings x cycle"""


def smoothed_paths(
    values: Floats, cycle: int, origins: Iterable[int], horizon: int, jumps: dict[int, float]
) -> dict[int, Floats]:
    """origin -> settings x horizon forecasts made from the values before it. `values` are logarithms, NaN: left out.

    `jumps` are logarithms by which the level changes at a place, such as at a launch.
    """
    wanted = sorted(set(origins))
    state = _begin(values[: max(2 * cycle, 8)], cycle)
    alpha, beta, gamma = SETTINGS.T
    found: dict[int, Floats] = {}
    for place in range(len(values) + 1):
        while wanted and wanted[0] == place:
            found[wanted.pop(0)] = _ahead(state, place, cycle, horizon, jumps)
        if not wanted or place == len(values):
            break
        state.level = state.level + jumps.get(place, 0.0)
        _move(state, place % cycle, values[place], (alpha, beta, gamma), cycle)
    return found


def _move(state: State, phase: int, value: float, weights: tuple[Floats, Floats, Floats], cycle: int) -> None:
    alpha, beta, gamma = weights
    expected = state.level + DAMPING * state.trend
    if np.isnan(value):
        state.level, state.trend = expected, DAMPING * state.trend
        return
    seasonal = state.season[:, phase]
    level = expected + alpha * (value - seasonal - expected)
    state.trend = DAMPING * state.trend + beta * alpha * (value - seasonal - expected)
    if cycle > 1:
        state.season[:, phase] = seasonal + gamma * (1 - alpha) * (value - expected - seasonal)
    state.level = level


def _ahead(state: State, place: int, cycle: int, horizon: int, jumps: dict[int, float]) -> Floats:
    steps = np.arange(1, horizon + 1)
    damped = DAMPING * (1 - DAMPING**steps) / (1 - DAMPING)
    phases = (place + steps - 1) % cycle
    jumped = np.cumsum([jumps.get(place + step, 0.0) for step in range(horizon)])
    made: Floats = state.level[:, None] + state.trend[:, None] * damped + state.season[:, phases] + jumped
    return made


def _begin(first: Floats, cycle: int) -> State:
    count = len(SETTINGS)
    level = float(np.nanmean(first)) if np.isfinite(first).any() else 0.0
    season = np.zeros((count, cycle))
    if cycle > 1:
        for phase in range(cycle):
            seen = first[phase::cycle]
            if np.isfinite(seen).any():
                season[:, phase] = float(np.nanmean(seen)) - level
    return State(np.full(count, level), np.zeros(count), season)
