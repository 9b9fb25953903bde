"""What is wrong in the text of a document: structure, words of the glossary, personal data and secrets. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from groundplan.blueprint.model import Term
from groundplan.core.detect import SECRETS, find
from groundplan.core.words import counted
from groundplan.knowledge.scripts import RUN

_HEADING = re.compile(r"^ {0,3}(#{1,6})[ \t]+(.*?)[ \t]*#*$", re.MULTILINE)
_FENCE = re.compile(r"^ {0,3}(?:```|~~~)", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]{1,500})\)")
_PLACEHOLDER = re.compile(r"\b(?:lorem ipsum|TBD|FIXME|xx+\.xx+)\b|\[(?:insert|fill in)[^\]]*\]", re.IGNORECASE)
_BROKEN = "�"


@dataclass(frozen=True, slots=True)
class Glossary:
    """Forbidden words as one pattern, the longest first, each a group of its number in `words`; what is to be said
    instead."""

    pattern: re.Pattern[str] | None
    words: Sequence[str]
    instead: Mapping[str, str]
    digest: str


def glossary(terms: Sequence[Term]) -> Glossary:
    """A forbidden use is a whole word or phrase, in any case; a term's own title is never one, nor is a word of it
    where the whole title is said. Where a script sets no spaces, nothing tells where a word ends."""
    instead = {
        word.lower(): term.title for term in terms for word in term.forbidden if word.lower() != term.title.lower()
    }
    titles = {title for term in terms if (title := term.title.lower()) not in instead and _has_any(title, instead)}
    words = sorted((*instead, *titles), key=len, reverse=True)
    pattern = re.compile("|".join(f"({_whole(word)})" for word in words), re.IGNORECASE) if instead else None
    digest = "|".join([*(f"{word}>{instead[word]}" for word in sorted(instead)), *sorted(titles)])
    return Glossary(pattern, words, instead, digest)


def _has_any(title: str, words: Mapping[str, str]) -> bool:
    return any(re.search(_whole(word), title, re.IGNORECASE) for word in words)


def _whole(word: str) -> str:
    """A pattern for a word by itself; between the words of a phrase a line may end."""
    before = "" if RUN.match(word[:1]) else r"(?<!\w)"
    after = "" if RUN.match(word[-1:]) else r"(?!\w)"
    written = r"\s+".join(map(re.escape, word.split()))
    return f"{before}{written}{after}"


def checked(text: str, terms: Glossary, *, markdown: bool) -> dict[str, Any]:
    """`structure`: (code, what is wrong, what to do); `glossary`: (word, term, count); `terms`: by which glossary."""
    return {
        "structure": [list(each) for each in structure(text, markdown=markdown)],
        "glossary": [list(each) for each in violations(text, terms)],
        "terms": terms.digest,
    }


def structure(text: str, *, markdown: bool) -> list[tuple[str, str, str]]:
    """What makes a document hard to cut and to quote."""
    found: list[tuple[str, str, str]] = []
    if not text.strip():
        return [("empty", "it has no text", "Write it, or delete it.")]
    if _BROKEN in text:
        found.append(
            ("encoding", "some characters were lost in a wrong encoding", "Save it as UTF-8 from its original.")
        )
    if match := _PLACEHOLDER.search(text):
        said = "has a note of what to fill in" if match[0].startswith("[") else f"says '{match[0][:40]}'"
        found.append(("placeholder", f"it still {said}", "Finish it, or mark it `state: draft`."))
    if markdown:
        found += _markdown(text)
    return found


def _markdown(text: str) -> list[tuple[str, str, str]]:
    found: list[tuple[str, str, str]] = []
    if len(_FENCE.findall(text)) % 2:
        found.append(("fence", "a block of code has no end", "Close it with ``` on a line of its own."))
    prose = re.sub(r"^ {0,3}(?:```|~~~).*?^ {0,3}(?:```|~~~)", "", text, flags=re.MULTILINE | re.DOTALL)
    levels = [len(mark) for mark, _ in _HEADING.findall(prose)]
    jumps = [(a, b) for a, b in pairwise(levels) if b > a + 1]
    if jumps:
        a, b = jumps[0]
        found.append(
            ("levels", f"a heading of level {b} stands below one of level {a}", "Leave out no level of headings.")
        )
    if not levels and len(prose) > 4000:
        found.append(("headings", "it is long and has no headings", "Give each part a heading."))
    titles = Counter(
        title.strip().lower() for mark, title in _HEADING.findall(prose) if title.strip() and len(mark) == 1
    )
    if repeated := [title for title, count in titles.items() if count > 1]:
        found.append(
            ("repeated", f"{counted(len(repeated), 'heading is', 'headings are')} there twice", "Give each its own.")
        )
    rows = [line for line in prose.splitlines() if line.lstrip().startswith("|")]
    widths = {len(re.findall(r"(?<!\\)\|", row.strip())) for row in rows}
    if rows and len(widths) > 1 and _ragged(prose):
        found.append(
            ("table", "the rows of a table have different numbers of cells", "Give each row as many as the head.")
        )
    return found


def _ragged(text: str) -> bool:
    """Whether a table (lines that follow each other) has rows of different width."""
    width: int | None = None
    for line in text.splitlines():
        if not line.lstrip().startswith("|"):
            width = None
            continue
        own = len(re.findall(r"(?<!\\)\|", line.strip()))
        if width is not None and own != width:
            return True
        width = own
    return False


def violations(text: str, terms: Glossary) -> list[tuple[str, str, int]]:
    """(forbidden word, term to be used, how often), most frequent first."""
    if terms.pattern is None:
        return []
    # by its group: letters that count as the same in any case, such as i and ı, are no key
    said = (terms.words[found.lastindex - 1] for found in terms.pattern.finditer(text) if found.lastindex)
    counts = Counter(word for word in said if word in terms.instead)
    return [(word, terms.instead[word], count) for word, count in counts.most_common()]


def personal(text: str) -> dict[str, int]:
    """How many there are of each kind of personal data; secrets have a `!` before their kind."""
    counts = Counter(f"!{one.kind}" if one.kind in SECRETS else one.kind for one in find(text))
    return dict(sorted(counts.items()))
