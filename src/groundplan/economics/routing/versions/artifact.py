"""The learned router as bytes, and back: msgpack with arrays of 16-bit floats; checked, small, never a pickle."""

from __future__ import annotations

from math import inf
from typing import Any

import msgspec
import numpy as np

from groundplan.core.errors import Invalid
from groundplan.economics.routing.decide import forest as forests
from groundplan.economics.routing.decide.features import BRIEF, BUCKETS, CONTEXT, SURFACE
from groundplan.economics.routing.model import Floats, Forest, Hashes, Head, Kernel, Layers, Router

FORMAT = 9
READ = (2, 3, 4, 5, 6, 7, 8, 9)
"""Formats that are read. The second has no kernel, and its trees look at directions of embeddings in place of what
regressions expect. Before the fourth, words are known by their buckets, nothing is told of
what calls are for, and what came before a question is counted in bytes of the request. Before the fifth, what has no
space in it is one word, whatever its writing. Before the sixth, white space, capitals and the last sign count.
Before the seventh, so does what is said to be polite. Before the eighth, embedded words have any number of tokens.
Before the ninth, they are embedded by all layers of their model."""
_MOST_BYTES = 64 << 20


class _Array(msgspec.Struct, frozen=True, array_like=True):
    shape: list[int]
    data: bytes


class _Kernel(msgspec.Struct, frozen=True, array_like=True):
    """`weights` are float32, little-endian: large ones cancel each other."""

    mean: list[float]
    deviation: list[float]
    reach: list[float]
    landmarks: _Array
    weights: bytes
    bias: list[float]


class _Head(msgspec.Struct, frozen=True, array_like=True):
    weights: _Array
    bias: list[float]
    slope: list[float]
    offset: list[float]
    blend: tuple[float, ...]
    alone: list[list[float]] = []
    kernel: _Kernel | None = None


class _Forest(msgspec.Struct, frozen=True, array_like=True):
    """Arrays of (trees, nodes): int16 and float32, little-endian."""

    shape: tuple[int, int]
    feature: bytes
    threshold: bytes
    left: bytes
    right: bytes
    value: bytes
    owner: bytes
    parts: int
    depth: int


class _Router(msgspec.Struct, frozen=True):
    format: int
    name: str
    version: int
    models: list[str]
    mean_scores: list[float]
    mean_costs: list[float]
    strongest: int
    idf: _Array
    surface_mean: list[float]
    surface_scale: list[float]
    centre: list[float]
    landmarks: _Array
    text: _Head
    full: _Head | None
    trees: _Forest | None
    components: _Array
    meant: _Forest | None
    strange_words: float
    strange_likeness: float
    points: dict[str, tuple[float, float]]
    trained: dict[str, str]
    words: bytes = b""
    """uint32, little-endian"""
    doubted: dict[str, list[tuple[float, float]]] = {}
    tasks: bool = False
    brief: tuple[int, int] = BRIEF
    """Counts of first and last words of a question that were embedded."""
    tokens: int = 0
    """Limit of tokens that were embedded; 0: all."""
    layers: Layers = 0
    """Layers of the embedding model; 0: all."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Router).decode


def dump(router: Router) -> bytes:
    """The bytes of a router; equal routers give equal bytes. Raises `Invalid` (`router_models`) if they are too many to
    be read."""
    check_size(len(router.models), embedded=router.full is not None)
    return _encode(
        _Router(
            format=FORMAT,
            name=router.name,
            version=router.version,
            models=list(router.models),
            mean_scores=_list(router.mean_scores),
            mean_costs=_list(router.mean_costs),
            strongest=router.strongest,
            idf=_packed(router.idf),
            surface_mean=_list(router.surface_mean),
            surface_scale=_list(router.surface_scale),
            centre=_list(router.centre),
            landmarks=_packed(router.landmarks),
            text=_head(router.text),
            full=None if router.full is None else _head(router.full),
            trees=None if router.trees is None else _grown(router.trees),
            components=_packed(router.components),
            meant=None if router.meant is None else _grown(router.meant),
            strange_words=router.strange_words,
            strange_likeness=router.strange_likeness,
            points=dict(sorted(router.points.items())),
            trained=dict(sorted(router.trained.items())),
            words=router.words.astype("<u4").tobytes(),
            doubted=dict(sorted(router.doubted.items())),
            tasks=router.tasks,
            tokens=router.tokens,
            layers=router.layers,
        )
    )


def check_size(models: int, *, embedded: bool) -> None:
    """Raise `Invalid` (`router_models`) for too many models for an artifact."""
    room = _MOST_BYTES // (4 * BUCKETS * (1 + embedded)) - 1
    if models > room:
        raise Invalid(
            f"a router of {models} models would be too large; {room} have room",
            code="router_models",
            hint="Leave out models that are never the best for what they cost.",
        )


def load(data: bytes) -> Router:
    """Load a router. Raises `Invalid` (`router_artifact`) if the bytes are none of a format that this version reads."""
    if len(data) > _MOST_BYTES:
        raise _bad("it is too large")
    try:
        found = _decode(data)
        router = _unpacked(found)
    except (msgspec.MsgspecError, ValueError, TypeError, OverflowError) as error:
        raise _bad(str(error)) from error
    return router


def _bad(reason: str) -> Invalid:
    return Invalid(
        f"this is not a learned router: {reason}"[:300],
        code="router_artifact",
        hint="Train it again with `groundplan routing train`.",
    )


def _unpacked(found: _Router) -> Router:
    models = len(found.models)
    if found.format not in READ or models < 2 or not 0 <= found.strongest < models:
        raise ValueError(f"format {found.format} with {models} models")
    if not len(found.mean_scores) == len(found.mean_costs) == models or not all(0 < c < inf for c in found.mean_costs):
        raise ValueError("its models and their costs do not fit")
    idf, centre = _array(found.idf), np.array(found.centre, dtype=np.float32)
    shape = np.array(found.surface_mean, dtype=np.float32), np.array(found.surface_scale, dtype=np.float32)
    shaped = len(shape[0])
    if idf.shape != (BUCKETS,) or shape[1].shape != (shaped,) or shaped not in (SURFACE, SURFACE + CONTEXT):
        raise ValueError("its features are of another version")
    if not _finite(idf, centre, *shape, *found.mean_scores, found.strange_words, found.strange_likeness):
        raise ValueError("its features are no numbers")
    _check_read(found)
    landmarks = _landmarks(found)
    components = _array(found.components)
    if components.ndim != 2 or components.shape[0] != len(centre) * bool(components.shape[1]):
        raise ValueError("its components are of another size")
    text = _checked(found.text, models, shaped)
    full = None if found.full is None else _checked(found.full, models, shaped, len(centre))
    for head, trees in ((text, found.trees), (full, found.meant)):
        if head is not None and trees is not None and len(head.blend) != (4 if head.kernel is None else 6):
            raise ValueError("its predictors are not weighed")
    looked = shaped + text.alone.size, shaped + components.shape[1] + (0 if full is None else full.alone.size)
    return Router(
        name=found.name,
        version=found.version,
        models=tuple(found.models),
        mean_scores=np.array(found.mean_scores, dtype=np.float32),
        mean_costs=np.array(found.mean_costs, dtype=np.float32),
        strongest=found.strongest,
        idf=idf,
        surface_mean=shape[0],
        surface_scale=shape[1],
        centre=centre,
        landmarks=landmarks,
        text=text,
        full=full,
        trees=None if found.trees is None else _planted(found.trees, models, looked[0]),
        components=components,
        meant=None if found.meant is None else _planted(found.meant, models, looked[1]),
        strange_words=found.strange_words,
        strange_likeness=found.strange_likeness,
        points=found.points,
        trained=found.trained,
        words=_words(found),
        doubted=found.doubted,
        tasks=found.tasks,
        texts=found.format >= 4,
        apart=found.format >= 5,
        plain=found.format >= 6,
        bare=found.format >= 7,
        tokens=found.tokens if found.format >= 8 else 0,
        layers=found.layers if found.format >= 9 else 0,
    )


def _landmarks(found: _Router) -> Floats:
    """The landmarks; with embeddings each prompt must be near one of them."""
    landmarks, width = _array(found.landmarks), len(found.centre)
    fits = landmarks.ndim == 2 and (not width or (len(landmarks) and landmarks.shape[1] == width))
    if not fits or not _finite(landmarks):
        raise ValueError("its landmarks are of another size")
    return landmarks


def _check_read(found: _Router) -> None:
    """Raise `ValueError` for parameters with which prompts cannot be read or models chosen."""
    if min(found.surface_scale) <= 0:
        raise ValueError("its surface has no scale")
    if found.full is not None and found.brief != BRIEF:
        raise ValueError(f"the first {found.brief[0]} and last {found.brief[1]} words of its questions were embedded")
    for name, point in found.points.items():
        if not 0 < float(name) <= 1 or not _finite(*point):
            raise ValueError("its operating points are no numbers")
    if not all(low <= high for parts in found.doubted.values() for low, high in parts):
        raise ValueError("what it doubts has no order")


def _words(found: _Router) -> Hashes:
    if found.format < 4:
        return np.zeros(0, dtype=np.uint32)
    words = np.frombuffer(found.words, dtype="<u4").astype(np.uint32)
    if not len(words) or not (words[1:] > words[:-1]).all():
        raise ValueError("its words are not in order")
    return words


def _finite(*parts: Floats | float) -> bool:
    return all(bool(np.isfinite(part).all()) for part in parts)


def _checked(found: _Head, models: int, shaped: int, width: int = 0) -> Head:
    """A predictor; `shaped`: columns of the surface, `width`: of the embedding."""
    weights, regressions = _array(found.weights), 2 if width else 1
    if weights.shape != (BUCKETS + shaped + width, 2 * models) or len(found.bias) != 2 * models:
        raise ValueError("a predictor has another shape")
    if len(found.slope) != models or len(found.offset) != models or not np.isfinite(weights).all():
        raise ValueError("a predictor is not calibrated")
    alone = np.array(found.alone, dtype=np.float32) if found.alone else np.zeros((0, 0), dtype=np.float32)
    if alone.size and (alone.shape != (regressions, models) or not np.isfinite(alone).all()):
        raise ValueError("what its trees look at has another shape")
    bias, slope, offset = (np.array(part, dtype=np.float32) for part in (found.bias, found.slope, found.offset))
    if not _finite(bias, slope, offset, *found.blend):
        raise ValueError("a predictor is no numbers")
    kernel = None if found.kernel is None else _near(found.kernel, models, shaped + alone.size, width)
    return Head(weights, bias, slope, offset, found.blend, alone, kernel)


def _near(found: _Kernel, models: int, columns: int, width: int) -> Kernel:
    landmarks = _array(found.landmarks)
    if landmarks.ndim != 2 or landmarks.shape[1] != columns + width or not np.isfinite(landmarks).all():
        raise ValueError("its landmarks are of another size")
    weights = np.frombuffer(found.weights, dtype="<f4").astype(np.float32).reshape(len(landmarks), models)
    bias = np.array(found.bias, dtype=np.float32)
    mean, deviation, reach = (np.array(p, dtype=np.float32) for p in (found.mean, found.deviation, found.reach))
    if bias.shape != (models,) or any(part.shape != (columns,) for part in (mean, deviation, reach)):
        raise ValueError("its kernel is of another shape")
    if not all(np.isfinite(part).all() for part in (weights, bias, mean, deviation, reach)) or deviation.min() <= 0:
        raise ValueError("its kernel is no numbers")
    return Kernel(mean, deviation, reach, landmarks, np.square(landmarks).sum(axis=1), weights, bias)


def _planted(found: _Forest, models: int, columns: int) -> Forest:
    """The trees, after a check that every path ends in a leaf."""
    trees, nodes = found.shape
    whole = [np.frombuffer(data, dtype="<i2").astype(np.int64) for data in (found.feature, found.left, found.right)]
    feature, left, right = (part.reshape(trees, nodes) for part in whole)
    threshold, value = (
        np.frombuffer(data, dtype="<f4").astype(np.float32).reshape(trees, nodes)
        for data in (found.threshold, found.value)
    )
    owner = np.frombuffer(found.owner, dtype="<i2").astype(np.int64)
    inside = all(part.min() >= 0 and part.max() < nodes for part in (left, right))
    if not inside or feature.min() < 0 or feature.max() >= columns or not 0 <= found.depth <= nodes:
        raise ValueError("its trees are broken")
    if found.parts != models or owner.shape != (trees,) or owner.min() < 0 or owner.max() >= models:
        raise ValueError("its trees are of other models")
    if not (np.isfinite(threshold).all() and np.isfinite(value).all()):
        raise ValueError("its trees are no numbers")
    return forests.build_forest(feature, threshold, left, right, value, owner, found.parts, found.depth)


def _grown(forest: Forest) -> _Forest:
    whole = (part.astype("<i2").tobytes() for part in (forest.feature, forest.left, forest.right, forest.owner))
    feature, left, right, owner = whole
    threshold, value = (part.astype("<f4").tobytes() for part in (forest.threshold, forest.value))
    shape = (len(forest.owner), forest.feature.shape[1])
    return _Forest(shape, feature, threshold, left, right, value, owner, forest.parts, forest.depth)


def _head(head: Head) -> _Head:
    bias, slope, offset = _list(head.bias), _list(head.slope), _list(head.offset)
    alone = [_list(each) for each in head.alone]
    kernel = None if head.kernel is None else _spread(head.kernel)
    return _Head(_packed(head.weights), bias, slope, offset, head.blend, alone, kernel)


def _spread(kernel: Kernel) -> _Kernel:
    mean, deviation, reach = _list(kernel.mean), _list(kernel.deviation), _list(kernel.reach)
    weights = kernel.weights.astype("<f4").tobytes()
    return _Kernel(mean, deviation, reach, _packed(kernel.landmarks), weights, _list(kernel.bias))


def _list(values: Floats) -> list[float]:
    return [float(value) for value in values]


def _packed(values: Floats) -> _Array:
    return _Array(list(values.shape), values.astype("<f2").tobytes())


def _array(found: _Array) -> Floats:
    values: Any = np.frombuffer(found.data, dtype="<f2").astype(np.float32)
    return np.asarray(values.reshape(found.shape), dtype=np.float32)
