"""The gateway key of the search index: made when a deployment embeds, kept in HOME, made anew where it no longer holds.

It is a key like any other: listed, revocable, for one workload. Revoked by hand it stays revoked for as long as nothing
else is declared, and search goes by words.
"""

from __future__ import annotations

from uuid import UUID

from groundplan.api.context import Services
from groundplan.core.audit import SYSTEM
from groundplan.core.errors import Unavailable
from groundplan.identity import service as identity
from groundplan.identity import store as identity_store
from groundplan.knowledge.embedding.deployed import ServiceKey, read_key


def ensure_key(services: Services, workload: str) -> None:
    """Have a key for the workload. Raises `Unavailable` (index_key) where somebody revoked it."""
    known = read_key(services.home)
    if known is not None and known.workload == workload:
        with services.transaction() as conn:
            stored = identity_store.api_key(conn, UUID(known.id))
        if stored is not None and stored.revoked_at is None:
            return
        if stored is not None:
            raise Unavailable(
                f"the key of the index for {workload} was revoked", code="index_key",
                hint=f"Nothing is embedded. Delete HOME/keys/index-service.json to have another one made ({known.id}).",
            )  # fmt: skip
    with services.transaction() as conn:
        id, secret = identity.create_key(conn, SYSTEM, workload)
        if known is not None and identity_store.api_key(conn, UUID(known.id)) is not None:
            identity.revoke_key(conn, SYSTEM, UUID(known.id))
    ServiceKey(str(id), workload, secret).write(services.home)
