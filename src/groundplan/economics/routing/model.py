"""Types of routing: evaluation sets, the artifact that a gateway reads, and what a choice says of itself. No behaviour.

Scores are from 0 to 1, costs in US dollars a call; arrays are float32 and small enough to travel in one message.
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
"""Of a question that are embedded at most, since formulas and names have many each."""
Layers = Literal[0, 3]
"""Of the model of embeddings that are computed; 0: all."""
LAYERS: Final = 3
"""Of those of a question: half of them tell better who answers it than all of them, which tell what it is about."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a call brings besides its question."""

    messages: int
    """Of the conversation, the question included."""
    before: int
    """Bytes of the conversation before the question."""
    scores: tuple[float, ...] | None = None
    """Of the passages that were found, the best first; empty: nothing was found; None: nothing was searched, or it is
    not searched yet."""
    task: tuple[str, ...] = ()
    """What the call is for, as short names: `endpoint chat.completions`, `feature refunds`, `prompt support@3`,
    `tools`, `schema`."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One prompt that every model has answered. `group`: whatever must stay together (a conversation, a template)."""

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
        """Those rows of it, in that order."""
        return Matrix(tuple(self.samples[i] for i in rows), self.models, self.scores[rows], self.costs[rows])


@dataclass(frozen=True, slots=True)
class Head:
    """One linear predictor of all scores and relative costs: `features @ weights + bias`.

    Columns are the models' scores, then the models' costs as multiples of their mean. `slope` and `offset` (one for
    each score) correct predictions to what was seen on prompts that were left out of training.
    """

    weights: Floats
    bias: Floats
    slope: Floats
    offset: Floats
    blend: Blend = (1.0, 1.0)
    alone: Floats = field(default_factory=lambda: np.zeros((0, 0), dtype=np.float32))
    """(regressions, models): what is added to the words' part of the scores, then to the embedding's, for what each
    expects by itself; trees and kernel look at that. Empty where they do not: there are none, or trees of an older
    version."""
    kernel: Kernel | None = None


@dataclass(frozen=True, slots=True)
class Forest:
    """Boosted trees as arrays (trees, nodes); what of each tree's value belongs to which of `parts` is `owner`'s."""

    feature: Integers
    threshold: Floats
    """The left way where the feature is not above it."""
    left: Integers
    right: Integers
    """A leaf leads to itself."""
    value: Floats
    owner: Integers
    parts: int
    """The mean score, and the models' differences from it but for the last."""
    depth: int
    asked: Integers
    """(trees, questions): features of the nodes that are no leaves, in the order of their nodes, filled up with any."""
    limits: Floats
    """Their thresholds."""
    reached: Floats
    """(trees, 2 ^ questions): the value of the leaf that those answers lead to, bit by bit, 1 for the left way."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """Kernel regression of all models' scores on how near a prompt is to landmarks."""

    mean: Floats
    """(columns,): of what trees look at."""
    deviation: Floats
    reach: Floats
    """(columns,): what one deviation counts for."""
    landmarks: Floats
    """(k, columns and width of the embedding, where it looks at one)"""
    squares: Floats
    """Their squared lengths."""
    weights: Floats
    """(k, models)"""
    bias: Floats


Blend = tuple[float, ...]
"""How regressions, trees and kernel are added, as far as there are any: their weights in the mean of all models'
scores, then in the models' differences from it."""


Point = tuple[float, float]
"""(score given up for one strongest call's cost, score by which the strongest model is favoured where others are
close)"""
LossRange = tuple[float, float]
"""(least, most) of the score that is expected to be lost by not taking the strongest model."""


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
    """Column of the best single model, which takes whatever the router is unsure of."""
    idf: Floats
    """(buckets,); before format 6 it is 0 for what training never saw."""
    surface_mean: Floats
    """As many as it looks at: the surface, and the context where its training set told one."""
    surface_scale: Floats
    centre: Floats
    """Mean embedding; empty where it was trained without embeddings."""
    landmarks: Floats
    """(k, 384): a prompt that is near none of them is strange."""
    text: Head
    """Of the words alone."""
    full: Head | None
    """With the embedding."""
    trees: Forest | None
    """Of the surface, the context and what the words' regression expects; None: there were too few prompts."""
    components: Floats
    """(384, k): directions of embeddings, which trees of an older version look at; else empty."""
    meant: Forest | None
    """Of the same and what the embedding's regression expects."""
    strange_words: float
    """Below this share of known words (before format 4 of known buckets) the router abstains."""
    strange_likeness: float
    """Below this likeness to the nearest landmark the router abstains."""
    points: dict[str, Point] = field(default_factory=dict)
    """Operating points: the quality to keep (`0.99`) -> how it is kept; without an entry nothing cheaper was proven."""
    trained: dict[str, str] = field(default_factory=dict)
    """From what, when and how well: shown, never used."""
    words: Hashes = field(default_factory=lambda: np.zeros(0, dtype=np.uint32))
    """Of all words of training, in order; empty before format 4, where a word is known by its bucket."""
    doubted: dict[str, list[LossRange]] = field(default_factory=dict)
    """Operating point -> expected losses at which left-out prompts did surely worse than expected."""
    tasks: bool = False
    """Its training set told what calls were for."""
    texts: bool = True
    """What came before a question is counted in bytes of its texts; before format 4 in bytes of the request."""
    apart: bool = True
    """Writing without spaces is read character by character; before format 5 what has no space in it is one word."""
    plain: bool = True
    """Further white space, capital letters and a sign at the end change nothing; before format 6 they do."""
    bare: bool = True
    """What is said around a question to be polite changes nothing; before format 7 it does."""
    tokens: int = TOKENS
    """Of a question that are embedded at most; 0, as before format 8: all of its first and last words."""
    layers: Layers = LAYERS
    """Of the model of embeddings; before format 9 all."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """For each model the expected score and cost of one prompt."""

    scores: Doubles
    costs: Doubles
    sure: bool
    """False: nothing like it was in training, so the strongest model takes it."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which model, and why, in words that a receipt shows."""

    model: str
    by: str
    """`rule NAME`, `learned`, `unsure`, `strongest`, `affinity`, `only`."""
    reason: str
    expected: dict[str, float] = field(default_factory=dict)
    """Expected score by model, where they were predicted."""
    costs: dict[str, float] = field(default_factory=dict)
    """Expected US dollars by model, with what waiting and a warm cache are worth."""
    bills: dict[str, float] = field(default_factory=dict)
    """The same by the prices of training, without that."""
