"""Features of a prompt: hashed words and pairs of words, and numbers that describe its surface.

Pure and cheap (well below a millisecond for a long prompt): of a long text the beginning and the end are read. Weights
are learned in `fit`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from math import log, log1p, nan, sqrt
from zlib import crc32

import numpy as np

from groundplan.economics.routing.model import Context, Floats, Hashes

BUCKETS = 1 << 17
_FIRST, _LAST = 260, 140
"""Words read from the beginning and the end of a long prompt."""
_CHARACTERS = 6000
BRIEF = (24, 10)
"""First and last words of a question that are embedded."""
_TOKENS = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?|\d+|[^\w\s]")
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
"""Characters of writing systems without spaces between words: Thai, Lao, Burmese, Khmer, Japanese, Chinese."""
_APART = re.compile(rf"[{_UNSPACED}]|[^\W\d_{_UNSPACED}]+(?:'[^\W\d_{_UNSPACED}]+)?|\d+|[^\w\s]")
_LONGEST = 40
"""Limit of characters of one word of a text to embed."""
_PIECES = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]{{1,{_LONGEST}}}")
_SPACES = re.compile(r"\s{2,}|[^\S \n]")
_ENDS = " .?!\u3002\uff1f\uff01"
_NUMBERS = re.compile(r"\d[\d.,]*")
_ASKS = frozenset({"how", "why", "what", "which", "who", "when", "where", "if", "suppose", "assume"})
_COMPARES = frozenset({"more", "less", "than", "fewer", "greater", "times", "twice", "half", "double", "least", "most"})
_DENIES = frozenset({"not", "no", "never", "except", "without", "cannot", "neither", "false", "incorrect"})
_SHARES = frozenset({"each", "every", "per", "all", "both", "total", "left", "remaining", "rest"})
_DEMANDS = frozenset({"prove", "derive", "explain", "compare", "analyze", "analyse", "design", "refactor", "optimise",
                      "optimize", "evaluate", "reason", "step", "steps", "debug"})  # fmt: skip
_LISTS = (_ASKS, _COMPARES, _DENIES, _SHARES, _DEMANDS)
_MARKS = '%$/?.\n_"({=*+<`#:'
_ITEM = re.compile(r"(?m)^[ \t]*(?:[A-Ja-j]|\d{1,2})[.)][ \t]+(.*)$")
_MOST_ITEMS = 12
_ITEMS = 7
SURFACE = 8 + len(_MARKS) + len(_LISTS) + _ITEMS
"""Numbers in a surface vector."""
CONTEXT = 6
"""Numbers in a context vector: the conversation's, then those of what was found for it."""
CONVERSATION = 2
"""Of those, the first that are known before anything is searched."""
_TAG = 3
"""Weight of a task label, as the count of a word."""


def normalize_text(text: str) -> str:
    """A text without differences of typing: white space is one space or a line end, and punctuation at the end is
    removed. Texts too long to be read as a whole stay as they are."""
    if len(text) > 2 * _CHARACTERS:
        return text
    plain = _SPACES.sub(lambda found: "\n" if "\n" in found[0] else " ", text).strip()
    return plain.rstrip(_ENDS) or plain


def split_words(text: str, *, apart: bool = True) -> list[str]:
    """Lower-case words, numbers and punctuation of the beginning and the end of a text; long numbers become `0`.
    `apart`: in writing without spaces each character is a word, so that pairs of neighbours are features."""
    if len(text) > 2 * _CHARACTERS:
        text = text[:_CHARACTERS] + "\n" + text[-_CHARACTERS:]
    found: list[str] = (_APART if apart else _TOKENS).findall(text.lower())
    if len(found) > _FIRST + _LAST:
        found = found[:_FIRST] + found[-_LAST:]
    return ["0" if len(word) > 2 and word.isdigit() else word for word in found]


def abbreviate(text: str, *, apart: bool = True) -> str:
    """The beginning and the end of a text: about as many tokens as can be embedded within a few milliseconds. `apart`:
    text without spaces is not one word."""
    if not apart:
        words = text[: 2 * _CHARACTERS].split()
        if len(words) <= sum(BRIEF):
            return " ".join(words)
        return " ".join((*words[: BRIEF[0]], *text[-_CHARACTERS:].split()[-BRIEF[1] :]))
    head = text[: 2 * _CHARACTERS]
    first = list(islice(_PIECES.finditer(head), sum(BRIEF) + 1))
    if len(first) <= sum(BRIEF):
        return " ".join(head.split())
    tail = text[-_CHARACTERS:]
    last = list(_PIECES.finditer(tail))[-BRIEF[1] :]
    end = tail[last[0].start() :] if last else ""
    return " ".join(f"{head[: first[BRIEF[0] - 1].end()]} {end}".split())


def hash_counts(words: Sequence[str], task: Sequence[str] = ()) -> dict[int, float]:
    """Bucket -> 1 + ln(count) of words and of pairs of neighbours, and of what the call is for."""
    counts: dict[int, int] = {}
    before = ""
    for word in words:
        bucket = crc32(word.encode()) % BUCKETS
        counts[bucket] = counts.get(bucket, 0) + 1
        if before:
            bucket = crc32(f"{before} {word}".encode()) % BUCKETS
            counts[bucket] = counts.get(bucket, 0) + 1
        before = word
    for name in task:
        bucket = crc32(f"\0{name}".encode()) % BUCKETS
        counts[bucket] = counts.get(bucket, 0) + _TAG
    return {bucket: 1.0 + log(count) for bucket, count in counts.items()}


def word_hashes(words: Sequence[str]) -> Hashes:
    """(n,) sorted 32-bit hashes of the distinct words; of numbers and punctuation if there are no words."""
    said = {word for word in words if word[0].isalpha()} or set(words)
    return np.unique(np.fromiter((crc32(word.encode()) for word in said), dtype=np.uint32, count=len(said)))


def known_share(hashes: Hashes, known: Hashes) -> float:
    """Share of hashes that are among those of training. An unknown word counts as known once in 2^32 / len(known)
    times: below 0.01 % for 400,000 words."""
    if not len(hashes) or not len(known):
        return 0.0
    places = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
    return float((known[places] == hashes).mean())


def surface_features(text: str, words: Sequence[str], *, cased: bool = False) -> Floats:
    """(SURFACE,) numbers: lengths, punctuation, and words that make a task hard. `cased`: include the share of capital
    letters, which is 0 otherwise."""
    size, count = max(1, len(text)), max(1, len(words))
    read = text if size <= 2 * _CHARACTERS else text[:_CHARACTERS] + text[-_CHARACTERS:]
    asked = len(text) if (end := _options(text, cased=cased)) < 0 else end
    numbers = _NUMBERS.findall(read)
    values = [
        log1p(size),
        log1p(count),
        log1p(len(numbers)),
        sum(map(len, words)) / count,
        len(set(words)) / count,
        log1p(asked),
        log1p(size - asked),
        sum(map(str.isupper, read)) / len(read) if cased and read else 0.0,
    ]
    values += [log1p(read.count(mark)) for mark in _MARKS]
    values += [log1p(sum(word in known for word in words)) for known in _LISTS]
    values += _list_features(read)
    return np.asarray(values, dtype=np.float32)


def _options(text: str, *, cased: bool) -> int:
    """Offset at which a list of choices begins; -1: none."""
    end = text.find("\nA.")
    if cased:
        return end
    small = text.find("\na.")
    return max(end, small) if min(end, small) < 0 else min(end, small)


def context_features(context: Context) -> Floats:
    """(CONTEXT,) numbers: turns and length of the conversation so far; whether passages were searched, how many were
    found, the best score, and its lead over the next one. NaN for what is not known yet."""
    scores = context.scores
    found = [nan] * (CONTEXT - CONVERSATION)
    if scores is not None:
        best = scores[0] if scores else 0.0
        found = [1.0, log1p(len(scores)), best, best - (scores[1] if len(scores) > 1 else 0.0)]
    return np.asarray([log1p(context.messages), log1p(context.before), *found], dtype=np.float32)


def _list_features(text: str) -> list[float]:
    """Features of the items of a list (choices, steps): count, lengths, how many have numbers, how much they
    overlap."""
    items = _ITEM.findall(text)[:_MOST_ITEMS]
    if not items:
        return [0.0] * _ITEMS
    sizes = [len(item) for item in items]
    mean = sum(sizes) / len(sizes)
    spread = sqrt(sum((size - mean) ** 2 for size in sizes) / len(sizes))
    numbered = sum(_NUMBERS.search(item) is not None for item in items)
    sets = [frozenset(item.lower().split()) for item in items]
    pairs = [(one, other) for place, one in enumerate(sets) for other in sets[:place]]
    shared = sum(len(one & other) / max(1, len(one | other)) for one, other in pairs) / max(1, len(pairs))
    return [
        float(len(items)),
        log1p(mean),
        log1p(spread),
        log1p(max(sizes)),
        log1p(min(sizes)),
        float(numbered),
        shared,
    ]
