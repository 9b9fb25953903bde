"""The translation service: serves OpenAI's API on loopback and calls other providers through their own APIs.

`python -m groundplan.gateway.translate_app --home HOME`. It announces itself as `translate`. The gateway names the
target with each request, secrets only by reference. Nothing is retried, cached, priced or counted here.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import resource
import secrets
import signal
import sys
import threading
from pathlib import Path

import msgspec

from groundplan.core import logs
from groundplan.core.endpoints import announce_retrying, withdraw
from groundplan.core.errors import GroundplanError
from groundplan.core.home import Home
from groundplan.core.settings import clear_proxies, hide_provider_variables
from groundplan.gateway.call.delivery.to_client import EVENT_STREAM
from groundplan.gateway.http.errors import error_body, error_response, error_type, refusal_body
from groundplan.gateway.http.server import Request, Response, Server
from groundplan.gateway.upstream.dial import resolver_of
from groundplan.gateway.upstream.providers import SERVICE, TARGET_HEADER, ProviderTarget, decode_target
from groundplan.gateway.upstream.translation.blocking_clients import LoopThreadPool
from groundplan.gateway.upstream.translation.failures import ProviderFailure
from groundplan.gateway.upstream.translation.translate import ProviderClients

MEMORY_BYTES = 3 << 30
"""Memory limit of the service. The providers' clients read and decode a whole answer, however large it is: above the
limit the call fails, and the machine does not run out of memory."""
_STACK_BYTES = 2 << 20
"""Stack size of each thread, which counts towards the limit."""
_log = logging.getLogger(__name__)
_TRACE = ("traceparent", "tracestate", "x-request-id")
"""Headers that are passed on to the provider."""


class Service:
    """The request handler. `token`: the one that the gateway must send."""

    def __init__(self, providers: ProviderClients, token: str) -> None:
        self._providers = providers
        self._authorization = f"Bearer {token}".encode()

    async def handle(self, request: Request, response: Response) -> None:
        if not secrets.compare_digest(request.headers.get(b"authorization", b""), self._authorization):
            response.send(401, error_body("the announced token is needed", "unauthenticated", "", "api_error"))
            return
        path = request.target.partition(b"?")[0]
        try:
            target = decode_target(request.headers.get(TARGET_HEADER, b""))
        except msgspec.DecodeError:
            response.send(400, error_body("no deployment is named", "target_missing", "", "api_error"))
            return
        try:
            await self._answer(path, target, request, response)
        except ProviderFailure as failure:
            self._send_failure(response, failure)
        except GroundplanError as error:
            status, _, lines = error_response(error)
            body = error_body(error.message, error.code, error.hint, error_type(error), **error.details)
            response.send(503 if status < 500 else status, body, lines)  # the gateway makes its own error from it

    async def _answer(self, path: bytes, target: ProviderTarget, request: Request, response: Response) -> None:
        trace = {name: value.decode("latin-1") for name in _TRACE if (value := request.headers.get(name.encode()))}
        if path.endswith(b"/chat/completions"):
            answer = await self._providers.chat(target, request.body, trace)
            if isinstance(answer, bytes):
                response.send(200, answer)
                return
            async for chunk in answer:  # a failure before the first chunk is answered by its status
                head = b"" if response.started else response.start(200, EVENT_STREAM)
                response.write(b"data: %b\n\n" % chunk, head)
                if response.is_write_paused:
                    await response.drain()
            head = b"" if response.started else response.start(200, EVENT_STREAM)
            response.end(b"data: [DONE]\n\n", head)
        elif path.endswith(b"/embeddings"):
            response.send(200, await self._providers.embed(target, request.body, trace))
        else:
            response.send(404, error_body("there is no such path", "path_unknown", "", "api_error"))

    def _send_failure(self, response: Response, failure: ProviderFailure) -> None:
        if response.started:
            response.end(b"data: %b\n\n" % failure.body)
            return
        lines = b""
        if failure.retry_after is not None and failure.retry_after.isascii() and failure.retry_after.isprintable():
            lines = b"retry-after: %b\r\n" % failure.retry_after.encode("ascii")
        response.send(failure.status, failure.body, lines)


async def serve(home: Home, drain_seconds: float) -> None:
    """Serve on a free port of 127.0.0.1 until SIGTERM or SIGINT, then finish running answers, for at most
    `drain_seconds`. Raises `Unavailable` without the library."""
    token, loop = secrets.token_urlsafe(32), asyncio.get_running_loop()
    loop.set_default_executor(LoopThreadPool())
    loop.getaddrinfo = resolver_of(loop).getaddrinfo  # type: ignore[method-assign]
    providers = ProviderClients()
    server = Server(Service(providers, token).handle, refusal_body, loop)
    listener = await loop.create_server(server.create_connection, "127.0.0.1", 0, backlog=256)
    stopped, stop = threading.Event(), asyncio.Event()
    announce_retrying(home, SERVICE, f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}", token, stopped)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    _log.info("other providers are reached from here")
    try:
        await stop.wait()
    finally:
        stopped.set()
        withdraw(home, SERVICE)
        listener.close()
        await server.drain(drain_seconds)
        await providers.close()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m groundplan.gateway.translate_app")
    parser.add_argument("--home", required=True, type=Path)
    parser.add_argument("--drain", type=float, default=5.0)
    arguments = parser.parse_args(argv)
    logs.configure(SERVICE)
    clear_proxies()
    hide_provider_variables()
    threading.stack_size(_STACK_BYTES)
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))  # each call takes two
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    most = MEMORY_BYTES if most == resource.RLIM_INFINITY else min(most, MEMORY_BYTES)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    try:
        asyncio.run(serve(Home(arguments.home.absolute()), arguments.drain))
    except GroundplanError as error:
        sys.stderr.write(f"translate: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
