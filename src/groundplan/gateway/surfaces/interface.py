"""The contract of an API surface: what callers send, what upstreams get, and what goes back, for one endpoint.

A surface is one `Interface` value; how it is spoken to a deployment is a `Codec`, a whole stream of it a `Relay`. They
are pure: bytes and facts in, bytes and facts out. Routing, money, the journal and waiting are the pipeline's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import Denied, GroundplanError, WrongType
from groundplan.gateway.http.sse import ending, splice
from groundplan.gateway.surfaces import answers
from groundplan.ledger.model import Usage

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from groundplan.gateway.caching.recast import Recast
    from groundplan.gateway.call.context import Gateway
    from groundplan.gateway.call.exchange import Ask, Exchange
    from groundplan.gateway.http.server import Request
    from groundplan.gateway.surfaces.named_files import NamedFile


class Malformed(Exception):
    """An upstream's answer is not what its API promises; the message says what is wrong with it."""


class Stopped(Malformed):
    """An answer that the upstream gave as promised, and that a check refuses."""

    def __init__(self, error: Denied) -> None:
        super().__init__(error.message)
        self.error = error


class Declined(Malformed):
    """An answer of status 200 that is an error: `data` says which."""

    def __init__(self, message: str, data: bytes) -> None:
        super().__init__(message)
        self.data = data


class Answered(msgspec.Struct, frozen=True):
    """A whole answer that was understood: its bytes for the client, and usage where the upstream reported any."""

    data: bytes
    usage: Usage | None
    kind: bytes = b""
    """Header line of its Content-Type, where it is no JSON."""


class Relay(Protocol):
    """State of one stream on its way to the client."""

    @property
    def usage(self) -> Usage | None: ...

    @property
    def output_bytes(self) -> int:
        """UTF-8 bytes of the answer so far: no fewer than its tokens."""
        ...

    @property
    def done(self) -> bool:
        """The upstream said that nothing follows."""
        ...

    @property
    def complete(self) -> bool:
        """Whether the answer reached its end, so that it may be settled as good."""
        ...

    def take(self, data: bytes) -> bytes:
        """Events for the client after one more event of the upstream. Raises `Malformed`.

        The last event that the client gets anyway is held back, so that `last` can put the facts into it.
        """
        ...

    def last(self, facts: bytes) -> bytes:
        """The rest of the stream once the call is settled; `facts` is the `groundplan` object."""
        ...

    def broken(self, reason: str, call_id: str) -> bytes:
        """The end of a stream of which the client has a part already: a well-formed error event."""
        ...


def final_usage(relay: Relay) -> Usage | None:
    """What the upstream said at the end of a stream that it used. Some say with each chunk how far they are, which is
    not what they bill for an answer that nobody waited for."""
    return relay.usage if relay.complete or relay.done else None


class Codec(Protocol):
    """One surface as one kind of upstream speaks it."""

    translated: bool
    """The upstream's provider is reached through the local translating service."""

    def path(self, deployment: Deployment) -> bytes:
        """Below the deployment's base URL."""
        ...

    def forward(self, ask: Ask, deployment: Deployment, cap: int, system: list[str]) -> bytes:
        """Body for the upstream: the caller's own bytes but for listed splices."""
        ...

    def answer(self, data: bytes, ask: Ask) -> Answered:
        """A whole answer of status 200. Raises `Malformed`."""
        ...

    def relay(self, ask: Ask) -> Relay:
        """A new stream."""
        ...


class Interface:
    """One endpoint. Subclasses say how it is read and bounded; the defaults are OpenAI's."""

    name: str
    """In the ledger: `chat.completions`, `embeddings`, ..."""
    needs: str = "chat"
    """Kind of deployment that can serve it."""
    grounded: bool = False
    """Whether passages of the workload's sources are put before the model."""
    selective: bool = False
    """Whether some deployments cannot take every request; `able` then says which can."""
    noted: bool = False
    """Whether there is more to tell about an answer; `notes` then has it."""
    priced: bool = False
    """Whether there is more to its price than tokens; `cost` then says what an answer costs."""
    capped: bool = False
    """Whether upstreams are told how many tokens an answer may have, each of its copies."""
    keeps: bool = False
    """Whether its answers may be stored, to be gone on with."""
    may_answer_whole: bool = False
    """Whether an upstream may answer whole where a stream was asked for, as models do that stream nothing."""
    by_body: bool = False
    """Whether what a request asks is read from its body alone."""
    billed: bool = True
    """Whether its answers cost anything."""
    id_header: bytes = b"x-request-id"
    """Under which its clients look for the id of a request."""
    by_chat: Codec | None = None
    """How an upstream of chat completions is spoken to, where this surface can give what that says."""
    recast: Recast | None = None
    """How its answers are given again; None: they never are."""
    accepts: tuple[bytes, ...] = (b"application/json",)
    """Media types of its requests. None at all is taken for the first."""

    def read(self, request: Request) -> Ask:
        """The caller's request. Raises `Invalid` with what is wrong with it."""
        raise NotImplementedError

    async def receive(self, request: Request) -> None:
        """As much of a form that is read while it arrives as `read` needs. Raises `Invalid`."""
        raise NotImplementedError

    def check_type(self, given: bytes | None) -> None:
        """Raise `WrongType` where the Content-Type is of something that is not read here."""
        if given is None or given in self.accepts or given.partition(b";")[0].strip().lower() in self.accepts:
            return
        wanted = " or ".join(each.decode("ascii") for each in self.accepts)
        raise WrongType(
            f"the body is not {wanted}",
            code="content_type",
            hint=f"Send Content-Type: {self.accepts[0].decode('ascii')}.",
        )

    def able(self, ask: Ask, deployments: tuple[Deployment, ...]) -> tuple[Deployment, ...]:  # noqa: ARG002
        """Those of the deployments that can take this request, one at least. Raises `Invalid` where none can."""
        return deployments

    def with_files(self, ask: Ask, files: Mapping[str, NamedFile]) -> Ask:
        """The same request with these files in the place of their ids. Raises `Invalid`."""
        raise NotImplementedError

    def stores(self, exchange: Exchange) -> bool:  # noqa: ARG002
        """Whether this call's answer is stored under an id of its own, so that it cannot be one that another got."""
        return False

    def late(self, ask: Ask, deployment: Deployment) -> Mapping[str, Container[str]]:  # noqa: ARG002
        """What decisive fields of a form may say behind its large files: the call is none that costs more by it."""
        return {}

    def complete(self, ask: Ask) -> Ask:
        """The same request, once a form that is read while it arrives was read to its end."""
        return ask

    def as_told(self, ask: Ask, events: tuple[bytes, ...]) -> tuple[bytes, ...]:  # noqa: ARG002
        """Events of an upstream's stream as other callers that ask the same may have them: without what was asked of
        the upstream for the workload, where it tells that back."""
        return events

    def unseal(self, ask: Ask, deployment: Deployment) -> bool:  # noqa: ARG002 -- the contract's signature
        """From now on this deployment is asked without reasoning that nobody but its maker can read; False: there is
        none, or it is already."""
        return False

    def notes(self, ask: Ask, deployment: Deployment) -> dict[str, object]:  # noqa: ARG002
        """Further fields of the `groundplan` object of an answer by `deployment`."""
        return {}

    def here(self, ask: Ask, deployments: list[Deployment]) -> bytes | None:  # noqa: ARG002
        """The answer of a surface that is not `billed`, where it is made here; None: a deployment is asked."""
        return None

    def counted(self, ask: Ask, deployment: Deployment) -> bytes:  # noqa: ARG002
        """The answer of a surface that is not `billed`, as it is estimated here for a deployment."""
        raise AssertionError("only models answer this")

    async def prepare(self, gateway: Gateway, exchange: Exchange) -> None:
        """Of a surface that `keeps`: complete a request that goes on with something kept."""

    async def keep(self, gateway: Gateway, exchange: Exchange, answer: bytes | Relay) -> None:
        """Of a surface that `keeps`: store a settled answer before its last byte is sent."""

    def codec(self, deployment: Deployment) -> Codec:
        """How this deployment is spoken to."""
        raise NotImplementedError

    def bound(self, ask: Ask, deployment: Deployment, added: int, cap: int) -> int:
        """The most that one attempt can cost (picodollars) when `added` bytes are put before the caller's own."""
        return self.estimate(ask, deployment, added, 0, cap)[1]

    def estimate(self, ask: Ask, deployment: Deployment, added: int, output_bytes: int, cap: int) -> tuple[Usage, int]:
        """Usage and cost where the upstream reported none. Never too little."""
        raise NotImplementedError

    def most_tokens(self, ask: Ask, deployment: Deployment, added: int, cap: int) -> int:
        """The most tokens that one attempt can have, prompt and answer."""
        usage, _ = self.estimate(ask, deployment, added, 0, cap)
        return usage.input + usage.output

    def cost(self, ask: Ask, deployment: Deployment, usage: Usage) -> int:
        """Picodollars of a `priced` surface's answer."""
        raise NotImplementedError

    def with_facts(self, data: bytes, facts: bytes) -> bytes:
        """A whole answer with the `groundplan` object in it."""
        return splice(data, b"groundplan", facts)

    def end_with_facts(self, data: bytes, facts: bytes) -> tuple[int, bytes]:
        """Of a large one: how many bytes of it stay, and what follows them."""
        return ending(data, b"groundplan", facts)

    def of_error(self, error: GroundplanError, call_id: str) -> tuple[int, bytes, bytes]:
        """(status, body, header lines) of an error in this surface's shape."""
        return answers.of_error(error, call_id)

    def in_stream(self, ask: Ask, status: int, error: bytes) -> bytes:  # noqa: ARG002 -- the contract's signature
        """An error in the place of an answer as the stream of a client that looks for it nowhere else; empty: it is
        told as any other."""
        return b""

    def of_upstream_refusal(self, data: bytes) -> bytes:
        """The body of an upstream's own 4xx for the client."""
        return answers.of_upstream_refusal(data)
