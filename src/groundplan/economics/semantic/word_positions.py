"""Where each word of content stands in a text, and which words of closed classes are left that belong to none. Pure.

A word stands in a segment (between marks), in a run (of words with nothing between them), behind a preposition or none,
and, as a verb, in a voice. Numbers and denials belong to the word that they stand before. It is read from places and
endings, without a parser; what may be arranged otherwise and say the same is `word_order`'s to know.
"""

from __future__ import annotations

from dataclasses import dataclass

from groundplan.economics.semantic import grammar as g
from groundplan.economics.semantic import vocabulary as v
from groundplan.economics.semantic.question import FAR, Words, month, moody
from groundplan.economics.semantic.spelling import UNCHANGED, past_form

PASSIVE, DOING, PAST, QUALIFYING, ACTING = "passive", "doing", "past", "qualifying", "acting"
_BE = frozenset({"is", "are", "was", "were", "am", "be", "been", "being", "isn't", "aren't", "wasn't", "weren't"})
_CAUSED = frozenset({"get", "gets", "got", "getting", "have", "has", "had", "having"})
_MODALS = frozenset({"can", "could", "would", "should", "may", "might", "must", "will", "shall"})
_DEGREES = frozenset({"more", "less"})
_BECOMES = frozenset({"be", "been", "being"})
_DOERS = frozenset({"to", "i", "we", "you", "they", "he", "she", "one"})
_NEAR, _FAR = frozenset({"this", "these"}), frozenset({"that", "those"})
_MOODS = ("must", "should", "may", "will")


@dataclass(frozen=True, slots=True)
class Arrangement:
    """Of one text; the tuples have an entry for each word of content, in order."""

    segments: tuple[int, ...]
    runs: tuple[int, ...]
    """-1: a preposition, which stands in none."""
    relations: tuple[str, ...]
    """The class of the preposition before its run; empty: none."""
    voices: tuple[str, ...]
    """passive: something is done to it; doing: it goes on; past: it was, without another verb that says
    so; qualifying: a participle before a thing; acting: behind `to`, or behind who does it; or empty"""
    strays: tuple[str, ...]
    """Words of closed classes that belong to no word of content and that nothing else compares, by their classes."""
    codes: tuple[str, ...]
    """What stands in quotation marks, in order."""
    pointed: frozenset[str]
    """Whether a thing is pointed at that is near (`this`) or far (`that`)."""
    held: dict[str, frozenset[int]]
    """Number, or `not` -> the words of content that it belongs to."""


def arranged(own: Words, asks: int) -> Arrangement:
    """Read how a text is arranged. `asks`: the place of the word that asks, or -1."""
    found = _Reader(own, asks)
    for place in range(len(own.words)):
        found.at(place)
    found.ended()
    held: dict[str, set[int]] = {}
    for said, number in found.held:
        held.setdefault(said, set()).add(number)
    return Arrangement(
        tuple(found.segments), tuple(found.runs), tuple(found.relations), tuple(found.voices),
        tuple(sorted([*found.strays, *_elsewhere(own, asks)])),
        tuple(word for word in own.words if word[0] in "`\""), frozenset(found.pointed),
        {said: frozenset(numbers) for said, numbers in held.items()},
    )  # fmt: skip


class _Reader:
    """Goes over the words of a text once."""

    def __init__(self, own: Words, asks: int) -> None:
        self.own, self.asks = own, asks
        self.segments, self.runs, self.relations, self.voices = list[int](), list[int](), list[str](), list[str]()
        self.held, self.strays, self.pointed = list[tuple[str, int]](), list[str](), set[str]()
        self.segment, self.run, self.open = 0, -1, False
        self.relation = self.auxiliary = self.before = ""
        self.passed = False
        self.waiting = list[str]()

    def at(self, place: int) -> None:
        own, word = self.own, self.own.words[place]
        if own.breaks[place]:
            self.ended()
        if place in own.skipped or place in own.spent or (place == self.asks and word == "if"):
            return
        if word in g.RELATIONS and not (word == "like" and own.at(place - 1) in ("would", "i'd", "we'd")):
            self._preposition(place, word)
        elif own.stems[place]:
            self._content(place, word)
        else:
            self._little(place, word)

    def ended(self) -> None:
        """A mark, or the end of the text."""
        self._unheld()
        self.segment += 1
        self.open, self.relation, self.auxiliary, self.before, self.passed = False, "", "", "", False

    def _unheld(self) -> None:
        self.strays += [f"alone {said}" for said in self.waiting if said == "not"]
        self.waiting.clear()

    def _preposition(self, place: int, word: str) -> None:
        if self.own.stems[place]:
            self._enter(-1, "", "")
        self.open, self.relation, self.before = False, "", g.RELATIONS[word]
        if word == "to" or word in g.SUBORDINATE:
            self.auxiliary = ""

    def _content(self, place: int, word: str) -> None:
        own = self.own
        if not self.open:
            self.run += 1
            self.relation = relation_of(own, place)
        self._enter(self.run, self.relation, self._voice(place, word))
        self.held += [(said, len(self.runs) - 1) for said in self.waiting]
        self.waiting.clear()
        self.open, self.before, self.passed = True, "", True

    def _enter(self, run: int, relation: str, voice: str) -> None:
        self.segments.append(self.segment)
        self.runs.append(run)
        self.relations.append(relation)
        self.voices.append(voice)

    def _voice(self, place: int, word: str) -> str:
        own, after = self.own, place + 1
        past = past_form(word)
        if not past and not word.endswith("ing") and word not in UNCHANGED:
            return ACTING if own.at(place - 1) in _DOERS and not own.breaks[place] else ""
        ahead = after < len(own.words) and own.stems[after] and not own.breaks[after]
        how = own.at(after) in g.RELATIONS or own.at(after).endswith(("ly", "er")) or own.at(after) in _DEGREES
        if ahead and not how and own.at(place - 1) not in _BECOMES:
            return QUALIFYING if past else ""
        if word.endswith("ing"):
            return DOING if self.auxiliary == "be" else ""
        if self.auxiliary == "be" and word in UNCHANGED:
            return PASSIVE
        if not past:
            return ""
        if self.auxiliary == "be":
            return PASSIVE
        done_to = self.passed and own.at(after) not in g.DETERMINERS
        if self.auxiliary in ("caused", "perfect"):
            return PASSIVE if done_to else "" if self.passed or self.auxiliary == "caused" else PAST
        return PAST

    def _little(self, place: int, word: str) -> None:
        """A word without content."""
        own, after = self.own, place + 1
        was_open, self.open = self.open, False
        if word in v.NEGATIONS and not (word == "no" and place == 0):
            self.waiting.append("not")
        number = v.NUMBER_WORDS.get(word) if not word[:1].isdigit() else word
        if number is not None:
            self._number(place, f"{number:g}" if isinstance(number, float | int) else number, follows=was_open)
        elif word in g.DETERMINERS:
            if after < len(own.words) and own.stems[after] and not (was_open and word in _FAR):
                self.pointed.update(["this"] * (word in _NEAR) + ["that"] * (word in _FAR))
        else:
            self._stray(place, word)
            self.before = ""
        if word in _BE:
            self.auxiliary, self.passed = "be", False
        elif word in _CAUSED:
            perfect = word == "have" and self.auxiliary == "modal"
            if perfect and (own.at(after) == "been" or past_form(own.at(after))):
                self.strays.append("perfect")
            self.auxiliary, self.passed = "perfect" if perfect else "caused", False
        elif word in g.AUXILIARIES:
            self.auxiliary = "modal" if word in _MODALS else "other"
        elif word in g.WH or word in g.SUBORDINATE or word in ("and", "or", "but", "that"):
            self.auxiliary = ""

    def _number(self, place: int, said: str, *, follows: bool) -> None:
        own, after = self.own, place + 1
        if after < len(own.words) and own.stems[after] and not own.breaks[after]:
            self.waiting.append(said)
        elif follows:
            self.held.append((said, len(self.runs) - 1))
        elif self.before:
            self.strays.append(f"{self.before} {said}")

    def _stray(self, place: int, word: str) -> None:
        said = _STRAYS.get(word, "")
        person = _PERSONS.get(word, "")
        if self.before and person:
            if person != "it" or self.before not in _AROUND:
                self.strays.append(f"{self.before} {person}")
        elif self.before and word in g.WH and self.before in _SHARP:
            self.strays.append(f"{self.before} {word}")
        if said == "very" and word == "so" and (place == 0 or self.own.breaks[place] or place - 1 in self.own.skipped):
            said = ""
        if said in ("but", "and") and self.own.breaks[place]:
            said = ""
        if word in _EMBEDDED and place not in (self.asks, self.asks + 1):
            said = _EMBEDDED[word]
        if said:
            self.strays.append(said)


_STRAYS = {"so": "very", "very": "very", "just": "just", "but": "but", "or": "or", "and": "and", "if": "if"}
"""Words that no other guard compares -> what they say."""
_EMBEDDED = {"how": "how", "when": "if", "who": "who", "whom": "who", "whose": "whose", "where": "where", "why": "why"}
"""Words that ask within a sentence that asks for something else."""
_PERSONS = {
    word: name
    for name, words in (("first", g.FIRST), ("you", g.YOU), ("he", g.HE), ("she", g.SHE), ("they", g.THEY),
                        ("it", frozenset({"it", "this", "that", "these", "those"})))
    for word in words
}  # fmt: skip
_AROUND = frozenset({"of", "for", "by", "about", "as", "to"})
_SHARP = frozenset({"from", "before", "after", "until", "since", "with", "against", "without", "than", "like"})


def _elsewhere(own: Words, asks: int) -> list[str]:
    """Moods and tenses outside of the clause that asks, which alone is compared by what it asks for."""
    if asks < 0:
        return []
    within = range(asks, own.end(asks))
    rest = [
        word
        for place, word in enumerate(own.words)
        if place not in within and place not in own.skipped and (word != "may" or not month(own, place))
    ]
    told = frozenset[str]().union(*map(moody, rest))
    said = " ".join(rest) if told else ""
    found = [name for name in _MOODS if name in told for _ in g.MOODS[name].finditer(said)]
    return found + ["past"] * sum(word in g.PAST for word in rest)


def relations_of(own: Words) -> tuple[dict[str, frozenset[str]], frozenset[str]]:
    """Stem -> the classes of what it stands right behind (`Clause.relations`), and the stems behind a number."""
    found: dict[str, set[str]] = {}
    timed = set()
    for place in own.content:
        begin = own.begins[place]
        before, numbered = _before(own, begin)
        broken = before < 0 or own.breaks[before + 1]
        its = "" if broken or before in own.spent else _relation(own, before, begin)
        # what stands before another word may stand there in any relation: *the Berlin office*
        ahead = own.follows[place + 1]
        free = ahead or (begin < place and its) or (not its and not numbered and broken)
        found.setdefault(own.stems[place], set()).update({"~"} if free else {its}, {its} if its else ())
        if numbered or own.words[place] in v.UNITS:
            timed.add(own.stems[place])
    return {its: frozenset(classes) for its, classes in found.items()}, frozenset(timed)


def relation_of(own: Words, place: int) -> str:
    """The class of the preposition behind which a word of content stands; empty: none."""
    before, _ = _before(own, place)
    broken = before < 0 or own.breaks[before + 1] or before in own.spent
    return "" if broken else _relation(own, before, place)


_ALTERNATE = frozenset({"to", "for", "with"})


def _before(own: Words, place: int) -> tuple[int, bool]:
    """The place of the word before another and its articles and numbers, and whether there are numbers."""
    before, numbered, least = place - 1, False, max(0, place - FAR)
    while before >= least and not own.breaks[before + 1]:
        word = own.words[before]
        number = word[:1].isdigit() or (word in v.NUMBER_WORDS and word not in v.VAGUE_NUMBERS)
        numbered = numbered or number
        if word not in g.DETERMINERS and not number:
            break
        before -= 1
    return before, numbered


def _relation(own: Words, before: int, place: int) -> str:
    word, earlier = own.words[before], own.at(before - 1)
    if word == "of" and earlier in g.PAIRS_OF:
        return g.PAIRS_OF[earlier]
    if word == "to":
        if earlier in g.PAIRS_TO:
            return g.PAIRS_TO[earlier]
        verb = before == place - 1 and (own.at(place + 1) in g.DETERMINERS or own.at(place + 1)[:1].isdigit())
        if verb or earlier in g.INFINITIVE or earlier == "":
            return ""
    its = g.RELATIONS.get(word, "")
    return "for" if its in _ALTERNATE and earlier in g.ALTERNATING else its
