"""Step 1: who makes the request. The key gives the workload and its user; a granted key may act for another person.

Reads the live policy snapshot only; does not decide whether the call may be made.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime

from groundplan.core.errors import Denied, Unauthenticated
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.policy import grants
from groundplan.gateway.policy.catalog import Catalog
from groundplan.gateway.policy.client_address import check_network
from groundplan.gateway.policy.snapshot import KeyEntry, Policy

KEY_HEADERS = (b"authorization", b"x-api-key", b"api-key")
"""Headers that may carry the key, of OpenAI's, Anthropic's and Azure's clients; the first that is sent counts."""
_KEY_HINT = (
    "Send `Authorization: Bearer gp_...` (or `x-api-key: gp_...`, `api-key: gp_...`); make a key with `groundplan keys "
    "create`."
)


def key_digest(headers: dict[bytes, bytes]) -> bytes:
    """SHA-256 of the key that the request carries. Raises `Unauthenticated`."""
    sent = headers.get(b"authorization")
    if sent is None:
        sent = b"bearer " + (headers.get(b"x-api-key") or headers.get(b"api-key", b""))
    scheme, secret = sent[:7], sent[7:].strip()
    if not secret or (scheme != b"Bearer " and scheme.lower() != b"bearer "):
        message = "no API key was sent"
        if secret and headers.get(b"authorization"):
            message = "the header Authorization must be `Bearer` and the API key"
        raise Unauthenticated(message, code="key_missing", hint=_KEY_HINT)
    return hashlib.sha256(secret).digest()


def look_up_key(digest: bytes, policy: Policy) -> KeyEntry:
    """The key with this `key_digest`, whether or not it may be used. Raises `Unauthenticated`.

    The check takes the same time whatever is sent: the secret is hashed as a whole, and only its SHA-256 is looked up.
    Where that look-up stops depends on bits of a hash that a caller can neither choose nor turn back into a key, so
    there is nothing to approach step by step, as there would be in comparing secrets themselves.
    """
    key = policy.keys.get(digest)
    if key is None:
        raise Unauthenticated("this API key is not known", code="invalid_api_key", hint=_KEY_HINT)
    return key


def find_key(headers: dict[bytes, bytes], policy: Policy, now: float) -> KeyEntry:
    """The key of a request, which may be used now. Raises `Unauthenticated`."""
    key = look_up_key(key_digest(headers), policy)
    check_key(key, policy, now)
    return key


def check_key(key: KeyEntry, policy: Policy, now: float) -> None:
    """Refuse a known key that may not be used at `now` (seconds since the epoch). Raises `Unauthenticated`."""
    if key.revoked:
        raise Unauthenticated("this API key was revoked", code="key_revoked", hint="Ask for a new key.")
    if key.expires is not None and key.expires <= now:
        raise Unauthenticated("this API key has expired", code="key_expired", hint="Ask for a new key.")
    if key.person and key.person not in policy.active:
        raise Unauthenticated("the user of this key is not active", code="key_user_inactive", hint="Ask for a new key.")


def identify(exchange: Exchange, policy: Policy, now: float) -> None:
    """Set key, person and policy of the exchange. Raises as `caller_of`, and `Denied` for what was not granted."""
    exchange.policy = policy
    request, catalog = exchange.request, exchange.catalog
    headers, head = request.headers, request.same_head_request
    if head is None:
        digest = key_digest(headers)
    else:
        digest = head.key_digest = head.key_digest or key_digest(headers)
    # set before the checks, so that the refusal of a known key is recorded as a call of that key
    exchange.key = key = look_up_key(digest, policy)
    check_key(key, policy, now)
    exchange.person = _acting_person(headers, policy, key)
    if key.networks:
        proxies = catalog.proxies if catalog is not None else ()
        check_network(key.networks, exchange.response.peer_address, headers.get(b"x-forwarded-for"), proxies)
    if catalog is not None and catalog.granted_workloads:
        check_grants(catalog, policy, key, exchange.person, datetime.fromtimestamp(now, UTC).date())


def inherit_identity(exchange: Exchange, policy: Policy, now: float) -> None:  # noqa: ARG001 -- as `identify`
    """Set the policy of a sub-call: it has key and person of the call that it is a part of, with which they were
    checked."""
    if exchange.key is None:
        raise AssertionError("nobody's")
    exchange.policy = policy


def check_grants(catalog: Catalog, policy: Policy, key: KeyEntry, person: str, today: date) -> None:
    """Refuse a call to a workload that needs a grant and has none. `today`: the date in UTC.

    Raises `Denied` (`use_not_granted`, `act_for_others_not_granted`).
    """
    if key.workload in catalog.granted_workloads:
        grants.check_grants(catalog.plans[key.workload].workload, policy, key, person, today)


def caller_of(headers: dict[bytes, bytes], policy: Policy, now: float) -> tuple[KeyEntry, str]:
    """The key of a request and the id of the person it acts for ('' for nobody). `now` is seconds since the epoch.

    Raises `Unauthenticated`, `Denied`.
    """
    key = find_key(headers, policy, now)
    return key, _acting_person(headers, policy, key)


def _acting_person(headers: dict[bytes, bytes], policy: Policy, key: KeyEntry) -> str:
    """The id of the person that a request with this key acts for. Raises `Denied`."""
    named = headers.get(b"groundplan-on-behalf-of")
    if named is None:
        return key.person
    if not key.acts_for_others:
        raise Denied(
            "this key may not act for other people",
            code="on_behalf_of_denied",
            hint="Leave groundplan-on-behalf-of out, or use a key made with that grant.",
        )
    person = policy.people.get(named.decode("utf-8", "replace").strip().lower())
    if person is None:
        raise Denied(
            "the person named in groundplan-on-behalf-of is not an active person here",
            code="person_unknown",
            hint="Name the e-mail address of an active person.",
        )
    return person
