"""A failed attempt, as an error: what it cost and who is asked next follow from it. Decides neither."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from groundplan.core.errors import Denied
from groundplan.gateway.surfaces.codec import Relay

if TYPE_CHECKING:
    from groundplan.gateway.guard.relay import GuardedRelay


MEANT = {
    401: "it does not accept our key", 402: "our account there is not paid", 403: "our key may not do this there",
    404: "it has no such path, or no such model", 405: "it has no such path",
}  # fmt: skip
"""What a refusal of an upstream says about us: asking again does not help."""
NO_PATH = frozenset({404, 405, 501})
"""Of an upstream that does not have what it is asked for."""
_PLACE = "url (it ends before /chat/completions, mostly with /v1) and upstream_model of"
_CORRECT = {401: "key of", 402: "account of", 403: "key of", 404: _PLACE, 405: _PLACE}


def hint_of(status: int, deployment: str) -> str:
    """What to do where the last deployment refused with this status."""
    if status in _CORRECT:
        return f"Correct the {_CORRECT[status]} {deployment}; `groundplan why CALL` shows each attempt."
    return "Try again; `groundplan status` names deployments that fail, `groundplan why CALL` each attempt."


def hint_of_silence(kind: str, deployment: str) -> str:
    """What to do where the last deployment said nothing for as long as it may; empty where it failed in another way."""
    if kind != "timeout":
        return ""
    return f"Try again, or raise the workload's `deadline` and `timeouts` of {deployment} if its model thinks longer."


_NO_CONNECTION = {"refused": "no_connection"}
"""Nothing listens there, its name is not known, its certificate is not the right one, its proxy lets nobody through."""
About = Literal["above_rate", "too_long", "unfit", "sealed"]
"""What is wrong with a request for a deployment that may do well with others, and others with it: it alone is more than
our account there may send in a minute; its model cannot read as much; nobody there does with the model what is
asked; it cannot read reasoning that was sealed elsewhere, and is to be asked without."""


class AttemptFailed(Exception):
    """One attempt failed. `billed` unless it certainly was not; `rest` is the deployment's own retry-after; `kind` is
    that of an `UpstreamFailure`, empty where the upstream said what is wrong."""

    def __init__(
        self,
        reason: str,
        *,
        billed: bool,
        status: int = 0,
        kind: str = "",
        stale: bool = False,
        rest: float | None = None,
        about: About | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.billed = billed
        self.status = status
        self.kind = kind
        self.stale = stale
        """A kept-alive connection was closed as it was used; the deployment itself may be well."""
        self.rest = rest
        self.about = about
        """It is about this request, which others may take."""
        self.hint = ""
        """What to do, where asking again does not help."""
        self.refuses_rest = False
        """It refuses to go on with a stream that broke elsewhere: others may, and nothing is held against it."""
        self.service_away = False
        """Our own service that would have asked it was not there, which says nothing of the deployment."""
        self.other_key = False
        """The provider refused our key, and the deployment has another one that does not rest."""
        self.crowded = False
        """There was no room here for its answer in time, so it was not read, or not to its end."""
        self.relay: Relay | None = None
        """Of a stream of which the client has a part."""
        self.refusal: Denied | None = None
        """It answered as it should, and a guardrail refuses the answer."""
        self.guarded: GuardedRelay | None = None
        """Of a stream that was refused before anything of it was sent."""

    @property
    def flag(self) -> str:
        """How its receipt tells it where there is no status to tell it; empty: there is."""
        return "no_room" if self.crowded else _NO_CONNECTION.get(self.kind, self.kind)

    @property
    def blames(self) -> bool:
        """Whether it is held against the deployment."""
        about_us = self.stale or self.other_key or self.service_away or self.crowded
        about_this = self.about is not None or self.refuses_rest or self.refusal is not None
        return not (about_us or about_this)

    @property
    def temporary(self) -> bool:
        """Whether the same deployment may do better the next time."""
        return self.status in (0, 200, 408, 409, 424, 425, 429) or self.status >= 500
