"""The refusals that the protocol itself answers with. When they apply is decided by `request_reader`."""

from __future__ import annotations

from groundplan.gateway.http.bounds import Limits, Refusal

MALFORMED = Refusal(400, "malformed_request", "the request is not valid HTTP/1.1", "Check the client or a proxy.")
TRAILER = Refusal(400, "trailer_unsupported", "a header follows the body", "Send all headers before the body.")
UPGRADE = Refusal(400, "upgrade_unsupported", "this server speaks HTTP/1.1 only", "Send no Upgrade header.")
NO_WEBSOCKET = Refusal(
    426, "upgrade_unsupported", "no WebSocket is spoken at this path",
    "Hold conversations at /v1/realtime; send anything else by HTTP, to the same path.",
)  # fmt: skip
"""Only on this status do clients that try WebSocket first (Codex at /v1/responses) fall back to HTTP."""
TOO_MANY_QUEUED = Refusal(
    400, "too_many_pipelined", "too many requests were sent without waiting for their answers",
    "Send the next request once an answer has come, or use several connections.",
)  # fmt: skip
AMBIGUOUS_LENGTH = Refusal(
    400, "ambiguous_length", "the length of the body is ambiguous", "Use Content-Length or chunked."
)
CHUNKED_HTTP10 = Refusal(400, "ambiguous_length", "only HTTP/1.1 has chunked bodies", "Use Content-Length.")
HOST_MISSING = Refusal(400, "host_missing", "the Host header is missing", "Send HTTP/1.1 with Host.")
NOT_A_PROXY = Refusal(405, "method_not_allowed", "this is no proxy", "Send a POST request to a path.")
BODY_FRAMING = Refusal(400, "malformed_request", "the body has no end that could be found", "Send larger chunks.")
TIMEOUT = Refusal(408, "request_timeout", "the request did not arrive in time", "Send it without pauses.")
COMPRESSED_BODY = Refusal(415, "body_compressed", "compressed bodies are not read", "Send it without Content-Encoding.")
UNKNOWN_CALLER = Refusal(
    401, "invalid_api_key", "a large body is read of callers with a key that is known",
    "Send `Authorization: Bearer gp_...`; make a key with `groundplan keys create`.",
)  # fmt: skip
MEMORY_FULL = Refusal(
    503, "memory_full", "the bodies of running requests are all that is held at once",
    "Try again in a second; the last of the room is for workloads of a higher `reliability.priority`.", 1,
)  # fmt: skip


def duplicate_header(name: bytes) -> Refusal:
    """Refusal of a header that may be present only once."""
    return Refusal(400, "duplicate_header", f"{name.decode('ascii')} is given twice", "Send it once.")


def too_many_header_lines(limit: int) -> Refusal:
    """`limit`: header lines of one request."""
    return Refusal(431, "headers_too_large", f"the head has more than {limit} lines", "Send fewer headers.")


def too_large_head(limits: Limits) -> Refusal:
    message = f"the head is larger than {limits.head_bytes} bytes"
    return Refusal(431, "headers_too_large", message, "Send fewer or shorter headers.")


def too_large_body(limit: int) -> Refusal:
    """`limit`: bytes of such a body."""
    return Refusal(413, "body_too_large", f"the body is larger than {limit} bytes", "Send a smaller request.")
