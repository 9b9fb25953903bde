"""Reads which persons a text mentions: who speaks to whom, of whom, and what belongs to whom. Pure.

Read from pronouns (`grammar`), without a parser. What it means that two texts differ in them is decided in
`grammar_differences`.
"""

from __future__ import annotations

from itertools import pairwise

from groundplan.economics.semantic import grammar as g
from groundplan.economics.semantic.question import Tokens


def persons_in(tokens: Tokens) -> frozenset[str]:
    """he, she, they, first, you: those that the text mentions."""
    return frozenset(name for name, words in _PERSONS if not words.isdisjoint(tokens.kept_words))


_PERSONS = (("he", g.HE), ("she", g.SHE), ("they", g.THEY), ("first", g.FIRST), ("you", g.YOU))


def third_person_counts(tokens: Tokens) -> tuple[int, ...]:
    """How often he, she and they are mentioned."""
    if _THIRD_PERSONS.isdisjoint(tokens.kept_words):
        return (0, 0, 0)
    said = [word for place, word in enumerate(tokens.words) if place not in tokens.skipped]
    return tuple(sum(word in words for word in said) for words in (g.HE, g.SHE, g.THEY))


_THIRD_PERSONS = g.THIRD | g.THEY


def speaker_role(tokens: Tokens) -> str:
    """Whether the speaker is the `subject` or the `object`; empty: both, or neither."""
    if _SPEAKER_WORDS.isdisjoint(tokens.words):
        return ""
    said = {
        "i" if tokens.word_at(place - 1) == "by" else word
        for place, word in enumerate(tokens.words)
        if place not in tokens.skipped
    }
    subject, object_ = not said.isdisjoint(("i", "we")), not said.isdisjoint(("me", "us"))
    return "" if subject == object_ else "subject" if subject else "object"


_SPEAKER_WORDS = frozenset({"i", "we", "me", "us", "by"})


def dialogue_direction(tokens: Tokens) -> str:
    """`i` where the speaker does something to the reader, `you` the other way round, or empty."""
    if "you" not in tokens.kept_words:
        return ""
    order = [w for i, w in enumerate(tokens.words) if i not in tokens.skipped and w in ("i", "we", "me", "us", "you")]
    for one, other in pairwise(order):
        if one in ("i", "we") and other == "you":
            return "i"
        if one == "you" and other in ("me", "us"):
            return "you"
    return ""


def possessions(tokens: Tokens) -> frozenset[tuple[str, str]]:
    """(we | you | they | he | she, what is owned)"""
    return frozenset(
        (g.POSSESSIVES[tokens.words[place - 1]], tokens.stems[place])
        for place in tokens.content
        if place and tokens.words[place - 1] in g.POSSESSIVES
    )
