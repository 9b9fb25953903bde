"""What one run over a source counts, and the documents that it could not take."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from groundplan.knowledge.parsing.text import clean
from groundplan.ledger.finding import Finding


@dataclass(frozen=True, slots=True)
class Bad:
    """A document that is not searched, and why."""

    key: str
    code: str
    message: str
    hint: str
    version: str = ""
    """Which one a parser refused; empty where the reason is another one."""
    by: str = ""
    """Which parsers."""


@dataclass(slots=True)
class Tally:
    """Counts of one run, and what a person should look at."""

    read: int = 0
    added: int = 0
    changed: int = 0
    deleted: int = 0
    readers_changed: int = 0
    chunks: int = 0
    kept: int = 0
    """Versions of documents that a legal hold keeps though they changed, went or cannot be read."""
    bad: list[Bad] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    blocked: set[str] = field(default_factory=set)
    tables: dict[str, list[Finding]] = field(default_factory=dict)
    """What checks found in the tables of each document, and of the source itself (empty)."""
    checks: str | None = None
    """By which checks."""
    checked: set[UUID] = field(default_factory=set)
    """Documents whose tables were looked at: noted with what was found, so that a run which is cut off before it tells
    that is no look."""

    def tell(self, key: str, code: str, message: str, hint: str, version: str = "", by: str = "") -> None:
        """A document that is not taken over as it is."""
        self.bad.append(Bad(key, code, clean(message), hint, version, by))
        self.seen.add(key)
