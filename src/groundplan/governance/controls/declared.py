"""Checks of the framework documents of a workspace; each problem with its line. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from groundplan.catalog.frameworks import FrameworkDoc
from groundplan.catalog.validation_errors import suggestion
from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import Problem
from groundplan.governance.controls.checks import CHECKS
from groundplan.governance.controls.model import DOCUMENT
from groundplan.governance.controls.shipped import NAMES, shipped


def problems(workspace: Workspace) -> list[Problem]:
    """Unknown profiles, controls and checks; duplicate identifiers; frameworks without controls."""
    return [found for name, doc in workspace.frameworks.items() for found in _problems(workspace, name, doc)]


def _problems(workspace: Workspace, name: str, doc: FrameworkDoc) -> Iterator[Problem]:
    base = shipped(name) if name in NAMES else None
    profiles = set(base.profiles) if base else set()
    known = {control.id for control in base.controls} if base else set()
    if doc.profile is not None and doc.profile not in profiles:
        yield Problem(
            f"{name} has no profile {doc.profile}", "framework_profile", suggestion(doc.profile, profiles, "profile"),
            workspace.where("framework", name, "profile"),
        )  # fmt: skip
    elif base is not None and doc.profile is not None:
        known = set(base.profiles[doc.profile])
    if base is None and not doc.controls:
        yield Problem(
            f"{name} has no controls", "framework_empty",
            f"List controls: with id, title and needs, or take one that is shipped: {', '.join(NAMES)}.",
            workspace.where("framework", name),
        )  # fmt: skip
    for i, own in enumerate(doc.controls):
        if own.id in known:
            yield Problem(
                f"the control {own.id} is there twice", "framework_twice", "Give your own another id.",
                workspace.where("framework", name, "controls", i),
            )  # fmt: skip
        known.add(own.id)
        for need in own.needs:
            if need != DOCUMENT and need not in CHECKS:
                yield Problem(
                    f"there is no check {need}", "framework_check", suggestion(need, {*CHECKS, DOCUMENT}, "check"),
                    workspace.where("framework", name, "controls", i),
                )  # fmt: skip
    named = [("excluded", i, each.control) for i, each in enumerate(doc.excluded)]
    named += [("amended", i, control) for i, each in enumerate(doc.amended) for control in each.controls]
    for field, i, control in named:
        if control not in known:
            yield Problem(
                f"{name} has no control {control} here", "framework_control",
                suggestion(control, known, "control"), workspace.where("framework", name, field, i),
            )  # fmt: skip
