"""W3C trace context: what a caller sends, and what goes on to the upstream. Pure.

Ids of our own spans are derived from the call's, so that readers of the journal compute the same ones later. Spans are
made by `telemetry.spans`; nothing is sampled here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import blake2b
from uuid import UUID

STATE_LIMIT = 512
"""Longest `tracestate` that is passed on, in bytes."""
_MEMBERS = 32
"""The most members of a `tracestate`."""
_PARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_DEFINED_FLAGS = 0x03
"""`sampled` and `random-trace-id`: the standard has a sender clear all others, which a later version may define."""
_MEMBER = re.compile(
    rb"(?:[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
    rb"=[ -+\--<>-~]{0,255}[!-+\--<>-~]"
)


@dataclass(frozen=True, slots=True)
class Trace:
    """`parent` is the caller's `traceparent` in the form of version 00; `state` its `tracestate`, maybe empty."""

    parent: str
    state: bytes

    def upstream(self, call: UUID, attempt: int) -> bytes:
        """Header lines for the upstream, whose parent is the span of this attempt."""
        name = f"traceparent: {self.parent[:36]}{attempt_span(call, attempt).hex()}{self.parent[52:]}\r\n".encode()
        return name + b"tracestate: %b\r\n" % self.state if self.state else name

    def onwards(self) -> dict[str, str]:
        """The headers as they came, for an upstream connection that belongs to no single attempt."""
        state = {"tracestate": self.state.decode("ascii")} if self.state else {}
        return {"traceparent": self.parent, **state}


def trace_of(headers: dict[bytes, bytes]) -> Trace | None:
    """The trace context of a request; None where it has none that is valid."""
    traced = headers.get(b"traceparent")
    return None if traced is None else parse_trace(traced, headers.get(b"tracestate"))


def parse_trace(parent: bytes, state: bytes | None) -> Trace | None:
    """Parse the caller's headers; None where `traceparent` is malformed, as the standard requires. A malformed
    `tracestate` is left out as a whole."""
    found = _PARENT.fullmatch(parent.strip())
    if found is None:
        return None
    version, trace, span, flags, rest = found.groups()
    if version == b"ff" or (version == b"00" and rest) or not trace.strip(b"0") or not span.strip(b"0"):
        return None
    known = int(flags, 16) & _DEFINED_FLAGS
    return Trace(f"00-{trace.decode()}-{span.decode()}-{known:02x}", _valid_state(state or b""))


def _valid_state(state: bytes) -> bytes:
    """The `tracestate` to pass on; empty where it is malformed or too long."""
    members = [member for each in state.split(b",") if (member := each.strip(b" \t"))]
    if len(state) > STATE_LIMIT or len(members) > _MEMBERS or not all(map(_MEMBER.fullmatch, members)):
        return b""
    return b",".join(members)


def call_span(call: UUID) -> bytes:
    """Id of the span of a whole call, 8 bytes."""
    return _id(call, b"call")


def step_span(call: UUID, step: str, time: int) -> bytes:
    """Id of the span of one step, taken for the `time`th time: a cache is read twice, a tool called any number of
    times."""
    return _id(call, b"step " + step.encode() if time == 1 else b"step %d %b" % (time, step.encode()))


def attempt_span(call: UUID, attempt: int) -> bytes:
    """Id of the span of one attempt."""
    return _id(call, b"attempt %d" % attempt)


def _id(call: UUID, what: bytes) -> bytes:
    return blake2b(what, digest_size=8, key=call.bytes).digest()
