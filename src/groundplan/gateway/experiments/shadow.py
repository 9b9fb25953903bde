"""Shadow traffic: a second answer to a call of an experiment, requested once the shown call is settled and sent.

So it delays nothing, and its costs and failures do not affect the shown call. Few run at a time, and none where this
worker is busy. The result is a fact about both answers (`pairs`), without their texts; both calls are in the ledger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from groundplan.economics.experiment.model import Experiment
from groundplan.economics.experiment.verdict import CANDIDATE
from groundplan.gateway.call.feature import FEATURE, feature_of
from groundplan.gateway.experiments import shadow_call
from groundplan.gateway.experiments.compare import NOT_COMPARED, compare, text_of
from groundplan.gateway.experiments.pairs import Pair, Pairs
from groundplan.gateway.experiments.trial import Mark

if TYPE_CHECKING:
    from groundplan.gateway.call.context import Gateway
    from groundplan.gateway.call.exchange import Exchange

MOST = 16
"""The most second answers that one worker requests at the same time."""
REST_SECONDS = 30.0
"""Pause of an experiment after a second answer was refused, or could not be compared with the shown one."""
LONGEST_REST_SECONDS = 600.0
"""The pause doubles with each further pair in a row that could not be compared, up to this."""
_LEFT_OUT = ("stream", "stream_options", "service_tier", "store")
_decode = msgspec.json.Decoder().decode


class Shadows:
    """The shadow calls of one worker."""

    def __init__(self, gateway: Gateway, pairs: Pairs) -> None:
        self._gateway = gateway
        self._pairs = pairs
        self._running = 0
        self._rests: dict[str, float] = {}
        self._uncompared: dict[str, int] = {}
        """Experiment -> pairs in a row that could not be compared."""
        self.missed = 0
        """Calls without a second answer, since there was no room for one."""

    def after(self, shown: Exchange) -> None:
        """Request the second answer to a call that has ended, if there is an answer to compare it with."""
        trial, place = shown.trial, shown.deployment
        if trial is None or not trial.shadowed or shown.status != "ok" or place is None or not shown.sent_chunks:
            return
        tried = trial.experiment
        if shown.cache_result in ("exact", "semantic") or place.name == tried.candidate or not self._runs(tried):
            return
        gateway = self._gateway
        if (
            self._running >= MOST
            or gateway.pressure.is_crowded(gateway.running_calls)
            or self._rests.get(tried.id, 0.0) > gateway.loop.time()
        ):
            self.missed += 1
            return
        self._running += 1
        gateway.run_in_background(self._answer(shown, tried))

    def _runs(self, tried: Experiment) -> bool:
        """Whether the experiment was not stopped since the shown call was admitted."""
        now = self._gateway.live.policy.experiments
        known = None if now is None else now.get(tried.workload)
        return known is not None and known.id == tried.id

    async def _answer(self, shown: Exchange, tried: Experiment) -> None:
        try:
            mark = Mark(tried.id, tried.name, CANDIDATE, of=str(shown.call))
            what = shadow_call.ShadowPurpose(tried, shadow_call.SHADOW, mark, shadow_call.budget_of(tried))
            body = second(shown.request.body, tried.candidate)
            other = await shadow_call.ask(self._gateway, shown.request.headers, shown.interface, body, what)
            if other.attempt_number < 0:
                self._rests[tried.id] = self._gateway.loop.time() + REST_SECONDS
                self.missed += 1
                return
            await self._compare(shown, other, tried, mark)
        finally:
            self._running -= 1

    async def _compare(self, shown: Exchange, other: Exchange, tried: Experiment, mark: Mark) -> None:
        found = NOT_COMPARED
        if other.status == "ok" and shown.ask is not None and self._runs(tried):
            told = text_of(other.response.body)  # type: ignore[attr-defined]  # Collected
            was = text_of(b"".join(shown.sent_chunks or ()))
            if shown.guard is not None:  # what was masked for one model is not shown to another
                told, was = shown.guard.masks.remask(told), shown.guard.masks.remask(was)
            what = shadow_call.ShadowPurpose(tried, shadow_call.JUDGE, mark, shadow_call.budget_of(tried), bare=True)
            found = await compare(self._gateway, shown.request.headers, shown.ask.query, was, told, what)
            if found is not NOT_COMPARED:
                self._heed(tried, asked=found.score is not None or found.said is not None)
        self._pairs.add(
            Pair(
                experiment=tried.id,
                call=shown.call,
                beside=other.call,
                segment=feature_of(shown.request.headers.get(FEATURE)),
                basis=found.basis,
                score=found.score,
                contradicted=found.contradicted,
                shown_ms=_ms(shown),
                beside_ms=_ms(other),
                shown_cost=shown.cost,
                beside_cost=other.cost,
                shown_tokens=shown.usage.output,
                beside_tokens=other.usage.output,
                answered=other.status == "ok",
                said=found.said,
            )
        )

    def _heed(self, tried: Experiment, *, asked: bool) -> None:
        """Pause the experiment after two pairs in a row that could not be compared, so that few second answers are paid
        in vain while a judge is unavailable. A single failure may be due to the call itself."""
        now = self._gateway.loop.time()
        if asked:
            self._uncompared.pop(tried.id, None)
        elif self._rests.get(tried.id, 0.0) <= now:
            times = self._uncompared[tried.id] = self._uncompared.get(tried.id, 0) + 1
            if times > 1:
                self._rests[tried.id] = now + min(REST_SECONDS * 2.0 ** min(times - 2, 10), LONGEST_REST_SECONDS)


def second(body: bytes, deployment: str) -> dict[str, Any]:
    """The request body for another deployment, without streaming."""
    value: dict[str, Any] = _decode(body)
    return {name: part for name, part in value.items() if name not in _LEFT_OUT} | {"model": deployment}


def _ms(exchange: Exchange) -> float:
    """Milliseconds from the begin of a call to the end of its last attempt."""
    return (exchange.attempt_ended - exchange.started) / 1e6
