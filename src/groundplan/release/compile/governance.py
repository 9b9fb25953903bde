"""What governs the calls of a workload, from the catalog to the blueprint: guardrails, review, provider terms. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection

from groundplan.blueprint import model as bp
from groundplan.catalog import model as doc
from groundplan.catalog.retention import DAY_MS
from groundplan.catalog.workspace import Workspace
from groundplan.core.canonical import canonical, digest


def provider_terms(item: doc.DeploymentDoc) -> bp.ProviderTerms | None:
    terms = item.provider_terms
    if terms is None:
        return None
    days = -(-terms.retention // DAY_MS)
    return bp.ProviderTerms(training=terms.training, retention_days=days, subprocessors=sorted(terms.subprocessors))


def tools(workspace: Workspace) -> list[bp.ToolServer]:
    """Every MCP server, by name."""
    return [
        bp.ToolServer(
            name=name, url=item.url, key=item.key, owner=workspace.email_of(item.owner),
            workloads=sorted(item.workloads), tools=sorted(item.tools), dangerous=sorted(item.dangerous),
            timeout_ms=item.timeout, resources=sorted(item.resources), prompts=sorted(item.prompts),
        )
        for name, item in workspace.tools.items()
    ]  # fmt: skip


def workload_descriptions(workspace: Workspace, subjects: Collection[str]) -> dict[str, bp.Described]:
    """By name what workloads (`subjects`: `workload/NAME`) are said to be, where that is not the ordinary."""
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


def frameworks(workspace: Workspace) -> list[bp.Framework]:
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


def review(workspace: Workspace, rule: doc.ReviewRule) -> bp.Review | None:
    """None where no answer waits."""
    if not rule.before_sending:
        return None
    return bp.Review(
        by=sorted(workspace.email_of(person) for person in rule.by),
        within_ms=rule.within,
        release_after=rule.after == "release",
        share=round(rule.share * 10_000),
    )


def guardrails(rule: doc.GuardrailRule | None) -> bp.Guardrails | None:
    if rule is None:
        return None
    before, after, passages = rule.input, rule.output, rule.passages
    return bp.Guardrails(
        input=_enabled_checks(personal_data=before.personal_data, secrets=before.secrets, injection=before.injection),
        output=_enabled_checks(personal_data=after.personal_data, secrets=after.secrets),
        passages={}
        if passages is None
        else _enabled_checks(
            personal_data=passages.personal_data, secrets=passages.secrets, injection=passages.injection
        ),
        deny_input=sorted(before.deny),
        deny_output=sorted(after.deny),
        max_input_bytes=before.max_size,
        max_output_bytes=after.max_size,
        input_languages=sorted(before.languages),
        output_languages=sorted(after.languages),
        links=None if after.links is None else sorted(after.links),
        schema=None if after.schema_ is None else json.dumps(after.schema_, sort_keys=True),
        grounded=after.grounded,
        judge=None
        if after.judge is None
        else bp.Judge(
            deployment=after.judge.deployment, question=after.judge.question, refuse_on=after.judge.refuse_on
        ),
        presidio="" if after.presidio == "off" else after.presidio,
        presidio_input="" if before.presidio == "off" else before.presidio,
        tools=None if rule.tools is None else sorted(rule.tools),
        entities=[bp.CompanyEntity(name=e.name, pattern=e.pattern, secret=e.secret) for e in rule.entities],
        shadow=rule.mode == "shadow",
        budget_ms=rule.budget,
        fail_open=rule.on_failure == "open",
        hold_bytes=rule.hold_back,
        unchecked=sorted(rule.unchecked),
    )


def _enabled_checks(**checks: str) -> dict[str, str]:
    return {name: done for name, done in checks.items() if done != "off"}


def delay_notes(served: bp.Blueprint | None, new: bp.Blueprint) -> tuple[str, ...]:
    """What changes for callers by how answers are checked: streams that are held back, answers that wait."""
    before = {item.name: _answer_delays(item) for item in served.workloads} if served else {}
    found: list[str] = []
    for item in new.workloads:
        told = _answer_delays(item)
        if told != before.get(item.name, ()):
            found += [f"workload/{item.name}: {each}" for each in told]
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
    there = {
        "schema": rule.schema, "grounded": rule.grounded, "languages": rule.output_languages, "judge": rule.judge,
        "presidio": rule.presidio,
    }  # fmt: skip
    return [name for name, declared in there.items() if declared]
