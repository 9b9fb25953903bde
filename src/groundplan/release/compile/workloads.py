"""Compiles a workload of a blueprint within the caps in force. Pure; its placement is an argument."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from decimal import Decimal

from groundplan.blueprint import model as bp
from groundplan.catalog import model as doc
from groundplan.catalog.rules.index import rerank_rule
from groundplan.catalog.workspace import Workspace
from groundplan.placement.model import ASSUMED_CALLS_PER_MONTH, Demand
from groundplan.release.compile import experiments, knowledge, routing
from groundplan.release.compile.governance import compile_guardrails, compile_review
from groundplan.release.compile.grants import compile_grants


def _compile_needs(item: doc.WorkloadDoc) -> bp.Needs:
    rule = item.needs
    return bp.Needs(purposes=sorted(rule.purposes), quality=rule.quality, scanned=rule.scanned)


def placement_demand(item: doc.WorkloadDoc) -> Demand:
    """The demand of a workload for placement; undeclared traffic is assumed."""
    traffic = item.traffic
    return Demand(
        workload=item.name,
        sensitivity=item.sensitivity,
        residency=item.residency,
        purposes=item.needs.purposes,
        preferred=item.deployments,
        fallbacks=item.fallbacks,
        calls_per_month=traffic.calls.per_month if traffic else Decimal(ASSUMED_CALLS_PER_MONTH),
        prompt_tokens=traffic.prompt_tokens if traffic else 800,
        completion_tokens=traffic.completion_tokens if traffic else 200,
        assumed=traffic is None,
        chats=item.chats,
    )


def refusal_key(item: doc.WorkloadDoc) -> str:
    """The key at whose line a refused placement is reported."""
    for key in ("deployments", "fallbacks", "residency", "sensitivity", "needs"):
        if key in item.model_fields_set:
            return key
    return "name"


def compile_workload(
    workspace: Workspace,
    item: doc.WorkloadDoc,
    placement: bp.Placement,
    served: bp.Workload | None,
    caps: bp.Caps,
    today: date,
) -> bp.Workload:
    """The workload in its place and within `caps`; `served`: the workload as it is served now."""
    prompt = _find_prompt(workspace.prompts, item.prompt)
    limits = item.limits
    temporary = item.stage != "production"
    return bp.Workload(
        name=item.name,
        purpose=item.purpose,
        stage=item.stage,
        sensitivity=item.sensitivity,
        audience=item.audience,
        residency=sorted(item.residency),
        team=item.team,
        deployments=deployment_chain(placement),
        embeddings=list(item.embeddings),
        aliases=sorted(item.aliases),
        also=list(item.also),
        budgets=sorted(workspace.budgets_of(item.name)),
        grounding=_compile_grounding(workspace, item),
        needs=_compile_needs(item),
        system_prompt=prompt.text if prompt else None,
        prompt=f"{prompt.name}@{prompt.version}" if prompt else None,
        max_output_tokens=limits.max_output,
        calls_per_day=_limit_or_cap(item, "calls_per_day", caps.calls_per_day if temporary else None),
        people=_limit_or_cap(item, "people", caps.people if temporary else None),
        max_cost_per_call=limits.max_cost_per_call,
        expires=_end_date(item, served, caps.days, today),
        expires_declared=limits.expires is not None,
        grace_ms=item.grace_ms,
        attempts=item.reliability.attempts or limits.attempts,
        deadline_ms=item.reliability.deadline or limits.deadline,
        reliability=_compile_reliability(item, placement),
        keep=_compile_keep(item.keep),
        cache=_compile_cache(item),
        routing=routing.compile_routing(workspace, item, deployment_chain(placement)),
        experiment=experiments.compile_experiment(item),
        replay=experiments.compile_replay(item),
        batch_concurrent=item.batches.concurrent,
        file_bytes=item.files.max_size,
        use=compile_grants(workspace, "use", f"workload/{item.name}", "company"),
        act_for_others=compile_grants(workspace, "act-for-others", f"workload/{item.name}", "company"),
        guardrails=compile_guardrails(item.guardrails),
        review=compile_review(workspace, item.review),
    )


def _compile_keep(rule: doc.KeepRule) -> bp.Keep | None:
    share = round(rule.share * 10_000)
    if rule.content == "none" or not share:
        return None
    return bp.Keep(content=rule.content, seconds=rule.for_ // 1000, share=share)


def _compile_cache(item: doc.WorkloadDoc) -> bp.Cache | None:
    rule = item.cache
    if rule.answers == "off":
        return None
    private = bool(item.sources) or item.sensitivity in ("confidential", "restricted")
    scope = rule.scope or ("person" if private else "workload")
    semantic = routing.compile_semantic(rule)
    return bp.Cache(seconds=max(1, rule.ttl // 1000), max_bytes=rule.max_size, scope=scope, semantic=semantic)


def _compile_reliability(item: doc.WorkloadDoc, placement: bp.Placement) -> bp.Reliability:
    rule = item.reliability
    hedge = rule.hedge
    return bp.Reliability(
        same=rule.retries.same,
        backoff_ms=rule.retries.backoff,
        max_backoff_ms=rule.retries.max_backoff,
        hedge=None
        if hedge is None
        else bp.Hedge(percentile=hedge.percentile, after_ms=hedge.after_ms, at_most=hedge.at_most),
        balance=rule.balance,
        peers=peer_count(item, placement) if rule.balance != "ordered" else None,
        on_broken_stream=rule.on_broken_stream,
        priority=rule.priority,
    )


def deployment_chain(placement: bp.Placement) -> list[str]:
    """The deployments of a placement in the order in which they are asked."""
    return [name for name in (placement.primary, *placement.fallbacks) if name is not None]


def peer_count(item: doc.WorkloadDoc, placement: bp.Placement) -> int | None:
    """How many of the placed deployments share the calls: those that are not declared as fallbacks. None: all."""
    fallbacks_only = [name for name in item.fallbacks if name not in item.deployments]
    return sum(name not in fallbacks_only for name in deployment_chain(placement)) if fallbacks_only else None


def _limit_or_cap(item: doc.WorkloadDoc, field: str, cap: int | None) -> int | None:
    """The workload's own limit, `unlimited` included; the cap if it declares none."""
    value: int | None = getattr(item.limits, field)
    return value if field in item.limits.model_fields_set else cap


def _end_date(item: doc.WorkloadDoc, served: bp.Workload | None, days: int | None, today: date) -> str | None:
    """The declared last day; else the one that is served already; else `days` from today. Production has none."""
    if item.limits.expires is not None:
        return item.limits.expires.isoformat()
    if item.stage == "production":
        return None
    if served is not None and served.stage == item.stage and not served.expires_declared:
        return served.expires
    return None if days is None else (today + timedelta(days=days)).isoformat()


def _compile_grounding(workspace: Workspace, item: doc.WorkloadDoc) -> bp.Grounding | None:
    if not item.sources:
        return None
    rule = item.grounding
    return bp.Grounding(
        sources=sorted(item.sources),
        passages=rule.passages,
        max_bytes=rule.max_size,
        floor=rule.floor,
        required=rule.required,
        synonyms=rule.synonyms,
        rerank=knowledge.compile_rerank(rerank_rule(workspace, item)),
    )


def _find_prompt(prompts: Mapping[str, doc.PromptDoc], name: str | None) -> doc.PromptDoc | None:
    return prompts.get(name.partition("@")[0]) if name else None
