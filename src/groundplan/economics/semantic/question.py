"""Finds the question word of a text, its focus (what is asked for), its moods (may, must, should) and its tense. Pure.

Read from closed classes of English words (`grammar`), without a parser. Where these do not tell, the result is empty.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise

from groundplan.economics.semantic import grammar as g
from groundplan.economics.semantic.spelling import PAST_FORMS, is_past_form

MAX_SCAN = 40
"""Limit of words scanned from one word: no phrase is that long, and a text without an end of a phrase would take
quadratic time."""

MAX_POLITE_LENGTH = 400
"""Limit of characters of one polite phrase around a question."""


class Tokens:
    """The words of a text, with the stem of each (empty: no content word) and whether punctuation stands before it.
    `skipped`: places of polite phrases; `absorbed`: places of particles that are read with their verbs."""

    def __init__(
        self,
        words: Sequence[str],
        stems: Sequence[str],
        breaks: Sequence[bool],
        skipped: frozenset[int],
        absorbed: frozenset[int],
    ) -> None:
        self.words = [_strip_contraction(word) for word in words]
        self.stems, self.breaks, self.skipped, self.absorbed = stems, breaks, skipped, absorbed
        self.kept_words = frozenset(word for place, word in enumerate(self.words) if place not in skipped)
        """The distinct words outside polite phrases."""
        self.content = [place for place, stem in enumerate(stems) if stem]
        self.word_at: Callable[[int], str] = defaultdict(str, enumerate(self.words)).__getitem__
        """The word at a place; empty outside the text."""
        self.segments = list(accumulate(breaks))
        """Number of the segment (between punctuation marks) of each word."""
        self.continues_run = [
            bool(stem) and not has_break and word not in g.RELATIONS
            for word, stem, has_break in zip(self.words, stems, breaks, strict=False)
        ]
        """Whether each place holds a content word without punctuation before it; two entries longer than the text."""
        self.continues_run += (False, False)
        self.run_starts = list[int]()
        """For each word the place where its run of content words begins."""
        for place in range(len(self.words)):
            continues = (
                place > 0
                and self.continues_run[place]
                and stems[place - 1]
                and self.words[place - 1] not in g.RELATIONS
            )
            self.run_starts.append(self.run_starts[place - 1] if continues else place)

    def clause_end(self, place: int) -> int:
        """The place behind the clause that a place belongs to."""
        after = place + 1
        while after < len(self.words) and not self.breaks[after] and self.words[after] not in g.SUBORDINATE:
            after += 1
        return after


@lru_cache(maxsize=8192)
def _strip_contraction(word: str) -> str:
    """`who's` as `who`, `i'll` as `i`; negations (`isn't`) stay as they are."""
    first, mark, rest = word.partition("'")
    return first if mark and rest in ("s", "re", "ve", "ll", "d", "m") and first in _CONTRACTED else word


_CONTRACTED = g.WH | g.FIRST | g.THIRD | g.THEY | {"you", "it", "that", "there", "let"}


def polite_places(words: Sequence[str]) -> frozenset[int]:
    """The places of the words of polite phrases, which ask for nothing."""
    bare = [_strip_contraction(word) for word in words]
    starts_by_place = [(place, _polite_starts(word)) for place, word in enumerate(bare)]
    if not any(starts for _, starts in starts_by_place):
        return _NO_PLACES
    text, offsets = " ".join(bare), [0, *accumulate(len(word) + 1 for word in bare)]
    found, end = set[int](), 0
    for place, starts in starts_by_place:
        for start in starts:
            begin = offsets[place] + start
            match = g.POLITE.match(text, begin, begin + MAX_POLITE_LENGTH) if begin >= end else None
            if match:
                end = match.end()
                found.update(range(place, bisect_right(offsets, end - 1)))
    return frozenset(found)


_NO_PLACES = frozenset[int]()


@lru_cache(maxsize=8192)
def _polite_starts(word: str) -> tuple[int, ...]:
    """The offsets in a word at which a polite phrase may begin."""
    return tuple(found.start() for found in g.POLITE_STARTS.finditer(word))


def question_phrase_places(words: Sequence[str]) -> frozenset[int]:
    """The places of words that only complete the question word before them: *which person*, *how long*."""
    found = {
        place + 1
        for place, (word, after) in enumerate(pairwise(words))
        if (word in ("what", "which") and after in g.QUESTION_NOUNS) or (word == "how" and after in HOW_ASPECTS)
    }
    for place, word in enumerate(words):
        is_way = word in g.WAY_NOUNS and words[max(0, place - 3) : place] in _WHAT_IS
        impersonal = (
            word in g.IMPERSONAL_MOODS
            and words[max(0, place - 2) : place] in _IS_IT
            and words[place + 1 : place + 2] == ("to",)
        )
        if is_way or impersonal:
            found.add(place)
    return frozenset(found)


_IS_IT = (("is", "it"), ("am", "i"), ("are", "we"), ("are", "you"), ("is", "one"))
_WHAT_IS = (("what", "is", "the"), ("what", "are", "the"), ("what", "was", "the"), ("what", "were", "the"))


def find_question_word(tokens: Tokens) -> tuple[int, bool]:
    """(place of the question word, or -1; whether the question asks for yes or no)"""
    for place in range(len(tokens.words)):
        if place in tokens.skipped or not (place == 0 or tokens.breaks[place] or place - 1 in tokens.skipped):
            continue
        first = place
        while first < place + MAX_SCAN and tokens.word_at(first) in g.LEAD_INS and first + 1 < len(tokens.words):
            first += 1
        if first in tokens.skipped:
            continue
        word = tokens.word_at(first)
        if word in g.WH:
            return first, False
        for after in (first + 1, first + 2):
            if word in g.BEFORE_WH and tokens.word_at(after) in g.WH:
                return after, False
        if word in g.AUXILIARIES or (place - 1 in tokens.skipped and tokens.word_at(place) in ("if", "whether")):
            return first, True
    found = next((i for i, word in enumerate(tokens.words) if word in ("how", "why", "who", "whom", "what")), -1)
    if found < 0 and tokens.words and tokens.words[-1] in ("possible", "allowed", "permitted"):
        return len(tokens.words) - 1, True
    return found, False


HOW_ASPECTS = {"many": "count", "much": "amount", "long": "duration", "often": "rate", "frequently": "rate",
               "old": "age", "far": "distance", "come": "why"}  # fmt: skip
"""Word behind `how` -> what both ask for."""


_SUBJECTS = frozenset({"i", "we", "one", "you"})
_BE_FORMS = frozenset({"is", "are", "was", "were"})


def find_focus(tokens: Tokens, place: int) -> tuple[str, bool, str]:
    """(focus, whether `is` joins the question word to a noun, noun that is counted or chosen): see `Clause`."""
    if place < 0:
        named = next((word for word in tokens.words if word not in g.DETERMINERS), "")
        return g.ASPECTS.get(named, ""), False, ""
    word = tokens.word_at(place)
    if word == "how":
        return _how_focus(tokens, place)
    if word in ("what", "which"):
        return _what_focus(tokens, place)
    return ("who" if word in ("whom", "whose") else word), False, ""


def _how_focus(tokens: Tokens, place: int) -> tuple[str, bool, str]:
    after = tokens.word_at(place + 1)
    if after not in HOW_ASPECTS:
        return ("measure" if after in g.MEASURED_ADJECTIVES else "how"), False, ""
    if tokens.word_at(place + 2) in g.DURATION_UNITS and tokens.word_at(place + 3) != "of":
        return "duration", False, ""
    counted = tokens.stems[place + 2] if after == "many" and place + 2 < len(tokens.words) else ""
    return HOW_ASPECTS[after], False, counted


def _what_focus(tokens: Tokens, place: int) -> tuple[str, bool, str]:
    word, after, end = tokens.word_at(place), tokens.word_at(place + 1), tokens.clause_end(place)
    if word == "what" and tokens.word_at(end - 1) == "for":
        return "purpose", False, ""
    if after == "now":
        return "how", False, ""
    joined = after in _BE_FORMS or after in ("would", "will")
    near = [tokens.word_at(i) for i in range(place + 1, min(place + 6, end))]
    named = next((g.ASPECTS[each] for each in near[: 5 if joined else 2] if each in g.ASPECTS), "")
    if named:
        return named, False, ""
    if after in g.AUXILIARIES and tokens.word_at(place + 2) in _SUBJECTS and tokens.word_at(place + 3) == "do":
        return "how", False, ""
    if after in g.AUXILIARIES and not joined:
        rest = [tokens.word_at(i) for i in range(place + 2, end + 1)]
        if not {"pay", "charge", "cost"}.isdisjoint(rest):
            return "amount", False, ""
        ways = any(x in ("do", "done") and y in ("to", "if", "when", "") for x, y in pairwise([*rest, ""]))
        return ("how" if ways else "thing"), False, ""
    return word, joined, "" if joined or place + 1 >= len(tokens.words) else tokens.stems[place + 1]


def find_moods(tokens: Tokens, place: int, aim: str, *, asked: bool) -> tuple[frozenset[str], str]:
    end = tokens.clause_end(place) if asked else len(tokens.words)
    # a word behind `than` says nothing of the mood: *closer than allowed*
    if "than" in tokens.words:
        end = next((i for i in range(place, end) if tokens.word_at(i) == "than"), end)
    clause_words = [
        tokens.words[i]
        for i in range(place, end)
        if i not in tokens.skipped and (i == place or tokens.words[i] != "may" or not is_month(tokens, i))
    ]
    possible = frozenset[str]().union(*map(possible_moods, clause_words))
    text = " ".join(clause_words) if possible else ""
    moods = frozenset(name for name in possible if g.MOODS[name].search(text))
    return moods, _clause_tense(clause_words, moods, aim) if asked and clause_words else ""


@lru_cache(maxsize=8192)
def possible_moods(word: str) -> frozenset[str]:
    """The moods that a word may express, alone or with the next words."""
    return frozenset(name for name, begins in g.MOOD_STARTS.items() if begins.search(word))


def is_month(tokens: Tokens, place: int) -> bool:
    """Whether the word is `may`, the month."""
    return (
        tokens.word_at(place) == "may"
        and place > 0
        and not tokens.breaks[place]
        and tokens.word_at(place - 1) in g.RELATIONS
    )


def _clause_tense(part: Sequence[str], moods: frozenset[str], aim: str) -> str:
    """`past`, `will`, `present` or empty. `part`: the words of a clause from its question word on."""
    if part[0] in ("what", "which") and aim in ("how", "why"):
        # `what is the reason that it was`, `what are the steps to`
        if aim == "how":
            return "present"
        part = part[next((i for i, word in enumerate(part) if word in g.ASPECTS), 0) :]
    early, first = part[:7], part[0] if aim == "polar" else (*part[1:2], "")[0]
    perfect = first in g.PERFECT and "to" not in early[:4]
    done = aim == "who" and (first.endswith("ed") or first in PAST_FORMS)
    if perfect or done or not g.PAST.isdisjoint(early):
        return "past"
    if "will" in moods:
        return "will"
    if moods or aim == "who" or not g.PRESENT.isdisjoint(early):
        return "present"
    late = next((word for word in part[7:] if word in g.PRESENT or word in g.PAST), "")
    if late:
        return "past" if late in g.PAST else "present"
    # no other verb than one in the present: *which rules apply*
    return "present" if len(part) > 1 and not any(map(is_past_form, part)) else ""
