"""Findings of an import about each setting: carried over, changed, without an equivalent, or missing.

A finding names places and keys, models, variables and amounts of money, but never other values, since a value may be a
secret. Types only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from groundplan.core.errors import Where

CARRIED = "carried"
"""It means the same here."""
CHANGED = "changed"
"""Its equivalent differs as the finding says."""
NO_EQUAL = "no_equal"
"""There is no equivalent; the finding says why, and what to do."""
NO_PRICE = "no_price"
NO_OWNER = "no_owner"
SECRET = "secret"  # a word of the verdict
"""The file has a literal secret, which was not copied."""
NEEDED = "needed"
"""Something that only people know has to be filled in."""
STATES = (SECRET, NO_PRICE, NO_OWNER, NEEDED, NO_EQUAL, CHANGED, CARRIED)
"""In the order of display: what needs action first."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one setting of the imported file."""

    state: str
    what: str
    """The setting as its file names it, such as `router_settings.num_retries`."""
    here: str
    """Its equivalent here, or why there is none."""
    todo: str
    """What has to be done; empty: nothing."""
    where: Where

    def body(self) -> dict[str, str]:
        return {
            "state": self.state, "what": self.what, "here": self.here, "todo": self.todo,
            "where": f"{self.where.file}:{self.where.line}",
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of an import: the workspace and the findings."""

    files: Mapping[str, str]
    """Relative path -> YAML of a workspace that passes `check`."""
    findings: tuple[Finding, ...]
    models: int
    """Entries of the model list."""
    deployments: int
    """Number of those that became a callable deployment."""
    workloads: int
    served: int
    """Number of workloads that have everything they need to be called."""

    def counts(self) -> dict[str, int]:
        """Number of findings by state, for every state."""
        found = Counter(finding.state for finding in self.findings)
        return {state: found[state] for state in STATES}

    def summary(self) -> str:
        """`12 models, 3 without price, 5 without owner, 7 settings without an equal`"""
        count = self.counts()
        words = [_count(self.models, "model")]
        words += [f"{count[NO_PRICE]} without price", f"{count[NO_OWNER]} without owner"]
        words.append(f"{_count(count[NO_EQUAL], 'setting')} without an equal")
        if count[SECRET]:
            words.append(f"{_count(count[SECRET], 'secret')} not copied")
        if count[NEEDED]:
            words.append(f"{_count(count[NEEDED], 'thing')} to fill in")
        return ", ".join(words)

    def body(self) -> dict[str, Any]:
        """As `--json` prints it."""
        count = self.counts()
        return {
            "summary": self.summary(), "models": self.models, "deployments": self.deployments,
            "workloads": self.workloads, "served": self.served, "without_price": count[NO_PRICE],
            "without_owner": count[NO_OWNER], "without_equal": count[NO_EQUAL], "secrets": count[SECRET],
            "to_fill_in": count[NEEDED], "changed": count[CHANGED], "carried": count[CARRIED],
            "findings": [finding.body() for finding in self.findings],
        }  # fmt: skip


def sort_findings(findings: list[Finding]) -> tuple[Finding, ...]:
    """Findings without duplicates, by state (what needs action first), then by place."""

    def place(finding: Finding) -> tuple[int, str, int, str]:
        return STATES.index(finding.state), finding.where.file, finding.where.line, finding.what

    return tuple(sorted(dict.fromkeys(findings), key=place))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
