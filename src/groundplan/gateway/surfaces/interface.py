"""The contract of an API surface: what callers send, what upstreams get, and what goes back, for one endpoint.

A surface is one `Interface` value; how it is spoken to a deployment is a `Codec`, a whole stream of it a `Relay`. They
are pure: bytes and facts in, bytes and facts out. Routing, money, the journal and waiting are the pipeline's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import GroundplanError, WrongType
from groundplan.gateway.http import errors
from groundplan.gateway.http.sse import ending, splice
from groundplan.gateway.surfaces.codec import Codec
from groundplan.ledger.model import Usage

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from groundplan.gateway.caching.replay_forms import ReplayForms
    from groundplan.gateway.call.ask import Ask
    from groundplan.gateway.http.server import Request
    from groundplan.gateway.surfaces.file_references import NamedFile


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
    """Whether its answers may be stored, to be gone on with: `call.stored_answers`."""
    may_answer_whole: bool = False
    """Whether an upstream may answer whole where a stream was asked for, as models do that stream nothing."""
    by_body: bool = False
    """Whether what a request asks is read from its body alone."""
    billed: bool = True
    """Whether its answers cost anything."""
    id_header: bytes = b"x-request-id"
    """Under which its clients look for the id of a request."""
    anthropics: bool = False
    """Whether its clients look for what is left of limits under Anthropic's names."""
    via_chat: Codec | None = None
    """How an upstream of chat completions is spoken to, where this surface can give what that says."""
    replay_forms: ReplayForms | None = None
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

    def most(self, ask: Ask, deployment: Deployment, added: int, cap: int) -> tuple[int, int]:
        """`bound`, and `most_tokens` where those are found on the way; 0 where not."""
        return self.bound(ask, deployment, added, cap), 0

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
        return errors.of_error(error, call_id)

    def in_stream(self, ask: Ask, status: int, error: bytes) -> bytes:  # noqa: ARG002 -- the contract's signature
        """An error in the place of an answer as the stream of a client that looks for it nowhere else; empty: it is
        told as any other."""
        return b""

    def of_upstream_refusal(self, data: bytes) -> bytes:
        """The body of an upstream's own 4xx for the client."""
        return errors.of_upstream_refusal(data)
