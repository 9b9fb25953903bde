"""The checks of one place of one workload (input, passages or output), compiled once for each blueprint. Pure.

`look` says what is in a text; `outcome` what is done about it. Checks that need a whole answer are `whole`.
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
from groundplan.governance.guardrails.injection import signs
from groundplan.governance.guardrails.json_escapes import LEVELS, Said
from groundplan.governance.guardrails.language import foreign
from groundplan.governance.guardrails.model import Hit

_PERSONAL, _SECRETS = frozenset(detect.PERSONAL), frozenset(detect.SECRETS)
_LINK = re.compile(r"(?:https?|ftp)://[^\s<>\"'`\])}]{1,2000}|(?<![\w@.])www\.[^\s<>\"'`\])}]{3,2000}", re.IGNORECASE)
_LONGEST_LINK = 2100
_TRAILING = ".,;:!?"


@dataclass(frozen=True, slots=True)
class Company:
    """Shapes of the company's own."""

    personal: tuple[tuple[str, re.Pattern[str]], ...] = ()
    secret: tuple[tuple[str, re.Pattern[str]], ...] = ()

    @classmethod
    def of(cls, entities: Iterable[CompanyEntity]) -> Company:
        made = [(entity.secret, entity.name.replace("-", "_"), re.compile(entity.pattern)) for entity in entities]
        return cls(
            tuple((name, pattern) for secret, name, pattern in made if not secret),
            tuple((name, pattern) for secret, name, pattern in made if secret),
        )


@dataclass(frozen=True, slots=True)
class Checks:
    """`done`: check -> flag | mask | drop | block; what is not in it is not looked for."""

    place: str
    done: Mapping[str, str] = field(default_factory=dict)
    company: Company = Company()
    deny: re.Pattern[str] | None = None
    links: frozenset[str] | None = None
    max_bytes: int | None = None
    languages: frozenset[str] = frozenset()

    @property
    def empty(self) -> bool:
        return not (self.done or self.deny or self.links is not None or self.max_bytes is not None or self.languages)

    @property
    def by_part(self) -> bool:
        """Whether there is something to look for in parts of a text."""
        own = {"personal_data", "secrets"} & set(self.done)
        return bool(own) or self.deny is not None or self.links is not None

    def look(self, text: str, *, inject: bool = True, json: bool = False) -> list[Hit]:
        """Everything found, in order and without overlaps where a place is named. `inject`: it may be an attempt;
        `json`: as of `places`."""
        hits = self.places(text, json=json)
        if inject and "injection" in self.done and (found := signs(text)).labelled:
            hits.append(Hit("injection", self.done["injection"], kind=found.found[0]))
        if self.languages and (spoken := foreign(text, self.languages)):
            hits.append(Hit("languages", "block", kind=spoken))
        return hits

    def places(self, text: str, *, json: bool = False) -> list[Hit]:
        """What has a place in the text: personal data, secrets, denied words, links. `json`: it is JSON, or a part of
        it, in which what its escapes hide is found, too."""
        hits = self._places(text)
        return _apart(self._said(text, hits) if json and "\\" in text else hits)

    def _said(self, text: str, hits: list[Hit], levels: int = LEVELS) -> list[Hit]:
        """What is found in JSON by what it says, or by what JSON says that is a text of it, and `hits`, found in it as
        it stands, that are something else. None of them begins or ends within an escape: what is left of that would be
        read as another one."""
        said = Said(text)
        below = self._places(said.text)
        if levels > 1 and "\\" in said.text and said.text != text:
            below = self._said(said.text, below, levels - 1)
        found = [replace(hit, start=said.place(hit.start), end=said.place(hit.end)) for hit in below]
        known: dict[str, list[Hit]] = {}
        for each in found:
            known.setdefault(each.check, []).append(each)
        known = {check: _apart(each) for check, each in known.items()}
        others = [
            replace(hit, start=said.escape(hit.start)[0], end=max(hit.end, said.escape(hit.end - 1)[1]))
            for hit in hits
            if not _meets(known.get(hit.check, []), hit)
        ]
        return found + others

    def _places(self, text: str) -> list[Hit]:
        hits = self._entities(text)
        if self.deny is not None:
            longest = len(self.deny.pattern)  # each of its words is written with as many characters
            hits += [Hit("deny", "block", m.start(), m.end()) for m in detect.matches(self.deny, text, longest)]
        if self.links is not None and ("://" in text or "www." in text.lower()):
            hits += self._links(text, self.links)
        return hits

    def _entities(self, text: str) -> list[Hit]:
        personal, secret = self.done.get("personal_data"), self.done.get("secrets")
        if personal is None and secret is None:
            return []
        kinds = (_PERSONAL if personal else frozenset()) | (_SECRETS if secret else frozenset())
        hits = []
        for found in detect.find(text, kinds=kinds):
            check, done = ("secrets", secret) if found.kind in _SECRETS else ("personal_data", personal)
            hits.append(Hit(check, done or "flag", found.start, found.end, found.kind))
        for check, said, shapes in (
            ("personal_data", personal, self.company.personal),
            ("secrets", secret, self.company.secret),
        ):
            for name, pattern in shapes if said else ():
                hits += [Hit(check, said or "flag", m.start(), m.end(), name) for m in pattern.finditer(text)]
        return hits

    def _links(self, text: str, allowed: frozenset[str]) -> list[Hit]:
        hits = []
        for match in detect.matches(_LINK, text, _LONGEST_LINK):
            link = match.group().rstrip(_TRAILING)
            if not _allowed(link, allowed):
                hits.append(Hit("links", "mask", match.start(), match.start() + len(link), "link"))
        return hits

    def too_large(self, size: int) -> bool:
        """Whether so many bytes are more than may be."""
        return self.max_bytes is not None and size > self.max_bytes


def denied(words: Sequence[str]) -> re.Pattern[str] | None:
    """One pattern for all words and phrases: in any case, as whole words, with any space between."""
    if not words:
        return None
    shapes = [
        r"\s{1,3}".join(re.escape(part) for part in word.split()) for word in sorted(words, key=len, reverse=True)
    ]
    return re.compile(r"(?<!\w)(?:" + "|".join(shapes) + r")(?!\w)", re.IGNORECASE)


def _allowed(link: str, hosts: frozenset[str]) -> bool:
    try:
        host = (urlsplit(link if "://" in link else f"//{link}").hostname or "").lower().rstrip(".")
    except ValueError:
        return False
    return any(host == known or host.endswith(f".{known}") for known in hosts)


def _meets(apart: list[Hit], hit: Hit) -> bool:
    """Whether one of several, in order and without overlaps, is about a part of the same text."""
    place = bisect_right(apart, hit.start, key=attrgetter("end"))
    return place < len(apart) and apart[place].start < hit.end


def _apart(hits: list[Hit]) -> list[Hit]:
    """In order; where two overlap the stricter stands, grown over both, so that nothing of either is left."""
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
            strict = max(last, hit, key=lambda each: order(each.done))
            kept[-1] = Hit(strict.check, strict.done, last.start, max(last.end, hit.end), strict.kind)
    return kept
