"""Finds versions of the same document by their titles, and contradictions between two documents. Pure.

Two documents are versions of one if their titles differ only in a year, a date or a version, or if they are
near-duplicates. If two such documents state different numbers with the same words, that is a conflict.
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

_VERSION_MARK = re.compile(
    r"[\s(_\[-]*(?<![^\W_])(?:(?:v|version|rev|revision|stand|edition)[. ]?\d+(?:\.\d+)*"
    r"|(?:19|20)\d{2}(?:-\d{2}(?:-\d{2})?)?"
    r"|(?:old|new|final|draft|copy|alt|neu))(?![^\W_])[)\]]*",
    re.IGNORECASE,
)
"""For a text that went through `space_out`; in names of files an underscore stands for a space."""
_DATE = re.compile(r"(?:19|20)\d{2}(?:-\d{2}(?:-\d{2})?)?")
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
"""Most sentences with numbers of a text that are compared, each with all of the other text that share a word with it.
"""
_NOT_IN_FORCE = frozenset({"draft", "not_yet_valid"})
MIN_SIMILARITY = 0.75
"""Jaccard similarity of the words of two sentences, without numbers, from which they are about the same."""


@dataclass(frozen=True, slots=True)
class Versions:
    """Indices of documents that seem to be versions of one; `newest` seems to replace the `older` ones. `days`: their
    titles differ in a date, as those of minutes and reports: then they are versions only if they are near-duplicates.
    """

    newest: int
    older: tuple[int, ...]
    days: bool = False


def title_stem(title: str) -> str:
    """A title in lower case, without the parts that distinguish versions."""
    return " ".join(_VERSION_MARK.sub(" ", space_out(title)).lower().split())


def version_rank(title: str, path: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The version in a title or path as a key for sorting: the newest year, month or date, then the highest version,
    `v1.10` above `v1.9`."""
    days = _find_numbers(_DATE, title, path, "-")
    return (max(days, default=()), max(_find_numbers(_NUMBERED, title, path, "."), default=()))


def _find_numbers(what: re.Pattern[str], title: str, path: str, apart: str) -> list[tuple[int, ...]]:
    return [tuple(map(int, found.split(apart))) for found in what.findall(f"{title} {path}")]


def find_versions(documents: Sequence[AssessedDocument]) -> Iterator[Versions]:
    """Live documents of one source whose titles suggest that one replaces the others, without a declaration. A draft,
    or a document that is not valid yet, does not replace one that is in force."""
    groups: dict[str, list[int]] = defaultdict(list)
    for index, document in enumerate(documents):
        if (
            document.superseded_by is None
            and document.state in ("approved", "draft")
            and (name := title_stem(document.title))
        ):
            groups[name].append(index)
    for group in groups.values():
        marked = [
            index
            for index in group
            if _VERSION_MARK.search(space_out(f"{documents[index].title} {documents[index].path}"))
        ]
        if len(group) < 2 or not marked or len({documents[index].content for index in group}) < 2:
            continue
        ordered = sorted(group, key=lambda index: _version_order(documents[index]))
        in_force = [place for place, index in enumerate(ordered) if documents[index].standing not in _NOT_IN_FORCE]
        del ordered[max(in_force, default=len(ordered)) + 1 :]
        if len(ordered) < 2:
            continue
        days = all(_DAY.search(documents[index].title) for index in ordered)
        yield Versions(ordered[-1], tuple(ordered[:-1]), days)


def _version_order(document: AssessedDocument) -> tuple[tuple[int, ...], tuple[int, ...], str]:
    """The key by which versions are sorted, oldest first. A title without a year counts as of the year of its last
    change; if that is not known, as the current one."""
    dated, number = version_rank(document.title, document.path)
    dated = dated or (document.modified_at.year if document.modified_at else 9999,)
    stamp = document.review_by or (document.modified_at.date() if document.modified_at else None)
    return (dated, number, stamp.isoformat() if stamp else "")


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two sentences that state different numbers about the same."""

    one: str
    other: str


Statement = tuple[str, frozenset[str], tuple[str, ...]]
"""A sentence with a number and enough words: the sentence, its words without numbers, its numbers."""


def find_conflicts(one: Sequence[Statement], other: Sequence[Statement], limit: int = 5) -> list[Conflict]:
    """Statements of two texts that differ only in their numbers, at most `limit`."""
    others: dict[frozenset[str], dict[tuple[str, ...], str]] = defaultdict(dict)
    by_word: dict[str, set[frozenset[str]]] = defaultdict(set)
    for sentence, words, numbers in other:
        others[words].setdefault(numbers, sentence)
        for word in words:
            by_word[word].add(words)
    found: list[Conflict] = []
    for sentence, words, numbers in one:
        near = {each for word in words for each in by_word[word]}
        similar = [each for each in near if len(each & words) / len(each | words) >= MIN_SIMILARITY]
        if any(numbers in others[each] for each in similar):
            continue
        for each in sorted(similar, key=lambda w: -len(w & words))[:1]:
            found.append(Conflict(sentence, next(iter(others[each].values()))))
        if len(found) == limit:
            break
    return found


def statements(text: str) -> tuple[Statement, ...]:
    """The first `MAX_STATEMENTS` statements of a text."""
    return tuple(islice(_statements(text), MAX_STATEMENTS))


def _statements(text: str) -> Iterator[Statement]:
    """The statements of a text. In scripts without spaces, pairs of characters are words."""
    for raw in _SENTENCE.split(text):
        sentence = " ".join(raw.split())
        spaced, runs = split_unspaced(join_digits(raw))
        numbers = tuple(map(normalise_number, _NUMBERS.findall(spaced)))
        words = frozenset(re.findall(r"[^\W\d_]+", spaced.lower())) - _COMMON
        words |= {pair for run in runs for pair in bigrams(run)}
        if numbers and len(words) >= MIN_WORDS and len(sentence) <= 400 and not sentence.startswith("|"):
            yield sentence, words, numbers
