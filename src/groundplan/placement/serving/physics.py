"""The roofline: the least time of a step by memory, arithmetic and links, and the features of the learned residual.

Times are milliseconds. Formulas: bytes over bandwidth and operations over speed, the slower of both holds (Williams,
Waterman and Patterson, "Roofline", CACM 52(4), 2009); experts touched by a batch of b tokens are E(1-(1-k/E)^b), as for
b draws; waiting before a server with load rho follows rho/(1-rho). Nothing is learned here.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log, log1p, log2, sqrt

import numpy as np
from numpy.typing import NDArray

from groundplan.placement.serving.model import BYTES, ENGINES, Engine, Setting

LAUNCH_MS = 0.01
"""launching the kernels of one layer"""
LINK_MS = 0.024
"""two exchanges between units in one layer"""
USABLE = 0.88
"""fraction of the memory that serving engines use by default"""


@dataclass(frozen=True, slots=True)
class Roofline:
    """The times of one decoding step and of reading one prompt by component, in milliseconds."""

    weights: float
    cache: float
    compute: float
    attention: float
    links: float
    decode: float
    prompt_compute: float
    prompt_weights: float
    prefill: float
    busy: float
    """share of time spent on reading prompts, or load of the workers that read them"""
    per_token: float
    first_token: float
    filled: float
    """requests divided by the number that fits into memory"""
    per_worker: float
    """requests of one decoding worker"""
    prompt_attention: float = 0.0
    prompt_links: float = 0.0


def roofline(s: Setting) -> Roofline:
    """The roofline of a setting."""
    m, h, d = s.shape, s.hardware, s.decode
    p = s.prefill or d
    width, speed, units = BYTES[s.precision], h.speed(s.precision), d.units
    each = max(1.0, s.concurrency / d.workers)
    held = m.total - m.dense
    touched = _touched_parameters(s, each)
    weights = (m.dense * d.data + touched) * width / units / h.bandwidth
    context = s.prompt + s.output / 2
    wide = 2 if (m.experts == 1 or m.kv > 60_000) and s.precision != "fp4" else 1
    cache = each * context * m.kv * wide / 1e9 / units / h.bandwidth
    compute = 2 * m.active * each / units / speed
    attention = 4 * each * context * m.scored / 1e9 / units / h.bf16
    is_linked = 1 if units > 1 else 0
    links = is_linked * (m.layers * LINK_MS + each * m.hidden * 4 * m.layers / 1e6 / h.link / d.data)
    launch = m.layers * LAUNCH_MS
    decode = max(weights + cache, compute + attention) + links + launch
    prefill, prompt_compute, prompt_weights, prompt_attention, prompt_links = _prefill(s, p)
    if s.split:
        busy = min(5.0, s.concurrency * prefill / p.workers / (s.output * decode + prefill))
        per_token = decode
    else:
        busy = each * prefill / (each * prefill + s.output * decode)
        per_token = decode + each * prefill / s.output
    first = prefill * (1 + s.concurrency / p.workers * prefill / (s.output * decode + prefill))
    room = (h.memory * USABLE * units - (m.dense * d.data + held) * width) / (
        (s.prompt + s.output) * m.kv * (1 if m.experts > 1 else 2) / 1e9
    )
    return Roofline(
        weights, cache, compute, attention, links, decode, prompt_compute, prompt_weights, prefill, busy,
        per_token, first, each / max(room, 0.5), each, prompt_attention, prompt_links,
    )  # fmt: skip


def _touched_parameters(s: Setting, tokens: float) -> float:
    """Billions of parameters of the experts that a batch uses."""
    m = s.shape
    return (m.total - m.dense) * (1 - (1 - m.chosen / m.experts) ** max(tokens, 1.0)) if m.experts > 1 else 0.0


def _prefill(s: Setting, engine: Engine) -> tuple[float, float, float, float, float]:
    """(whole, arithmetic, weights, attention, links) of reading one prompt."""
    m, h, units = s.shape, s.hardware, engine.units
    compute = 2 * m.active * s.prompt / units / h.speed(s.precision)
    attention = 2 * s.prompt * s.prompt * m.scored / 1e9 / units / h.bf16
    weights = (m.dense + _touched_parameters(s, s.prompt)) * BYTES[s.precision] / units / h.bandwidth
    links = (s.prompt * m.hidden * 4 * m.layers / 1e6 / h.link / engine.data) if units > 1 else 0.0
    return (
        max(compute * 1.7 + attention * 2, weights) + links + m.layers * LAUNCH_MS,
        compute,
        weights,
        attention,
        links,
    )


def components(s: Setting, r: Roofline) -> dict[str, list[float]]:
    """The components of each time for a sum with non-negative weights: bytes, operations, layers, queues."""
    engine = ENGINES.index(s.engine) if s.engine in ENGINES else 2
    one = [float(engine == each) for each in range(len(ENGINES))]
    layers, sparse = float(s.shape.layers), float(s.shape.experts > 1)
    units, output, each = s.decode.units, s.output, r.per_worker
    multi, whole, split = float(units > 1), float(not s.split), float(s.split)
    reads = each * whole / output
    grown = layers * log1p(each)
    token = [
        r.weights, r.cache, r.compute, r.attention, *(layers * x * (1 - sparse) for x in one),
        *(layers * x * sparse for x in one), layers * multi, layers * multi * log2(max(units, 1)), r.links,
        grown * sparse, grown * (1 - sparse), reads * r.prompt_compute, reads * r.prompt_attention,
        reads * r.prompt_weights, reads * r.prompt_links, reads * layers, each, reads * layers * sparse, 1.0,
    ]  # fmt: skip
    queue = s.concurrency / (s.prefill or s.decode).workers
    cycle = output * (r.weights + r.cache + r.compute + layers * 0.1)
    rho = min(queue * r.prefill / (cycle + r.prefill), 3.0)
    step = r.weights + r.cache + r.compute + r.attention + layers * 0.1
    pc, root = r.prompt_compute, sqrt(queue)
    first = [
        pc, r.prompt_attention, r.prompt_weights, r.prompt_links, *(layers * x for x in one), *one, step * whole,
        step * split, queue * pc * whole, queue * pc * split, queue * r.prompt_attention * whole,
        queue * r.prompt_weights * whole, queue * r.prompt_links, queue * layers * whole, queue * layers * split,
        rho * pc, rho**2 * pc * whole, rho**2 * pc * split, s.prompt / 100, queue * whole, queue * split,
        max(r.filled - 1, 0.0) * cycle * whole, log1p(queue) * pc, root * pc * whole, root * pc * split, root * whole,
        root * split, split, s.prompt * split / 100,
    ]  # fmt: skip
    return {"per_token": token, "first_token": first}


def features(s: Setting, r: Roofline) -> NDArray[np.float64]:
    """The features from which the residual is learned: ratios and logarithms, none identifies a model."""
    d, p = s.decode, s.prefill or s.decode
    engine = ENGINES.index(s.engine) if s.engine in ENGINES else 2
    split = float(s.split)
    pre, dec, load, filled = _ln(r.prefill), _ln(r.decode), _ln(s.concurrency), _ln(r.filled)
    queue = s.concurrency / p.workers
    return np.array([
        dec, _ln(r.weights / r.decode), log(r.cache / r.decode + 1e-4), _ln((r.compute + r.attention) / r.decode),
        _ln(r.links / r.decode), pre, _ln(r.prompt_compute / r.prefill), _ln(r.prompt_weights / r.prefill), r.busy,
        filled, _ln(r.per_worker), load, _ln(r.per_worker / d.units), _ln(s.rank_batch), _ln(s.prompt), _ln(s.output),
        _ln(s.prompt / s.output), _ln(d.units), _ln(d.tensor), _ln(d.data), _ln(d.experts), _ln(d.workers),
        _ln(p.workers), _ln(p.units), _ln(p.data), _ln(p.workers * p.units / (d.workers * d.units)),
        _ln(r.prefill * queue), _ln(r.prefill * r.per_worker), split, BYTES[s.precision], float(engine == 0),
        float(engine == 2), _ln(s.hardware.bandwidth), _ln(s.hardware.fp8), float(s.hardware.domain > 8),
        _ln(r.decode + r.per_worker * r.prefill / s.output),
        log1p((0 if s.split else r.per_worker) * r.prefill / s.output / r.decode), max(filled, 0.0),
        log1p(queue * r.prefill / 200), _ln(queue) * split, _ln(queue) * (1 - split), pre * split,
        pre * (engine == 0), pre * (engine == 1), load * (engine == 0), load * (engine == 1), load**2 / 8, pre**2 / 8,
        load * pre / 8, _ln(s.prompt) * load / 16, max(filled, 0.0) * split, load * dec / 8,
    ])  # fmt: skip


def _ln(value: float) -> float:
    return log(max(value, 1e-6))
