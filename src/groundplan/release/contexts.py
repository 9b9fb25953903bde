"""How many tokens fit a deployment, and an answer of it: as it says, else as its model's document does, else as the
price list, which knows no answers.

Where all that fits is reserved, and nobody says how much that is, a bound would be made up: that is a problem. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from groundplan.catalog import model as doc
from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import Problem
from groundplan.economics.prices import listed

ANSWER = 4096
"""Tokens of an answer where nobody says how many."""
UNKNOWN = 8192
"""Where nobody says it, and nothing is reserved by it."""
_FILE, _REALTIME = "file", "realtime"


def context_of(workspace: Workspace, item: doc.DeploymentDoc) -> int:
    return _known(workspace, item) or UNKNOWN


def answer_of(workspace: Workspace, item: doc.DeploymentDoc) -> int:
    """The most tokens of an answer."""
    described = workspace.models.get(item.model)
    said = described.max_output if item.max_output is None and described is not None else item.max_output
    return ANSWER if said is None else said


def problems(workspace: Workspace) -> Iterator[Problem]:
    """Deployments that read files or hold conversations without a bound of what that costs."""
    for name, item in workspace.deployments.items():
        what = "accepts files" if _FILE in item.accepts else "holds conversations" if item.type == _REALTIME else ""
        if what and _known(workspace, item) is None:
            yield Problem(
                f"deployment {name} {what} without a bound of what one costs",
                "context_unbounded",
                "Write context: the most tokens of prompt and answer together that its model takes, such as 128k.",
                workspace.where("deployment", name, "accepts" if _FILE in item.accepts else "type"),
            )


def _known(workspace: Workspace, item: doc.DeploymentDoc) -> int | None:
    if item.context is not None:
        return item.context
    described = workspace.models.get(item.model)
    return (described.context if described is not None else None) or listed.context(item.model)
