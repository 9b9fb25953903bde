"""Keeps the prompt and the answer of a call, where its workload keeps content. `content_link` sends them on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from groundplan.blueprint.model import Workload
from groundplan.gateway.telemetry.content_link import Content, is_sampled

if TYPE_CHECKING:
    from groundplan.gateway.call.context import Gateway
    from groundplan.gateway.call.exchange import Exchange


def start_collecting(exchange: Exchange, workload: Workload) -> None:
    """Start to collect what is sent to the client, where the workload keeps content and the call is in the sample."""
    if workload.keep is not None and exchange.sent_chunks is None and is_sampled(workload.keep, exchange.id_bytes):
        exchange.sent_chunks = []


def send_content(gateway: Gateway, exchange: Exchange) -> None:
    """Send the prompt and the answer of a call, where its workload keeps content and the call is in the sample."""
    workload, kept = exchange.workload, exchange.sent_chunks
    keep = workload.keep if workload is not None else None
    if workload is None or kept is None or keep is None or not is_sampled(keep, exchange.id_bytes):
        return
    if gateway.content_sender is None:
        gateway.call_counters.content_lost += 1
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
