"""Checks of a workspace that need governance: policies and frameworks. Pure."""

from __future__ import annotations

from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import Problem
from groundplan.governance.controls import declared as controls
from groundplan.governance.policy import declared as policy


def problems(workspace: Workspace) -> list[Problem]:
    """Problems of policies, then of frameworks."""
    return [*policy.problems(workspace), *controls.problems(workspace)]
