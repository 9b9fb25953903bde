"""Whether two requests differ in that one thing stands in place of another: another country, tool or verb. Pure.

A name is seen by its capital where it has one (`guards`). At the beginning of a sentence and in lower case nothing
tells it from other words. Where each word counts, words that are left over must be known to say the same, or ask for
nothing. Of two statements that differ in nothing but words at their places, these must be known to say the same; where
they differ in more, `statements` tells how much, and `equivalence` weighs it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from groundplan.economics.semantic import grammar
from groundplan.economics.semantic import vocabulary as v
from groundplan.economics.semantic.reading import Reading
from groundplan.economics.semantic.similarity import (
    Alignment,
    EmbeddedReading,
    Near,
    content_places,
    counterparts,
    lexical_nearness,
    nearness,
)
from groundplan.economics.semantic.synonyms import listed, said_where

SAME = 0.8
"""Nearness from which on any two words say the same: a city and its country reach 0.75."""
ALIKE = 0.6
"""The same for two common words: two things of one sort, as a file and a folder, reach 0.59."""
SHORT = 8
"""Content words of a short request."""
MORE = 0.5
"""Words over on one side, as a share of the shorter request's, from which on it asks for more than the other."""
KNOWN = 0.999
"""Nearness of what is known to say the same: forms of one word, or a line of synonyms."""
KIND = "substitution"
FORM_KIND = "form"
SENSE_KIND = "sense"
_BEHIND = re.compile(r"\b(?:in|at|on|by|of|for|per|with|from)(?: (?:a|an|the|one|any|all|this|that))? $")
"""*in person*, *at a time*: what stands there is not asked for."""
FORM = 0.6
"""Nearness of two forms of one word: *approves* and *approval* reach 0.8, *final* and *fine* 0.1."""
SENSE = 0.4
"""Nearness of two words of one line in questions that ask the same; in another sense of theirs they reach 0.36 or less
more often than not: *renew*, *update* a card."""
_ASKING = ("which ", "what ", "whose ", "many ", "much ")
_AROUND = v.FRAMING | v.FILLERS | v.IMPLIED


def differs_in_meaning(a: Reading, b: Reading, found: Alignment, meant: Near) -> str:
    """The kind of difference where words say the same as far as lists tell, and mean something else in these texts:
    another form of a word (*the state*, *the statement*), or, where each word counts, a synonym in another sense of it;
    empty: none was found. `meant`: how near their words are in them."""
    if a.spoken == b.spoken:
        return ""
    if _formed_otherwise(a, b, meant):
        return FORM_KIND
    return SENSE_KIND if strictly(a, b) and _another_sense(a, b, found, meant) else ""


def _formed_otherwise(a: Reading, b: Reading, meant: Near) -> bool:
    places: dict[str, list[int]] = {}
    for place, its in enumerate(b.stems):
        places.setdefault(its, []).append(place)
    for place, its in enumerate(a.stems):
        others = places.get(its)
        if others is None or any(_inflected(b.spoken[each], a.spoken[place]) for each in others):
            continue
        if all(meant[place, each] < FORM for each in others):
            return True
    return False


def _another_sense(a: Reading, b: Reading, found: Alignment, meant: Near) -> bool:
    ours, theirs = ([i for i in own if _plain(each, i)] for each, own in ((a, found.ours), (b, found.theirs)))
    same = set(said_where([a.spoken[i] for i in ours], [b.spoken[j] for j in theirs]))
    near = {(i, j): float(meant[ours[i], theirs[j]]) for i, j in same}
    return any(
        all(near[pair] < SENSE for pair in same if pair[side] == place)
        for side in (0, 1)
        for place in {pair[side] for pair in same}
    )


def _plain(reading: Reading, place: int) -> bool:
    """Whether a word is told as it is written: no verb with a particle, and no contraction."""
    begin, end = reading.places[place]
    return reading.text[begin:end].lower() == reading.spoken[place]


_INFLECTIONS = ("", "s", "es", "d", "ed", "'s")


def _inflected(one: str, other: str) -> bool:
    short, long = (one, other) if len(one) <= len(other) else (other, one)
    return long.startswith(short) and long[len(short) :] in _INFLECTIONS


def strictly(a: Reading, b: Reading) -> bool:
    """Whether each word counts: in questions, orders and what somebody tells of oneself, and in requests of few words
    that are no statements."""
    one, other = a.clause, b.clause
    if one.asks or other.asks or "first" in one.persons & other.persons:
        return True
    return min(len(a.stems), len(b.stems)) <= SHORT and not (one.tells and other.tells)


def has_substitution(a: Reading, b: Reading, near: Near, found: Alignment) -> bool:
    """Whether a word of one stands in place of another in the other, or one asks for more than the other; of statements
    as far as no score weighs it."""
    if strictly(a, b):
        return _otherwise(a, b, near, found)
    ours, theirs = content_places(a, found.ours), content_places(b, found.theirs)
    if abs(len(ours) - len(theirs)) > max(1, MORE * min(len(a.stems), len(b.stems))):
        return True
    if len(ours) != len(theirs) or not {i for i, _ in found.placed}.issuperset(ours):
        return False
    met = counterparts(near, ours, theirs)
    return found.placed.issuperset(met) and any(near[pair] < KNOWN for pair in met)


def _otherwise(a: Reading, b: Reading, near: Near, found: Alignment) -> bool:
    """The same where each word counts: what is left over must be known to say the same, or to ask for nothing."""
    met = [pair for pair in counterparts(near, found.ours, found.theirs) if near[pair] >= KNOWN]
    ours, theirs = set(found.ours) - {i for i, _ in met}, set(found.theirs) - {j for _, j in met}
    return not all(_said_already(a, b, ours, place) for place in ours) or not all(
        _said_already(b, a, theirs, place) for place in theirs
    )


def aligned(a: Reading, b: Reading, near: Near, found: Alignment) -> list[tuple[int, int]]:
    """Places of words of content, in one and in the other, that are known to say the same."""
    left, right = set(found.ours), set(found.theirs)
    places: dict[str, list[int]] = {}
    for place, its in enumerate(b.stems):
        if place not in right:
            places.setdefault(its, []).append(place)
    again = [(i, places[its].pop(0)) for i, its in enumerate(a.stems) if i not in left]
    return again + [pair for pair in counterparts(near, found.ours, found.theirs) if near[pair] >= KNOWN]


def _said_already(one: Reading, other: Reading, over: set[int], place: int) -> bool:
    """Whether a word that is over asks for nothing that the other does not say by how it is put."""
    word, after = one.spoken[place], (*one.spoken[place + 1 :], "")[0]
    ahead = after not in grammar.RELATIONS and qualifies(one, over, place)
    if word in grammar.RELATIONS:
        return not _ends(one, place)
    if word in grammar.JOINING or word in grammar.PRECISE:
        return True
    if word in grammar.CARE:
        return other.clause.focus == "how"
    if word in v.FRAMING and not ahead:
        return _around(one, place)
    return _implied(one, other, place, ahead=ahead)


def _around(reading: Reading, place: int) -> bool:
    """Whether a word stands before all that is asked, or behind it, apart from it."""
    if _AROUND.issuperset(reading.spoken[:place]):
        return True
    between = reading.text[reading.places[place - 1][1] : reading.places[place][0]]
    return _AROUND.issuperset(reading.spoken[place:]) and any(mark in between for mark in ".?!,\n")


def _ends(reading: Reading, place: int) -> bool:
    """Whether nothing stands behind a word in its sentence."""
    return reading.text[reading.places[place][1] :].lstrip()[:1] in ("", ".", ",", "?", "!", ";", ")")


def _implied(one: Reading, other: Reading, place: int, *, ahead: bool) -> bool:
    """Whether a word says what a word that asks, or an auxiliary verb, says in the other."""
    word, before = one.spoken[place], one.text[: one.places[place][0]].lower()
    implied = grammar.IMPLIED.get(word, "")
    begins = not before.strip() or before.rstrip().endswith(":")
    if not implied or (ahead and word in v.NAMING and not begins and not before.endswith(_ASKING)):
        return False
    if implied in grammar.AMOUNTS and place and _joined(one, place - 1):
        return False
    if _BEHIND.search(before):
        return False
    if implied == "any" or other.clause.focus in implied.split():
        return True
    return not other.clause.focus and any(grammar.IMPLIED.get(said) == implied for said in other.words)


def _joined(reading: Reading, place: int) -> bool:
    """Whether the next word stands right behind this one: *permit number*."""
    return not reading.text[reading.places[place][1] : reading.places[place + 1][0]].strip(" -")


def qualifies(reading: Reading, over: set[int], place: int) -> bool:
    """Whether a word that is over stands right before one that is not, or before others that do."""
    for after in range(place + 1, len(reading.spoken)):
        if not _joined(reading, after - 1):
            return False
        if after not in over:
            return True
    return False


def stands_for(one: str, other: str, near: float) -> bool:
    """Whether two words that are so near say the same."""
    return near >= SAME or (near >= ALIKE and listed(one) and listed(other))


def agree(one: EmbeddedReading, other: EmbeddedReading, ours: Sequence[int], theirs: Sequence[int]) -> bool:
    """Whether the words at these places, of which alone there are vectors, say the same two by two."""
    words, others = ([each.reading.spoken[i] for i in own] for each, own in ((one, ours), (other, theirs)))
    near = nearness(one.words, other.words, lexical_nearness(words, others))
    met = counterparts(near, range(len(words)), range(len(others)))
    return all(stands_for(words[i], others[j], float(near[i, j])) for i, j in met)
