"""Sends an uploaded form on to an upstream while it arrives. How it is read and rewritten is in `surfaces.upload`."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Container
from typing import TYPE_CHECKING

from groundplan.gateway.call import settle
from groundplan.gateway.http.body_stream import HIGH_WATER
from groundplan.gateway.upstream.connection import UpstreamConnection, UpstreamFailure
from groundplan.gateway.upstream.http1 import Http1Connection

if TYPE_CHECKING:
    from groundplan.gateway.call.context import Gateway
    from groundplan.gateway.call.exchange import Exchange
    from groundplan.gateway.surfaces.upload import Upload
    from groundplan.gateway.upstream.targets import Target

_WRITE_SECONDS = 30.0


async def send_upload(upload: Upload, exchange: Exchange, target: Target, connection: UpstreamConnection) -> float:
    """Send a form on as it arrives; returns the seconds that took. Until its end is sent, nothing of it can be billed.

    Raises `UpstreamFailure` for the upstream, `GroundplanError` for the client, which the caller settles with
    `settle_unsent`.
    """
    deployment, ask = exchange.deployment, exchange.ask
    if deployment is None or ask is None or not isinstance(connection, Http1Connection):
        raise UpstreamFailure("refused", "uploads go over HTTP/1.1 only", sent=False)
    now = asyncio.get_running_loop().time
    began = now()
    boundary = b"groundplan-%b" % secrets.token_hex(12).encode("ascii")
    name = b"%b-%d" % (exchange.id, exchange.attempt_number)
    lines = b"" if exchange.trace is None else exchange.trace.upstream(exchange.call, exchange.attempt_number)
    path = exchange.interface.codec(deployment).path(deployment)
    connection.send(target.upload_head(path, b"multipart/form-data; boundary=%b" % boundary, name, lines))
    connection.is_request_incomplete = True
    names = {deployment.name, deployment.model, "auto"}
    if exchange.workload is not None:
        names.update((exchange.workload.name, *exchange.workload.aliases))
    may: dict[str, Container[str]] = {"model": names, **exchange.interface.allowed_late_fields(ask, deployment)}
    if exchange.guard is not None:
        may["stream"] = ("false",)  # guardrails were set up for a request without a stream
    async for piece in upload.pieces(deployment.upstream_model, boundary, may):
        if connection.status or connection.lost:
            break  # the upstream has answered already, which is read next
        if upload.passed_on:
            exchange.response.resize_reservation(exchange.request, HIGH_WATER)
        if piece:
            connection.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            await connection.drain(_WRITE_SECONDS)
    else:
        exchange.attempt_sent = True
        connection.send(b"0\r\n\r\n")
        connection.is_request_incomplete = False
        exchange.ask = exchange.interface.complete_form(ask)
    return now() - began


def settle_unsent(gateway: Gateway, exchange: Exchange) -> None:
    """Settle an attempt whose form the client broke off: a part of a form is no request, so nothing is billed."""
    if exchange.attempt_started and not exchange.attempt_sent:
        settle.attempt(gateway, exchange, "not_billed", 0, None)
