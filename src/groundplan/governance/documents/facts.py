"""What is known of one workload, as sentences for documents, each with its origin. Pure.

Only what is declared, served, measured or in evidence is stated; a fact that is not known has no sentence, so that its
section is marked as missing. Numbers are of the last 30 days.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from groundplan.blueprint import model as bp
from groundplan.catalog.retention import DAY_MS
from groundplan.catalog.workload import WorkloadDoc
from groundplan.catalog.workspace import Workspace
from groundplan.core.words import quantity
from groundplan.governance.policy.vocabulary import provider_of


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence and its origin: `declared`, `blueprint N`, `ledger`, `evidence ID` …"""

    text: str
    origin: str


@dataclass(frozen=True, slots=True)
class DocumentEvidence:
    """Valid evidence."""

    what: str
    says: str
    id: str
    until: datetime
    link: str | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """A blueprint that changed the workload."""

    number: int
    at: datetime
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentInput:
    """Everything that a document may draw on. `usage`: calls, failed and outcomes of the last 30 days."""

    workspace: Workspace
    blueprint: bp.Blueprint
    workload: str
    usage: Mapping[str, int] = field(default_factory=dict)
    evidence: Sequence[DocumentEvidence] = ()
    changes: Sequence[Change] = ()
    frameworks: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """framework -> controls satisfied, controls in all"""
    findings: int = 0

    @property
    def doc(self) -> WorkloadDoc:
        return self.workspace.workloads[self.workload]

    @property
    def served(self) -> bp.Workload | None:
        return next((item for item in self.blueprint.workloads if item.name == self.workload), None)

    @property
    def deployments(self) -> list[bp.Deployment]:
        used = self.served.all_deployments if self.served is not None else []
        return [item for item in self.blueprint.deployments if item.name in used]


def facts(known: DocumentInput) -> dict[str, tuple[Statement, ...]]:
    """Sentences by the name of the fact in templates; facts without a sentence are left out."""
    makers = {
        "purpose": _purpose, "provider": _provider, "version": _version, "integrations": _integrations, "tools": _tools,
        "models": _models, "prompts": _prompts, "interfaces": _interfaces, "places": _places, "notice": _notice,
        "support": _support, "terms": _terms, "objectives": _objectives, "routing": _routing, "effect": _effect,
        "architecture": _architecture, "usage": _usage, "sources": _sources, "oversight": _oversight,
        "changes_rule": _changes_rule, "quality": _quality, "evidence": _evidence, "security": _security,
        "limits": _limits, "risk": _risk, "guardrails": _guardrails, "outcomes": _outcomes, "history": _history,
        "frameworks": _frameworks, "monitoring": _monitoring, "workflow": _workflow, "stage": _stage,
        "traffic": _traffic, "affected": _affected, "incident": _incident, "regimes": _regimes, "keeping": _keeping,
        "value": _value, "needs": _needs, "readers": _readers, "erasure": _erasure,
    }  # fmt: skip
    statements = {name: tuple(make(known)) for name, make in makers.items()}
    return {name: each for name, each in statements.items() if each}


def _declared(*texts: str | None) -> Iterator[Statement]:
    for text in texts:
        if text:
            yield Statement(text, "declared")


def _purpose(known: DocumentInput) -> Iterator[Statement]:
    yield from _declared(known.doc.title, f"{known.doc.purpose}.")


def _provider(known: DocumentInput) -> Iterator[Statement]:
    company, risk = known.workspace.company, known.doc.risk
    role = risk.eu_ai_act.role if risk is not None and risk.eu_ai_act is not None else None
    if role is not None:
        yield Statement(f"{company.title or company.name} is its {role}.", "declared")
    for duty in ("business", "product"):
        people = known.served.owners.get(duty, []) if known.served is not None else []
        if people:
            yield Statement(f"Whoever holds the {duty} duty answers for it: {', '.join(people)}.", "blueprint")


def _version(known: DocumentInput) -> Iterator[Statement]:
    if known.served is not None:
        yield Statement(f"As served by blueprint {known.blueprint.number}.", f"blueprint {known.blueprint.number}")


def _integrations(known: DocumentInput) -> Iterator[Statement]:
    for name in known.doc.integrations:
        item = known.workspace.integrations[name]
        way = "calls it" if item.direction == "caller" else "is acted on by it"
        yield Statement(f"{item.title or name} ({item.system or 'system not named'}) {way}.", "declared")


def _tools(known: DocumentInput) -> Iterator[Statement]:
    for item in known.blueprint.tools:
        if known.workload in item.workloads:
            waits = f"; {', '.join(item.dangerous)} wait for a person" if item.dangerous else ""
            yield Statement(
                f"It may use the tools of {item.name}: {', '.join(item.tools) or 'all'}{waits}.", "blueprint"
            )


def _models(known: DocumentInput) -> Iterator[Statement]:
    for item in known.deployments:
        doc = known.workspace.models.get(item.model)
        licence = f", licence {doc.licence}" if doc is not None and doc.licence else ""
        yield Statement(f"{item.model}, version {item.upstream_model}, by {provider_of(item)}{licence}.", "blueprint")


def _prompts(known: DocumentInput) -> Iterator[Statement]:
    if known.served is not None and known.served.prompt:
        yield Statement(f"System prompt {known.served.prompt}.", "blueprint")


def _interfaces(known: DocumentInput) -> Iterator[Statement]:
    if known.served is not None:
        yield Statement(
            "Over the OpenAI and Anthropic APIs of the company's own gateway, with keys of this workload.", "blueprint"
        )


def _places(known: DocumentInput) -> Iterator[Statement]:
    sites = {item.name: item for item in known.blueprint.sites}
    for item in known.deployments:
        site = sites.get(item.site)
        if site is not None:
            yield Statement(
                f"{item.name}: {site.title or site.name}, {site.type}, in {site.jurisdiction}.", "blueprint"
            )
    if known.doc.residency:
        yield Statement(f"Data may be processed in {', '.join(known.doc.residency)} only.", "declared")


def _notice(known: DocumentInput) -> Iterator[Statement]:
    risk = known.doc.risk
    yield from _declared(risk.notice if risk is not None else None)


def _support(known: DocumentInput) -> Iterator[Statement]:
    item = known.doc.support
    if item is not None:
        hours = f", {item.hours}" if item.hours else ""
        yield Statement(f"Questions and complaints go to {item.contact}{hours}.", "declared")
        yield from _declared(f"Runbook: {item.runbook}." if item.runbook else None)


def _terms(known: DocumentInput) -> Iterator[Statement]:
    for item in known.deployments:
        if item.terms is not None:
            uses = "may train on it" if item.terms.training else "does not train on it"
            others = f", and hands it to {', '.join(item.terms.subprocessors)}" if item.terms.subprocessors else ""
            yield Statement(
                f"{provider_of(item)} at {item.name} {uses}, keeps it {item.terms.retention_days} days{others}.",
                "declared",
            )


def _objectives(known: DocumentInput) -> Iterator[Statement]:
    found = known.doc.objectives
    if found.first_token is not None:
        yield Statement(f"First token within {found.first_token} ms.", "declared")
    if found.availability is not None:
        yield Statement(f"Available {found.availability:.3%} of the time.", "declared")
    for name, value in sorted(found.quality.items()):
        yield Statement(f"Quality, {name}: at least {value:.1%}.", "declared")


def _routing(known: DocumentInput) -> Iterator[Statement]:
    if known.served is not None and len(known.served.deployments) > 1:
        yield Statement(f"Answered by {known.served.deployments[0]}, and where it fails by "
                   f"{', '.join(known.served.deployments[1:])}.", "blueprint")  # fmt: skip


def _effect(known: DocumentInput) -> Iterator[Statement]:
    words = {"informs": "inform people", "recommends": "recommend what to do", "decides": "decide about people"}
    yield Statement(f"Its answers {words[known.doc.effect]}.", "declared")


def _architecture(known: DocumentInput) -> Iterator[Statement]:
    if known.served is not None:
        steps = "identified, admitted, answered from a cache or grounded in documents, served, settled"
        yield Statement(f"A call is {steps}; pattern: {known.doc.pattern}.", "blueprint")


def _usage(known: DocumentInput) -> Iterator[Statement]:
    if known.usage.get("calls"):
        yield Statement(f"{known.usage['calls']} calls in the last 30 days.", "ledger")


def _sources(known: DocumentInput) -> Iterator[Statement]:
    for name in known.doc.sources:
        item = known.workspace.sources[name]
        of = item.governed
        licence = f", licence {of.licence}" if of.licence else ""
        where = item.path or (item.connector.type if item.connector is not None else "")
        yield Statement(
            f"{item.title or name}: {item.sensitivity}, from {where}, owned by {known.workspace.email_of(item.owner)}"
            f"{licence}; for the purposes {', '.join(known.doc.needs.purposes) or known.doc.purpose}.",
            "declared",
        )


def _oversight(known: DocumentInput) -> Iterator[Statement]:
    review = known.doc.review
    if review.before_sending:
        share = "All" if review.share == 1 else f"{review.share:.0%} of"
        yield Statement(f"{share} answers are looked at by a person before they are sent.", "declared")
    if known.served is not None:
        yield Statement(
            "One person on call stops it within a second; open answers end where security asks for that.", "blueprint"
        )


def _changes_rule(known: DocumentInput) -> Iterator[Statement]:
    if known.served is None:
        return
    kinds = ", ".join(known.blueprint.approved_parts)
    rule = "Prices and documents may change; any other change of what is declared waits for approval in production"
    yield Statement(rule + (f", as does each new {kinds}." if kinds else "."), "blueprint")


def _quality(known: DocumentInput) -> Iterator[Statement]:
    for each in known.evidence:
        if each.what.startswith(("evaluation", "test", "quality")):
            yield Statement(each.says, f"evidence {each.id}")


def _evidence(known: DocumentInput) -> Iterator[Statement]:
    for each in known.evidence:
        yield Statement(f"{each.what}: {each.says} (until {each.until.date()}).", f"evidence {each.id}")


def _security(known: DocumentInput) -> Iterator[Statement]:
    rules = sorted(item.name for item in known.blueprint.policies if item.enforced)
    if rules:
        yield Statement(f"Company rules that are enforced: {', '.join(rules)}.", "blueprint")
    if known.served is not None:
        yield Statement(
            "Keys are scoped to the workload; everything that changes, denies or exports is in a signed log.",
            "blueprint",
        )
        if known.served.use:
            yield Statement("Only those to whom it was granted may call it.", "blueprint")


def _limits(known: DocumentInput) -> Iterator[Statement]:
    if known.doc.risk is not None:
        yield from _declared(*(f"{each}." for each in known.doc.risk.known_limits))


def _risk(known: DocumentInput) -> Iterator[Statement]:
    risk = known.doc.risk
    if risk is None:
        return
    yield Statement(
        f"Impact {risk.impact}, likelihood {risk.likelihood}; with what is done about it: {risk.residual}.", "declared"
    )
    yield from _declared(*(f"May happen: {each}." for each in risk.harms))
    yield from _declared(*(f"Done about it: {each}." for each in risk.controls))
    if risk.accepted_by is not None:
        until = f" until {risk.until}" if risk.until else ""
        yield Statement(f"What is left is accepted by {known.workspace.email_of(risk.accepted_by)}{until}.", "declared")


def _guardrails(known: DocumentInput) -> Iterator[Statement]:
    rules = known.served.guardrails if known.served is not None else None
    if rules is None:
        return
    mode = "counted only" if rules.shadow else "enforced"
    for place, checks in (("what is sent in", rules.input), ("passages", rules.passages), ("answers", rules.output)):
        if checks:
            listed = ", ".join(f"{name.replace('_', ' ')} ({done})" for name, done in sorted(checks.items()))
            yield Statement(f"Checks of {place}, {mode}: {listed}.", "blueprint")


def _outcomes(known: DocumentInput) -> Iterator[Statement]:
    if number := known.usage.get("outcomes"):
        were = "was" if number == 1 else "were"
        yield Statement(f"{quantity(number, 'outcome')} {were} reported in the last 30 days.", "ledger")
    yield from _value(known)


def _history(known: DocumentInput) -> Iterator[Statement]:
    for each in known.changes:
        yield Statement(f"{each.at.date()}: blueprint {each.number}, {each.reason}.", f"blueprint {each.number}")


def _frameworks(known: DocumentInput) -> Iterator[Statement]:
    for name, (held, controls) in sorted(known.frameworks.items()):
        yield Statement(f"{name}: {held} of {controls} controls are satisfied by evidence.", "evidence")


def _monitoring(known: DocumentInput) -> Iterator[Statement]:
    if known.served is not None and known.usage.get("calls"):
        calls, failed = known.usage["calls"], known.usage.get("failed", 0)
        yield Statement(f"Every call is recorded; {failed} of {calls} failed in the last 30 days.", "ledger")
        yield Statement(f"{known.findings} findings are open about it.", "findings")


def _workflow(known: DocumentInput) -> Iterator[Statement]:
    item = known.workspace.workflows.get(known.doc.workflow) if known.doc.workflow else None
    if item is None:
        return
    named = item.title or item.name
    yield from _declared(
        f"{named}: {item.purpose}." if item.purpose else f"{named}.",
        f"A good result is: {item.outcome}." if item.outcome else None,
        f"Its owner is {known.workspace.email_of(item.owner)}." if item.owner else None,
    )
    if item.baseline is not None and (cases := item.baseline.cases) is not None:
        measured = f", measured on {item.baseline.measured}" if item.baseline.measured else ""
        yield Statement(f"Before, there were {cases.count:,} cases a {cases.period}{measured}.", "declared")


def _stage(known: DocumentInput) -> Iterator[Statement]:
    until = f", until {known.doc.limits.expires}" if known.doc.limits.expires else ""
    yield Statement(f"It is in the stage {known.doc.stage}{until}.", "declared")


def _traffic(known: DocumentInput) -> Iterator[Statement]:
    if known.doc.traffic is not None:
        yield Statement(f"Expected: {known.doc.traffic.calls.per_day:,.0f} calls a day.", "declared")


def _affected(known: DocumentInput) -> Iterator[Statement]:
    yield Statement(f"It is used by or for {known.doc.audience}.", "declared")
    if known.doc.risk is not None:
        yield from _declared(*(f"May happen to them: {each}." for each in known.doc.risk.harms))


def _incident(known: DocumentInput) -> Iterator[Statement]:
    item = known.doc.support
    if item is not None and item.runbook:
        yield Statement(f"What is done then: {item.runbook}.", "declared")
    people = known.served.owners.get("operations", []) if known.served is not None else []
    if people:
        yield Statement(
            f"Whoever holds the operations duty decides: {', '.join(people)}; stopping is effective in a second.",
            "blueprint",
        )


def _regimes(known: DocumentInput) -> Iterator[Statement]:
    if known.doc.regimes:
        yield Statement(f"Declared regimes: {', '.join(known.doc.regimes)}.", "declared")


def _keeping(known: DocumentInput) -> Iterator[Statement]:
    keep = known.served.keep if known.served is not None else None
    if known.served is None:
        return
    if keep is None:
        yield Statement("Prompts and answers are not kept.", "blueprint")
    else:
        days = known.doc.keep.for_ // DAY_MS
        how = "in full" if keep.content == "full" else "without personal data and secrets of a known shape"
        yield Statement(f"Prompts and answers are kept {how}, {days} days.", "blueprint")


def _value(known: DocumentInput) -> Iterator[Statement]:
    yield from _declared(f"Measured to know that it is worth it: {known.doc.value}." if known.doc.value else None)


def _needs(known: DocumentInput) -> Iterator[Statement]:
    if known.doc.needs.purposes:
        yield Statement(f"Only content for these purposes is used: {', '.join(known.doc.needs.purposes)}.", "declared")


def _readers(known: DocumentInput) -> Iterator[Statement]:
    for name in known.doc.sources:
        item = known.workspace.sources[name]
        yield Statement(
            f"{item.title or name} is read by {', '.join(item.readers)}; each sees what they may see.", "declared"
        )


def _erasure(known: DocumentInput) -> Iterator[Statement]:
    for name in known.doc.sources:
        of = known.workspace.sources[name].governed
        if of.retain is not None:
            yield Statement(f"{name} is kept {of.retain // DAY_MS} days.", "declared")
    if known.served is not None:
        yield Statement("A person is erased by destroying the key under which what is about them is kept.", "blueprint")


def statements_json(statements: Sequence[Statement]) -> list[dict[str, Any]]:
    """`[{"text", "origin"}]`"""
    return [{"text": each.text, "origin": each.origin} for each in statements]
