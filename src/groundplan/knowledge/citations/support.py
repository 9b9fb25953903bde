"""Whether a passage says what a statement says: by its words first, and where they do not decide it, by meaning. Pure.

A number that the passage does not say, a negation or an opposite that it does not have speak against it, whatever else
is the same. It is no proof and no judge of truth: it looks for what is said, not for what follows from it. The settings
were chosen on `benchmarks/knowledge_claims.py`; docs/knowledge.md has how often it is right, cross-validated.
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
_NEGATIONS_ELSEWHERE: Final = frozenset(
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
_DENYING: Final = _NEGATIONS | _NEGATIONS_ELSEWHERE
_DENIES: Final = re.compile("ない|なかった|ません|ずに|禁止|不|没|沒|未|勿|别|않|없|못|ไม่|ห้าม|မ.{1,8}ဘူး")
"""Negations of scripts without spaces between words. A word that only has such a character has it in both texts."""
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
_SAID_NUMBERS: Final = {
    word: str(number)
    for number, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen".split()  # noqa: SIM905
    )
    if number > 1
}
_ENDINGS: Final = ("ingly", "edly", "ations", "ation", "ments", "ment", "ing", "ies", "ied", "ed", "es", "ly", "s", "e")
SURE: Final = 0.8
"""Part of a statement's words in one place of the passage from which they decide."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How much its words and its meaning count, and from which sum on a statement counts as said."""

    words: float = 0.0
    meaning: float = 1.0
    least: float = 0.55


SETTINGS: Final = Settings()


@dataclass(frozen=True, slots=True)
class Place:
    """A sentence of a passage, or two that follow each other: characters `start` to `end` of it."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class WordMatch:
    """What words say: `decided` is None where they do not decide. `place`: the most like the statement."""

    decided: bool | None
    share: float
    place: Place | None
    places: tuple[Place, ...] = ()
    """What meaning is asked about."""


@dataclass(frozen=True, slots=True)
class Words:
    """A text as it is compared."""

    terms: frozenset[str]
    numbers: frozenset[str]
    negations: int
    all: frozenset[str]


def words_of(text: str) -> Words:
    """Its content words without their endings, its numbers, its negations. Of scripts without spaces, pairs of
    characters are words."""
    text, runs = writing_systems.split_unspaced(numbers.join_digits(text))
    every = [word.lower().replace("’", "'") for word in _WORD.findall(text)]
    figures = {numbers.normalise_number(number) for number in _NUMBER.findall(text)} | {
        _SAID_NUMBERS[w] for w in every if w in _SAID_NUMBERS
    }
    terms = {
        _root(word) for word in every if word not in _COMMON and not word[0].isdigit() and word not in _SAID_NUMBERS
    }
    negations = sum(word in _DENYING or word.endswith("n't") for word in every)
    negations += sum(len(_DENIES.findall(run)) for run in runs)
    content = frozenset(term for term in terms if term not in _DENYING and not term.endswith("n't"))
    content |= {pair for run in runs for pair in writing_systems.bigrams(run)}
    return Words(content, frozenset(figures), negations, frozenset(every))


def content_words(text: str) -> list[str]:
    """The words of a text that say what it is about, as they were written, in lower case; of scripts without spaces,
    pairs of characters."""
    return [
        word
        for part, unspaced in writing_systems.split_scripts(text)
        for raw in (writing_systems.bigrams(part) if unspaced else _WORD.findall(part))
        if (word := raw.lower()) not in _COMMON and not word.isdigit()
    ]


def places_of(passage: str) -> list[Place]:
    """Its sentences, and each two that follow each other."""
    spans = list(sentences(passage))
    joined = [(one[0], other[1]) for one, other in pairwise(spans)]
    return [Place(start, end, passage[start:end].strip()) for start, end in (*spans, *joined)]


@dataclass(frozen=True, slots=True)
class PassageText:
    """A passage as statements are compared with it, by its places: as they are quoted, and their words."""

    places: list[Place]
    plain_texts: list[str]
    words: list[Words]
    all_words: Words


def prepare_passage(passage: str, head: str = "") -> PassageText:
    """A passage; `head`: the names of its columns, where it is rows of a table: they stand for each row."""
    places = places_of(passage)
    known = [words_of(place.text) for place in places]
    if head:
        names = words_of(head)
        known = [replace(one, terms=one.terms | names.terms, numbers=one.numbers | names.numbers) for one in known]
    return PassageText(places, [_plain_text(place.text) for place in places], known, words_of(f"{head}\n{passage}"))


def match_words(statement: str, passage: PassageText) -> WordMatch:
    """What the words of a statement say of it, compared with the place of the passage that is most like it."""
    said, bare, places, known = words_of(statement), _plain_text(statement), passage.places, passage.words
    if not places or not (said.terms or said.numbers):
        return WordMatch(None, 0.0, None)
    quoted = next((place for place, own in zip(places, passage.plain_texts, strict=True) if own == bare), None)
    if quoted is not None:
        return WordMatch(True, 1.0, quoted)
    shares = [_share(said, each) for each in known]
    best = _best_place(places, shares)
    if _contradicts(said, _supporting_part(said, places[best].text, known[best]), passage.all_words):
        return WordMatch(False, shares[best], places[best])
    if shares[best] >= SURE:
        return WordMatch(True, shares[best], places[best])
    return WordMatch(None, shares[best], places[best], tuple(places))


def _plain_text(text: str) -> str:
    """A sentence as it is compared word for word."""
    return " ".join(writing_systems.normalise(text).split()).rstrip(".;:!? 。")


def decide(share: float, nearness: float, settings: Settings = SETTINGS) -> bool:
    """`share` of `match_words`, and the largest cosine of the statement and a place."""
    return settings.words * share + settings.meaning * nearness >= settings.least


def _share(said: Words, there: Words) -> float:
    """The part of the statement's words and numbers that are there."""
    wanted = len(said.terms) + len(said.numbers)
    return (len(said.terms & there.terms) + len(said.numbers & there.numbers)) / max(1, wanted)


def _best_place(places: Sequence[Place], shares: Sequence[float]) -> int:
    """Two sentences together only where they say a good deal more than one: a number of the other proves nothing."""
    order = sorted(range(len(places)), key=lambda at: (-shares[at], places[at].end - places[at].start))
    best = order[0]
    single = next(at for at in order if not _join_places(places, at))
    return best if shares[best] >= shares[single] + 0.25 else single


def _supporting_part(said: Words, text: str, whole: Words) -> Words:
    """The part of a sentence that says all that is stated, where one does: what is denied in another is not meant."""
    parts = [words_of(part) for part in _CLAUSE.split(text)]
    least = max(SURE, _share(said, whole))
    return max(
        (part for part in parts if _share(said, part) >= least), key=lambda part: _share(said, part), default=whole
    )


def _join_places(places: Sequence[Place], at: int) -> bool:
    return at > len(places) // 2


def _contradicts(said: Words, there: Words, whole: Words) -> bool:
    """Whether something that the statement says cannot be what the passage says."""
    alike = len(said.terms & there.terms) / max(1, len(said.terms))
    missing = said.numbers - whole.numbers - {"1"}
    # a number in words may be another way to count: a quarter, twice a year
    if missing and (alike >= 0.5 or any(number in said.all or "." in number or len(number) > 2 for number in missing)):
        return True
    if alike < 0.5:
        return False
    if said.numbers - there.numbers - {"1"} and alike >= 0.75:
        return True
    return bool(said.negations) != bool(there.negations) or any(
        (said.all & one and there.all & other and not there.all & one)
        or (said.all & other and there.all & one and not there.all & other)
        for one, other in _OPPOSITES
    )


def _root(word: str) -> str:
    word = word.removesuffix("'s")
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word


def nearest(cosines: Iterable[float]) -> float:
    """The largest; 0 where there is none."""
    return max((max(0.0, one) for one in cosines), default=0.0)
