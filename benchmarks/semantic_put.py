"""Pairs of questions for the semantic cache that differ in how they are put, in eight fields of work and three lengths.

`open`: fields and kinds of traps to develop with; `all`: these fields with all kinds; `sealed` and `unseen`: other
fields, all kinds. `semantic_families` prints them.

A trap changes one thing by which the answer becomes another: what is asked for (`focus`), whether it may, must or
should be (`mood`), when, where, how, by what, for whom, on what condition, why, in which order, who does it to whom,
how much of it, which of two nouns qualifies the other. It is said in the words of the first question or in other ones.
A third of the questions tell a sentence before they ask, a third two. Repeats are other wordings, some with polite
words, slips of the pen, without their mark, or in lower case.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

from benchmarks.semantic_put_unseen import UNSEEN
from benchmarks.semantic_put_words import OPEN, SEALED, Field

FRAMES: dict[str, tuple[str, ...]] = {
    "how": ("How do I {v} {o}{x}?", "How can I {v} {o}{x}?", "What is the way to {v} {o}{x}?",
            "How can {o} be {pp}{x}?", "How does one {v} {o}{x}?", "I want to {v} {o}{x}, how does that work?",
            "What do I have to do to {v} {o}{x}?", "What are the steps to {v} {o}{x}?"),
    "can": ("Can I {v} {o}{x}?", "Am I allowed to {v} {o}{x}?", "Is it possible to {v} {o}{x}?", "May I {v} {o}{x}?",
            "Can {o} be {pp}{x}?", "Is it permitted to {v} {o}{x}?"),
    "must": ("Must I {v} {o}{x}?", "Do I have to {v} {o}{x}?", "Am I required to {v} {o}{x}?",
             "Is it mandatory to {v} {o}{x}?", "Does {o} have to be {pp}{x}?"),
    "who": ("Who {vs} {o}{x}?", "By whom is {o} {pp}{x}?", "Which person {vs} {o}{x}?"),
    "when": ("When can I {v} {o}{x}?", "At what time can I {v} {o}{x}?", "When is it possible to {v} {o}{x}?",
             "When can {o} be {pp}{x}?"),
    "where": ("Where can I {v} {o}{x}?", "At which place can I {v} {o}{x}?", "Where is it possible to {v} {o}{x}?",
              "Where can {o} be {pp}{x}?"),
    "did": ("Did you {v} {o}{x}?", "Have you {pp} {o}{x}?", "Was {o} {pp}{x}?", "Has {o} been {pp}{x}?"),
    "why": ("Why do I have to {v} {o}{x}?", "What is the reason that I have to {v} {o}{x}?",
            "For what reason must I {v} {o}{x}?", "Why must {o} be {pp}{x}?"),
}  # fmt: skip
OTHER_MOODS = {"can": ("Must I {v} {o}{x}?", "Should I {v} {o}{x}?", "Will I {v} {o}{x}?"),
               "must": ("Can I {v} {o}{x}?", "Should I {v} {o}{x}?", "May {o} be {pp}{x}?"),
               "when": ("When must I {v} {o}{x}?", "When should I {v} {o}{x}?"),
               "where": ("Where must I {v} {o}{x}?", "Where should I {v} {o}{x}?"),
               "why": ("Why can I {v} {o}{x}?", "Why should I {v} {o}{x}?")}  # fmt: skip
OTHER_TENSES = {"who": ("Who has {pp} {o}{x}?", "By whom was {o} {pp}{x}?", "Who will {v} {o}{x}?"),
                "did": ("Will you {v} {o}{x}?", "Do you {v} {o}{x}?"), "why": ("Why did I have to {v} {o}{x}?",),
                "how": ("How was {o} {pp}{x}?", "How did I {v} {o}{x}?"),
                "where": ("Where was {o} {pp}{x}?",), "when": ("When was {o} {pp}{x}?",)}  # fmt: skip
OTHER_PERSONS = (("Can I", "Can she"), ("Am I", "Is he"), ("May I", "May they"), ("Must I", "Must she"),
                 ("Do I", "Does he"), ("do I", "does she"), ("can I", "can they"), ("must I", "must he"),
                 ("Did you", "Did she"), ("Have you", "Has he"), ("I have", "she has"),
                 ("I want", "She wants"))  # fmt: skip
DEGREES = (" completely", " partly", " in full", " halfway", " entirely", " a little")
OPEN_KINDS = ("focus", "mood", "manner", "time", "condition", "relation", "quantity", "exclusive", "head", "added",
              "roles", "negation")  # fmt: skip
SEALED_KINDS = ("channel", "place", "beneficiary", "comparison", "cause", "concession", "sequence", "degree", "tense",
                "person", "plural", "order", "coordination", "thing")  # fmt: skip
ALL_KINDS = (*OPEN_KINDS, *SEALED_KINDS)
FAMILIES = {"open": (OPEN, OPEN_KINDS), "all": (OPEN, ALL_KINDS), "sealed": (SEALED, ALL_KINDS),
            "unseen": (UNSEEN, ALL_KINDS)}  # fmt: skip
POLITE = (("", ""), ("Hello, ", ""), ("Could you please tell me: ", ""), ("", " Thanks in advance!"),
          ("Hi there, a quick question: ", ""), ("", " Many thanks and kind regards"))  # fmt: skip


@dataclass(frozen=True)
class Act:
    """What is done to what."""

    verb: str
    done: str
    does: str
    thing: str
    things: str

    def said(self, text: str, more: str = "", thing: str = "") -> str:
        """A text of a frame, with what stands behind it."""
        o = thing or f"the {self.thing}"
        return text.format(v=self.verb, pp=self.done, vs=self.does, o=o, x=more)


def acts(field: Field) -> list[Act]:
    return [Act(verb, done, does, *rest) for verb, done, _, does, *rest in (each.split("|") for each in field.acts)]


def generate_pairs(family: str, seed: int, rounds: int = 2) -> Iterator[dict[str, Any]]:
    """{"a", "b", "same", "kind", "intent"} of 384 intents and some of who does what; the same seed gives the same."""
    fields, kinds = FAMILIES[family]
    dice = Random(f"{family} {seed}")
    for _, (name, field) in itertools.product(range(rounds), fields.items()):
        for frame, act in itertools.product(FRAMES, acts(field)):
            yield from _of_an_act(field, frame, act, kinds, f"{name} {frame} {act.verb} {act.thing}", dice)
        if "roles" in kinds:
            for does, one, other in field.parts:
                yield from _of_parts(does.split("|"), one, other, f"{name} {does} {one} {other}", dice)


def _of_an_act(
    field: Field, frame: str, act: Act, kinds: tuple[str, ...], intent: str, dice: Random
) -> Iterator[dict[str, Any]]:
    around = dice.choice([kind for kind in field.adjuncts if kind in kinds])
    more = dice.choice(("", dice.choice(field.adjuncts[around])))
    stories = dice.sample(field.stories, dice.randrange(3))
    plain = dice.random() < 0.25
    one, other = dice.sample(FRAMES[frame], 2)
    first = _told(act.said(one, more), stories, 0, plain=plain)

    def pair(text: str, kind: str, *, same: bool = False, wording: int = 0) -> dict[str, Any]:
        told = _told(text, stories, wording, plain=plain)
        if same:
            told = _noisy(told, dice)
        return {"a": first, "b": told, "same": same, "kind": kind, "intent": intent}

    yield pair(act.said(other, more), "repeat", same=True, wording=dice.choice((0, 0, 1)))
    for kind in kinds:
        for text in _traps(field, frame, act, kind, (one, other), (around, more), dice):
            if text not in (act.said(one, more), act.said(other, more)):
                yield pair(text, kind)
    if "plural" in kinds and frame == "can":
        a, b = act.said(one, more, f"{_article(act.thing)} {act.thing}"), act.said(other, more, act.things)
        if act.thing != act.things:
            yield {"a": _told(a, stories, 0, plain=plain), "b": _told(b, stories, 0, plain=plain), "same": False,
                   "kind": "plural", "intent": intent}  # fmt: skip


def _article(noun: str) -> str:
    return "an" if noun[0] in "aeiou" else "a"


def _traps(
    field: Field, frame: str, act: Act, kind: str, texts: tuple[str, str], around: tuple[str, str], dice: Random
) -> Iterator[str]:
    """The question with one thing changed, once in its own words or in others."""
    text, (its, more) = dice.choice(texts), around
    if kind in field.adjuncts:
        instead = dice.choice([each for each in field.adjuncts[kind] if each != more])
        yield act.said(text, instead if kind == its or not more else more + instead)
        if kind == its and more:
            yield act.said(dice.choice(texts))
    elif kind == "focus":
        others = [each for each in FRAMES if each != frame]
        yield act.said(dice.choice(FRAMES[dice.choice(others)]), more)
    elif kind in ("mood", "tense"):
        held = (OTHER_MOODS if kind == "mood" else OTHER_TENSES).get(frame)
        if held:
            yield act.said(dice.choice(held), more)
    elif kind == "person":
        yield from (act.said(text.replace(*each, 1), more) for each in OTHER_PERSONS if each[0] in text)
    else:
        changed = _other_verb(act, kind, text, more, dice)
        thing = "" if changed else _other_thing(field, act, kind, dice)
        if changed or thing:
            yield changed or act.said(text, more, thing)


def _other_verb(act: Act, kind: str, text: str, more: str, dice: Random) -> str:
    word = {"exclusive": "only", "negation": "not"}.get(kind)
    if word:
        for verb in ("{v}", "{pp}", "{vs}"):
            text = text.replace(verb, f"{word} {verb}")
        return act.said(text, more)
    return act.said(text, dice.choice(DEGREES) + more) if kind == "degree" else ""


def _other_thing(field: Field, act: Act, kind: str, dice: Random) -> str:
    if kind == "quantity":
        return dice.choice(
            (f"all {act.things}", f"some of the {act.things}", f"both {act.things}", f"every {act.thing}")
        )
    if kind == "head":
        return f"the {act.thing} {dice.choice(field.heads)}"
    if kind == "added":
        return f"the {dice.choice(field.ahead)} {act.thing}"
    if kind == "order":
        first, _, last = act.thing.partition(" ")
        return f"the {last} {first}"
    if kind == "coordination":
        return f"the {act.thing} {dice.choice(('and', 'or'))} the {dice.choice(acts(field)).thing}"
    if kind == "thing":
        return f"the {dice.choice([each.thing for each in acts(field) if each.thing != act.thing])}"
    return ""


PARTS = ("Can {a} {one} {v} {b} {other}?", "May {b} {other} be {pp} by {a} {one}?",
         "Is {a} {one} allowed to {v} {b} {other}?", "Can {b} {other} be {pp} by {a} {one}?")  # fmt: skip


def _of_parts(does: list[str], one: str, other: str, intent: str, dice: Random) -> Iterator[dict[str, Any]]:
    """Who does it to whom."""
    verb, done, _ = does

    def said(text: str, first: str, second: str) -> str:
        return text.format(v=verb, pp=done, one=first, other=second, a=_article(first), b=_article(second))

    ours, theirs = dice.sample(PARTS, 2)
    first = said(ours, one, other)
    yield {"a": first, "b": said(theirs, one, other), "same": True, "kind": "repeat", "intent": intent}
    for text in (ours, theirs):
        yield {"a": first, "b": said(text, other, one), "same": False, "kind": "roles", "intent": intent}


def _told(text: str, stories: list[tuple[str, str]], wording: int, *, plain: bool) -> str:
    """A question with what is told before it."""
    whole = " ".join([*(story[wording] for story in stories), text])
    return whole.lower().rstrip("?") if plain and not stories else whole


def _noisy(text: str, dice: Random) -> str:
    """The same as people write it: politely, in haste."""
    draw = dice.random()
    if draw < 0.3:
        before, behind = dice.choice(POLITE)
        return before + text + behind
    if draw < 0.4:
        words = text.split()
        places = [i for i, word in enumerate(words) if len(word) > 6 and word.isalpha() and word.islower()]
        if places:
            place = dice.choice(places)
            at = dice.randrange(2, len(words[place]) - 2)
            word = words[place]
            words[place] = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
        return " ".join(words)
    if draw < 0.5:
        return text.rstrip("?")
    return text
