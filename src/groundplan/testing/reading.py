"""How the scripted model answers from the passages of its prompt: by words that they share with the question or, in the
demo, by similarity of the shipped embedding model.

In the demo a small model (by its name) repeats the nearest sentence and says when it is not sure; any other model
repeats up to three near sentences. This module knows no questions, judges or documents.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from groundplan.knowledge.model import Vectors

MIN_SIMILARITY, MIN_MARGIN = 0.6, 0.1
"""A small model is sure if the best sentence has this similarity with the question and this margin over the next."""
MAX_DISTANCE, MAX_SENTENCES = 0.2, 3
"""Further sentences are repeated if their similarity is at most this much lower, up to this number in all."""
UNSURE = "I am not sure that the passages answer this. They say: "
_SMALL = re.compile(r"mini|nano|small|tiny|flat")
_HEADING = re.compile(r"(?m)^#+ .*$")
_PASSAGE = re.compile(r"^\[(\d+)\] ?([^\n]*)\n(.+?)(?=^\[\d+\]|\Z)", re.MULTILINE | re.DOTALL)
_LISTED = re.compile(r"(?m)^\s*(?:\d+\.|[-*])\s+")
_ENDS = re.compile(r"(?<=[.!?])\s+")
_BLOCKS = re.compile(r"\n\s*\n|\n(?=#)|\n(?=\s*(?:\d+\.|[-*])\s)")
MAX_READ_SENTENCES = 40
"""Most sentences of one passage that are considered."""

Reader = Callable[[str, str, str], str]
"""(model, question, text with numbered passages) -> answer; empty where there are no passages."""
Embed = Callable[[Sequence[str]], "Vectors"]


class Sentence(NamedTuple):
    """A sentence of passage number `passage`; `heading` is the nearest one above it, else the passage's title."""

    passage: str
    heading: str
    text: str


def by_words(model: str, question: str, text: str) -> str:  # noqa: ARG001 -- as the others; all models are the same
    """Answer with the sentence of the first passage that shares most words with the question."""
    found = _PASSAGE.search(text)
    if found is None:
        return ""
    passage = " ".join(_HEADING.sub(" ", found[3]).split()) or " ".join(found[3].split())
    wanted = _long_words(question)
    best = max(_ENDS.split(passage)[:MAX_READ_SENTENCES], key=lambda each: len(wanted & _long_words(each)))
    return _cite(found[1], best)


def by_meaning(embed: Embed) -> Reader:
    """A reader that answers with the sentences of all passages that are most similar, by unit vectors of `embed`."""

    @lru_cache(maxsize=4096)
    def vector(text: str) -> Vectors:
        made: Vectors = embed([text])[0]
        return made

    def read(model: str, question: str, text: str) -> str:
        told = sentences(text)
        if not told:
            return ""
        asked = vector(question)
        alone = [float(vector(each.text) @ asked) for each in told]
        if _SMALL.search(model):
            first, second = (*sorted(alone, reverse=True)[:2], -1.0)[:2]
            best, sure = told[alone.index(first)], first >= MIN_SIMILARITY and first - second >= MIN_MARGIN
            return _cite(best.passage, best.text) if sure else UNSURE + best.text
        under = [float(vector(f"{each.heading}: {each.text}") @ asked) for each in told]
        likeness = [(one + other) / 2 for one, other in zip(alone, under, strict=True)]
        nearest = sorted(range(len(told)), key=lambda at: -likeness[at])[:MAX_SENTENCES]
        near = [told[at] for at in sorted(nearest) if likeness[at] >= likeness[nearest[0]] - MAX_DISTANCE]
        parts = groupby(near, key=lambda each: each.passage)
        return " ".join(_cite(number, " ".join(each.text for each in mine)) for number, mine in parts)

    return read


def lazy_reader(folder: Path) -> Reader:
    """`by_meaning` with the model in `folder`, loaded at the first question; `by_words` while it is missing."""
    read: list[Reader] = []

    def answer(model: str, question: str, text: str) -> str:
        if not read and (folder / "model.safetensors").exists():
            from groundplan.knowledge.embedding.encoder import Encoder  # noqa: PLC0415 -- large, and few are asked so

            read.append(by_meaning(Encoder(folder).embed))
        return (read[0] if read else by_words)(model, question, text)

    return answer


def sentences(text: str) -> list[Sentence]:
    """The sentences of all numbered passages in a prompt, in order, without headings, list numbers and bullets."""
    found = []
    for number, title, passage in _PASSAGE.findall(text):
        heading, mine = title, []
        for block in _BLOCKS.split(passage):
            told = block.strip()
            if told.startswith("#"):
                heading, _, told = told.lstrip("#").strip().partition("\n")
            whole = " ".join(_LISTED.sub("", told).split())
            mine += [Sentence(number, heading, each) for each in _ENDS.split(whole) if re.search(r"\w", each)]
        found += mine[:MAX_READ_SENTENCES]
    return found


def _long_words(text: str) -> set[str]:
    return set(re.findall(r"\w{4,}", text.lower()))


def _cite(number: str, said: str) -> str:
    return f"According to the passage [{number}]: {said[:400]}"
