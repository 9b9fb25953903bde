"""Frameworks that come with Groundplan, and how one applies to a company. Titles are ours; no norm's text is here."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import date
from functools import cache
from importlib import resources

from groundplan.catalog.frameworks import FrameworkDoc
from groundplan.core.errors import Invalid
from groundplan.governance.controls.model import Amendment, Applied, Control, Framework

NAMES = ("nist-ai-rmf", "nist-ai-600-1", "eu-ai-act", "iso-42001", "owasp-llm-2025")


@cache
def shipped(name: str) -> Framework:
    """A framework by name. Raises `Invalid` (`framework_unknown`)."""
    if name not in NAMES:
        raise Invalid(
            f"there is no framework {name}", code="framework_unknown", hint=f"Take one of {', '.join(NAMES)}."
        )
    file = resources.files("groundplan.governance.controls") / "frameworks" / f"{name}.json"
    read = json.loads(file.read_text(encoding="utf-8"))
    return Framework(
        name=read["name"],
        title=read["title"],
        source=read["source"],
        as_of=date.fromisoformat(read["as_of"]),
        note=read["note"],
        controls=tuple(Control(each["id"], each["title"], tuple(each["needs"])) for each in read["controls"]),
        profiles={profile: frozenset(ids) for profile, ids in read["profiles"].items()},
        amended=tuple(
            Amendment(date.fromisoformat(each["on"]), each["what"], each["source"], frozenset(each["controls"]))
            for each in read.get("amended", ())
        ),
    )


def applied(doc: FrameworkDoc, owner: str, served: Iterable[str], today: date) -> Applied:
    """The framework of a document, over its workloads. Raises `Invalid` for an unknown profile or excluded control."""
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
    left_out = {each.control: each.reason for each in doc.excluded}
    return Applied(base, owner, controls, names, left_out, (*base.amended, *own_changes))
