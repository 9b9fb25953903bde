"""The guardrails of one workload, compiled once for each blueprint, and their effect on requests and answers. Pure.

A body is JSON of any API surface: every text that a model would read is checked; names and numbers are not. Checks that
need a model or another process (the judge, Presidio) are in the gateway.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from groundplan.blueprint.model import Guardrails, Judge
from groundplan.governance.guardrails.checks import Checks, CompanyPatterns, deny_pattern
from groundplan.governance.guardrails.json_escapes import LEVELS
from groundplan.governance.guardrails.masks import Masks, is_json
from groundplan.governance.guardrails.model import Hit, Refusal
from groundplan.governance.guardrails.window import Refused

TEXTS = frozenset(
    {
        "content",
        "cited_text",
        "text",
        "thought",
        "input",
        "prompt",
        "instructions",
        "system",
        "query",
        "documents",
        "suffix",
        "instruction",
        "instruct",
        "output",
        "arguments",
        "transcript",
        "refusal",
        "reasoning",
        "reasoning_content",
        "thinking",
    }
)
"""Names of fields whose strings a model reads."""
_ANY_NAME = "*"
"""Stands for the names of all strings below a field of `_FREE_FIELDS`."""
_FREE_FIELDS: dict[str, type] = {"documents": list, "chat_template_kwargs": dict}
"""Fields below which a model may read every string, whatever its name, and their types: documents with fields of the
client's choice, and the variables of a chat template (vLLM, SGLang)."""
SEALED = "encrypted_content"
"""Field of reasoning that only its provider can read; Ollama uses the same name for plain text."""
_match_sealed = re.compile(r"[\w+/=.:-]*", re.ASCII).fullmatch
OWN_ROLES = frozenset({"system", "developer", "assistant"})
"""Roles of the application's own texts, which are not checked for injection."""
_JSON_STARTS = ("{", "[")
"""First characters of a passage that is JSON, such as the result of a tool."""
NO_ROLES: frozenset[str] = frozenset()
"""Roles to exempt in an answer: none, since every text of it is checked."""


@dataclass(slots=True)
class Findings:
    """How often what was found in one call, by (place, check, action)."""

    counts: dict[tuple[str, str, str], int] = field(default_factory=dict)

    def add(self, place: str, hit: Hit) -> None:
        key = (place, hit.check, hit.action)
        self.counts[key] = self.counts.get(key, 0) + 1

    def merge(self, other: Findings) -> None:
        """Add the findings of another part of the same call."""
        for key, times in other.counts.items():
            self.counts[key] = self.counts.get(key, 0) + times


@dataclass(frozen=True, slots=True)
class Guard:
    """The guardrails of one workload."""

    input: Checks
    passages: Checks
    output: Checks
    tools: frozenset[str] | None
    schema: str | None
    grounded: bool
    judge: Judge | None
    presidio: str
    shadow: bool
    budget_ns: int
    fail_open: bool
    hold: int
    whole_answer_checks: tuple[str, ...]
    """Names of the checks that need a complete answer."""
    presidio_input: str = ""
    unchecked: frozenset[str] = frozenset()
    """Kinds of content that may pass although no check can read them."""

    @classmethod
    def of(cls, rules: Guardrails) -> Guard:
        company = CompanyPatterns.of(rules.entities)
        longest = max((len(word) for word in rules.deny_output), default=0)
        declared = {
            "schema": rules.schema is not None,
            "grounded": rules.grounded,
            "languages": bool(rules.output_languages),
            "judge": rules.judge is not None,
            "presidio": bool(rules.presidio),
        }
        return cls(
            input=Checks(
                "input", rules.input, company, deny_pattern(rules.deny_input), None, rules.max_input_bytes,
                frozenset(rules.input_languages),
            ),
            passages=Checks("passages", rules.passages, company),
            output=Checks(
                "output", rules.output, company, deny_pattern(rules.deny_output),
                None if rules.links is None else frozenset(host.lower() for host in rules.links),
                rules.max_output_bytes, frozenset(rules.output_languages),
            ),
            tools=None if rules.tools is None else frozenset(rules.tools),
            schema=rules.schema,
            grounded=rules.grounded,
            judge=rules.judge,
            presidio=rules.presidio,
            shadow=rules.shadow,
            budget_ns=rules.budget_ms * 1_000_000,
            fail_open=rules.fail_open,
            hold=max(rules.hold_bytes, longest + 16),
            whole_answer_checks=tuple(name for name, is_declared in declared.items() if is_declared),
            presidio_input=rules.presidio_input,
            unchecked=frozenset(rules.unchecked),
        )  # fmt: skip

    @property
    def checks_input(self) -> bool:
        """Whether requests are checked."""
        return not self.input.is_empty or bool(self.presidio_input)

    def affects_answers(self, masks: Masks) -> bool:
        """Whether answers have to be checked, or values restored in them."""
        return bool(masks) or not self.output.is_empty or self.tools is not None or bool(self.whole_answer_checks)


def checked_body(guard: Guard, body: Any, size: int, masks: Masks, findings: Findings) -> Any:
    """The body with stand-ins for masked values; the same object if nothing was masked. Raises `Refused`."""
    checks = guard.input
    if checks.is_too_large(size):
        findings.add("input", Hit("max_size", "block"))
        if not guard.shadow:
            raise Refused(Refusal("input", "max_size"))

    def check(text: str, own: bool) -> str:
        return _check_input(guard, text, masks, findings, inject=not own)

    for text in texts(body):
        masks.reserve(text)
    return rewrite_texts(body, check)


def _check_input(
    guard: Guard, text: str, masks: Masks, findings: Findings, *, inject: bool, levels: int = LEVELS
) -> str:
    """One text of a request after its checks; if it is JSON, the strings in it are checked, too. Raises `Refused`."""
    checked = _checked(guard, guard.input, text, masks, findings, inject=inject)
    if not levels or "\\" not in checked or not is_json(checked):
        return checked
    return _check_json(guard, checked, masks, findings, inject=inject, levels=levels - 1)


def _check_json(guard: Guard, text: str, masks: Masks, findings: Findings, *, inject: bool, levels: int) -> str:
    """JSON after checks of its unescaped strings: an earlier call is sent back with its arguments as a model or JSON
    wrote them. The same text if nothing was masked. Raises `Refused`."""
    found = Findings()
    try:
        value = msgspec.json.decode(text)
        checked = _map_strings(
            value, lambda each: _check_input(guard, each, masks, found, inject=inject, levels=levels)
        )
    except Refused:
        findings.merge(found)
        raise
    except (msgspec.DecodeError, RecursionError):
        return text  # not JSON after all, or too deep for any parser
    if checked == value:
        return text
    findings.merge(found)
    return msgspec.json.encode(checked).decode()


def _map_strings(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_map_strings(each, change) for each in value]
    return {name: _map_strings(each, change) for name, each in value.items()} if isinstance(value, dict) else value


def checked_passage(guard: Guard, text: str, masks: Masks, findings: Findings) -> str | None:
    """A passage as the model may see it; None if it is dropped."""
    hits = guard.passages.find_hits(text, json=text.lstrip().startswith(_JSON_STARTS))
    for hit in hits:
        findings.add("passages", hit)
    if guard.shadow:
        return text
    if any(hit.action == "drop" for hit in hits):
        return None
    masked = [hit for hit in hits if hit.action == "mask"]
    return masks.mask(text, masked, keep=False) if masked else text


def checked_answer(guard: Guard, text: str, masks: Masks, findings: Findings) -> str:
    """A complete text of an answer as the client may see it. Raises `Refused`."""
    hits = guard.output.find_hits(text, inject=False, json=is_json(text))
    for hit in hits:
        findings.add("output", hit)
    if guard.shadow:
        return masks.restore(text)
    for hit in hits:
        if hit.action == "block":
            raise Refused(Refusal("output", hit.check, hit.kind))
    masked = [hit for hit in hits if hit.action == "mask"]
    return masks.restore(masks.mask(text, masked, keep=False) if masked else text)


def checked_text(guard: Guard, text: str, masks: Masks, findings: Findings) -> str:
    """One text of a request as the model may see it. Raises `Refused`."""
    masks.reserve(text)
    return _checked(guard, guard.input, text, masks, findings, inject=True)


def _checked(guard: Guard, checks: Checks, text: str, masks: Masks, findings: Findings, *, inject: bool) -> str:
    hits = checks.find_hits(text, inject=inject)
    for hit in hits:
        findings.add(checks.place, hit)
    if guard.shadow:
        return text
    for hit in hits:
        if hit.action == "block":
            raise Refused(Refusal(checks.place, hit.check, hit.kind))
    masked = [hit for hit in hits if hit.action == "mask"]
    return masks.mask(text, masked) if masked else text


def rewrite_texts(
    value: Any, change: Callable[[str, bool], str], roles: frozenset[str] = OWN_ROLES, name: str = "", own: bool = False
) -> Any:
    """The JSON value with `change` applied to every text that a model would read; unchanged parts are the same objects.

    The second argument of `change` is whether the text is the application's own: by its field, or by one of `roles`.
    """
    if isinstance(value, str):
        return change(value, own or name in ("system", "instructions")) if _is_read(name, value) else value
    if isinstance(value, list):
        items = [rewrite_texts(each, change, roles, name, own) for each in value]
        return value if all(a is b for a, b in zip(items, value, strict=True)) else items
    if isinstance(value, dict):
        role = value.get("role")
        own = own or (isinstance(role, str) and role in roles)
        changed = {
            key: rewrite_texts(each, change, roles, _effective_name(key, name, each), own)
            for key, each in value.items()
        }
        return value if all(changed[key] is each for key, each in value.items()) else changed
    return value


def restore_strings(value: Any, masks: Masks) -> Any:
    """The JSON value of an answer that repeats the request, with the values restored in every string."""
    return _map_strings(value, masks.restore)


def _is_read(name: str, text: str) -> bool:
    return name in TEXTS or name == _ANY_NAME or (name == SEALED and _match_sealed(text) is None)


def _effective_name(key: str, name: str, value: Any) -> str:
    """The field name that decides about the strings in `value`, found at `key` below `name`: lists and objects without
    a name of `TEXTS` inherit it."""
    if name == _ANY_NAME or (key in _FREE_FIELDS and isinstance(value, _FREE_FIELDS[key])):
        return _ANY_NAME
    if key in TEXTS:
        return key
    return name if isinstance(value, list | dict) and key not in ("tools", "metadata", "response_format") else key


def texts(value: Any, name: str = "") -> Iterable[str]:
    """Every text that a model would read."""
    if isinstance(value, str):
        if _is_read(name, value):
            yield value
    elif isinstance(value, list):
        for each in value:
            yield from texts(each, name)
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from texts(each, _effective_name(key, name, each))
