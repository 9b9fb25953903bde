"""The checks that facts alone decide: each judges one need of controls for a workload. Pure.

A verdict states what was found, with figures and a link; it never guesses. What only people can show has no judge.
"""

from __future__ import annotations

from datetime import date, timedelta

from groundplan.catalog.people import DUTIES
from groundplan.core.words import quantity
from groundplan.governance.controls.model import Facts, Verdict
from groundplan.governance.risk.eu_ai_act import classify

ENOUGH_CALLS = 100
ENOUGH_OUTCOMES = 30
LOG_AGE = timedelta(days=7)


def _page(facts: Facts) -> str:
    return f"/workloads/{facts.workload}"


def owner(f: Facts, _: date) -> Verdict:
    held = "business" in f.duties
    says = "an active person holds the business duty" if held else "nobody active holds the business duty"
    return Verdict(held, says, {}, _page(f))


def duties(f: Facts, _: date) -> Verdict:
    missing = [duty for duty in DUTIES if duty not in f.duties]
    says = f"nobody active holds {', '.join(missing)}" if missing else "every duty has an active person"
    return Verdict(not missing, says, {"missing": missing}, _page(f))


def purpose(f: Facts, _: date) -> Verdict:
    missing = [name for name, text in (("purpose", f.purpose), ("value", f.value)) if not text]
    says = f"{' and '.join(missing)} not declared" if missing else f"purpose: {f.purpose}; value: {f.value}"
    return Verdict(not missing, says, {"audience": f.audience, "effect": f.effect}, _page(f))


def regimes(f: Facts, _: date) -> Verdict:
    holds = bool(f.regimes)
    return Verdict(holds, f"regimes: {', '.join(f.regimes)}" if holds else "no regime is declared", {}, _page(f))


def assessed(f: Facts, _: date) -> Verdict:
    risk = f.risk
    if risk is None:
        return Verdict(False, "no risk is declared", {}, _page(f))
    detail = {"impact": risk.impact, "likelihood": risk.likelihood, "residual": risk.residual, "harms": len(risk.harms)}
    holds = bool(risk.harms) and bool(risk.controls)
    says = f"impact {risk.impact}, {risk.likelihood}; left: {risk.residual}"
    return Verdict(holds, says if holds else "harms, or what is done about them, are not declared", detail, _page(f))


def accepted(f: Facts, today: date) -> Verdict:
    risk = f.risk
    if risk is None or risk.accepted_by is None or risk.until is None:
        return Verdict(False, "nobody has accepted the residual risk until a date", {}, _page(f))
    detail = {"residual": risk.residual, "until": risk.until.isoformat()}
    if risk.until < today:
        return Verdict(False, f"acceptance ended on {risk.until}", detail, _page(f))
    if not f.accepted_by_active:
        return Verdict(False, "the person who accepted it has left", detail, _page(f))
    return Verdict(True, f"{risk.residual} risk is accepted until {risk.until}", detail, _page(f))


def classified(f: Facts, _: date) -> Verdict:
    if f.risk is None or f.risk.eu_ai_act is None:
        return Verdict(False, "the questions of the EU AI Act are not answered", {}, _page(f))
    found = classify(f.risk.eu_ai_act)
    holds = found.name != "prohibited"
    return Verdict(holds, f"{found.name}: {found.why}", {"class": found.name, "role": found.role}, _page(f))


def approved(f: Facts, _: date) -> Verdict:
    if f.approved_change is None:
        return Verdict(False, "what is served has no valid approval by somebody other than its requester", {}, _page(f))
    says = "what is served was approved by others than its requester"
    return Verdict(True, says, {"change": f.approved_change}, f"/governance/changes/{f.approved_change}")


def lawful(f: Facts, _: date) -> Verdict:
    link = f"/blueprints/{f.blueprint}"
    if not f.served:
        return Verdict(False, "it is not served", {}, link)
    says = f"blueprint {f.blueprint} was checked: every place keeps residency and sensitivity"
    return Verdict(True, says, {"blueprint": f.blueprint}, link)


def budget(f: Facts, _: date) -> Verdict:
    holds = bool(f.hard_budgets)
    return Verdict(
        holds, f"hard budget: {', '.join(f.hard_budgets)}" if holds else "no hard budget of its own", {}, "/cost"
    )


def fallback(f: Facts, _: date) -> Verdict:
    if not f.fallbacks:
        return Verdict(False, "no other deployment can take over", {}, _page(f))
    if f.fallback_call is None:
        return Verdict(False, f"{f.fallbacks[0]} has answered nothing in 30 days", {}, _page(f))
    says = f"{f.fallbacks[0]} or another one answered in place of the first"
    return Verdict(True, says, {"call": f.fallback_call}, f"/calls/{f.fallback_call}", grows=True)


def data(f: Facts, _: date) -> Verdict:
    lost = [source.name for source in f.sources if not source.owner_present]
    grave = [source.name for source in f.sources if source.grave_findings]
    detail = {"sources": [source.name for source in f.sources], "without_owner": lost, "with_grave_findings": grave}
    if lost:
        return Verdict(False, f"no active owner: {', '.join(lost)}", detail, "/knowledge")
    if grave:
        return Verdict(False, f"critical or high findings are open: {', '.join(grave)}", detail, "/knowledge")
    says = (
        f"{quantity(len(f.sources), 'source')}, each with an active owner" if f.sources else "it uses no governed data"
    )
    return Verdict(True, says, detail, "/knowledge")


def privacy(f: Facts, _: date) -> Verdict:
    holds = f.keeps in ("none", "redacted") or f.approved_change is not None
    says = {"none": "prompts and answers are not kept", "redacted": "kept without personal data and secrets"}.get(
        f.keeps, "kept in full, which was approved" if holds else "kept in full without approval"
    )
    return Verdict(holds, says, {"keeps": f.keeps, "sensitivity": f.sensitivity}, _page(f))


def logs(f: Facts, _: date) -> Verdict:
    says = "the log still has its first entry" if f.log_complete else "the log no longer has its first entry"
    return Verdict(f.log_complete, says, {"entries": f.log_size}, "/governance", grows=True)


def monitored(f: Facts, _: date) -> Verdict:
    detail = {"calls": f.calls}
    if not (f.first_token or f.availability):
        return Verdict(False, "no objective of latency or availability is declared", detail, _page(f))
    holds = f.calls >= ENOUGH_CALLS
    says = f"{f.calls} calls in 30 days were measured"
    return Verdict(
        holds,
        says if holds else f"{says}; it takes {ENOUGH_CALLS}",
        detail,
        f"/calls?workload={f.workload}",
        grows=True,
    )


def quality(f: Facts, _: date) -> Verdict:
    holds = bool(f.quality)
    says = f"objectives of {', '.join(f.quality)}" if holds else "no objective of quality is declared"
    return Verdict(holds, says, {}, _page(f))


def outcomes(f: Facts, _: date) -> Verdict:
    holds = f.outcomes >= ENOUGH_OUTCOMES
    says = f"{f.outcomes} outcomes were reported in 30 days"
    says = says if holds else f"{says}; it takes {ENOUGH_OUTCOMES}"
    return Verdict(holds, says, {"outcomes": f.outcomes}, _page(f), grows=True)


def review(f: Facts, _: date) -> Verdict:
    detail = {"share": f.reviewed_share, "before_sending": f.reviewed_share > 0, "effect": f.effect}
    if f.reviewed_share > 0:
        return Verdict(True, "people look at answers before they are sent", detail, _page(f))
    if f.effect == "informs":
        return Verdict(True, "it only informs; the reader decides", detail, _page(f))
    return Verdict(False, f"it {f.effect}, and nobody looks at its answers", detail, _page(f))


def stop(f: Facts, _: date) -> Verdict:
    if f.lifted_kill is None:
        return Verdict(False, "it has not been stopped and restarted in 180 days", {}, "/kill")
    return Verdict(True, "it was stopped by its kill switch and restarted", {"kill": f.lifted_kill}, "/kill")


def support(f: Facts, _: date) -> Verdict:
    holds = bool(f.support and f.runbook)
    says = f"{f.support}, runbook {f.runbook}" if holds else "support with contact and runbook is not declared"
    return Verdict(holds, says, {}, _page(f))


def notice(f: Facts, _: date) -> Verdict:
    notice = f.risk.notice if f.risk is not None else None
    return Verdict(
        notice is not None, notice or "how people are informed that they interact with AI is not declared", {}, _page(f)
    )


def terms(f: Facts, _: date) -> Verdict:
    holds = not f.undeclared_terms
    says = (
        "terms of every provider are declared" if holds else f"terms are not declared: {', '.join(f.undeclared_terms)}"
    )
    return Verdict(holds, says, {"missing": list(f.undeclared_terms)}, "/governance/register")


def register(f: Facts, _: date) -> Verdict:
    holds = not f.models_without_terms
    says = (
        "origin of every model is known" if holds else f"neither licence nor terms: {', '.join(f.models_without_terms)}"
    )
    return Verdict(holds, says, {"missing": list(f.models_without_terms)}, "/governance/register")


def guardrails(f: Facts, _: date) -> Verdict:
    holds = bool(f.enforced_guardrails)
    says = f"guardrails are enforced on {', '.join(f.enforced_guardrails)}" if holds else "no guardrail is enforced"
    return Verdict(holds, says, {"on": list(f.enforced_guardrails)}, _page(f))


def keys(f: Facts, _: date) -> Verdict:
    holds = not f.stale_keys
    says = "no key without an expiry is older than a year" if holds else f"older than a year: {', '.join(f.stale_keys)}"
    return Verdict(holds, says, {"keys": list(f.stale_keys)}, _page(f))


def policy(f: Facts, _: date) -> Verdict:
    holds = bool(f.rules)
    says = f"enforced rules: {', '.join(f.rules)}" if holds else "no company rule is enforced"
    return Verdict(holds, says, {"rules": list(f.rules)}, "/governance/rules")


def verified(f: Facts, today: date) -> Verdict:
    if f.log_verified_at is None:
        return Verdict(False, "the log was not verified since this process started", {}, "/governance")
    holds = today - f.log_verified_at.date() <= LOG_AGE
    says = f"{f.log_size} entries were verified on {f.log_verified_at.date()}"
    return Verdict(holds, says, {"entries": f.log_size}, "/governance", grows=True)


def grave(f: Facts, _: date) -> Verdict:
    holds = f.grave_findings == 0
    says = "no critical or high finding is open" if holds else f"critical or high findings: {f.grave_findings}"
    return Verdict(holds, says, {"open": f.grave_findings}, "/inbox")
