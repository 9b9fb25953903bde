"""The gateway keys of search and index: created in HOME when a deployment embeds or reranks, withdrawn when none does.

They are keys like any other: listed, revocable, each for one workload. A key that was revoked by hand stays revoked as
long as its file exists, and search goes on without the deployment.
"""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from groundplan.api.context import Services
from groundplan.core.audit import SYSTEM
from groundplan.core.errors import Unavailable
from groundplan.identity import service as identity
from groundplan.identity import store as identity_store
from groundplan.knowledge.gateway_client import ServiceKey, key_file, list_keys, read_key


def ensure_key(services: Services, workload: str) -> None:
    """Create a key for the workload if there is none. Raises `Unavailable` (index_key) if it was revoked."""
    key = read_key(services.home, workload)
    if key is not None:
        with services.transaction() as conn:
            stored = identity_store.api_key(conn, UUID(key.id))
        if stored is not None and stored.revoked_at is None:
            return
        if stored is not None:
            file = key_file(services.home, workload).name
            raise Unavailable(
                f"the key of the index for {workload} was revoked", code="index_key",
                hint=f"The index makes no calls for it. Delete HOME/keys/{file} to have a new key created ({key.id}).",
            )  # fmt: skip
    with services.transaction() as conn:
        id, secret = identity.create_key(conn, SYSTEM, workload)
    ServiceKey(str(id), workload, secret).write(services.home)


def withdraw_keys(services: Services, needed: Collection[str]) -> None:
    """Revoke and delete the keys for workloads that are no longer needed."""
    for file, key in list(list_keys(services.home)):
        if key.workload in needed and file == key_file(services.home, key.workload):
            continue
        with services.transaction() as conn:
            stored = identity_store.api_key(conn, UUID(key.id))
            if stored is not None and stored.revoked_at is None:
                identity.revoke_key(conn, SYSTEM, stored.id)
        file.unlink(missing_ok=True)
