"""A finding: something that is wrong with a subject now, reported to the person who can fix it. Types only.

Every domain reports its findings as these; `finding_store` stores them, the inbox shows them. A finding is identified
by kind, subject and mark: reporting it again updates it, and a full report without it closes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final, Literal

Severity = Literal["critical", "high", "medium", "low", "info"]
SEVERITIES: Final[tuple[Severity, ...]] = ("critical", "high", "medium", "low", "info")
"""The gravest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """`kind` is `domain.what`, such as `knowledge.stale` or `cost.anomaly`."""

    kind: str
    subject: str
    """`workload/NAME`, `source/NAME`, `document/ID`, `site/NAME`, `budget/NAME`, `company`, ..."""
    message: str
    """What is wrong, in a sentence for the owner and for everybody with a duty: no words of what they may not read."""
    hint: str
    """What to do."""
    severity: Severity = "medium"
    owner: str | None = None
    """E-mail address of the person to fix it; None: the holder of the responsible duty."""
    mark: str = ""
    """Distinguishes findings of one kind about one subject, such as by the id of the other document."""
    detail: dict[str, Any] = field(default_factory=dict)
    """Figures behind the message, as JSON."""
    quote: str = ""
    """Quoted words or values, only for people who may read them and for the owner (`finding_store.quotes`)."""
    fix: dict[str, Any] | None = None
    """A proposed fix, as JSON that the finding's domain can apply."""
    due: date | None = None

    @property
    def identity(self) -> tuple[str, str, str]:
        """(kind, subject, mark)"""
        return (self.kind, self.subject, self.mark)
