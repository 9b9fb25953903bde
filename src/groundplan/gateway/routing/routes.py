"""Orders the deployments of a call for model `auto` by its workload's routing, with the reason.

Adds no deployment: only those that placement, keys, kill switches and policy allow are ordered, without those that
quality floors and risk classes exclude, so a route cannot break a rule; the others stay behind the chosen one as
fallbacks. Does not await, and costs a workload without routing one read of a field. Learned routers are read from HOME
once for each version; if one is missing, the order of placement is used, and the receipt says so.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from groundplan.blueprint.model import Deployment, Routing, Workload
from groundplan.core.errors import Denied, Invalid
from groundplan.economics.routing.decide import rules
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.call.feature import FEATURE, feature_of
from groundplan.gateway.routing import weigh
from groundplan.gateway.routing.conversation import (
    Conversation,
    bytes_before_question,
    conversation_of,
    message_count,
    raw_messages,
)
from groundplan.gateway.routing.route import Route
from groundplan.gateway.routing.task import task_of
from groundplan.gateway.upstream.latency import LatencyEstimates

if TYPE_CHECKING:
    from groundplan.economics.routing.model import Choice, Context, Router
    from groundplan.gateway.call.ask import Passage
    from groundplan.gateway.policy.catalog import Catalog

MAX_REMEMBERED = 4096
SUFFIX = ".router"
RETRY_SECONDS = 5.0
"""Interval after which a missing router is looked for again."""
MIN_CALLS = 20
"""Paid calls of a model from which on their cost replaces the price of the router's training."""
_NEWEST_WEIGHT = 0.05
"""Weight of the newest cost in the moving mean of a model."""
_UNDECIDED = ("unsure", "strongest", "order")
"""`by` of calls for which the router made no confident choice."""
CASCADE = "cascade"
"""`by` of a call whose first answer is checked before it is given."""


class PriceRatio:
    """The ratio of actual to expected costs of a model's calls, as moving means."""

    __slots__ = ("_count", "_dollars", "_expected")

    def __init__(self) -> None:
        self._dollars = self._expected = 0.0
        self._count = 0

    def add(self, dollars: float, expected: float) -> None:
        self._count += 1
        weight = max(_NEWEST_WEIGHT, 1 / self._count)
        self._dollars += weight * (dollars - self._dollars)
        self._expected += weight * (expected - self._expected)

    @property
    def rate(self) -> float:
        """Actual over expected cost, between 0.01 and 100; 1 until there are `MIN_CALLS` calls."""
        return min(100.0, max(0.01, self._dollars / self._expected)) if self._count >= MIN_CALLS else 1.0


class Routes:
    """The routing of one worker."""

    def __init__(self, folder: Path | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """`folder` has the learned routers, each as NAME@VERSION.router; `clock` returns seconds."""
        self._folder, self._clock = folder, clock
        self._routers: dict[tuple[str, str | None], Router | None] = {}
        self._retry_at: dict[tuple[str, str | None], float] = {}
        """Missing router -> clock time from which on it is looked for again."""
        self._conversations: OrderedDict[bytes, str] = OrderedDict()
        self._number = 0
        """Number of the newest blueprint among calls so far."""
        self._expected_costs: OrderedDict[UUID, tuple[str, dict[str, float]]] = OrderedDict()
        """call -> (router, model -> expected US dollars at the prices of its training), of calls under way"""
        self._price_ratios: dict[tuple[str, str], PriceRatio] = {}
        """(router, model) -> ratio of actual to expected costs"""
        self._mean_costs: dict[tuple[str, str], float] = {}
        """(workload, model) -> moving mean of US dollars of a call"""

    def arrange(
        self,
        exchange: Exchange,
        workload: Workload,
        ask: Ask,
        times: LatencyEstimates | None = None,
        now: float = 0.0,
        passages: Sequence[Passage] | None = None,
    ) -> None:
        """Order the deployments of a checked call that leaves the choice to routing. `times`: latencies of deployments
        in this worker; `now`: by their clock; `passages`: of the call, None before the search. Raises `Denied`
        (`route_barred`) if hard rules exclude every deployment."""
        routing = workload.routing
        if routing is None or not workload.is_routed(ask.model):
            return
        if exchange.catalog is not None and exchange.catalog.number > self._number:
            self._take_blueprint(exchange.catalog)
        places, slow = exchange.deployments, list[Deployment]()
        barred: dict[str, str] = {}
        if routing.barred or routing.within_ms is not None:
            places, slow, barred = weigh.eligible(routing, places, times, ask.stream, now)
            if not places and not slow:
                raise _route_barred(workload.name, barred)
        waiting = weigh.waiting_costs(routing, places, times, ask.stream)
        call = _Call(exchange, workload, routing, ask, places or slow, waiting, passages)
        route = self._route(call)
        chosen = next(place for place in call.places if place.name == route.deployment)
        rest = [place for place in (*places, *slow) if place is not chosen]
        exchange.deployments = [chosen, *rest]
        exchange.route = msgspec.structs.replace(
            route,
            barred=barred,
            expected=route.expected or _declared_quality(routing, call.places),
            costs=route.costs or self._recent_costs(workload.name, call.places),
        )

    def reorder_by_passages(
        self,
        exchange: Exchange,
        workload: Workload,
        ask: Ask,
        places: Sequence[Deployment],
        times: LatencyEstimates,
        now: float,
    ) -> None:
        """Order the deployments again where the router uses passages, which are known now. `places`: all that the
        request may use, in the order of placement. The set of deployments stays the same, so the reservation still
        holds."""
        routing, route = workload.routing, exchange.route
        if routing is None or route is None or not route.router or workload.grounding is None:
            return
        router = self.router(routing.router or "", routing.digest)
        if router is None or not _reads_passages(router):
            return
        had = {*(place.name for place in exchange.deployments), *route.barred}
        exchange.deployments = [place for place in places if place.name in had]
        self.arrange(exchange, workload, ask, times, now, exchange.passages)

    def _route(self, call: _Call) -> Route:
        routing, places, ask = call.routing, call.places, call.ask
        if len(places) == 1:
            return _route_to(places[0], "only", "no other deployment may take this call")
        names = {place.name: place for place in places}
        usable = [rule for rule in routing.rules if rule.use in names]
        rule = rules.first_match(usable, ask.query, message_count(ask, call.exchange.endpoint))
        if rule is not None:
            return _route_to(names[rule.use], f"rule {rule.name}", "the first rule that fits")
        if routing.router is None:
            return self._cascade_route(call) or _route_to(
                places[0], "order", "no rule fits, so the order of placement holds"
            )
        router = self.router(routing.router, routing.digest)
        if router is None:
            same = " as it was approved" if routing.digest is not None else ""
            reason = f"the router {routing.router} is not on this gateway{same}, so the order of placement holds"
            return self._cascade_route(call) or _route_to(places[0], "order", reason)
        route = self._learned_route(call, router)
        return (self._cascade_route(call, route) or route) if route.by in _UNDECIDED else route

    def _cascade_route(self, call: _Call, route: Route | None = None) -> Route | None:
        """The route of the cascade if one is declared and the answer to this call can be checked; None without a
        cascade. If it cannot be checked, a call without a confident choice does not go to the small deployment."""
        rule = call.routing.cascade
        small = None if rule is None else next((place for place in call.places if place.name == rule.first), None)
        if rule is None or small is None:
            return None
        if not is_checkable(call.exchange, call.ask):
            other = next(place for place in call.places if place is not small)
            return route or _route_to(other, "order", f"an answer of {rule.first} to this could not be checked")
        found = route or _route_to(small, CASCADE, "")
        reason = "it is tried first, and its answer is checked before it is given"
        return msgspec.structs.replace(found, deployment=small.name, model=small.model, by=CASCADE, reason=reason)

    def _learned_route(self, call: _Call, router: Router) -> Route:
        from groundplan.economics.routing.decide.choose import choose  # noqa: PLC0415 -- numpy, only where it is used

        routing, ask = call.routing, call.ask
        by_model: dict[str, Deployment] = {}
        for place in call.places:
            by_model.setdefault(place.model, place)
        known = frozenset(by_model) & frozenset(router.models)
        if by_model.keys() - known and (len(known) < 2 or router.models[router.strongest] not in known):
            models = f"knows {' and '.join(sorted(known))} alone" if known else "knows none"
            reason = f"the router {routing.router} {models} of these models, so the order of placement holds"
            return _route_to(call.places[0], "order", reason)
        conversation = conversation_of(call.exchange, ask) if routing.sticky else None
        present, savings = self._warm_model(call, by_model, conversation)
        extra_costs = call.waiting
        if routing.priced and present is not None and savings:
            extra_costs = {**extra_costs, present: extra_costs.get(present, 0.0) - savings}
        vector, point = call.exchange.question_vector, f"{routing.keep:g}"
        version, context = routing.router or "", call.context(router)
        rates = {model: self._price_ratio(version, model) for model in known}
        choice = choose(router, ask.query, vector, known, point, routing.floor, extra_costs, context, rates)
        self._remember_expected(call.exchange.call, version, choice)
        if conversation is not None and not call.is_provisional(router):
            kept = self._conversation_model(call, conversation, choice, router, present)
            if kept != choice.model and kept in known:
                worth = f", worth ${savings:.6f}" if savings else ""
                reason = f"this conversation began here, and the cache of its prompts is warm{worth}"
                return msgspec.structs.replace(
                    _route_to(by_model[kept], "affinity", reason), expected=choice.expected, costs=choice.costs,
                    router=routing.router or "",
                )  # fmt: skip
        return Route(
            deployment=by_model[choice.model].name,
            model=choice.model,
            by=choice.by,
            reason=choice.reason if choice.model != present or not savings else f"{choice.reason}; its cache is warm",
            router=routing.router or "",
            expected=choice.expected,
            costs=choice.costs,
        )

    def _warm_model(
        self, call: _Call, by_model: dict[str, Deployment], conversation: Conversation | None
    ) -> tuple[str | None, float]:
        """(the model that a long conversation uses, US dollars that its cached prompt saves there)"""
        known = () if conversation is None else conversation.known
        present = next((self._conversations[key] for key in known if key in self._conversations), None)
        place = by_model.get(present) if present is not None else None
        return present, 0.0 if place is None else weigh.cached_prefix_value(place, call.prefix_bytes)

    def _conversation_model(
        self, call: _Call, conversation: Conversation, choice: Choice, router: Router, present: str | None
    ) -> str:
        """The model for a conversation: the one it has, unless a stronger one is needed now; with priced caches the one
        that the router chose, as their value is part of the choice."""
        strength = dict(zip(router.models, router.mean_scores.tolist(), strict=True))
        stays = (
            present is not None and not call.routing.priced and strength.get(present, -1.0) >= strength[choice.model]
        )
        model = present if present is not None and stays else choice.model
        self._conversations[conversation.key] = model
        self._conversations.move_to_end(conversation.key)
        if len(self._conversations) > MAX_REMEMBERED:
            self._conversations.popitem(last=False)
        return model

    def _remember_expected(self, call: UUID, router: str, choice: Choice) -> None:
        """Remember what a router expects a call to cost until its actual cost is known."""
        if choice.bills:
            self._expected_costs[call] = router, choice.bills
            if len(self._expected_costs) > MAX_REMEMBERED:
                self._expected_costs.popitem(last=False)

    def _price_ratio(self, router: str, model: str) -> float:
        """The price of a model relative to that at the router's training, as known from calls."""
        paid = self._price_ratios.get((router, model))
        return 1.0 if paid is None else paid.rate

    def learn(self, workload: str, model: str, dollars: float, call: UUID | None = None) -> None:
        """Record what a call of a workload cost at a model."""
        router, bills = self._expected_costs.pop(call, ("", {})) if call is not None else ("", {})
        if bills.get(model, 0.0) > 0:
            self._price_ratios.setdefault((router, model), PriceRatio()).add(dollars, bills[model])
        key = (workload, model)
        before = self._mean_costs.get(key)
        self._mean_costs[key] = dollars if before is None else before + _NEWEST_WEIGHT * (dollars - before)

    def _recent_costs(self, workload: str, places: Sequence[Deployment]) -> dict[str, float]:
        """model -> moving mean of US dollars of a call, for models with calls."""
        found = {place.model: self._mean_costs.get((workload, place.model)) for place in places}
        return {model: round(bill, 9) for model, bill in found.items() if bill is not None}

    def router(self, version: str, digest: str | None = None) -> Router | None:
        """A learned router; None if its file is missing, not readable by this version, or does not match `digest`
        (SHA-256). A missing file may be copied here later."""
        key = (version, digest)
        found = self._routers.get(key)
        if found is None and self._clock() >= self._retry_at.get(key, 0.0):
            found = self._routers[key] = self._read(version, digest)
            if found is None:
                self._retry_at[key] = self._clock() + RETRY_SECONDS
        return found

    def _read(self, version: str, digest: str | None) -> Router | None:
        if self._folder is None:
            return None
        from groundplan.economics.routing.versions.artifact import load  # noqa: PLC0415 -- numpy, only where it is used

        try:
            data = (self._folder / f"{version}{SUFFIX}").read_bytes()
            return load(data) if digest in (None, sha256(data).hexdigest()) else None
        except (OSError, Invalid):
            return None

    def _take_blueprint(self, catalog: Catalog) -> None:
        """Take up a new blueprint: forget routers that it does not name, and look for missing ones again."""
        self._number = catalog.number
        every = (workload.routing for workload in catalog.blueprint.workloads if workload.routing is not None)
        named = {(routing.router, routing.digest) for routing in every}
        gone = [key for key, router in self._routers.items() if key not in named or router is None]
        for key in gone:
            del self._routers[key]
            self._retry_at.pop(key, None)


@dataclass(frozen=True, slots=True)
class _Call:
    """What is known of a call when its deployment is chosen."""

    exchange: Exchange
    workload: Workload
    routing: Routing
    ask: Ask
    places: list[Deployment]
    waiting: dict[str, float]
    found: Sequence[Passage] | None

    def context(self, router: Router) -> Context:
        from groundplan.economics.routing.model import Context  # noqa: PLC0415 -- numpy, only where it is used

        scores = None if self.found is None else tuple(sorted((each.score for each in self.found), reverse=True))
        said = bytes_before_question(self.ask, self.exchange.endpoint) if router.texts else self.prefix_bytes
        return Context(message_count(self.ask, self.exchange.endpoint), said, scores, self.task if router.tasks else ())

    @property
    def task(self) -> tuple[str, ...]:
        feature = feature_of(self.exchange.request.headers.get(FEATURE))
        return task_of(self.exchange.endpoint, self.ask.fields, feature, self.workload.prompt)

    def is_provisional(self, router: Router) -> bool:
        """Whether the deployment is chosen again when the passages are known."""
        return self.found is None and self.workload.grounding is not None and _reads_passages(router)

    @property
    def prefix_bytes(self) -> int:
        """Bytes of the conversation before the newest question."""
        return max(0, len(raw_messages(self.ask, self.exchange.endpoint)) - len(self.ask.query))


def _reads_passages(router: Router) -> bool:
    from groundplan.economics.routing.decide.predict import reads_passages  # noqa: PLC0415 -- numpy, only where used

    return reads_passages(router)


def is_checkable(exchange: Exchange, ask: Ask) -> bool:
    """Whether the answer to a call can be checked before it is given: one answer of chat, without functions."""
    fields = ask.fields
    plain = exchange.endpoint == "chat.completions" and ask.copies == 1 and ask.upload is None
    return plain and "tools" not in fields and "functions" not in fields


def _declared_quality(routing: Routing, places: Sequence[Deployment]) -> dict[str, float]:
    """model -> mean of its declared scores in the dimensions that the workload names."""
    scores = {place.model: routing.quality.get(place.name) for place in places}
    return {model: round(sum(each.values()) / len(each), 4) for model, each in scores.items() if each}


def _route_barred(workload: str, barred: dict[str, str]) -> Denied:
    told = "; ".join(f"{name}: {why}" for name, why in sorted(barred.items()))
    return Denied(
        f"no deployment of {workload} may take this call: {told}",
        code="route_barred",
        hint="Allow a deployment that meets its floors, or change objectives.quality or routing.risk.",
    )


def _route_to(place: Deployment, by: str, reason: str) -> Route:
    return Route(deployment=place.name, model=place.model, by=by, reason=reason)
