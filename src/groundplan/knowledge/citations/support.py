"""Decides whether a passage supports a statement: by words first, and if they do not decide it, by meaning. Pure.

A number that is not in the passage, or a negation or an opposite that differs, counts against the statement, whatever
else agrees. This neither proves nor judges truth: it finds what is stated, not what follows from it. The settings were
chosen on `benchmarks/knowledge_claims.py`; docs/knowledge.md has its accuracy, cross-validated.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from groundplan.knowledge import numbers, writing_systems
from groundplan.knowledge.citations.marks import sentences

_WORD = re.compile(r"[^\W_]+(?:['’][^\W\d_]+)?")
_CLAUSE = re.compile(r"[,;:、，；：]|(?<=[.!?])\s|(?<=[。！？])|\b(?:and|but|unless|except)\b")
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:[.,]\d+)*")
_COMMON: Final = frozenset(
    """
    a about after all also an and any are as at be been before being but by can could did do does for from get gets
    had has have he her his i if in into is it its may me might must my of on or our shall she should so some such than
    that the their them then there these they this those to too up us was we were what when where which who will with
    would you your whoever where need needed needs
    """.split()  # noqa: SIM905 -- a hundred quoted words are no easier to read
)
_NEGATIONS: Final = frozenset(
    ("not", "no", "never", "none", "nobody", "nothing", "without", "cannot", "neither", "nor", "refused", "rejected",
     "forbidden")
)  # fmt: skip
_FOREIGN_NEGATIONS: Final = frozenset(
    """
    nicht kein keine keinen keinem keiner keines nie niemals niemand niemanden nichts ohne weder verboten untersagt
    pas jamais aucun aucune sans interdit interdite rien
    nunca jamás ningún ninguna ninguno sin prohibido prohibida nada nadie tampoco
    non nessun nessuno nessuna senza vietato vietata niente
    não nenhum nenhuma sem proibido proibida ninguém
    niet geen nooit zonder niemand niets nie nigdy bez żaden żadna żadne nikt
    inte ingen inga inget aldrig ikke aldri uten aldrig uden intet
    """.split()  # noqa: SIM905 -- a hundred quoted words are no easier to read
)
"""German, French, Spanish, Italian, Portuguese, Dutch, Polish, Swedish, Norwegian and Danish."""
_ALL_NEGATIONS: Final = _NEGATIONS | _FOREIGN_NEGATIONS
_UNSPACED_NEGATION: Final = re.compile("ない|なかった|ません|ずに|禁止|不|没|沒|未|勿|别|않|없|못|ไม่|ห้าม|မ.{1,8}ဘူး")
"""Negations in scripts without spaces between words. A word that merely contains such a character does so in both
texts."""
_OPPOSITES: Final = tuple(
    (frozenset(one.split()), frozenset(other.split()))
    for one, other in (
        ("before", "after"), ("minimum least", "maximum most"),
        ("above more over exceeds", "below less under fewer within"),
        ("stop stopped stops end", "go goes continue continues start"), ("writing written", "orally phone oral"),
        ("increase increases rise", "decrease decreases fall"), ("allowed may can", "forbidden must-not"),
        ("first", "last"), ("always", "never"), ("open opened", "closed shut"), ("internal", "external"),
    )
)  # fmt: skip
_NUMBER_WORDS: Final = {
    word: str(number)
    for number, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen".split()  # noqa: SIM905
    )
    if number > 1
}
_ENDINGS: Final = ("ingly", "edly", "ations", "ation", "ments", "ment", "ing", "ies", "ied", "ed", "es", "ly", "s", "e")
MIN_DECISIVE_SHARE: Final = 0.8
"""Share of a statement's words in one place of the passage from which words alone decide."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The weights of words and meaning, and the least weighted sum for a supported statement."""

    words: float = 0.0
    meaning: float = 1.0
    least: float = 0.55


SETTINGS: Final = Settings()


@dataclass(frozen=True, slots=True)
class Place:
    """A sentence of a passage, or two consecutive ones: its characters `start` to `end`."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class WordMatch:
    """The result of comparing words: `decided` is None if they do not decide. `place`: the most similar one."""

    decided: bool | None
    share: float
    place: Place | None
    places: tuple[Place, ...] = ()
    """The places whose meaning is to be compared."""


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a text, for comparison."""

    terms: frozenset[str]
    numbers: frozenset[str]
    negations: int
    all: frozenset[str]


def words_of(text: str) -> Words:
    """The content words of a text without their endings, its numbers and its negations. In scripts without spaces,
    pairs of characters are words."""
    text, runs = writing_systems.split_unspaced(numbers.join_digits(text))
    all_words = [word.lower().replace("’", "'") for word in _WORD.findall(text)]
    found_numbers = {numbers.normalise_number(number) for number in _NUMBER.findall(text)} | {
        _NUMBER_WORDS[w] for w in all_words if w in _NUMBER_WORDS
    }
    terms = {
        _stem(word) for word in all_words if word not in _COMMON and not word[0].isdigit() and word not in _NUMBER_WORDS
    }
    negations = sum(word in _ALL_NEGATIONS or word.endswith("n't") for word in all_words)
    negations += sum(len(_UNSPACED_NEGATION.findall(run)) for run in runs)
    content = frozenset(term for term in terms if term not in _ALL_NEGATIONS and not term.endswith("n't"))
    content |= {pair for run in runs for pair in writing_systems.bigrams(run)}
    return Words(content, frozenset(found_numbers), negations, frozenset(all_words))


def content_words(text: str) -> list[str]:
    """The words of a text that carry its content, as written, in lower case; in scripts without spaces, pairs of
    characters."""
    return [
        word
        for part, unspaced in writing_systems.split_scripts(text)
        for raw in (writing_systems.bigrams(part) if unspaced else _WORD.findall(part))
        if (word := raw.lower()) not in _COMMON and not word.isdigit()
    ]


def places_of(passage: str) -> list[Place]:
    """The sentences of a passage, then each two consecutive ones."""
    spans = list(sentences(passage))
    joined = [(one[0], other[1]) for one, other in pairwise(spans)]
    return [Place(start, end, passage[start:end].strip()) for start, end in (*spans, *joined)]


@dataclass(frozen=True, slots=True)
class PassageText:
    """A passage prepared for comparison with statements: its places, their plain texts and their words."""

    places: list[Place]
    plain_texts: list[str]
    words: list[Words]
    all_words: Words


def prepare_passage(passage: str, head: str = "") -> PassageText:
    """Prepare a passage. `head`: if it is rows of a table, the names of the columns, which count for each row."""
    places = places_of(passage)
    place_words = [words_of(place.text) for place in places]
    if head:
        names = words_of(head)
        place_words = [
            replace(one, terms=one.terms | names.terms, numbers=one.numbers | names.numbers) for one in place_words
        ]
    return PassageText(
        places, [_plain_text(place.text) for place in places], place_words, words_of(f"{head}\n{passage}")
    )


def match_words(statement: str, passage: PassageText) -> WordMatch:
    """Compare the words of a statement with the most similar place of the passage."""
    stated, plain, places, place_words = words_of(statement), _plain_text(statement), passage.places, passage.words
    if not places or not (stated.terms or stated.numbers):
        return WordMatch(None, 0.0, None)
    quoted = next((place for place, own in zip(places, passage.plain_texts, strict=True) if own == plain), None)
    if quoted is not None:
        return WordMatch(True, 1.0, quoted)
    shares = [_shared_part(stated, each) for each in place_words]
    best = _best_place(places, shares)
    if _contradicts(stated, _supporting_part(stated, places[best].text, place_words[best]), passage.all_words):
        return WordMatch(False, shares[best], places[best])
    if shares[best] >= MIN_DECISIVE_SHARE:
        return WordMatch(True, shares[best], places[best])
    return WordMatch(None, shares[best], places[best], tuple(places))


def _plain_text(text: str) -> str:
    """A sentence in the form in which quotes are compared."""
    return " ".join(writing_systems.normalise(text).split()).rstrip(".;:!? 。")


def decide(share: float, nearness: float, settings: Settings = SETTINGS) -> bool:
    """Whether a statement is supported. `share` is from `match_words`; `nearness` is the largest cosine of the
    statement and a place."""
    return settings.words * share + settings.meaning * nearness >= settings.least


def _shared_part(stated: Words, found: Words) -> float:
    """The share of the statement's words and numbers that are found."""
    wanted = len(stated.terms) + len(stated.numbers)
    return (len(stated.terms & found.terms) + len(stated.numbers & found.numbers)) / max(1, wanted)


def _best_place(places: Sequence[Place], shares: Sequence[float]) -> int:
    """The index of the best place. Two sentences together count only if they have much more of the statement than one:
    a number in the other sentence proves nothing."""
    order = sorted(range(len(places)), key=lambda at: (-shares[at], places[at].end - places[at].start))
    best = order[0]
    single = next(at for at in order if not _is_pair(places, at))
    return best if shares[best] >= shares[single] + 0.25 else single


def _supporting_part(stated: Words, text: str, whole: Words) -> Words:
    """The clause of a sentence that has all of the statement, if there is one: a negation in another clause does not
    count."""
    parts = [words_of(part) for part in _CLAUSE.split(text)]
    minimum = max(MIN_DECISIVE_SHARE, _shared_part(stated, whole))
    return max(
        (part for part in parts if _shared_part(stated, part) >= minimum),
        key=lambda part: _shared_part(stated, part),
        default=whole,
    )


def _is_pair(places: Sequence[Place], at: int) -> bool:
    return at > len(places) // 2


def _contradicts(stated: Words, found: Words, whole: Words) -> bool:
    """Whether the passage contradicts a part of the statement."""
    overlap = len(stated.terms & found.terms) / max(1, len(stated.terms))
    missing = stated.numbers - whole.numbers - {"1"}
    # a number in words may be written differently in the passage: a quarter, twice a year
    if missing and (
        overlap >= 0.5 or any(number in stated.all or "." in number or len(number) > 2 for number in missing)
    ):
        return True
    if overlap < 0.5:
        return False
    if stated.numbers - found.numbers - {"1"} and overlap >= 0.75:
        return True
    return bool(stated.negations) != bool(found.negations) or any(
        (stated.all & one and found.all & other and not found.all & one)
        or (stated.all & other and found.all & one and not found.all & other)
        for one, other in _OPPOSITES
    )


def _stem(word: str) -> str:
    word = word.removesuffix("'s")
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def nearest(cosines: Iterable[float]) -> float:
    """The largest cosine; 0 if there are none."""
    return max((max(0.0, one) for one in cosines), default=0.0)
