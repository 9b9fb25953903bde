"""Sentence embeddings: all-MiniLM-L6-v2 (BERT, 6 layers, mean pooling, unit length) computed with numpy.

The tokenizer's stored truncation and padding are switched off: a text longer than the model's window is embedded in
windows whose vectors are averaged by their tokens, so no part of a text is dropped. `openvino_encoder` computes the
same faster if its extra is installed. This module neither downloads the model (`runtime.models` does) nor decides what
is embedded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer

from groundplan.core.errors import Unavailable
from groundplan.knowledge.model import DIMENSION, Vectors

WINDOW_TOKENS = 256
"""Longest input that the model was trained for, [CLS] and [SEP] included."""

MAX_QUESTION_BATCH = 8
"""Most questions that are embedded together."""
_BATCH_TOKENS = 512
"""Most tokens of a batch. The activations between two layers then stay in a core's cache: 5 to 7 % more texts a second
than with four times as many."""
_BATCH_TEXTS = 16
_END_SHARE = 0.3
"""Share of a shortened text that is taken from its end."""
_MASKED = np.float32(-1e9)

_Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class EmbeddedTexts:
    """`vectors` has one unit-length row of 384 per text; `tokens` the number of tokens of each text."""

    vectors: Vectors
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ContextualEmbedding:
    """A text's vector as from `embed`, and the unit vector of each requested word in this text (384 a row)."""

    vector: Vectors
    words: Vectors
    tokens: int


@dataclass(frozen=True, slots=True)
class Layer:
    """Weights of one transformer layer, transposed so that rows of activations multiply them from the left."""

    qkv: _Array
    qkv_bias: _Array
    attended: _Array
    attended_bias: _Array
    attended_scale: _Array
    attended_shift: _Array
    wide: _Array
    wide_bias: _Array
    narrow: _Array
    narrow_bias: _Array
    scale: _Array
    shift: _Array


class Encoder:
    """A loaded model. Stateless after loading, so threads may share it."""

    def __init__(self, folder: Path, layers: int = 0) -> None:
        """Load from a folder with model.safetensors, tokenizer.json and config.json (about 90 MB of memory). `layers`:
        the number of first layers that are computed; 0: all.

        Raises `Unavailable` (embedding_model) if the files are not that model.
        """
        try:
            config = json.loads((folder / "config.json").read_bytes())
            config["num_hidden_layers"] = layers or config["num_hidden_layers"]
            self._tokenizer = _load_tokenizer(folder / "tokenizer.json")
            vocabulary = self._tokenizer.get_vocab()
            self._first, self._last = vocabulary["[CLS]"], vocabulary["[SEP]"]
            with safe_open(str(folder / "model.safetensors"), framework="numpy") as tensors:
                self._load(tensors, config)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise Unavailable(
                f"the embedding model in {folder} cannot be loaded: {error}",
                code="embedding_model",
                hint="Delete that folder and start again; it is fetched anew.",
            ) from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def _load(self, tensors: Any, config: dict[str, Any]) -> None:
        self._heads = int(config["num_attention_heads"])
        self._epsilon = np.float32(config["layer_norm_eps"])
        self._words: _Array = tensors.get_tensor("embeddings.word_embeddings.weight")
        positions = tensors.get_tensor("embeddings.position_embeddings.weight")
        # all input is segment 0, so its vector is added to the positions once
        self._positions: _Array = positions + tensors.get_tensor("embeddings.token_type_embeddings.weight")[0]
        self._scale: _Array = tensors.get_tensor("embeddings.LayerNorm.weight")
        self._shift: _Array = tensors.get_tensor("embeddings.LayerNorm.bias")
        self._layers = tuple(_load_layer(tensors, number) for number in range(int(config["num_hidden_layers"])))
        if self._words.shape[1] != DIMENSION:
            raise ValueError(f"vectors of {self._words.shape[1]} instead of {DIMENSION}")

    def prepare(self) -> None:
        """Do optional preparation that makes embedding faster; any thread may call it while others embed."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One unit-length row of 384 per text, in order. An empty text gives the vector of an empty sentence."""
        return self.embed_counted(texts).vectors

    precision: str = "float32"
    """The precision of its arithmetic; vectors of lower precision compare with those of float32."""

    def embed_counted(self, texts: Sequence[str]) -> EmbeddedTexts:
        """As `embed`, with the tokens of each text."""
        if not texts:
            return EmbeddedTexts(np.zeros((0, DIMENSION), dtype=np.float32), ())
        tokens = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts), add_special_tokens=False)]
        windows = [(index, part) for index, ids in enumerate(tokens) for part in _windows(ids)]
        sums = np.zeros((len(texts), DIMENSION), dtype=np.float32)
        batches = list(_batch_windows([len(part) for _, part in windows]))
        rows = ([[self._first, *windows[i][1], self._last] for i in batch] for batch in batches)
        for batch, vectors in zip(batches, self._embed_batches(rows), strict=True):
            for row, i in enumerate(batch):
                sums[windows[i][0]] += vectors[row] * np.float32(max(1, len(windows[i][1])))
        return EmbeddedTexts(_to_unit_length(sums), tuple(len(ids) for ids in tokens))

    def truncate(self, text: str, limit: int) -> str:
        """The text, or the beginning and the end of a text with more than `limit` tokens (0: unlimited)."""
        if not 0 < limit < len(text):
            return text
        found = self._tokenizer.encode(text, add_special_tokens=False)
        count, end = len(found.ids), round(limit * _END_SHARE)
        if count <= limit:
            return text
        words = found.word_ids
        tail_start = next((at for at in range(count - end, count) if words[at] != words[at - 1]), count - end)
        return f"{text[: found.offsets[limit - end - 1][1]]} {text[found.offsets[tail_start][0] :]}"

    def embed_words(
        self, texts: Sequence[str], places: Sequence[Sequence[tuple[int, int]]]
    ) -> list[ContextualEmbedding]:
        """Embed texts and words within them. `places`: for each text its words, as (first character, the one after the
        last); a place without a token gets the text's own vector."""
        found = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        windows = [(index, part) for index, each in enumerate(found) for part in _windows(each.ids)]
        batches = list(_batch_windows([len(part) for _, part in windows]))
        rows = ([[self._first, *windows[i][1], self._last] for i in batch] for batch in batches)
        states: dict[int, _Array] = {}
        for batch, batch_states in zip(batches, self._token_states(rows), strict=True):
            for row, i in enumerate(batch):
                states[i] = batch_states[row, : len(windows[i][1]) + 2]
        results = []
        for index, (each, wanted) in enumerate(zip(found, places, strict=True)):
            token_states = [states[i] for i, (text, _) in enumerate(windows) if text == index]
            means = _to_unit_length(np.stack([state.mean(axis=0) for state in token_states]))
            weights = np.array([max(1, len(state) - 2) for state in token_states], dtype=np.float32)
            vector = _to_unit_length((means * weights[:, None]).sum(axis=0, keepdims=True))
            words = _word_vectors(np.concatenate([state[1:-1] for state in token_states]), each.offsets, wanted, vector)
            results.append(ContextualEmbedding(vector[0], words, len(each.ids)))
        return results

    def _embed_batches(self, batches: Iterable[Sequence[Sequence[int]]]) -> Iterator[_Array]:
        """Mean-pooled unit vectors of batches of token rows, each of at most `WINDOW_TOKENS`, in order."""
        return map(self._forward, batches)

    def _token_states(self, batches: Iterable[Sequence[Sequence[int]]]) -> Iterator[_Array]:
        """The states of each token after the last layer, (rows, tokens, 384), for such batches."""
        return (self._run_layers(*pad_rows(rows)) for rows in batches)

    def _forward(self, rows: Sequence[Sequence[int]]) -> _Array:
        ids, mask = pad_rows(rows)
        pooled: _Array = np.einsum("blh,bl->bh", self._run_layers(ids, mask), mask) / mask.sum(axis=1, keepdims=True)
        return _to_unit_length(pooled)

    def _run_layers(self, ids: NDArray[np.int64], mask: _Array) -> _Array:
        hidden = self._input_states(ids)
        bias = (1 - mask)[:, None, None, :] * _MASKED
        for layer in self._layers:
            hidden = self._run_layer(layer, hidden, bias)
        return hidden

    def _input_states(self, ids: NDArray[np.int64]) -> _Array:
        """The embeddings of words with their positions, (batch, length, 384)."""
        return self._normalise(self._words[ids] + self._positions[: ids.shape[1]], self._scale, self._shift)

    def _run_layer(self, layer: Layer, hidden: _Array, bias: _Array) -> _Array:
        """Apply one layer: (batch, length, 384) to the same shape."""
        batch, length, width = hidden.shape
        mixed = self._product(hidden, layer.qkv, layer.qkv_bias).reshape(
            batch, length, 3, self._heads, width // self._heads
        )
        query, key, value = mixed.transpose(2, 0, 3, 1, 4)
        scores = query @ key.transpose(0, 1, 3, 2) / np.float32((width // self._heads) ** 0.5) + bias
        attended = (_softmax(scores) @ value).transpose(0, 2, 1, 3).reshape(batch, length, width)
        attended = self._product(attended, layer.attended, layer.attended_bias)
        hidden = self._normalise(hidden + attended, layer.attended_scale, layer.attended_shift)
        inner = _gelu(self._product(hidden, layer.wide, layer.wide_bias))
        inner = self._product(inner, layer.narrow, layer.narrow_bias)
        return self._normalise(hidden + inner, layer.scale, layer.shift)

    def _product(self, values: _Array, weights: _Array, bias: _Array) -> _Array:
        return np.asarray(values @ weights + bias, dtype=np.float32)

    def _normalise(self, values: _Array, scale: _Array, shift: _Array) -> _Array:
        centred = values - values.mean(axis=-1, keepdims=True)
        variance = np.square(centred).mean(axis=-1, keepdims=True)
        return np.asarray(centred / np.sqrt(variance + self._epsilon) * scale + shift, dtype=np.float32)


def quantise(vectors: Vectors) -> bytes:
    """The rows as signed bytes: directions within a hundredth, without their lengths."""
    most = np.abs(vectors).max(axis=1, keepdims=True, initial=1e-12)
    return np.rint(vectors / most * 127).astype(np.int8).tobytes()


def pad_rows(rows: Sequence[Sequence[int]], multiple: int = 1, least: int = 0) -> tuple[NDArray[np.int64], _Array]:
    """(token ids, mask of real tokens), both of shape (number of rows but at least `least`, longest row rounded up to a
    multiple)."""
    longest = -(-max(len(row) for row in rows) // multiple) * multiple
    ids = np.zeros((max(len(rows), least), longest), dtype=np.int64)
    mask = np.zeros(ids.shape, dtype=np.float32)
    mask[len(rows) :, 0] = 1  # the mean of an empty row would be NaN
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return ids, mask


def _load_tokenizer(file: Path) -> Tokenizer:
    """The tokenizer of a file; `ValueError` if it is another JSON document (the library would raise `Exception`)."""
    description = json.loads(file.read_bytes())
    if not isinstance(description, dict) or "model" not in description:
        raise ValueError("tokenizer.json describes no tokenizer")
    return Tokenizer.from_file(str(file))


def _load_layer(tensors: Any, number: int) -> Layer:
    prefix = f"encoder.layer.{number}."

    def weight(name: str) -> _Array:
        return np.ascontiguousarray(tensors.get_tensor(f"{prefix}{name}.weight").T)

    def vector(name: str) -> _Array:
        return np.asarray(tensors.get_tensor(f"{prefix}{name}"), dtype=np.float32)

    own = ("attention.self.query", "attention.self.key", "attention.self.value")
    return Layer(
        qkv=np.concatenate([weight(name) for name in own], axis=1),
        qkv_bias=np.concatenate([vector(f"{name}.bias") for name in own]),
        attended=weight("attention.output.dense"),
        attended_bias=vector("attention.output.dense.bias"),
        attended_scale=vector("attention.output.LayerNorm.weight"),
        attended_shift=vector("attention.output.LayerNorm.bias"),
        wide=weight("intermediate.dense"),
        wide_bias=vector("intermediate.dense.bias"),
        narrow=weight("output.dense"),
        narrow_bias=vector("output.dense.bias"),
        scale=vector("output.LayerNorm.weight"),
        shift=vector("output.LayerNorm.bias"),
    )


def _windows(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    """Parts of at most `WINDOW_TOKENS` minus the two markers; one empty part for an empty text."""
    step = WINDOW_TOKENS - 2
    for start in range(0, max(1, len(ids)), step):
        yield ids[start : start + step]


def _word_vectors(
    states: _Array, offsets: Sequence[tuple[int, int]], places: Sequence[tuple[int, int]], fallback: _Array
) -> Vectors:
    """(places, 384): for each place the mean of the tokens that overlap it, of unit length."""
    if not places:
        return np.zeros((0, DIMENSION), dtype=np.float32)
    begins, ends = (np.array(side) for side in zip(*offsets, strict=True)) if offsets else (np.zeros(0), np.zeros(0))
    rows = []
    for begin, end in places:
        inside = states[(begins < end) & (ends > begin)]
        rows.append(inside.mean(axis=0) if len(inside) else fallback[0])
    return _to_unit_length(np.stack(rows))


def _batch_windows(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices of windows, batched by similar length, so that little is computed on padding."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        full = (len(batch) + 1) * (lengths[index] + 2) > _BATCH_TOKENS or len(batch) == _BATCH_TEXTS
        if batch and full:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _softmax(scores: _Array) -> _Array:
    shifted = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True), dtype=np.float32)


def _gelu(values: _Array) -> _Array:
    """x times the cumulative normal distribution at x; the error function by a rational approximation within 1.5e-7."""
    size = np.abs(values) * np.float32(0.5**0.5)
    t = 1 / (1 + np.float32(0.3275911) * size)
    series: _Array = np.full_like(size, 1.061405429)
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = (series * t + np.float32(coefficient)).astype(np.float32, copy=False)
    tail = np.copysign(1 - series * t * np.exp(-size * size), values)
    result: _Array = np.float32(0.5) * values * (1 + tail)
    return result


def _to_unit_length(vectors: _Array) -> _Array:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, np.float32(1e-12)), dtype=np.float32)
