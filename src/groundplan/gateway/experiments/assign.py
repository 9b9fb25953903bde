"""Assigns calls to experiments, and gives the part of their receipt. Does not await, and keeps no state.

An arm only changes the order of the deployments that placement, keys, kill switches and policy left, so it cannot break
a rule; a call that may not use the candidate is in no arm. An arm is derived from the experiment and the caller, so it
is the same in every worker and after a crash.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import msgspec

from groundplan.economics.experiment.model import AB, CONVERSATION, Experiment
from groundplan.economics.experiment.verdict import CANDIDATE, Rule, assign_arm
from groundplan.gateway.experiments.trial import Mark, Trial
from groundplan.gateway.http.collected_response import CollectedResponse
from groundplan.gateway.routing.conversation import conversation_name, first_user_digest, messages_of
from groundplan.gateway.routing.route import Route
from groundplan.gateway.surfaces.answer_text import SURFACES

if TYPE_CHECKING:
    from groundplan.blueprint.model import Workload
    from groundplan.gateway.call.ask import Ask
    from groundplan.gateway.call.exchange import Exchange

_CHANCE = (1 << 30) - 1
SHADOWED = frozenset({"chat.completions", "messages"})
"""Endpoints whose requests hold everything that an answer depends on, so that another deployment can be asked."""


def assign(exchange: Exchange, workload: Workload, ask: Ask, experiments: dict[str, Experiment], now: float) -> None:
    """Set the experiment of a checked call, and order its deployments by its arm. `now`: seconds since the epoch."""
    experiment = experiments.get(workload.name)
    if (
        experiment is None
        or now >= experiment.until
        or exchange.request.stream is not None
        or isinstance(exchange.response, CollectedResponse)
    ):
        return  # a form, or a call that the gateway makes itself, such as a guardrail's judge
    if experiment.type != AB:
        if exchange.endpoint in SHADOWED and _is_in_share(exchange, experiment.share):
            exchange.trial = Trial(experiment, None)
        return
    if exchange.endpoint not in SURFACES or not workload.is_routed(ask.model):
        return
    candidate = next((place for place in exchange.deployments if place.name == experiment.candidate), None)
    if candidate is None or len(exchange.deployments) < 2:
        return
    who = unit_of(exchange, ask, experiment.split)
    arm = assign_arm(Rule(experiment.id, experiment.share), who)
    unit = blake2b(f"{experiment.id}\0{who}".encode(), digest_size=8).hexdigest()
    exchange.trial = Trial(experiment, Mark(experiment.id, experiment.name, arm, unit))
    if arm == CANDIDATE:
        rest = [place for place in exchange.deployments if place is not candidate]
        exchange.deployments = [candidate, *rest]
        reason = f"this caller is in the {experiment.share:.0%} that it answers"
        barred = {} if exchange.route is None else exchange.route.barred
        exchange.route = Route(candidate.name, candidate.model, f"experiment {experiment.name}", reason, barred=barred)


def unit_of(exchange: Exchange, ask: Ask, split: str) -> str:
    """The unit for which an arm is drawn: the person, else the conversation, else the key with those it was rotated
    to."""
    if split != CONVERSATION and exchange.person:
        return f"person {exchange.person}"
    key = "" if exchange.key is None else exchange.key.family or exchange.key.id
    name = conversation_name(exchange.request.headers)
    if name is not None:
        return f"conversation {key} {exchange.person} {name}"
    first = first_user_digest(messages_of(ask, exchange.endpoint))
    return f"key {key} {exchange.person}" if first is None else f"begin {key} {exchange.person} {first}"


def _is_in_share(exchange: Exchange, share: float) -> bool:
    """Whether this call is among the share; other bits of its id decide than those of what is kept. The first two of
    these bytes are no chance: they say what kind of id it is."""
    return share >= 1 or int.from_bytes(exchange.id_bytes[-8:-4], "big") & _CHANCE < share * (_CHANCE + 1)


def receipt_json(exchange: Exchange) -> str:
    """Route and experiment of a call for its receipt, as JSON; empty where it has neither."""
    route, trial = exchange.route, exchange.trial
    place = exchange.deployment
    if route is not None and place is not None and place.name != route.deployment:
        route = msgspec.structs.replace(route, answered=place.name)
    if trial is None or trial.mark is None:
        return "" if route is None else msgspec.json.encode(route).decode()
    if route is None:
        by, reason = "order", f"as without the experiment {trial.mark.trial}"
        if trial.mark.of:
            by, reason = f"experiment {trial.mark.trial}", f"made beside call {trial.mark.of}, and shown to nobody"
        route = Route(place.name if place else "", place.model if place else "", by, reason)
    value: dict[str, Any] = {**msgspec.to_builtins(route), **msgspec.to_builtins(trial.mark)}
    return msgspec.json.encode(value).decode()
