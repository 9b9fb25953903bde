"""Frameworks shipped with Groundplan, and their application to a company. Titles are our own; no text of norms."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import date
from functools import cache
from importlib import resources

from groundplan.catalog.frameworks import FrameworkDoc
from groundplan.core.errors import Invalid
from groundplan.governance.controls.model import Amendment, AppliedFramework, Control, Framework

NAMES = ("nist-ai-rmf", "nist-ai-600-1", "eu-ai-act", "iso-42001", "owasp-llm-2025")


@cache
def shipped(name: str) -> Framework:
    """The shipped framework of that name. Raises `Invalid` (`framework_unknown`)."""
    if name not in NAMES:
        raise Invalid(
            f"there is no framework {name}", code="framework_unknown", hint=f"Take one of {', '.join(NAMES)}."
        )
    file = resources.files("groundplan.governance.controls") / "frameworks" / f"{name}.json"
    raw = json.loads(file.read_text(encoding="utf-8"))
    return Framework(
        name=raw["name"],
        title=raw["title"],
        source=raw["source"],
        as_of=date.fromisoformat(raw["as_of"]),
        note=raw["note"],
        controls=tuple(Control(each["id"], each["title"], tuple(each["needs"])) for each in raw["controls"]),
        profiles={profile: frozenset(ids) for profile, ids in raw["profiles"].items()},
        amended=tuple(
            Amendment(date.fromisoformat(each["on"]), each["what"], each["source"], frozenset(each["controls"]))
            for each in raw.get("amended", ())
        ),
    )


def apply_framework(doc: FrameworkDoc, owner: str, served: Iterable[str], today: date) -> AppliedFramework:
    """The framework of a document, applied to its workloads among `served`. Raises `Invalid` for an unknown profile or
    excluded control."""
    if doc.name in NAMES:
        base = shipped(doc.name)
    else:
        base = Framework(doc.name, doc.title or doc.name, "declared", today, "", ())
    chosen = base.controls
    if doc.profile is not None:
        if doc.profile not in base.profiles:
            known = ", ".join(sorted(base.profiles)) or "it has none"
            raise Invalid(
                f"{doc.name} has no profile {doc.profile}", code="framework_profile", hint=f"Profiles: {known}."
            )
        chosen = tuple(each for each in chosen if each.id in base.profiles[doc.profile])
    own = tuple(Control(each.id, each.title, tuple(each.needs)) for each in doc.controls)
    controls = (*chosen, *own)
    ids = {each.id for each in controls}
    unknown = [each.control for each in doc.excluded if each.control not in ids]
    if unknown:
        raise Invalid(
            f"{doc.name} has no control {', '.join(unknown)} here", code="framework_control",
            hint="Exclude only controls of the framework, or of the profile, by their identifier.",
        )  # fmt: skip
    names = tuple(sorted(set(served) & set(doc.workloads))) if doc.workloads else tuple(sorted(served))
    own_changes = (Amendment(each.on, each.what, each.source, frozenset(each.controls)) for each in doc.amended)
    excluded = {each.control: each.reason for each in doc.excluded}
    return AppliedFramework(base, owner, controls, names, excluded, (*base.amended, *own_changes))
