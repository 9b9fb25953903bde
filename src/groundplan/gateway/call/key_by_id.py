"""Finds the keys of batches and background responses by id, as their clients are not connected when they run."""

from __future__ import annotations

from uuid import UUID

from groundplan.core.errors import Unauthenticated
from groundplan.gateway.call.identify import check_key
from groundplan.gateway.policy.snapshot import KeyEntry, Policy


class KeysById:
    """Keys by id, indexed for the policy that was last used."""

    __slots__ = ("_families", "_keys", "_policy")

    def __init__(self) -> None:
        self._policy: Policy | None = None
        self._keys: dict[str, KeyEntry] = {}
        self._families: dict[str, list[KeyEntry]] | None = None
        """Family -> its keys, which were rotated one to the next; built on first use."""

    def known(self, policy: Policy, id: UUID) -> KeyEntry | None:
        """The key with this id in `policy`; None where there is none."""
        if self._policy is not policy:
            self._policy, self._keys = policy, {key.id: key for key in policy.keys.values()}
            self._families = None
        return self._keys.get(str(id))

    def living(self, policy: Policy, id: UUID, person: str, now: float) -> KeyEntry:
        """The key, or the one that it was rotated to, with which work ordered for `person` may run at `now` (seconds
        since the epoch). Raises `Unauthenticated`."""
        key = self.known(policy, id)
        if key is None:
            raise Unauthenticated(
                "the API key that this was ordered with is no longer valid",
                code="invalid_api_key",
                hint="Use another key.",
            )
        if not key.revoked and key.expires is not None and key.expires <= now:
            key = self._successor(key, now) or key
        check_key(key, policy, now)
        if person and person not in policy.active:
            raise Unauthenticated(
                "the user that this was ordered for is not active", code="key_user_inactive", hint="Use another key."
            )
        return key

    def _successor(self, key: KeyEntry, now: float) -> KeyEntry | None:
        """A valid key of the same family as an expired one, which was rotated."""
        if self._families is None:
            self._families = {}
            for each in self._keys.values():
                self._families.setdefault(each.family or each.id, []).append(each)
        living = (
            each
            for each in self._families.get(key.family or key.id, ())
            if not each.revoked and (each.expires is None or each.expires > now)
        )
        return next(living, None)
