"""What is wrong in the text of a document: structure, words of the glossary, personal data and secrets. Pure."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from groundplan.blueprint.model import Term
from groundplan.core.detect import SECRETS, find
from groundplan.core.words import quantity
from groundplan.knowledge.writing_systems import RUN

_HEADING = re.compile(r"^ {0,3}(#{1,6})[ \t]+(.*)$", re.MULTILINE)
_FENCE = re.compile(r"^ {0,3}(?:```|~~~)", re.MULTILINE)
_PLACEHOLDER = re.compile(r"\b(?:lorem ipsum|TBD|FIXME|xx+\.xx+)\b|\[(?:insert|fill in)[^\]]{0,300}\]", re.IGNORECASE)
_BROKEN = "�"
_WORD = re.compile(r"\w+")
_DOTS = str.maketrans("İı", "ii")
"""Letters that count as i in any case; no other fold of it says so."""


@dataclass(frozen=True, slots=True)
class PhraseMatcher:
    """Words and phrases that are looked for in texts, each by itself and in any case. With thousands a text costs
    as much as with one: its words are looked up among them, not they at each of its places."""

    first: Mapping[str, Sequence[tuple[str, re.Pattern[str]]]]
    """By the word that they begin with, the longest first."""
    others: re.Pattern[str] | None
    """Those that begin with no word, or are of a script that sets no spaces."""
    named: Mapping[str, str]
    """Of others: as it is found, with one blank between its words -> as it is sought."""

    def find_all(self, text: str) -> Iterator[str]:
        """Each place of them that none before overlaps; at one place the longest."""
        text, end = _folded(text), 0
        other = self._next_first_word(text, 0)
        for word in _WORD.finditer(text) if self.first else ():
            here = self._match_at(text, word) if word.start() >= end else None
            if here is None:
                continue
            while other is not None and (other.start(), -other.end()) < (word.start(), -here[1]):
                if other.start() >= end:
                    yield self.named[" ".join(other[0].split())]
                    end = other.end()
                other = self._next_first_word(text, end)
            if word.start() >= end:
                yield here[0]
                end = here[1]
        while other is not None:
            if other.start() >= end:
                yield self.named[" ".join(other[0].split())]
                end = other.end()
            other = self._next_first_word(text, end)

    def _match_at(self, text: str, word: re.Match[str]) -> tuple[str, int] | None:
        """What begins with that word there, and where it ends."""
        for phrase, pattern in self.first.get(word[0], ()):
            if (here := pattern.match(text, word.start())) is not None:
                return phrase, here.end()
        return None

    def _next_first_word(self, text: str, start: int) -> re.Match[str] | None:
        return None if self.others is None else self.others.search(text, start)


def phrase_matcher(words: Iterable[str]) -> PhraseMatcher:
    """To look for these."""
    first: dict[str, list[tuple[str, re.Pattern[str]]]] = defaultdict(list)
    others: dict[str, list[str]] = defaultdict(list)
    named: dict[str, str] = {}
    for word in sorted(words, key=len, reverse=True):
        folded = _folded(word)
        after = "" if RUN.match(folded[-1:]) else r"(?!\w)"
        written = r"\s+".join(map(re.escape, folded.split())) + after
        begins = _WORD.match(folded)
        if begins is not None and RUN.search(folded) is None:
            first[begins[0]].append((word, re.compile(written)))
        else:
            named.setdefault(" ".join(folded.split()), word)
            others[folded[:1]].append(written.removeprefix(re.escape(folded[:1])))
    before = {char: "" if RUN.match(char) else r"(?<!\w)" for char in others}
    parts = [f"{before[char]}{re.escape(char)}(?:{'|'.join(rest)})" for char, rest in others.items()]
    return PhraseMatcher(first, re.compile("|".join(parts)) if parts else None, named)


def _folded(text: str) -> str:
    """As it is compared: letters that are the same in any case are one."""
    return text.translate(_DOTS).casefold()


@dataclass(frozen=True, slots=True)
class Glossary:
    """Forbidden words, and what is to be said instead of each; `words` are those and the titles that one may stand
    in."""

    words: PhraseMatcher
    instead: Mapping[str, str]
    digest: str


def glossary(terms: Sequence[Term]) -> Glossary:
    """A forbidden use is a whole word or phrase, in any case; a term's own title is never one, nor is a word of it
    where the whole title is said. Where a script sets no spaces, nothing tells where a word ends."""
    instead = {
        word.lower(): term.title for term in terms for word in term.forbidden if word.lower() != term.title.lower()
    }
    forbidden = phrase_matcher(instead)
    titles = {
        title for term in terms if (title := term.title.lower()) not in instead and any(forbidden.find_all(title))
    }
    digest = "|".join([*(f"{word}>{instead[word]}" for word in sorted(instead)), *sorted(titles)])
    return Glossary(phrase_matcher((*instead, *titles)), instead, digest)


def check_text(text: str, terms: Glossary, *, markdown: bool) -> dict[str, Any]:
    """`structure_problems`: (code, what is wrong, what to do); `glossary`: (word, term, count); `terms`: by which
    glossary."""
    return {
        "structure": [list(each) for each in structure_problems(text, markdown=markdown)],
        "glossary": [list(each) for each in glossary_violations(text, terms)],
        "terms": terms.digest,
    }


def structure_problems(text: str, *, markdown: bool) -> list[tuple[str, str, str]]:
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
    headings = [(len(mark), title.rstrip("#").strip().lower()) for mark, title in _HEADING.findall(prose)]
    levels = [level for level, _ in headings]
    jumps = [(a, b) for a, b in pairwise(levels) if b > a + 1]
    if jumps:
        a, b = jumps[0]
        found.append(
            ("levels", f"a heading of level {b} stands below one of level {a}", "Leave out no level of headings.")
        )
    if not levels and len(prose) > 4000:
        found.append(("headings", "it is long and has no headings", "Give each part a heading."))
    titles = Counter(title for level, title in headings if title and level == 1)
    if repeated := [title for title, count in titles.items() if count > 1]:
        found.append(
            ("repeated", f"{quantity(len(repeated), 'heading is', 'headings are')} there twice", "Give each its own.")
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


def glossary_violations(text: str, terms: Glossary) -> list[tuple[str, str, int]]:
    """(forbidden word, term to be used, how often), most frequent first."""
    counts = Counter(word for word in terms.words.find_all(text) if word in terms.instead)
    return [(word, terms.instead[word], count) for word, count in counts.most_common()]


def count_personal(text: str) -> dict[str, int]:
    """How many there are of each kind of personal data; secrets have a `!` before their kind."""
    counts = Counter(f"!{one.kind}" if one.kind in SECRETS else one.kind for one in find(text))
    return dict(sorted(counts.items()))
