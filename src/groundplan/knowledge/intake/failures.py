"""Findings about documents that a run could not ingest, or must not. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import PurePosixPath
from typing import Final

from groundplan.blueprint.model import Source
from groundplan.knowledge.intake.tally import DocumentFailure
from groundplan.knowledge.parsing.prepare import READERS
from groundplan.ledger.finding import Finding

READING_KINDS: Final = ("knowledge.unreadable", "knowledge.unsupported", "knowledge.deleted_at_source")
"""The kinds of these findings."""
_NOT_SEARCHED: Final = " is not searched: "


def is_permanent(path: str, code: str) -> bool:
    """Whether a document refused with this code stays excluded until it changes, so that retrying is of no use."""
    suffix = PurePosixPath(path).suffix.lower().lstrip(".")
    return code == "document_name" or (code == "document_type" and suffix not in READERS)


def failure_findings(source: Source, failures: Sequence[DocumentFailure], blocked: Collection[str]) -> list[Finding]:
    """One finding per document that cannot be read, and per document that was deleted here but is still at its
    source."""
    return [_failure_finding(source, each) for each in failures] + [
        _blocked_finding(source, key) for key in sorted(blocked)
    ]


TRANSIENT_CODES: Final = frozenset(
    {"document_time", "document_memory", "document_heavy", "document_type", "document_scanned"}
)
"""Codes of documents that the next run may be able to read: the machine was busy, or a library is installed since."""


def restore_failure(key: str, code: str, message: str, hint: str, version: str, parser_version: str) -> DocumentFailure:
    """The failure that a finding was made from, to report it again without parsing the document."""
    return DocumentFailure(key, code, message.removeprefix(f"{key}{_NOT_SEARCHED}"), hint, version, parser_version)


def _failure_finding(source: Source, failure: DocumentFailure) -> Finding:
    unsupported = failure.code == "document_type"
    return Finding(
        kind="knowledge.unsupported" if unsupported else "knowledge.unreadable",
        subject=f"source/{source.name}/{failure.key}",
        severity="info" if unsupported else "medium",
        owner=source.governed.steward or source.owner,
        message=f"{failure.key}{_NOT_SEARCHED}{failure.message}",
        hint=failure.hint,
        detail={
            "code": failure.code,
            **({"version": failure.version, "by": failure.parser_version} if failure.version else {}),
        },
    )


def _blocked_finding(source: Source, key: str) -> Finding:
    return Finding(
        kind="knowledge.deleted_at_source",
        subject=f"source/{source.name}/{key}",
        severity="medium",
        owner=source.owner,
        message=f"{key} was deleted here, and its source still has it: it stays out",
        hint="Delete it in its source too, or readmit it: `groundplan knowledge readmit`.",
    )
