"""Differences of grammar by which two requests ask for different things although all content words agree: focus, mood,
tense, person, roles, relations, order, degree. Pure.

Applied to questions and to short requests: in long statements the same content is worded differently each time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from groundplan.economics.semantic import grammar as g
from groundplan.economics.semantic.clause import Clause
from groundplan.economics.semantic.question import HOW_ASPECTS, question_phrase_places
from groundplan.economics.semantic.reading import Reading
from groundplan.economics.semantic.spelling import is_past_form

_NAMING = frozenset({"what", "which"})


def grammar_difference(a: Reading, b: Reading) -> str:
    """The kind of the first difference by which two requests ask for different things; empty: none."""
    return next((kind for kind, differs in _GUARDS if differs(a, b)), "")


def _focus_differs(a: Reading, b: Reading) -> bool:
    one, other = a.clause, b.clause
    if one.final_question_words != other.final_question_words:
        return True
    if not one.focus or not other.focus:
        return one.focus != other.focus and not _names_focus(a if not one.focus else b, one.focus or other.focus)
    if one.focus == other.focus:
        both = bool(one.counted_noun and other.counted_noun) and one.focus in ("what", "which", "count")
        return (
            both
            and one.counted_noun != other.counted_noun
            and (one.counted_noun in b.stems or other.counted_noun in a.stems)
        )
    if "polar" in (one.focus, other.focus):
        return True
    return (
        _asks_for_other_thing(a, b)
        if one.focus in _NAMING
        else _asks_for_other_thing(b, a)
        if other.focus in _NAMING
        else _are_different_aspects(one, other)
    )


def _names_focus(nominal: Reading, focus: str) -> bool:
    """Whether a text without a question word names the focus of the other: *delivery time*. A few words alone ask
    *what* or *how*."""
    if focus in _NAMING or (focus == "how" and not nominal.clause.is_question):
        return True
    named = {g.ASPECTS[word] for word in nominal.words if word in g.ASPECTS}
    return focus in named or (focus == "duration" and "when" in named)


def _are_different_aspects(one: Clause, other: Clause) -> bool:
    return {one.focus, other.focus} not in ({"thing", "amount"}, {"measure", "amount"}, {"thing", "count"})


def _asks_for_other_thing(a: Reading, b: Reading) -> bool:
    """Whether `what` or `which` in `a` and another question word in `b` ask for different things. They ask for the same
    where a word that only `a` has names the focus of `b`."""
    if b.clause.focus in ("thing", *_NAMING):
        return False
    if b.clause.focus == "count" and a.clause.counted_noun and a.clause.counted_noun == b.clause.counted_noun:
        return True
    more = set(a.stems) - set(b.stems)
    said = [word for word, its in zip(a.content_words, a.stems, strict=True) if its in more]
    return not any(b.clause.focus in (g.ASPECTS.get(word), *g.IMPLIED.get(word, "").split()) for word in said)


def _mood_differs(a: Reading, b: Reading) -> bool:
    """Whether moods differ in a way that may change the answer."""
    one, other = a.clause, b.clause
    differ = one.moods ^ other.moods
    if not differ:
        return False
    if one.focus == other.focus == "how":
        return "will" in differ
    if (one.moods and other.moods) or "will" in differ:
        return True
    less, more = (a, b) if other.moods else (b, a)
    if not less.clause.tense or less.clause.is_copular:
        return False
    if differ == {"must"}:
        return less.clause.focus not in _OBLIGATION_FOCI
    if less.clause.focus == "where":
        return False
    return differ != {"may"} or not _is_offer_and_request(less.clause, more.clause)


_OBLIGATION_FOCI = frozenset({"who", "what", "which", "thing", "count", "amount", "duration", "measure", "purpose"})
"""Foci with which *has to be* means no more than *is*."""


def _is_offer_and_request(one: Clause, other: Clause) -> bool:
    """Whether one offers what the other requests: *do you give it*, *can I get it*."""
    return (
        one.speaker_role != other.speaker_role and bool(one.light_verbs & _OFFERS) and bool(other.light_verbs & _OFFERS)
    )


_OFFERS = frozenset({"get", "have", "give"})


def _tense_differs(a: Reading, b: Reading) -> bool:
    one, other = a.clause, b.clause
    for less, more in ((a, other), (b, one)):
        # without a verb that has a tense, the tense is the present
        if more.tense in ("past", "will") and not less.clause.tense and not any(map(is_past_form, less.words)):
            return g.PAST.isdisjoint(less.words)
    return bool(one.tense and other.tense) and one.tense != other.tense


def _person_differs(a: Reading, b: Reading) -> bool:
    one, other = a.clause, b.clause
    if one.third_person_counts != other.third_person_counts:
        return True
    if _speaker_and_listener(one, other):
        return True
    if {one.dialogue_direction, other.dialogue_direction} == {"i", "you"}:
        return True
    if {one.speaker_role, other.speaker_role} == {
        "subject",
        "object",
    } and "get" not in one.light_verbs & other.light_verbs:
        return True
    ours, theirs = _owners_by_thing(one), _owners_by_thing(other)
    return any(thing in theirs and theirs[thing].isdisjoint(owners) for thing, owners in ours.items()) or any(
        owner in ("he", "she", "they") and (owner, thing) not in there.possessions
        for here, there, others in ((one, other, b), (other, one, a))
        for owner, thing in here.possessions
        if thing in others.stems
    )


def _owners_by_thing(clause: Clause) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for owner, thing in clause.possessions:
        found.setdefault(thing, set()).add(owner)
    return found


def _speaker_and_listener(one: Clause, other: Clause) -> bool:
    """Whether one is about the speaker, and the other about the reader."""
    talk = {"first", "you"}
    both = {frozenset(one.persons & talk), frozenset(other.persons & talk)}
    if "how" in (one.focus, other.focus) or "get" in one.light_verbs & other.light_verbs:
        return False
    return both == {frozenset({"first"}), frozenset({"you"})}


def _roles_swapped(a: Reading, b: Reading) -> bool:
    one, other = a.clause.acts, b.clause.acts
    if one == other:
        return False
    return any((y, verb, x) in other and (x, verb, y) not in other and (y, verb, x) not in one for x, verb, y in one)


def _modifier_order_differs(a: Reading, b: Reading) -> bool:
    one, other = a.clause.modifications, b.clause.modifications
    if any(set(pair) <= set(b.stems) and pair not in other for pair in a.clause.genitives) or any(
        set(pair) <= set(a.stems) and pair not in one for pair in b.clause.genitives
    ):
        return True
    if any((y, x) in other and (x, y) not in other and (y, x) not in one for x, y in one):
        return True
    return _object_becomes_modifier(a.clause, b.clause) or _object_becomes_modifier(b.clause, a.clause)


def _object_becomes_modifier(one: Clause, other: Clause) -> bool:
    """Whether an object of a verb is a modifier in the other text: `cover the room`, `the room cover`."""
    return bool((one.objects & other.noun_modifications) - one.modifications - other.objects)


def _relation_differs(a: Reading, b: Reading) -> bool:
    """Whether the same word stands behind a preposition with another meaning."""
    one, other = a.clause, b.clause
    if one.stranded_prepositions != other.stranded_prepositions:
        return True
    if one.relations == other.relations:
        return False
    timed = one.measured_words & other.measured_words
    if _has_unmatched_relation(one, other, timed) or _has_unmatched_relation(other, one, timed):
        return True
    for word, classes in one.relations.items():
        ours, theirs = classes - other.relations.get(word, classes), other.relations.get(word, classes) - classes
        if ours and theirs and not any(_relations_agree(x, y, timely=word in timed) for x in ours for y in theirs):
            return True
    return False


def _has_unmatched_relation(one: Clause, other: Clause, timed: frozenset[str]) -> bool:
    """Whether a word stands behind a preposition that cannot be omitted, and behind no agreeing one in the other."""
    return any(
        its not in _OMITTABLE
        and not any(_relations_agree(its, there, timely=word in timed) for there in other.relations[word])
        for word, classes in one.relations.items()
        if word in other.relations
        for its in classes - {"~"}
    )


def _relations_agree(one: str, other: str, *, timely: bool) -> bool:
    if one == other:
        return True
    if "~" in (one, other):
        return (other if one == "~" else one) in _OMITTABLE
    if not one or not other:
        return (one or other) in g.LOOSE
    return frozenset((one, other)) in (g.AGREEING_IN_TIME if timely else g.AGREEING)


_OMITTABLE = g.LOOSE | {"", "for", "in", "on", "at"}
"""Relations that are not expressed where the word stands as a modifier before its head."""


def _particle_differs(a: Reading, b: Reading) -> bool:
    """Whether verbs have other particles: `sign in`, `sign up`."""
    ours, theirs = ({word for _, word in each.clause.particles if word in TRUE_PARTICLES} for each in (a, b))
    return ours != theirs or _other_particle(a, b) or _other_particle(b, a)


def _other_particle(a: Reading, b: Reading) -> bool:
    """Whether a verb of both has one particle in `a`, and another one or none in `b`."""
    there = dict(b.clause.particles)
    return any(
        there.get(verb, word if verb else "") != word
        for verb, word in a.clause.particles
        if verb in b.stems or not verb
    )


TRUE_PARTICLES = frozenset({"up", "down", "off", "out"})
"""Particles that are seldom prepositions."""


def _light_verb_differs(a: Reading, b: Reading) -> bool:
    """Whether light verbs differ that are the only verbs: `get the key`, `give the key`."""
    one, other = a.clause.light_verbs, b.clause.light_verbs
    if not one or not other or not one.isdisjoint(other):
        return not all(_is_implied_verb(verb, b) for verb in one - other) or not all(
            _is_implied_verb(verb, a) for verb in other - one
        )
    if a.clause.focus == b.clause.focus == "where" and one | other <= {"get", "find"}:
        return False
    return not (one | other <= {"get", "have"} and (_asks_permission(a) and _asks_permission(b)))


def _is_implied_verb(verb: str, other: Reading) -> bool:
    """Whether the other text implies a light verb by its focus, mood or words."""
    focus = other.clause.focus
    if focus == "how":
        return verb in ("have", "get", "want", "work", "use")
    if verb == "need":
        return "must" in other.clause.moods or not _NEED_WORDS.isdisjoint(other.words)
    if verb in ("have", "get"):
        return focus not in ("polar", "who") or not _AVAILABILITY_WORDS.isdisjoint(other.words)
    return focus in _EMPTY_WITH_FOCUS.get(verb, ())


_EMPTY_WITH_FOCUS = {
    "find": ("where",),
    "take": ("duration", "amount", "what", ""),
    "apply": (*_NAMING, ""),
    "follow": (*_NAMING, ""),
}
"""Light verb -> foci with which it adds nothing."""
_NEED_WORDS = frozenset({"needed", "necessary", "require", "requires", "required"})
_AVAILABILITY_WORDS = frozenset({"available", "availability", "entitled", "entitlement", "receive", "obtain"})


def _asks_permission(reading: Reading) -> bool:
    return "may" in reading.clause.moods or reading.clause.focus == "how"


def _quantity_differs(a: Reading, b: Reading) -> bool:
    return a.quantities != b.quantities or a.clause.quantity_words != b.clause.quantity_words


def _degree_differs(a: Reading, b: Reading) -> bool:
    one, other = a.clause.degrees, b.clause.degrees
    return any(base in other and other[base] != degrees for base, degrees in one.items())


def _coordination_differs(a: Reading, b: Reading) -> bool:
    one, other = a.clause.coordinations, b.clause.coordinations
    return any(pair in other and other[pair] != words for pair, words in one.items())


def _noun_forms_differ(a: Reading, b: Reading) -> bool:
    """Whether a noun is singular, plural, definite or indefinite in a way that may change the answer."""
    one, other = a.clause, b.clause
    if one.noun_forms == other.noun_forms:
        return False
    sharp = "polar" in (one.focus, other.focus)
    alike = _AGREEING_FORMS if sharp else _AGREEING_FORMS | _AGREEING_GENERIC_FORMS
    return any(
        not any(
            ours == theirs or frozenset((ours, theirs)) in alike for ours in kinds for theirs in other.noun_forms[thing]
        )
        for thing, kinds in one.noun_forms.items()
        if thing in other.noun_forms
    )


_AGREEING_FORMS = {frozenset(pair) for pair in (("", "the"), ("s", "the s"), ("", "s"), ("", "a"))}
"""Pairs of forms (`Clause.noun_forms`) that may mean the same; a word without an article may be a verb."""
_AGREEING_GENERIC_FORMS = {frozenset(pair) for pair in (("a", "s"), ("a", "the"))}


def _doer_differs(a: Reading, b: Reading) -> bool:
    """Whether the agent, the patient or the action stands for another of these: trainer, trainee, training."""
    if a.content_words == b.content_words:
        return False
    ours, theirs = _forms_by_stem(a), _forms_by_stem(b)
    who = "who" in (a.clause.focus, b.clause.focus)
    return any(
        words.isdisjoint(theirs[stem])
        and all(_is_other_role(word, other, who=who) for word in words for other in theirs[stem])
        for stem, words in ours.items()
        if stem in theirs
    )


def _forms_by_stem(reading: Reading) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for stem, word in zip(reading.stems, reading.content_words, strict=True):
        found.setdefault(stem, set()).add(word)
    return found


def _is_other_role(word: str, other: str, *, who: bool) -> bool:
    kinds = {_role(word), _role(other)}
    if len(kinds) == 1 or _are_verb_forms(word, other):
        return False
    return "patient" in kinds or not who


def _are_verb_forms(word: str, other: str) -> bool:
    """Whether both words are forms of a verb that ends like an agent: `order`, `ordered`."""
    short, long = sorted((word.removesuffix("s"), other.removesuffix("s")), key=len)
    return short.endswith(("er", "or")) and long.startswith(short)


@lru_cache(maxsize=8192)
def _role(word: str) -> str:
    plain = word.removesuffix("'s").removesuffix("s")
    if plain.endswith("ee") and len(plain) > 4:
        return "patient"
    return "agent" if plain.endswith(("er", "or")) and len(plain) > 3 else ""


ASKED_KIND = "focus"


def asks_differently(a: Reading, b: Reading) -> bool:
    """Whether one of two statements has an indirect question (*what time*, *how many*) for something that the other
    does not mention."""
    return not (_question_aspects(a) <= _mentioned_aspects(b) and _question_aspects(b) <= _mentioned_aspects(a))


def _question_aspects(reading: Reading) -> set[str]:
    words = reading.words
    return (
        set()
        if _PHRASE_QUESTION_WORDS.isdisjoint(words)
        else {_aspect(words[at]) for at in question_phrase_places(words) if words[at - 1] in _PHRASE_QUESTION_WORDS}
    )


def _mentioned_aspects(reading: Reading) -> set[str]:
    return {*map(_aspect, reading.words), *reading.words, *reading.question_words}


def _aspect(word: str) -> str:
    """The aspect that a word gives a question word: `when` of *what time*, `count` of *how many*."""
    return HOW_ASPECTS.get(word) or g.ASPECTS.get(word, word)


_PHRASE_QUESTION_WORDS = frozenset({"what", "which", "how"})


_GUARDS: tuple[tuple[str, Callable[[Reading, Reading], bool]], ...] = (
    ("focus", _focus_differs),
    ("mood", _mood_differs),
    ("tense", _tense_differs),
    ("person", _person_differs),
    ("roles", _roles_swapped),
    ("order", _modifier_order_differs),
    ("relation", _relation_differs),
    ("particle", _particle_differs),
    ("verb", _light_verb_differs),
    ("coordination", _coordination_differs),
    ("quantity", _quantity_differs),
    ("degree", _degree_differs),
    ("plural", _noun_forms_differ),
    ("doer", _doer_differs),
)
