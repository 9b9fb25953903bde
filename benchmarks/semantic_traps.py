"""Traps: a question with one small change that changes its answer.

Derived from any questions, to calibrate and to measure; each kind is named like the guard that should detect it, but
was written without looking at the guard.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random

_NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?![\w.])")
_WORD_NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "twelve", "twenty", "thirty")
_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
           "December")  # fmt: skip
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_RELATIVE = ("today", "tomorrow", "yesterday", "next week", "last week", "next month", "last month", "this year",
             "last year")  # fmt: skip
_UNITS = (("kg", "lb"), ("kilograms", "pounds"), ("km", "miles"), ("kilometres", "miles"), ("USD", "EUR"),
          ("euros", "dollars"), ("hours", "days"), ("days", "weeks"), ("weeks", "months"), ("minutes", "hours"),
          ("GB", "MB"), ("metres", "feet"), ("litres", "gallons"), ("Celsius", "Fahrenheit"), ("months", "years"),
          ("seconds", "minutes"))  # fmt: skip
_PLACES = ("Germany", "France", "Spain", "Poland", "Japan", "Canada", "Brazil", "Berlin", "Paris", "Madrid", "Warsaw",
           "Tokyo", "Toronto", "Lisbon", "Sweden", "Norway", "Italy", "Rome", "Vienna", "Zurich", "Oslo", "Texas",
           "India", "Mumbai", "Kenya", "Nairobi", "Dublin", "Chicago", "Boston", "London")  # fmt: skip
_OPPOSITES = (("enable", "disable"), ("open", "close"), ("increase", "decrease"), ("before", "after"), ("buy", "sell"),
           ("cheapest", "most expensive"), ("maximum", "minimum"), ("upload", "download"), ("import", "export"),
           ("start", "stop"), ("add", "remove"), ("create", "delete"), ("longest", "shortest"), ("with", "without"),
           ("higher", "lower"), ("largest", "smallest"), ("allowed", "forbidden"), ("accept", "reject"),
           ("send", "receive"), ("first", "last"), ("old", "new"), ("public", "private"), ("more", "less"),
           ("install", "uninstall"), ("always", "never"), ("all", "only some"), ("full", "partial"))  # fmt: skip
_VERBS = ("is", "are", "can", "does", "do", "should", "will", "must", "may", "could", "was", "were", "would", "has")
KINDS = ("negation", "number", "date", "entity", "unit", "opposite", "direction", "language")


def trap(text: str, kind: str, rng: Random) -> str | None:
    """The text with a change of that kind; None if the text does not allow one."""
    changed = _CHANGES[kind](text, rng)
    return changed if changed is not None and changed.lower() != text.lower() else None


def _negation(text: str, rng: Random) -> str | None:
    words = text.split()
    for position, word in enumerate(words):
        if word.lower() in ("not", "never", "cannot", "without"):
            replacement = {"cannot": ["can"], "without": ["with"]}.get(word.lower(), [])
            return " ".join(words[:position] + replacement + words[position + 1 :])
    verbs = [i for i, word in enumerate(words) if word.lower() in _VERBS]
    if not verbs:
        return None
    position = verbs[0]
    if position == 0 or words[position - 1].lower() in ("how", "what", "when", "where", "who", "why", "which"):
        insert_at = min(
            len(words), position + (3 if position + 1 < len(words) and _article(words[position + 1]) else 2)
        )
    else:
        insert_at = position + 1
    return " ".join([*words[:insert_at], rng.choice(("not", "never")) if position else "not", *words[insert_at:]])


def _article(word: str) -> bool:
    return word.lower() in ("the", "a", "an", "my", "our", "your", "this")


def _number(text: str, rng: Random) -> str | None:
    matches = list(_NUMBER.finditer(text))
    if matches:
        match = rng.choice(matches)
        value = float(match.group())
        other = value + rng.choice((1, 2, 5, 10, value or 3))
        return f"{text[: match.start()]}{other:g}{text[match.end() :]}"
    return _replace_name(text, _WORD_NUMBERS, rng)


def _date(text: str, rng: Random) -> str | None:
    for names in (_MONTHS, _DAYS, _RELATIVE):
        changed = _replace_name(text, names, rng)
        if changed is not None:
            return changed
    return None


def _replace_name(text: str, names: Sequence[str], rng: Random) -> str | None:
    for name in names:
        match = re.search(rf"(?<!^)\b{re.escape(name)}\b", text)
        if match:
            other = rng.choice([candidate for candidate in names if candidate != name])
            return text[: match.start()] + other + text[match.end() :]
    return None


def _entity(text: str, rng: Random) -> str | None:
    changed = _replace_name(text, _PLACES, rng)
    if changed is not None:
        return changed
    names = [name for name in re.finditer(r"(?<!^)(?<![.?!] )\b[A-Z][\w]+\b|`[^`]+`", text) if name.start() > 0]
    names = [name for name in names if name.group() not in (*_MONTHS, *_DAYS)]
    if not names:
        return None
    match = rng.choice(names)
    other = rng.choice(("Meridian", "Falcon", "Aster", "Quill", "Northwind", "Orchid", "Basalt", "Vireo"))
    return (
        text[: match.start()] + (f"`{other.lower()}_mode`" if match.group()[0] == "`" else other) + text[match.end() :]
    )


def _unit(text: str, rng: Random) -> str | None:
    pairs = [*_UNITS, *((b, a) for a, b in _UNITS)]
    rng.shuffle(pairs)
    return _replace_word(text, pairs)


def _opposite(text: str, rng: Random) -> str | None:
    pairs = [*_OPPOSITES, *((b, a) for a, b in _OPPOSITES)]
    rng.shuffle(pairs)
    return _replace_word(text, pairs)


def _replace_word(text: str, pairs: Sequence[tuple[str, str]]) -> str | None:
    for name, other in pairs:
        match = re.search(rf"\b{re.escape(name)}\b", text)
        if match:
            return text[: match.start()] + other + text[match.end() :]
    return None


def _direction(text: str, _: Random) -> str | None:
    match = re.search(r"\bfrom (\w+) to (\w+)\b", text)
    if match and not _article(match.group(1)) and not _article(match.group(2)):
        return f"{text[: match.start()]}from {match.group(2)} to {match.group(1)}{text[match.end() :]}"
    return None


_BEGINNINGS = (
    ("How do I", "Wie kann ich"), ("How can I", "Comment puis-je"), ("What is the", "Was ist der"),
    ("What is", "¿Qué es"), ("Where is", "Wo ist"), ("Can I", "Kann ich"), ("When does", "Wann ist"),
    ("Which", "Welche"), ("Is", "Ist"), ("How many", "Wie viele"), ("How long", "Wie lange"), ("Who", "Wer"),
)  # fmt: skip
_FUNCTION_WORDS = {
    "the": "die", "for": "für", "with": "mit", "and": "und", "my": "mein", "of": "von", "in": "in", "to": "zu",
    "a": "eine", "is": "ist", "on": "auf", "are": "sind", "not": "nicht", "from": "von",
}  # fmt: skip


def _language(text: str, _: Random) -> str | None:
    """A half-translated text, as people write who mix languages: the answer must be in their language."""
    for beginning, other in _BEGINNINGS:
        if text.startswith(beginning + " "):
            rest = text[len(beginning) :].split()
            return " ".join([other, *(_FUNCTION_WORDS.get(word.lower(), word) for word in rest)])
    return None


_CHANGES: dict[str, Callable[[str, Random], str | None]] = {
    "negation": _negation, "number": _number, "date": _date, "entity": _entity, "unit": _unit, "opposite": _opposite,
    "direction": _direction, "language": _language,
}  # fmt: skip
