"""A finding: one thing that is wrong with a subject now, said to whoever can mend it. Types only.

Every domain tells what it found as these; keeping them is `finding_store`, showing them is the inbox. A finding is
known again by its kind, subject and mark: telling it again is no second one, and not telling it any more closes it.
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
    """E-mail address of whoever is to mend it; None: whoever holds the duty."""
    mark: str = ""
    """Tells findings of one kind about one subject apart, such as the id of the other document."""
    detail: dict[str, Any] = field(default_factory=dict)
    """Figures behind the message, as JSON."""
    quote: str = ""
    """Words or values that it is about, for whoever may read these and for its owner (`finding_store.quotes`)."""
    fix: dict[str, Any] | None = None
    """What is proposed, as JSON that its domain can apply."""
    due: date | None = None

    @property
    def identity(self) -> tuple[str, str, str]:
        """(kind, subject, mark)"""
        return (self.kind, self.subject, self.mark)
