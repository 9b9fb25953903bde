"""Limits on what one client, and all clients together, may make a server hold, and the type of a refusal. Values
only."""

from __future__ import annotations

from dataclasses import dataclass

FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds."""

    head_bytes: int = 32 << 10
    body_bytes: int = 20 << 20
    unknown_caller_body_bytes: int = 1 << 20
    """A longer body, or one without a length, is read only from known callers."""
    streamed_body_bytes: int = 512 << 20
    """A body that its handler reads while it arrives."""
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    body_bytes_per_second: int = 64 << 10
    """A body may take `body_seconds` plus the bytes received so far divided by this rate: a client that announces much
    and sends little is cut off after `body_seconds`."""
    idle_seconds: float = 930.0
    """How long an unused connection is kept: longer than a proxy in front keeps it, or the proxy may send a request
    just as the server closes it (Traefik 90 s, Caddy 120 s, Google's load balancers 600 s, Cloudflare 900 s)."""
    write_seconds: float = 60.0
    """How long a client may read nothing of the bytes that wait for it."""
    client_check_seconds: float = 10.0
    """How often the server checks that the client of an answer in progress is still connected."""
    linger_seconds: float = 5.0
    linger_bytes: int = 64 << 20
    """After the answer to a request that was not read to its end, further bytes are discarded for this long and up to
    this many: most clients look for the answer only when they have sent everything, and an early close would hide
    it."""
    sweep_seconds: float = 1.0
    total_body_bytes: int = 256 << 20
    """Bodies of all requests that are being read or answered, together."""
    large_body_bytes: int = 64 << 10
    """From this size on, a body counts towards its workload's share of `total_body_bytes`."""
    connections: int = 20_000
    """Beyond these, connections are closed at once."""
    drain_idle_seconds: float = 2.0
    """While draining, how long a connection that was promised to stay open may be idle, and how long TLS handshakes in
    progress are waited for."""
    write_buffer_bytes: int = 64 << 10


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the server itself answers a request; the connection ends after that answer."""

    status: int
    code: str
    message: str
    hint: str
    retry_after: int = 0
    """Seconds; 0: retrying does not help."""
