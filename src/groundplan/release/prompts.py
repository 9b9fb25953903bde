"""Versions of prompts as they were served: their text, in which blueprints and for which workloads; differences, and
versions whose text changed. Going back makes a new version with an old text: numbers never go back. Decides nothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from groundplan.blueprint.artifact import BlueprintPrompts, PromptUse
from groundplan.blueprint.model import Blueprint, Workload
from groundplan.core import canonical
from groundplan.core.errors import NotFound
from groundplan.ledger.finding import Finding

PROMPT_CHANGED = "governance.prompt_changed"


@dataclass(slots=True)
class Version:
    """One text of a prompt under its number. `blueprints`: the first and the last that served it."""

    number: int
    text: str
    digest: str
    blueprints: tuple[int, int]
    served_at: datetime
    by: str
    reason: str
    workloads: set[str] = field(default_factory=set)

    def to_json(self) -> dict[str, Any]:
        first, last = self.blueprints
        return {
            "version": self.number, "text": self.text, "digest": self.digest, "first_blueprint": first,
            "last_blueprint": last, "served_at": self.served_at, "by": self.by, "reason": self.reason,
            "workloads": sorted(self.workloads),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class ServedPrompts:
    """A blueprint, or only its prompts, with when, by whom and why it was made."""

    blueprint: Blueprint | BlueprintPrompts
    at: datetime
    by: str
    reason: str


VersionsByPrompt = dict[str, dict[tuple[int, str], Version]]
"""Prompt -> (number, digest) -> version."""


def add_blueprint(found: VersionsByPrompt, served: ServedPrompts) -> None:
    """Add the prompts of a blueprint, which must be newer than those added before."""
    number = served.blueprint.number
    for workload in served.blueprint.workloads:
        if workload.prompt is None or workload.system_prompt is None:
            continue
        name, _, version = workload.prompt.partition("@")
        digest = canonical.digest(workload.system_prompt.encode())
        known = found.setdefault(name, {})
        key = (int(version), digest)
        version_entry = known.get(key)
        if version_entry is None:
            version_entry = known[key] = Version(
                int(version), workload.system_prompt, digest, (number, number), served.at, served.by, served.reason
            )
        version_entry.blueprints = (version_entry.blueprints[0], number)
        version_entry.workloads.add(workload.name)


def versions_newest_first(found: VersionsByPrompt) -> dict[str, list[Version]]:
    """Prompt -> copies of its versions, the newest first."""
    return {
        name: [replace(each, workloads=set(each.workloads)) for each in sorted(known.values(), key=_newest)]
        for name, known in sorted(found.items())
    }


def _newest(version: Version) -> tuple[int, int, int]:
    first, last = version.blueprints
    return (-last, -version.number, -first)


def find_version(known: list[Version], wanted: str) -> Version:
    """A version by its number, or by the beginning of its digest where a number had several texts.

    Raises `NotFound` (`version_unknown`).
    """
    by_digest = [each for each in known if len(wanted) >= 8 and each.digest.startswith(wanted)]
    found = by_digest or [each for each in known if str(each.number) == wanted]
    if not found:
        listed = ", ".join(str(number) for number in sorted({each.number for each in known}))
        raise NotFound(f"there is no version {wanted[:64]}", code="version_unknown", hint=f"There are: {listed}.")
    return found[0]


def reworded_prompts(known: Mapping[str, list[Version]], blueprint: Blueprint | BlueprintPrompts) -> list[Finding]:
    """A finding for each prompt of a blueprint whose text changed under the same version: what was evaluated or
    approved under that number is not what is sent now. High for production; it ends with another version number."""
    found: dict[tuple[str, str, str], Finding] = {}
    served: list[Workload | PromptUse] = [*blueprint.workloads]
    for workload in sorted(served, key=lambda item: item.stage != "production"):
        if workload.prompt is None or workload.system_prompt is None:
            continue
        name, _, version = workload.prompt.partition("@")
        digest = canonical.digest(workload.system_prompt.encode())
        others = [each for each in known.get(name, ()) if each.number == int(version) and each.digest != digest]
        if not others:
            continue
        earlier = others[0]
        finding = Finding(
            kind=PROMPT_CHANGED, subject=f"prompt/{name}", mark=digest[:16],
            severity="high" if workload.stage == "production" else "medium",
            message=f"The prompt {name} has another text under version {version} than in blueprints "
            f"{earlier.blueprints[0]} to {earlier.blueprints[1]}.",
            hint=f"Give it another version and apply. What changed: `groundplan prompts diff {name} "
            f"{earlier.digest[:12]} {digest[:12]}`.",
            detail={"version": int(version), "before": earlier.digest, "now": digest},
        )  # fmt: skip
        found.setdefault(finding.identity, finding)
    return list(found.values())


def line_difference(old: str, new: str) -> list[dict[str, str]]:
    """The difference of two texts, line by line: `{"sign": " " | "-" | "+", "text"}`."""
    lines = difflib.ndiff(old.splitlines(), new.splitlines())
    return [{"sign": line[0], "text": line[2:]} for line in lines if line[0] != "?"]
