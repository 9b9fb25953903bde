"""Pairs of questions for the semantic cache that differ in their phrasing, in eight fields of work and three lengths.

`open`: fields and kinds of traps to develop with; `all`: these fields with all kinds; `sealed` and `unseen`: other
fields, all kinds. `semantic_families` prints them.

A trap changes one thing that changes the answer: what is asked for (`focus`), permission, duty or advice (`mood`),
time, place, manner, means, beneficiary, condition, cause, sequence, roles, quantity, or which of two nouns qualifies
the other. It is phrased in the words of the first question or in other ones. A third of the questions have one sentence
before them, a third two. Repeats are other wordings, some with polite words, slips of the pen, without the question
mark, or in lower case.
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
    """A verb with its participle and third person, and the thing it is done to, with its plural."""

    verb: str
    participle: str
    third_person: str
    thing: str
    things: str

    def phrase(self, text: str, adjunct: str = "", thing: str = "") -> str:
        """A text of a frame about the thing (or another one), with an adjunct behind it."""
        object_phrase = thing or f"the {self.thing}"
        return text.format(v=self.verb, pp=self.participle, vs=self.third_person, o=object_phrase, x=adjunct)


def parse_acts(field: Field) -> list[Act]:
    return [
        Act(verb, participle, third_person, *rest)
        for verb, participle, _, third_person, *rest in (each.split("|") for each in field.acts)
    ]


def generate_pairs(family: str, seed: int, rounds: int = 2) -> Iterator[dict[str, Any]]:
    """{"a", "b", "same", "kind", "intent"} of 384 intents, and some with two roles; a seed gives the same pairs."""
    fields, kinds = FAMILIES[family]
    rng = Random(f"{family} {seed}")
    for _, (name, field) in itertools.product(range(rounds), fields.items()):
        for frame, act in itertools.product(FRAMES, parse_acts(field)):
            yield from _act_pairs(field, frame, act, kinds, f"{name} {frame} {act.verb} {act.thing}", rng)
        if "roles" in kinds:
            for verb_forms, one, other in field.parts:
                yield from _role_pairs(verb_forms.split("|"), one, other, f"{name} {verb_forms} {one} {other}", rng)


def _act_pairs(
    field: Field, frame: str, act: Act, kinds: tuple[str, ...], intent: str, rng: Random
) -> Iterator[dict[str, Any]]:
    adjunct_kind = rng.choice([kind for kind in field.adjuncts if kind in kinds])
    adjunct = rng.choice(("", rng.choice(field.adjuncts[adjunct_kind])))
    stories = rng.sample(field.stories, rng.randrange(3))
    is_lower_case = rng.random() < 0.25
    one, other = rng.sample(FRAMES[frame], 2)
    first = _with_stories(act.phrase(one, adjunct), stories, 0, is_lower_case=is_lower_case)

    def pair(text: str, kind: str, *, same: bool = False, wording: int = 0) -> dict[str, Any]:
        full_text = _with_stories(text, stories, wording, is_lower_case=is_lower_case)
        if same:
            full_text = _add_noise(full_text, rng)
        return {"a": first, "b": full_text, "same": same, "kind": kind, "intent": intent}

    yield pair(act.phrase(other, adjunct), "repeat", same=True, wording=rng.choice((0, 0, 1)))
    for kind in kinds:
        for text in _traps(field, frame, act, kind, (one, other), (adjunct_kind, adjunct), rng):
            if text not in (act.phrase(one, adjunct), act.phrase(other, adjunct)):
                yield pair(text, kind)
    if "plural" in kinds and frame == "can":
        a, b = act.phrase(one, adjunct, f"{_article(act.thing)} {act.thing}"), act.phrase(other, adjunct, act.things)
        if act.thing != act.things:
            a, b = (_with_stories(text, stories, 0, is_lower_case=is_lower_case) for text in (a, b))
            yield {"a": a, "b": b, "same": False, "kind": "plural", "intent": intent}


def _article(noun: str) -> str:
    return "an" if noun[0] in "aeiou" else "a"


def _traps(
    field: Field, frame: str, act: Act, kind: str, texts: tuple[str, str], adjunct: tuple[str, str], rng: Random
) -> Iterator[str]:
    """The question with one change of that kind, in its own words or in others."""
    text, (adjunct_kind, text_behind) = rng.choice(texts), adjunct
    if kind in field.adjuncts:
        replacement = rng.choice([candidate for candidate in field.adjuncts[kind] if candidate != text_behind])
        yield act.phrase(text, replacement if kind == adjunct_kind or not text_behind else text_behind + replacement)
        if kind == adjunct_kind and text_behind:
            yield act.phrase(rng.choice(texts))
    elif kind == "focus":
        other_frames = [candidate for candidate in FRAMES if candidate != frame]
        yield act.phrase(rng.choice(FRAMES[rng.choice(other_frames)]), text_behind)
    elif kind in ("mood", "tense"):
        frames = (OTHER_MOODS if kind == "mood" else OTHER_TENSES).get(frame)
        if frames:
            yield act.phrase(rng.choice(frames), text_behind)
    elif kind == "person":
        yield from (
            act.phrase(text.replace(*candidate, 1), text_behind) for candidate in OTHER_PERSONS if candidate[0] in text
        )
    else:
        changed = _change_verb(act, kind, text, text_behind, rng)
        thing = "" if changed else _change_thing(field, act, kind, rng)
        if changed or thing:
            yield changed or act.phrase(text, text_behind, thing)


def _change_verb(act: Act, kind: str, text: str, adjunct: str, rng: Random) -> str:
    inserted = {"exclusive": "only", "negation": "not"}.get(kind)
    if inserted:
        for verb in ("{v}", "{pp}", "{vs}"):
            text = text.replace(verb, f"{inserted} {verb}")
        return act.phrase(text, adjunct)
    return act.phrase(text, rng.choice(DEGREES) + adjunct) if kind == "degree" else ""


def _change_thing(field: Field, act: Act, kind: str, rng: Random) -> str:
    if kind == "quantity":
        return rng.choice(
            (f"all {act.things}", f"some of the {act.things}", f"both {act.things}", f"every {act.thing}")
        )
    if kind == "head":
        return f"the {act.thing} {rng.choice(field.heads)}"
    if kind == "added":
        return f"the {rng.choice(field.ahead)} {act.thing}"
    if kind == "order":
        first, _, last = act.thing.partition(" ")
        return f"the {last} {first}"
    if kind == "coordination":
        return f"the {act.thing} {rng.choice(('and', 'or'))} the {rng.choice(parse_acts(field)).thing}"
    if kind == "thing":
        return f"the {rng.choice([candidate.thing for candidate in parse_acts(field) if candidate.thing != act.thing])}"
    return ""


ROLE_FRAMES = ("Can {a} {one} {v} {b} {other}?", "May {b} {other} be {pp} by {a} {one}?",
         "Is {a} {one} allowed to {v} {b} {other}?", "Can {b} {other} be {pp} by {a} {one}?")  # fmt: skip


def _role_pairs(verb_forms: list[str], one: str, other: str, intent: str, rng: Random) -> Iterator[dict[str, Any]]:
    """Pairs about an act of one person on another; traps exchange the two."""
    verb, participle, _ = verb_forms

    def phrase(text: str, first: str, second: str) -> str:
        return text.format(v=verb, pp=participle, one=first, other=second, a=_article(first), b=_article(second))

    frame, other_frame = rng.sample(ROLE_FRAMES, 2)
    first = phrase(frame, one, other)
    yield {"a": first, "b": phrase(other_frame, one, other), "same": True, "kind": "repeat", "intent": intent}
    for text in (frame, other_frame):
        yield {"a": first, "b": phrase(text, other, one), "same": False, "kind": "roles", "intent": intent}


def _with_stories(text: str, stories: list[tuple[str, str]], wording: int, *, is_lower_case: bool) -> str:
    """A question with the sentences before it."""
    full_text = " ".join([*(story[wording] for story in stories), text])
    return full_text.lower().rstrip("?") if is_lower_case and not stories else full_text


def _add_noise(text: str, rng: Random) -> str:
    """The text as people write it: politely or in haste."""
    draw = rng.random()
    if draw < 0.3:
        prefix, suffix = rng.choice(POLITE)
        return prefix + text + suffix
    if draw < 0.4:
        words = text.split()
        candidates = [i for i, word in enumerate(words) if len(word) > 6 and word.isalpha() and word.islower()]
        if candidates:
            index = rng.choice(candidates)
            position = rng.randrange(2, len(words[index]) - 2)
            word = words[index]
            words[index] = word[:position] + word[position + 1] + word[position] + word[position + 2 :]
        return " ".join(words)
    if draw < 0.5:
        return text.rstrip("?")
    return text
