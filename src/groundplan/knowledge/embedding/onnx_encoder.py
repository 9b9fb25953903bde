"""Questions in bytes where the processor has no instruction for products of bytes: the layers as a graph of our own
for ONNX Runtime, from the same weights.

Each number of a product's input is divided, and the weights that it meets are multiplied, by what makes both about
equally hard to tell in a byte (as SmoothQuant, Xiao et al. 2023, equation 4, but by the usual size of inputs instead
of the largest): else the few numbers that are far larger than all others take the byte's range. What comes of the inner
layer differs most from token to token and has a scale for each. Documents are embedded elsewhere, in the precision that
they are kept in. Imported only where the extra `knowledge` is installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any, Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from groundplan.knowledge.embedding.encoder import WINDOW_TOKENS, Encoder, Layer
from groundplan.knowledge.model import DIMENSION, Vectors

_SHARE: Final = 0.6
"""How much of what makes inputs hard to tell is moved to weights: their size to this power, by the largest of the
weights to the rest of 1. The vectors of 472 questions have a cosine to float32 of .9985 at least; at .5 of .9975."""
_LEAST: Final = 1e-5
_DRAWN: Final = (40, 20)
"""Texts of words drawn at random, and tokens of each, that tell how large the inputs of products are: what comes of it
is as near to float32 as with real questions."""
_UNUSED: Final = 1000
"""The first so many of the vocabulary stand for no word."""
_STEPS: Final = 255
_OPSET: Final = 20
_IR: Final = 10
_MICROSOFT: Final = "com.microsoft"
"""Whose operators join what ONNX's own do one after the other; a part of ONNX Runtime."""

_Array = NDArray[np.float32]
_EMBEDDED, _LAST = "embedded", "states"


class OnnxEncoder(Encoder):
    """An `Encoder` for questions: it computes text by text. Threads may share it."""

    precision = "int8"

    def _load(self, tensors: Any, config: dict[str, Any]) -> None:
        super()._load(tensors, config)
        self._sizes: dict[int, _Array] = {}
        ids = _drawn(self._first, self._last, len(self._words))
        super()._run_layers(ids, np.ones(ids.shape, np.float32))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3  # errors are raised
        graph = _Graph(self._heads, float(self._epsilon), self._layers, self._sizes)
        self._session = onnxruntime.InferenceSession(graph.model(), options, providers=["CPUExecutionProvider"])
        self._layers = ()
        self._sizes = {}

    def _product(self, values: _Array, weights: _Array, bias: _Array) -> _Array:
        """While the layers are still those of numpy: notes how large each number of the input is."""
        rows = values.reshape(-1, values.shape[-1])
        self._sizes[id(weights)] = np.maximum(np.sqrt(np.square(rows).mean(axis=0)), _LEAST)
        return super()._product(values, weights, bias)

    def embed(self, texts: Sequence[str]) -> Vectors:
        if len(texts) == 1:
            ids = self._tokenizer.encode(texts[0], add_special_tokens=False).ids
            if len(ids) + 2 <= WINDOW_TOKENS:
                return self._forward([[self._first, *ids, self._last]])
        return super().embed(texts)

    def _run_layers(self, ids: NDArray[np.int64], mask: _Array) -> _Array:
        hidden = self._input_states(ids)
        for row, real in zip(hidden, mask.sum(axis=1).astype(int), strict=True):
            row[:real] = self._session.run(None, {_EMBEDDED: row[None, :real]})[0][0]
        return hidden


def _drawn(first: int, last: int, words: int) -> NDArray[np.int64]:
    """Texts of any words, between their marks."""
    ids = np.random.default_rng(1).integers(_UNUSED, words, size=_DRAWN)
    ids[:, 0], ids[:, -1] = first, last
    return ids


class _Graph:
    """Input: (1, length, 384), of words at their places; output: the same shape, what the last layer makes of it."""

    def __init__(self, heads: int, epsilon: float, layers: Sequence[Layer], sizes: dict[int, _Array]) -> None:
        """`sizes`: of each number of a product's input, by the identity of its weights."""
        self._heads, self._epsilon, self._sizes = heads, epsilon, sizes
        self._nodes: list[Any] = []
        self._numbers: list[Any] = []
        self._named = count()
        hidden = _EMBEDDED
        for layer in layers:
            hidden = self._layer(layer, hidden)
        self._nodes.append(helper.make_node("Identity", [hidden], [_LAST]))

    def model(self) -> bytes:
        """As ONNX writes it."""
        shape: list[str | int | None] = [1, "length", DIMENSION]
        graph = helper.make_graph(
            self._nodes, "layers",
            [helper.make_tensor_value_info(_EMBEDDED, TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(_LAST, TensorProto.FLOAT, shape)],
            self._numbers,
        )  # fmt: skip
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_MICROSOFT, 1)]
        serialised: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=_IR).SerializeToString()
        return serialised

    def _layer(self, layer: Layer, hidden: str) -> str:
        mixed = self._dense(hidden, layer.qkv, layer.qkv_bias)
        parts = [self._name() for _ in range(3)]
        self._nodes.append(helper.make_node("Split", [mixed], parts, axis=2, num_outputs=3))
        attended = self._node("MultiHeadAttention", parts, _MICROSOFT, num_heads=self._heads)
        # what attention gives is a mean of values: none of its numbers is much larger than the others
        told = self._bytes(attended, layer.attended, layer.attended_bias)
        hidden = self._normal(hidden, told, layer.attended_scale, layer.attended_shift)
        inner = self._node("Gelu", [self._dense(hidden, layer.wide, layer.wide_bias)])
        told = self._dense(inner, layer.narrow, layer.narrow_bias, by_token=True)
        return self._normal(hidden, told, layer.scale, layer.shift)

    def _dense(self, values: str, weights: _Array, bias: _Array, *, by_token: bool = False) -> str:
        """A product, as hard to tell by its inputs as by its weights (in, out)."""
        factor = self._sizes[id(weights)] ** _SHARE / _most(weights) ** (1 - _SHARE)
        factor = (factor / np.exp(np.log(factor).mean())).astype(np.float32)
        values, weights = self._node("Mul", [values, self._number(1 / factor)]), weights * factor[:, None]
        if not by_token:
            return self._bytes(values, weights, bias)
        largest = self._node("ReduceMax", [values, self._number(np.array([2]))], keepdims=1)
        scale = self._node("Max", [largest, self._number(np.array(_LEAST, np.float32))])
        product = self._bytes(self._node("Div", [values, scale]), weights)
        return self._node("Add", [self._node("Mul", [product, scale]), self._number(bias)])

    def _bytes(self, values: str, weights: _Array, *bias: _Array) -> str:
        """A product of bytes: a scale and a zero for each column of the weights, and one for all the values."""
        least, most = np.minimum(weights.min(axis=0), 0), np.maximum(weights.max(axis=0), _LEAST)
        scale = ((most - least) / _STEPS).astype(np.float32)
        zero = np.rint(-least / scale)
        told = np.clip(np.rint(weights / scale) + zero, 0, _STEPS)
        numbers = [self._number(one) for one in (told.astype(np.uint8), scale, zero.astype(np.uint8), *bias)]
        return self._node("DynamicQuantizeMatMul", [values, *numbers], _MICROSOFT)

    def _normal(self, hidden: str, more: str, scale: _Array, shift: _Array) -> str:
        """Both together, normalised."""
        inputs = [hidden, more, self._number(scale), self._number(shift)]
        return self._node("SkipLayerNormalization", inputs, _MICROSOFT, epsilon=self._epsilon)

    def _node(self, operator: str, inputs: list[str], domain: str = "", **attributes: Any) -> str:
        name = self._name()
        self._nodes.append(helper.make_node(operator, inputs, [name], domain=domain, **attributes))
        return name

    def _number(self, array: NDArray[Any]) -> str:
        name = f"number{len(self._numbers)}"
        self._numbers.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def _name(self) -> str:
        return f"value{next(self._named)}"


def _most(weights: _Array) -> _Array:
    """Of each number of the input, the largest weight that it meets."""
    return np.asarray(np.maximum(np.abs(weights).max(axis=1), _LEAST))
