"""The company's rules about calls, as a blueprint holds them: for each workload its own slice, asked about one call.

Pure but for what it keeps of its own making. Keeping decisions, exceptions and the clock are the gateway's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from groundplan.blueprint.model import Blueprint, Described, PolicyRules
from groundplan.governance.policy import cedar
from groundplan.governance.policy.cedar import Facts, Ruleset, Slice, Source, Verdict
from groundplan.governance.policy.vocabulary import (
    CALL,
    TIMES,
    USE_TOOL,
    deployment_facts,
    groups_named,
    reads,
    time_facts,
    workload_facts,
)

BASE = Source("groundplan", '@id("groundplan.key")\npermit (principal, action, resource);')
"""Whoever has a key of a workload may call it, where no company rule says otherwise."""
_encode = msgspec.json.encode


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks: a person by e-mail address, or an application by the id of its key; with the groups that rules name."""

    type: str
    """Person | Application"""
    id: str
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """The rules of one workload and one action."""

    slice: Slice
    timed: bool
    """Its answer may change with the clock alone."""
    reads: frozenset[str] | None
    """Facts of the context that its rules look at; None: all."""
    known: Any
    """Handle of the workload and what it is in."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that a model calls, or a tool of an MCP server."""

    name: str
    server: str = ""
    dangerous: bool = False


class CallRules:
    """See the module. Parts are made when they are first asked for."""

    def __init__(self, blueprint: Blueprint, policies: Iterable[PolicyRules] | None = None) -> None:
        chosen = [item for item in blueprint.policies if item.enforced] if policies is None else list(policies)
        sources = [Source(item.name, item.text, owner=item.owner, hint=item.hint) for item in chosen]
        self.closed = any(item.closed for item in chosen)
        if not self.closed:
            sources.append(BASE)
        self._rules = Ruleset.of(sources)
        self._blueprint = blueprint
        self._workloads = {item.name: item for item in blueprint.workloads}
        self._deployments = {item.name: item for item in blueprint.deployments}
        self._contexts: dict[str, dict[str, Any]] = {}
        self._parts: dict[tuple[str, str, str, frozenset[str]], Part] = {}
        self.groups = frozenset(name for rule in self._rules.rules for name in groups_named(rule.body))

    @property
    def rules(self) -> tuple[cedar.Rule, ...]:
        return self._rules.rules

    def part(
        self,
        workload: str,
        action: tuple[str, str] = CALL,
        without: frozenset[str] = frozenset(),
        deployment: str = "",
    ) -> Part:
        """The rules that can have a say in a workload's calls to a deployment (or uses of tools), less those with an
        exception."""
        key = (workload, action[1], deployment, without)
        found = self._parts.get(key)
        if found is None:
            if len(self._parts) > 4096:
                self._parts.clear()
            found = self._parts[key] = self._make(workload, action, without, deployment)
        return found

    def call(
        self,
        workload: str,
        asker: Asker,
        deployment: str,
        endpoint: str,
        now: float,
        without: frozenset[str] = frozenset(),
    ) -> Verdict:
        """Whether a call may go to a deployment. `now`: seconds since the epoch."""
        part = self.part(workload, CALL, without, deployment)
        context = {**self._place(deployment), "endpoint": endpoint, **time_facts(now)}
        return self._ask(part, workload, CALL, asker, context)

    def _place(self, deployment: str) -> dict[str, Any]:
        context = self._contexts.get(deployment)
        if context is None:
            context = self._contexts[deployment] = deployment_facts(self._blueprint, self._deployments[deployment])
        return context

    def tool(
        self,
        workload: str,
        asker: Asker,
        tool: Tool,
        now: float,
        without: frozenset[str] = frozenset(),
    ) -> Verdict:
        """Whether a tool may be used."""
        part = self.part(workload, USE_TOOL, without)
        context = {"tool": tool.name, "server": tool.server, "dangerous": tool.dangerous, **time_facts(now)}
        return self._ask(part, workload, USE_TOOL, asker, context)

    def ask(self, workload: str, action: tuple[str, str], asker: Asker, context: dict[str, Any]) -> Verdict:
        """As `call` and `tool`, with every fact given."""
        return self._ask(self.part(workload, action), workload, action, asker, context)

    def _ask(
        self, part: Part, workload: str, action: tuple[str, str], asker: Asker, context: dict[str, Any]
    ) -> Verdict:
        if part.reads is not None:
            context = {name: context[name] for name in part.reads if name in context}
        request = {
            "principal": {"type": asker.type, "id": asker.id},
            "action": {"type": action[0], "id": action[1]},
            "resource": {"type": "Workload", "id": workload},
            "context": _encode(context).decode(),
        }
        known = part.known
        if asker.groups:
            parents = [{"type": "Group", "id": name} for name in asker.groups]
            own = [{"uid": {"type": asker.type, "id": asker.id}, "attrs": {}, "parents": parents}]
            known = known.with_added_json_str(_encode(own).decode())
        return part.slice.decide(request, known)

    def _make(self, workload: str, action: tuple[str, str], without: frozenset[str], deployment: str) -> Part:
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
            attributes=_plain(attributes),
            context=_plain(self._place(deployment)) if deployment else {},
        )
        rules = self._rules if not without else Ruleset(rule for rule in self._rules.rules if rule.id not in without)
        slice_ = rules.narrowed(facts)
        seen = [reads(rule.body) for rule in slice_.rules]
        known = [each for each in seen if each is not None]
        read = frozenset[str]().union(*known) if len(known) == len(seen) else None
        return Part(slice_, read is None or bool(read & TIMES), read, cedar.entities([entity]))


def _plain(facts: Mapping[str, Any]) -> dict[str, str | int | bool]:
    return {name: value for name, value in facts.items() if isinstance(value, str | int | bool)}
