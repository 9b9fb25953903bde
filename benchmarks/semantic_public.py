"""GPTCache's pairs of paraphrases with traps derived from them, and embeddings of texts as the gateway has them.

A part of `semantic_cache`, which measures with it.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from random import Random

import msgspec
import numpy as np
from benchmarks import semantic_tune
from benchmarks.semantic_labelled import Pair
from benchmarks.semantic_traps import KINDS, trap
from numpy.typing import NDArray

from groundplan.core.errors import Invalid
from groundplan.core.settings import load_settings
from groundplan.economics.semantic.phrasing import read_question, usual_phrasing
from groundplan.economics.semantic.reading import Reading, read
from groundplan.economics.semantic.similarity import EmbeddedReading, Vector
from groundplan.economics.semantic.synonyms import synonym_places
from groundplan.economics.semantic.vocabulary import FILLERS, NEGATIONS, NUMBER_WORDS, QUANTIFIERS, STOP
from groundplan.knowledge.embedding.encoder import quantise
from groundplan.knowledge.embedding.openvino_encoder import load_encoder, load_question_encoder

Features = NDArray[np.float64] | str
"""Features of a pair, or the guard that refuses it."""
REPLACED, INSERTED, SORT = "thing", "more", "sort"
"""Kinds of traps that are reported apart: a paraphrase in which a word that both texts have is replaced by any other
word, gets any other word before it, or is replaced by another thing of its sort (`SORTS`). Many of the first two are
no sentences that anybody would write."""
REPORTED_APART = (REPLACED, INSERTED, SORT)
_NEGATION = re.compile(r"\b(?:not|never|cannot|without)\b|n['’]t\b", re.IGNORECASE)
NOT_CONTENT = STOP | NEGATIONS | FILLERS | QUANTIFIERS.keys() | NUMBER_WORDS.keys()


class TextEmbeddings:
    """Embeddings of texts and of their words, each computed once: if `served`, as the search service embeds questions
    on this machine, else in float32, which is the same on every machine."""

    def __init__(self, *, served: bool = True) -> None:
        folder = load_settings().models / "all-minilm-l6-v2"
        if not (folder / "model.safetensors").exists():
            hint = "Run `groundplan up` once; it fetches the model."
            raise Invalid(f"the embedding model is not in {folder}", code="data_absent", hint=hint)
        documents = load_encoder(folder)
        self._encoder = load_question_encoder(folder, documents) if served else documents
        self._vectors: dict[str, Vector] = {}
        self._questions: dict[str, EmbeddedReading] = {}
        self._originals: dict[str, EmbeddedReading] = {}
        self._readings: dict[str, Reading] = {}
        self._features: dict[tuple[str, str], Features] = {}

    def embed_all(self, texts: Sequence[str]) -> None:
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        for text, vector in zip(new, self._encoder.embed(new), strict=True):
            self._vectors[text] = vector

    def vector_of(self, text: str) -> Vector:
        return self._vectors[text]

    def read(self, text: str) -> Reading:
        """The reading of a question."""
        if text not in self._readings:
            self._readings[text] = read_question(text)
        return self._readings[text]

    def question(self, text: str) -> EmbeddedReading:
        """A question with its words' embeddings, as the gateway gets them from the search service."""
        if text not in self._questions:
            self._questions[text] = self._embed_reading(self.read(text))
        return self._questions[text]

    def original(self, text: str) -> EmbeddedReading:
        """The same with its original phrasing, as within a longer text."""
        if text not in self._originals:
            self._originals[text] = (
                self.question(text) if usual_phrasing(text) == text else self._embed_reading(read(text))
            )
        return self._originals[text]

    def _embed_reading(self, reading: Reading) -> EmbeddedReading:
        (embedded,) = self._encoder.embed_words([reading.text], [reading.spans])
        words = np.frombuffer(quantise(embedded.words), dtype=np.int8).reshape(-1, len(embedded.vector))
        return EmbeddedReading(reading, embedded.vector, words)

    def features(self, pair: Pair) -> Features:
        """The features of a pair for training."""
        if (pair.a, pair.b) not in self._features:
            self._features[pair.a, pair.b] = semantic_tune.features_of(pair, self.question)
        return self._features[pair.a, pair.b]


def read_public_pairs(path: Path, draw: int = 0) -> list[Pair]:
    """GPTCache's pairs of paraphrases, with traps derived from them; settings come from draw 0."""
    rows = [row for row in _read_paraphrases(path) if len(row["origin"]) < 600]
    texts, pairs = TextEmbeddings(served=False), []
    texts.embed_all([text for row in rows for text in (row["origin"], row["similar"])])
    others = sorted({word for row in rows for word in content_words(read(row["origin"]))})
    content_pairs = [(content_words(read(row["origin"])), set(content_words(read(row["similar"])))) for row in rows]
    shared_words = [[word for word in words if word in again] for words, again in content_pairs]
    all_shared_words = sorted({word for words in shared_words for word in words})
    texts.embed_all(others)
    vectors = np.stack([texts.vector_of(row["origin"]) for row in rows])
    similarities = vectors @ vectors.T
    np.fill_diagonal(similarities, -1)
    rng, insert_rng, sort_rng = Random(5 + draw), Random(6 + draw), Random(7 + draw)
    for number, row in enumerate(rows):
        candidates = [(row["similar"], True, "repeat")]
        for kind in rng.sample(KINDS, 3):
            changed = trap(row["similar"], kind, rng) or trap(row["origin"], kind, rng)
            if changed is not None and not (
                kind == "negation" and removes_negation_difference(row["origin"], row["similar"], changed)
            ):
                candidates.append((changed, False, kind))
        changed = replace_with_related_word(row["origin"], content_words(read(row["origin"])), others, texts, rng)
        if changed is not None:
            candidates.append((changed, False, "word"))
        # the words that a paraphrase keeps say what it is about
        changed = replace_with_related_word(row["similar"], shared_words[number], all_shared_words, texts, rng)
        if changed is not None:
            candidates.append((changed, False, REPLACED))
        changed = insert_word(row, shared_words[number], all_shared_words, insert_rng)
        if changed is not None:
            candidates.append((changed, False, INSERTED))
        changed = replace_within_sort(row["similar"], shared_words[number], sort_rng)
        if changed is not None:
            candidates.append((changed, False, SORT))
        nearest = int(similarities[number].argmax())
        # more similar ones often mean the same, although they are not labelled so
        if max(similarities[number, nearest], float(vectors[number] @ texts.vector_of(rows[nearest]["similar"]))) < 0.8:
            candidates.append((rows[nearest]["similar"], False, "intent"))
        pairs += [Pair(row["origin"], text, same, kind, f"text {number}") for text, same, kind in candidates]
    return pairs


def removes_negation_difference(origin: str, similar: str, changed: str) -> bool:
    """Whether the change removes a difference in negations between the paraphrase and its origin: no trap then."""
    in_origin, in_similar, in_changed = (len(_NEGATION.findall(text)) for text in (origin, similar, changed))
    return in_similar != in_origin == in_changed


def _read_paraphrases(path: Path) -> list[dict[str, str]]:
    """{"origin", "similar"} rows of a file. Raises `Invalid` for a file of another shape."""
    try:
        with gzip.open(path) as file:
            return [msgspec.structs.asdict(row) for row in msgspec.json.decode(file.read(), type=list[_Paraphrase])]
    except (OSError, EOFError, zlib.error, msgspec.DecodeError, UnicodeDecodeError) as error:
        hint = "Name GPTCache's mock_data.json, compressed by gzip: a list of origin and similar."
        raise Invalid(f"{path} cannot be read: {error}", code="pairs", hint=hint) from error


class _Paraphrase(msgspec.Struct):
    origin: str
    similar: str


def content_words(reading: Reading) -> list[str]:
    """The content words, each once, without function words and numbers, which do not name what a question is about."""
    words = (
        word for word in reading.words if word not in NOT_CONTENT and not word[0].isdigit() and word[0] not in '`"$€£¥%'
    )
    return list(dict.fromkeys(words))


def replace_with_related_word(
    text: str, words: Sequence[str], others: Sequence[str], texts: TextEmbeddings, rng: Random
) -> str | None:
    """The text with one of `words` replaced by a related word: similar, but neither near enough to mean the same nor a
    synonym."""
    candidates = [word for word in words if len(word) > 3 and re.search(rf"\b{re.escape(word)}\b", text)]
    if not candidates:
        return None
    word = rng.choice(candidates)
    similarities = np.stack([texts.vector_of(other) for other in others]) @ texts.vector_of(word)
    related = [
        other
        for other, similarity in zip(others, similarities, strict=True)
        if 0.3 <= similarity < 0.6 and not any(synonym_places([word], [other]))
    ]
    return re.sub(rf"\b{re.escape(word)}\b", rng.choice(related), text, count=1) if related else None


def insert_word(row: dict[str, str], words: Sequence[str], others: Sequence[str], rng: Random) -> str | None:
    """The paraphrase with any other word inserted before one of `words`."""
    known = f"{row['origin']} {row['similar']}".lower()
    candidates = [word for word in words if len(word) > 3 and re.search(rf"\b{re.escape(word)}\b", row["similar"])]
    if not candidates:
        return None
    word, inserted = rng.choice(candidates), rng.choice([other for other in others if other not in known])
    return re.sub(rf"\b{re.escape(word)}\b", lambda match: f"{inserted} {match.group()}", row["similar"], count=1)


SORTS = """
row column|image audio video text|string integer float|file folder|list dictionary tuple|train test|label feature
key value|local remote|shuffle sort|start end|load save|read write|download upload|import export|table chart
server client|input output|question answer|word sentence|token character|error warning|model metric|header footer
user administrator|public private|memory disk|cpu gpu|english german french|python java|address telephone letter
invoice receipt order|customer supplier|buyer seller|tenant landlord|employee manager|summer winter spring autumn
monday tuesday friday|january july|morning evening night|day week month year|hour minute second
kitchen bathroom bedroom|garden garage|roof wall floor|door window|hotel museum library|river lake sea|bridge tunnel
bus train ferry|car bicycle|airport station harbour|dog cat horse|bee ant|whale shark|apple pear|coffee tea
cheese butter|salt sugar|water oil|red blue green|north south east west|left right|father mother|child adult
student teacher|doctor nurse|school university|book film|concert exhibition|camera phone|printer scanner
screen keyboard|lamp heater|pump engine|battery cable|card cash|bank insurance|contract invoice|price weight
length width|password username|breakfast dinner|pool sauna|passenger driver|meeting course|report form
vaccine medicine|refrigerator oven|bowl pan|flour milk|jacket shirt|plastic glass metal|wood stone|castle church
city country|valley hill|tree flower|satellite rocket|earth moon|brain heart|branch version|batch epoch
encode decode|compress encrypt|split merge|rename delete|cache log|column cell|thread script
"""
"""Things of one sort, none of which is a synonym of another."""
_SORTS = [line.split() for line in SORTS.strip().replace("\n", "|").split("|")]


def replace_within_sort(text: str, words: Sequence[str], rng: Random) -> str | None:
    """The text with all occurrences of one of `words` replaced by another thing of its sort."""
    candidates = [
        (word, other + word[len(thing) :])
        for sort in _SORTS
        for thing in sort
        for word in words
        if word in (thing, f"{thing}s") and re.search(rf"\b{re.escape(word)}\b", text)
        for other in sort
        if other != thing
    ]
    if not candidates:
        return None
    word, other = rng.choice(candidates)
    return re.sub(rf"\b{re.escape(word)}\b", other, text)
