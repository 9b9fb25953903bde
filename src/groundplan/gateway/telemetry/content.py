"""What of a call is kept: its prompt and its answer, where its workload keeps them. `content_link` passes them on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from groundplan.blueprint.model import Workload
from groundplan.gateway.telemetry.content_link import Content, chosen

if TYPE_CHECKING:
    from groundplan.gateway.call.context import Gateway
    from groundplan.gateway.call.exchange import Exchange


def begin(exchange: Exchange, workload: Workload) -> None:
    """From here on what is sent to the client is remembered, where its workload keeps it and it was chosen."""
    if workload.keep is not None and exchange.sent_chunks is None and chosen(workload.keep, exchange.id_bytes):
        exchange.sent_chunks = []


def offer(gateway: Gateway, exchange: Exchange) -> None:
    """Send what a call asked and was answered, where its workload keeps it and it was chosen."""
    workload, kept = exchange.workload, exchange.sent_chunks
    keep = workload.keep if workload is not None else None
    if workload is None or kept is None or keep is None or not chosen(keep, exchange.id_bytes):
        return
    if gateway.content_sender is None:
        gateway.meters.content_lost += 1
        return
    gateway.content_sender.send(
        Content(
            call=exchange.id_bytes,
            at=int(gateway.clock.now().timestamp() * 1000),
            workload=workload.name,
            person=exchange.person or (exchange.key.id if exchange.key is not None else ""),
            kind=keep.content,
            seconds=keep.seconds,
            prompt=exchange.request.body,
            answer=b"".join(kept),
        )
    )
