"""Rephrases questions as others might type them: noise and rewording that do not change the question. Pure.

Rule-based and seeded, so that measurements can be repeated. Paraphrases by people differ more.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random
from typing import Final

SHARE: Final = 0.06
"""Share of the words of at least four letters that get a typing error."""
_WORD = re.compile(r"[^\W\d_]{4,}")
_SWAPS: Final = (
    (r"\bwhich of the following\b", "which one of these"), (r"\bhow many\b", "what number of"),
    (r"\bhow much\b", "what amount of"), (r"\bfind\b", "determine"), (r"\bcalculate\b", "work out"),
    (r"\bcompute\b", "work out"), (r"\bexplain\b", "describe"), (r"\bshow\b", "demonstrate"), (r"\bhelp\b", "assist"),
    (r"\bbegins?\b", "starts"), (r"\bbuy\b", "purchase"), (r"\bbought\b", "purchased"), (r"\bbig\b", "large"),
    (r"\balso\b", "as well"), (r"\bbecause\b", "since"), (r"\babout\b", "around"), (r"\ball of\b", "all"),
    (r"\bin order to\b", "to"), (r"\bdo not\b", "don't"), (r"\bdoes not\b", "doesn't"), (r"\bis not\b", "isn't"),
    (r"\bcannot\b", "can't"), (r"\bI am\b", "I'm"), (r"\bit is\b", "it's"), (r"\bplease\b", "kindly"),
    (r"\bmost likely\b", "most probably"), (r"\bbest describes\b", "describes best"), (r"\bis called\b", "is named"),
    (r"\bneeds? to\b", "has to"), (r"\beach\b", "every"), (r"\bper\b", "for each"), (r"\btotal\b", "overall"),
)  # fmt: skip
_COMPILED: Final = tuple((re.compile(old, re.IGNORECASE), new) for old, new in _SWAPS)
_OPENERS: Final = (
    "Could you please tell me: ", "Hi, quick question. ", "I would like to know the following. ", "Please help: ",
)  # fmt: skip


def add_typos(text: str, dice: Random) -> str:
    """Letters of some words are swapped, doubled or left out."""

    def slip(match: re.Match[str]) -> str:
        word = match[0]
        if dice.random() >= SHARE:
            return word
        place = dice.randrange(1, len(word) - 1)
        kind = dice.randrange(3)
        if kind == 0:
            return word[:place] + word[place + 1] + word[place] + word[place + 2 :]
        return word[:place] + word[place + 1 :] if kind == 1 else word[:place] + word[place] + word[place:]

    return _WORD.sub(slip, text)


def change_case(text: str, dice: Random) -> str:
    """All small letters, or all capital ones."""
    return text.lower() if dice.random() < 0.7 else text.upper()


def add_spaces(text: str, dice: Random) -> str:
    """Further white space, and no sign at the end."""
    return re.sub(r" ", lambda _: "  " if dice.random() < 0.15 else " ", text).rstrip(" .?!") + " "


def add_politeness(text: str, dice: Random) -> str:
    """With an opening and thanks."""
    return dice.choice(_OPENERS) + text + (" Thank you!" if dice.random() < 0.5 else "")


def reword(text: str, dice: Random) -> str:
    """Common words by others that mean the same."""
    for old, new in _COMPILED:
        if dice.random() < 0.8:
            text = old.sub(new, text)
    return text


KINDS: Final[dict[str, Callable[[str, Random], str]]] = {
    "typos": add_typos, "case": change_case, "spaces": add_spaces, "polite": add_politeness, "reworded": reword,
}  # fmt: skip
