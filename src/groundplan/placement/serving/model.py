"""Types of the serving model: a model's sizes, hardware, settings and predicted times. Types and look-ups only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from groundplan.placement.reference.store import load_reference

BYTES: dict[str, float] = {"bf16": 2.0, "fp8": 1.0, "int4": 0.5625, "fp4": 0.5625}
"""bytes of one parameter, with the scales of blocks of 16"""
ENGINES = ("trtllm", "sglang", "vllm")
SPEED: dict[str, str] = {"bf16": "bf16", "fp8": "fp8", "int4": "bf16", "fp4": "fp4"}


@dataclass(frozen=True, slots=True)
class Shape:
    """A model's sizes. Billions of parameters; elements for each token over all layers."""

    family: str
    total: float
    active: float
    layers: int
    hidden: int
    kv: float
    experts: int
    chosen: int
    dense: float
    scored: float


@dataclass(frozen=True, slots=True)
class Hardware:
    """One unit: GB, TB/s, TFLOP/s by precision, GB/s of links, watts."""

    name: str
    memory: float
    bandwidth: float
    bf16: float
    fp8: float
    fp4: float
    link: float
    domain: int
    watts: float

    def speed(self, precision: str) -> float:
        """TFLOP/s; fp4 weights on hardware without it, and int4, are computed in a wider type."""
        return float(getattr(self, SPEED[precision]))


@dataclass(frozen=True, slots=True)
class Engine:
    """One kind of worker: its parallel ranks."""

    tensor: int = 1
    data: int = 1
    experts: int = 1
    expert_tensor: int = 1
    workers: int = 1

    @property
    def units(self) -> int:
        """Hardware units of one worker."""
        if self.data > 1:
            return max(self.tensor, min(self.experts * self.expert_tensor, self.tensor * self.data))
        return self.tensor


@dataclass(frozen=True, slots=True)
class Setting:
    """A model on hardware, with its precision, engine, parallel layout and load."""

    shape: Shape
    hardware: Hardware
    precision: str
    engine: str
    prompt: int
    output: int
    concurrency: float
    """concurrent requests in the whole system"""
    decode: Engine
    prefill: Engine | None = None
    """set where separate workers read the prompts"""
    rank_batch: float = 1.0
    """requests of one data-parallel rank"""

    @property
    def split(self) -> bool:
        return self.prefill is not None


Basis = Literal["measured", "new model", "not measured", "own traffic"]
"""What a prediction of times is based on; `not measured`: no row of such hardware exists, the interval is wide."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A time in milliseconds with its 90 % interval."""

    middle: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Serving:
    """The predicted times of a setting, and what the prediction is based on."""

    first_token: Estimate
    per_token: Estimate
    basis: Basis
    fits: bool
    """the weights and at least one request fit into memory"""

    @property
    def measured(self) -> bool:
        return self.basis in ("measured", "own traffic")


def find_shape(model: str) -> Shape | None:
    """The sizes of a well-known model by any of its names; None if it is unknown."""
    facts, low = load_reference("models"), model.lower()
    for part, name in facts["names"]:
        if part in low:
            return Shape(**facts["models"][name])
    return None


def find_hardware(name: str) -> Hardware | None:
    """Hardware by its name, with `_` read as `-`; None if it is unknown."""
    found = load_reference("hardware")["types"].get(name.lower().replace("_", "-"))
    return None if found is None else Hardware(name=name.lower().replace("_", "-"), **found)
