"""GPTCache's pairs of paraphrases with traps that are made of them, and texts as the gateway knows them.

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
"""Of a pair, or why it is refused."""
REPLACED, MORE, SORT = "thing", "more", "sort"
"""Traps that are told by themselves: a paraphrase in which a word that both texts have became any other one, got any
other one before it, or became another thing of its sort (`SORTS`). Many of the first two say nothing that anybody
would."""
TOLD_APART = (REPLACED, MORE, SORT)
_DENIED = re.compile(r"\b(?:not|never|cannot|without)\b|n['’]t\b", re.IGNORECASE)
NO_THINGS = STOP | NEGATIONS | FILLERS | QUANTIFIERS.keys() | NUMBER_WORDS.keys()


class Texts:
    """Embeddings of texts, and of words alone, each made once: `served` as the search service embeds questions on this
    machine, else in float32, which is the same on each."""

    def __init__(self, *, served: bool = True) -> None:
        folder = load_settings().models / "all-minilm-l6-v2"
        if not (folder / "model.safetensors").exists():
            hint = "Run `groundplan up` once; it fetches the model."
            raise Invalid(f"the embedding model is not in {folder}", code="data_absent", hint=hint)
        documents = load_encoder(folder)
        self._encoder = load_question_encoder(folder, documents) if served else documents
        self._known: dict[str, Vector] = {}
        self._said: dict[str, EmbeddedReading] = {}
        self._written: dict[str, EmbeddedReading] = {}
        self._readings: dict[str, Reading] = {}
        self._seen: dict[tuple[str, str], Features] = {}

    def learn(self, texts: Sequence[str]) -> None:
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        for text, vector in zip(new, self._encoder.embed(new), strict=True):
            self._known[text] = vector

    def of(self, text: str) -> Vector:
        return self._known[text]

    def read(self, text: str) -> Reading:
        """A text by its words alone."""
        if text not in self._readings:
            self._readings[text] = read_question(text)
        return self._readings[text]

    def said(self, text: str) -> EmbeddedReading:
        """A text as the gateway knows it: its words' embeddings as the search service tells them."""
        if text not in self._said:
            self._said[text] = self._embedded(self.read(text))
        return self._said[text]

    def written(self, text: str) -> EmbeddedReading:
        """The same as it was written, as it is where it is a part of a longer text."""
        if text not in self._written:
            self._written[text] = self.said(text) if usual_phrasing(text) == text else self._embedded(read(text))
        return self._written[text]

    def _embedded(self, reading: Reading) -> EmbeddedReading:
        (spoken,) = self._encoder.embed_words([reading.text], [reading.spans])
        words = np.frombuffer(quantise(spoken.words), dtype=np.int8).reshape(-1, len(spoken.vector))
        return EmbeddedReading(reading, spoken.vector, words)

    def seen(self, pair: Pair) -> Features:
        """A pair as settings are learned from it."""
        if (pair.a, pair.b) not in self._seen:
            self._seen[pair.a, pair.b] = semantic_tune.features_of(pair, self.said)
        return self._seen[pair.a, pair.b]


def public(path: Path, draw: int = 0) -> list[Pair]:
    """GPTCache's pairs of paraphrases, with traps that are made of them; settings come from draw 0."""
    given = [row for row in _given(path) if len(row["origin"]) < 600]
    texts, pairs = Texts(served=False), []
    texts.learn([text for row in given for text in (row["origin"], row["similar"])])
    others = sorted({word for row in given for word in content(read(row["origin"]))})
    both = [(content(read(row["origin"])), set(content(read(row["similar"])))) for row in given]
    kept = [[word for word in words if word in again] for words, again in both]
    things = sorted({word for words in kept for word in words})
    texts.learn(others)
    vectors = np.stack([texts.of(row["origin"]) for row in given])
    alike = vectors @ vectors.T
    np.fill_diagonal(alike, -1)
    dice, another, sorts = Random(5 + draw), Random(6 + draw), Random(7 + draw)
    for number, row in enumerate(given):
        added = [(row["similar"], True, "repeat")]
        for kind in dice.sample(KINDS, 3):
            changed = trap(row["similar"], kind, dice) or trap(row["origin"], kind, dice)
            if changed is not None and not (kind == "negation" and mended(row["origin"], row["similar"], changed)):
                added.append((changed, False, kind))
        changed = with_another_word(row["origin"], content(read(row["origin"])), others, texts, dice)
        if changed is not None:
            added.append((changed, False, "word"))
        # what a paraphrase keeps is what it is about
        changed = with_another_word(row["similar"], kept[number], things, texts, dice)
        if changed is not None:
            added.append((changed, False, REPLACED))
        changed = with_a_word_more(row, kept[number], things, another)
        if changed is not None:
            added.append((changed, False, MORE))
        changed = with_another_of_its_sort(row["similar"], kept[number], sorts)
        if changed is not None:
            added.append((changed, False, SORT))
        near = int(alike[number].argmax())
        # above that they often are the same after all, though nobody says so
        if max(alike[number, near], float(vectors[number] @ texts.of(given[near]["similar"]))) < 0.8:
            added.append((given[near]["similar"], False, "intent"))
        pairs += [Pair(row["origin"], text, same, kind, f"text {number}") for text, same, kind in added]
    return pairs


def mended(origin: str, similar: str, changed: str) -> bool:
    """Whether a paraphrase denied more or less often than its origin, and does no longer: no trap then."""
    once, before, now = (len(_DENIED.findall(text)) for text in (origin, similar, changed))
    return before != once == now


def _given(path: Path) -> list[dict[str, str]]:
    """{"origin", "similar"} of a file. Raises `Invalid` for another one."""
    try:
        with gzip.open(path) as file:
            return [msgspec.structs.asdict(row) for row in msgspec.json.decode(file.read(), type=list[_Paraphrase])]
    except (OSError, EOFError, zlib.error, msgspec.DecodeError, UnicodeDecodeError) as error:
        hint = "Name GPTCache's mock_data.json, compressed by gzip: a list of origin and similar."
        raise Invalid(f"{path} cannot be read: {error}", code="pairs", hint=hint) from error


class _Paraphrase(msgspec.Struct):
    origin: str
    similar: str


def content(reading: Reading) -> list[str]:
    """All content words, each once, but those that join and point out: without them a question stays what it is."""
    kept = (w for w in reading.words if w not in NO_THINGS and not w[0].isdigit() and w[0] not in '`"$€£¥%')
    return list(dict.fromkeys(kept))


def with_another_word(text: str, words: Sequence[str], others: Sequence[str], texts: Texts, dice: Random) -> str | None:
    """The text with another word in place of one of `words`: near it, too far to say the same, and no synonym."""
    fit = [word for word in words if len(word) > 3 and re.search(rf"\b{re.escape(word)}\b", text)]
    if not fit:
        return None
    word = dice.choice(fit)
    alike = np.stack([texts.of(other) for other in others]) @ texts.of(word)
    sort = [
        other
        for other, near in zip(others, alike, strict=True)
        if 0.3 <= near < 0.6 and not any(synonym_places([word], [other]))
    ]
    return re.sub(rf"\b{re.escape(word)}\b", dice.choice(sort), text, count=1) if sort else None


def with_a_word_more(row: dict[str, str], words: Sequence[str], others: Sequence[str], dice: Random) -> str | None:
    """The paraphrase with any other word before one of `words`."""
    both = f"{row['origin']} {row['similar']}".lower()
    fit = [word for word in words if len(word) > 3 and re.search(rf"\b{re.escape(word)}\b", row["similar"])]
    if not fit:
        return None
    word, more = dice.choice(fit), dice.choice([other for other in others if other not in both])
    return re.sub(rf"\b{re.escape(word)}\b", lambda found: f"{more} {found.group()}", row["similar"], count=1)


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
"""Things of one sort, none of which stands for another."""
_SORTS = [line.split() for line in SORTS.strip().replace("\n", "|").split("|")]


def with_another_of_its_sort(text: str, words: Sequence[str], dice: Random) -> str | None:
    """The text with another thing of its sort in place of one of `words`, wherever it stands."""
    fit = [
        (word, other + word[len(one) :])
        for sort in _SORTS
        for one in sort
        for word in words
        if word in (one, f"{one}s") and re.search(rf"\b{re.escape(word)}\b", text)
        for other in sort
        if other != one
    ]
    if not fit:
        return None
    word, other = dice.choice(fit)
    return re.sub(rf"\b{re.escape(word)}\b", other, text)
