"""Differences because of which two requests cannot have the same answer, however similar they are. Pure.

A guard only refuses: a pair that passes all of them still needs a sufficient score (`equivalence`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from groundplan.economics.semantic import vocabulary as v
from groundplan.economics.semantic.grammar import ENGLISH_ONLY
from groundplan.economics.semantic.reading import Reading, stem
from groundplan.economics.semantic.synonyms import is_listed

_COMPARING = frozenset({"than", "compared", "comparison", "versus", "vs"})
_OPPOSITES: dict[str, frozenset[str]] = {}


def _opposites_by_stem() -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for one, other in v.OPPOSITES:
        for left, right in ((one, other), (other, one)):
            found.setdefault(stem(left), set()).add(stem(right))
    return {word: frozenset(others) for word, others in found.items()}


_OPPOSITES.update(_opposites_by_stem())


def veto(a: Reading, b: Reading) -> str:
    """The kind of the first difference that forbids one answer for both requests; empty: none."""
    return next((kind for kind, differs in _GUARDS if differs(a, b)), "")


def _language_differs(a: Reading, b: Reading) -> bool:
    return bool(a.language and b.language and a.language != b.language) or bool(a.foreign) != bool(b.foreign)


def _is_unreadable(a: Reading, b: Reading) -> bool:
    """Whether one or both are in a language whose words the guards do not know, or in different languages."""
    return not (is_english(a) and is_english(b)) or _language_differs(a, b)


CERTAIN_FUNCTION_WORDS = 2
"""Count of English function words from which on a text may hold some of other languages, as in names."""


def is_english(reading: Reading) -> bool:
    """Whether a text is recognisably English: it has more function words that only English has than of other languages;
    or, without any function words, two fifths of its words other than names are known ones."""
    if reading.language not in ("", "en"):
        return False
    english_words = len(ENGLISH_ONLY.intersection(reading.words))
    if english_words >= CERTAIN_FUNCTION_WORDS:
        return english_words * 2 > len(reading.foreign)
    if english_words or reading.foreign:
        return english_words > len(reading.foreign)
    words = [word for word in reading.words if not word[0].isdigit() and word not in reading.names]
    known = sum(is_listed(word) or word in v.STOP for word in words)
    return known * 5 >= 2 * len(words) and bool(words or not reading.names)


def _negation_differs(a: Reading, b: Reading) -> bool:
    ours, theirs = (a.negations, a.denials, a.nothings), (b.negations, b.denials, b.nothings)
    return ours != theirs or _has_negating_prefix(a, b)


def _has_negating_prefix(a: Reading, b: Reading) -> bool:
    """Whether one has `valid` where the other has `invalid`."""
    if a.stems == b.stems:
        return False
    ours, theirs = set(a.stems) - set(b.stems), set(b.stems) - set(a.stems)
    for one, other in ((ours, theirs), (theirs, ours)):
        for word in one:
            if len(word) > 3 and any(prefix + word in other for prefix in v.NEGATING_PREFIXES):
                return True
    return False


def _number_differs(a: Reading, b: Reading) -> bool:
    return bool(a.numbers - b.numbers - b.vague) or bool(b.numbers - a.numbers - a.vague)


def _unit_differs(a: Reading, b: Reading) -> bool:
    return a.units != b.units


def _time_differs(a: Reading, b: Reading) -> bool:
    return a.times != b.times


def _entity_differs(a: Reading, b: Reading) -> bool:
    """Whether one has a name that the other lacks even as a common word, or another identifier or quotation."""
    return bool(_missing_names(a, b)) or bool(_missing_names(b, a)) or (a.codes != b.codes and _codes_differ(a, b))


def _missing_names(a: Reading, b: Reading) -> set[str]:
    names = a.names - b.names
    if not names:
        return set()
    words = {*b.words, *b.stems, *b.names}
    text = b.text.lower()
    return {name for name in names if name not in words and stem(name) not in words and name not in text}


def _codes_differ(a: Reading, b: Reading) -> bool:
    texts = a.text.lower(), b.text.lower()
    return any(not _contains_whole(texts[1], code) for code in a.codes) or any(
        not _contains_whole(texts[0], code) for code in b.codes
    )


def _contains_whole(text: str, code: str) -> bool:
    """Whether a text has an identifier as a whole word: `list` is not in *lists*."""
    place = text.find(code)
    while place >= 0:
        if not (text[place - 1 : place].isalnum() or text[place + len(code) :][:1].isalnum()):
            return True
        place = text.find(code, place + 1)
    return False


def _has_opposite(a: Reading, b: Reading) -> bool:
    """Whether one has more of a word and the other more of its opposite, also where both have both."""
    one, other = ([its for its in map(stem, each.words) if its in _OPPOSITES] for each in (a, b))
    if not one or not other:
        return False
    ours, theirs = Counter(one), Counter(other)
    more, fewer = ours - theirs, theirs - ours
    return any(not _OPPOSITES[word].isdisjoint(fewer) for word in more)


def _quantity_differs(a: Reading, b: Reading) -> bool:
    if a.quantities == b.quantities:
        return False
    sharp = {"only", "least", "most", "never", "few", "majority"}
    return bool((a.quantities ^ b.quantities) & sharp) or bool(
        a.quantities and b.quantities and a.quantities != b.quantities
    )


def _question_differs(a: Reading, b: Reading) -> bool:
    if a.question_words == b.question_words:
        return False
    sharp = {"who", "when", "where", "why", "count", "amount", "duration", "rate", "age", "distance"}
    ours, theirs = a.question_words & sharp, b.question_words & sharp
    return bool(ours and theirs and ours != theirs)


def _obligation_differs(a: Reading, b: Reading) -> bool:
    return bool(a.obligations and b.obligations and a.obligations != b.obligations)


def _direction_differs(a: Reading, b: Reading) -> bool:
    """Whether the same two words stand on the other sides of `to`, `from`, `than` ..."""
    return (a.directions != b.directions and _is_reversed(a, b)) or _comparison_differs(a, b)


def _is_reversed(a: Reading, b: Reading) -> bool:
    ours, theirs = _directed_pairs(a), _directed_pairs(b)
    return any((word, after, before) in theirs for word, before, after in ours - theirs)


def _directed_pairs(reading: Reading) -> set[tuple[str, str, str]]:
    """(to | from | than ..., stem before it, stem behind it) of the pairs that occur in one order only."""
    found = {(word, x, y) for word, before, after in reading.directions for x in before for y in after}
    return {(word, x, y) for word, x, y in found if (word, y, x) not in found}


def _comparison_differs(a: Reading, b: Reading) -> bool:
    """Whether a comparison names its things in another order."""
    if _COMPARING.isdisjoint(a.words) and _COMPARING.isdisjoint(b.words):
        return False
    shared = a.names & b.names
    return [w for w in _unquoted_words(a) if w in shared] != [w for w in _unquoted_words(b) if w in shared]


def _unquoted_words(reading: Reading) -> list[str]:
    return [word.strip('`"').removesuffix("()") for word in reading.words]


_GUARDS: tuple[tuple[str, Callable[[Reading, Reading], bool]], ...] = (
    ("language", _is_unreadable),
    ("negation", _negation_differs),
    ("number", _number_differs),
    ("unit", _unit_differs),
    ("time", _time_differs),
    ("entity", _entity_differs),
    ("opposite", _has_opposite),
    ("direction", _direction_differs),
    ("quantity", _quantity_differs),
    ("question", _question_differs),
    ("obligation", _obligation_differs),
)


def find_contradiction(a: Reading, b: Reading) -> str:
    """The kind of the first fact that two answers state differently; empty: none. Answers to the same question may say
    more or less, but not other numbers, units, dates or names, nor may only one of them deny something."""
    return next((kind for kind, differs in _ANSWER_GUARDS if differs(a, b)), "")


def _denial_differs(a: Reading, b: Reading) -> bool:
    return bool(a.negations) != bool(b.negations)


def _stated_numbers_differ(a: Reading, b: Reading) -> bool:
    return a.numbers != b.numbers


_ANSWER_GUARDS: tuple[tuple[str, Callable[[Reading, Reading], bool]], ...] = (
    ("language", _language_differs),
    ("negation", _denial_differs),
    ("number", _stated_numbers_differ),
    ("unit", _unit_differs),
    ("time", _time_differs),
    ("entity", _entity_differs),
)
