"""Versions of the same thing by their names and content, and where two of them contradict each other. Pure.

Two documents are versions of one thing where their titles are the same but for a year, a date or a version, or where
they are near-duplicates. Where such two say different numbers about the same words, that is a conflict.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from groundplan.knowledge.numbers import join_digits, normalise_number
from groundplan.knowledge.quality.model import AssessedDocument
from groundplan.knowledge.writing_systems import bigrams, space_out, split_unspaced

_MARK = re.compile(
    r"[\s(_\[-]*(?<![^\W_])(?:(?:v|version|rev|revision|stand|edition)[. ]?\d+(?:\.\d+)*"
    r"|(?:19|20)\d{2}(?:-\d{2}(?:-\d{2})?)?"
    r"|(?:old|new|final|draft|copy|alt|neu))(?![^\W_])[)\]]*",
    re.IGNORECASE,
)
"""Of a text whose runs without spaces are `spread`; in names of files an underscore stands for a space."""
_DATED = re.compile(r"(?:19|20)\d{2}(?:-\d{2}(?:-\d{2})?)?")
_DAY = re.compile(r"(?:19|20)\d{2}-\d{2}-\d{2}")
_NUMBERED = re.compile(r"(?:v|version|rev|revision)[. ]?(\d{1,9}(?:\.\d{1,9})*)", re.IGNORECASE)
_NUMBERS = re.compile(r"\d+(?:[.,]\d+)*")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")
_COMMON = frozenset(
    ("a", "an", "and", "are", "as", "at", "be", "by", "for", "from", "in", "is", "it", "of", "on", "or", "the", "to",
     "with", "per", "this", "that", "not", "may", "can", "will")
)  # fmt: skip
MIN_WORDS = 4
MAX_STATEMENTS = 3000
"""Sentences with numbers of a text that are compared: each with all of the other that share a word with it."""
_TO_COME = frozenset({"draft", "not_yet_valid"})
ALIKE = 0.75
"""Part of the words of two sentences that are the same, numbers apart, from which they are about the same."""


@dataclass(frozen=True, slots=True)
class Versions:
    """`older` are places of documents that `newest` seems to replace. `days`: days in their titles tell them apart, as
    those of minutes and reports do: they are versions of one thing where they say nearly the same."""

    newest: int
    older: tuple[int, ...]
    days: bool = False


def title_stem(title: str) -> str:
    """A title without what tells versions apart, in lower case."""
    return " ".join(_MARK.sub(" ", space_out(title)).lower().split())


def version_rank(title: str, path: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What a title or path says of its version, to be compared: the newest year, month or day, then the highest
    version, `v1.10` above `v1.9`."""
    days = _numbers(_DATED, title, path, "-")
    return (max(days, default=()), max(_numbers(_NUMBERED, title, path, "."), default=()))


def _numbers(what: re.Pattern[str], title: str, path: str, apart: str) -> list[tuple[int, ...]]:
    return [tuple(map(int, found.split(apart))) for found in what.findall(f"{title} {path}")]


def find_versions(looks: Sequence[AssessedDocument]) -> Iterator[Versions]:
    """Live documents of one source that nobody declared to supersede each other, but whose titles say so. A draft, or
    what begins later, replaces nothing that holds."""
    groups: dict[str, list[int]] = defaultdict(list)
    for at, look in enumerate(looks):
        if look.superseded_by is None and look.state in ("approved", "draft") and (name := title_stem(look.title)):
            groups[name].append(at)
    for group in groups.values():
        named = [at for at in group if _MARK.search(space_out(f"{looks[at].title} {looks[at].path}"))]
        if len(group) < 2 or not named or len({looks[at].content for at in group}) < 2:
            continue
        ordered = sorted(group, key=lambda at: _age(looks[at]))
        begun = [place for place, at in enumerate(ordered) if looks[at].standing not in _TO_COME]
        del ordered[max(begun, default=len(ordered)) + 1 :]
        if len(ordered) < 2:
            continue
        days = all(_DAY.search(looks[at].title) for at in ordered)
        yield Versions(ordered[-1], tuple(ordered[:-1]), days)


def _age(look: AssessedDocument) -> tuple[tuple[int, ...], tuple[int, ...], str]:
    """A title without a year is of the year in which it was changed; where that is not known, the current one."""
    dated, number = version_rank(look.title, look.path)
    dated = dated or (look.modified_at.year if look.modified_at else 9999,)
    stamp = look.review_by or (look.modified_at.date() if look.modified_at else None)
    return (dated, number, stamp.isoformat() if stamp else "")


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two sentences about the same with different numbers."""

    one: str
    other: str


Statement = tuple[str, frozenset[str], tuple[str, ...]]
"""A sentence with a number and enough words: the sentence, its words without numbers, its numbers."""


def find_conflicts(one: Sequence[Statement], other: Sequence[Statement], limit: int = 5) -> list[Conflict]:
    """Statements of two texts that differ in their numbers only."""
    theirs: dict[frozenset[str], dict[tuple[str, ...], str]] = defaultdict(dict)
    by_word: dict[str, set[frozenset[str]]] = defaultdict(set)
    for sentence, words, numbers in other:
        theirs[words].setdefault(numbers, sentence)
        for word in words:
            by_word[word].add(words)
    found: list[Conflict] = []
    for sentence, words, numbers in one:
        near = {each for word in words for each in by_word[word]}
        alike = [each for each in near if len(each & words) / len(each | words) >= ALIKE]
        if any(numbers in theirs[each] for each in alike):
            continue
        for each in sorted(alike, key=lambda w: -len(w & words))[:1]:
            found.append(Conflict(sentence, next(iter(theirs[each].values()))))
        if len(found) == limit:
            break
    return found


def statements(text: str) -> tuple[Statement, ...]:
    """The first `MAX_STATEMENTS` of a text."""
    return tuple(islice(_statements(text), MAX_STATEMENTS))


def _statements(text: str) -> Iterator[Statement]:
    """Of scripts without spaces pairs of characters are words."""
    for raw in _SENTENCE.split(text):
        sentence = " ".join(raw.split())
        spaced, runs = split_unspaced(join_digits(raw))
        numbers = tuple(map(normalise_number, _NUMBERS.findall(spaced)))
        words = frozenset(re.findall(r"[^\W\d_]+", spaced.lower())) - _COMMON
        words |= {pair for run in runs for pair in bigrams(run)}
        if numbers and len(words) >= MIN_WORDS and len(sentence) <= 400 and not sentence.startswith("|"):
            yield sentence, words, numbers
