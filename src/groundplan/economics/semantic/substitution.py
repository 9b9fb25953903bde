"""Decides whether one request has another thing in place of one: another country, tool or verb. Pure.

`guards` recognise names by their capital. At the beginning of a sentence and in lower case nothing tells a name from
other words. Where each word counts, unmatched words must be known synonyms, or add nothing. Two statements that differ
only in words at the same places must have known synonyms there; of others `statements` gives features that
`equivalence` weighs.
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
from groundplan.economics.semantic.synonyms import is_listed, synonym_places

SAME_NEARNESS = 0.8
"""Nearness from which on any two words mean the same: a city and its country reach 0.75."""
LISTED_NEARNESS = 0.6
"""The same for two common words: two things of one sort, as a file and a folder, reach 0.59."""
SHORT_REQUEST_WORDS = 8
"""Content words of a short request."""
MAX_EXTRA_SHARE = 0.5
"""Extra words of one request, as a share of the shorter one's, above which it asks for more than the other."""
KNOWN_NEARNESS = 0.999
"""Nearness of words that are known to mean the same: forms of one word, or listed synonyms."""
KIND = "substitution"
FORM_KIND = "form"
SENSE_KIND = "sense"
_AFTER_PREPOSITION = re.compile(r"\b(?:in|at|on|by|of|for|per|with|from)(?: (?:a|an|the|one|any|all|this|that))? $")
"""*in person*, *at a time*: a word behind these is not what is asked for."""
FORM_NEARNESS = 0.6
"""Nearness of two forms of one word: *approves* and *approval* reach 0.8, *final* and *fine* 0.1."""
SENSE_NEARNESS = 0.4
"""Nearness of two listed synonyms used in the same sense; in another sense they mostly reach 0.36 or less: *renew*,
*update* a card."""
_QUESTION_WORDS = ("which ", "what ", "whose ", "many ", "much ")
_FRAMING_WORDS = v.FRAMING | v.FILLERS | v.IMPLIED


def differs_in_meaning(a: Reading, b: Reading, found: Alignment, meant: Near) -> str:
    """The kind of difference of words that lists take for the same but that mean something else in these texts: another
    form of a word (*the state*, *the statement*), or, where each word counts, a synonym in another sense; empty: none.
    `meant`: nearness of the words by context."""
    if a.content_words == b.content_words:
        return ""
    if _has_unrelated_form(a, b, meant):
        return FORM_KIND
    return SENSE_KIND if requires_strict_match(a, b) and _has_other_sense(a, b, found, meant) else ""


def _has_unrelated_form(a: Reading, b: Reading, meant: Near) -> bool:
    places: dict[str, list[int]] = {}
    for place, its in enumerate(b.stems):
        places.setdefault(its, []).append(place)
    for place, its in enumerate(a.stems):
        others = places.get(its)
        if others is None or any(_is_inflection(b.content_words[each], a.content_words[place]) for each in others):
            continue
        if all(meant[place, each] < FORM_NEARNESS for each in others):
            return True
    return False


def _has_other_sense(a: Reading, b: Reading, found: Alignment, meant: Near) -> bool:
    ours, theirs = ([i for i in own if _is_literal(each, i)] for each, own in ((a, found.ours), (b, found.theirs)))
    same = set(synonym_places([a.content_words[i] for i in ours], [b.content_words[j] for j in theirs]))
    near = {(i, j): float(meant[ours[i], theirs[j]]) for i, j in same}
    return any(
        all(near[pair] < SENSE_NEARNESS for pair in same if pair[side] == place)
        for side in (0, 1)
        for place in {pair[side] for pair in same}
    )


def _is_literal(reading: Reading, place: int) -> bool:
    """Whether a content word stands so in the text: it is no verb with a particle, and no contraction."""
    begin, end = reading.spans[place]
    return reading.text[begin:end].lower() == reading.content_words[place]


_INFLECTIONS = ("", "s", "es", "d", "ed", "'s")


def _is_inflection(one: str, other: str) -> bool:
    short, long = (one, other) if len(one) <= len(other) else (other, one)
    return long.startswith(short) and long[len(short) :] in _INFLECTIONS


def requires_strict_match(a: Reading, b: Reading) -> bool:
    """Whether each word counts: in questions, in orders, in the first person, and in short requests that are no
    statements."""
    one, other = a.clause, b.clause
    if one.is_question or other.is_question or "first" in one.persons & other.persons:
        return True
    return min(len(a.stems), len(b.stems)) <= SHORT_REQUEST_WORDS and not (one.is_statement and other.is_statement)


def has_substitution(a: Reading, b: Reading, near: Near, found: Alignment) -> bool:
    """Whether a word of one stands in place of another word of the other, or one asks for more than the other; for
    statements only what the score does not weigh."""
    if requires_strict_match(a, b):
        return _has_unmatched_word(a, b, near, found)
    ours, theirs = content_places(a, found.ours), content_places(b, found.theirs)
    if abs(len(ours) - len(theirs)) > max(1, MAX_EXTRA_SHARE * min(len(a.stems), len(b.stems))):
        return True
    if len(ours) != len(theirs) or not {i for i, _ in found.placed}.issuperset(ours):
        return False
    met = counterparts(near, ours, theirs)
    return found.placed.issuperset(met) and any(near[pair] < KNOWN_NEARNESS for pair in met)


def _has_unmatched_word(a: Reading, b: Reading, near: Near, found: Alignment) -> bool:
    """Whether an unmatched word has no known synonym and adds something: the rule where each word counts."""
    met = [pair for pair in counterparts(near, found.ours, found.theirs) if near[pair] >= KNOWN_NEARNESS]
    ours, theirs = set(found.ours) - {i for i, _ in met}, set(found.theirs) - {j for _, j in met}
    return not all(_is_redundant(a, b, ours, place) for place in ours) or not all(
        _is_redundant(b, a, theirs, place) for place in theirs
    )


def aligned_places(a: Reading, b: Reading, near: Near, found: Alignment) -> list[tuple[int, int]]:
    """Pairs of indexes of content words that are known to mean the same."""
    left, right = set(found.ours), set(found.theirs)
    places: dict[str, list[int]] = {}
    for place, its in enumerate(b.stems):
        if place not in right:
            places.setdefault(its, []).append(place)
    again = [(i, places[its].pop(0)) for i, its in enumerate(a.stems) if i not in left]
    return again + [pair for pair in counterparts(near, found.ours, found.theirs) if near[pair] >= KNOWN_NEARNESS]


def _is_redundant(one: Reading, other: Reading, over: set[int], place: int) -> bool:
    """Whether an unmatched word adds nothing to what the other text asks. `over`: all unmatched words of `one`."""
    word, after = one.content_words[place], (*one.content_words[place + 1 :], "")[0]
    ahead = after not in grammar.RELATIONS and qualifies(one, over, place)
    if word in grammar.RELATIONS:
        return not _ends_sentence(one, place)
    if word in grammar.JOINING or word in grammar.PRECISE:
        return True
    if word in grammar.MANNER_WORDS:
        return other.clause.focus == "how"
    if word in v.FRAMING and not ahead:
        return _is_framing(one, place)
    return _implied(one, other, place, ahead=ahead)


def _is_framing(reading: Reading, place: int) -> bool:
    """Whether a word stands before the question, or behind it after punctuation."""
    if _FRAMING_WORDS.issuperset(reading.content_words[:place]):
        return True
    between = reading.text[reading.spans[place - 1][1] : reading.spans[place][0]]
    return _FRAMING_WORDS.issuperset(reading.content_words[place:]) and any(mark in between for mark in ".?!,\n")


def _ends_sentence(reading: Reading, place: int) -> bool:
    """Whether a word is the last one of its sentence or clause."""
    return reading.text[reading.spans[place][1] :].lstrip()[:1] in ("", ".", ",", "?", "!", ";", ")")


def _implied(one: Reading, other: Reading, place: int, *, ahead: bool) -> bool:
    """Whether a question word or an auxiliary verb of the other text implies a word."""
    word, before = one.content_words[place], one.text[: one.spans[place][0]].lower()
    implied = grammar.IMPLIED.get(word, "")
    begins = not before.strip() or before.rstrip().endswith(":")
    if not implied or (ahead and word in v.NAMING and not begins and not before.endswith(_QUESTION_WORDS)):
        return False
    if implied in grammar.AMOUNTS and place and _is_adjacent(one, place - 1):
        return False
    if _AFTER_PREPOSITION.search(before):
        return False
    if implied == "any" or other.clause.focus in implied.split():
        return True
    return not other.clause.focus and any(grammar.IMPLIED.get(said) == implied for said in other.words)


def _is_adjacent(reading: Reading, place: int) -> bool:
    """Whether the next content word follows immediately: *permit number*."""
    return not reading.text[reading.spans[place][1] : reading.spans[place + 1][0]].strip(" -")


def qualifies(reading: Reading, over: set[int], place: int) -> bool:
    """Whether an unmatched word stands right before a matched one, or before other unmatched ones that do."""
    for after in range(place + 1, len(reading.content_words)):
        if not _is_adjacent(reading, after - 1):
            return False
        if after not in over:
            return True
    return False


def means_same(one: str, other: str, near: float) -> bool:
    """Whether two words of this nearness mean the same."""
    return near >= SAME_NEARNESS or (near >= LISTED_NEARNESS and is_listed(one) and is_listed(other))


def words_agree(one: EmbeddedReading, other: EmbeddedReading, ours: Sequence[int], theirs: Sequence[int]) -> bool:
    """Whether the words at these indexes mean the same in pairs. `one.words` and `other.words` hold only their
    vectors."""
    words, others = ([each.reading.content_words[i] for i in own] for each, own in ((one, ours), (other, theirs)))
    near = nearness(one.words, other.words, lexical_nearness(words, others))
    met = counterparts(near, range(len(words)), range(len(others)))
    return all(means_same(words[i], others[j], float(near[i, j])) for i, j in met)
