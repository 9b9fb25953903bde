"""Gets the embedding of a question from the local search service, for learned routers that use it.

Only for calls that leave the choice to such a router. Where the service does not answer at once, the router decides by
the words alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from groundplan.gateway.call.search_client import ask_search
from groundplan.gateway.stalls import patient
from groundplan.gateway.upstream.connection import UpstreamFailure
from groundplan.knowledge.embedding.wire import PATH, embed_answer, embed_request

if TYPE_CHECKING:
    from groundplan.blueprint.model import Workload
    from groundplan.gateway.call.ask import Ask
    from groundplan.gateway.call.context import Gateway
    from groundplan.gateway.call.exchange import Exchange

SECONDS = 0.1
"""The longest that a call waits for the embedding."""


async def read_question(gateway: Gateway, exchange: Exchange, workload: Workload, ask: Ask) -> None:
    """Set the `question_vector` of the call, where its router uses one and it is available in time."""
    routing = workload.routing
    if routing is None or routing.router is None or not workload.is_routed(ask.model) or not ask.query:
        return
    router = gateway.routes.router(routing.router, routing.digest)
    if router is None or router.full is None:
        return
    import numpy as np  # noqa: PLC0415 -- heavy, only where it is used

    from groundplan.economics.routing.decide.predict import text_to_embed  # noqa: PLC0415 -- numpy

    try:
        async with patient(SECONDS):
            text = text_to_embed(ask.query, router)
            question = embed_request([text], questions=True, most=router.tokens, layers=router.layers)
            body = await ask_search(gateway, question, exchange.id, PATH)
        (vector,) = embed_answer(body, 1).vectors
    except (UpstreamFailure, TimeoutError, msgspec.DecodeError, UnicodeDecodeError):
        gateway.targets.forget("search")
        return
    exchange.question_vector = np.frombuffer(vector, dtype="<f4").astype(np.float32)
