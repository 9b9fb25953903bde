"""Parses, narrows and evaluates Cedar policies; any error denies.

Cedar itself skips a policy that fails to evaluate, so that a `forbid` with a mistake in it permits what it was written
to stop; here an error of any policy denies. Gateways ask about calls, the API about its own requests; what a denial
leads to is theirs. cedarpy is loaded when the first policy is parsed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import msgspec

from groundplan.core.errors import Denied, Invalid, Problem, Where
from groundplan.governance.policy.partial_evaluation import Facts, may_match
from groundplan.governance.policy.text import statements

NO_GRANT = "no_grant"
"""Code of the denial if no policy permits the request."""
POLICY_ERROR = "policy_error"
POLICY_DENIED = "policy_denied"


@dataclass(frozen=True, slots=True)
class Source:
    """One Cedar text. `file`, `line`: position of its first line. `owner`, `hint`: defaults for the annotations."""

    name: str
    text: str
    file: str = ""
    line: int = 1
    owner: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """One policy. `key` is unique in its set; `id` is its @id, else derived from its document and number."""

    key: str
    id: str
    effect: str
    """permit | forbid"""
    owner: str
    hint: str
    document: str
    where: Where | None
    body: Mapping[str, Any]
    """Cedar's JSON form, without annotations."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision on a request: allowed with the rules that permit it, or denied by rules, by an error, or because no
    policy permits it."""

    allowed: bool
    rules: tuple[Rule, ...] = ()
    errors: tuple[str, ...] = ()

    @property
    def code(self) -> str:
        """Empty if allowed, else `policy_denied`, `policy_error` or `no_grant`."""
        if self.allowed:
            return ""
        if self.errors:
            return POLICY_ERROR
        return POLICY_DENIED if self.rules else NO_GRANT


class _Diagnostics(msgspec.Struct):
    reason: list[str]
    errors: list[str]


class _Answer(msgspec.Struct):
    decision: str
    diagnostics: _Diagnostics


_decode = msgspec.json.Decoder(_Answer).decode
Decide = Callable[[list[dict[str, Any]], Any, Any, Any, bool], list[str]]


@cache
def _engine() -> Any:
    try:
        from cedarpy import _internal  # noqa: PLC0415 -- heavy: 16 MB that only policies need
    except ImportError as error:
        hint = "Install it with: pip install cedarpy"
        raise Invalid(
            "cedarpy is not installed, so policies cannot be read", code="cedar_missing", hint=hint
        ) from error
    return _internal


def parse_entities(items: str | Sequence[Mapping[str, Any]], schema: Any = None) -> Any:
    """A handle of the Cedar entities in JSON text or its value. Raises `Invalid` (`policy_entities`)."""
    text = items if isinstance(items, str) else json.dumps(items)
    try:
        return _engine().Entities.from_json_str(text, schema)
    except ValueError as error:
        raise Invalid(f"the entities cannot be read: {error}", code="policy_entities", hint="Correct them.") from error


def parse_schema(text: str) -> Any:
    """A handle of a schema in Cedar's own syntax or JSON. Raises `Invalid` (`policy_schema`)."""
    reader = _engine().Schema
    try:
        return reader.from_json_str(text) if text.lstrip().startswith("{") and _is_json(text) else reader.from_str(text)
    except ValueError as error:
        raise Invalid(f"the schema cannot be read: {error}", code="policy_schema", hint="Correct it.") from error


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def validate_policies(text: str, schema: Any) -> list[tuple[int, str]]:
    """Schema violations of the policies of a text: (number of the policy, message)."""
    held = json.loads(_engine().validate_policies(text, schema))
    found = []
    for error in held.get("errors", ()):
        number = str(error.get("policy_id", "")).removeprefix("policy")
        message = str(error.get("error", "")).removeprefix(f"for policy `policy{number}`, ")
        found.append((int(number) if number.isdigit() else 0, message))
    return found


class Slice:
    """Parsed policies that may matter for some requests, to decide any number of them."""

    __slots__ = ("_by_key", "_decide", "_set", "rules")

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(rules)
        self._by_key = {rule.key: rule for rule in self.rules}
        held = {"staticPolicies": {rule.key: rule.body for rule in self.rules}, "templates": {}, "templateLinks": []}
        self._set = _engine().PolicySet.from_json_str(json.dumps(held))
        self._decide = cast(Decide, _engine().is_authorized_batch)

    def decide(self, request: dict[str, Any], known: Any, schema: Any = None) -> Verdict:
        """The verdict on `{"principal", "action", "resource": {"type", "id"}, "context": JSON text}`; `known` is a
        handle of entities. A request that cannot be evaluated is denied."""
        try:
            answer = _decode(self._decide([request], self._set, known, schema, False)[0])
        except ValueError as error:
            return Verdict(False, (), (str(error),))
        diagnostics = answer.diagnostics
        if diagnostics.errors:
            return Verdict(False, (), tuple(diagnostics.errors))
        return Verdict(answer.decision == "Allow", tuple(self._by_key[key] for key in diagnostics.reason))


class Ruleset:
    """All policies that apply somewhere, from one text or several."""

    __slots__ = ("rules",)

    def __init__(self, rules: Iterable[Rule]) -> None:
        self.rules = tuple(rules)

    @classmethod
    def of(cls, sources: Iterable[Source]) -> Ruleset:
        """Parse the policies of all sources. Raises `Invalid` (`policy_syntax`, `policy_slot`) with every problem."""
        rules: list[Rule] = []
        problems: list[Problem] = []
        for source in sources:
            source_rules, source_problems = _parse_source(source)
            rules += source_rules
            problems += source_problems
        if problems:
            first = problems[0]
            raise Invalid(
                first.message, code=first.code, hint=first.hint, where=first.where, problems=tuple(problems[1:])
            )
        return cls(rules)

    def narrow(self, facts: Facts) -> Slice:
        """The policies that can matter for requests of which `facts` hold."""
        return Slice(rule for rule in self.rules if may_match({"effect": rule.effect, **rule.body}, facts))

    def full_slice(self) -> Slice:
        """All policies, for requests of which nothing is known beforehand."""
        return Slice(self.rules)


def _parse_source(source: Source) -> tuple[list[Rule], list[Problem]]:
    rules: list[Rule] = []
    problems: list[Problem] = []
    for number, statement in enumerate(statements(source.text)):
        where = Where(source.file, source.line + statement.line - 1) if source.file else None
        try:
            held = json.loads(_engine().policies_to_json_str(statement.text))
        except ValueError as error:
            problems.append(
                Problem(f"policy {source.name}: {error}", "policy_syntax", "Write it as Cedar says.", where)
            )
            continue
        if held["templates"]:
            problems.append(_slot_problem(source, where))
        rules += [_rule(source, number, body, where) for body in held["staticPolicies"].values()]
    return rules, problems


def _slot_problem(source: Source, where: Where | None) -> Problem:
    message = f"policy {source.name} has a slot such as ?principal, which nothing fills"
    return Problem(message, "policy_slot", "Name the entity, or write a condition.", where)


def _rule(source: Source, number: int, held: Mapping[str, Any], where: Where | None) -> Rule:
    notes = held.get("annotations", {})
    key = f"{source.name}#{number}"
    return Rule(
        key=key,
        id=notes.get("id") or (source.name if number == 0 else key),
        effect=str(held["effect"]),
        owner=notes.get("owner") or source.owner,
        hint=notes.get("hint") or source.hint,
        document=source.name,
        where=where,
        body={name: value for name, value in held.items() if name != "annotations"},
    )


def policy_denial(verdict: Verdict, what: str) -> Denied:
    """The error that refuses `what` (such as `this call of staff-assistant`): names the rule, its owner, and how to
    request an exception."""
    if verdict.errors:
        reason = verdict.errors[0][:300]
        hint = "A policy failed on it, and what cannot be decided is refused; its owner must mend it."
        return Denied(
            f"{what} was refused: {reason}", code=POLICY_ERROR, hint=hint, details={"errors": list(verdict.errors)}
        )
    if not verdict.rules:
        hint = "Ask whoever owns it for a permit, or for an exception: `groundplan policy exception`."
        return Denied(f"no policy permits {what}", code=NO_GRANT, hint=hint)
    rule = min(verdict.rules, key=lambda each: each.id)
    owner = rule.owner or "its owner"
    ask = f"Ask {owner} for an exception: groundplan policy exception {rule.id}."
    return Denied(
        f"the rule {rule.id} refuses {what}",
        code=POLICY_DENIED,
        hint=f"{rule.hint} {ask}".strip(),
        details={"rule": rule.id, "owner": rule.owner, "rules": sorted(each.id for each in verdict.rules)},
    )


__all__ = [
    "NO_GRANT",
    "Facts",
    "Rule",
    "Ruleset",
    "Slice",
    "Source",
    "Verdict",
    "parse_entities",
    "parse_schema",
    "policy_denial",
]
