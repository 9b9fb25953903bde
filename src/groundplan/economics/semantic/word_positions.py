"""Reads where each content word stands in a text, and which function words belong to no content word. Pure.

A content word stands in a segment (between punctuation marks), in a run (of adjacent content words), behind a
preposition or none, and, as a verb, in a voice. Numbers and negations belong to the word that follows them. All is read
from places and endings, without a parser. Which arrangements mean the same is decided in `word_order`.
"""

from __future__ import annotations

from dataclasses import dataclass

from groundplan.economics.semantic import grammar as g
from groundplan.economics.semantic import vocabulary as v
from groundplan.economics.semantic.question import MAX_SCAN, Tokens, is_month, possible_moods
from groundplan.economics.semantic.spelling import UNCHANGED, is_past_form

PASSIVE, DOING, PAST, QUALIFYING, ACTING = "passive", "doing", "past", "qualifying", "acting"
_BE = frozenset({"is", "are", "was", "were", "am", "be", "been", "being", "isn't", "aren't", "wasn't", "weren't"})
_CAUSED = frozenset({"get", "gets", "got", "getting", "have", "has", "had", "having"})
_MODALS = frozenset({"can", "could", "would", "should", "may", "might", "must", "will", "shall"})
_DEGREES = frozenset({"more", "less"})
_BE_NONFINITE = frozenset({"be", "been", "being"})
_SUBJECTS = frozenset({"to", "i", "we", "you", "they", "he", "she", "one"})
_NEAR_DEMONSTRATIVES, _FAR_DEMONSTRATIVES = frozenset({"this", "these"}), frozenset({"that", "those"})
_MOODS = ("must", "should", "may", "will")


@dataclass(frozen=True, slots=True)
class Arrangement:
    """The word positions of one text; the first four tuples have an entry for each content word, in order."""

    segments: tuple[int, ...]
    runs: tuple[int, ...]
    """Number of the run; -1 for prepositions, which belong to no run."""
    relations: tuple[str, ...]
    """Class of the preposition before the run; empty: none."""
    voices: tuple[str, ...]
    """passive; doing: progressive; past: a past form without an auxiliary; qualifying: a participle before a noun;
    acting: behind `to` or a subject pronoun; or empty."""
    stray_words: tuple[str, ...]
    """Classes of the function words that belong to no content word and that no other guard compares, sorted."""
    codes: tuple[str, ...]
    """Quoted words, in order."""
    demonstratives: frozenset[str]
    """`this`, `that`: demonstratives before a content word."""
    scopes: dict[str, frozenset[int]]
    """Number, or `not` -> indexes of the content words that it belongs to."""


def read_arrangement(tokens: Tokens, question_place: int) -> Arrangement:
    """Read the word positions of a text. `question_place`: the place of its question word, or -1."""
    reader = _Reader(tokens, question_place)
    for place in range(len(tokens.words)):
        reader.read_word(place)
    reader.end_segment()
    scopes: dict[str, set[int]] = {}
    for scope, number in reader.scopes:
        scopes.setdefault(scope, set()).add(number)
    return Arrangement(
        tuple(reader.segments), tuple(reader.runs), tuple(reader.relations), tuple(reader.voices),
        tuple(sorted([*reader.stray_words, *_moods_elsewhere(tokens, question_place)])),
        tuple(word for word in tokens.words if word[0] in "`\""), frozenset(reader.demonstratives),
        {scope: frozenset(numbers) for scope, numbers in scopes.items()},
    )  # fmt: skip


class _Reader:
    """Builds an `Arrangement` in one pass over the words of a text."""

    def __init__(self, tokens: Tokens, question_place: int) -> None:
        self.tokens, self.question_place = tokens, question_place
        self.segments, self.runs, self.relations, self.voices = list[int](), list[int](), list[str](), list[str]()
        self.scopes, self.stray_words, self.demonstratives = list[tuple[str, int]](), list[str](), set[str]()
        self.segment, self.run, self.in_run = 0, -1, False
        self.relation = self.auxiliary = self.last_preposition = ""
        self.after_content = False
        self.pending = list[str]()

    def read_word(self, place: int) -> None:
        tokens, word = self.tokens, self.tokens.words[place]
        if tokens.breaks[place]:
            self.end_segment()
        if place in tokens.skipped or place in tokens.absorbed or (place == self.question_place and word == "if"):
            return
        if word in g.RELATIONS and not (word == "like" and tokens.word_at(place - 1) in ("would", "i'd", "we'd")):
            self._read_preposition(place, word)
        elif tokens.stems[place]:
            self._read_content_word(place, word)
        else:
            self._read_function_word(place, word)

    def end_segment(self) -> None:
        """Handle a punctuation mark, or the end of the text."""
        self._drop_pending()
        self.segment += 1
        self.in_run, self.relation, self.auxiliary, self.last_preposition, self.after_content = False, "", "", "", False

    def _drop_pending(self) -> None:
        self.stray_words += [f"alone {said}" for said in self.pending if said == "not"]
        self.pending.clear()

    def _read_preposition(self, place: int, word: str) -> None:
        if self.tokens.stems[place]:
            self._add_entry(-1, "", "")
        self.in_run, self.relation, self.last_preposition = False, "", g.RELATIONS[word]
        if word == "to" or word in g.SUBORDINATE:
            self.auxiliary = ""

    def _read_content_word(self, place: int, word: str) -> None:
        tokens = self.tokens
        if not self.in_run:
            self.run += 1
            self.relation = relation_of(tokens, place)
        self._add_entry(self.run, self.relation, self._voice(place, word))
        self.scopes += [(said, len(self.runs) - 1) for said in self.pending]
        self.pending.clear()
        self.in_run, self.last_preposition, self.after_content = True, "", True

    def _add_entry(self, run: int, relation: str, voice: str) -> None:
        self.segments.append(self.segment)
        self.runs.append(run)
        self.relations.append(relation)
        self.voices.append(voice)

    def _voice(self, place: int, word: str) -> str:
        tokens, after = self.tokens, place + 1
        past = is_past_form(word)
        if not past and not word.endswith("ing") and word not in UNCHANGED:
            return ACTING if tokens.word_at(place - 1) in _SUBJECTS and not tokens.breaks[place] else ""
        ahead = after < len(tokens.words) and tokens.stems[after] and not tokens.breaks[after]
        how = (
            tokens.word_at(after) in g.RELATIONS
            or tokens.word_at(after).endswith(("ly", "er"))
            or tokens.word_at(after) in _DEGREES
        )
        if ahead and not how and tokens.word_at(place - 1) not in _BE_NONFINITE:
            return QUALIFYING if past else ""
        if word.endswith("ing"):
            return DOING if self.auxiliary == "be" else ""
        if self.auxiliary == "be" and word in UNCHANGED:
            return PASSIVE
        if not past:
            return ""
        if self.auxiliary == "be":
            return PASSIVE
        done_to = self.after_content and tokens.word_at(after) not in g.DETERMINERS
        if self.auxiliary in ("caused", "perfect"):
            return PASSIVE if done_to else "" if self.after_content or self.auxiliary == "caused" else PAST
        return PAST

    def _read_function_word(self, place: int, word: str) -> None:
        """Read a word without content."""
        tokens, after = self.tokens, place + 1
        was_open, self.in_run = self.in_run, False
        if word in v.NEGATIONS and not (word == "no" and place == 0):
            self.pending.append("not")
        number = v.NUMBER_WORDS.get(word) if not word[:1].isdigit() else word
        if number is not None:
            self._read_number(
                place, f"{number:g}" if isinstance(number, float | int) else number, continues_run=was_open
            )
        elif word in g.DETERMINERS:
            if after < len(tokens.words) and tokens.stems[after] and not (was_open and word in _FAR_DEMONSTRATIVES):
                self.demonstratives.update(
                    ["this"] * (word in _NEAR_DEMONSTRATIVES) + ["that"] * (word in _FAR_DEMONSTRATIVES)
                )
        else:
            self._read_stray(place, word)
            self.last_preposition = ""
        if word in _BE:
            self.auxiliary, self.after_content = "be", False
        elif word in _CAUSED:
            perfect = word == "have" and self.auxiliary == "modal"
            if perfect and (tokens.word_at(after) == "been" or is_past_form(tokens.word_at(after))):
                self.stray_words.append("perfect")
            self.auxiliary, self.after_content = "perfect" if perfect else "caused", False
        elif word in g.AUXILIARIES:
            self.auxiliary = "modal" if word in _MODALS else "other"
        elif word in g.WH or word in g.SUBORDINATE or word in ("and", "or", "but", "that"):
            self.auxiliary = ""

    def _read_number(self, place: int, said: str, *, continues_run: bool) -> None:
        tokens, after = self.tokens, place + 1
        if after < len(tokens.words) and tokens.stems[after] and not tokens.breaks[after]:
            self.pending.append(said)
        elif continues_run:
            self.scopes.append((said, len(self.runs) - 1))
        elif self.last_preposition:
            self.stray_words.append(f"{self.last_preposition} {said}")

    def _read_stray(self, place: int, word: str) -> None:
        said = _STRAY_MEANINGS.get(word, "")
        person = _PRONOUN_PERSONS.get(word, "")
        if self.last_preposition and person:
            if person != "it" or self.last_preposition not in _LOOSE_PREPOSITIONS:
                self.stray_words.append(f"{self.last_preposition} {person}")
        elif self.last_preposition and word in g.WH and self.last_preposition in _DISTINCTIVE_PREPOSITIONS:
            self.stray_words.append(f"{self.last_preposition} {word}")
        if (
            said == "very"
            and word == "so"
            and (place == 0 or self.tokens.breaks[place] or place - 1 in self.tokens.skipped)
        ):
            said = ""
        if said in ("but", "and") and self.tokens.breaks[place]:
            said = ""
        if word in _EMBEDDED_QUESTIONS and place not in (self.question_place, self.question_place + 1):
            said = _EMBEDDED_QUESTIONS[word]
        if said:
            self.stray_words.append(said)


_STRAY_MEANINGS = {"so": "very", "very": "very", "just": "just", "but": "but", "or": "or", "and": "and", "if": "if"}
"""Function words that no other guard compares -> their class."""
_EMBEDDED_QUESTIONS = {
    "how": "how",
    "when": "if",
    "who": "who",
    "whom": "who",
    "whose": "whose",
    "where": "where",
    "why": "why",
}
"""Question words within a sentence that asks for something else -> their class."""
_PRONOUN_PERSONS = {
    word: name
    for name, words in (("first", g.FIRST), ("you", g.YOU), ("he", g.HE), ("she", g.SHE), ("they", g.THEY),
                        ("it", frozenset({"it", "this", "that", "these", "those"})))
    for word in words
}  # fmt: skip
_LOOSE_PREPOSITIONS = frozenset({"of", "for", "by", "about", "as", "to"})
_DISTINCTIVE_PREPOSITIONS = frozenset(
    {"from", "before", "after", "until", "since", "with", "against", "without", "than", "like"}
)


def _moods_elsewhere(tokens: Tokens, question_place: int) -> list[str]:
    """Moods and tenses outside the question's clause; those inside are compared as `Clause.moods` and `tense`."""
    if question_place < 0:
        return []
    clause_places = range(question_place, tokens.clause_end(question_place))
    rest = [
        word
        for place, word in enumerate(tokens.words)
        if place not in clause_places and place not in tokens.skipped and (word != "may" or not is_month(tokens, place))
    ]
    possible = frozenset[str]().union(*map(possible_moods, rest))
    text = " ".join(rest) if possible else ""
    found = [name for name in _MOODS if name in possible for _ in g.MOODS[name].finditer(text)]
    return found + ["past"] * sum(word in g.PAST for word in rest)


def relations_of(tokens: Tokens) -> tuple[dict[str, frozenset[str]], frozenset[str]]:
    """(`Clause.relations`, `Clause.measured_words`)"""
    found: dict[str, set[str]] = {}
    timed = set()
    for place in tokens.content:
        begin = tokens.run_starts[place]
        before, numbered = _word_before(tokens, begin)
        broken = before < 0 or tokens.breaks[before + 1]
        its = "" if broken or before in tokens.absorbed else _relation(tokens, before, begin)
        # a word before another content word may have any relation: *the Berlin office*
        ahead = tokens.continues_run[place + 1]
        free = ahead or (begin < place and its) or (not its and not numbered and broken)
        found.setdefault(tokens.stems[place], set()).update({"~"} if free else {its}, {its} if its else ())
        if numbered or tokens.words[place] in v.UNITS:
            timed.add(tokens.stems[place])
    return {its: frozenset(classes) for its, classes in found.items()}, frozenset(timed)


def relation_of(tokens: Tokens, place: int) -> str:
    """Class of the preposition before a content word; empty: none."""
    before, _ = _word_before(tokens, place)
    broken = before < 0 or tokens.breaks[before + 1] or before in tokens.absorbed
    return "" if broken else _relation(tokens, before, place)


_ALTERNATE = frozenset({"to", "for", "with"})


def _word_before(tokens: Tokens, place: int) -> tuple[int, bool]:
    """(place of the word before another one and its articles and numbers, whether there are numbers)"""
    before, numbered, least = place - 1, False, max(0, place - MAX_SCAN)
    while before >= least and not tokens.breaks[before + 1]:
        word = tokens.words[before]
        number = word[:1].isdigit() or (word in v.NUMBER_WORDS and word not in v.VAGUE_NUMBERS)
        numbered = numbered or number
        if word not in g.DETERMINERS and not number:
            break
        before -= 1
    return before, numbered


def _relation(tokens: Tokens, before: int, place: int) -> str:
    word, earlier = tokens.words[before], tokens.word_at(before - 1)
    if word == "of" and earlier in g.OF_PHRASES:
        return g.OF_PHRASES[earlier]
    if word == "to":
        if earlier in g.TO_PHRASES:
            return g.TO_PHRASES[earlier]
        verb = before == place - 1 and (
            tokens.word_at(place + 1) in g.DETERMINERS or tokens.word_at(place + 1)[:1].isdigit()
        )
        if verb or earlier in g.INFINITIVE or earlier == "":
            return ""
    its = g.RELATIONS.get(word, "")
    return "for" if its in _ALTERNATE and earlier in g.ALTERNATING else its
