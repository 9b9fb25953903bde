"""Differences after which two requests cannot have the same answer, however alike they are. Pure.

A guard only ever refuses: a pair that passes all of them still has to be accepted by its likeness (`equivalence`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from groundplan.economics.semantic import vocabulary as v
from groundplan.economics.semantic.grammar import OF_ENGLISH_ALONE
from groundplan.economics.semantic.reading import Reading, stem
from groundplan.economics.semantic.synonyms import listed

_COMPARING = frozenset({"than", "compared", "comparison", "versus", "vs"})
_OPPOSITES: dict[str, frozenset[str]] = {}


def _index() -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for one, other in v.OPPOSITES:
        for left, right in ((one, other), (other, one)):
            found.setdefault(stem(left), set()).add(stem(right))
    return {word: frozenset(others) for word, others in found.items()}


_OPPOSITES.update(_index())


def veto(a: Reading, b: Reading) -> str:
    """The kind of difference that forbids one answer for both; empty: none was found."""
    return next((kind for kind, differs in _GUARDS if differs(a, b)), "")


def _language(a: Reading, b: Reading) -> bool:
    return bool(a.language and b.language and a.language != b.language) or bool(a.foreign) != bool(b.foreign)


def _unread(a: Reading, b: Reading) -> bool:
    """One of them, or both, in a language of which no guard knows the words."""
    return not (english(a) and english(b)) or _language(a, b)


SURE = 2
"""Function words of English after which names may have those of other languages."""


def english(reading: Reading) -> bool:
    """Whether a text shows that it is English: by function words that are English alone, more of them than of other
    languages'; where it has no function words at all, by other words that are known, names apart."""
    if reading.language not in ("", "en"):
        return False
    own = len(OF_ENGLISH_ALONE.intersection(reading.words))
    if own >= SURE:
        return own * 2 > len(reading.foreign)
    if own or reading.foreign:
        return own > len(reading.foreign)
    words = [word for word in reading.words if not word[0].isdigit() and word not in reading.names]
    known = sum(listed(word) or word in v.STOP for word in words)
    return known * 5 >= 2 * len(words) and bool(words or not reading.names)


def _negation(a: Reading, b: Reading) -> bool:
    ours, theirs = (a.negations, a.denials, a.nothings), (b.negations, b.denials, b.nothings)
    return ours != theirs or _prefixed(a, b)


def _prefixed(a: Reading, b: Reading) -> bool:
    """`valid` on one side, `invalid` on the other."""
    if a.stems == b.stems:
        return False
    ours, theirs = set(a.stems) - set(b.stems), set(b.stems) - set(a.stems)
    for one, other in ((ours, theirs), (theirs, ours)):
        for word in one:
            if len(word) > 3 and any(prefix + word in other for prefix in v.NEGATING_PREFIXES):
                return True
    return False


def _number(a: Reading, b: Reading) -> bool:
    return bool(a.numbers - b.numbers - b.vague) or bool(b.numbers - a.numbers - a.vague)


def _unit(a: Reading, b: Reading) -> bool:
    return a.units != b.units


def _time(a: Reading, b: Reading) -> bool:
    return a.times != b.times


def _entity(a: Reading, b: Reading) -> bool:
    """A name that the other text has nowhere, not even as a common word."""
    return bool(_missing(a, b)) or bool(_missing(b, a)) or (a.codes != b.codes and _codes_differ(a, b))


def _missing(a: Reading, b: Reading) -> set[str]:
    names = a.names - b.names
    if not names:
        return set()
    words = {*b.words, *b.stems, *b.names}
    text = b.text.lower()
    return {name for name in names if name not in words and stem(name) not in words and name not in text}


def _codes_differ(a: Reading, b: Reading) -> bool:
    texts = a.text.lower(), b.text.lower()
    return any(not _says(texts[1], code) for code in a.codes) or any(not _says(texts[0], code) for code in b.codes)


def _says(text: str, code: str) -> bool:
    """Whether a text has it as a whole: `list` is not in *lists*."""
    place = text.find(code)
    while place >= 0:
        if not (text[place - 1 : place].isalnum() or text[place + len(code) :][:1].isalnum()):
            return True
        place = text.find(code, place + 1)
    return False


def _opposite(a: Reading, b: Reading) -> bool:
    """One has more of a word and the other more of its opposite, also where both have both."""
    one, other = ([its for its in map(stem, each.words) if its in _OPPOSITES] for each in (a, b))
    if not one or not other:
        return False
    ours, theirs = Counter(one), Counter(other)
    more, fewer = ours - theirs, theirs - ours
    return any(not _OPPOSITES[word].isdisjoint(fewer) for word in more)


def _quantity(a: Reading, b: Reading) -> bool:
    if a.quantities == b.quantities:
        return False
    sharp = {"only", "least", "most", "never", "few", "majority"}
    return bool((a.quantities ^ b.quantities) & sharp) or bool(
        a.quantities and b.quantities and a.quantities != b.quantities
    )


def _asks(a: Reading, b: Reading) -> bool:
    if a.asks == b.asks:
        return False
    sharp = {"who", "when", "where", "why", "count", "amount", "duration", "rate", "age", "distance"}
    ours, theirs = a.asks & sharp, b.asks & sharp
    return bool(ours and theirs and ours != theirs)


def _obligation(a: Reading, b: Reading) -> bool:
    return bool(a.obligations and b.obligations and a.obligations != b.obligations)


def _direction(a: Reading, b: Reading) -> bool:
    """The same two things on both sides of `to`, `from`, `than` ... the other way round."""
    return (a.turns != b.turns and _turned(a, b)) or _compared(a, b)


def _turned(a: Reading, b: Reading) -> bool:
    ours, theirs = _ways(a), _ways(b)
    return any((word, after, before) in theirs for word, before, after in ours - theirs)


def _ways(reading: Reading) -> set[tuple[str, str, str]]:
    """(to | from | than ..., what stands before it, what stands behind it) of what stands so in one order alone."""
    found = {(word, x, y) for word, before, after in reading.turns for x in before for y in after}
    return {(word, x, y) for word, x, y in found if (word, y, x) not in found}


def _compared(a: Reading, b: Reading) -> bool:
    """A comparison that names its two things in another order."""
    if _COMPARING.isdisjoint(a.words) and _COMPARING.isdisjoint(b.words):
        return False
    shared = a.names & b.names
    return [w for w in _bare(a) if w in shared] != [w for w in _bare(b) if w in shared]


def _bare(reading: Reading) -> list[str]:
    return [word.strip('`"').removesuffix("()") for word in reading.words]


_GUARDS: tuple[tuple[str, Callable[[Reading, Reading], bool]], ...] = (
    ("language", _unread),
    ("negation", _negation),
    ("number", _number),
    ("unit", _unit),
    ("time", _time),
    ("entity", _entity),
    ("opposite", _opposite),
    ("direction", _direction),
    ("quantity", _quantity),
    ("question", _asks),
    ("obligation", _obligation),
)


def contradicts(a: Reading, b: Reading) -> str:
    """The kind of fact that two answers state differently; empty: none was found. Answers to the same question may say
    more or less, but not other numbers, units, dates or names, and not that something is so and is not so."""
    return next((kind for kind, differs in _STATED if differs(a, b)), "")


def _denied(a: Reading, b: Reading) -> bool:
    return bool(a.negations) != bool(b.negations)


def _counted(a: Reading, b: Reading) -> bool:
    return a.numbers != b.numbers


_STATED: tuple[tuple[str, Callable[[Reading, Reading], bool]], ...] = (
    ("language", _language),
    ("negation", _denied),
    ("number", _counted),
    ("unit", _unit),
    ("time", _time),
    ("entity", _entity),
)
