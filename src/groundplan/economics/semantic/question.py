"""What a text asks for: which word asks, for what, and whether it may, must, should or did. Pure.

Closed classes of English words tell (`grammar`); there is no parser. Where they do not tell, nothing is said.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise

from groundplan.economics.semantic import grammar as g
from groundplan.economics.semantic.spelling import PAST_FORMS, past_form

FAR = 40
"""Words over which is looked from one: no thing is said in as many, and where none of them ends, each would take the
time of all."""

LONG = 400
"""Characters of what is said around a question at most."""


class Words:
    """Words with their stems (empty: no content) and whether a mark of punctuation stands before each."""

    def __init__(
        self,
        words: Sequence[str],
        stems: Sequence[str],
        breaks: Sequence[bool],
        skipped: frozenset[int],
        spent: frozenset[int],
    ) -> None:
        self.words = [_bare(word) for word in words]
        self.stems, self.breaks, self.skipped, self.spent = stems, breaks, skipped, spent
        self.once = frozenset(word for place, word in enumerate(self.words) if place not in skipped)
        """Each of the words that is not said around it."""
        self.content = [place for place, its in enumerate(stems) if its]
        self.at: Callable[[int], str] = defaultdict(str, enumerate(self.words)).__getitem__
        """The word at a place; empty outside of the text."""
        self.parts = list(accumulate(breaks))
        """How many marks stand before each word."""
        self.follows = [
            bool(its) and not apart and word not in g.RELATIONS
            for word, its, apart in zip(self.words, stems, breaks, strict=False)
        ]
        """Whether a word of content stands there, and no mark before it; two places behind the text as well."""
        self.follows += (False, False)
        self.begins = list[int]()
        """The first word of the run of each."""
        for place in range(len(self.words)):
            runs = place > 0 and self.follows[place] and stems[place - 1] and self.words[place - 1] not in g.RELATIONS
            self.begins.append(self.begins[place - 1] if runs else place)

    def end(self, place: int) -> int:
        """Where the clause of a place ends."""
        after = place + 1
        while after < len(self.words) and not self.breaks[after] and self.words[after] not in g.SUBORDINATE:
            after += 1
        return after

    def together(self, one: int, other: int) -> bool:
        """Whether no mark stands between two places."""
        return self.parts[one] == self.parts[other]


@lru_cache(maxsize=8192)
def _bare(word: str) -> str:
    """`who's` as `who`, `i'll` as `i`; words that deny stay whole."""
    first, mark, rest = word.partition("'")
    return first if mark and rest in ("s", "re", "ve", "ll", "d", "m") and first in _SHORTENED else word


_SHORTENED = g.WH | g.FIRST | g.THIRD | g.THEY | {"you", "it", "that", "there", "let"}


def said_around(words: Sequence[str]) -> frozenset[int]:
    """The places of words that are polite and ask for nothing."""
    bare = [_bare(word) for word in words]
    leads = [(place, _leads(word)) for place, word in enumerate(bare)]
    if not any(starts for _, starts in leads):
        return _NOWHERE
    text, begins = " ".join(bare), [0, *accumulate(len(word) + 1 for word in bare)]
    around, end = set[int](), 0
    for place, starts in leads:
        for start in starts:
            begin = begins[place] + start
            found = g.POLITE.match(text, begin, begin + LONG) if begin >= end else None
            if found:
                end = found.end()
                around.update(range(place, bisect_right(begins, end - 1)))
    return frozenset(around)


_NOWHERE = frozenset[int]()


@lru_cache(maxsize=8192)
def _leads(word: str) -> tuple[int, ...]:
    """Where in a word something polite may begin."""
    return tuple(found.start() for found in g.POLITE_BEGINS.finditer(word))


def asked_by(words: Sequence[str]) -> frozenset[int]:
    """The places of words that are no more than a part of the one that asks before them: *which person*, *how long*."""
    found = {
        place + 1
        for place, (word, after) in enumerate(pairwise(words))
        if (word in ("what", "which") and after in g.ASKED_BY) or (word == "how" and after in MANY)
    }
    for place, word in enumerate(words):
        ways = word in g.WAYS and words[max(0, place - 3) : place] in _WHAT_IS
        mood = (
            word in g.MOODY and words[max(0, place - 2) : place] in _IS_IT and words[place + 1 : place + 2] == ("to",)
        )
        if ways or mood:
            found.add(place)
    return frozenset(found)


_IS_IT = (("is", "it"), ("am", "i"), ("are", "we"), ("are", "you"), ("is", "one"))
_WHAT_IS = (("what", "is", "the"), ("what", "are", "the"), ("what", "was", "the"), ("what", "were", "the"))


def question(own: Words) -> tuple[int, bool]:
    """(the place of the word that asks, or -1; whether it asks for yes or no)"""
    for place in range(len(own.words)):
        if place in own.skipped or not (place == 0 or own.breaks[place] or place - 1 in own.skipped):
            continue
        first = place
        while first < place + FAR and own.at(first) in g.LEADS and first + 1 < len(own.words):
            first += 1
        if first in own.skipped:
            continue
        word = own.at(first)
        if word in g.WH:
            return first, False
        for ahead in (first + 1, first + 2):
            if word in g.BEFORE_WH and own.at(ahead) in g.WH:
                return ahead, False
        if word in g.AUXILIARIES or (place - 1 in own.skipped and own.at(place) in ("if", "whether")):
            return first, True
    found = next((i for i, word in enumerate(own.words) if word in ("how", "why", "who", "whom", "what")), -1)
    if found < 0 and own.words and own.words[-1] in ("possible", "allowed", "permitted"):
        return len(own.words) - 1, True
    return found, False


MANY = {"many": "count", "much": "amount", "long": "duration", "often": "rate", "frequently": "rate", "old": "age",
         "far": "distance", "come": "why"}  # fmt: skip


_ONE_DOES = frozenset({"i", "we", "one", "you"})
_BEING = frozenset({"is", "are", "was", "were"})


def aimed(own: Words, place: int) -> tuple[str, bool, str]:
    """(what is asked for, whether `is` joins it to a thing, what is counted or chosen)"""
    if place < 0:
        named = next((word for word in own.words if word not in g.DETERMINERS), "")
        return g.ASPECTS.get(named, ""), False, ""
    word = own.at(place)
    if word == "how":
        return _how(own, place)
    if word in ("what", "which"):
        return _what(own, place)
    return ("who" if word in ("whom", "whose") else word), False, ""


def _how(own: Words, place: int) -> tuple[str, bool, str]:
    after = own.at(place + 1)
    if after not in MANY:
        return ("measure" if after in g.MEASURED else "how"), False, ""
    if own.at(place + 2) in g.LASTING and own.at(place + 3) != "of":
        return "duration", False, ""
    counted = own.stems[place + 2] if after == "many" and place + 2 < len(own.words) else ""
    return MANY[after], False, counted


def _what(own: Words, place: int) -> tuple[str, bool, str]:
    word, after, end = own.at(place), own.at(place + 1), own.end(place)
    if word == "what" and own.at(end - 1) == "for":
        return "purpose", False, ""
    if after == "now":
        return "how", False, ""
    joined = after in _BEING or after in ("would", "will")
    near = [own.at(i) for i in range(place + 1, min(place + 6, end))]
    named = next((g.ASPECTS[each] for each in near[: 5 if joined else 2] if each in g.ASPECTS), "")
    if named:
        return named, False, ""
    if after in g.AUXILIARIES and own.at(place + 2) in _ONE_DOES and own.at(place + 3) == "do":
        return "how", False, ""
    if after in g.AUXILIARIES and not joined:
        rest = [own.at(i) for i in range(place + 2, end + 1)]
        if not {"pay", "charge", "cost"}.isdisjoint(rest):
            return "amount", False, ""
        ways = any(x in ("do", "done") and y in ("to", "if", "when", "") for x, y in pairwise([*rest, ""]))
        return ("how" if ways else "thing"), False, ""
    return word, joined, "" if joined or place + 1 >= len(own.words) else own.stems[place + 1]


def mood(own: Words, place: int, aim: str, *, asked: bool) -> tuple[frozenset[str], str]:
    end = own.end(place) if asked else len(own.words)
    # what is compared with says nothing of the mood: *closer than allowed*
    if "than" in own.words:
        end = next((i for i in range(place, end) if own.at(i) == "than"), end)
    part = [
        own.words[i]
        for i in range(place, end)
        if i not in own.skipped and (i == place or own.words[i] != "may" or not month(own, i))
    ]
    told = frozenset[str]().union(*map(moody, part))
    said = " ".join(part) if told else ""
    moods = frozenset(name for name in told if g.MOODS[name].search(said))
    return moods, _tense(part, moods, aim) if asked and part else ""


@lru_cache(maxsize=8192)
def moody(word: str) -> frozenset[str]:
    """The moods of which a word may say something, alone or with the next ones."""
    return frozenset(name for name, begins in g.MOODS_BEGIN.items() if begins.search(word))


def month(own: Words, place: int) -> bool:
    """Whether `may` is a month there."""
    return own.at(place) == "may" and place > 0 and not own.breaks[place] and own.at(place - 1) in g.RELATIONS


def _tense(part: Sequence[str], moods: frozenset[str], aim: str) -> str:
    """past, will, present, or empty, of the words of a clause from the one that asks on."""
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
    return "present" if len(part) > 1 and not any(map(past_form, part)) else ""
