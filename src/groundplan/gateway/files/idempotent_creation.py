"""`Idempotency-Key` where no model is called: a batch or a file is made once, and returned again to whoever sends the
same request with the same key. Kept in PostgreSQL with what was made; how keys of calls are kept is `caching`'s.
"""

from __future__ import annotations

import hashlib

from groundplan.core.errors import Conflict
from groundplan.gateway.caching.idempotency import IDEMPOTENCY_KEY, key_digest
from groundplan.gateway.files.creation_key_store import OrderKey
from groundplan.gateway.http.server import Request
from groundplan.gateway.policy.snapshot import KeyEntry

AGAIN = b"groundplan-replay: true\r\n"
"""The header of what was made before."""


class IdempotentCreation:
    """The key of one request: `take` what is asked as it comes, then ask for its `key`."""

    def __init__(self, request: Request, path: bytes, key: KeyEntry, person: str) -> None:
        """Raises `Invalid`."""
        named = request.headers.get(IDEMPOTENCY_KEY)
        self.digest = None if named is None else key_digest(named, key.family or key.id, person)
        """Of the key with its caller; None where the request has none."""
        self._asked = hashlib.sha256(path)

    def take(self, data: bytes) -> None:
        """A piece of what is asked."""
        if self.digest is not None:
            self._asked.update(data)

    @property
    def key(self) -> OrderKey | None:
        """None where the request has none."""
        return None if self.digest is None else OrderKey(self.digest, self._asked.digest())


def gone() -> Conflict:
    """The refusal of a key for which something was made that is deleted now."""
    return Conflict(
        "what was made for this Idempotency-Key is deleted", code="idempotency_replayed", hint="Use a new key."
    )
