"""Personal data as Presidio's pattern recognisers see it: an extra, for a process that may be slow and large.

Loading it takes a second and brings spaCy and numpy, so that it is imported where it is first used, and never by a
gateway worker. No model of a language is loaded: names and addresses are not found. Left out are addresses of e-mail
and links, for which it would ask the network for a list of domains, and dates; `core.detect` finds addresses.
"""

from __future__ import annotations

import importlib
import inspect
from functools import cache
from importlib.util import find_spec
from typing import Any

from groundplan.core.detect import Found

LEAST = 0.5
"""Presidio's score from which a find counts: a shape with a check digit that fits has 1, weak shapes have less."""
_LEFT_OUT = frozenset({"DATE_TIME", "EMAIL_ADDRESS", "URL"})


def installed() -> bool:
    """Whether the extra `groundplan[governance]` is there; imports nothing."""
    return find_spec("presidio_analyzer") is not None


def find(text: str) -> list[Found]:
    """What is in the text, by place; kinds are Presidio's in small letters, such as `us_itin`. Where two fit the same
    place the surer one stands. ImportError where the extra is not installed."""
    best: dict[tuple[int, int], tuple[float, str]] = {}
    for recogniser in _recognisers():
        for result in recogniser.analyze(text, recogniser.supported_entities, None):
            place, sure = (result.start, result.end), (result.score, result.entity_type.lower())
            if result.score >= LEAST and sure > best.get(place, (0.0, "")):
                best[place] = sure
    return [Found(start, end, kind) for (start, end), (_, kind) in sorted(best.items())]


@cache
def _recognisers() -> tuple[Any, ...]:
    """One of each class that works by patterns alone."""
    library = importlib.import_module("presidio_analyzer.predefined_recognizers")
    pattern = importlib.import_module("presidio_analyzer").PatternRecognizer
    classes = [made for _, made in inspect.getmembers(library, inspect.isclass) if issubclass(made, pattern)]
    found: list[Any] = [made() for made in classes if made is not pattern and not inspect.isabstract(made)]
    return tuple(each for each in found if not _LEFT_OUT & set(each.supported_entities))
