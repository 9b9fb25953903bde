"""The same model as a graph of our own for OpenVINO, from the same weights: in float32, or in bfloat16 if declared;
questions in int8.

Texts become tokens, windows and batches as in `encoder`; only the arithmetic differs. Used only if the extra
`knowledge` is installed; `load_encoder` decides.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from groundplan.core.errors import Invalid
from groundplan.knowledge.embedding.encoder import MAX_QUESTION_BATCH, Encoder, pad_rows
from groundplan.knowledge.model import DIMENSION, Vectors

Precision = Literal["float32", "bfloat16"]
Computed = Literal["float32", "bfloat16", "int8"]
_HINTS: dict[Computed, dict[str, Any]] = {
    "float32": {"INFERENCE_PRECISION_HINT": "f32"},
    "bfloat16": {"INFERENCE_PRECISION_HINT": "bf16"},
    # number of values of a token that share a scale: more are hardly faster, and less exact
    "int8": {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 64},
}
_LENGTH_STEP = 16
"""Lengths of texts are rounded up to a multiple of so many tokens, which suits the processor's products."""
_SHORT_TOKENS = 64
"""Longest texts, in tokens, that count as short, as questions do; the size of small batches of them is rounded up to a
power of two. OpenVINO compiles each new shape, which takes as long as a question, so there are few of them."""
_SHORT_LENGTH_STEP = 8
"""As `_LENGTH_STEP`, for small batches of short texts: most questions have 14 to 24 tokens."""
_QUESTION_LENGTHS = (24, 32, 48, 64)
"""Lengths, in tokens, for which a network for a single question is compiled: a sixth to a quarter less to compute than
with one for any length. Each takes up to 30 MB, and a quarter of a second to compile."""
_EARLY_LENGTHS = (48, 80)
"""The same for questions of which only the first layers are computed: further lengths make them no faster."""
_VECTORS, _STATES = 0, 1
"""Indices of the outputs of the graph."""

_Array = NDArray[np.float32]
_Requests = queue.LifoQueue[Any]


def load_encoder(folder: Path, precision: Precision = "float32", threads: int = 2) -> Encoder:
    """The fastest encoder that is installed. Raises `Invalid` (embedding_precision) if it lacks the precision, and as
    `Encoder` does."""
    try:
        import openvino  # noqa: F401, PLC0415 -- an extra, and heavy
    except ImportError:
        if precision != "float32":
            raise Invalid(
                f"the plain encoder computes in float32 only, not in {precision}",
                code="embedding_precision",
                hint="pip install 'groundplan[knowledge]', or leave GROUNDPLAN_EMBEDDING_PRECISION out.",
            ) from None
        return Encoder(folder)
    return OpenVinoEncoder(folder, precision, threads)


def load_question_encoder(folder: Path, documents: Encoder, layers: int = 0, *, prepared: bool = True) -> Encoder:
    """The encoder of questions, beside that of documents, if the extra is installed: in int8, by OpenVINO if the
    processor has instructions for it, else by ONNX Runtime. Its vectors are within a cosine of .998 of those in float32
    (.99 for a few characters), and they are compared, never stored.

    `layers`: the number of first layers that are computed, if questions are not compared with documents; 0: all. An
    encoder that is not `prepared` is returned a second sooner, and is as fast once its `prepare` was called, by any
    thread.
    """
    if not isinstance(documents, OpenVinoEncoder):
        return Encoder(folder, layers) if layers else documents
    if _has_int8_instructions():
        encoder = OpenVinoEncoder(
            folder, "int8", single_lengths=_EARLY_LENGTHS if layers else _QUESTION_LENGTHS, layers=layers
        )
        if prepared:
            encoder.prepare()
        return encoder
    try:
        from groundplan.knowledge.embedding.onnx_encoder import OnnxEncoder  # noqa: PLC0415 -- an extra, and heavy
    except ImportError:  # the extra for OCR has OpenVINO only
        return OpenVinoEncoder(folder, layers=layers) if layers else documents
    return OnnxEncoder(folder, layers)


def _has_int8_instructions() -> bool:
    """Whether the processor has them; without, OpenVINO would widen the weights again for each question."""
    try:
        return b"avx512_vnni" in Path("/proc/cpuinfo").read_bytes()
    except OSError:
        return False


def precision_of(text: str) -> Precision:
    """A precision by its name; else `Invalid` (embedding_precision)."""
    declared: tuple[Precision, ...] = get_args(Precision)
    for known in declared:
        if text == known:
            return known
    hint = f"Choose {' or '.join(declared)}."
    raise Invalid(f"there is no precision '{text}'", code="embedding_precision", hint=hint)


class OpenVinoEncoder(Encoder):
    """An `Encoder` whose batches OpenVINO computes, as many at a time as it has threads. Threads may share it."""

    def __init__(
        self,
        folder: Path,
        precision: Computed = "float32",
        threads: int = 2,
        single_lengths: Sequence[int] = (),
        layers: int = 0,
    ) -> None:
        """`single_lengths`: ascending lengths in tokens; after `prepare`, a single text is computed by a network that
        is compiled for the next of these lengths."""
        self.precision: Computed = precision
        self._threads = threads
        self._single_lengths = single_lengths
        super().__init__(folder, layers)

    def _load(self, tensors: Any, config: dict[str, Any]) -> None:
        import openvino  # noqa: PLC0415 -- an extra, and heavy

        self._tensor = openvino.Tensor
        graph = _build_graph(_ByteGraphBuilder if self.precision == "int8" else _GraphBuilder, tensors, config)
        self._free = self._create_requests(graph)
        self._single_requests: list[tuple[int, queue.LifoQueue[_SingleTextRequest]]] = []
        self._unprepared_graph = graph if self._single_lengths else None

    def prepare(self) -> None:
        graph, self._unprepared_graph = self._unprepared_graph, None
        if graph is not None:
            for length in self._single_lengths:
                self._single_requests.append((length, self._single_text_requests(graph, length)))

    def _create_requests(self, graph: Any) -> _Requests:
        """Requests that compute a graph, one per thread."""
        hints = {
            **_HINTS[self.precision],
            "INFERENCE_NUM_THREADS": self._threads,
            "NUM_STREAMS": self._threads,
            "ENABLE_CPU_PINNING": False,
        }
        compiled = _shared_core().compile_model(graph, "CPU", hints)
        # last in, first out: the weights of the last request are in the processor's cache
        free: _Requests = queue.LifoQueue()
        for _ in range(self._threads):
            free.put(compiled.create_infer_request())
        return free

    def _single_text_requests(self, graph: Any, length: int) -> queue.LifoQueue[_SingleTextRequest]:
        """Requests that compute a single text of at most `length` tokens."""
        graph = graph.clone()
        graph.reshape({0: [1, length], 1: [1, length]})
        free: queue.LifoQueue[_SingleTextRequest] = queue.LifoQueue()
        for request in self._create_requests(graph).queue:
            free.put(_SingleTextRequest(request, length, self._tensor))
        return free

    def embed(self, texts: Sequence[str]) -> Vectors:
        if len(texts) == 1 and self._single_requests:
            ids = self._tokenizer.encode(texts[0], add_special_tokens=False).ids
            for length, free in self._single_requests:
                if len(ids) + 2 <= length:
                    return _embed_with(free, [self._first, *ids, self._last])
        return super().embed(texts)

    def _embed_batches(self, batches: Iterable[Sequence[Sequence[int]]]) -> Iterator[_Array]:
        return self._compute(batches, _VECTORS)

    def _token_states(self, batches: Iterable[Sequence[Sequence[int]]]) -> Iterator[_Array]:
        return self._compute(batches, _STATES)

    def _compute(self, batches: Iterable[Sequence[Sequence[int]]], output: int) -> Iterator[_Array]:
        running: deque[Any] = deque()
        try:
            for rows in batches:
                longest = max(map(len, rows))
                request = _take_request(self._free, running)
                while request is None:
                    yield self._result(running.popleft(), output)
                    request = _take_request(self._free, running)
                few = len(rows) <= MAX_QUESTION_BATCH and longest <= _SHORT_TOKENS
                least = 1 << (len(rows) - 1).bit_length() if few else 0
                try:
                    for place, array in enumerate(pad_rows(rows, _SHORT_LENGTH_STEP if few else _LENGTH_STEP, least)):
                        request.set_input_tensor(place, self._tensor(array))
                    request.start_async()
                except BaseException:
                    self._free.put(request)
                    raise
                running.append(request)
            while running:
                yield self._result(running.popleft(), output)
        finally:
            for request in running:
                with suppress(RuntimeError):  # its result is not needed any more
                    request.wait()
                self._free.put(request)

    def _result(self, request: Any, output: int) -> _Array:
        try:
            request.wait()
            found: _Array = request.get_output_tensor(output).data.copy()
        finally:
            self._free.put(request)  # after an error too: there are only as many requests as threads
        return found


class _SingleTextRequest:
    """A request for a single text, with fixed memory for its input and output: for a text as short as a question,
    passing new memory each time takes a considerable part of the time."""

    def __init__(self, request: Any, length: int, tensor: Any) -> None:
        ids, mask = np.zeros((1, length), np.int64), np.zeros((1, length), np.float32)
        mask[0, 0] = 1  # the mean of an empty row would be NaN
        for place, array in enumerate((ids, mask)):
            request.set_input_tensor(place, tensor(array, shared_memory=True))
        request.infer()
        self._request, self._ids, self._mask = request, ids[0], mask[0]
        self._vectors: Vectors = request.get_output_tensor(_VECTORS).data

    def vector(self, tokens: Sequence[int]) -> Vectors:
        """The unit vector of these tokens, (1, 384)."""
        count = len(tokens)
        self._ids[:count], self._ids[count:] = tokens, 0
        self._mask[:count], self._mask[count:] = 1, 0
        self._request.start_async()
        self._request.wait()
        return self._vectors.copy()


def _embed_with(free: queue.LifoQueue[_SingleTextRequest], tokens: Sequence[int]) -> Vectors:
    """The vector of the tokens, computed by the next free request."""
    request = free.get()
    try:
        return request.vector(tokens)
    finally:
        free.put(request)


_CORE_LOCK = threading.Lock()


def _shared_core() -> Any:
    """The only core of OpenVINO in this process, which is never released. A core gives the thread that creates it a
    signal stack, frees that when it is destroyed, and leaves the thread with the stack of another core, which may be
    freed already: the next signal would then overwrite other memory."""
    with _CORE_LOCK:
        return _create_core()


@cache
def _create_core() -> Any:
    import openvino  # noqa: PLC0415 -- an extra, and heavy

    return openvino.Core()


def _take_request(free: _Requests, running: Collection[object]) -> Any:
    """A free request; None if there is none and the caller holds some itself, so that nobody waits while holding
    one."""
    with suppress(queue.Empty):
        return free.get(block=not running)
    return None


def _build_graph(builder: type[_GraphBuilder], tensors: Any, config: dict[str, Any]) -> Any:
    """The graph of the model. Inputs: ids (batch, length) int64, mask (batch, length) float32; outputs: unit vectors
    (batch, 384), and the states of each token after the last layer (batch, length, 384)."""
    import openvino as ov  # noqa: PLC0415 -- an extra, and heavy
    from openvino import opset13 as op  # noqa: PLC0415

    parts = builder(op, tensors, int(config["num_attention_heads"]), float(config["layer_norm_eps"]))
    any_size = ov.PartialShape([-1, -1])
    ids = op.parameter(any_size, np.int64, name="ids")
    mask = op.parameter(any_size, np.float32, name="mask")
    hidden = parts.input_states(ids)
    masked = op.unsqueeze(mask, parts.axes(1, 2))
    bias = op.multiply(op.subtract(parts.number(1.0), masked), parts.number(-1e9))
    for layer in range(int(config["num_hidden_layers"])):
        hidden = parts.layer(f"encoder.layer.{layer}.", hidden, bias)
    weights = op.unsqueeze(mask, parts.axes(2))
    summed = op.reduce_sum(op.multiply(hidden, weights), parts.axes(1), False)
    pooled = op.divide(summed, op.reduce_sum(weights, parts.axes(1), False))
    vectors = op.normalize_l2(pooled, parts.axes(1), 1e-24, "max")
    return ov.Model([vectors, hidden], [ids, mask], "all-minilm-l6-v2")


class _GraphBuilder:
    """Builds the parts of the graph, with their weights."""

    def __init__(self, op: Any, tensors: Any, heads: int, epsilon: float) -> None:
        self._op, self._tensors, self._heads, self._epsilon = op, tensors, heads, epsilon

    def axes(self, *numbers: int) -> Any:
        return self._op.constant(np.array(numbers, dtype=np.int64))

    def number(self, value: float) -> Any:
        return self._op.constant(np.float32(value))

    def _weight(self, name: str) -> _Array:
        return np.asarray(self._tensors.get_tensor(name), dtype=np.float32)

    def _row_constant(self, name: str) -> Any:
        return self._op.constant(self._weight(name).reshape(1, 1, -1))

    def input_states(self, ids: Any) -> Any:
        """The embeddings of words with their positions; all input is segment 0."""
        op = self._op
        table = self._weight("embeddings.word_embeddings.weight")
        if table.shape[1] != DIMENSION:
            raise ValueError(f"vectors of {table.shape[1]} instead of {DIMENSION}")
        words = op.gather(op.constant(table), ids, op.constant(np.int64(0)))
        places = self._weight("embeddings.position_embeddings.weight")
        places = places + self._weight("embeddings.token_type_embeddings.weight")[0]
        length = op.gather(op.shape_of(ids), self.axes(1), op.constant(np.int64(0)))
        used = op.slice(op.constant(places), self.axes(0), length, self.axes(1), self.axes(0))
        return self._normalise(op.add(words, op.unsqueeze(used, self.axes(0))), "embeddings.LayerNorm")

    def layer(self, prefix: str, hidden: Any, bias: Any) -> Any:
        """One transformer layer."""
        op = self._op
        # all three in one product: for a text as short as a question, starting a product takes a part of the time
        mixed = self._dense(hidden, *(f"{prefix}attention.self.{name}" for name in ("query", "key", "value")))
        split = [self._split(each) for each in op.split(mixed, op.constant(np.int64(2)), 3).outputs()]
        attended = op.transpose(op.scaled_dot_product_attention(*split, bias), self.axes(0, 2, 1, 3))
        attended = op.reshape(attended, self.axes(0, 0, DIMENSION), True)
        mixed = op.add(hidden, self._dense(attended, f"{prefix}attention.output.dense"))
        mixed = self._normalise(mixed, f"{prefix}attention.output.LayerNorm")
        inner = op.gelu(self._dense(mixed, f"{prefix}intermediate.dense"), "erf")
        return self._normalise(op.add(mixed, self._dense(inner, f"{prefix}output.dense")), f"{prefix}output.LayerNorm")

    def _split(self, values: Any) -> Any:
        """(batch, length, 384) to (batch, heads, length, part)."""
        shape = self.axes(0, 0, self._heads, DIMENSION // self._heads)
        return self._op.transpose(self._op.reshape(values, shape, True), self.axes(0, 2, 1, 3))

    def _dense(self, values: Any, *names: str) -> Any:
        """The outputs of these dense layers for the values, concatenated along the last axis."""
        op = self._op
        weights = self._weight_node(np.concatenate([self._weight(f"{name}.weight") for name in names]))
        bias = np.concatenate([self._weight(f"{name}.bias") for name in names]).reshape(1, 1, -1)
        return op.add(op.matmul(values, weights, False, True), op.constant(bias))

    def _weight_node(self, weights: _Array) -> Any:
        """The node with the weights (out, in) of a product."""
        return self._op.constant(weights)

    def _normalise(self, values: Any, name: str) -> Any:
        op = self._op
        centred = op.mvn(values, self.axes(-1), True, self._epsilon, "inside_sqrt")
        return op.add(op.multiply(centred, self._row_constant(f"{name}.weight")), self._row_constant(f"{name}.bias"))


class _ByteGraphBuilder(_GraphBuilder):
    """As `_GraphBuilder`, with the weights of products in int8 and a scale per row, which OpenVINO multiplies so."""

    def _weight_node(self, weights: _Array) -> Any:
        op = self._op
        scale = np.abs(weights).max(axis=1, keepdims=True) / np.float32(127)
        quantised = op.constant(np.rint(weights / scale).astype(np.int8))
        return op.multiply(op.convert(quantised, "f32"), op.constant(scale))
