"""How the example company judges answers of its demo: by what they say, against a sheet beside its workspace. Pure.

A sheet is `judging/WORKLOAD.json` in the workspace: questions with the facts that a right answer holds, and which rule
judges which dimension of quality. Nothing is judged but the text that was answered and the passages that it rests on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from groundplan.core.home import Home

FOLDER = "judging"
Rule = Literal["facts", "tone", "cited", "figures"]
_CITED = re.compile(r"\[\d+\]")
_FIGURE = re.compile(r"\d+(?:[.,]\d+)*")
_LOUD = re.compile(r"!!|\b[A-ZÅÄÖ]{5,}\b")


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`facts`: what a right answer holds, in these words."""

    ask: str
    facts: tuple[str, ...]


class Tone(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An answer in the right tone is short, ends its sentence, shouts nothing and has no word of `never`."""

    most_words: int
    never: tuple[str, ...] = ()


class Sheet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`judged`: dimension of quality -> rule. Who asks and who reviews are e-mail addresses."""

    about: str
    reviewer: str
    askers: tuple[str, ...]
    judged: dict[str, Rule]
    questions: tuple[Question, ...]
    tone: Tone = Tone(100)

    def facts(self, question: str) -> tuple[str, ...] | None:
        """What a right answer holds; None for a question that is not on the sheet."""
        return next((each.facts for each in self.questions if each.ask == question), None)


def load_sheets(home: Home) -> dict[str, Sheet]:
    """The sheets beside the workspace of HOME, by workload. Raises ValueError for one that cannot be read."""
    folder = Path(home.workspace.read_text(encoding="utf-8").strip()) / FOLDER if home.workspace.exists() else None
    decoder = msgspec.json.Decoder(Sheet)
    found = sorted(folder.glob("*.json")) if folder is not None else ()
    return {file.stem: decoder.decode(file.read_bytes()) for file in found}


def judge(sheet: Sheet, question: str, answer: str, passages: Sequence[str]) -> Mapping[str, bool]:
    """Dimension -> whether the answer is accepted; nothing for a question that is not on the sheet."""
    facts = sheet.facts(question)
    if facts is None:
        return {}
    return {name: _is_accepted(rule, sheet.tone, facts, answer, passages) for name, rule in sheet.judged.items()}


def has_facts(sheet: Sheet, question: str, answer: str) -> bool | None:
    """Whether the answer holds the facts; None for a question that is not on the sheet."""
    facts = sheet.facts(question)
    return None if facts is None else _mentions_all(answer, facts)


def _is_accepted(rule: Rule, tone: Tone, facts: Sequence[str], answer: str, passages: Sequence[str]) -> bool:
    if rule == "facts":
        return _mentions_all(answer, facts)
    if rule == "cited":
        return bool(passages) and _CITED.search(answer) is not None
    if rule == "figures":
        told = set(_FIGURE.findall(_CITED.sub(" ", answer)))
        return told <= set(_FIGURE.findall(" ".join(passages)))
    return _has_tone(tone, answer)


def _mentions_all(answer: str, facts: Sequence[str]) -> bool:
    said = _plain(answer)
    return all(_plain(each) in said for each in facts)


def _has_tone(tone: Tone, answer: str) -> bool:
    said = _plain(answer)
    whole = said.endswith((".", "!", "?", ".)"))
    return (
        whole
        and len(said.split()) <= tone.most_words
        and not _LOUD.search(answer)
        and not _mentions_any(said, tone.never)
    )


def _mentions_any(said: str, words: Sequence[str]) -> bool:
    return any(_plain(each) in said for each in words)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
