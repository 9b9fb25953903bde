"""The counts of one run over a source, and the documents that it could not ingest."""

from __future__ import annotations

from dataclasses import dataclass, field
from uuid import UUID

from groundplan.knowledge.parsing.text import clean
from groundplan.ledger.finding import Finding


@dataclass(frozen=True, slots=True)
class DocumentFailure:
    """Why a document was not ingested."""

    key: str
    code: str
    message: str
    hint: str
    version: str = ""
    """The version that a parser refused; empty where the reason is another one."""
    parser_version: str = ""
    """The parsers that refused it."""


@dataclass(slots=True)
class Tally:
    """Counts of one run, and what to report about it."""

    read: int = 0
    added: int = 0
    changed: int = 0
    deleted: int = 0
    readers_changed: int = 0
    chunks: int = 0
    held_versions: int = 0
    """How many versions a legal hold kept of documents that changed, were deleted or became unreadable."""
    failures: list[DocumentFailure] = field(default_factory=list)
    seen_keys: set[str] = field(default_factory=set)
    deleted_keys: set[str] = field(default_factory=set)
    blocked_keys: set[str] = field(default_factory=set)
    tables: dict[str, list[Finding]] = field(default_factory=dict)
    """Document key -> findings of the checks in its tables; the empty key is the source itself."""
    checks: str | None = None
    """Fingerprint of the checks; None: no checks are declared."""
    checked_documents: set[UUID] = field(default_factory=set)
    """Documents whose tables were checked. Stored together with the findings, so that a run which is cut off before it
    reports them does not count as a check."""

    def record_failure(
        self, key: str, code: str, message: str, hint: str, version: str = "", parser_version: str = ""
    ) -> None:
        """Note a document that could not be ingested."""
        self.failures.append(DocumentFailure(key, code, clean(message), hint, version, parser_version))
        self.seen_keys.add(key)
