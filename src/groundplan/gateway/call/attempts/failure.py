"""A failed attempt, as an error: its cost and the next deployment follow from it. Decides neither."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from groundplan.core.errors import Denied
from groundplan.gateway.surfaces.codec import Relay

if TYPE_CHECKING:
    from groundplan.gateway.guard.relay import GuardedRelay


REFUSAL_MEANINGS = {
    401: "it does not accept our key", 402: "our account there is not paid", 403: "our key may not do this there",
    404: "it has no such path, or no such model", 405: "it has no such path",
}  # fmt: skip
"""Statuses by which an upstream refuses us rather than the request: asking again does not help."""
NO_PATH_STATUSES = frozenset({404, 405, 501})
"""Statuses of an upstream that does not have the path or the model."""
_URL_FIELDS = "url (it ends before /chat/completions, mostly with /v1) and upstream_model of"
_FIELD_TO_CORRECT = {401: "key of", 402: "account of", 403: "key of", 404: _URL_FIELDS, 405: _URL_FIELDS}


def hint_for_status(status: int, deployment: str) -> str:
    """The hint for a call whose last deployment refused with this status."""
    if status in _FIELD_TO_CORRECT:
        return f"Correct the {_FIELD_TO_CORRECT[status]} {deployment}; `groundplan why CALL` shows each attempt."
    return "Try again; `groundplan status` names deployments that fail, `groundplan why CALL` each attempt."


def hint_for_timeout(kind: str, deployment: str) -> str:
    """The hint for a call whose last deployment timed out; empty where it failed in another way."""
    if kind != "timeout":
        return ""
    return f"Try again, or raise the workload's `deadline` and `timeouts` of {deployment} if its model thinks longer."


_FLAGS = {"refused": "no_connection"}
"""Kind of failure -> flag, where they differ. `refused`: nothing listens there, its name is not known, its certificate
is not the right one, or its proxy lets nobody through."""
RequestMismatch = Literal["above_rate", "too_long", "unfit", "sealed"]
"""Why a healthy deployment does not take a request that others may take. `above_rate`: the request alone is more than
our account there may send in a minute; `too_long`: it exceeds the model's context; `unfit`: the provider does not
offer what is asked with that model; `sealed`: it cannot read reasoning that was sealed elsewhere, and is to be asked
without."""


class AttemptFailed(Exception):
    """One attempt failed. `billed` unless it certainly was not; `retry_after` is what the deployment asked for, in
    seconds; `kind` is that of an `UpstreamFailure`, empty where the upstream said what is wrong."""

    def __init__(
        self,
        reason: str,
        *,
        billed: bool,
        status: int = 0,
        kind: str = "",
        stale_connection: bool = False,
        retry_after: float | None = None,
        mismatch: RequestMismatch | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.billed = billed
        self.status = status
        self.kind = kind
        self.stale_connection = stale_connection
        """A kept-alive connection was closed just as it was used; the deployment itself may be healthy."""
        self.retry_after = retry_after
        self.mismatch = mismatch
        """Why the deployment does not take this request, which others may take."""
        self.hint = ""
        """What to do, where asking again does not help."""
        self.refuses_continuation = False
        """The deployment refuses to continue a stream that broke elsewhere: others may, and it is not blamed."""
        self.is_withheld = False
        """The request was not sent, for a reason of ours: something was stopped or narrowed while it connected, or it
        was not encoded before the call's deadline."""
        self.service_unavailable = False
        """Our own translation service was not running, which says nothing of the deployment."""
        self.has_other_key = False
        """The provider refused our key, and the deployment has another one that does not rest."""
        self.lacked_room = False
        """This worker had no memory for its answer in time, so it was not read, or not to its end."""
        self.other_status: int | None = None
        """Status of the other of two attempts made at once, which failed before; None: there was none."""
        self.relay: Relay | None = None
        """Relay of the stream of which the client has a part."""
        self.guardrail_refusal: Denied | None = None
        """Why a guardrail or kill refuses an answer that came as it should."""
        self.guarded_relay: GuardedRelay | None = None
        """Guarded relay of a stream that was refused before anything of it was sent."""

    @property
    def flag(self) -> str:
        """The flag of its settlement where no HTTP status says what failed; otherwise empty."""
        return "no_room" if self.lacked_room else _FLAGS.get(self.kind, self.kind)

    @property
    def blames_deployment(self) -> bool:
        """Whether the failure counts against the health of the deployment."""
        about_us = self.stale_connection or self.has_other_key or self.service_unavailable or self.lacked_room
        about_this = self.mismatch is not None or self.refuses_continuation or self.guardrail_refusal is not None
        return not (about_us or about_this or self.is_withheld)

    @property
    def is_temporary(self) -> bool:
        """Whether the same deployment may do better the next time."""
        return self.status in (0, 200, 408, 409, 424, 425, 429, 498, 499) or self.status >= 500
