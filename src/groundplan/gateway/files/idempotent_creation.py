"""`Idempotency-Key` for requests that call no model: a batch or a file is created once, and returned again for the same
request with the same key. Keys are stored in PostgreSQL with what was created; those of calls are handled in `caching`.
"""

from __future__ import annotations

import hashlib

from groundplan.core.errors import Conflict
from groundplan.gateway.caching.idempotency import IDEMPOTENCY_KEY, key_digest
from groundplan.gateway.files.creation_key_store import CreationKey
from groundplan.gateway.http.server import Request
from groundplan.gateway.policy.snapshot import KeyEntry

REPLAY_HEADER = b"groundplan-replay: true\r\n"
"""The header line of an answer that returns what was created before."""


class IdempotentCreation:
    """The idempotency key of one request: `add` the request's content as it arrives, then read `key`."""

    def __init__(self, request: Request, path: bytes, key: KeyEntry, person: str) -> None:
        """Raises `Invalid`."""
        named = request.headers.get(IDEMPOTENCY_KEY)
        self.digest = None if named is None else key_digest(named, key.family or key.id, person)
        """Digest of the key and its caller; None where the request has no key."""
        self._request_hash = hashlib.sha256(path)

    def add(self, data: bytes) -> None:
        """Hash a piece of the request."""
        if self.digest is not None:
            self._request_hash.update(data)

    @property
    def key(self) -> CreationKey | None:
        """The key to store; None where the request has none."""
        return None if self.digest is None else CreationKey(self.digest, self._request_hash.digest())


def deleted_since() -> Conflict:
    """The refusal of a key whose batch or file was deleted."""
    return Conflict(
        "what was made for this Idempotency-Key is deleted", code="idempotency_replayed", hint="Use a new key."
    )
