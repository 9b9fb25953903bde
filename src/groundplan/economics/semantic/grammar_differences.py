"""Differences of grammar after which two requests ask for other things, though all words of content agree:
focus, mood, tense, person, roles, relations, order, degree. Pure.

For questions, and for requests of few words: who tells a long story puts it otherwise each time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from groundplan.economics.semantic import grammar as g
from groundplan.economics.semantic.clause import Clause
from groundplan.economics.semantic.question import MANY, asked_by
from groundplan.economics.semantic.reading import Reading
from groundplan.economics.semantic.spelling import past_form

_NAMING = frozenset({"what", "which"})


def put_otherwise(a: Reading, b: Reading) -> str:
    """The kind of difference that makes two requests of them; empty: none was found."""
    return next((kind for kind, differs in _GUARDS if differs(a, b)), "")


def _focus(a: Reading, b: Reading) -> bool:
    one, other = a.clause, b.clause
    if one.tails != other.tails:
        return True
    if not one.focus or not other.focus:
        return one.focus != other.focus and not _named(a if not one.focus else b, one.focus or other.focus)
    if one.focus == other.focus:
        both = bool(one.counted and other.counted) and one.focus in ("what", "which", "count")
        return both and one.counted != other.counted and (one.counted in b.stems or other.counted in a.stems)
    if "polar" in (one.focus, other.focus):
        return True
    return _names(a, b) if one.focus in _NAMING else _names(b, a) if other.focus in _NAMING else _things(one, other)


def _named(nominal: Reading, focus: str) -> bool:
    """Whether words that ask nothing name what is asked for: *delivery time*; a few words alone ask what, or how."""
    if focus in _NAMING or (focus == "how" and not nominal.clause.asks):
        return True
    named = {g.ASPECTS[word] for word in nominal.words if word in g.ASPECTS}
    return focus in named or (focus == "duration" and "when" in named)


def _things(one: Clause, other: Clause) -> bool:
    return {one.focus, other.focus} not in ({"thing", "amount"}, {"measure", "amount"}, {"thing", "count"})


def _names(a: Reading, b: Reading) -> bool:
    """Whether `what` or `which` in one and another word that asks in the other ask for different things: what is asked
    for must be named by a word that the other has not."""
    if b.clause.focus in ("thing", *_NAMING):
        return False
    if b.clause.focus == "count" and a.clause.counted and a.clause.counted == b.clause.counted:
        return True
    more = set(a.stems) - set(b.stems)
    said = [word for word, its in zip(a.spoken, a.stems, strict=True) if its in more]
    return not any(b.clause.focus in (g.ASPECTS.get(word), *g.IMPLIED.get(word, "").split()) for word in said)


def _mood(a: Reading, b: Reading) -> bool:
    """Other moods, unless that is known to say nothing: of how something is done, or where one of them says none."""
    one, other = a.clause, b.clause
    differ = one.moods ^ other.moods
    if not differ:
        return False
    if one.focus == other.focus == "how":
        return "will" in differ
    if (one.moods and other.moods) or "will" in differ:
        return True
    less, more = (a, b) if other.moods else (b, a)
    if not less.clause.tense or less.clause.plain:
        return False
    if differ == {"must"}:
        return less.clause.focus not in _OBLIGED
    if less.clause.focus == "where":
        return False
    return differ != {"may"} or not _offered(less.clause, more.clause)


_OBLIGED = frozenset({"who", "what", "which", "thing", "count", "amount", "duration", "measure", "purpose"})
"""What is asked for where *has to be* says no more than *is*."""


def _offered(one: Clause, other: Clause) -> bool:
    """*Do you give it*, and *can I get it*."""
    return one.first != other.first and bool(one.light & _OFFERS) and bool(other.light & _OFFERS)


_OFFERS = frozenset({"get", "have", "give"})


def _tense(a: Reading, b: Reading) -> bool:
    one, other = a.clause, b.clause
    for less, more in ((a, other), (b, one)):
        # where no verb says when, it is now
        if more.tense in ("past", "will") and not less.clause.tense and not any(map(past_form, less.words)):
            return g.PAST.isdisjoint(less.words)
    return bool(one.tense and other.tense) and one.tense != other.tense


def _person(a: Reading, b: Reading) -> bool:
    one, other = a.clause, b.clause
    if one.others != other.others:
        return True
    if _listening(one, other):
        return True
    if {one.turned, other.turned} == {"i", "you"}:
        return True
    if {one.first, other.first} == {"subject", "object"} and "get" not in one.light & other.light:
        return True
    ours, theirs = _owners(one), _owners(other)
    return any(thing in theirs and theirs[thing].isdisjoint(owners) for thing, owners in ours.items()) or any(
        owner in ("he", "she", "they") and (owner, thing) not in there.owned
        for here, there, others in ((one, other, b), (other, one, a))
        for owner, thing in here.owned
        if thing in others.stems
    )


def _owners(clause: Clause) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for owner, thing in clause.owned:
        found.setdefault(thing, set()).add(owner)
    return found


def _listening(one: Clause, other: Clause) -> bool:
    """Whether one is about who speaks, and the other about who listens."""
    talk = {"first", "you"}
    both = {frozenset(one.persons & talk), frozenset(other.persons & talk)}
    if "how" in (one.focus, other.focus) or "get" in one.light & other.light:
        return False
    return both == {frozenset({"first"}), frozenset({"you"})}


def _roles(a: Reading, b: Reading) -> bool:
    one, other = a.clause.acts, b.clause.acts
    if one == other:
        return False
    return any((y, verb, x) in other and (x, verb, y) not in other and (y, verb, x) not in one for x, verb, y in one)


def _order(a: Reading, b: Reading) -> bool:
    one, other = a.clause.heads, b.clause.heads
    if any(set(pair) <= set(b.stems) and pair not in other for pair in a.clause.whose) or any(
        set(pair) <= set(a.stems) and pair not in one for pair in b.clause.whose
    ):
        return True
    if any((y, x) in other and (x, y) not in other and (y, x) not in one for x, y in one):
        return True
    return _headed(a.clause, b.clause) or _headed(b.clause, a.clause)


def _headed(one: Clause, other: Clause) -> bool:
    """`cover the room` in one, and `the room cover` in the other."""
    return bool((one.governs & other.things) - one.heads - other.governs)


def _relation(a: Reading, b: Reading) -> bool:
    """The same word behind a preposition that says something else of it."""
    one, other = a.clause, b.clause
    if one.dangles != other.dangles:
        return True
    if one.relations == other.relations:
        return False
    timed = one.timed & other.timed
    if _unmet(one, other, timed) or _unmet(other, one, timed):
        return True
    for word, classes in one.relations.items():
        ours, theirs = classes - other.relations.get(word, classes), other.relations.get(word, classes) - classes
        if ours and theirs and not any(_agree(x, y, timely=word in timed) for x in ours for y in theirs):
            return True
    return False


def _unmet(one: Clause, other: Clause, timed: frozenset[str]) -> bool:
    """Whether a word stands behind a preposition that never says nothing, and behind no such one in the other."""
    return any(
        its not in _FREE and not any(_agree(its, there, timely=word in timed) for there in other.relations[word])
        for word, classes in one.relations.items()
        if word in other.relations
        for its in classes - {"~"}
    )


def _agree(one: str, other: str, *, timely: bool) -> bool:
    if one == other:
        return True
    if "~" in (one, other):
        return (other if one == "~" else one) in _FREE
    if not one or not other:
        return (one or other) in g.LOOSE
    return frozenset((one, other)) in (g.AGREEING_IN_TIME if timely else g.AGREEING)


_FREE = g.LOOSE | {"", "for", "in", "on", "at"}
"""Relations in which a word stands that qualifies the next one in another wording."""


def _particle(a: Reading, b: Reading) -> bool:
    """`sign in` and `sign up`."""
    ours, theirs = ({word for _, word in each.clause.particles if word in HARD} for each in (a, b))
    return ours != theirs or _without(a, b) or _without(b, a)


def _without(a: Reading, b: Reading) -> bool:
    """Whether a verb of both has a particle in one, and another one in the other."""
    there = dict(b.clause.particles)
    return any(
        there.get(verb, word if verb else "") != word
        for verb, word in a.clause.particles
        if verb in b.stems or not verb
    )


HARD = frozenset({"up", "down", "off", "out"})
"""Particles that seldom are prepositions."""


def _verb(a: Reading, b: Reading) -> bool:
    """Other verbs that say little, with nothing else to say what is done: `get the key`, `give the key`."""
    one, other = a.clause.light, b.clause.light
    if not one or not other or not one.isdisjoint(other):
        return not all(_implied(verb, b) for verb in one - other) or not all(_implied(verb, a) for verb in other - one)
    if a.clause.focus == b.clause.focus == "where" and one | other <= {"get", "find"}:
        return False
    return not (one | other <= {"get", "have"} and (_may(a) and _may(b)))


def _implied(verb: str, other: Reading) -> bool:
    """Whether a verb that says little is said by how the other text is put."""
    focus = other.clause.focus
    if focus == "how":
        return verb in ("have", "get", "want", "work", "use")
    if verb == "need":
        return "must" in other.clause.moods or not _NEEDED.isdisjoint(other.words)
    if verb in ("have", "get"):
        return focus not in ("polar", "who") or not _HAD.isdisjoint(other.words)
    return focus in _SAID.get(verb, ())


_SAID = {
    "find": ("where",),
    "take": ("duration", "amount", "what", ""),
    "apply": (*_NAMING, ""),
    "follow": (*_NAMING, ""),
}
"""Verbs that say little -> what is asked for where they say nothing."""
_NEEDED = frozenset({"needed", "necessary", "require", "requires", "required"})
_HAD = frozenset({"available", "availability", "entitled", "entitlement", "receive", "obtain"})


def _may(reading: Reading) -> bool:
    return "may" in reading.clause.moods or reading.clause.focus == "how"


def _quantity(a: Reading, b: Reading) -> bool:
    return a.quantities != b.quantities or a.clause.counts != b.clause.counts


def _degree(a: Reading, b: Reading) -> bool:
    one, other = a.clause.degrees, b.clause.degrees
    return any(base in other and other[base] != degrees for base, degrees in one.items())


def _joined(a: Reading, b: Reading) -> bool:
    one, other = a.clause.joined, b.clause.joined
    return any(pair in other and other[pair] != words for pair, words in one.items())


def _number(a: Reading, b: Reading) -> bool:
    """What is so of one may not be so of several, nor what is so of this one of any."""
    one, other = a.clause, b.clause
    if one.numbers == other.numbers:
        return False
    sharp = "polar" in (one.focus, other.focus)
    alike = _ALIKE if sharp else _ALIKE | _GENERIC
    return any(
        not any(
            ours == theirs or frozenset((ours, theirs)) in alike for ours in kinds for theirs in other.numbers[thing]
        )
        for thing, kinds in one.numbers.items()
        if thing in other.numbers
    )


_ALIKE = {frozenset(pair) for pair in (("", "the"), ("s", "the s"), ("", "s"), ("", "a"))}
"""Articles and endings that may say the same; without an article a verb ends so as well."""
_GENERIC = {frozenset(pair) for pair in (("a", "s"), ("a", "the"))}


def _doer(a: Reading, b: Reading) -> bool:
    """Who does it, or to whom it is done, in place of what is done: `the trainer`, `the trainee`, `the training`."""
    if a.spoken == b.spoken:
        return False
    ours, theirs = _forms(a), _forms(b)
    who = "who" in (a.clause.focus, b.clause.focus)
    return any(
        words.isdisjoint(theirs[stem])
        and all(_other_part(word, other, who=who) for word in words for other in theirs[stem])
        for stem, words in ours.items()
        if stem in theirs
    )


def _forms(reading: Reading) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for stem, word in zip(reading.stems, reading.spoken, strict=True):
        found.setdefault(stem, set()).add(word)
    return found


def _other_part(word: str, other: str, *, who: bool) -> bool:
    kinds = {_part(word), _part(other)}
    if len(kinds) == 1 or _one_verb(word, other):
        return False
    return "patient" in kinds or not who


def _one_verb(word: str, other: str) -> bool:
    """`order` and `ordered`: forms of a verb that ends like somebody who does something."""
    short, long = sorted((word.removesuffix("s"), other.removesuffix("s")), key=len)
    return short.endswith(("er", "or")) and long.startswith(short)


@lru_cache(maxsize=8192)
def _part(word: str) -> str:
    plain = word.removesuffix("'s").removesuffix("s")
    if plain.endswith("ee") and len(plain) > 4:
        return "patient"
    return "agent" if plain.endswith(("er", "or")) and len(plain) > 3 else ""


ASKED_KIND = "focus"


def asked_otherwise(a: Reading, b: Reading) -> bool:
    """Whether one of two statements says what somebody asks by a word that stands for no content there (*what time*,
    *how many*), and the other says that nowhere."""
    return not (_asked_for(a) <= _said(b) and _asked_for(b) <= _said(a))


def _asked_for(reading: Reading) -> set[str]:
    words = reading.words
    return set() if _ASK.isdisjoint(words) else {_class(words[at]) for at in asked_by(words) if words[at - 1] in _ASK}


def _said(reading: Reading) -> set[str]:
    return {*map(_class, reading.words), *reading.words, *reading.asks}


def _class(word: str) -> str:
    """What a word that is joined to one that asks makes of it: *what time* is `when`, *how many* is `count`."""
    return MANY.get(word) or g.ASPECTS.get(word, word)


_ASK = frozenset({"what", "which", "how"})


_GUARDS: tuple[tuple[str, Callable[[Reading, Reading], bool]], ...] = (
    ("focus", _focus),
    ("mood", _mood),
    ("tense", _tense),
    ("person", _person),
    ("roles", _roles),
    ("order", _order),
    ("relation", _relation),
    ("particle", _particle),
    ("verb", _verb),
    ("coordination", _joined),
    ("quantity", _quantity),
    ("degree", _degree),
    ("plural", _number),
    ("doer", _doer),
)
KINDS = tuple(kind for kind, _ in _GUARDS)
