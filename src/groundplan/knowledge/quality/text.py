"""Checks the text of a document: structure, words of the glossary, personal data and secrets. Pure."""

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
_REPLACEMENT_CHARACTER = "�"
_WORD = re.compile(r"\w+")
_DOTLESS_I = str.maketrans("İı", "ii")
"""Turkish letters that count as i, which `casefold` alone does not do."""


@dataclass(frozen=True, slots=True)
class PhraseMatcher:
    """Finds words and phrases in texts, as whole words and in any case. With thousands of phrases a text costs as much
    as with one: the words of the text are looked up among the phrases, not each phrase at each place of the text."""

    by_first_word: Mapping[str, Sequence[tuple[str, re.Pattern[str]]]]
    """First word -> (phrase, its pattern), longest first."""
    others: re.Pattern[str] | None
    """Phrases that do not begin with a word, or that are in a script without spaces."""
    originals: Mapping[str, str]
    """For `others`: folded text with single spaces -> the phrase."""

    def find_all(self, text: str) -> Iterator[str]:
        """The phrase at each place in the text that no earlier match overlaps; the longest one at a place."""
        text, end = _fold(text), 0
        next_other = self._next_other_match(text, 0)
        for word in _WORD.finditer(text) if self.by_first_word else ():
            match = self._match_at(text, word) if word.start() >= end else None
            if match is None:
                continue
            while next_other is not None and (next_other.start(), -next_other.end()) < (word.start(), -match[1]):
                if next_other.start() >= end:
                    yield self.originals[" ".join(next_other[0].split())]
                    end = next_other.end()
                next_other = self._next_other_match(text, end)
            if word.start() >= end:
                yield match[0]
                end = match[1]
        while next_other is not None:
            if next_other.start() >= end:
                yield self.originals[" ".join(next_other[0].split())]
                end = next_other.end()
            next_other = self._next_other_match(text, end)

    def _match_at(self, text: str, word: re.Match[str]) -> tuple[str, int] | None:
        """The phrase that begins with this word, and the offset of its end."""
        for phrase, pattern in self.by_first_word.get(word[0], ()):
            if (here := pattern.match(text, word.start())) is not None:
                return phrase, here.end()
        return None

    def _next_other_match(self, text: str, start: int) -> re.Match[str] | None:
        return None if self.others is None else self.others.search(text, start)


def phrase_matcher(words: Iterable[str]) -> PhraseMatcher:
    """A matcher of these words and phrases."""
    by_first_word: dict[str, list[tuple[str, re.Pattern[str]]]] = defaultdict(list)
    others: dict[str, list[str]] = defaultdict(list)
    originals: dict[str, str] = {}
    for word in sorted(words, key=len, reverse=True):
        folded = _fold(word)
        after = "" if RUN.match(folded[-1:]) else r"(?!\w)"
        written = r"\s+".join(map(re.escape, folded.split())) + after
        begins = _WORD.match(folded)
        if begins is not None and RUN.search(folded) is None:
            by_first_word[begins[0]].append((word, re.compile(written)))
        else:
            originals.setdefault(" ".join(folded.split()), word)
            others[folded[:1]].append(written.removeprefix(re.escape(folded[:1])))
    before = {char: "" if RUN.match(char) else r"(?<!\w)" for char in others}
    parts = [f"{before[char]}{re.escape(char)}(?:{'|'.join(rest)})" for char, rest in others.items()]
    return PhraseMatcher(by_first_word, re.compile("|".join(parts)) if parts else None, originals)


def _fold(text: str) -> str:
    """The text in the form in which it is compared: without distinctions of case."""
    return text.translate(_DOTLESS_I).casefold()


@dataclass(frozen=True, slots=True)
class Glossary:
    """Forbidden words, and the term to use instead of each; `words` matches these and the titles that contain one."""

    words: PhraseMatcher
    instead: Mapping[str, str]
    digest: str


def glossary(terms: Sequence[Term]) -> Glossary:
    """The glossary of these terms. A forbidden use is a whole word or phrase, in any case; a term's own title is never
    one, nor is a word within the complete title. In scripts without spaces, ends of words are not known."""
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
    """The result of a scan as JSON: `structure`: (code, message, hint); `glossary`: (word, term, count); `terms`:
    digest of the glossary."""
    return {
        "structure": [list(each) for each in structure_problems(text, markdown=markdown)],
        "glossary": [list(each) for each in glossary_violations(text, terms)],
        "terms": terms.digest,
    }


def structure_problems(text: str, *, markdown: bool) -> list[tuple[str, str, str]]:
    """(code, message, hint) of problems that make a document hard to cut and to quote."""
    found: list[tuple[str, str, str]] = []
    if not text.strip():
        return [("empty", "it has no text", "Write it, or delete it.")]
    if _REPLACEMENT_CHARACTER in text:
        found.append(
            ("encoding", "some characters were lost in a wrong encoding", "Save it as UTF-8 from its original.")
        )
    if match := _PLACEHOLDER.search(text):
        said = "has a note of what to fill in" if match[0].startswith("[") else f"says '{match[0][:40]}'"
        found.append(("placeholder", f"it still {said}", "Finish it, or mark it `state: draft`."))
    if markdown:
        found += _markdown_problems(text)
    return found


def _markdown_problems(text: str) -> list[tuple[str, str, str]]:
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
    if rows and len(widths) > 1 and _has_ragged_table(prose):
        found.append(
            ("table", "the rows of a table have different numbers of cells", "Give each row as many as the head.")
        )
    return found


def _has_ragged_table(text: str) -> bool:
    """Whether a table (consecutive lines) has rows of different width."""
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
    """(forbidden word, term to use instead, count), most frequent first."""
    counts = Counter(word for word in terms.words.find_all(text) if word in terms.instead)
    return [(word, terms.instead[word], count) for word, count in counts.most_common()]


def count_personal(text: str) -> dict[str, int]:
    """Number of occurrences of each kind of personal data; kinds of secrets are prefixed with `!`."""
    counts = Counter(f"!{one.kind}" if one.kind in SECRETS else one.kind for one in find(text))
    return dict(sorted(counts.items()))
