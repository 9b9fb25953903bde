"""What is told of documents that a run could not take, or must not. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import PurePosixPath
from typing import Final

from groundplan.blueprint.model import Source
from groundplan.knowledge.intake.tally import Bad
from groundplan.knowledge.parsing.prepare import READERS
from groundplan.ledger.finding import Finding

READING: Final = ("knowledge.unreadable", "knowledge.unsupported", "knowledge.deleted_at_source")
"""Kinds of these findings."""
_NOT_SEARCHED: Final = " is not searched: "


def for_good(path: str, code: str) -> bool:
    """Whether a document that was refused with that code stays out until it is changed: looking again is of no use."""
    suffix = PurePosixPath(path).suffix.lower().lstrip(".")
    return code == "document_name" or (code == "document_type" and suffix not in READERS)


def failures(source: Source, bad: Sequence[Bad], blocked: Collection[str]) -> list[Finding]:
    """A finding for each document that cannot be read, and for each that was deleted here and is there still."""
    return [_failure(source, each) for each in bad] + [_blocked(source, key) for key in sorted(blocked)]


MAY_PASS: Final = frozenset({"document_time", "document_memory", "document_heavy", "document_type", "document_scanned"})
"""Codes of what may be read at the next look: the machine was busy, or a library is installed since."""


def told_before(key: str, code: str, message: str, hint: str, version: str, by: str) -> Bad:
    """What a finding says of a document, to be told again without a look at it."""
    return Bad(key, code, message.removeprefix(f"{key}{_NOT_SEARCHED}"), hint, version, by)


def _failure(source: Source, bad: Bad) -> Finding:
    unsupported = bad.code == "document_type"
    return Finding(
        kind="knowledge.unsupported" if unsupported else "knowledge.unreadable",
        subject=f"source/{source.name}/{bad.key}",
        severity="info" if unsupported else "medium",
        owner=source.governed.steward or source.owner,
        message=f"{bad.key}{_NOT_SEARCHED}{bad.message}",
        hint=bad.hint,
        detail={"code": bad.code, **({"version": bad.version, "by": bad.by} if bad.version else {})},
    )


def _blocked(source: Source, key: str) -> Finding:
    return Finding(
        kind="knowledge.deleted_at_source",
        subject=f"source/{source.name}/{key}",
        severity="medium",
        owner=source.owner,
        message=f"{key} was deleted here, and its source still has it: it stays out",
        hint="Delete it in its source too, or readmit it: `groundplan knowledge readmit`.",
    )
