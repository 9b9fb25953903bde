"""Warnings about deployments of a workload whose every call its own guardrails or reviews refuse: images, sound and
conversations, which cannot be checked before they are sent. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator

from groundplan.catalog import model as doc
from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import Problem
from groundplan.governance.guardrails.guard import Guard
from groundplan.release.compile.governance import compile_guardrails

_UNREVIEWABLE = ("images", "speech", "realtime")
"""types of deployments whose answers cannot be shown to a person first"""


def warnings(workspace: Workspace, item: doc.WorkloadDoc) -> Iterator[Problem]:
    """The warnings about one workload."""
    rules = compile_guardrails(item.guardrails)
    guard = None if rules is None or rules.shadow else Guard.of(rules)
    for i, name in enumerate(item.also):
        place = workspace.deployments.get(name)
        found = None if place is None else _refusal_reason(item, guard, place.type)
        if found is not None:
            reason, hint = found
            yield Problem(
                f"every call of {name} is refused for {item.name}: {reason}",
                "never_answered",
                f"Leave it out of `also`, or {hint}.",
                workspace.where("workload", item.name, "also", i),
            )


def _refusal_reason(item: doc.WorkloadDoc, guard: Guard | None, kind: str) -> tuple[str, str] | None:
    """(reason, hint) if calls of deployments of this type are always refused, else None."""
    all_wait = item.review.before_sending and item.review.share == 1
    if item.review.before_sending and kind in _UNREVIEWABLE and (all_wait or kind == "realtime"):
        return f"answers of {kind} cannot wait for a person", "leave `review` to another workload"
    if guard is None:
        return None
    checks = [*guard.whole_answer_checks, *(["presidio"] if guard.presidio_input else [])]
    if kind == "realtime" and checks:
        message = f"a conversation does not wait for the checks {', '.join(dict.fromkeys(checks))}"
        return message, "leave these to another workload"
    unseen = {
        "images": ("image", not guard.output.is_empty or bool(guard.whole_answer_checks), "answer"),
        "speech": ("audio", bool(guard.whole_answer_checks), "answer"),
        "transcription": ("audio", guard.checks_input, "request"),
    }
    what, demanded, subject = unseen.get(kind, ("", False, ""))
    if not demanded or what in guard.unchecked:
        return None
    message = f"its checks cannot look at the {what} of a{'n' if subject == 'answer' else ''} {subject}"
    return message, f"write `guardrails: {{unchecked: {what}}}`"
