"""Policy documents of a workspace as Cedar text, and their problems with their lines.

Pure, except for cedarpy. Rules apply only once they are in a blueprint.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from groundplan.blueprint.model import PolicyRules
from groundplan.catalog.model import PolicyDoc
from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import Invalid, Problem, Where
from groundplan.governance.policy import cedar, templates
from groundplan.governance.policy.text import statements
from groundplan.governance.policy.vocabulary import SCHEMA, named_groups

_BLOCK = re.compile(r":\s*[|>][0-9+-]*\s*(#.*)?$")


@cache
def call_schema() -> Any:
    """The parsed schema that policies about calls are checked against."""
    return cedar.parse_schema(SCHEMA)


def rules(workspace: Workspace) -> list[PolicyRules]:
    """Every policy in the form of the blueprint."""
    return [
        PolicyRules(
            name=name,
            text=_text(doc),
            owner=workspace.email_of(doc.owner),
            hint=_hint(doc),
            enforced=doc.mode == "enforce",
            closed=doc.closed,
        )
        for name, doc in workspace.policies.items()
    ]


def problems(workspace: Workspace) -> list[Problem]:
    """Problems of the policies of a workspace: syntax, types, unknown and duplicate names, values of templates."""
    found: list[Problem] = []
    for name, doc in workspace.policies.items():
        found += _form_problems(workspace, name, doc)
        if not found or all(problem.code not in ("policy_form", "policy_template") for problem in found):
            found += _cedar_problems(workspace, name, doc)
    return found + list(_duplicate_ids(workspace))


def cedar_source(workspace: Workspace, doc: PolicyDoc) -> cedar.Source:
    """The policy's Cedar text with the position of its first line. Raises KeyError if its owner is unknown."""
    key = "cedar" if doc.cedar is not None else "template"
    where = workspace.where("policy", doc.name, key)
    line = where.line
    if doc.cedar is not None:
        lines = workspace.files.get(where.file, "").splitlines()
        if len(lines) >= line and _BLOCK.search(lines[line - 1]):
            line += 1
    owner = workspace.email_of(doc.owner) if "@" in doc.owner or doc.owner in workspace.people else doc.owner
    return cedar.Source(doc.name, _text(doc), where.file, line, owner, _hint(doc))


def _text(doc: PolicyDoc) -> str:
    if doc.cedar is not None:
        return doc.cedar
    return templates.cedar_text(doc.name, doc.template, doc.values) if doc.template is not None else ""


def _hint(doc: PolicyDoc) -> str:
    if doc.hint is None and doc.template is not None:
        return templates.get_template(doc.template).hint
    return doc.hint or ""


def _form_problems(workspace: Workspace, name: str, doc: PolicyDoc) -> Iterator[Problem]:
    where = workspace.where("policy", name, "template" if doc.template is not None else "name")
    if (doc.cedar is None) is (doc.template is None):
        hint = "Write the rule under cedar, or name a template."
        yield Problem(f"policy {name} has neither cedar nor template, or both", "policy_form", hint, where)
    elif doc.template is not None and (wrong := templates.values_problem(doc.template, doc.values)):
        yield Problem(wrong, "policy_template", "See docs/policy.md for what each template takes.", where)


def _cedar_problems(workspace: Workspace, name: str, doc: PolicyDoc) -> list[Problem]:
    source = cedar_source(workspace, doc)
    try:
        made = cedar.Ruleset.of([source])
    except Invalid as error:
        first = Problem(error.message, error.code, error.hint, error.where if isinstance(error.where, Where) else None)
        return [first, *error.problems]
    fixed = doc.template is not None
    lines = [source.line if fixed else source.line + each.line - 1 for each in statements(source.text)]
    found = [
        Problem(
            f"policy {name}: {what}",
            "policy_type",
            "docs/policy.md lists what a rule may ask about a call.",
            Where(source.file, lines[min(number, len(lines) - 1)] if lines else source.line),
        )
        for number, what in cedar.validate_policies(source.text, call_schema())
    ]
    groups = {group for rule in made.rules for group in named_groups(rule.body)}
    known = {*workspace.groups, *workspace.teams}
    found += [
        Problem(
            f"policy {name} names the group {group}, which is not declared",
            "unknown_group",
            "Declare it as kind: group or team, or mend the name.",
            Where(source.file, source.line),
        )
        for group in sorted(groups - known)
    ]
    return found


def _duplicate_ids(workspace: Workspace) -> Iterator[Problem]:
    """Rules with the same @id: a denial could not say which of them it was."""
    seen: dict[str, str] = {}
    for name, doc in workspace.policies.items():
        try:
            made = cedar.Ruleset.of([cedar_source(workspace, doc)])
        except Invalid:
            continue
        for rule in made.rules:
            if (other := seen.setdefault(rule.id, rule.key)) != rule.key:
                where = rule.where or workspace.where("policy", name)
                yield Problem(
                    f"the rule {rule.id} is there twice, also as {other}", "policy_twice", "Rename one.", where
                )
