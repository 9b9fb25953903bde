"""Types of routing: evaluation sets, the artifact that a gateway reads, and choices. No behaviour.

Scores are from 0 to 1, costs in US dollars a call; arrays are float32 and small enough for one message.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]
Hashes = NDArray[np.uint32]
TOKENS = 78
"""Limit of tokens of a question that are embedded, since formulas and names have many each."""
Layers = Literal[0, 3]
"""Layers of the embedding model that are computed; 0: all."""
LAYERS: Final = 3
"""Layers computed for a question: half of them predict better which model answers it than all, which represent its
topic."""


@dataclass(frozen=True, slots=True)
class Context:
    """The context of a call besides its question."""

    messages: int
    """Messages of the conversation, the question included."""
    before: int
    """Bytes of the conversation before the question."""
    scores: tuple[float, ...] | None = None
    """Scores of the passages found, best first; empty: none was found; None: no search, or not yet."""
    task: tuple[str, ...] = ()
    """Purpose of the call as short labels: `endpoint chat.completions`, `feature refunds`, `prompt support@3`, `tools`,
    `schema`."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One prompt that every model has answered. `group`: must stay in one fold (a conversation, a template)."""

    id: str
    group: str
    prompt: str
    context: Context | None = None


@dataclass(frozen=True, slots=True)
class Matrix:
    """An evaluation set: for each sample (row) and model (column) a score and a cost in US dollars."""

    samples: tuple[Sample, ...]
    models: tuple[str, ...]
    scores: Doubles
    costs: Doubles

    def take(self, rows: Integers) -> Matrix:
        """The matrix of these rows, in this order."""
        return Matrix(tuple(self.samples[i] for i in rows), self.models, self.scores[rows], self.costs[rows])


@dataclass(frozen=True, slots=True)
class Head:
    """One linear predictor of all scores and relative costs: `features @ weights + bias`.

    Columns are the models' scores, then the models' costs as multiples of their mean. `slope` and `offset` (one for
    each score) calibrate predictions on held-out prompts.
    """

    weights: Floats
    bias: Floats
    slope: Floats
    offset: Floats
    blend: Blend = (1.0, 1.0)
    alone: Floats = field(default_factory=lambda: np.zeros((0, 0), dtype=np.float32))
    """(regressions, models): added to the words' part of the scores, then to the embedding's, to get the prediction of
    each by itself, an input of trees and kernel. Empty if they do not use it: there are none, or trees of an older
    version."""
    kernel: Kernel | None = None


@dataclass(frozen=True, slots=True)
class Forest:
    """Boosted trees as arrays (trees, nodes). `owner`: which of `parts` each tree predicts."""

    feature: Integers
    threshold: Floats
    """The left branch is taken if the feature is not above it."""
    left: Integers
    right: Integers
    """Children of a leaf are itself."""
    value: Floats
    owner: Integers
    parts: int
    """Number of targets: the mean score, and the differences from it of all models but the last."""
    depth: int
    asked: Integers
    """(trees, splits): features of the inner nodes in order, padded with any."""
    limits: Floats
    """Their thresholds."""
    reached: Floats
    """(trees, 2 ^ splits): the value of the leaf for each combination of results, bit by bit, 1 for the left branch."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """Kernel regression of all models' scores on the similarity of a prompt to landmarks."""

    mean: Floats
    """(columns,): mean of the trees' inputs."""
    deviation: Floats
    reach: Floats
    """(columns,): weight of one deviation."""
    landmarks: Floats
    """(k, columns, plus the width of the embedding if it is used)"""
    squares: Floats
    """Their squared lengths."""
    weights: Floats
    """(k, models)"""
    bias: Floats


Blend = tuple[float, ...]
"""Weights of regressions, trees and kernel, as far as there are any: those in the mean of all models' scores, then
those in the models' differences from it."""


Point = tuple[float, float]
"""(score given up for the cost of one call of the strongest model, bonus of the strongest model's score)"""
LossRange = tuple[float, float]
"""(lowest, highest) expected loss of score against the strongest model."""


@dataclass(frozen=True, slots=True)
class Router:
    """The learned router as a gateway reads it: evaluated with numpy alone."""

    name: str
    version: int
    models: tuple[str, ...]
    mean_scores: Floats
    mean_costs: Floats
    """US dollars a call."""
    strongest: int
    """Column of the best single model, which takes calls that the router is unsure of."""
    idf: Floats
    """(buckets,); before format 6 it is 0 for buckets that training never saw."""
    surface_mean: Floats
    """(columns,) of the surface, and of the context if the training set had contexts."""
    surface_scale: Floats
    centre: Floats
    """Mean embedding; empty if it was trained without embeddings."""
    landmarks: Floats
    """(k, 384): a prompt near none of them is strange."""
    text: Head
    """Predictor by words alone."""
    full: Head | None
    """Predictor with the embedding."""
    trees: Forest | None
    """Trees on the surface, the context and the words' prediction; None: too few prompts."""
    components: Floats
    """(384, k): directions of embeddings, inputs of trees of an older version; else empty."""
    meant: Forest | None
    """Trees on the same and on the embedding's prediction."""
    strange_words: float
    """Below this share of known words (before format 4 of known buckets) the router abstains."""
    strange_likeness: float
    """Below this likeness to the nearest landmark the router abstains."""
    points: dict[str, Point] = field(default_factory=dict)
    """Operating points: share of quality to keep (`0.99`) -> its parameters; shares without an entry were not
    proven."""
    trained: dict[str, str] = field(default_factory=dict)
    """Origin, date and quality of the training; shown, never used."""
    words: Hashes = field(default_factory=lambda: np.zeros(0, dtype=np.uint32))
    """Sorted hashes of all words of training; empty before format 4, where words are known by their buckets."""
    doubted: dict[str, list[LossRange]] = field(default_factory=dict)
    """Operating point -> ranges of expected loss in which held-out prompts did surely worse than expected."""
    tasks: bool = False
    """Whether the training set had task labels."""
    texts: bool = True
    """Whether the context before a question is counted in bytes of its texts; before format 4 in bytes of the
    request."""
    apart: bool = True
    """Whether writing without spaces is read character by character; before format 5 text without a space is one
    word."""
    plain: bool = True
    """Whether further white space, capital letters and punctuation at the end are ignored; before format 6 they are
    not."""
    bare: bool = True
    """Whether polite phrases are ignored; before format 7 they are not."""
    tokens: int = TOKENS
    """Limit of tokens of a question that are embedded; 0, as before format 8: all of its first and last words."""
    layers: Layers = LAYERS
    """Layers of the embedding model that are computed; before format 9 all."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """For each model the expected score and cost of one prompt."""

    scores: Doubles
    costs: Doubles
    sure: bool
    """False: nothing similar was in training, so the strongest model takes the prompt."""


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen model, with the reason as the receipt shows it."""

    model: str
    by: str
    """`rule NAME`, `learned`, `unsure`, `strongest`, `affinity`, `only`."""
    reason: str
    expected: dict[str, float] = field(default_factory=dict)
    """Expected score by model, if predicted."""
    costs: dict[str, float] = field(default_factory=dict)
    """Expected US dollars by model, including waiting and a warm cache."""
    bills: dict[str, float] = field(default_factory=dict)
    """Expected US dollars by model at the prices of training, without these."""
