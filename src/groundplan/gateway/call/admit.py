"""Step 2: whether a call may be made, and the most that it can cost.

Pure checks, and the errors by which they refuse. Every covering budget is then reserved for the dearest single attempt
that may happen. Does not write to the journal (each attempt does, in `serve`).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

from groundplan.blueprint.model import Budget, Deployment, Workload
from groundplan.core.errors import Denied, Exhausted, Invalid, NotFound, Unavailable
from groundplan.core.money import distinct_usd, format_usd, parse_usd, short_usd
from groundplan.core.words import per_period
from groundplan.gateway.budgets.periods import current_key, end_text, ends, is_over
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.call.pricing import priced_features
from groundplan.gateway.policy.catalog import RUNNING_STAGES, Catalog, Plan
from groundplan.gateway.policy.snapshot import PEOPLE_DAYS, KeyEntry, Policy
from groundplan.governance.policy.vocabulary import provider_of
from groundplan.ledger.model import Usage

COST_PER_CALL = "cost_per_call"
MAX_COST_HEADER = b"groundplan-max-cost-usd"
"""Header by which a caller limits what a call may cost."""
_FEWER_TOKENS = "Ask for fewer tokens with {}, send a shorter prompt"
_CHEAPER_HINTS = {
    **dict.fromkeys(("chat.completions", "completions", "messages"), _FEWER_TOKENS.format("max_tokens")),
    "responses": _FEWER_TOKENS.format("max_output_tokens"),
}
"""Endpoint -> hint how a request there costs less."""
HELD_HINT = "Open calls hold what is left, and give back what they do not use: ask again, or for fewer tokens."
HELD_SECONDS = 1.0
"""Retry-after for what open calls hold, as nobody knows when they end."""


def is_policy_fresh(plan: Plan, age: float) -> bool:
    """Whether calls may be made on live policy that was confirmed `age` seconds ago."""
    return age <= plan.max_policy_age


def check_policy_age(plan: Plan, age: float) -> None:
    """Refuse when live policy was confirmed longer ago than its lease and the workload's grace, or never. `age` is in
    seconds. Raises `Unavailable`."""
    if not is_policy_fresh(plan, age):
        if age == inf:
            raise Unavailable(
                "this gateway has not been told since its start that its policy is the newest",
                code="not_ready",
                hint="Wait for /readyz; a gateway that cannot reach PostgreSQL does not get ready.",
                retry_after=1.0,
            )
        raise Unavailable(
            "this gateway is cut off from live policy and its grace has run out",
            code="policy_lease_expired",
            hint="The gateway cannot reach PostgreSQL; see `groundplan status`.",
            retry_after=2.0,
        )


def check_workload(plan: Plan, now: float) -> None:
    """Refuse a workload that its stage or expiry date does not let run. `now`: seconds since the epoch. Raises
    `Denied`."""
    workload = plan.workload
    if workload.stage not in RUNNING_STAGES:
        raise Denied(
            f"the workload {workload.name} is {workload.stage}",
            code="workload_not_running",
            hint="Only experiments, pilots and production are served; change its stage.",
        )
    if now >= plan.until:
        raise Denied(
            f"the {workload.stage} of {workload.name} ended on {workload.expires}",
            code="workload_expired",
            hint="Set a later `expires`, or move it to production.",
        )


def check_kills(policy: Policy, key: KeyEntry, workload: str) -> None:
    """Refuse what a kill switch stops for this workload or key. Raises `Denied`."""
    kills = policy.kills
    if not kills:
        return
    for scope in ("company", f"workload/{workload}", f"key/{key.id}"):
        if scope in kills:
            raise Denied(
                f"{scope} is stopped", code="killed", hint=f"`groundplan why {scope}` says who stopped it, and why."
            )


def check_use(
    catalog: Catalog, policy: Policy, key: KeyEntry, plan: Plan, age: float, now: float, *, runs: bool = True
) -> None:
    """Refuse any use of a workload with this key: on live policy that was confirmed too long ago (`age`, in seconds),
    where it is stopped, where what it uses is not approved for production, and, unless `runs` is false, where its stage
    or date does not let it run. `now`: seconds since the epoch."""
    if age > plan.max_policy_age:
        check_policy_age(plan, age)
    if runs and now >= plan.runs_until:
        check_workload(plan, now)
    if policy.kills:
        check_kills(policy, key, plan.workload.name)
    if catalog.approved is not None:
        catalog.approved.check(policy, plan.workload.name, now)


def workload_unknown(workload: str) -> Denied:
    """The refusal of a key whose workload is not in the blueprint."""
    hint = "It is retired, or not released yet: `groundplan plan` says what it waits for. Or use a key of another one."
    return Denied(f"the workload {workload} is not in the blueprint", code="workload_unknown", hint=hint)


def without_killed(policy: Policy, deployments: Sequence[Deployment]) -> list[Deployment]:
    """The deployments that no kill switch stops."""
    kills = policy.kills
    if not kills:
        return list(deployments)
    return [d for d in deployments if kills.isdisjoint(kill_scopes(d))]


def kill_scopes(deployment: Deployment) -> tuple[str, str, str, str]:
    """The scopes whose kill switch stops a deployment."""
    return (
        f"deployment/{deployment.name}",
        f"site/{deployment.site}",
        f"model/{deployment.model}",
        f"provider/{provider_of(deployment)}",
    )


def choose_deployments(exchange: Exchange, plan: Plan, ask: Ask, policy: Policy, now: float) -> list[Deployment]:
    """The deployments that this call may use, in order. `now`: seconds since the epoch. Raises `Denied`, `NotFound`,
    `Invalid`."""
    interface, catalog = exchange.interface, exchange.catalog
    needs = interface.deployment_kind
    allowed = plan.allowed(ask.model, needs)
    if not allowed:
        raise _model_not_found(plan, ask.model, needs)
    if exchange.key is not None and exchange.key.models:
        allowed = allowed_by_key(exchange.key, allowed)
        if not allowed:
            named_model, any_model = f"the model '{ask.model[:80]}'", f"any model of {plan.workload.name} for {needs}"
            raise Denied(
                f"this key may not use {any_model if plan.workload.is_routed(ask.model) else named_model}",
                code="key_model",
                hint=f"It may use: {', '.join(sorted(exchange.key.models))}.",
            )
    if interface.filters_deployments:
        allowed = interface.eligible_deployments(ask, allowed)
    if ask.needs:
        allowed = _accepting(plan, allowed, ask.needs)
    usable = without_killed(policy, allowed) if policy.kills else [*allowed]
    if not usable:
        raise Denied(
            "every deployment that may serve this call is stopped",
            code="killed",
            hint="Lift the kill switch, or allow another deployment.",
        )
    if catalog is not None and catalog.approved is not None:
        usable = catalog.approved.usable(policy, plan.workload.name, usable, now)
    if catalog is not None and catalog.gate is not None and exchange.key is not None:
        name, gate = plan.workload.name, catalog.gate
        usable = gate.allowed(policy, name, exchange.key, exchange.person, exchange.endpoint, usable, now)
    if plan.workload.max_cost_per_call is not None or MAX_COST_HEADER in exchange.request.headers:
        return _within_max_cost(exchange, plan, ask, usable)
    return usable


def _model_not_found(plan: Plan, model: str, needs: str) -> NotFound:
    """The refusal of a call for a model that its workload does not have."""
    names = sorted(name for name in plan.deployments_by_name if plan.allowed(name, needs))
    kind = "" if needs == "chat" else f"{needs} "
    return NotFound(
        f"the workload {plan.workload.name} has no {kind}model '{model[:80]}'",
        code="model_not_found",
        hint=f"Use one of: {', '.join(names)}" if names else _no_model_hint(plan.workload.name, needs),
    )


def _no_model_hint(workload: str, needs: str) -> str:
    """The hint where a workload has no model of that type at all."""
    if needs == "chat":
        return f"No deployment may serve it: `groundplan why placement/{workload}` says why."
    field = "embeddings" if needs == "embeddings" else "also"
    return f"It has none of this type: declare a deployment of type {needs}, and name it in `{field}` of the workload."


def _accepting(plan: Plan, deployments: Sequence[Deployment], needs: frozenset[str]) -> tuple[Deployment, ...]:
    """The deployments that declare that they take the requested content and service tier, so that its cost is bounded.
    Raises `Invalid` where there is none."""
    found = tuple(d for d in deployments if needs <= priced_features(d))
    if not found:
        content = sorted(needs & _CONTENT_BOUNDS.keys())
        tiers = sorted(needs.difference(content))
        declarations = [f"`accepts: [{each}]`{_CONTENT_BOUNDS[each]}" for each in content]
        example = "`price: {{..., {}: {{input: 0.10 USD/Mtok, output: 0.40 USD/Mtok}}}}`"
        declarations += [f"a price of that tier, as in {example.format(each)}" for each in tiers]
        raise Invalid(
            f"no deployment of {plan.workload.name} declares that it takes {' and '.join((*content, *tiers))}",
            code="content_unsupported" if content else "field_unsupported",
            hint=f"A deployment that does declares {', and '.join(declarations)}.",
            details={} if content else {"field": "service_tier"},
        )
    return found


_CONTENT_BOUNDS = {
    "image": " with `image_tokens`, the most tokens that one image is",
    "audio": " with `audio_tokens`, the most tokens that a KiB of sound is",
    "file": "",
}
"""Content of a message besides text -> the field that bounds its cost."""


def allowed_by_key(key: KeyEntry, deployments: Sequence[Deployment]) -> tuple[Deployment, ...]:
    """The deployments that a key with a list of models may use."""
    return tuple(d for d in deployments if d.model in key.models or d.name in key.models)


def _within_max_cost(exchange: Exchange, plan: Plan, ask: Ask, deployments: list[Deployment]) -> list[Deployment]:
    """The deployments at which the call costs at most what one call may; all of them where it does at none, since the
    answer may be in a cache: `check_cost` refuses it otherwise."""
    max_cost = _max_cost(exchange, plan)
    if max_cost is None:
        return deployments
    added, most = added_bytes(exchange, plan.workload), plan.workload.max_output_tokens
    most = most if ask.cap is None else min(ask.cap, most)

    def bound(at: Deployment) -> int:
        amount, _ = exchange.interface.cost_and_token_bounds(ask, at, added, min(most, at.max_output_tokens))
        return max(amount, at.rates.flagged)

    return [each for each in deployments if bound(each) <= max_cost] or deployments


def set_bounds(exchange: Exchange, plan: Plan, ask: Ask, deployments: list[Deployment]) -> int:
    """Set `output_cap`, `bounds` and `most_tokens` of the exchange; returns the highest bound in picodollars."""
    workload = plan.workload
    added, bounds, most_of = added_bytes(exchange, workload), exchange.bounds, exchange.interface.cost_and_token_bounds
    most, most_tokens = workload.max_output_tokens, 0
    exchange.output_cap = most = most if ask.cap is None else min(ask.cap, most)
    for deployment in deployments:
        amount, tokens = most_of(ask, deployment, added, min(most, deployment.max_output_tokens))
        bounds[deployment.name] = max(amount, deployment.rates.flagged)
        most_tokens = max(most_tokens, tokens)
    exchange.most_tokens = most_tokens
    return max(bounds.values())


def with_bounds(exchange: Exchange, deployments: list[Deployment]) -> list[Deployment]:
    """The deployments that have a bound, once bounds are set: for one that became usable since, nothing is reserved."""
    return [each for each in deployments if each.name in exchange.bounds] if exchange.bounds else deployments


def added_bytes(exchange: Exchange, workload: Workload) -> int:
    """The most bytes that are put before the caller's own prompt."""
    added = len(workload.system_prompt.encode()) if workload.system_prompt else 0
    if workload.grounding is not None and exchange.interface.grounded:
        added += max(workload.grounding.max_bytes, 256)
    return added


def check_cost(exchange: Exchange, plan: Plan, amount: int) -> None:
    """Refuse a call whose bound `amount` is above what the workload, or the caller itself, allows for one call. Raises
    `Denied`."""
    max_cost = _max_cost(exchange, plan)
    if max_cost is not None and amount > max_cost:
        raise Denied(
            f"this call may cost up to {distinct_usd(amount, max_cost)}, "
            f"more than the {short_usd(max_cost)} that one may",
            code=COST_PER_CALL,
            hint=f"{_CHEAPER_HINTS.get(exchange.endpoint, 'Send less')}, or use a cheaper model.",
            details={"needed_usd": format_usd(amount), "max_cost_usd": format_usd(max_cost)},
        )


def check_next_attempt(exchange: Exchange, plan: Plan, amount: int, running: int = 0) -> None:
    """Refuse one more attempt whose bound is `amount`, where all attempts of the call together might then cost more
    than one call may. `running`: the bounds of attempts that are still open. Raises `Denied`."""
    max_cost = _max_cost(exchange, plan)
    spent = exchange.cost + exchange.draining_bound + running
    if max_cost is not None and spent + amount > max_cost:
        raise Denied(
            f"another attempt may bring this call to {distinct_usd(spent + amount, max_cost)}, more than the "
            f"{short_usd(max_cost)} that one may cost",
            code=COST_PER_CALL,
            hint=f"Its attempts so far cost up to {short_usd(spent)}; ask for fewer tokens, or allow a call more.",
            details={
                "needed_usd": format_usd(spent + amount),
                "spent_usd": format_usd(spent),
                "max_cost_usd": format_usd(max_cost),
            },
        )


def _max_cost(exchange: Exchange, plan: Plan) -> int | None:
    """What one call may cost by its workload and its caller; None: no limit."""
    workload_max = plan.workload.max_cost_per_call
    header = exchange.request.headers.get(MAX_COST_HEADER)
    if header is None:
        return workload_max
    caller_max = _parse_max_cost(header)
    return caller_max if workload_max is None else min(workload_max, caller_max)


def _parse_max_cost(text: bytes) -> int:
    try:
        return parse_usd(text.decode("ascii", "replace"))
    except Invalid as error:
        raise Invalid(
            "groundplan-max-cost-usd is not an amount",
            code="cost_header",
            hint="Write US dollars, such as groundplan-max-cost-usd: 0.05.",
        ) from error


def output_cap(exchange: Exchange, deployment: Deployment) -> int:
    return min(exchange.output_cap, deployment.max_output_tokens)


def max_usage(exchange: Exchange, deployment: Deployment) -> Usage:
    """The most tokens that one attempt at the deployment can use, of prompt and answer."""
    ask, workload = exchange.ask, exchange.workload
    if ask is None or workload is None:
        raise AssertionError("not checked")
    added, cap = added_bytes(exchange, workload), output_cap(exchange, deployment)
    return exchange.interface.estimate(ask, deployment, added, 0, cap)[0]


def covering_budgets(exchange: Exchange, plan: Plan, now: float) -> tuple[tuple[Budget, str], ...]:
    """Every budget that covers this call, with the period of its admission (`now`: seconds since the epoch). Raises
    `Denied` where there is none."""
    found = plan.dated.at(now)
    key = exchange.key
    if key is not None and exchange.catalog is not None:
        if exchange.catalog.key_budgets:
            named = exchange.catalog.key_budgets
            for id in named.keys() & (key.line or {key.id, key.family or key.id}):
                found += with_periods(named[id], now)
        if key.budget is not None:
            found += with_periods((key.budget,), now)
    if not found:
        raise Denied(
            f"the workload {plan.workload.name} has no budget",
            code="budget_missing",
            hint="Declare one; nothing runs without a budget.",
        )
    return found


def with_periods(budgets: Sequence[Budget], now: float) -> tuple[tuple[Budget, str], ...]:
    """Each budget with its period at `now`, in seconds since the epoch."""
    return tuple((budget, current_key(budget.period, budget.starts, budget.timezone, now)) for budget in budgets)


def room_order(budget: Budget, period: str, bound: int, unspent: int) -> tuple[bool, float]:
    """A sort key by when a budget may again have room for `bound`: the later the larger, never is largest. `unspent`:
    what is left of it in `period` once open calls have cost nothing."""
    end = ends(period)
    return bound > budget.limit, 0.0 if unspent >= bound else inf if end is None else end.timestamp()


def budget_exhausted(budget: Budget, bound: int, period: str, remaining: int, unspent: int, now: float) -> Exhausted:
    """The refusal of a call that a budget has no room for in `period`, with what is `remaining`, and when there is room
    where waiting helps. `unspent`: what is left once open calls have cost nothing."""
    end = ends(period)
    period_name = per_period(budget.period)
    retry_after: float | None = None
    details: dict[str, Any] = {
        "budget": budget.name,
        "covers": budget.covers,
        "needed_usd": format_usd(bound),
        "remaining_usd": format_usd(max(0, remaining)),
    }
    if bound > budget.limit:
        hint = f"It may cost up to {distinct_usd(bound, budget.limit)}: ask for fewer tokens or raise the budget."
    elif unspent >= bound:
        details |= {"frees_at": None, "remaining_usd": format_usd(unspent)}
        retry_after = HELD_SECONDS
        hint = HELD_HINT
    elif end is None:
        details["frees_at"] = None
        hint = "It does not renew: raise it, or ask for fewer tokens."
    elif is_over(period, now):  # for a call that keeps its period
        details["frees_at"] = None
        hint = "Its period is over, in which this was begun: order it again."
    else:
        details["frees_at"] = end.isoformat()
        retry_after = end.timestamp() - now
        hint = f"It is free again at {end_text(end)}; or raise it, or ask for fewer tokens."
    return Exhausted(
        f"the budget {budget.name} ({short_usd(budget.limit)} {period_name}) has no room for this call",
        code="budget_exhausted",
        hint=hint,
        retry_after=retry_after,
        details=details,
    )


def unreachable_hint(*, connected: bool) -> tuple[str, float]:
    """(hint, retry-after in seconds) where PostgreSQL did not answer. `connected`: whether it could be asked."""
    if connected:
        return "PostgreSQL did not answer in time; try again.", 1.0
    return "The gateway cannot reach PostgreSQL; see `groundplan status`.", 2.0


def budget_unreachable(budget: Budget, *, connected: bool) -> Unavailable:
    """The refusal of a call for whose budget PostgreSQL did not answer, so that it is unknown whether it is used up."""
    hint, retry_after = unreachable_hint(connected=connected)
    return Unavailable(
        f"this gateway has used what it held of the budget {budget.name} and cannot get more now",
        code="budget_unreachable",
        hint=hint,
        retry_after=retry_after,
        details={"budget": budget.name},
    )


def calls_per_day_exhausted(workload: str, limit: int, now: float) -> Exhausted:
    """The refusal of a call beyond the limit of calls per day, at `now` (seconds since the epoch)."""
    end = ends(current_key("day", "", "UTC", now))
    if end is None:
        raise AssertionError("days end")
    if not limit:
        hint = "Declare some: `limits: {calls_per_day: 100}`."
        return Exhausted(f"the workload {workload} may have no calls", code="calls_per_day", hint=hint)
    return Exhausted(
        f"the workload {workload} has used its {limit} calls a day",
        code="calls_per_day",
        hint="The count is new tomorrow (UTC); a higher limit needs approval.",
        retry_after=end.timestamp() - now,
        details={"most": limit, "per": "day", "frees_at": end.isoformat()},
    )


def people_limit_reached(workload: Workload, limit: int) -> Exhausted:
    """The refusal of a person beyond the limit of people of a workload."""
    return Exhausted(
        f"the workload {workload.name} has its {limit} people already",
        code="people_limit",
        hint=f"Whoever asked in the last {PEOPLE_DAYS} days counts; a higher limit needs approval.",
        details={"most": limit},
    )
