"""The checks of one place of one workload (input, passages or output), compiled once for each blueprint. Pure.

`Checks.find_hits` finds what a text contains; `guard` applies the actions. Checks that need a complete answer (schema,
judge and others) are not here.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from urllib.parse import urlsplit

from groundplan.blueprint.model import CompanyEntity
from groundplan.core import detect
from groundplan.governance.guardrails.injection import injection_signs
from groundplan.governance.guardrails.json_escapes import LEVELS, UnescapedText
from groundplan.governance.guardrails.language import disallowed_language
from groundplan.governance.guardrails.model import Hit

_PERSONAL, _SECRETS = frozenset(detect.PERSONAL), frozenset(detect.SECRETS)
_LINK = re.compile(r"(?:https?|ftp)://[^\s<>\"'`\])}]{1,2000}|(?<![\w@.])www\.[^\s<>\"'`\])}]{3,2000}", re.IGNORECASE)
_LONGEST_LINK = 2100
_TRAILING = ".,;:!?"


@dataclass(frozen=True, slots=True)
class CompanyPatterns:
    """The company's own patterns of personal data and of secrets, as (kind, pattern)."""

    personal: tuple[tuple[str, re.Pattern[str]], ...] = ()
    secret: tuple[tuple[str, re.Pattern[str]], ...] = ()

    @classmethod
    def of(cls, entities: Iterable[CompanyEntity]) -> CompanyPatterns:
        compiled = [(entity.secret, entity.name.replace("-", "_"), re.compile(entity.pattern)) for entity in entities]
        return cls(
            tuple((name, pattern) for secret, name, pattern in compiled if not secret),
            tuple((name, pattern) for secret, name, pattern in compiled if secret),
        )


@dataclass(frozen=True, slots=True)
class Checks:
    """The checks of one place. `actions`: check -> flag | mask | drop | block; a check not in it does not run."""

    place: str
    """input | passages | output"""
    actions: Mapping[str, str] = field(default_factory=dict)
    company: CompanyPatterns = CompanyPatterns()
    deny: re.Pattern[str] | None = None
    links: frozenset[str] | None = None
    max_bytes: int | None = None
    languages: frozenset[str] = frozenset()

    @property
    def is_empty(self) -> bool:
        """Whether no check is declared."""
        return not (self.actions or self.deny or self.links is not None or self.max_bytes is not None or self.languages)

    @property
    def has_span_checks(self) -> bool:
        """Whether a check finds parts of a text rather than judging all of it."""
        own = {"personal_data", "secrets"} & set(self.actions)
        return bool(own) or self.deny is not None or self.links is not None

    def find_hits(self, text: str, *, inject: bool = True, json: bool = False) -> list[Hit]:
        """All hits: those with a span first, in order and without overlaps. `inject`: also check for injection; `json`:
        see `find_spans`."""
        hits = self.find_spans(text, json=json)
        if inject and "injection" in self.actions and (found := injection_signs(text)).is_labelled:
            hits.append(Hit("injection", self.actions["injection"], kind=found.names[0]))
        if self.languages and (spoken := disallowed_language(text, self.languages)):
            hits.append(Hit("languages", "block", kind=spoken))
        return hits

    def find_spans(self, text: str, *, json: bool = False) -> list[Hit]:
        """Hits with a span: personal data, secrets, denied words, links. `json`: the text is JSON, or a part of it, so
        that what its escapes hide is found, too."""
        hits = self._find_raw_spans(text)
        return _without_overlaps(self._find_escaped_spans(text, hits) if json and "\\" in text else hits)

    def _find_escaped_spans(self, text: str, hits: list[Hit], levels: int = LEVELS) -> list[Hit]:
        """Hits in JSON without its escapes, and in JSON that is a text of it, down to `levels`; then those of `hits`,
        found in the raw text, that overlap none of them. No hit begins or ends within an escape: what is left of it
        would be read as another one."""
        unescaped = UnescapedText(text)
        inner = self._find_raw_spans(unescaped.text)
        if levels > 1 and "\\" in unescaped.text and unescaped.text != text:
            inner = self._find_escaped_spans(unescaped.text, inner, levels - 1)
        found = [
            replace(hit, start=unescaped.raw_position(hit.start), end=unescaped.raw_position(hit.end)) for hit in inner
        ]
        by_check: dict[str, list[Hit]] = {}
        for hit in found:
            by_check.setdefault(hit.check, []).append(hit)
        by_check = {check: _without_overlaps(each) for check, each in by_check.items()}
        others = [
            replace(
                hit, start=unescaped.escape_span(hit.start)[0], end=max(hit.end, unescaped.escape_span(hit.end - 1)[1])
            )
            for hit in hits
            if not _overlaps_any(by_check.get(hit.check, []), hit)
        ]
        return found + others

    def _find_raw_spans(self, text: str) -> list[Hit]:
        hits = self._find_entities(text)
        if self.deny is not None:
            longest = len(self.deny.pattern)  # no denied word is longer than the pattern that lists them all
            hits += [Hit("deny", "block", m.start(), m.end()) for m in detect.matches(self.deny, text, longest)]
        if self.links is not None and ("://" in text or "www." in text.lower()):
            hits += self._find_links(text, self.links)
        return hits

    def _find_entities(self, text: str) -> list[Hit]:
        personal, secret = self.actions.get("personal_data"), self.actions.get("secrets")
        if personal is None and secret is None:
            return []
        kinds = (_PERSONAL if personal else frozenset()) | (_SECRETS if secret else frozenset())
        hits = []
        for found in detect.find(text, kinds=kinds):
            check, action = ("secrets", secret) if found.kind in _SECRETS else ("personal_data", personal)
            hits.append(Hit(check, action or "flag", found.start, found.end, found.kind))
        for check, declared, patterns in (
            ("personal_data", personal, self.company.personal),
            ("secrets", secret, self.company.secret),
        ):
            for name, pattern in patterns if declared else ():
                hits += [Hit(check, declared or "flag", m.start(), m.end(), name) for m in pattern.finditer(text)]
        return hits

    def _find_links(self, text: str, allowed: frozenset[str]) -> list[Hit]:
        hits = []
        for match in detect.matches(_LINK, text, _LONGEST_LINK):
            link = match.group().rstrip(_TRAILING)
            if not _is_allowed(link, allowed):
                hits.append(Hit("links", "mask", match.start(), match.start() + len(link), "link"))
        return hits

    def is_too_large(self, size: int) -> bool:
        """Whether a text of `size` bytes exceeds `max_bytes`."""
        return self.max_bytes is not None and size > self.max_bytes


def deny_pattern(words: Sequence[str]) -> re.Pattern[str] | None:
    """One pattern for all words and phrases: in any case, as whole words, with up to three spaces between words. None
    if there are no words."""
    if not words:
        return None
    patterns = [
        r"\s{1,3}".join(re.escape(part) for part in word.split()) for word in sorted(words, key=len, reverse=True)
    ]
    return re.compile(r"(?<!\w)(?:" + "|".join(patterns) + r")(?!\w)", re.IGNORECASE)


def _is_allowed(link: str, hosts: frozenset[str]) -> bool:
    try:
        host = (urlsplit(link if "://" in link else f"//{link}").hostname or "").lower().rstrip(".")
    except ValueError:
        return False
    return any(host == known or host.endswith(f".{known}") for known in hosts)


def _overlaps_any(ordered: list[Hit], hit: Hit) -> bool:
    """Whether `hit` overlaps one of `ordered`, which is in order and without overlaps."""
    index = bisect_right(ordered, hit.start, key=attrgetter("end"))
    return index < len(ordered) and ordered[index].start < hit.end


def _without_overlaps(hits: list[Hit]) -> list[Hit]:
    """The hits in order. Of two that overlap the stricter is kept and covers both, so that nothing of either stays in
    the text."""
    if len(hits) < 2:
        return hits
    order = ("flag", "mask", "drop", "block").index
    hits.sort(key=lambda hit: (hit.start, -hit.end))
    kept = [hits[0]]
    for hit in hits[1:]:
        last = kept[-1]
        if hit.start >= last.end:
            kept.append(hit)
        else:
            strict = max(last, hit, key=lambda each: order(each.action))
            kept[-1] = Hit(strict.check, strict.action, last.start, max(last.end, hit.end), strict.kind)
    return kept
