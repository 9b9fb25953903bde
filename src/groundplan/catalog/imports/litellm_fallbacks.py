"""LiteLLM's `fallbacks` and `default_fallbacks` -> the fallbacks of each model name, as its router applies them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from groundplan.catalog.imports import litellm_settings
from groundplan.catalog.imports.litellm_findings import setting_finding
from groundplan.catalog.imports.naming import one_line
from groundplan.catalog.imports.node import Config, Node
from groundplan.catalog.imports.verdict import CARRIED, CHANGED, NEEDED, NO_EQUAL, Finding

ANY = "*"
"""The model name whose fallbacks are those of every model name without its own."""
_SECTIONS = ("router_settings", "litellm_settings")
_FOR_OTHERS = "fallbacks: of each workload that has none of its own"
_WRITE_THERE = "If they are meant, write them there."


def read_fallbacks(
    config: Config, types: Mapping[str, set[str]], aliases: Mapping[str, str], findings: list[Finding]
) -> dict[str, tuple[str, ...]]:
    """Model name -> its fallbacks; `ANY`: those of every other model name. `types`: types of the deployments of each
    model name; `aliases`: alias -> model name."""
    own: dict[str, tuple[str, ...]] = {}
    of_aliases: dict[str, tuple[str, ...]] = {}
    for_others: list[tuple[str, Node]] = []
    for what, group, node in _entries(config, findings):
        if group == ANY:
            for_others.append((what, node))
            continue
        of = group if group in types else aliases.get(group, group)
        (own if of == group else of_aliases).setdefault(of, _names(node, findings))
        state, here, todo = _fallback_finding(group, of, types.get(of))
        findings.append(Finding(state, what, here, todo, node.where_key))
    return of_aliases | own | _fallbacks_of_others(config, for_others, findings)


def _entries(config: Config, findings: list[Finding]) -> Iterator[tuple[str, str, Node]]:
    """(setting, model name, its fallbacks) of `fallbacks`: of `router_settings`, and of `litellm_settings` only where
    the router has none."""
    of_router = config.get("router_settings", "fallbacks")
    for section in _SECTIONS:
        node = config.get(section, "fallbacks")
        if node is None:
            continue
        if section == "litellm_settings" and of_router is not None and any(of_router.entries()):
            rule = litellm_settings.UNREAD_FALLBACKS
            findings.append(setting_finding(f"{section}.fallbacks", "fallbacks", rule, node))
            continue
        for entry in node.entries():
            for group, others in entry.items():
                yield f"{section}.fallbacks", group, others


def _fallbacks_of_others(
    config: Config, for_others: list[tuple[str, Node]], findings: list[Finding]
) -> dict[str, tuple[str, ...]]:
    """The fallbacks of every model name without its own, under `ANY`. LiteLLM's router appends `default_fallbacks` to
    `fallbacks` as one more `*`, and takes the last one. Adds a finding for each."""
    defaults = [
        (f"{section}.default_fallbacks", node)
        for section in _SECTIONS
        if (node := config.get(section, "default_fallbacks")) is not None
    ]
    default = next((each for each in defaults if any(each[1].entries())), defaults[0] if defaults else None)
    taken = default or (for_others[-1] if for_others else None)
    for what, node in (*for_others, *defaults):
        if taken is not None and node is taken[1]:
            findings.append(Finding(CARRIED, what, _FOR_OTHERS, "", node.where_key))
        elif default is not None:
            here = f"the proxy takes {default[0]} in place of this"
            findings.append(Finding(NO_EQUAL, what, here, _WRITE_THERE, node.where_key))
        else:
            here = "the proxy takes the last entry of * in place of this"
            findings.append(Finding(NO_EQUAL, what, here, _WRITE_THERE, node.where_key))
    return {} if taken is None else {ANY: _names(taken[1], findings)}


def _fallback_finding(group: str, of: str, types: set[str] | None) -> tuple[str, str, str]:
    """(state, equivalent here, what to do) for the fallbacks of a model name; `of`: the name it is an alias of, or
    itself."""
    if types is None:
        return NEEDED, f"fallbacks of {one_line(group)}, which is no model of the list", "Declare it."
    if "chat" not in types:
        here = f"{one_line(group)} is asked at its own deployments alone, since only chat goes to another model"
        return NO_EQUAL, here, "Give deployments of the same model the same model_name."
    if of != group:
        return CHANGED, f"fallbacks: of the workload of {one_line(of)}, where it has none of its own", ""
    return CARRIED, "fallbacks: of its workload", ""


def _names(node: Node, findings: list[Finding]) -> tuple[str, ...]:
    """The model names of a list of fallbacks."""
    names = []
    for each in node.entries():
        if isinstance(each.value, dict):
            here = "a fallback takes over the call as it is, without other parameters"
            findings.append(Finding(NO_EQUAL, "fallbacks", here, "Name a model alone.", each.where))
        elif (name := each.text()) is not None:
            names.append(name)
    return tuple(names)
