"""What one client, and all together, may make a server hold, and how it words a refusal. Numbers and words only."""

from __future__ import annotations

from dataclasses import dataclass

FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds."""

    head: int = 32 << 10
    body: int = 20 << 20
    stranger: int = 1 << 20
    """A longer body, or one without a length, is read of callers who are known."""
    streamed: int = 512 << 20
    """A body that is handed on while it arrives."""
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    body_bytes_per_second: int = 64 << 10
    """A body may take `body_seconds`, plus what came of it so far over this rate: one that announces much and sends
    little ends with the former."""
    idle_seconds: float = 930.0
    """How long a connection is kept that nobody uses: longer than whoever is in front keeps his, or he may send a
    request just as it is closed (Traefik 90 s, Caddy 120 s, Google's load balancers 600 s, Cloudflare 900 s)."""
    write_seconds: float = 60.0
    """How long a client may take nothing of what waits for it."""
    look_seconds: float = 10.0
    """How often it is looked whether the client of an answer that goes on is still there."""
    linger_seconds: float = 5.0
    linger_bytes: int = 64 << 20
    """After the answer to a request that is not read to its end, what still comes is thrown away for so long and so
    much: most clients look for the answer when they have sent everything, and a close before that would hide it."""
    sweep_seconds: float = 1.0
    held: int = 256 << 20
    """Bodies of requests that are being read or answered, all together."""
    large: int = 64 << 10
    """Of a body from which on it counts as one of whoever sends it."""
    connections: int = 20_000
    """More are closed at once."""
    quiet_seconds: float = 2.0
    """While draining, how long a connection that was promised to stay open may be idle."""
    write_buffer: int = 64 << 10


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is answered by the server itself; the connection ends after it."""

    status: int
    code: str
    message: str
    hint: str
    retry_after: int = 0
    """Seconds; 0: trying again does not help."""
