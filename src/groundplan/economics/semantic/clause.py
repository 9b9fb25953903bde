"""How a request is put: what it asks for, whether it may, must or did, who does what to whom, and how words belong
together. Read from closed classes of English words (`grammar`), without a parser. Pure.

It reads what is said of the words of content, never what they mean. Where it cannot tell, it says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from groundplan.economics.semantic import grammar as g
from groundplan.economics.semantic.question import FAR, Words, aimed, mood, question
from groundplan.economics.semantic.vocabulary import QUANTIFIERS
from groundplan.economics.semantic.word_positions import Arrangement, arranged, relations_of

MOST = 48
"""Words of content beyond which nobody looks for who does what."""
NEAR = 2
"""Words of content on each side of another that do something to each other by way of it."""


@dataclass(frozen=True, slots=True)
class Clause:
    """Of one text. Words of content are told by their stems."""

    asks: bool
    """Whether it is a question, or an order to tell something."""
    tells: bool
    """Whether it is a whole sentence that asks nobody and in which nobody speaks of oneself."""
    focus: str
    """how, who, when, where, why, count, amount, duration, rate, age, distance, measure, purpose; thing: what one does
    something to; what: any other; which; polar: yes or no; empty: not said."""
    plain: bool
    """Whether the word that asks is joined to a thing by `is`: *what is the fee*."""
    counted: str
    """The word of content right behind `how many`, `which` or `what`."""
    moods: frozenset[str]
    """may, must, should, will, would"""
    tense: str
    """past, present, or empty."""
    persons: frozenset[str]
    """he, she, they, first, you"""
    others: tuple[int, ...]
    """How often he, she and they are spoken of."""
    first: str
    """Whether who speaks does something (`subject`) or is done something to (`object`); empty: both, or neither."""
    turned: str
    """`i`: I do something to you; `you`: the other way round."""
    owned: frozenset[tuple[str, str]]
    """(we | you | they | he | she, what is owned)"""
    relations: dict[str, frozenset[str]]
    """Word of content -> the classes of what it stands right behind; empty: of nothing; `~`: of anything."""
    timed: frozenset[str]
    """Those words that stand behind a number."""
    particles: frozenset[tuple[str, str]]
    """(verb, or empty where it says little; what belongs to it)"""
    dangles: frozenset[str]
    """Prepositions with nothing behind them: *Who is it for?*"""
    light: frozenset[str]
    """Verbs that say little."""
    counts: tuple[str, ...]
    """first, second, both, all, some, only ..., each as often as it is said"""
    degrees: dict[str, frozenset[str]]
    """Adjective -> plain, more, most, too"""
    heads: frozenset[tuple[str, str]]
    """(what qualifies, what is qualified)"""
    things: frozenset[tuple[str, str]]
    """The same without `of`, behind an article."""
    governs: frozenset[tuple[str, str]]
    """(a thing behind an article, the word before that article)"""
    whose: frozenset[tuple[str, str]]
    """(whose it is, what it is) of *the colleague's salary*"""
    tails: frozenset[str]
    """Words that ask at the end of a clause: *tell him why*."""
    acts: frozenset[tuple[str, str, str]]
    """(who, does, what)"""
    joined: dict[frozenset[str], frozenset[str]]
    """Two words of content that `and` or `or` stands between."""
    numbers: dict[str, frozenset[str]]
    """Word, as of one -> a, the, s, the s, or empty: by its article, and whether it ends as of several."""
    put: Arrangement
    """Where its words stand."""


_MARK = re.compile(r"\?(?=[\s\"')\]]|$)")
"""A mark of a question; in an address more follows it."""
_BEGINS = re.compile(r"(?:^|(?<!\d)[.?!:\n])[^\S\n]*+(?:(?:please|kindly|and|then)\s++)*([A-Za-z]+)", re.IGNORECASE)
"""The first word of each sentence, or of a line."""


def clause(
    text: str,
    words: Sequence[str],
    stems: Sequence[str],
    breaks: Sequence[bool],
    skipped: frozenset[int] = frozenset(),
    spent: frozenset[int] = frozenset(),
) -> Clause:
    """Read how a text is put. `stems`: of each word, empty where it has no content; `skipped`: places of what is said
    around it; `spent`: of particles that are told with their verbs."""
    own = Words(words, stems, breaks, skipped, spent)
    place, polar = question(own)
    focus, plain, counted = ("polar", False, "") if polar else aimed(own, place)
    moods, tense = mood(own, max(0, place), focus, asked=place >= 0)
    relations, timed = relations_of(own)
    told = text.rstrip().endswith(".")
    asked = bool(_MARK.search(text)) or (place == 0 and not told) or bool(own.skipped and place >= 0)
    asked = asked or any(word.lower() in g.ORDERS for word in _BEGINS.findall(text))
    persons = _persons(own)
    heads, things, governs = _heads(own)
    return Clause(
        asks=asked, tells=told and not asked and "first" not in persons and not _orders(own),
        focus=focus, plain=plain, counted=counted, moods=moods, tense=tense,
        persons=persons, others=_others(own), first=_first(own), turned=_turned(own), owned=_owned(own),
        relations=relations, timed=timed,
        particles=_particles(own), dangles=_dangles(own), light=_light(own), counts=_counts(own),
        degrees=_degrees(own), heads=heads, things=things, governs=governs, whose=_whose(own),
        tails=_tails(own, place), acts=_acts(own, relations, place), joined=_joined(own),
        numbers=_numbers(own), put=arranged(own, place),
    )  # fmt: skip


def _orders(own: Words) -> bool:
    """Whether a text begins with a verb and what it is done to: *turn the key*. No noun stands before an article; what
    else does is a preposition, a gerund, an adverb, or of several and told more of: *lamps that*."""
    first = next((i for i, word in enumerate(own.words) if i not in own.skipped and word not in g.LEADS), -1)
    word, after = own.at(first), own.at(first + 1)
    if first < 0 or not own.stems[first] or any(own.breaks[first + 1 : first + 2]) or _no_verb(word):
        return False
    return after in _DONE_TO or (after in g.DETERMINERS and not (after == "that" and word.endswith("s")))


def _no_verb(word: str) -> bool:
    """Whether a word before an article is no verb that orders something."""
    root = word.removesuffix("ing")
    gerund = root != word and not _VOWELS.isdisjoint(root)
    return gerund or word in g.RELATIONS or word in g.SUBORDINATE


_VOWELS = frozenset("aeiouy")
_DONE_TO = frozenset({"me", "us", "him", "her", "it", "them"})


def _persons(own: Words) -> frozenset[str]:
    return frozenset(name for name, words in _PERSONS if not words.isdisjoint(own.once))


_PERSONS = (("he", g.HE), ("she", g.SHE), ("they", g.THEY), ("first", g.FIRST), ("you", g.YOU))


def _others(own: Words) -> tuple[int, ...]:
    if _OTHERS.isdisjoint(own.once):
        return (0, 0, 0)
    said = [word for place, word in enumerate(own.words) if place not in own.skipped]
    return tuple(sum(word in words for word in said) for words in (g.HE, g.SHE, g.THEY))


_OTHERS = g.THIRD | g.THEY


def _first(own: Words) -> str:
    if _SPEAKS.isdisjoint(own.words):
        return ""
    said = {
        "i" if own.at(place - 1) == "by" else word for place, word in enumerate(own.words) if place not in own.skipped
    }
    subject, object_ = not said.isdisjoint(("i", "we")), not said.isdisjoint(("me", "us"))
    return "" if subject == object_ else "subject" if subject else "object"


_SPEAKS = frozenset({"i", "we", "me", "us", "by"})


def _turned(own: Words) -> str:
    """Who does something to whom, of the two who talk."""
    if "you" not in own.once:
        return ""
    order = [w for i, w in enumerate(own.words) if i not in own.skipped and w in ("i", "we", "me", "us", "you")]
    for one, other in pairwise(order):
        if one in ("i", "we") and other == "you":
            return "i"
        if one == "you" and other in ("me", "us"):
            return "you"
    return ""


def _owned(own: Words) -> frozenset[tuple[str, str]]:
    return frozenset(
        (g.POSSESSIVES[own.words[place - 1]], own.stems[place])
        for place in own.content
        if place and own.words[place - 1] in g.POSSESSIVES
    )


def _particles(own: Words) -> frozenset[tuple[str, str]]:
    found = set()
    for place, word in enumerate(() if g.PARTICLES.isdisjoint(own.words) else own.words):
        if word not in g.PARTICLES or place in own.skipped or place in own.spent:
            continue
        after = own.at(place + 1)
        if (word == "out" and after == "of") or (word == "up" and after == "to" and own.at(place + 2)[:1].isdigit()):
            continue
        dangling = place + 1 == len(own.words) or own.breaks[place + 1] or after in g.RELATIONS
        before = [i for i in range(place - 1, max(-1, place - 5), -1) if own.stems[i]]
        if not dangling and word not in ("up", "down", "off", "out"):
            continue
        if not before:
            found.add(("", word))
        else:
            verb = next((i for i in before if own.at(i - 1) not in g.DETERMINERS and not own.stems[i - 1]), before[0])
            found.add((own.stems[verb], word))
    return frozenset(found)


def _dangles(own: Words) -> frozenset[str]:
    last = len(own.words) - 1
    return frozenset(
        word
        for place, word in enumerate(own.words)
        if word in _PREPOSITIONS
        and (place == last or own.breaks[place + 1] or _asked_for(own, place))
        and place not in own.skipped
    )


def _asked_for(own: Words, place: int) -> bool:
    """Whether a preposition belongs to a word that asks: *to whom*, not *at what time*."""
    asks = own.words[place] in _OF_WHAT and own.at(place + 1) in _WHAT
    return asks and own.at(place + 2) not in g.ASPECTS and own.at(place + 2) not in g.ASKED_BY


_OF_WHAT, _WHAT = frozenset({"of", "to", "from", "with", "for", "about"}), frozenset({"what", "whom", "who", "which"})
_PREPOSITIONS = g.RELATIONS.keys() - g.PARTICLES


def _light(own: Words) -> frozenset[str]:
    """Verbs that say little, where they are not what is said around another: *I want to*, *how does it work*."""
    found = set()
    for place, word in enumerate(own.words):
        kind = g.LIGHT.get(word)
        if kind is None:
            continue
        after = own.at(place + 1)
        if place in own.skipped or after == "to":
            continue
        if kind in ("work", "help", "know", "tell", "explain", "let", "like") and (
            place + 1 >= len(own.words) or own.at(place - 1) in ("it", "that", "this", "would", "to")
        ):
            continue
        if kind == "help" and (place + 1 < len(own.words) and own.breaks[place + 1]):
            continue
        if kind == "apply" and after != "for":
            continue
        if kind == "have" and (own.breaks[place] or own.at(place + 2) == "been"):
            continue
        if kind == "have" and not (place and (after in g.DETERMINERS or after[:1].isdigit())):
            continue
        found.add("get" if kind == "give" and own.at(place - 1) in ("you", "they") else kind)
    return frozenset(found)


def _counts(own: Words) -> tuple[str, ...]:
    if _COUNTING.isdisjoint(own.once):
        return ()
    said = [
        _AWAY if word == "there" and g.NO_PLACE.isdisjoint((own.at(place - 1), own.at(place + 1))) else word
        for place, word in enumerate(own.words)
        if place not in own.skipped
    ]
    return tuple(sorted(QUANTIFIERS.get(each, each) for each in said if each in _COUNTED or each in _SHARED))


_AWAY = "over there"
_COUNTED = g.COUNTED | {_AWAY}
_SHARED = frozenset(word for word, share in QUANTIFIERS.items() if share in ("all", "some", "few", "only"))
_COUNTING = _COUNTED | _SHARED | {"there"}


def _degrees(own: Words) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for place, word in enumerate(own.words):
        base, degree = _compared(word)
        if base and (before := own.at(place - 1)) != "how":
            found.setdefault(base, set()).add(degree or (before if before in _SAID_BEFORE else "plain"))
    return {base: frozenset(degrees) for base, degrees in found.items()}


_SAID_BEFORE = frozenset({"more", "most", "less", "least", "too"})


@lru_cache(maxsize=8192)
def _compared(word: str) -> tuple[str, str]:
    """(adjective, more | most) of `cheaper` and `cheapest`; of an adjective alone what stands before it tells that."""
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


def _heads(own: Words) -> tuple[frozenset[_Pair], frozenset[_Pair], frozenset[_Pair]]:
    """(what qualifies what; the same in one thing behind an article; what is done to what) as far as nothing but
    articles stands between."""
    heads, things, governs = set[_Pair](), set[_Pair](), set[_Pair]()
    for place in own.content:
        # a number qualifies what it stands before: *the second heir*
        before, behind = own.at(place - 1), own.at(place + 1)
        if before in g.ORDINALS and not own.breaks[place]:
            heads.add((before, own.stems[place]))
        if behind in g.ORDINALS and not own.breaks[place + 1]:
            heads.add((own.stems[place], behind))
        # in `damage covered` a verb says what is done to a thing, in `to transfer files` as well
        done = own.at(place + 1).endswith("ed") and _is_done(own, place)
        verb = done or own.at(place - 1) in _DOERS
        if not verb and own.follows[place + 1]:
            pair = (own.stems[place], own.stems[place + 1])
            heads.add(pair)
            begin, least = place, max(0, place - FAR)
            while begin > least and own.follows[begin - 1] and not own.breaks[begin]:
                begin -= 1
            ends = not own.follows[place + 2] or own.at(place + 2) in g.RELATIONS
            if own.at(begin - 1) in g.DETERMINERS and ends:
                things.add(pair)
        after = place + 2 if own.at(place + 1) == "of" else place + 1
        while after < place + FAR and own.at(after) in g.DETERMINERS and not own.breaks[after]:
            after += 1
        if after > place + 1:
            held = heads if own.at(place + 1) == "of" else governs
            while after < place + FAR and own.follows[after]:
                held.add((own.stems[after], own.stems[place]))
                after += 1
    return frozenset(heads), frozenset(things), frozenset(governs)


def _is_done(own: Words, place: int) -> bool:
    """Whether a form of `be` stands right before the thing that ends there: *is the damage covered*."""
    least = max(0, place - FAR)
    while place > least and own.stems[place - 1] and not own.breaks[place]:
        place -= 1
    while place > least and own.at(place - 1) in g.DETERMINERS:
        place -= 1
    return own.at(place - 1) in _BEINGS


_BEINGS = frozenset({"is", "are", "was", "were", "be", "been", "being", "get", "has", "have"})
_DOERS = frozenset({"to", "i", "we", "you", "they", "he", "she", "it", "one"})


def _whose(own: Words) -> frozenset[tuple[str, str]]:
    return frozenset(
        (own.stems[place], own.stems[place + 1])
        for place in own.content
        if own.words[place].endswith("'s") and place + 1 < len(own.words) and own.stems[place + 1]
    )


def _tails(own: Words, asks: int) -> frozenset[str]:
    last = len(own.words) - 1
    return frozenset(
        word
        for place, word in enumerate(own.words)
        if word in g.WH and place != asks and (place == last or own.breaks[place + 1])
    )


_BARE = frozenset({"", "~"})


def _acts(own: Words, relations: dict[str, frozenset[str]], asks: int) -> frozenset[tuple[str, str, str]]:
    """Who does what to whom, as far as order and `by` tell. Who is asked for is `?`."""
    if len(own.content) > MOST:
        return frozenset()
    who = own.at(asks) in ("who", "whom")
    little = {place: g.ACTS[word] for place, word in enumerate(own.words) if word in g.ACTS and not own.stems[place]}
    order = sorted({*own.content, *little.keys() - own.skipped, *((asks,) if who else ())})
    asked_by = who and own.at(asks - 1) == "by"

    stems = ["?" if who and place == asks else own.stems[place] or little[place] for place in order]
    bare, by = list[bool](), list[bool]()
    """Whether each may do something, or have it done to it; whether it does it behind `by`."""
    for place, its in zip(order, stems, strict=True):
        held = _NOTHING if place in little else relations[own.stems[place]] if its != "?" else _ASKED[asked_by]
        bare.append(not held.isdisjoint(_BARE))
        by.append("by" in held)
    found = set[tuple[str, str, str]]()
    for number, (place, verb) in enumerate(zip(order, stems, strict=True)):
        if verb == "?" or not relations.get(verb, _BARE) <= _BARE:
            continue
        part = own.parts[place]
        before = [n for n in range(max(0, number - NEAR), number) if own.parts[order[n]] == part]
        after = [n for n in range(number + 1, min(len(order), number + 1 + NEAR)) if own.parts[order[n]] == part]
        ahead = [stems[n] for n in before if bare[n]]
        agents = [stems[n] for n in (*before, *after) if by[n]]
        objects = ahead if agents else [stems[n] for n in after if bare[n]]
        found.update((x, verb, y) for x in agents or ahead for y in objects if x != y)
        if before and order[before[-1]] == place - 2 and own.at(place - 1) in ("a", "an", "the"):
            found.add((stems[before[-1]], "is", verb))
    return frozenset(found)


_NOTHING = frozenset[str]()
_ASKED = (frozenset({""}), frozenset({"by"}))


_JOINS = frozenset({"and", "or"})


def _joined(own: Words) -> dict[frozenset[str], frozenset[str]]:
    found: dict[frozenset[str], set[str]] = {}
    for one, other in pairwise(own.content):
        between = {own.words[i] for i in range(one + 1, other)} - g.DETERMINERS
        if between and between <= _JOINS:
            found.setdefault(frozenset((own.stems[one], own.stems[other])), set()).update(between)
    return {pair: frozenset(words) for pair, words in found.items()}


def _numbers(own: Words) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for place in own.content:
        begin = own.begins[place] - 1
        while (before := own.at(begin)) in g.ORDINALS or before[:1].isdigit():
            begin -= 1
        thing, several = _one_of(own.words[place])
        article = "a" if before in _ONE and not several else "the" if before in g.DETERMINERS else ""
        found.setdefault(thing, set()).add(f"{article} s".strip() if several else article)
    return {thing: frozenset(kinds) for thing, kinds in found.items()}


@lru_cache(maxsize=8192)
def _one_of(word: str) -> tuple[str, bool]:
    """`boxes` and `box`, `houses` and `house` as one, and whether it is said of several."""
    several = word.endswith("s") and word[-2:] not in ("ss", "us", "is", "'s")
    if several and word.endswith("ies"):
        return word[:-3] + "y", True
    return (word[:-1] if several else word).removesuffix("e"), several


_ONE = frozenset({"a", "an", "one", "another", "each", "every"})
