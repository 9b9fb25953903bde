"""Reads the grammar of a request: focus, moods, tense, who does what to whom, and which word qualifies which. Pure.

Read from closed classes of English words (`grammar`), without a parser. It reads how content words are related, never
what they mean. Where that cannot be told, fields are empty.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from groundplan.economics.semantic import grammar as g
from groundplan.economics.semantic import persons
from groundplan.economics.semantic.question import (
    MAX_SCAN,
    Tokens,
    find_focus,
    find_moods,
    find_question_word,
)
from groundplan.economics.semantic.vocabulary import QUANTIFIERS
from groundplan.economics.semantic.word_positions import Arrangement, read_arrangement, relations_of

MAX_ACT_WORDS = 48
"""Content words of a text above which `Clause.acts` is not read."""
ACT_WINDOW = 2
"""Content words on each side of a verb that may be its agent or its object."""


@dataclass(frozen=True, slots=True)
class Clause:
    """The grammar of one text. Content words are given by their stems."""

    is_question: bool
    """Whether the text is a question, or an order to tell or make something."""
    is_statement: bool
    """Whether the text is a sentence that asks nothing, and not in the first person."""
    focus: str
    """What is asked for: how, who, when, where, why, count, amount, duration, rate, age, distance, measure, purpose;
    thing: the object of an action; what: anything else; which; polar: yes or no; empty: unknown."""
    is_copular: bool
    """Whether `is` joins the question word to a noun: *what is the fee*."""
    counted_noun: str
    """The content word right behind `how many`, `which` or `what`."""
    moods: frozenset[str]
    """may, must, should, will, would"""
    tense: str
    """past, present, or empty."""
    persons: frozenset[str]
    """he, she, they, first, you"""
    third_person_counts: tuple[int, ...]
    """How often he, she and they are mentioned."""
    speaker_role: str
    """Whether the speaker is the `subject` or the `object`; empty: both, or neither."""
    dialogue_direction: str
    """`i`: I do something to you; `you`: the other way round."""
    possessions: frozenset[tuple[str, str]]
    """(we | you | they | he | she, what is owned)"""
    relations: dict[str, frozenset[str]]
    """Content word -> classes of the prepositions right before it; empty: none; `~`: it may be any."""
    measured_words: frozenset[str]
    """Content words behind a number, and units."""
    particles: frozenset[tuple[str, str]]
    """(verb, or empty for one without content; its particle)"""
    stranded_prepositions: frozenset[str]
    """Prepositions without an object: *Who is it for?*"""
    light_verbs: frozenset[str]
    """Classes of the light verbs (`grammar.LIGHT_VERBS`): get, have, use ..."""
    quantity_words: tuple[str, ...]
    """first, second, both, all, some, only ..., each as often as it occurs, sorted"""
    degrees: dict[str, frozenset[str]]
    """Adjective -> plain, more, most, too"""
    modifications: frozenset[tuple[str, str]]
    """(modifier, head)"""
    noun_modifications: frozenset[tuple[str, str]]
    """Those (modifier, head) that stand behind an article, without `of`."""
    objects: frozenset[tuple[str, str]]
    """(noun behind an article, the word before that article)"""
    genitives: frozenset[tuple[str, str]]
    """(owner, thing) of *the colleague's salary*"""
    final_question_words: frozenset[str]
    """Question words at the end of a clause: *tell him why*."""
    acts: frozenset[tuple[str, str, str]]
    """(agent, verb, object)"""
    coordinations: dict[frozenset[str], frozenset[str]]
    """Two content words -> the conjunctions (`and`, `or`) between them."""
    noun_forms: dict[str, frozenset[str]]
    """Singular of a word -> its forms: `a`, `the`, `s`, `the s` or empty, by article and plural ending."""
    arrangement: Arrangement
    """Where the content words stand."""


_QUESTION_MARK = re.compile(r"\?(?=[\s\"')\]]|$)")
"""A question mark at the end of a word; in a URL more characters follow it."""
_SENTENCE_STARTS = re.compile(
    r"(?:^|(?<!\d)[.?!:\n])[^\S\n]*+(?:(?:please|kindly|and|then)\s++)*([A-Za-z]+)", re.IGNORECASE
)
"""The first word of each sentence, or of a line."""


def read_clause(
    text: str,
    words: Sequence[str],
    stems: Sequence[str],
    breaks: Sequence[bool],
    skipped: frozenset[int] = frozenset(),
    absorbed: frozenset[int] = frozenset(),
) -> Clause:
    """Read the grammar of a text. `stems`: of each word, empty where it has no content; `skipped`: places of polite
    phrases; `absorbed`: places of particles that are read with their verbs."""
    tokens = Tokens(words, stems, breaks, skipped, absorbed)
    place, polar = find_question_word(tokens)
    focus, plain, counted = ("polar", False, "") if polar else find_focus(tokens, place)
    moods, tense = find_moods(tokens, max(0, place), focus, asked=place >= 0)
    relations, timed = relations_of(tokens)
    told = text.rstrip().endswith(".")
    asked = bool(_QUESTION_MARK.search(text)) or (place == 0 and not told) or bool(tokens.skipped and place >= 0)
    asked = asked or any(word.lower() in g.ORDERS for word in _SENTENCE_STARTS.findall(text))
    mentioned = persons.persons_in(tokens)
    heads, things, governs = _modifications(tokens)
    return Clause(
        is_question=asked,
        is_statement=told and not asked and "first" not in mentioned and not _is_imperative(tokens),
        focus=focus,
        is_copular=plain,
        counted_noun=counted,
        moods=moods,
        tense=tense,
        persons=mentioned,
        third_person_counts=persons.third_person_counts(tokens),
        speaker_role=persons.speaker_role(tokens),
        dialogue_direction=persons.dialogue_direction(tokens),
        possessions=persons.possessions(tokens),
        relations=relations,
        measured_words=timed,
        particles=_particles(tokens),
        stranded_prepositions=_stranded_prepositions(tokens),
        light_verbs=_light_verbs(tokens),
        quantity_words=_quantity_words(tokens),
        degrees=_degrees(tokens),
        modifications=heads,
        noun_modifications=things,
        objects=governs,
        genitives=_genitives(tokens),
        final_question_words=_final_question_words(tokens, place),
        acts=_acts(tokens, relations, place),
        coordinations=_coordinations(tokens),
        noun_forms=_noun_forms(tokens),
        arrangement=read_arrangement(tokens, place),
    )


def _is_imperative(tokens: Tokens) -> bool:
    """Whether a text begins with a verb and its object: *turn the key*. Nouns do not stand before an article; the other
    words that do are prepositions, gerunds, adverbs, and plurals before a relative clause (*lamps that*)."""
    first = next((i for i, word in enumerate(tokens.words) if i not in tokens.skipped and word not in g.LEAD_INS), -1)
    word, after = tokens.word_at(first), tokens.word_at(first + 1)
    if first < 0 or not tokens.stems[first] or any(tokens.breaks[first + 1 : first + 2]) or _cannot_be_imperative(word):
        return False
    return after in _OBJECT_PRONOUNS or (after in g.DETERMINERS and not (after == "that" and word.endswith("s")))


def _cannot_be_imperative(word: str) -> bool:
    """Whether a word before an article is no imperative."""
    root = word.removesuffix("ing")
    gerund = root != word and not _VOWELS.isdisjoint(root)
    return gerund or word in g.RELATIONS or word in g.SUBORDINATE


_VOWELS = frozenset("aeiouy")
_OBJECT_PRONOUNS = frozenset({"me", "us", "him", "her", "it", "them"})


def _particles(tokens: Tokens) -> frozenset[tuple[str, str]]:
    found = set()
    for place, word in enumerate(() if g.PARTICLES.isdisjoint(tokens.words) else tokens.words):
        if word not in g.PARTICLES or place in tokens.skipped or place in tokens.absorbed:
            continue
        after = tokens.word_at(place + 1)
        if (word == "out" and after == "of") or (
            word == "up" and after == "to" and tokens.word_at(place + 2)[:1].isdigit()
        ):
            continue
        dangling = place + 1 == len(tokens.words) or tokens.breaks[place + 1] or after in g.RELATIONS
        before = [i for i in range(place - 1, max(-1, place - 5), -1) if tokens.stems[i]]
        if not dangling and word not in ("up", "down", "off", "out"):
            continue
        if not before:
            found.add(("", word))
        else:
            verb = next(
                (i for i in before if tokens.word_at(i - 1) not in g.DETERMINERS and not tokens.stems[i - 1]), before[0]
            )
            found.add((tokens.stems[verb], word))
    return frozenset(found)


def _stranded_prepositions(tokens: Tokens) -> frozenset[str]:
    last = len(tokens.words) - 1
    return frozenset(
        word
        for place, word in enumerate(tokens.words)
        if word in _PREPOSITIONS
        and (place == last or tokens.breaks[place + 1] or _introduces_question_word(tokens, place))
        and place not in tokens.skipped
    )


def _introduces_question_word(tokens: Tokens, place: int) -> bool:
    """Whether a preposition stands before a question word: *to whom*, not *at what time*."""
    asks = tokens.words[place] in _ASKING_PREPOSITIONS and tokens.word_at(place + 1) in _ASKING_PRONOUNS
    return asks and tokens.word_at(place + 2) not in g.ASPECTS and tokens.word_at(place + 2) not in g.QUESTION_NOUNS


_ASKING_PREPOSITIONS, _ASKING_PRONOUNS = (
    frozenset({"of", "to", "from", "with", "for", "about"}),
    frozenset({"what", "whom", "who", "which"}),
)
_PREPOSITIONS = g.RELATIONS.keys() - g.PARTICLES


def _light_verbs(tokens: Tokens) -> frozenset[str]:
    """Light verbs, unless they only introduce another verb or the question: *I want to*, *how does it work*."""
    found = set()
    for place, word in enumerate(tokens.words):
        kind = g.LIGHT_VERBS.get(word)
        if kind is None:
            continue
        after = tokens.word_at(place + 1)
        if place in tokens.skipped or after == "to":
            continue
        if kind in ("work", "help", "know", "tell", "explain", "let", "like") and (
            place + 1 >= len(tokens.words) or tokens.word_at(place - 1) in ("it", "that", "this", "would", "to")
        ):
            continue
        if kind == "help" and (place + 1 < len(tokens.words) and tokens.breaks[place + 1]):
            continue
        if kind == "apply" and after != "for":
            continue
        if kind == "have" and (tokens.breaks[place] or tokens.word_at(place + 2) == "been"):
            continue
        if kind == "have" and not (place and (after in g.DETERMINERS or after[:1].isdigit())):
            continue
        found.add("get" if kind == "give" and tokens.word_at(place - 1) in ("you", "they") else kind)
    return frozenset(found)


def _quantity_words(tokens: Tokens) -> tuple[str, ...]:
    if _QUANTITY_WORDS.isdisjoint(tokens.kept_words):
        return ()
    said = [
        _OVER_THERE
        if word == "there" and g.NO_PLACE.isdisjoint((tokens.word_at(place - 1), tokens.word_at(place + 1)))
        else word
        for place, word in enumerate(tokens.words)
        if place not in tokens.skipped
    ]
    return tuple(sorted(QUANTIFIERS.get(each, each) for each in said if each in _COUNTED or each in _SHARES))


_OVER_THERE = "over there"
_COUNTED = g.COUNTED | {_OVER_THERE}
_SHARES = frozenset(word for word, share in QUANTIFIERS.items() if share in ("all", "some", "few", "only"))
_QUANTITY_WORDS = _COUNTED | _SHARES | {"there"}


def _degrees(tokens: Tokens) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for place, word in enumerate(tokens.words):
        base, degree = _split_degree(word)
        if base and (before := tokens.word_at(place - 1)) != "how":
            found.setdefault(base, set()).add(degree or (before if before in _DEGREE_WORDS else "plain"))
    return {base: frozenset(degrees) for base, degrees in found.items()}


_DEGREE_WORDS = frozenset({"more", "most", "less", "least", "too"})


@lru_cache(maxsize=8192)
def _split_degree(word: str) -> tuple[str, str]:
    """(adjective, `more` | `most`) of `cheaper` and `cheapest`. For a bare adjective the degree is empty: the word
    before it tells."""
    if word in g.DEGREES:
        return word, ""
    if word in g.UNEVEN:
        return g.UNEVEN[word]
    for ending, degree in (("er", "more"), ("est", "most")):
        if word.endswith(ending):
            root = word[: -len(ending)]
            forms = [root, root + "e", root[:-1]] + ([root[:-1] + "y"] if root.endswith("i") else [])
            base = next((form for form in forms if form in g.DEGREES), "")
            if base:
                return base, degree
    return "", ""


_Pair = tuple[str, str]


def _modifications(tokens: Tokens) -> tuple[frozenset[_Pair], frozenset[_Pair], frozenset[_Pair]]:
    """(`modifications`, `noun_modifications`, `objects`) of words with nothing but articles between them."""
    heads, things, governs = set[_Pair](), set[_Pair](), set[_Pair]()
    for place in tokens.content:
        # an ordinal qualifies the word that follows: *the second heir*
        before, behind = tokens.word_at(place - 1), tokens.word_at(place + 1)
        if before in g.ORDINALS and not tokens.breaks[place]:
            heads.add((before, tokens.stems[place]))
        if behind in g.ORDINALS and not tokens.breaks[place + 1]:
            heads.add((tokens.stems[place], behind))
        # no modification: the participle of `damage covered`, the verb of `to transfer files`
        done = tokens.word_at(place + 1).endswith("ed") and _follows_passive_auxiliary(tokens, place)
        verb = done or tokens.word_at(place - 1) in _SUBJECTS
        if not verb and tokens.continues_run[place + 1]:
            pair = (tokens.stems[place], tokens.stems[place + 1])
            heads.add(pair)
            begin, least = place, max(0, place - MAX_SCAN)
            while begin > least and tokens.continues_run[begin - 1] and not tokens.breaks[begin]:
                begin -= 1
            ends = not tokens.continues_run[place + 2] or tokens.word_at(place + 2) in g.RELATIONS
            if tokens.word_at(begin - 1) in g.DETERMINERS and ends:
                things.add(pair)
        after = place + 2 if tokens.word_at(place + 1) == "of" else place + 1
        while after < place + MAX_SCAN and tokens.word_at(after) in g.DETERMINERS and not tokens.breaks[after]:
            after += 1
        if after > place + 1:
            held = heads if tokens.word_at(place + 1) == "of" else governs
            while after < place + MAX_SCAN and tokens.continues_run[after]:
                held.add((tokens.stems[after], tokens.stems[place]))
                after += 1
    return frozenset(heads), frozenset(things), frozenset(governs)


def _follows_passive_auxiliary(tokens: Tokens, place: int) -> bool:
    """Whether a passive auxiliary stands right before the noun phrase that ends at a place: *is the damage covered*."""
    least = max(0, place - MAX_SCAN)
    while place > least and tokens.stems[place - 1] and not tokens.breaks[place]:
        place -= 1
    while place > least and tokens.word_at(place - 1) in g.DETERMINERS:
        place -= 1
    return tokens.word_at(place - 1) in _PASSIVE_AUXILIARIES


_PASSIVE_AUXILIARIES = frozenset({"is", "are", "was", "were", "be", "been", "being", "get", "has", "have"})
_SUBJECTS = frozenset({"to", "i", "we", "you", "they", "he", "she", "it", "one"})


def _genitives(tokens: Tokens) -> frozenset[tuple[str, str]]:
    return frozenset(
        (tokens.stems[place], tokens.stems[place + 1])
        for place in tokens.content
        if tokens.words[place].endswith("'s") and place + 1 < len(tokens.words) and tokens.stems[place + 1]
    )


def _final_question_words(tokens: Tokens, question_place: int) -> frozenset[str]:
    last = len(tokens.words) - 1
    return frozenset(
        word
        for place, word in enumerate(tokens.words)
        if word in g.WH and place != question_place and (place == last or tokens.breaks[place + 1])
    )


_UNMARKED = frozenset({"", "~"})


def _acts(tokens: Tokens, relations: dict[str, frozenset[str]], question_place: int) -> frozenset[tuple[str, str, str]]:
    """(agent, verb, object) as far as word order and `by` tell. The person asked for is `?`."""
    if len(tokens.content) > MAX_ACT_WORDS:
        return frozenset()
    asks_who = tokens.word_at(question_place) in ("who", "whom")
    light_verbs = {
        place: g.ACT_VERBS[word]
        for place, word in enumerate(tokens.words)
        if word in g.ACT_VERBS and not tokens.stems[place]
    }
    order = sorted({*tokens.content, *light_verbs.keys() - tokens.skipped, *((question_place,) if asks_who else ())})
    question_phrase_places = asks_who and tokens.word_at(question_place - 1) == "by"

    stems = [
        "?" if asks_who and place == question_place else tokens.stems[place] or light_verbs[place] for place in order
    ]
    bare, by = list[bool](), list[bool]()
    """Whether each word may be an agent or an object; whether it is an agent behind `by`."""
    for place, its in zip(order, stems, strict=True):
        relations_here = (
            _NO_RELATION
            if place in light_verbs
            else relations[tokens.stems[place]]
            if its != "?"
            else _QUESTION_RELATIONS[question_phrase_places]
        )
        bare.append(not relations_here.isdisjoint(_UNMARKED))
        by.append("by" in relations_here)
    found = set[tuple[str, str, str]]()
    for number, (place, verb) in enumerate(zip(order, stems, strict=True)):
        if verb == "?" or not relations.get(verb, _UNMARKED) <= _UNMARKED:
            continue
        part = tokens.segments[place]
        before = [n for n in range(max(0, number - ACT_WINDOW), number) if tokens.segments[order[n]] == part]
        after = [
            n for n in range(number + 1, min(len(order), number + 1 + ACT_WINDOW)) if tokens.segments[order[n]] == part
        ]
        ahead = [stems[n] for n in before if bare[n]]
        agents = [stems[n] for n in (*before, *after) if by[n]]
        objects = ahead if agents else [stems[n] for n in after if bare[n]]
        found.update((x, verb, y) for x in agents or ahead for y in objects if x != y)
        if before and order[before[-1]] == place - 2 and tokens.word_at(place - 1) in ("a", "an", "the"):
            found.add((stems[before[-1]], "is", verb))
    return frozenset(found)


_NO_RELATION = frozenset[str]()
_QUESTION_RELATIONS = (frozenset({""}), frozenset({"by"}))


_CONJUNCTIONS = frozenset({"and", "or"})


def _coordinations(tokens: Tokens) -> dict[frozenset[str], frozenset[str]]:
    found: dict[frozenset[str], set[str]] = {}
    for one, other in pairwise(tokens.content):
        between = {tokens.words[i] for i in range(one + 1, other)} - g.DETERMINERS
        if between and between <= _CONJUNCTIONS:
            found.setdefault(frozenset((tokens.stems[one], tokens.stems[other])), set()).update(between)
    return {pair: frozenset(words) for pair, words in found.items()}


def _noun_forms(tokens: Tokens) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for place in tokens.content:
        begin = tokens.run_starts[place] - 1
        while (before := tokens.word_at(begin)) in g.ORDINALS or before[:1].isdigit():
            begin -= 1
        thing, several = _singular(tokens.words[place])
        article = "a" if before in _INDEFINITE and not several else "the" if before in g.DETERMINERS else ""
        found.setdefault(thing, set()).add(f"{article} s".strip() if several else article)
    return {thing: frozenset(kinds) for thing, kinds in found.items()}


@lru_cache(maxsize=8192)
def _singular(word: str) -> tuple[str, bool]:
    """(common singular of `boxes` and `box`, `houses` and `house`; whether the word is a plural)."""
    several = word.endswith("s") and word[-2:] not in ("ss", "us", "is", "'s")
    if several and word.endswith("ies"):
        return word[:-3] + "y", True
    return (word[:-1] if several else word).removesuffix("e"), several


_INDEFINITE = frozenset({"a", "an", "one", "another", "each", "every"})
