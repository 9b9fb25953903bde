"""Everything that governance finds wrong with a workspace, which the catalog itself cannot read. Pure."""

from __future__ import annotations

from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import Problem
from groundplan.governance.controls import declared as controls
from groundplan.governance.policy import declared as policy


def problems(workspace: Workspace) -> list[Problem]:
    """Of policies and of frameworks, in the order of their kinds."""
    return [*policy.problems(workspace), *controls.problems(workspace)]
