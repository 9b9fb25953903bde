"""The contract of an API surface: for one endpoint, how requests are read, bounded in cost, sent on and answered.

A surface is one `Interface` value. A `Codec` translates its requests and answers for one kind of upstream; a `Relay`
holds the state of one stream. All three are pure: bytes and facts in, bytes and facts out. Routing, money, the journal
and waiting belong to the pipeline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from groundplan.blueprint.model import Deployment
from groundplan.core.errors import GroundplanError, WrongType
from groundplan.gateway.http import errors
from groundplan.gateway.http.sse import append_field, split_for_field
from groundplan.gateway.surfaces.codec import Codec
from groundplan.ledger.model import Usage

if TYPE_CHECKING:
    from collections.abc import Container, Mapping
    from pathlib import Path

    from groundplan.gateway.caching.replay_forms import ReplayForms
    from groundplan.gateway.call.ask import Ask
    from groundplan.gateway.http.server import Request
    from groundplan.gateway.surfaces.file_references import NamedFile


class Interface:
    """One endpoint. Subclasses say how its requests are read and bounded; the defaults are OpenAI's."""

    name: str
    """The endpoint's name in the ledger: `chat.completions`, `embeddings`, ..."""
    deployment_kind: str = "chat"
    """The kind of deployment that can serve this endpoint."""
    grounded: bool = False
    """Whether passages of the workload's sources are put into the prompt."""
    filters_deployments: bool = False
    """Whether some deployments cannot serve every request; `eligible_deployments` then returns those that can."""
    has_extra_facts: bool = False
    """Whether `extra_facts` adds fields to the `groundplan` object of an answer of which nothing is left out."""
    has_custom_cost: bool = False
    """Whether the price depends on more than tokens; `cost` then returns what an answer costs."""
    caps_output: bool = False
    """Whether upstreams are sent a cap on the tokens of an answer; it holds for each copy of the answer."""
    can_store_answers: bool = False
    """Whether answers may be stored, so that a later request can continue them: see `call.stored_answers`."""
    may_answer_unstreamed: bool = False
    """Whether an upstream may send one whole answer to a request for a stream, as models do that cannot stream."""
    depends_on_body_only: bool = False
    """Whether equal bodies make equal requests: no header or path decides anything."""
    is_billed: bool = True
    """Whether answers cost anything."""
    id_header: bytes = b"x-request-id"
    """The response header in which clients of this API look for the request id."""
    uses_anthropic_headers: bool = False
    """Whether clients look for the remaining rate limits in headers with Anthropic's names."""
    via_chat: Codec | None = None
    """The codec that serves this surface through an upstream's chat completions; None where that is impossible."""
    replay_forms: ReplayForms | None = None
    """How a cached answer is replayed; None: answers are never replayed."""
    accepts: tuple[bytes, ...] = (b"application/json",)
    """Accepted media types of requests. A request without a Content-Type is taken to have the first one."""

    def read(self, request: Request) -> Ask:
        """The request as an `Ask`. Raises `Invalid` with what is wrong with it."""
        raise NotImplementedError

    async def receive(self, request: Request, folder: Path) -> None:
        """Receive as much of a form upload as `read` needs, large files into `folder`; the rest is read while it is
        sent on. Raises `Invalid`, `Unavailable`."""
        raise NotImplementedError

    def check_content_type(self, content_type: bytes | None) -> None:
        """Raise `WrongType` where the Content-Type is none of those accepted."""
        if content_type is None or content_type in self.accepts:
            return
        if content_type.partition(b";")[0].strip().lower() in self.accepts:
            return
        wanted = " or ".join(each.decode("ascii") for each in self.accepts)
        raise WrongType(
            f"the body is not {wanted}",
            code="content_type",
            hint=f"Send Content-Type: {self.accepts[0].decode('ascii')}.",
        )

    def eligible_deployments(self, ask: Ask, deployments: tuple[Deployment, ...]) -> tuple[Deployment, ...]:  # noqa: ARG002
        """The deployments that can serve this request, at least one. Raises `Invalid` where none can."""
        return deployments

    def with_files(self, ask: Ask, files: Mapping[str, NamedFile]) -> Ask:
        """The request with file contents in place of file ids. Raises `Invalid`."""
        raise NotImplementedError

    def allowed_late_fields(self, ask: Ask, deployment: Deployment) -> Mapping[str, Container[str]]:  # noqa: ARG002
        """Form field -> values that it may have after the large files, when the call is reserved already: those that
        cannot raise the cost above the reservation."""
        return {}

    def complete_form(self, ask: Ask) -> Ask:
        """The request once its form, which is read while it is sent on, was read to the end."""
        return ask

    def shareable_events(self, ask: Ask, events: tuple[bytes, ...]) -> tuple[bytes, ...]:  # noqa: ARG002
        """The events of an upstream's stream for other callers with the same request: without what the gateway added to
        the request for the workload, where the upstream echoes it."""
        return events

    def drop_sealed_reasoning(self, ask: Ask, deployment: Deployment) -> bool:  # noqa: ARG002 -- the contract's signature
        """Leave sealed reasoning, which only the deployment that made it can read, out of later requests to this
        deployment. False: the request has none, or it is left out already."""
        return False

    def extra_facts(self, ask: Ask, deployment: Deployment) -> dict[str, object]:  # noqa: ARG002 -- for subclasses
        """Further fields for the `groundplan` object of an answer by `deployment`."""
        return {"left_out": sorted(ask.left_out)} if ask.left_out else {}

    def local_answer(self, ask: Ask, deployments: list[Deployment]) -> bytes | None:  # noqa: ARG002
        """The answer where the gateway makes it itself; None: a deployment is asked. Only where not `is_billed`."""
        return None

    def estimated_count(self, ask: Ask, deployment: Deployment) -> bytes:  # noqa: ARG002
        """The gateway's own estimate as an answer, for a deployment that does not count. Only where not `is_billed`."""
        raise AssertionError("only models answer this")

    def codec(self, deployment: Deployment) -> Codec:
        """The codec for this deployment."""
        raise NotImplementedError

    def cost_bound(self, ask: Ask, deployment: Deployment, added: int, cap: int) -> int:
        """The most that one attempt can cost, in picodollars, with `added` bytes put before the caller's own."""
        return self.estimate(ask, deployment, added, 0, cap)[1]

    def estimate(self, ask: Ask, deployment: Deployment, added: int, output_bytes: int, cap: int) -> tuple[Usage, int]:
        """Usage and cost (picodollars) where the upstream reported none. Never too little."""
        raise NotImplementedError

    def token_bound(self, ask: Ask, deployment: Deployment, added: int, cap: int) -> int:
        """The most tokens that one attempt can use, prompt and answer together."""
        usage, _ = self.estimate(ask, deployment, added, 0, cap)
        return usage.input + usage.output

    def cost_and_token_bounds(self, ask: Ask, deployment: Deployment, added: int, cap: int) -> tuple[int, int]:
        """`cost_bound`, and `token_bound` where it takes no extra work to find, else 0."""
        return self.cost_bound(ask, deployment, added, cap), 0

    def cost(self, ask: Ask, deployment: Deployment, usage: Usage) -> int:
        """Picodollars of an answer where `has_custom_cost`."""
        raise NotImplementedError

    def with_facts(self, data: bytes, facts: bytes) -> bytes:
        """A whole answer with the `groundplan` object spliced in."""
        return append_field(data, b"groundplan", facts)

    def end_with_facts(self, data: bytes, facts: bytes) -> tuple[int, bytes]:
        """The same for a large answer, which is not copied: how many of its bytes to send, and what to send next."""
        return split_for_field(data, b"groundplan", facts)

    def error_response(self, error: GroundplanError, call_id: str) -> tuple[int, bytes, bytes]:
        """(status, body, header lines) of an error in this API's shape."""
        return errors.error_response(error, call_id)

    def error_event(self, ask: Ask, status: int, error: bytes) -> bytes:  # noqa: ARG002 -- the contract's signature
        """An error as a stream of status 200, for clients that look for it nowhere else; empty: it is sent as any
        other error."""
        return b""

    def upstream_refusal_body(self, status: int, data: bytes, call_id: str) -> bytes:  # noqa: ARG002 -- as above
        """An upstream's own 4xx body in this API's shape."""
        return errors.upstream_error_body(data, status)
