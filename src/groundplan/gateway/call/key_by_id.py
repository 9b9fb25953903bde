"""Keys of what was ordered, and is made later: found by their ids, since whoever ordered is not there any more."""

from __future__ import annotations

from uuid import UUID

from groundplan.core.errors import Unauthenticated
from groundplan.gateway.call.identify import check_key
from groundplan.gateway.policy.snapshot import KeyEntry, Policy


class KeysById:
    """Of one worker, by the policy that was last asked about."""

    __slots__ = ("_families", "_keys", "_policy")

    def __init__(self) -> None:
        self._policy: Policy | None = None
        self._keys: dict[str, KeyEntry] = {}
        self._families: dict[str, list[KeyEntry]] | None = None
        """Each key with those that it was rotated to; made when one is looked for."""

    def known(self, policy: Policy, id: UUID) -> KeyEntry | None:
        """The key as `policy` has it."""
        if self._policy is not policy:
            self._policy, self._keys = policy, {key.id: key for key in policy.keys.values()}
            self._families = None
        return self._keys.get(str(id))

    def living(self, policy: Policy, id: UUID, person: str, now: float) -> KeyEntry:
        """The key, or the one that it was rotated to, by which something ordered for `person` may be made now (seconds
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
        """Which may be used in the place of one that has expired, since it was rotated."""
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
