"""Shadow calls: the gateway's own calls that repeat an answered one, with the same checks, budgets, attempts and
records as any call.

A shadow call differs in that it goes to one named deployment, is also charged to the experiment's own budget, has the
lowest priority, makes one attempt, is not reviewed by people, and neither reads nor fills the cache. It takes nothing
from limits of the person or key it is made for, and does not count as a call of a pilot.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from groundplan.blueprint.model import Budget, Workload
from groundplan.core.errors import Denied, Exhausted
from groundplan.core.ids import new_id_bytes
from groundplan.economics.experiment.model import BUDGET_PREFIX
from groundplan.gateway.call import admit, limits
from groundplan.gateway.call.attempts.reserve import reserve
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.call.feature import FEATURE
from groundplan.gateway.call.ground import ground
from groundplan.gateway.call.identify import KEY_HEADERS, caller_of, check_grants
from groundplan.gateway.call.serve import serve
from groundplan.gateway.experiments.trial import Mark, Trial
from groundplan.gateway.guard.run import needs_guard, start_guard
from groundplan.gateway.http.collected_response import CollectedResponse
from groundplan.gateway.http.server import Request
from groundplan.gateway.offload import CHECKED_BYTES, WorkSteps, run_inline, run_steps
from groundplan.gateway.policy import dated_prices
from groundplan.gateway.telemetry.content_link import is_sampled

if TYPE_CHECKING:
    from groundplan.economics.experiment.model import Experiment
    from groundplan.gateway.call.context import Gateway
    from groundplan.gateway.policy.catalog import Plan
    from groundplan.gateway.policy.snapshot import Policy
    from groundplan.gateway.surfaces.interface import Interface

PASSED = (*KEY_HEADERS, b"groundplan-on-behalf-of", b"anthropic-version")
"""Headers of the shown call that its shadow call carries, too."""
ROOM = 10
"""A hard budget must have room for this many such calls, so that none of a client is refused because of a shadow."""
PATHS = {"chat.completions": b"/v1/chat/completions", "messages": b"/v1/messages"}
SHADOW, JUDGE, REPLAY = "experiment/shadow", "experiment/judge", "experiment/replay"
"""The features under which its cost is shown."""


@dataclass(frozen=True, slots=True)
class ShadowPurpose:
    """Why a shadow call is made. `budget` None: the budget of its key bounds it."""

    experiment: Experiment
    feature: str
    mark: Mark
    budget: Budget | None
    bare: bool = False
    """Whether it leaves out the workload's prompt, documents and guardrails, as calls of judges do."""


def budget_of(experiment: Experiment) -> Budget:
    """The experiment's own budget, which covers its calls in addition to the workload's budgets."""
    return Budget(
        name=experiment.budget_name, covers=f"workload/{experiment.workload}", limit=experiment.budget, period="total"
    )


async def ask(
    gateway: Gateway, headers: dict[bytes, bytes], interface: Interface, body: dict[str, Any], what: ShadowPurpose
) -> Exchange:
    """Run a shadow call and return it, ended, with a `CollectedResponse`. Errors are in its answer and its record."""
    if gateway.run_call is None:
        raise AssertionError("the pipeline is not there yet")
    carried = {name: value for name in PASSED if (value := headers.get(name)) is not None}
    carried |= {b"content-type": b"application/json", FEATURE: what.feature.encode()}
    request = Request(0.0, b"POST", PATHS[interface.name], carried, msgspec.json.encode(body))
    own = Exchange(new_id_bytes(), request, CollectedResponse(), interface)
    own.trial = Trial(what.experiment, what.mark)
    own.parent_call, own.purpose = what.mark.of, what.feature.removeprefix(BUDGET_PREFIX)

    async def steps(gateway: Gateway, exchange: Exchange) -> None:
        await _steps(gateway, exchange, what)

    await gateway.run_call(own, steps)
    return own


async def _steps(gateway: Gateway, own: Exchange, what: ShadowPurpose) -> None:
    policy = await run_steps(_check(gateway, own, what), offload=len(own.request.body) > CHECKED_BYTES)
    if own.guard is not None:
        await own.guard.check_personal_input(own)
    plan, ask, catalog = own.plan, own.ask, own.catalog
    if plan is None or ask is None or catalog is None or own.workload is None:
        raise AssertionError("not checked")
    if ask.files and gateway.files is not None:
        await gateway.files.put_in(own)
    amount = admit.set_bounds(own, plan, ask, own.deployments)
    admit.check_cost(own, plan, amount)
    own.charges = admit.covering_budgets(own, plan, gateway.clock.seconds())
    _check_room(gateway, own, plan, amount)
    if catalog.limits is not None:
        await limits.admit_unrequested(gateway, own, catalog.limits, amount)
    if what.budget is not None:
        own.charges = (*own.charges, (what.budget, "total"))
    await reserve(gateway, own, 0, amount)
    if gateway.live.policy is not policy:
        run_inline(_check(gateway, own, what))
    keep = own.workload.keep
    if keep is not None and not what.bare and is_sampled(keep, own.id_bytes):
        own.sent_chunks = []
    await ground(gateway, own)
    await serve(gateway, own)


def _check(gateway: Gateway, own: Exchange, what: ShadowPurpose) -> WorkSteps[Policy]:
    """Run every check of admission, under the newest policy and by the blueprint with which the call began. Raises as
    admission does."""
    policy, now = gateway.live.policy, gateway.clock.seconds()
    catalog = own.catalog or dated_prices.current_catalog(gateway.live.catalog, now)
    own.catalog, own.policy = catalog, policy
    own.key, own.person = caller_of(own.request.headers, policy, now)
    if catalog.granted_workloads:
        check_grants(catalog, policy, own.key, own.person, gateway.clock.now().date())
    plan = catalog.plans.get(own.key.workload)
    if plan is None or own.key.workload != what.experiment.workload:
        hint = "The experiment's workload is served no more, or the key is another workload's."
        raise Denied("the experiment is of another workload", code="workload_unknown", hint=hint)
    routing, candidate = plan.workload.routing, what.experiment.candidate
    if routing is not None and not what.bare and candidate in routing.barred:
        hint = "Name another candidate, or change objectives.quality or routing.risk."
        raise Denied(f"{candidate} takes no calls: {routing.barred[candidate]}", code="route_barred", hint=hint)
    own.plan, own.workload = plan, last(plan.workload, bare=what.bare)
    admit.check_use(catalog, policy, own.key, plan, gateway.live.age(), now)
    if own.ask is None:
        own.ask = yield partial(own.interface.read, own.request)
        if not what.bare and needs_guard(own, plan, policy):
            yield from _guard(gateway, own, plan)
    own.deployments = admit.with_bounds(own, admit.choose_deployments(own, plan, own.ask, policy, now))
    return policy


def _guard(gateway: Gateway, own: Exchange, plan: Plan) -> WorkSteps[None]:
    """Set up the guardrails of the workload, without their judge and without review by people."""
    yield from start_guard(gateway, own, plan)
    guarding = own.guard
    if guarding is not None:
        guarding.skips_review = True
        guarding.guard = dataclasses.replace(guarding.guard, judge=None)


def _check_room(gateway: Gateway, own: Exchange, plan: Plan, amount: int) -> None:
    for budget, period in own.charges:
        if budget.hard and budget in plan.budgets and gateway.live.remaining(budget, period) < ROOM * amount:
            raise Exhausted(
                f"the budget {budget.name} has little left, which is for what people ask",
                code="experiment_waits",
                hint="Raise the budget, or wait for its next period.",
            )


_last: dict[tuple[str, bool], tuple[Workload, Workload]] = {}


def last(workload: Workload, *, bare: bool) -> Workload:
    """The workload as shadow calls see it; cached until its declaration changes."""
    known = _last.get((workload.name, bare))
    if known is None or known[0] is not workload:
        rule = msgspec.structs.replace(workload.reliability, priority="low", hedge=None, same=0)
        made = msgspec.structs.replace(
            workload, reliability=rule, attempts=1, cache=None, routing=None, review=None, experiment=None
        )
        if bare:
            made = msgspec.structs.replace(made, system_prompt=None, prompt=None, grounding=None, keep=None)
        known = _last[workload.name, bare] = (workload, made)
    return known[1]
