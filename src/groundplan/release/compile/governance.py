"""Compiles guardrails, reviews, provider terms, tools and frameworks from the catalog. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection

from groundplan.blueprint import model as bp
from groundplan.catalog import model as doc
from groundplan.catalog.retention import DAY_MS
from groundplan.catalog.workspace import Workspace
from groundplan.core.canonical import canonical, digest


def compile_provider_terms(item: doc.DeploymentDoc) -> bp.ProviderTerms | None:
    terms = item.provider_terms
    if terms is None:
        return None
    days = -(-terms.retention // DAY_MS)
    return bp.ProviderTerms(training=terms.training, retention_days=days, subprocessors=sorted(terms.subprocessors))


def compile_tools(workspace: Workspace) -> list[bp.ToolServer]:
    """All MCP servers, by name."""
    return [
        bp.ToolServer(
            name=name, url=item.url, key=item.key, owner=workspace.email_of(item.owner),
            workloads=sorted(item.workloads), tools=sorted(item.tools), dangerous=sorted(item.dangerous),
            timeout_ms=item.timeout, resources=sorted(item.resources), prompts=sorted(item.prompts),
        )
        for name, item in workspace.tools.items()
    ]  # fmt: skip


def compile_descriptions(workspace: Workspace, subjects: Collection[str]) -> dict[str, bp.Described]:
    """Workload -> its pattern, effect, regimes and risk, where these are not the defaults; `subjects`: `workload/NAME`
    of the workloads."""
    made = {
        name: bp.Described(
            pattern=item.pattern,
            effect=item.effect,
            regimes=sorted(item.regimes),
            risk="" if item.risk is None else digest(canonical(item.risk.model_dump(mode="json"))),
        )
        for name, item in workspace.workloads.items()
        if f"workload/{name}" in subjects
    }
    return {name: each for name, each in made.items() if each != bp.Described()}


def compile_frameworks(workspace: Workspace) -> list[bp.Framework]:
    return [
        bp.Framework(
            name=name,
            owner=workspace.email_of(item.owner),
            profile=item.profile,
            workloads=sorted(item.workloads),
            excluded={each.control: each.reason for each in item.excluded},
            controls=sorted(each.id for each in item.controls),
        )
        for name, item in sorted(workspace.frameworks.items())
    ]


def compile_review(workspace: Workspace, rule: doc.ReviewRule) -> bp.Review | None:
    """The review before sending; None where no answer waits for a person."""
    if not rule.before_sending:
        return None
    return bp.Review(
        by=sorted(workspace.email_of(person) for person in rule.by),
        within_ms=rule.within,
        release_after=rule.after == "release",
        share=round(rule.share * 10_000),
    )


def compile_guardrails(rule: doc.GuardrailRule | None) -> bp.Guardrails | None:
    if rule is None:
        return None
    input_rule, output_rule, passages = rule.input, rule.output, rule.passages
    return bp.Guardrails(
        input=_enabled_checks(
            personal_data=input_rule.personal_data, secrets=input_rule.secrets, injection=input_rule.injection
        ),
        output=_enabled_checks(personal_data=output_rule.personal_data, secrets=output_rule.secrets),
        passages={}
        if passages is None
        else _enabled_checks(
            personal_data=passages.personal_data, secrets=passages.secrets, injection=passages.injection
        ),
        deny_input=sorted(input_rule.deny),
        deny_output=sorted(output_rule.deny),
        max_input_bytes=input_rule.max_size,
        max_output_bytes=output_rule.max_size,
        input_languages=sorted(input_rule.languages),
        output_languages=sorted(output_rule.languages),
        links=None if output_rule.links is None else sorted(output_rule.links),
        schema=None if output_rule.schema_ is None else json.dumps(output_rule.schema_, sort_keys=True),
        grounded=output_rule.grounded,
        judge=None
        if output_rule.judge is None
        else bp.Judge(
            deployment=output_rule.judge.deployment,
            question=output_rule.judge.question,
            refuse_on=output_rule.judge.refuse_on,
        ),
        presidio="" if output_rule.presidio == "off" else output_rule.presidio,
        presidio_input="" if input_rule.presidio == "off" else input_rule.presidio,
        tools=None if rule.tools is None else sorted(rule.tools),
        entities=[bp.CompanyEntity(name=e.name, pattern=e.pattern, secret=e.secret) for e in rule.entities],
        shadow=rule.mode == "shadow",
        budget_ms=rule.budget,
        fail_open=rule.on_failure == "open",
        hold_bytes=rule.hold_back,
        unchecked=sorted(rule.unchecked),
    )


def _enabled_checks(**checks: str) -> dict[str, str]:
    return {name: action for name, action in checks.items() if action != "off"}


def delay_notes(served: bp.Blueprint | None, new: bp.Blueprint) -> tuple[str, ...]:
    """Notes on new delays for callers by checks of answers: streams that are held back, answers that wait."""
    before = {item.name: _answer_delays(item) for item in served.workloads} if served else {}
    found: list[str] = []
    for item in new.workloads:
        delays = _answer_delays(item)
        if delays != before.get(item.name, ()):
            found += [f"workload/{item.name}: {each}" for each in delays]
    return tuple(found)


def _answer_delays(item: bp.Workload) -> tuple[str, ...]:
    found: list[str] = []
    rule = item.guardrails
    if rule is not None and (whole := _whole_answer_checks(rule)):
        found.append(f"streams are held back to their end, since {', '.join(whole)} needs the whole answer")
    elif rule is not None and (rule.output or rule.deny_output or rule.links is not None):
        found.append(f"streams are held back by {rule.hold_bytes} characters")
    if item.review is not None:
        found.append(f"answers wait up to {item.review.within_ms / 60_000:g} min for a person")
    if item.cache is not None and (rule is not None or item.review is not None):
        found.append("answers are not given from the cache, since each is checked")
    return tuple(found)


def _whole_answer_checks(rule: bp.Guardrails) -> list[str]:
    whole_checks = {
        "schema": rule.schema, "grounded": rule.grounded, "languages": rule.output_languages, "judge": rule.judge,
        "presidio": rule.presidio,
    }  # fmt: skip
    return [name for name, declared in whole_checks.items() if declared]
