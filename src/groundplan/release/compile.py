"""From a workspace to the draft of a blueprint: names resolved, prices looked up, every workload placed.

Pure: the day and the prices are arguments. What of the draft may be served now is decided in `plan`; cross-references
are checked by the catalog before this runs, so unknown names are simply left out here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import msgspec

from groundplan.blueprint import model as bp
from groundplan.catalog import model as doc
from groundplan.catalog.index import IndexRule
from groundplan.catalog.keep import DAY_MS
from groundplan.catalog.wire import DIRECT
from groundplan.catalog.workspace import Workspace
from groundplan.core.errors import Invalid, Problem
from groundplan.core.money import format_usd
from groundplan.economics.price import FREE, price_of
from groundplan.economics.prices.currency import USD, rate_on, rates_in_usd
from groundplan.economics.prices.windows import by_time
from groundplan.governance.policy import declared
from groundplan.placement import solve
from groundplan.placement.model import ASSUMED_CALLS_PER_MONTH, Demand
from groundplan.release import choice, placing, ramping, trying
from groundplan.release.governed import described, frameworks, guardrails, provider_terms, review, tools
from groundplan.release.grants import granted, named
from groundplan.release.model import Draft, at

Prices = Callable[[Workspace, doc.DeploymentDoc, date], bp.Rates | Problem]
"""Rates of a deployment on a day, or why there are none."""


def declared_or_listed(workspace: Workspace, deployment: doc.DeploymentDoc, day: date) -> bp.Rates | Problem:
    """The price at the deployment, else of its model document, else of the shipped price list."""
    kind, name, prices = "deployment", deployment.name, deployment.price
    described = workspace.models.get(deployment.model)
    if not prices and described is not None:
        kind, name, prices = "model", described.name, described.price
    try:
        declared = _declared(workspace, kind, name, prices, day)
    except Invalid as error:
        return Problem(error.message, error.code, error.hint, workspace.where(kind, name, "price"))
    return price_of(
        deployment.model,
        day,
        declared=declared,
        context_tokens=deployment.context,
        where=workspace.where("deployment", deployment.name, "model"),
    )


def declared_caps(workspace: Workspace) -> bp.Caps:
    """The caps that the company document asks for."""
    caps = workspace.company.caps
    return bp.Caps(people=caps.people, calls_per_day=caps.calls_per_day, days=caps.days, sensitivity=caps.sensitivity)


def declared_owners(workspace: Workspace) -> dict[str, list[str]]:
    """Duty -> e-mail addresses for the company, as its document asks."""
    return _sorted(workspace.owners(workspace.company.owners))


def compile_draft(
    workspace: Workspace,
    current: bp.Blueprint | None,
    caps: bp.Caps,
    owners: dict[str, list[str]],
    *,
    today: date,
    prices: Prices = declared_or_listed,
    seen: placing.Observed = placing.NOTHING,
) -> Draft:
    """Everything that is declared and served by its stage, placed and priced, as a blueprint numbered 0.

    `caps` and company-wide `owners` are those that hold, which may differ from those declared; `seen` is what the
    gateways saw, for plans.
    """
    sites = {name: _site(item) for name, item in workspace.sites.items()}
    deployments, problems = _deployments(workspace, today, prices)
    served = {item.name: item for item in current.workloads} if current else {}
    found = placing.placing(workspace, deployments, current, today, seen)
    placements, refusals = _placed(workspace, deployments, sites, found, current)
    problems += [*found.problems, *refusals]
    workloads = [
        _answered_for(
            workspace, item, owners, _workload(workspace, item, placements[name], served.get(name), caps, today)
        )
        for name, item in workspace.workloads.items()
        if item.stage in doc.SERVED_STAGES
    ]
    used = {name for item in workloads if item.grounding for name in item.grounding.sources}
    own = {f"workload/{item.name}" for item in workloads}
    blueprint = bp.Blueprint(
        number=0,
        company=workspace.company.name,
        separation=workspace.company.separation,
        sites=[sites[name] for name in sorted(sites)],
        deployments=deployments,
        sources=[_source(workspace, item) for name, item in workspace.sources.items() if name in used],
        workloads=workloads,
        budgets=_budgets(workspace, own),
        limits=limits(workspace),
        allocations=[_allocation(item) for _, item in sorted(workspace.allocations.items())],
        currencies=_currencies(workspace),
        trusted_proxies=sorted(workspace.company.trusted_proxies),
        placements=list(placements.values()),
        terms=[_term(workspace, item) for item in workspace.terms.values()],
        review_days=_review_days(workspace, used),
        caps=caps,
        owners=owners,
        policies=declared.rules(workspace),
        described=described(workspace, own),
        tools=tools(workspace),
        frameworks=frameworks(workspace),
        index=_index(workspace.company.index),
        approved_parts=sorted(workspace.company.approvals.parts),
    )
    return Draft(blueprint, tuple(problems))


def _placed(
    workspace: Workspace,
    deployments: list[bp.Deployment],
    sites: dict[str, bp.Site],
    found: placing.Placing,
    current: bp.Blueprint | None,
) -> tuple[dict[str, bp.Placement], list[Problem]]:
    """Every workload judged and, where it asks for that, ordered by the plan; refusals of those that are served."""
    placements: dict[str, bp.Placement] = {}
    problems: list[Problem] = []
    for name, item in workspace.workloads.items():
        demand = _demand(item)
        placement = placing.routed(found, solve.solve(demand, deployments, sites), workspace, current)
        at_once = found.plan.at_once.get(name) if found.plan is not None else None
        placement = placements[name] = ramping.begun(item, placement, current, at_once)
        if item.stage in doc.SERVED_STAGES:
            where = workspace.where("workload", name, _culprit(item))
            problems += [at(problem, where) for problem in solve.refused(demand, placement)]
    return placements, problems


def _answered_for(
    workspace: Workspace, item: doc.WorkloadDoc, owners: dict[str, list[str]], workload: bp.Workload
) -> bp.Workload:
    """With its own owners, else those of the company."""
    answering = {**owners, **_sorted(workspace.owners(item.owners))}
    return msgspec.structs.replace(workload, owners=dict(sorted(answering.items())))


def _budgets(workspace: Workspace, own: set[str]) -> list[bp.Budget]:
    """Those of the company, of groups, and of workloads that are served."""
    return [
        _budget(item)
        for item in workspace.budgets.values()
        if not item.covers.startswith("workload/") or item.covers in own
    ]


def _review_days(workspace: Workspace, used: set[str]) -> dict[str, int]:
    """Of sources that something uses and that are to be looked at again."""
    return {
        name: days
        for name, item in workspace.sources.items()
        if name in used and (days := _days(item.review_every)) is not None
    }


def _allocation(item: doc.AllocationDoc) -> bp.Allocation:
    amount, period, how = _amount(item)
    counted = item.quantity is not None
    return bp.Allocation(
        name=item.name,
        term=item.term,
        amount=amount,
        currency=item.currency,
        period=period,
        life_days=(item.life or 0) // DAY_MS,
        how=how,
        rate=None if counted else item.rate,
        per="" if counted else item.per or "",
        by=item.by,
        shares=dict(sorted(item.shares.items())),
        covers=item.covers,
        capacity=None if item.capacity is None else int(item.capacity.per_day),
        basis=item.basis,
        source=item.source,
        since=item.since.isoformat() if item.since else "",
        until=item.until.isoformat() if item.until else "",
    )


def _amount(item: doc.AllocationDoc) -> tuple[int | None, str, str]:
    """(10^-12 units of its currency a period, period, how it came about)."""
    if item.purchase is not None:
        days = (item.life or 0) // DAY_MS
        how = f"{item.count} x {format_usd(item.purchase).rstrip('0').rstrip('.')} {item.currency} over {days} days"
        return item.purchase * item.count, "life", how
    if item.quantity is not None and item.rate is not None:
        count, period = item.quantity.count, item.quantity.period
        count, period = (24 * count, "day") if period == "hour" else (count, period)
        each = format_usd(item.rate).rstrip("0").rstrip(".")
        return item.rate * count, period, f"{item.quantity} x {each} {item.currency} for each {item.per}"
    return (None, "month", "") if item.cost is None else (item.cost.amount, item.cost.period, "")


def _currencies(workspace: Workspace) -> dict[str, list[bp.CurrencyRate]]:
    return {
        code: sorted(
            (bp.CurrencyRate(since=r.since.isoformat(), rate=r.rate) for r in rule.rates), key=lambda r: r.since
        )
        for code, rule in sorted(workspace.company.currencies.items())
    }


def _declared(workspace: Workspace, kind: str, name: str, prices: tuple[doc.Price, ...], day: date) -> list[bp.Rates]:
    """Rates with the file that declares them; its line would make another blueprint of every comment above it. Those of
    other currencies are in USD at the rate of `day`. Raises `Invalid` where there is none."""
    file = workspace.where(kind, name, "price").file
    found = [FREE if price.free else _rates(price, f"declared {file}") for price in prices]
    currencies = _currencies(workspace)
    for place, price in enumerate(prices):
        if price.currency != USD and (price.since is None or price.since <= day):
            rate = rate_on(currencies, price.currency, day)
            told = f"{found[place].source} in {price.currency} at {format_usd(rate)} USD"
            found[place] = msgspec.structs.replace(rates_in_usd(found[place], rate), source=told)
    return found


_CLASSES = ("input", "output", "cache_read", "cache_write", "reasoning", "input_audio", "output_audio")


def _rates(price: doc.Price, source: str) -> bp.Rates:
    """A declared price with its tier for long prompts and its classes of service."""
    rates = bp.Rates(
        input=price.input,
        output=price.output,
        cache_read=price.cache_read,
        cache_write=price.cache_write,
        reasoning=price.reasoning,
        input_audio=price.input_audio,
        output_audio=price.output_audio,
        request=price.request,
        image=price.image,
        images=dict(sorted(price.images.items())),
        characters=price.characters,
        minute=price.minute,
        source=source,
        effective=price.since.isoformat() if price.since else "",
    )
    long = None if price.long is None else _of_class(rates, price.long)
    above = 0 if price.long is None else price.long.above
    classes = {
        name: None if found is None else _with_long(_of_class(rates, found), long, above)
        for name, found in (("batch", price.batch), ("priority", price.priority))
    }
    whole = msgspec.structs.replace(rates, long=long, long_above=above, **classes)
    hours = [(*each.hours, _with_long(_of_class(whole, each), long, above)) for each in price.hours]
    return by_time(whole, hours)


def _of_class(rates: bp.Rates, price: doc.ClassPrice) -> bp.Rates:
    said = {name: value for name in _CLASSES if (value := getattr(price, name)) is not None}
    return msgspec.structs.replace(rates, **said)


def _with_long(rates: bp.Rates, long: bp.Rates | None, above: int) -> bp.Rates:
    """A long prompt in another class of service costs the dearer of the two, since no list says less."""
    if long is None:
        return rates
    both = {name: (getattr(rates, name), getattr(long, name)) for name in _CLASSES}
    dearer = {name: max((v for v in each if v is not None), default=None) for name, each in both.items()}
    return msgspec.structs.replace(rates, long=msgspec.structs.replace(long, **dearer), long_above=above)


def _deployments(workspace: Workspace, today: date, prices: Prices) -> tuple[list[bp.Deployment], list[Problem]]:
    found: list[bp.Deployment] = []
    problems: list[Problem] = []
    for item in workspace.deployments.values():
        rates = prices(workspace, item, today)
        if isinstance(rates, Problem):
            problems.append(rates)
        elif item.site in workspace.sites:
            found.append(_deployment(item, rates, workspace.company))
    return found, problems


def _deployment(item: doc.DeploymentDoc, rates: bp.Rates, company: doc.CompanyDoc) -> bp.Deployment:
    return bp.Deployment(
        name=item.name,
        site=item.site,
        model=item.model,
        upstream_model=item.name_upstream,
        url=item.url,
        key=item.key,
        rates=rates,
        kind=item.type,
        api=item.api,
        serves=sorted(item.serves),
        context_tokens=item.context,
        max_output_tokens=item.max_output,
        keys=[
            bp.ProviderKey(
                key=each.key,
                requests=[(rate.amount, rate.period) for rate in each.requests],
                tokens=[(rate.amount, rate.period) for rate in each.tokens],
            )
            for each in item.keys
        ],
        accepts=list(item.accepts),
        image_tokens=item.image_tokens or 0,
        audio_tokens=item.audio_tokens or 0,
        audio_seconds=-(-(item.audio or 0) // 1000),
        cap_field=item.cap_field,
        connect_ms=item.timeouts.connect,
        first_token_ms=item.timeouts.first_token,
        idle_ms=item.timeouts.idle,
        weight=item.weight,
        concurrent=item.limits.concurrent,
        billing_on_cancel=item.billing_on_cancel,
        terms=provider_terms(item),
        **_reached(item, company),
    )


def _reached(item: doc.DeploymentDoc, company: doc.CompanyDoc) -> dict[str, Any]:
    """TLS, HTTP version and proxy: the deployment's own, else the company's, none to a local service."""
    tls = item.tls
    proxy, key = (item.proxy, item.proxy_key) if item.proxy is not None else (company.proxy, company.proxy_key)
    if proxy == DIRECT or item.url.startswith("local:"):
        proxy = key = None
    return {
        "tls": bp.Tls(ca=tls.ca, cert=tls.cert, key=tls.key, server_name=tls.server_name) if tls is not None else None,
        "http": item.http,
        "proxy": proxy,
        "proxy_key": key,
    }


def _site(item: doc.SiteDoc) -> bp.Site:
    return bp.Site(
        name=item.name,
        type=item.type,
        jurisdiction=item.jurisdiction,
        title=item.title or item.name,
        holds=item.max_sensitivity,
    )


def _index(rule: IndexRule) -> bp.Index:
    own = rule.embedding
    return bp.Index(
        characters=rule.characters,
        embedding=None
        if own is None
        else bp.IndexEmbedding(workload=own.workload, deployment=own.deployment, dimensions=own.dimensions),
        by_hand=rule.switch == "by-hand",
        keep_days=_days(rule.keep) or 0,
        questions=rule.questions,
    )


def _source(workspace: Workspace, item: doc.SourceDoc) -> bp.Source:
    return bp.Source(
        name=item.name,
        path=item.path or "",
        sensitivity=item.sensitivity,
        owner=workspace.email(item.owner),
        readers=sorted(named(workspace, reader) for reader in item.readers),
        read=granted(workspace, "read", f"source/{item.name}"),
        governed=_governed(workspace, item),
        connector=bp.Connector(type=item.connector.type, settings=item.connector.settings())
        if item.connector
        else None,
        checks=[check.model_dump(mode="json", exclude_defaults=True) for check in item.checks],
        characters=item.chunking.characters,
        pdf=item.reading.pdf,
    )


def _governed(workspace: Workspace, item: doc.SourceDoc) -> bp.Governed:
    rule = item.governed
    return bp.Governed(
        steward=workspace.email(rule.steward) if rule.steward else None,
        state=rule.state,
        purposes=sorted(rule.purposes),
        workloads=sorted(rule.workloads),
        residency=sorted(rule.residency),
        licence=rule.licence,
        retain_days=_days(rule.retain),
        legal_hold=rule.legal_hold,
        erase_days=_days(rule.erase_within) or 0,
    )


def _days(milliseconds: int | None) -> int | None:
    return None if milliseconds is None else max(0, milliseconds // DAY_MS)


def _needs(item: doc.WorkloadDoc) -> bp.Needs:
    rule = item.needs
    return bp.Needs(purposes=sorted(rule.purposes), quality=rule.quality, scanned=rule.scanned)


def _term(workspace: Workspace, item: doc.TermDoc) -> bp.Term:
    return bp.Term(
        name=item.name,
        title=item.title,
        meaning=item.meaning,
        synonyms=sorted(item.synonyms),
        forbidden=sorted(item.forbidden),
        owner=workspace.email(item.owner) if item.owner else None,
    )


def _budget(item: doc.BudgetDoc) -> bp.Budget:
    return bp.Budget(
        name=item.name,
        covers=item.covers,
        limit=item.limit.amount,
        period=item.limit.period,
        starts=item.starts or "",
        timezone=item.timezone,
        hard=item.hard,
    )


def limits(workspace: Workspace) -> list[bp.Limit]:
    """Each number of each declared limit, in the order of names."""
    found: list[bp.Limit] = []
    for name, item in sorted(workspace.limits.items()):
        rates = {"requests": item.requests, "tokens": item.tokens, "cost": item.cost}
        found += [
            bp.Limit(name=name, covers=item.covers, type=what, amount=rate.amount, period=rate.period)
            for what, each in rates.items()
            for rate in each
        ]
        if item.concurrent is not None:
            found.append(
                bp.Limit(name=name, covers=item.covers, type="concurrent", amount=item.concurrent, period="now")
            )
    return found


def _demand(item: doc.WorkloadDoc) -> Demand:
    traffic = item.traffic
    return Demand(
        workload=item.name,
        sensitivity=item.sensitivity,
        residency=item.residency,
        preferred=item.deployments,
        fallbacks=item.fallbacks,
        calls_per_month=traffic.calls.per_month if traffic else Decimal(ASSUMED_CALLS_PER_MONTH),
        prompt_tokens=traffic.prompt_tokens if traffic else 800,
        completion_tokens=traffic.completion_tokens if traffic else 200,
        assumed=traffic is None,
    )


def _culprit(item: doc.WorkloadDoc) -> str:
    """The key at which to show that a placement is refused."""
    for key in ("deployments", "fallbacks", "residency", "sensitivity"):
        if key in item.model_fields_set:
            return key
    return "name"


def _workload(
    workspace: Workspace,
    item: doc.WorkloadDoc,
    placement: bp.Placement,
    served: bp.Workload | None,
    caps: bp.Caps,
    today: date,
) -> bp.Workload:
    prompt = _prompt(workspace.prompts, item.prompt)
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
        deployments=[name for name in (placement.primary, *placement.fallbacks) if name is not None],
        embeddings=list(item.embeddings),
        also=list(item.also),
        budgets=sorted(workspace.budgets_of(item.name)),
        grounding=_grounding(item),
        needs=_needs(item),
        system_prompt=prompt.text if prompt else None,
        prompt=f"{prompt.name}@{prompt.version}" if prompt else None,
        max_output_tokens=limits.max_output,
        calls_per_day=_bounded(item, "calls_per_day", caps.calls_per_day if temporary else None),
        people=_bounded(item, "people", caps.people if temporary else None),
        max_cost_per_call=limits.max_cost_per_call,
        expires=_expires(item, served, caps.days, today),
        expires_declared=limits.expires is not None,
        grace_ms=item.grace_ms,
        attempts=item.reliability.attempts or limits.attempts,
        deadline_ms=item.reliability.deadline or limits.deadline,
        reliability=_reliability(item, placement),
        keep=_keep(item.keep),
        cache=_cache(item),
        routing=choice.routing(workspace, item, [n for n in (placement.primary, *placement.fallbacks) if n]),
        experiment=trying.experiment(item),
        replay=trying.replay(item),
        batch_concurrent=item.batches.concurrent,
        use=granted(workspace, "use", f"workload/{item.name}", "company"),
        act_for_others=granted(workspace, "act-for-others", f"workload/{item.name}", "company"),
        guardrails=guardrails(item.guardrails),
        review=review(workspace, item.review),
    )


def _keep(rule: doc.KeepRule) -> bp.Keep | None:
    share = round(rule.share * 10_000)
    if rule.content == "none" or not share:
        return None
    return bp.Keep(content=rule.content, seconds=rule.for_ // 1000, share=share)


def _cache(item: doc.WorkloadDoc) -> bp.Cache | None:
    rule = item.cache
    if rule.answers == "off":
        return None
    private = bool(item.sources) or item.sensitivity in ("confidential", "restricted")
    scope = rule.scope or ("person" if private else "workload")
    semantic = choice.semantic(rule)
    return bp.Cache(seconds=max(1, rule.ttl // 1000), max_bytes=rule.max_size, scope=scope, semantic=semantic)


def _reliability(item: doc.WorkloadDoc, placement: bp.Placement) -> bp.Reliability:
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
        peers=_peers(item, placement) if rule.balance != "ordered" else None,
        on_broken_stream=rule.on_broken_stream,
        priority=rule.priority,
    )


def _peers(item: doc.WorkloadDoc, placement: bp.Placement) -> int | None:
    """How many of the placed deployments share the calls: those that are no declared fallbacks."""
    placed = [name for name in (placement.primary, *placement.fallbacks) if name is not None]
    later = [name for name in item.fallbacks if name not in item.deployments]
    return sum(name not in later for name in placed) if later else None


def _sorted(owners: Mapping[str, tuple[str, ...]]) -> dict[str, list[str]]:
    return {duty: sorted(people) for duty, people in sorted(owners.items())}


def _bounded(item: doc.WorkloadDoc, field: str, cap: int | None) -> int | None:
    """What the workload itself says, `unlimited` included; the cap where it says nothing."""
    value: int | None = getattr(item.limits, field)
    return value if field in item.limits.model_fields_set else cap


def _expires(item: doc.WorkloadDoc, served: bp.Workload | None, days: int | None, today: date) -> str | None:
    """The declared last day; else the one that it has already; else `days` from today. Production has none."""
    if item.limits.expires is not None:
        return item.limits.expires.isoformat()
    if item.stage == "production":
        return None
    if served is not None and served.stage == item.stage and not served.expires_declared:
        return served.expires
    return None if days is None else (today + timedelta(days=days)).isoformat()


def _grounding(item: doc.WorkloadDoc) -> bp.Grounding | None:
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
    )


def _prompt(prompts: Mapping[str, doc.PromptDoc], name: str | None) -> doc.PromptDoc | None:
    return prompts.get(name.partition("@")[0]) if name else None
