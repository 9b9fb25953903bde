"""Decides calls and uses of tools by the company rules of a blueprint, with a slice of the rules for each workload.

Pure, except that it caches slices. Caching decisions, exceptions and the clock are the gateway's.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from groundplan.blueprint.model import Blueprint, Described, PolicyRules
from groundplan.governance.policy import cedar
from groundplan.governance.policy.cedar import NO_GRANT, Facts, Ruleset, Slice, Source, Verdict
from groundplan.governance.policy.vocabulary import (
    CALL,
    TIMES,
    USE_TOOL,
    context_facts_read,
    deployment_facts,
    named_groups,
    named_keys,
    time_facts,
    workload_facts,
)

BASE_PERMIT = Source("groundplan", '@id("groundplan.key")\npermit (principal, action, resource);')
"""Permits every call with a key of the workload that no company rule forbids; left out if a policy is `closed`."""
_encode = msgspec.json.encode


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller: a person by e-mail address, or an application by the id of its key; with the groups that rules name."""

    type: str
    """Person | Application"""
    id: str
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkloadRules:
    """The rules that can matter for one workload and one action."""

    slice: Slice
    is_time_dependent: bool
    """Whether the verdict may change with the clock alone."""
    context_facts: frozenset[str] | None
    """Facts of the context that the rules read; None: all."""
    entities: Any
    """Cedar handle of the workload and its team."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that a model calls, or a tool of an MCP server."""

    name: str
    server: str = ""
    dangerous: bool = False


class CallRules:
    """The company rules of a blueprint. Slices are built when they are first needed."""

    def __init__(self, blueprint: Blueprint, policies: Iterable[PolicyRules] | None = None) -> None:
        chosen = [item for item in blueprint.policies if item.enforced] if policies is None else list(policies)
        sources = [Source(item.name, item.text, owner=item.owner, hint=item.hint) for item in chosen]
        self.closed = any(item.closed for item in chosen)
        if not self.closed:
            sources.append(BASE_PERMIT)
        self._rules = Ruleset.of(sources)
        self._blueprint = blueprint
        self._workloads = {item.name: item for item in blueprint.workloads}
        self._deployments = {item.name: item for item in blueprint.deployments}
        self._contexts: dict[str, dict[str, Any]] = {}
        self._workload_rules: dict[tuple[str, str, str, frozenset[str]], WorkloadRules] = {}
        self.groups = frozenset(name for rule in self._rules.rules for name in named_groups(rule.body))
        self._named_keys = frozenset(id for rule in self._rules.rules for id in named_keys(rule.body))

    @property
    def rules(self) -> tuple[cedar.Rule, ...]:
        return self._rules.rules

    def application_principals(self, key: str, line: Container[str]) -> list[Principal]:
        """The principals as which a call with this key is decided: all keys that rules name of its `line` of rotations,
        else the key itself. A rule that names one key of a line applies to all of them."""
        named = sorted(id for id in self._named_keys if id in line)
        return [Principal("Application", id) for id in named or (key,)]

    def workload_rules(
        self,
        workload: str,
        action: tuple[str, str] = CALL,
        without: frozenset[str] = frozenset(),
        deployment: str = "",
    ) -> WorkloadRules:
        """The rules that can matter for a workload's calls to a deployment (or uses of tools), without those of
        `without`, from which it has an exception."""
        key = (workload, action[1], deployment, without)
        found = self._workload_rules.get(key)
        if found is None:
            if len(self._workload_rules) > 4096:
                self._workload_rules.clear()
            found = self._workload_rules[key] = self._build(workload, action, without, deployment)
        return found

    def decide_call(
        self,
        workload: str,
        principal: Principal,
        deployment: str,
        endpoint: str,
        now: float,
        without: frozenset[str] = frozenset(),
    ) -> Verdict:
        """Whether a call may go to a deployment. `now`: seconds since the epoch."""
        rules = self.workload_rules(workload, CALL, without, deployment)
        context = {**self._deployment_context(deployment), "endpoint": endpoint, **time_facts(now)}
        return self._decide(rules, workload, CALL, principal, context)

    def _deployment_context(self, deployment: str) -> dict[str, Any]:
        context = self._contexts.get(deployment)
        if context is None:
            context = self._contexts[deployment] = deployment_facts(self._blueprint, self._deployments[deployment])
        return context

    def decide_tool_use(
        self,
        workload: str,
        principal: Principal,
        tool: Tool,
        now: float,
        without: frozenset[str] = frozenset(),
    ) -> Verdict:
        """Whether a tool may be used."""
        rules = self.workload_rules(workload, USE_TOOL, without)
        context = {"tool": tool.name, "server": tool.server, "dangerous": tool.dangerous, **time_facts(now)}
        return self._decide(rules, workload, USE_TOOL, principal, context)

    def decide(self, workload: str, action: tuple[str, str], principal: Principal, context: dict[str, Any]) -> Verdict:
        """As `decide_call` and `decide_tool_use`, with every fact of the context passed in."""
        return self._decide(self.workload_rules(workload, action), workload, action, principal, context)

    def _decide(
        self,
        rules: WorkloadRules,
        workload: str,
        action: tuple[str, str],
        principal: Principal,
        context: dict[str, Any],
    ) -> Verdict:
        if rules.context_facts is not None:
            context = {name: context[name] for name in rules.context_facts if name in context}
        request = {
            "principal": {"type": principal.type, "id": principal.id},
            "action": {"type": action[0], "id": action[1]},
            "resource": {"type": "Workload", "id": workload},
            "context": _encode(context).decode(),
        }
        entities = rules.entities
        if principal.groups:
            parents = [{"type": "Group", "id": name} for name in principal.groups]
            own = [{"uid": {"type": principal.type, "id": principal.id}, "attrs": {}, "parents": parents}]
            entities = entities.with_added_json_str(_encode(own).decode())
        return rules.slice.decide(request, entities)

    def _build(self, workload: str, action: tuple[str, str], without: frozenset[str], deployment: str) -> WorkloadRules:
        item = self._workloads[workload]
        described = self._blueprint.described.get(workload, Described())
        attributes = workload_facts(item, described)
        parents = [{"type": "Team", "id": item.team}] if item.team else []
        entity = {"uid": {"type": "Workload", "id": workload}, "attrs": attributes, "parents": parents}
        facts = Facts(
            principal_types=frozenset({"Person", "Application"}),
            action=action,
            actions_above=frozenset(),
            resource=("Workload", workload),
            resources_above=frozenset((parent["type"], parent["id"]) for parent in parents),
            attributes=_plain_value(attributes),
            context=_plain_value(self._deployment_context(deployment)) if deployment else {},
        )
        rules = self._rules if not without else Ruleset(rule for rule in self._rules.rules if rule.id not in without)
        slice_ = rules.narrow(facts)
        read_by_rule = [context_facts_read(rule.body) for rule in slice_.rules]
        known = [each for each in read_by_rule if each is not None]
        read = frozenset[str]().union(*known) if len(known) == len(read_by_rule) else None
        return WorkloadRules(slice_, read is None or bool(read & TIMES), read, cedar.parse_entities([entity]))


def strictest(verdicts: Iterable[Verdict]) -> Verdict:
    """The verdict on a request that was decided as several principals (at least one): a rule or an error that refuses
    it counts before a permit, and a permit before the lack of one."""
    found = list(verdicts)
    refused = [each for each in found if not each.allowed and each.code != NO_GRANT]
    return next(iter(refused or [each for each in found if each.allowed] or found))


def _plain_value(facts: Mapping[str, Any]) -> dict[str, str | int | bool]:
    return {name: value for name, value in facts.items() if isinstance(value, str | int | bool)}
