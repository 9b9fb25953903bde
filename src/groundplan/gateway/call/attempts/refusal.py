"""What an error answer of an upstream means: it is passed on to the client, or another deployment is asked; and whether
the attempt was billed.

`upstream.provider_refusals` reads its body; `sequence` decides which deployment is asked next.
"""

from __future__ import annotations

from groundplan.blueprint.model import Deployment
from groundplan.economics.price import FLEX
from groundplan.gateway.call.attempts.failure import REFUSAL_MEANINGS, AttemptFailed, hint_for_status
from groundplan.gateway.call.attempts.retry import retry_after
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.upstream import provider_refusals
from groundplan.gateway.upstream.connection import UpstreamConnection
from groundplan.gateway.upstream.key_pool import KEY_STATUSES, UNPAID
from groundplan.gateway.upstream.targets import Target

_NOT_BILLED = frozenset({*range(300, 400), 401, 402, 403, 404, 405, 408, 409, 421, 425, 429, 500, 501, 503, 529})
"""Statuses of complete error answers without usage by which the request was not worked on. 502 and 504 come from
something in front of the model, which may well have been working."""
_RETRY_ELSEWHERE = frozenset({401, 402, 403, 404, 405, 408, 409, 421, 424, 425, 429})
"""Statuses that are about us, the deployment or this moment, not the caller's request: another deployment may do
better."""
_OVERLOAD = frozenset({429, 503, 529})


class RefusalHandling:
    """The part of an attempt that handles error answers of its upstream."""

    __slots__ = ("_overload", "_refusal", "_target", "deployment", "exchange", "gateway", "is_refused", "status")

    gateway: Gateway
    exchange: Exchange
    deployment: Deployment
    status: int
    is_refused: bool
    """Whether the client's answer is that the upstream refuses the request, on which it did not work."""
    _refusal: bytes
    """Body of the refusal; unset before there is one."""
    _overload: bool
    _target: Target | None

    def _refuse(self, connection: UpstreamConnection, status: int, refusal: bytes) -> None:
        """Handle an error answer, whose status is or means `status`. Raises `AttemptFailed` where the client does not
        get it."""
        self.status, self._refusal = status, refusal
        self._raise_if_not_for_client(connection)
        if self.exchange.response.started:  # the client has a part of an answer, so the refusal is of its rest
            failed = AttemptFailed(f"the upstream answered {status}", billed=False, status=status)
            failed.refuses_continuation = True
            raise failed
        self.is_refused = True

    def _raise_if_not_for_client(self, connection: UpstreamConnection) -> None:
        """Return for an error that blames the client's request, which is passed on. Raises `AttemptFailed` for any
        other, so that the next deployment is asked."""
        status = provider_refusals.actual_status(self.status, self._refusal)
        others, billed = len(self.exchange.deployments) > 1, self._is_billed
        if provider_refusals.exceeds_rate(status, self._refusal):
            reason = f"the upstream answered {status}, about a minute's tokens"
            raise AttemptFailed(reason, billed=billed, status=status, mismatch="above_rate")
        if (message := provider_refusals.prompt_too_long(status, self._refusal)) and self._has_larger_context():
            raise AttemptFailed(self._quote(status, message), billed=billed, status=status, mismatch="too_long")
        if provider_refusals.is_sealed_elsewhere(status, self._refusal) and self._can_unseal():
            reason = "it cannot read reasoning that was sealed elsewhere"
            raise AttemptFailed(reason, billed=False, status=status, mismatch="sealed")
        if message := provider_refusals.unsupported_feature(status, self._refusal):
            if others:
                raise AttemptFailed(self._quote(status, message), billed=billed, status=status, mismatch="unfit")
            return
        if others and provider_refusals.is_malformed_output(status, self._refusal):
            raise AttemptFailed("its model's answer came out wrong", billed=True, status=status)
        self._overload = status in _OVERLOAD and self._is_ordinary
        if status in _RETRY_ELSEWHERE or status < 400 or status >= 500:
            raise self._refusal_failure(connection, status)

    def _refusal_failure(self, connection: UpstreamConnection, status: int) -> AttemptFailed:
        """The failure of a refusal that is not about the client's request. `status`: the one that it means."""
        delay = None
        if (
            header := connection.headers.get(b"retry-after") or provider_refusals.retry_delay(self._refusal)
        ) is not None:
            delay = retry_after(header, self.gateway.clock.now())
        reason, is_quota_spent = (
            f"the upstream answered {self.status}",
            status in KEY_STATUSES and provider_refusals.is_quota_spent(status, self._refusal),
        )
        if is_quota_spent and status != UNPAID:
            reason += ": our quota there is used up"
        elif status in REFUSAL_MEANINGS:
            reason += f": {REFUSAL_MEANINGS[status]}"
        failed = AttemptFailed(reason, billed=status not in _NOT_BILLED, status=self.status, retry_after=delay)
        if status != self.status:
            failed.hint = hint_for_status(status, self.deployment.name)
        if (
            self.deployment.api != "openai"
            and (service_failure := provider_refusals.service_failure(status, self._refusal)) is not None
        ):
            failed.reason, failed.hint = service_failure
        concerns_key = status != 429 or self._is_ordinary
        if self.deployment.keys and status in KEY_STATUSES and concerns_key and self._target is not None:
            keys, now = self.gateway.targets.key_pool(self.deployment), self.gateway.loop.time()
            failed.has_other_key = keys.record_refusal(
                self._target.key_index, UNPAID if is_quota_spent else status, now, delay
            )
            # another key may be usable before the time that this one was told; where every key rests, so does the
            # deployment, also if its provider names no time
            rest = keys.rest_seconds(now)
            failed.retry_after = rest if delay is None else min(delay, rest)
            self._overload = self._overload and not failed.has_other_key
        return failed

    @property
    def _is_billed(self) -> bool:
        """Whether parts of the request were answered before one was refused."""
        return provider_refusals.tokens_billed_before(self.deployment.api, self._refusal) is not None

    @property
    def _is_ordinary(self) -> bool:
        """Whether an overload counts for all calls: counting tokens has a limit of its own, and at flex a provider
        often has no room."""
        ask = self.exchange.ask
        return self.exchange.interface.is_billed and (ask is None or ask.service != FLEX)

    def _quote(self, status: int, message: str) -> str:
        if self._target is not None:
            message = self._target.mask_refusal(message.encode()).decode(errors="replace")
        return f"the upstream answered {status}: {' '.join(message.split())[:200]}"

    def _can_unseal(self) -> bool:
        ask = self.exchange.ask
        return ask is not None and self.exchange.interface.drop_sealed_reasoning(ask, self.deployment)

    def _has_larger_context(self) -> bool:
        """Whether another deployment of the call has a larger context."""
        own = self.deployment.context_tokens
        return any(each.context_tokens > own for each in self.exchange.deployments)
