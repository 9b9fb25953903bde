"""The encoder of questions in int8 for processors without instructions for int8 products: the layers as a graph of our
own for ONNX Runtime, from the same weights.

Each number of a product's input is divided, and its weights are multiplied, by a factor that makes both about equally
hard to quantise (as SmoothQuant, Xiao et al. 2023, equation 4, but by the usual size of inputs instead of the largest):
else a few outliers would take the range of a byte. The output of the inner layer varies most between tokens and has a
scale per token. Documents are embedded elsewhere, in the precision that they are stored in. Imported only if the extra
`knowledge` is installed.
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

_SMOOTHING: Final = 0.6
"""SmoothQuant's exponent: the factor is the size of inputs to this power, by the largest weight to 1 minus it. The
vectors of 472 questions have a cosine to float32 of .9985 at least; with .5, of .9975."""
_MIN_SIZE: Final = 1e-5
_CALIBRATION_SHAPE: Final = (40, 20)
"""(texts, tokens of each) of random words from which the sizes of inputs are measured: the results are as near to
float32 as with real questions."""
_UNUSED_TOKENS: Final = 1000
"""Number of the vocabulary's first entries that are no words."""
_STEPS: Final = 255
_OPSET: Final = 20
_IR: Final = 10
_MICROSOFT: Final = "com.microsoft"
"""The domain of ONNX Runtime's fused operators."""

_Array = NDArray[np.float32]
_EMBEDDED, _LAST = "embedded", "states"


class OnnxEncoder(Encoder):
    """An `Encoder` for questions: it computes text by text. Threads may share it."""

    precision = "int8"

    def _load(self, tensors: Any, config: dict[str, Any]) -> None:
        super()._load(tensors, config)
        self._sizes: dict[int, _Array] = {}
        ids = _random_texts(self._first, self._last, len(self._words))
        super()._run_layers(ids, np.ones(ids.shape, np.float32))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3  # errors are raised
        graph = _GraphBuilder(self._heads, float(self._epsilon), self._layers, self._sizes)
        self._session = onnxruntime.InferenceSession(graph.model(), options, providers=["CPUExecutionProvider"])
        self._layers = ()
        self._sizes = {}

    def _product(self, values: _Array, weights: _Array, bias: _Array) -> _Array:
        """Record the size of each number of the input, while the layers are still those of numpy."""
        rows = values.reshape(-1, values.shape[-1])
        self._sizes[id(weights)] = np.maximum(np.sqrt(np.square(rows).mean(axis=0)), _MIN_SIZE)
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


def _random_texts(first: int, last: int, words: int) -> NDArray[np.int64]:
    """Texts of random words, between their markers."""
    ids = np.random.default_rng(1).integers(_UNUSED_TOKENS, words, size=_CALIBRATION_SHAPE)
    ids[:, 0], ids[:, -1] = first, last
    return ids


class _GraphBuilder:
    """Builds the graph of all layers. Input: embeddings of words with positions, (1, length, 384); output: the states
    after the last layer, of the same shape."""

    def __init__(self, heads: int, epsilon: float, layers: Sequence[Layer], sizes: dict[int, _Array]) -> None:
        """`sizes`: id of a product's weights -> the size of each number of its input."""
        self._heads, self._epsilon, self._sizes = heads, epsilon, sizes
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._value_numbers = count()
        hidden = _EMBEDDED
        for layer in layers:
            hidden = self._layer(layer, hidden)
        self._nodes.append(helper.make_node("Identity", [hidden], [_LAST]))

    def model(self) -> bytes:
        """The serialised ONNX model."""
        shape: list[str | int | None] = [1, "length", DIMENSION]
        graph = helper.make_graph(
            self._nodes, "layers",
            [helper.make_tensor_value_info(_EMBEDDED, TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(_LAST, TensorProto.FLOAT, shape)],
            self._constants,
        )  # fmt: skip
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_MICROSOFT, 1)]
        serialised: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=_IR).SerializeToString()
        return serialised

    def _layer(self, layer: Layer, hidden: str) -> str:
        mixed = self._dense(hidden, layer.qkv, layer.qkv_bias)
        parts = [self._name() for _ in range(3)]
        self._nodes.append(helper.make_node("Split", [mixed], parts, axis=2, num_outputs=3))
        attended = self._node("MultiHeadAttention", parts, _MICROSOFT, num_heads=self._heads)
        # the output of attention is a mean of values, so it has no outliers
        output = self._byte_product(attended, layer.attended, layer.attended_bias)
        hidden = self._normalise_sum(hidden, output, layer.attended_scale, layer.attended_shift)
        inner = self._node("Gelu", [self._dense(hidden, layer.wide, layer.wide_bias)])
        output = self._dense(inner, layer.narrow, layer.narrow_bias, by_token=True)
        return self._normalise_sum(hidden, output, layer.scale, layer.shift)

    def _dense(self, values: str, weights: _Array, bias: _Array, *, by_token: bool = False) -> str:
        """A product with weights (in, out), with inputs and weights balanced for quantisation. `by_token`: with a scale
        per token."""
        factor = self._sizes[id(weights)] ** _SMOOTHING / _largest_weights(weights) ** (1 - _SMOOTHING)
        factor = (factor / np.exp(np.log(factor).mean())).astype(np.float32)
        values, weights = self._node("Mul", [values, self._constant(1 / factor)]), weights * factor[:, None]
        if not by_token:
            return self._byte_product(values, weights, bias)
        largest = self._node("ReduceMax", [values, self._constant(np.array([2]))], keepdims=1)
        scale = self._node("Max", [largest, self._constant(np.array(_MIN_SIZE, np.float32))])
        product = self._byte_product(self._node("Div", [values, scale]), weights)
        return self._node("Add", [self._node("Mul", [product, scale]), self._constant(bias)])

    def _byte_product(self, values: str, weights: _Array, *bias: _Array) -> str:
        """A product in int8: with a scale and a zero point per column of the weights, and one for all values."""
        low, high = np.minimum(weights.min(axis=0), 0), np.maximum(weights.max(axis=0), _MIN_SIZE)
        scale = ((high - low) / _STEPS).astype(np.float32)
        zero = np.rint(-low / scale)
        quantised = np.clip(np.rint(weights / scale) + zero, 0, _STEPS)
        numbers = [self._constant(one) for one in (quantised.astype(np.uint8), scale, zero.astype(np.uint8), *bias)]
        return self._node("DynamicQuantizeMatMul", [values, *numbers], _MICROSOFT)

    def _normalise_sum(self, hidden: str, more: str, scale: _Array, shift: _Array) -> str:
        """The sum of both, normalised."""
        inputs = [hidden, more, self._constant(scale), self._constant(shift)]
        return self._node("SkipLayerNormalization", inputs, _MICROSOFT, epsilon=self._epsilon)

    def _node(self, operator: str, inputs: list[str], domain: str = "", **attributes: Any) -> str:
        name = self._name()
        self._nodes.append(helper.make_node(operator, inputs, [name], domain=domain, **attributes))
        return name

    def _constant(self, array: NDArray[Any]) -> str:
        name = f"number{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def _name(self) -> str:
        return f"value{next(self._value_numbers)}"


def _largest_weights(weights: _Array) -> _Array:
    """For each number of the input, the largest of its weights."""
    return np.asarray(np.maximum(np.abs(weights).max(axis=1), _MIN_SIZE))
