"""The same model as a graph of our own for OpenVINO, from the same weights: in float32, or in bfloat16 if declared;
questions in bytes.

Texts become tokens, windows and batches as in `encoder`; only the arithmetic is done elsewhere. Imported only where the
extra `knowledge` is installed; `load_encoder` decides.
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
from groundplan.knowledge.embedding.encoder import FEW_TEXTS, Encoder, pad_rows
from groundplan.knowledge.model import DIMENSION, Vectors

Precision = Literal["float32", "bfloat16"]
Computed = Literal["float32", "bfloat16", "int8"]
_HINTS: dict[Computed, dict[str, Any]] = {
    "float32": {"INFERENCE_PRECISION_HINT": "f32"},
    "bfloat16": {"INFERENCE_PRECISION_HINT": "bf16"},
    # so many numbers of a token share a scale: more are hardly quicker, and lose more
    "int8": {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 64},
}
_LENGTHS = 16
"""Tokens by which the length of texts grows, which suits the processor's products."""
_SHORT = 64
"""Tokens of a few texts, as questions are, whose number is doubled. OpenVINO prepares itself for each new shape, which
takes as long as a question, so there are few of them."""
_SHORT_LENGTHS = 8
"""As `_LENGTHS`, of a few short texts: most questions have 14 to 24 tokens."""
_QUESTIONS = (24, 32, 48, 64)
"""Tokens up to which a question has a network made for its length: a sixth to a quarter less to compute than where
each part is prepared for any. Each takes up to 30 MB, and a quarter of a second to make."""
_EARLY = (48, 80)
"""The same of questions of which the first layers alone are computed: further lengths make them no quicker."""
_VECTORS, _STATES = 0, 1
"""Outputs of the graph."""

_Array = NDArray[np.float32]
_Requests = queue.LifoQueue[Any]


def load_encoder(folder: Path, precision: Precision = "float32", threads: int = 2) -> Encoder:
    """The fastest encoder that is installed. Raises `Invalid` (embedding_precision) where it lacks the precision, and
    as `Encoder` does."""
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
    """The encoder of questions, beside that of documents, where the extra is installed: in bytes, by OpenVINO where
    the processor has an instruction that multiplies them, else by ONNX Runtime. Its vectors are within a cosine of .998
    of those in float32 (.99 of a few characters), and they are compared, never kept. `layers`: the first so many of
    the model's are computed, for whoever compares no question with a document; 0: all. One that is not
    `prepared` is there a second sooner, and as quick once its `prepare` was called, by any thread."""
    if not isinstance(documents, OpenVinoEncoder):
        return Encoder(folder, layers) if layers else documents
    if _has_int8_instructions():
        made = OpenVinoEncoder(folder, "int8", alone=_EARLY if layers else _QUESTIONS, layers=layers)
        if prepared:
            made.prepare()
        return made
    try:
        from groundplan.knowledge.embedding.onnx_encoder import OnnxEncoder  # noqa: PLC0415 -- an extra, and heavy
    except ImportError:  # recognising texts in pictures brings OpenVINO alone
        return OpenVinoEncoder(folder, layers=layers) if layers else documents
    return OnnxEncoder(folder, layers)


def _has_int8_instructions() -> bool:
    """Without such instructions OpenVINO would make the weights wide again for each question."""
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
        alone: Sequence[int] = (),
        layers: int = 0,
    ) -> None:
        """`alone`: up to how many tokens a text by itself is computed by a network made for that length, in order, once
        these are made (`prepare`)."""
        self.precision: Computed = precision
        self._threads = threads
        self._alone = alone
        super().__init__(folder, layers)

    def _load(self, tensors: Any, config: dict[str, Any]) -> None:
        import openvino  # noqa: PLC0415 -- an extra, and heavy

        self._tensor = openvino.Tensor
        graph = _graph(_ByteGraphBuilder if self.precision == "int8" else _GraphBuilder, tensors, config)
        self._free = self._requests(graph)
        self._lone: list[tuple[int, queue.LifoQueue[_SingleTextRequest]]] = []
        self._whole = graph if self._alone else None

    def prepare(self) -> None:
        graph, self._whole = self._whole, None
        if graph is not None:
            for length in self._alone:
                self._lone.append((length, self._single_text_requests(graph, length)))

    def _requests(self, graph: Any) -> _Requests:
        """What computes a graph, as often as there are threads."""
        hints = {
            **_HINTS[self.precision],
            "INFERENCE_NUM_THREADS": self._threads,
            "NUM_STREAMS": self._threads,
            "ENABLE_CPU_PINNING": False,
        }
        compiled = _core().compile_model(graph, "CPU", hints)
        # the one that was used last comes first: its weights are in the processor's cache
        free: _Requests = queue.LifoQueue()
        for _ in range(self._threads):
            free.put(compiled.create_infer_request())
        return free

    def _single_text_requests(self, graph: Any, length: int) -> queue.LifoQueue[_SingleTextRequest]:
        """What computes a text by itself of up to so many tokens."""
        graph = graph.clone()
        graph.reshape({0: [1, length], 1: [1, length]})
        free: queue.LifoQueue[_SingleTextRequest] = queue.LifoQueue()
        for request in self._requests(graph).queue:
            free.put(_SingleTextRequest(request, length, self._tensor))
        return free

    def embed(self, texts: Sequence[str]) -> Vectors:
        if len(texts) == 1 and self._lone:
            ids = self._tokenizer.encode(texts[0], add_special_tokens=False).ids
            for length, free in self._lone:
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
                few = len(rows) <= FEW_TEXTS and longest <= _SHORT
                least = 1 << (len(rows) - 1).bit_length() if few else 0
                try:
                    for place, array in enumerate(pad_rows(rows, _SHORT_LENGTHS if few else _LENGTHS, least)):
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
                with suppress(RuntimeError):  # nobody asks for what it makes any more
                    request.wait()
                self._free.put(request)

    def _result(self, request: Any, output: int) -> _Array:
        try:
            request.wait()
            found: _Array = request.get_output_tensor(output).data.copy()
        finally:
            self._free.put(request)  # also where memory was short: there are only as many as threads
        return found


class _SingleTextRequest:
    """A request of a text by itself, with the memory that it reads and answers in: beside a text as short as a
    question, handing over new memory each time takes a part of the time."""

    def __init__(self, request: Any, length: int, tensor: Any) -> None:
        ids, mask = np.zeros((1, length), np.int64), np.zeros((1, length), np.float32)
        mask[0, 0] = 1  # a mean of nothing is no number
        for place, array in enumerate((ids, mask)):
            request.set_input_tensor(place, tensor(array, shared_memory=True))
        request.infer()
        self._request, self._ids, self._mask = request, ids[0], mask[0]
        self._vectors: Vectors = request.get_output_tensor(_VECTORS).data

    def vector(self, tokens: Sequence[int]) -> Vectors:
        """(1, 384), of unit length."""
        count = len(tokens)
        self._ids[:count], self._ids[count:] = tokens, 0
        self._mask[:count], self._mask[count:] = 1, 0
        self._request.start_async()
        self._request.wait()
        return self._vectors.copy()


def _embed_with(free: queue.LifoQueue[_SingleTextRequest], tokens: Sequence[int]) -> Vectors:
    """What the next free one makes of the tokens."""
    lone = free.get()
    try:
        return lone.vector(tokens)
    finally:
        free.put(lone)


_MAKING = threading.Lock()


def _core() -> Any:
    """The one core of OpenVINO of this process, which is never let go of. Each that computes gives the thread it is
    made in a stack for signals, takes that away when it goes, and leaves the thread with that of another core, which
    may be gone already: the next signal would then be written over whatever lies there by now."""
    with _MAKING:
        return _create_core()


@cache
def _create_core() -> Any:
    import openvino  # noqa: PLC0415 -- an extra, and heavy

    return openvino.Core()


def _take_request(free: _Requests, running: Collection[object]) -> Any:
    """A free one; None where all are taken and we hold some ourselves, so that nobody waits holding one."""
    with suppress(queue.Empty):
        return free.get(block=not running)
    return None


def _graph(made_of: type[_GraphBuilder], tensors: Any, config: dict[str, Any]) -> Any:
    """Inputs: ids (batch, length) int64, mask (batch, length) float32; outputs: unit vectors (batch, 384), and what the
    last layer makes of each token (batch, length, 384)."""
    import openvino as ov  # noqa: PLC0415 -- an extra, and heavy
    from openvino import opset13 as op  # noqa: PLC0415

    parts = made_of(op, tensors, int(config["num_attention_heads"]), float(config["layer_norm_eps"]))
    any_size = ov.PartialShape([-1, -1])
    ids = op.parameter(any_size, np.int64, name="ids")
    mask = op.parameter(any_size, np.float32, name="mask")
    hidden = parts.embedded(ids)
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
    """Pieces of the graph, with the weights put in."""

    def __init__(self, op: Any, tensors: Any, heads: int, epsilon: float) -> None:
        self._op, self._tensors, self._heads, self._epsilon = op, tensors, heads, epsilon

    def axes(self, *numbers: int) -> Any:
        return self._op.constant(np.array(numbers, dtype=np.int64))

    def number(self, value: float) -> Any:
        return self._op.constant(np.float32(value))

    def _weight(self, name: str) -> _Array:
        return np.asarray(self._tensors.get_tensor(name), dtype=np.float32)

    def _row(self, name: str) -> Any:
        return self._op.constant(self._weight(name).reshape(1, 1, -1))

    def embedded(self, ids: Any) -> Any:
        """Words and their places; all input is segment 0."""
        op = self._op
        table = self._weight("embeddings.word_embeddings.weight")
        if table.shape[1] != DIMENSION:
            raise ValueError(f"vectors of {table.shape[1]} instead of {DIMENSION}")
        words = op.gather(op.constant(table), ids, op.constant(np.int64(0)))
        places = self._weight("embeddings.position_embeddings.weight")
        places = places + self._weight("embeddings.token_type_embeddings.weight")[0]
        length = op.gather(op.shape_of(ids), self.axes(1), op.constant(np.int64(0)))
        used = op.slice(op.constant(places), self.axes(0), length, self.axes(1), self.axes(0))
        return self._normal(op.add(words, op.unsqueeze(used, self.axes(0))), "embeddings.LayerNorm")

    def layer(self, prefix: str, hidden: Any, bias: Any) -> Any:
        """One transformer layer."""
        op = self._op
        # one product of the three: for a text as short as a question, beginning each is a part of its time
        mixed = self._dense(hidden, *(f"{prefix}attention.self.{name}" for name in ("query", "key", "value")))
        split = [self._split(each) for each in op.split(mixed, op.constant(np.int64(2)), 3).outputs()]
        attended = op.transpose(op.scaled_dot_product_attention(*split, bias), self.axes(0, 2, 1, 3))
        attended = op.reshape(attended, self.axes(0, 0, DIMENSION), True)
        mixed = op.add(hidden, self._dense(attended, f"{prefix}attention.output.dense"))
        mixed = self._normal(mixed, f"{prefix}attention.output.LayerNorm")
        inner = op.gelu(self._dense(mixed, f"{prefix}intermediate.dense"), "erf")
        return self._normal(op.add(mixed, self._dense(inner, f"{prefix}output.dense")), f"{prefix}output.LayerNorm")

    def _split(self, values: Any) -> Any:
        """(batch, length, 384) to (batch, heads, length, part)."""
        shape = self.axes(0, 0, self._heads, DIMENSION // self._heads)
        return self._op.transpose(self._op.reshape(values, shape, True), self.axes(0, 2, 1, 3))

    def _dense(self, values: Any, *names: str) -> Any:
        """What each of these makes of the values, one after the other along the last axis."""
        op = self._op
        weights = self._factors(np.concatenate([self._weight(f"{name}.weight") for name in names]))
        bias = np.concatenate([self._weight(f"{name}.bias") for name in names]).reshape(1, 1, -1)
        return op.add(op.matmul(values, weights, False, True), op.constant(bias))

    def _factors(self, weights: _Array) -> Any:
        """Weights (out, in) of a product."""
        return self._op.constant(weights)

    def _normal(self, values: Any, name: str) -> Any:
        op = self._op
        centred = op.mvn(values, self.axes(-1), True, self._epsilon, "inside_sqrt")
        return op.add(op.multiply(centred, self._row(f"{name}.weight")), self._row(f"{name}.bias"))


class _ByteGraphBuilder(_GraphBuilder):
    """With the weights of products as bytes and a scale for each row: OpenVINO multiplies them as such."""

    def _factors(self, weights: _Array) -> Any:
        op = self._op
        scale = np.abs(weights).max(axis=1, keepdims=True) / np.float32(127)
        told = op.constant(np.rint(weights / scale).astype(np.int8))
        return op.multiply(op.convert(told, "f32"), op.constant(scale))
