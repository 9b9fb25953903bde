"""GET /metrics on the gateway's port: for this machine and for holders of a token. Off the request path.

A request from another host, under another name, or passed on by a proxy, needs the operator's token or the one in
GROUNDPLAN_METRICS_TOKEN. `scrape` gathers the metrics.
"""

from __future__ import annotations

import socket
from ipaddress import ip_address

from groundplan.core.errors import Denied
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.http import errors
from groundplan.gateway.http.methods import WrongMethod
from groundplan.gateway.http.server import Request, Response
from groundplan.gateway.telemetry.exposition import CONTENT_TYPE, render
from groundplan.gateway.telemetry.scrape import MetricsScraper
from groundplan.gateway.telemetry.worker_families import gather_families

_LOCAL = ("127.0.0.1", "::1", "::ffff:127.0.0.1")
_FORWARDED = frozenset(
    {
        b"forwarded", b"via", b"x-real-ip", b"x-client-ip", b"true-client-ip", b"cf-connecting-ip",
        b"x-original-forwarded-for", b"x-envoy-external-address",
    }
)  # fmt: skip
_FORWARDED_PREFIX = b"x-forwarded-"
"""Headers by which a proxy says for whom it passes a request on: that client is not on this machine, or may not be."""


async def scrape(gateway: Gateway, request: Request, response: Response) -> None:
    """Answer GET /metrics."""
    scrapes = gateway.scrapes
    if request.method != b"GET":
        response.send(*errors.error_response(WrongMethod(b"GET")))
        return
    if not _allowed(scrapes, request, response):
        hint = (
            "Send the operator's token, or the one that GROUNDPLAN_METRICS_TOKEN refers to, as Authorization: Bearer."
        )
        error = Denied(
            "metrics are for this machine by its own name, or with a token", code="metrics_denied", hint=hint
        )
        response.send(*errors.error_response(error))
        return
    own = await gather_families(gateway)
    text = render([("", own)]) if scrapes is None else await scrapes.render_all(own)
    response.send(200, text, content_type=CONTENT_TYPE)


def _allowed(scrapes: MetricsScraper | None, request: Request, response: Response) -> bool:
    """Whether a request comes from this machine, under its own name and not through a proxy, or has a token."""
    scheme, _, bearer = request.headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer":
        return scrapes is not None and scrapes.admits(bearer.strip())
    local = response.peer_address in _LOCAL and not _was_passed_on(request)
    return local and _is_ours(request.headers.get(b"host", b""))


def _was_passed_on(request: Request) -> bool:
    """Whether a proxy passed the request on, as far as that can be told."""
    headers = request.headers
    return not _FORWARDED.isdisjoint(headers) or any(name.startswith(_FORWARDED_PREFIX) for name in headers)


def _is_ours(host: bytes) -> bool:
    """Whether a Host header names this machine: a web page that is open here may rebind its own name to this address,
    and could then read the answer."""
    text = host.decode("latin-1").lower()
    name = text.partition("]")[0][1:] if text.startswith("[") else text.partition(":")[0]
    try:
        return name in ("", "localhost", socket.gethostname().lower()) or ip_address(name).is_loopback
    except ValueError:
        return False
