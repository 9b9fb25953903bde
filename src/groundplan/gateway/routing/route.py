"""Puts the deployments of a call for model `auto` in the order that its workload's routing says, and notes why.

Only the order changes: whatever placement, keys, kill switches and policy left is all there is, so a route can break no
rule; the others stay behind the chosen one and take over where it fails. Nothing is awaited, and a workload without
routing pays one look at a field. Learned routers are read from HOME once for each version; where one is not there the
order of placement holds, and the receipt says so.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from groundplan.blueprint.model import Deployment, Routing, Workload
from groundplan.core.errors import Invalid
from groundplan.economics.routing import rules
from groundplan.gateway.call.exchange import Ask, Exchange

if TYPE_CHECKING:
    from groundplan.economics.routing.model import Choice, Router

AUTO = "auto"
PREFIX_BYTES = 2048
"""Of a conversation, by which it is known again; providers' caches of prompts begin at about as much."""
REMEMBERED = 4096
SUFFIX = ".router"


class Route(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a call went where it went; in its receipt."""

    deployment: str
    model: str
    by: str
    """`rule NAME`, `learned`, `unsure`, `strongest`, `affinity`, `only`, `order`"""
    reason: str
    router: str = ""
    expected: dict[str, float] = {}


class Routes:
    """Of one worker."""

    def __init__(self, folder: Path | None = None) -> None:
        """`folder` has the learned routers, each as NAME@VERSION.router."""
        self._folder = folder
        self._routers: dict[str, Router | None] = {}
        self._conversations: OrderedDict[bytes, str] = OrderedDict()

    def arrange(self, exchange: Exchange, workload: Workload, ask: Ask) -> None:
        """Order the deployments of a checked call, where it leaves the choice to us."""
        routing = workload.routing
        if routing is None or ask.model not in (AUTO, workload.name):
            return
        places = exchange.deployments
        route = self._route(exchange, routing, ask)
        chosen = next(place for place in places if place.name == route.deployment)
        exchange.deployments = [chosen, *(place for place in places if place is not chosen)]
        exchange.route = route

    def _route(self, exchange: Exchange, routing: Routing, ask: Ask) -> Route:
        places = exchange.deployments
        if len(places) == 1:
            return _told(places[0], "only", "no other deployment may take this call")
        names = {place.name: place for place in places}
        usable = [rule for rule in routing.rules if rule.use in names]
        rule = rules.first(usable, ask.query, ask.messages)
        if rule is not None:
            return _told(names[rule.use], f"rule {rule.name}", "the first rule that fits")
        if routing.router is None:
            return _told(places[0], "order", "no rule fits, so the order of placement holds")
        router = self.router(routing.router)
        if router is None:
            reason = f"the router {routing.router} is not on this gateway, so the order of placement holds"
            return _told(places[0], "order", reason)
        return self._learned(exchange, routing, ask, router)

    def _learned(self, exchange: Exchange, routing: Routing, ask: Ask, router: Router) -> Route:
        from groundplan.economics.routing.choose import choose  # noqa: PLC0415 -- numpy, only where it is used

        places = exchange.deployments
        by_model: dict[str, Deployment] = {}
        for place in places:
            by_model.setdefault(place.model, place)
        known = frozenset(by_model) & frozenset(router.models)
        if not known:
            reason = f"the router {routing.router} knows none of these models, so the order of placement holds"
            return _told(places[0], "order", reason)
        choice = choose(router, ask.query, None, known, f"{routing.keep:g}", routing.floor)
        kept = self._conversation(exchange, ask, choice, router) if routing.sticky else None
        if kept is not None and kept in known and kept != choice.model:
            place = by_model[kept]
            return _told(place, "affinity", "this conversation began here, and the cache of its prompts is warm")
        return Route(
            deployment=by_model[choice.model].name,
            model=choice.model,
            by=choice.by,
            reason=choice.reason,
            router=routing.router or "",
            expected=choice.expected,
        )

    def _conversation(self, exchange: Exchange, ask: Ask, choice: Choice, router: Router) -> str | None:
        """The model that a long conversation stays with: the one it has, unless a stronger one is needed now."""
        raw = bytes(ask.fields.get("messages", b""))
        if len(raw) < PREFIX_BYTES or exchange.key is None:
            return None
        key = blake2b(f"{exchange.key.id}\0{exchange.person}\0".encode() + raw[:PREFIX_BYTES], digest_size=16).digest()
        had = self._conversations.get(key)
        strength = dict(zip(router.models, router.mean_scores.tolist(), strict=True))
        model = had if had is not None and strength.get(had, -1.0) >= strength[choice.model] else choice.model
        self._conversations[key] = model
        self._conversations.move_to_end(key)
        if len(self._conversations) > REMEMBERED:
            self._conversations.popitem(last=False)
        return model if had is not None else None

    def router(self, version: str) -> Router | None:
        """A learned router; None where it is not there, or not readable by this version."""
        if version not in self._routers:
            self._routers[version] = self._read(version)
        return self._routers[version]

    def _read(self, version: str) -> Router | None:
        if self._folder is None:
            return None
        from groundplan.economics.routing.artifact import load  # noqa: PLC0415 -- numpy, only where it is used

        try:
            return load((self._folder / f"{version}{SUFFIX}").read_bytes())
        except (OSError, Invalid):
            return None

    def forget(self) -> None:
        """A new blueprint may name a version that was put there since."""
        self._routers = {version: router for version, router in self._routers.items() if router is not None}


def _told(place: Deployment, by: str, reason: str) -> Route:
    return Route(deployment=place.name, model=place.model, by=by, reason=reason)
