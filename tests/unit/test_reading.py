"""How the scripted model answers from the passages it is given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from groundplan.testing.reading import UNSURE, Sentence, by_meaning, by_words, lazy_reader, sentences
from groundplan.testing.scripted_chat import answer_text

PROMPT = """Answer from these.

[1] Returns (returns.md, lines 1-9)
# Returns

Unused pumps can be returned within 30 days. We refund within 14 days.

## Warranty

It covers seals.

[2] Sensor (sensor.md, lines 1-4)
1. Close the valve.
2. Hold the button, until it is blue.
"""
AXES = {"back": 0, "returned": 0, "money": 1, "refund": 1, "leak": 2, "seals": 2, "valve": 3, "button": 4, "press": 4}


def embed(texts: Sequence[str]) -> np.ndarray:
    """A vector for each text: how often it names each of five matters, and a little of none."""
    rows = []
    for text in texts:
        row = np.full(6, 0.1, np.float32)
        for word, axis in AXES.items():
            row[axis] += word in text.lower()
        rows.append(row / np.linalg.norm(row))
    return np.array(rows)


def test_sentences_have_their_passage_and_the_heading_above_them() -> None:
    assert sentences(PROMPT) == [
        Sentence("1", "Returns", "Unused pumps can be returned within 30 days."),
        Sentence("1", "Returns", "We refund within 14 days."),
        Sentence("1", "Warranty", "It covers seals."),
        Sentence("2", "Sensor (sensor.md, lines 1-4)", "Close the valve."),
        Sentence("2", "Sensor (sensor.md, lines 1-4)", "Hold the button, until it is blue."),
    ]
    assert sentences("You are kind.") == []


@pytest.mark.parametrize(
    ("model", "question", "answer"),
    [
        ("large", "My money?", "According to the passage [1]: We refund within 14 days."),
        ("large", "What do I press?", "According to the passage [2]: Hold the button, until it is blue."),
        ("gpt-mini", "It has a leak!", "According to the passage [1]: It covers seals."),
        (
            "large",
            "Money back?",
            "According to the passage [1]: Unused pumps can be returned within 30 days. We refund within 14 days.",
        ),
        (
            "large",
            "The seals, the valve or the button?",
            "According to the passage [1]: It covers seals. "
            "According to the passage [2]: Close the valve. Hold the button, until it is blue.",
        ),
        ("gpt-mini", "Seals or the valve?", f"{UNSURE}It covers seals."),
        ("gpt-mini", "Who are you?", f"{UNSURE}Unused pumps can be returned within 30 days."),
    ],
)
def test_the_nearest_in_meaning_is_said_and_a_small_model_says_when_it_is_not_sure(
    model: str, question: str, answer: str
) -> None:
    assert answer_text([("system", PROMPT), ("user", question)], model, by_meaning(embed)) == answer


def test_without_passages_or_the_embedding_model_it_goes_by_words(tmp_path: Path) -> None:
    assert answer_text([("system", "Be kind."), ("user", "Who?")], "large", by_meaning(embed)) == "You asked: Who?"
    read = lazy_reader(tmp_path)
    assert read("large", "Which seals?", PROMPT) == by_words("large", "Which seals?", PROMPT)
    assert by_words("large", "Which seals?", PROMPT) == "According to the passage [1]: It covers seals."
