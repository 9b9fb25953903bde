"""Traps: a question changed in one small way after which its answer is another.

Made from any questions, to calibrate and to measure; each kind is named like the guard that should see it, but made
without looking at it.
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
_OTHERS = (("enable", "disable"), ("open", "close"), ("increase", "decrease"), ("before", "after"), ("buy", "sell"),
           ("cheapest", "most expensive"), ("maximum", "minimum"), ("upload", "download"), ("import", "export"),
           ("start", "stop"), ("add", "remove"), ("create", "delete"), ("longest", "shortest"), ("with", "without"),
           ("higher", "lower"), ("largest", "smallest"), ("allowed", "forbidden"), ("accept", "reject"),
           ("send", "receive"), ("first", "last"), ("old", "new"), ("public", "private"), ("more", "less"),
           ("install", "uninstall"), ("always", "never"), ("all", "only some"), ("full", "partial"))  # fmt: skip
_VERBS = ("is", "are", "can", "does", "do", "should", "will", "must", "may", "could", "was", "were", "would", "has")
KINDS = ("negation", "number", "date", "entity", "unit", "opposite", "direction", "language")


def trap(text: str, kind: str, dice: Random) -> str | None:
    """The text changed in that way; None where it gives no occasion."""
    changed = _MAKERS[kind](text, dice)
    return changed if changed is not None and changed.lower() != text.lower() else None


def _negation(text: str, dice: Random) -> str | None:
    words = text.split()
    for place, word in enumerate(words):
        if word.lower() in ("not", "never", "cannot", "without"):
            swap = {"cannot": ["can"], "without": ["with"]}.get(word.lower(), [])
            return " ".join(words[:place] + swap + words[place + 1 :])
    places = [i for i, word in enumerate(words) if word.lower() in _VERBS]
    if not places:
        return None
    place = places[0]
    if place == 0 or words[place - 1].lower() in ("how", "what", "when", "where", "who", "why", "which"):
        at = min(len(words), place + (3 if place + 1 < len(words) and _article(words[place + 1]) else 2))
    else:
        at = place + 1
    return " ".join([*words[:at], dice.choice(("not", "never")) if place else "not", *words[at:]])


def _article(word: str) -> bool:
    return word.lower() in ("the", "a", "an", "my", "our", "your", "this")


def _number(text: str, dice: Random) -> str | None:
    found = list(_NUMBER.finditer(text))
    if found:
        one = dice.choice(found)
        value = float(one.group())
        other = value + dice.choice((1, 2, 5, 10, value or 3))
        return f"{text[: one.start()]}{other:g}{text[one.end() :]}"
    return _swapped(text, _WORD_NUMBERS, dice)


def _date(text: str, dice: Random) -> str | None:
    for names in (_MONTHS, _DAYS, _RELATIVE):
        changed = _swapped(text, names, dice)
        if changed is not None:
            return changed
    return None


def _swapped(text: str, names: Sequence[str], dice: Random) -> str | None:
    for name in names:
        found = re.search(rf"(?<!^)\b{re.escape(name)}\b", text)
        if found:
            other = dice.choice([each for each in names if each != name])
            return text[: found.start()] + other + text[found.end() :]
    return None


def _entity(text: str, dice: Random) -> str | None:
    changed = _swapped(text, _PLACES, dice)
    if changed is not None:
        return changed
    names = [m for m in re.finditer(r"(?<!^)(?<![.?!] )\b[A-Z][\w]+\b|`[^`]+`", text) if m.start() > 0]
    names = [m for m in names if m.group() not in (*_MONTHS, *_DAYS)]
    if not names:
        return None
    one = dice.choice(names)
    other = dice.choice(("Meridian", "Falcon", "Aster", "Quill", "Northwind", "Orchid", "Basalt", "Vireo"))
    return text[: one.start()] + (f"`{other.lower()}_mode`" if one.group()[0] == "`" else other) + text[one.end() :]


def _unit(text: str, dice: Random) -> str | None:
    pairs = [*_UNITS, *((b, a) for a, b in _UNITS)]
    dice.shuffle(pairs)
    return _replaced(text, pairs)


def _opposite(text: str, dice: Random) -> str | None:
    pairs = [*_OTHERS, *((b, a) for a, b in _OTHERS)]
    dice.shuffle(pairs)
    return _replaced(text, pairs)


def _replaced(text: str, pairs: Sequence[tuple[str, str]]) -> str | None:
    for name, other in pairs:
        found = re.search(rf"\b{re.escape(name)}\b", text)
        if found:
            return text[: found.start()] + other + text[found.end() :]
    return None


def _direction(text: str, _: Random) -> str | None:
    found = re.search(r"\bfrom (\w+) to (\w+)\b", text)
    if found and not _article(found.group(1)) and not _article(found.group(2)):
        return f"{text[: found.start()]}from {found.group(2)} to {found.group(1)}{text[found.end() :]}"
    return None


_BEGINNINGS = (
    ("How do I", "Wie kann ich"), ("How can I", "Comment puis-je"), ("What is the", "Was ist der"),
    ("What is", "¿Qué es"), ("Where is", "Wo ist"), ("Can I", "Kann ich"), ("When does", "Wann ist"),
    ("Which", "Welche"), ("Is", "Ist"), ("How many", "Wie viele"), ("How long", "Wie lange"), ("Who", "Wer"),
)  # fmt: skip
_LITTLE = {"the": "die", "for": "für", "with": "mit", "and": "und", "my": "mein", "of": "von", "in": "in", "to": "zu",
           "a": "eine", "is": "ist", "on": "auf", "are": "sind", "not": "nicht", "from": "von"}  # fmt: skip


def _language(text: str, _: Random) -> str | None:
    """Half a translation, as people write who mix: the answer must come in their language."""
    for beginning, other in _BEGINNINGS:
        if text.startswith(beginning + " "):
            rest = text[len(beginning) :].split()
            return " ".join([other, *(_LITTLE.get(word.lower(), word) for word in rest)])
    return None


_MAKERS: dict[str, Callable[[str, Random], str | None]] = {
    "negation": _negation, "number": _number, "date": _date, "entity": _entity, "unit": _unit, "opposite": _opposite,
    "direction": _direction, "language": _language,
}  # fmt: skip
