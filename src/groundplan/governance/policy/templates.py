"""Templates of common rules: Cedar text from a few values. Pure.

The catalog has checked that no value contains a quote or a backslash. Missing values are problems, never a weaker rule.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from groundplan.catalog.policies import TemplateValues
from groundplan.catalog.retention import DAY_MS
from groundplan.governance.model import SENSITIVITY_ORDER

_DAYS = {day: number for number, day in enumerate(("mon", "tue", "wed", "thu", "fri", "sat", "sun"), 1)}
FACTS_OF_A_CALL = 'action == Action::"call"'


@dataclass(frozen=True, slots=True)
class Template:
    """A template. `needs`: values of which at least one is required; `takes`: optional ones; `hint`: used if the policy
    has none."""

    summary: str
    needs: tuple[str, ...]
    takes: tuple[str, ...]
    hint: str
    build: Callable[[str, TemplateValues], str]


def cedar_text(name: str, template: str, values: TemplateValues) -> str:
    """Cedar text of a template, its rule called `name`."""
    return _TEMPLATES[template].build(name, values)


def get_template(name: str) -> Template:
    return _TEMPLATES[name]


def values_problem(name: str, values: TemplateValues) -> str:
    """Why the values do not fit the template, in words; empty if they do."""
    template = _TEMPLATES[name]
    present = {field for field in values.model_fields_set if getattr(values, field) not in (None, ())}
    unknown = sorted(present - {*template.takes, *template.needs, "sensitivity", "purposes", "workloads"})
    if unknown:
        return f"the template {name} has no {' and no '.join(unknown)}"
    if template.needs and not present & set(template.needs):
        return f"the template {name} needs {' or '.join(template.needs)}"
    if name == "hours" and ((values.from_hour is None) != (values.to_hour is None)):
        return "the template hours needs both from_hour and to_hour, or neither"
    return ""


def _text(value: str) -> str:
    return f'"{value}"'


def _set(values: tuple[str, ...]) -> str:
    return "[" + ", ".join(_text(value) for value in values) + "]"


def _workload_conditions(values: TemplateValues) -> list[str]:
    """Conditions on the workload; those that partial evaluation can decide come first."""
    found: list[str] = []
    if values.sensitivity is not None:
        found.append(_at_least(values.sensitivity))
    if values.purposes:
        found.append(f"resource.purposes.containsAny({_set(values.purposes)})")
    if values.workloads:
        found.append("(" + " || ".join(f"resource == Workload::{_text(name)}" for name in values.workloads) + ")")
    return found


def _at_least(least: str) -> str:
    """The condition that data has at least this sensitivity, as comparisons that partial evaluation can decide."""
    names = SENSITIVITY_ORDER[SENSITIVITY_ORDER.index(least) :]
    return "(" + " || ".join(f"resource.sensitivity == {_text(name)}" for name in names) + ")"


def _forbid(name: str, values: TemplateValues, *conditions: str, action: str = FACTS_OF_A_CALL) -> str:
    joined = " && ".join([*_workload_conditions(values), *conditions])
    return f'@id("{name}")\nforbid (principal, {action}, resource)\nwhen {{ {joined} }};\n'


def _models(name: str, values: TemplateValues) -> str:
    allowed = []
    if values.models:
        allowed.append(f"{_set(values.models)}.contains(context.model)")
    if values.providers:
        allowed.append(f"{_set(values.providers)}.contains(context.provider)")
    return _forbid(name, values, f"!({' || '.join(allowed)})")


def _terms(name: str, values: TemplateValues) -> str:
    wrong = ["context.training"]
    if values.max_retention is not None:
        wrong.append(f"context.retention_days > {values.max_retention // DAY_MS}")
    if values.subprocessors:
        wrong.append(f"!{_set(values.subprocessors)}.containsAll(context.subprocessors)")
    own = 'context.site_type == "cloud"'
    return _forbid(name, values, own, f"({' || '.join(wrong)})")


def _regions(name: str, values: TemplateValues) -> str:
    return _forbid(name, values, f"!{_set(values.jurisdictions)}.contains(context.jurisdiction)")


def _review(name: str, values: TemplateValues) -> str:
    effects = values.effects or ("decides",)
    has_effect = "(" + " || ".join(f"resource.effect == {_text(each)}" for each in effects) + ")"
    return _forbid(name, values, has_effect, 'resource.stage == "production"', "!resource.reviewed")


def _tools(name: str, values: TemplateValues) -> str:
    return _forbid(name, values, f"!{_set(values.tools)}.contains(context.tool)", action='action == Action::"use_tool"')


def _hours(name: str, values: TemplateValues) -> str:
    outside = []
    if values.from_hour is not None and values.to_hour is not None:
        within = (values.from_hour, values.to_hour)
        join = "||" if within[0] < within[1] else "&&"
        outside.append(f"(context.hour < {within[0]} {join} context.hour >= {within[1]})")
    if values.weekdays:
        days = ", ".join(str(_DAYS[day]) for day in values.weekdays)
        outside.append(f"![{days}].contains(context.weekday)")
    return _forbid(name, values, f"({' || '.join(outside)})")


def _groups(name: str, values: TemplateValues) -> str:
    inside = " || ".join(f"principal in Group::{_text(group)}" for group in values.groups)
    return _forbid(name, values, f"!({inside})")


def _stages(name: str, values: TemplateValues) -> str:
    return _forbid(name, values, " && ".join(f"resource.stage != {_text(stage)}" for stage in values.stages))


_TEMPLATES = {
    "models": Template(
        "Only these models or providers.", ("models", "providers"), (), "Use a model that is allowed.", _models
    ),
    "provider-terms": Template(
        "No cloud provider that may train on the data, keeps it longer, or hands it to others.",
        (), ("max_retention", "subprocessors"), "Use a deployment whose provider's terms allow it.", _terms,
    ),
    "regions": Template(
        "Only under these jurisdictions.", ("jurisdictions",), (), "Use a deployment at a site there.", _regions
    ),
    "review-required": Template(
        "In production, what decides about people is looked at by a person first.",
        (), ("effects",), "Write review: {before_sending: true} into the workload.", _review,
    ),
    "tools": Template("Only these tools.", ("tools",), (), "Leave the other tools out.", _tools),
    "hours": Template(
        "Only in these hours (UTC) or on these days.",
        ("from_hour", "weekdays"), ("to_hour",), "Try again then.", _hours,
    ),
    "user-groups": Template(
        "Only for people in these groups.", ("groups",), (), "Ask to be taken into one of the groups.", _groups
    ),
    "stages": Template(
        "Only at these stages.", ("stages",), (), "Use data that is less sensitive until then.", _stages
    ),
}  # fmt: skip
