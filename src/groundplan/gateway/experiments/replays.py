"""`POST /api/replay`: a kept call asked again of another deployment, and both answers compared; for the control plane.

It comes with a key that only the control process has, which is the workload's, ends soon and has the run's budget. What
is asked again is a call like any other, for the person that it is made for; nothing of its text is in the answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import msgspec

from groundplan.core.errors import Denied, Invalid
from groundplan.economics.experiment.model import Experiment
from groundplan.economics.experiment.verdict import CANDIDATE
from groundplan.gateway.experiments import shadow_call
from groundplan.gateway.experiments.assign import SHADOWED
from groundplan.gateway.experiments.compare import NOT_COMPARED, compare, text_of
from groundplan.gateway.experiments.shadow import second
from groundplan.gateway.experiments.trial import Mark
from groundplan.gateway.surfaces.chat.surface import CHAT
from groundplan.gateway.surfaces.messages.surface import MESSAGES

if TYPE_CHECKING:
    from groundplan.gateway.call.context import Gateway
    from groundplan.gateway.http.server import Request
    from groundplan.gateway.policy.snapshot import KeyEntry

PURPOSE = "replay"
"""Of the keys that are good for it."""
_SURFACES = {"chat.completions": CHAT, "messages": MESSAGES}
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=63)]


class ReplayBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to ask again, of whom, and the answer that was given."""

    run: UUID
    call: UUID
    endpoint: str
    body: dict[str, Any]
    answer: str
    candidate: _Name
    judge: _Name


class Replayed(msgspec.Struct, frozen=True):
    """What came of it. Amounts are picodollars; `code` says why there is no answer, or no judgement."""

    call: str
    answered: bool
    basis: str
    score: float | None
    contradicted: bool
    cost: int
    judge_cost: int
    code: str = ""
    said: str | None = None
    """As of `Comparison`."""


async def replayed(gateway: Gateway, request: Request, key: KeyEntry) -> tuple[int, bytes]:
    """(status, JSON). Raises `Denied`, `Invalid`, `DecodeError`."""
    if key.purpose != PURPOSE:
        hint = "`groundplan experiments replay` makes such a key by itself."
        raise Denied("this key is not for replaying calls", code="key_purpose", hint=hint)
    asked = msgspec.json.decode(request.body, type=ReplayBody)
    if asked.endpoint not in SHADOWED:
        hint = f"One of: {', '.join(sorted(SHADOWED))}."
        raise Invalid(f"calls of {asked.endpoint[:40]} are not replayed", code="replay_endpoint", hint=hint)
    tried = Experiment(
        id=str(asked.run), name="replay", workload=key.workload, type="replay", candidate=asked.candidate,
        judge=asked.judge,
    )  # fmt: skip
    mark = Mark(tried.id, tried.name, CANDIDATE, of=str(asked.call))
    what = shadow_call.ShadowPurpose(tried, shadow_call.REPLAY, mark, None)
    body = second(msgspec.json.encode(asked.body), asked.candidate)
    own = await shadow_call.ask(gateway, request.headers, _SURFACES[asked.endpoint], body, what)
    answered = own.status == "ok" and own.ask is not None
    found = NOT_COMPARED
    if answered and own.ask is not None:
        told, was = text_of(own.response.body), asked.answer  # type: ignore[attr-defined]  # Collected
        if own.guard is not None:  # what was masked before one model is not shown to another
            told, was = own.guard.masks.remask(told), own.guard.check_reused_answer(was)
        judging = shadow_call.ShadowPurpose(tried, shadow_call.JUDGE, mark, None, bare=True)
        found = await compare(gateway, request.headers, own.ask.query, was, told, judging)
    result = Replayed(
        str(own.call), answered, found.basis, found.score, found.contradicted, own.cost, found.cost,
        found.code if answered else own.error_code, found.said,
    )  # fmt: skip
    return 200, msgspec.json.encode(result)
