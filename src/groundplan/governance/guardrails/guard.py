"""The guardrails of one workload, compiled once for each blueprint, and what they do to a body that is sent in. Pure.

A body is JSON of any API surface: every text that a model would read is looked at, names and numbers around it are not.
What needs a model or another process (the judge, Presidio) is the gateway's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from groundplan.blueprint.model import Guardrails, Judge
from groundplan.governance.guardrails.checks import Checks, Company, denied
from groundplan.governance.guardrails.json_escapes import LEVELS
from groundplan.governance.guardrails.masks import Masks, is_json
from groundplan.governance.guardrails.model import Hit, Refusal
from groundplan.governance.guardrails.window import Refused

TEXTS = frozenset(
    {
        "content",
        "cited_text",
        "text",
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
_EVERY = "*"
"""The name by which strings count below a field of which a model may read all, whatever each is called there."""
_WHOLE: dict[str, type] = {"documents": list, "chat_template_kwargs": dict}
"""Such fields, and what each holds: documents with fields of their caller's own choice, and what fills in the template
of a model (vLLM, SGLang)."""
SEALED = "encrypted_content"
"""What only its provider reads of what a model thought; Ollama has it in the clear under this name."""
_sealed = re.compile(r"[\w+/=.:-]*", re.ASCII).fullmatch
OWN_ROLES = frozenset({"system", "developer", "assistant"})
"""What the application says itself is no attempt."""
_JSON = ("{", "[")
"""How a passage begins that is JSON, as tools answer."""
NO_ROLES: frozenset[str] = frozenset()
"""Of an answer: whoever speaks, it is checked."""


@dataclass(slots=True)
class Findings:
    """What was found in one call, by (place, check, done): how often."""

    counted: dict[tuple[str, str, str], int] = field(default_factory=dict)

    def add(self, place: str, hit: Hit) -> None:
        key = (place, hit.check, hit.done)
        self.counted[key] = self.counted.get(key, 0) + 1

    def take(self, other: Findings) -> None:
        """What was found elsewhere for the same call."""
        for key, times in other.counted.items():
            self.counted[key] = self.counted.get(key, 0) + times


@dataclass(frozen=True, slots=True)
class Guard:
    """See the module. `whole` names the checks that need a whole answer."""

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
    whole: tuple[str, ...]
    presidio_input: str = ""
    unchecked: frozenset[str] = frozenset()
    """What may pass though no check can look at it."""

    @classmethod
    def of(cls, rules: Guardrails) -> Guard:
        company = Company.of(rules.entities)
        longest = max((len(word) for word in rules.deny_output), default=0)
        needs = {
            "schema": rules.schema is not None,
            "grounded": rules.grounded,
            "languages": bool(rules.output_languages),
            "judge": rules.judge is not None,
            "presidio": bool(rules.presidio),
        }
        return cls(
            input=Checks(
                "input", rules.input, company, denied(rules.deny_input), None, rules.max_input_bytes,
                frozenset(rules.input_languages),
            ),
            passages=Checks("passages", rules.passages, company),
            output=Checks(
                "output", rules.output, company, denied(rules.deny_output),
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
            whole=tuple(name for name, there in needs.items() if there),
            presidio_input=rules.presidio_input,
            unchecked=frozenset(rules.unchecked),
        )  # fmt: skip

    @property
    def looks_in(self) -> bool:
        """Whether what is sent in is looked at."""
        return not self.input.empty or bool(self.presidio_input)

    def answers_matter(self, masks: Masks) -> bool:
        """Whether there is anything to do with an answer."""
        return bool(masks) or not self.output.empty or self.tools is not None or bool(self.whole)


def checked_body(guard: Guard, body: Any, size: int, masks: Masks, findings: Findings) -> Any:
    """The body with stand-ins where something was masked; the same object where nothing was. Raises `Refused`."""
    checks = guard.input
    if checks.too_large(size):
        findings.add("input", Hit("max_size", "block"))
        if not guard.shadow:
            raise Refused(Refusal("input", "max_size"))

    def look(text: str, own: bool) -> str:
        return _looked_in(guard, text, masks, findings, inject=not own)

    for text in texts(body):
        masks.avoid(text)
    return rewritten(body, look)


def _looked_in(guard: Guard, text: str, masks: Masks, findings: Findings, *, inject: bool, levels: int = LEVELS) -> str:
    """One text of a request, and what it says where it is JSON. Raises `Refused`."""
    made = _checked(guard, guard.input, text, masks, findings, inject=inject)
    if not levels or "\\" not in made or not is_json(made):
        return made
    return _in_json(guard, made, masks, findings, inject=inject, levels=levels - 1)


def _in_json(guard: Guard, text: str, masks: Masks, findings: Findings, *, inject: bool, levels: int) -> str:
    """JSON with what its escapes hide checked, too: an earlier call is sent back with its arguments as a model or JSON
    wrote them. The same text where nothing was masked. Raises `Refused`."""
    found = Findings()
    try:
        value = msgspec.json.decode(text)
        made = _strings(value, lambda each: _looked_in(guard, each, masks, found, inject=inject, levels=levels))
    except Refused:
        findings.take(found)
        raise
    except (msgspec.DecodeError, RecursionError):
        return text  # it is none after all, or none that anybody reads
    if made == value:
        return text
    findings.take(found)
    return msgspec.json.encode(made).decode()


def _strings(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_strings(each, change) for each in value]
    return {name: _strings(each, change) for name, each in value.items()} if isinstance(value, dict) else value


def checked_passage(guard: Guard, text: str, masks: Masks, findings: Findings) -> str | None:
    """A passage as the model may see it; None: it is left out."""
    hits = guard.passages.look(text, json=text.lstrip().startswith(_JSON))
    for hit in hits:
        findings.add("passages", hit)
    if guard.shadow:
        return text
    if any(hit.done == "drop" for hit in hits):
        return None
    masked = [hit for hit in hits if hit.done == "mask"]
    return masks.mask(text, masked, keep=False) if masked else text


def checked_answer(guard: Guard, text: str, masks: Masks, findings: Findings) -> str:
    """A whole text of an answer as the caller may see it. Raises `Refused`."""
    hits = guard.output.look(text, inject=False, json=is_json(text))
    for hit in hits:
        findings.add("output", hit)
    if guard.shadow:
        return masks.restore(text)
    for hit in hits:
        if hit.done == "block":
            raise Refused(Refusal("output", hit.check, hit.kind))
    masked = [hit for hit in hits if hit.done == "mask"]
    return masks.restore(masks.mask(text, masked, keep=False) if masked else text)


def checked_text(guard: Guard, text: str, masks: Masks, findings: Findings) -> str:
    """One text that is sent in, as the model may see it. Raises `Refused`."""
    masks.avoid(text)
    return _checked(guard, guard.input, text, masks, findings, inject=True)


def _checked(guard: Guard, checks: Checks, text: str, masks: Masks, findings: Findings, *, inject: bool) -> str:
    hits = checks.look(text, inject=inject)
    for hit in hits:
        findings.add(checks.place, hit)
    if guard.shadow:
        return text
    for hit in hits:
        if hit.done == "block":
            raise Refused(Refusal(checks.place, hit.check, hit.kind))
    masked = [hit for hit in hits if hit.done == "mask"]
    return masks.mask(text, masked) if masked else text


def rewritten(
    value: Any, change: Callable[[str, bool], str], roles: frozenset[str] = OWN_ROLES, name: str = "", own: bool = False
) -> Any:
    """The JSON value with every text of it changed; parts that stay are the same objects. `change` is told whether the
    application itself says the text: by its field, or by one of `roles`."""
    if isinstance(value, str):
        return change(value, own or name in ("system", "instructions")) if _is_read(name, value) else value
    if isinstance(value, list):
        made = [rewritten(each, change, roles, name, own) for each in value]
        return value if all(a is b for a, b in zip(made, value, strict=True)) else made
    if isinstance(value, dict):
        role = value.get("role")
        own = own or (isinstance(role, str) and role in roles)
        changed = {key: rewritten(each, change, roles, _named(key, name, each), own) for key, each in value.items()}
        return value if all(changed[key] is each for key, each in value.items()) else changed
    return value


def restored(value: Any, masks: Masks) -> Any:
    """The JSON value of an answer that repeats what was sent in, with the values back in every string of it."""
    return _strings(value, masks.restore)


def _is_read(name: str, text: str) -> bool:
    return name in TEXTS or name == _EVERY or (name == SEALED and _sealed(text) is None)


def _named(key: str, name: str, value: Any) -> str:
    """The name by which strings below count: a list of messages is none itself."""
    if name == _EVERY or (key in _WHOLE and isinstance(value, _WHOLE[key])):
        return _EVERY
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
            yield from texts(each, _named(key, name, each))
