"""How the scripted model answers from the passages of its prompt: by the words that they share with the question, or,
in the demo, by what they mean, as far as the shipped embedding model tells.

In the demo a small model (by its name) repeats the nearest sentence and says so when it is not sure; any other repeats
up to three that are near. Nothing is known here of what is asked, of who judges it, or of any document.
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

SURE, APART = 0.6, 0.1
"""A small model says that a sentence answers where it is so much like the question, and by so much more than any
other."""
BESIDE, NEAR = 0.2, 3
"""Other sentences are said, too, where they are less like the question by no more than this, so many in all."""
UNSURE = "I am not sure that the passages answer this. They say: "
_SMALL = re.compile(r"mini|nano|small|tiny|flat")
_HEADING = re.compile(r"(?m)^#+ .*$")
_PASSAGE = re.compile(r"^\[(\d+)\] ?([^\n]*)\n(.+?)(?=^\[\d+\]|\Z)", re.MULTILINE | re.DOTALL)
_LISTED = re.compile(r"(?m)^\s*(?:\d+\.|[-*])\s+")
_ENDS = re.compile(r"(?<=[.!?])\s+")
_BLOCKS = re.compile(r"\n\s*\n|\n(?=#)|\n(?=\s*(?:\d+\.|[-*])\s)")
MOST = 40
"""Sentences of one passage that are read."""

Read = Callable[[str, str, str], str]
"""Model, question, text with numbered passages -> what is answered; empty where there are no passages."""
Embed = Callable[[Sequence[str]], "Vectors"]


class Sentence(NamedTuple):
    """`passage`: its number in the prompt. `heading`: the nearest above it, else the passage's title."""

    passage: str
    heading: str
    text: str


def by_words(model: str, question: str, text: str) -> str:  # noqa: ARG001 -- as the others; all models are the same
    """From the first passage the sentence that shares most words with the question."""
    found = _PASSAGE.search(text)
    if found is None:
        return ""
    passage = " ".join(_HEADING.sub(" ", found[3]).split()) or " ".join(found[3].split())
    wanted = _long_words(question)
    best = max(_ENDS.split(passage)[:MOST], key=lambda each: len(wanted & _long_words(each)))
    return _cited(found[1], best)


def by_meaning(embed: Embed) -> Read:
    """From all passages the sentences nearest in meaning, by unit vectors of `embed`."""

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
            best, sure = told[alone.index(first)], first >= SURE and first - second >= APART
            return _cited(best.passage, best.text) if sure else UNSURE + best.text
        under = [float(vector(f"{each.heading}: {each.text}") @ asked) for each in told]
        likeness = [(one + other) / 2 for one, other in zip(alone, under, strict=True)]
        nearest = sorted(range(len(told)), key=lambda at: -likeness[at])[:NEAR]
        near = [told[at] for at in sorted(nearest) if likeness[at] >= likeness[nearest[0]] - BESIDE]
        parts = groupby(near, key=lambda each: each.passage)
        return " ".join(_cited(number, " ".join(each.text for each in mine)) for number, mine in parts)

    return read


def lazily(folder: Path) -> Read:
    """`by_meaning` with the embedding model in `folder`, loaded when first asked; `by_words` while it is not there."""
    read: list[Read] = []

    def answer(model: str, question: str, text: str) -> str:
        if not read and (folder / "model.safetensors").exists():
            from groundplan.knowledge.embedding.encoder import Encoder  # noqa: PLC0415 -- large, and few are asked so

            read.append(by_meaning(Encoder(folder).embed))
        return (read[0] if read else by_words)(model, question, text)

    return answer


def sentences(text: str) -> list[Sentence]:
    """Those of all numbered passages in a prompt, in order, without headings, numbers and bullets of lists."""
    found = []
    for number, title, passage in _PASSAGE.findall(text):
        heading, mine = title, []
        for block in _BLOCKS.split(passage):
            told = block.strip()
            if told.startswith("#"):
                heading, _, told = told.lstrip("#").strip().partition("\n")
            whole = " ".join(_LISTED.sub("", told).split())
            mine += [Sentence(number, heading, each) for each in _ENDS.split(whole) if re.search(r"\w", each)]
        found += mine[:MOST]
    return found


def _long_words(text: str) -> set[str]:
    return set(re.findall(r"\w{4,}", text.lower()))


def _cited(number: str, said: str) -> str:
    return f"According to the passage [{number}]: {said[:400]}"
