"""The company's own sign-in by OpenID Connect: code flow with PKCE, a nonce, and a state that one browser holds.

The protocol is `authlib`'s, signatures are `joserfc`'s. A person is identified by (issuer, subject), the first time by
an e-mail address that the provider calls verified. No people are created: unknown ones are not signed in. Second
factors are the provider's matter.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import UUID

from psycopg import Connection

from groundplan.core.errors import Invalid, Unauthenticated, Unavailable
from groundplan.identity import directory_store, passkey_store, sessions, store

if TYPE_CHECKING:
    from joserfc.jwk import KeySet

SIGN_IN_LIFETIME = timedelta(minutes=10)
TIMEOUT = 10.0
MAX_PROVIDER_REQUESTS, SLOT_TIMEOUT = 8, 2.0
"""Concurrent requests to the provider, and the seconds for which another request waits for its turn."""
LEEWAY = 60
SCOPE = "openid email profile"
ALGORITHMS = ["RS256", "PS256", "ES256", "RS384", "ES384", "RS512", "ES512"]
LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_provider_slots = threading.BoundedSemaphore(MAX_PROVIDER_REQUESTS)


@dataclass(frozen=True, slots=True)
class Provider:
    """The company's sign-in: its issuer, and our registration as its client."""

    issuer: str
    client_id: str
    secret: str
    trust_email: bool = False
    """Whether an address counts as verified if the provider does not say whether it is."""

    def check(self) -> None:
        """Check the issuer's address. Raises `Invalid` (`oidc_issuer`) if it is neither https nor on this machine."""
        _check_url(self.issuer, self.issuer)


def prepare_sign_in(provider: Provider, callback_url: str) -> tuple[str, str, dict[str, str]]:
    """(URL to redirect the browser to, state that the browser must present when it returns, data to store until then).
    `callback_url`: the URL to which the provider redirects the browser.

    Sends requests to the provider, so it must be called outside of a transaction. Raises `Invalid` (`oidc_issuer`),
    `Unavailable` (`oidc_provider`).
    """
    from authlib.integrations.httpx_client import OAuth2Client  # noqa: PLC0415 -- heavy: only who signs in needs it

    with _provider_slot():
        endpoints = _discover(provider)
    state, nonce, verifier = (secrets.token_urlsafe(48) for _ in range(3))
    with OAuth2Client(
        provider.client_id, provider.secret, redirect_uri=callback_url, scope=SCOPE, code_challenge_method="S256"
    ) as client:
        url, _ = client.create_authorization_url(
            endpoints["authorization_endpoint"], state=state, nonce=nonce, code_verifier=verifier
        )
    return str(url), state, {"nonce": nonce, "verifier": verifier, "back": callback_url}


def save_sign_in(conn: Connection[Any], state: str, sign_in: dict[str, str], now: datetime) -> None:
    """Store the data of a sign-in until the browser returns."""
    passkey_store.insert_ceremony(conn, _hash(state), "oidc", None, sign_in, now + SIGN_IN_LIFETIME)


def take_sign_in(conn: Connection[Any], state: str, now: datetime) -> dict[str, str]:
    """The data stored by `save_sign_in`, which is deleted. Raises `Invalid` (`ceremony`) if there is none."""
    ceremony = passkey_store.use_ceremony(conn, _hash(state), "oidc", now)
    if ceremony is None:
        raise Invalid("this sign-in was started too long ago, or has ended", code="ceremony", hint="Start again.")
    sign_in: dict[str, str] = ceremony[1]
    return sign_in


def fetch_claims(provider: Provider, code: str, sign_in: dict[str, str], now: datetime) -> dict[str, Any]:
    """The provider's verified claims about the person. It sends requests, as `prepare_sign_in` does. Raises
    `Unauthenticated` (`oidc_refused`), `Unavailable` (`oidc_provider`)."""
    with _provider_slot():
        return _fetch_claims(provider, code, sign_in, now)


def begin_session(
    conn: Connection[Any], provider: Provider, claims: dict[str, Any], now: datetime, agent: str = ""
) -> str:
    """Begin a session of the person with these claims; returns the secret for its cookie.

    Raises `Unauthenticated` (`oidc_unknown`).
    """
    return sessions.begin(conn, _find_person(conn, provider, claims), "oidc", now, agent)


@contextmanager
def _provider_slot() -> Iterator[None]:
    """Limit concurrent requests to the provider: if it does not answer, sign-ins would otherwise occupy all threads
    that serve requests. Raises `Unavailable` (`oidc_provider`)."""
    if not _provider_slots.acquire(timeout=SLOT_TIMEOUT):
        raise _unavailable_error()
    try:
        yield
    finally:
        _provider_slots.release()


def _fetch_claims(provider: Provider, code: str, sign_in: dict[str, str], now: datetime) -> dict[str, Any]:
    """The provider's claims about the person, with signature, audience, time and nonce checked."""
    from authlib.common.errors import AuthlibBaseError  # noqa: PLC0415 -- heavy
    from authlib.integrations.httpx_client import OAuth2Client  # noqa: PLC0415
    from httpx import HTTPError  # noqa: PLC0415

    endpoints = _discover(provider)
    try:
        with OAuth2Client(
            provider.client_id, provider.secret, redirect_uri=sign_in["back"], scope=SCOPE, timeout=TIMEOUT
        ) as client:
            token = client.fetch_token(endpoints["token_endpoint"], code=code, code_verifier=sign_in["verifier"])
        return check_token(provider, token["id_token"], _fetch_json(endpoints["jwks_uri"]), sign_in["nonce"], now)
    except HTTPError as error:
        raise _no_answer_error(provider) from error
    except (AuthlibBaseError, KeyError, TypeError, ValueError) as error:
        raise _refused_error() from error


def check_token(provider: Provider, id_token: str, keys: Any, nonce: str, now: datetime) -> dict[str, Any]:
    """The claims of an ID token whose signature, issuer, audience, time and nonce are right. `keys`: the provider's
    JSON Web Key Set. Raises `Unauthenticated` (`oidc_refused`)."""
    from joserfc import jwt  # noqa: PLC0415 -- heavy
    from joserfc.errors import JoseError  # noqa: PLC0415

    own = provider.client_id
    registry = jwt.JWTClaimsRegistry(
        now=int(now.timestamp()), leeway=LEEWAY, iss={"essential": True, "value": provider.issuer},
        aud={"essential": True, "value": own}, exp={"essential": True},
        nonce={"essential": True, "value": nonce}, sub={"essential": True},
    )  # fmt: skip
    try:
        claims = dict(jwt.decode(id_token, _readable_keys(keys), algorithms=ALGORITHMS).claims)
        registry.validate(claims)
    except (JoseError, KeyError, TypeError, ValueError) as error:
        raise _refused_error() from error
    # a token for several audiences may have been issued to another client, and passed on
    issued_to = claims.get("azp", own if claims["aud"] in (own, [own]) else None)
    if issued_to != own:
        raise _refused_error()
    return claims


def _readable_keys(keys: Any) -> KeySet:
    """The keys of a JSON Web Key Set that can be read; the others are passed over, as RFC 7517, section 5 wants, so
    that one new kind of key or one with an error does not keep everybody out. Raises `JoseError` if none is left."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 -- heavy
    from joserfc.errors import JoseError, MissingKeyError  # noqa: PLC0415
    from joserfc.jwk import JWKRegistry, KeySet  # noqa: PLC0415

    readable = []
    for data in keys["keys"]:
        try:
            key = JWKRegistry.import_key(data)
            key.public_key  # noqa: B018 -- read only when it is asked for
        except (JoseError, KeyError, TypeError, ValueError, AttributeError, UnsupportedAlgorithm):
            continue
        readable.append(key)
    if not readable:
        raise MissingKeyError("none of the provider's keys can be read")
    return KeySet(readable)


def is_verified(claims: Mapping[str, Any], *, trusted: bool) -> bool:
    """Whether the e-mail address counts as verified: the claims say so, or do not mention it and the provider is
    `trusted`."""
    return claims.get("email_verified", trusted) in (True, "true")


def _find_person(conn: Connection[Any], provider: Provider, claims: dict[str, Any]) -> UUID:
    subject = str(claims["sub"])
    person_id = directory_store.person_by_subject(conn, provider.issuer, subject)
    if person_id is None:
        email = str(claims.get("email") or "").strip().lower()
        if email and not is_verified(claims, trusted=provider.trust_email):
            raise _unverified_error(email)
        person = store.person_by_email(conn, email) if email else None
        person_id = None if person is None else person.id
        if person_id is not None and directory_store.decides_with_changed_address(conn, person_id):
            raise _changed_address_error(email)
        if person_id is None or not directory_store.bind_subject(conn, person_id, provider.issuer, subject):
            raise _unknown_error(email)
    bound = store.person(conn, person_id)
    if bound is None or not bound.active:
        raise _unknown_error("" if bound is None else bound.email)
    return person_id


def _discover(provider: Provider) -> dict[str, str]:
    """The provider's endpoints, from its openid-configuration. Raises `Unavailable`, `Invalid` (`oidc_issuer`)."""
    provider.check()
    document = _fetch_json(f"{provider.issuer.rstrip('/')}/.well-known/openid-configuration")
    names = ("authorization_endpoint", "token_endpoint", "jwks_uri")
    if document.get("issuer") != provider.issuer or not all(isinstance(document.get(name), str) for name in names):
        raise Invalid(
            f"{provider.issuer} does not describe itself as this issuer",
            code="oidc_issuer",
            hint="GROUNDPLAN_OIDC_ISSUER must be exactly what its openid-configuration says.",
        )
    for name in names:
        _check_url(document[name], provider.issuer)
    return {name: str(document[name]) for name in names}


def _check_url(url: str, issuer: str) -> None:
    """Require https, or http on this machine if the issuer is on this machine as well."""
    target, own_issuer = urlsplit(url), urlsplit(issuer)
    is_local = target.hostname in LOCAL and own_issuer.hostname in LOCAL
    if target.scheme != "https" and not (target.scheme == "http" and is_local):
        raise Invalid("the company's sign-in needs https", code="oidc_issuer", hint="Set an https issuer.")


def _fetch_json(url: str) -> Any:
    import httpx  # noqa: PLC0415 -- heavy

    try:
        answer = httpx.get(url, timeout=TIMEOUT, follow_redirects=False)
        answer.raise_for_status()
        return answer.json()
    except (httpx.HTTPError, ValueError) as error:
        raise _unavailable_error() from error


def _unavailable_error() -> Unavailable:
    return Unavailable(
        "the company's sign-in does not answer", code="oidc_provider", hint="Use your passkey, or try again.",
        retry_after=5,
    )  # fmt: skip


def _hash(state: str) -> bytes:
    return hashlib.sha256(state.encode("utf-8", "surrogatepass")).digest()


def _no_answer_error(provider: Provider) -> Unavailable:
    return Unavailable(
        f"{urlsplit(provider.issuer).hostname} does not answer", code="oidc_provider",
        hint="Use your passkey, or try again.", retry_after=5,
    )  # fmt: skip


def _refused_error() -> Unauthenticated:
    return Unauthenticated(
        "the company's sign-in did not confirm who you are", code="oidc_refused", hint="Start again."
    )


def _changed_address_error(address: str) -> Unauthenticated:
    return Unauthenticated(
        "a directory changed your e-mail address, and you hold a duty or a confirmed passkey here",
        code="oidc_address_changed",
        hint="Sign in with your passkey: anybody who can write to the directory could take your place by a changed "
        "address.",
        details={"address": address},
    )


def _unverified_error(address: str) -> Unauthenticated:
    return Unauthenticated(
        "the company's sign-in does not say that your address is verified",
        code="oidc_unknown",
        hint="Have it send email_verified; where only administrators set addresses: GROUNDPLAN_OIDC_TRUST_EMAIL=yes.",
        details={"address": address},
    )


def _unknown_error(address: str) -> Unauthenticated:
    return Unauthenticated(
        "the company's sign-in knows you, but you are not registered here",
        code="oidc_unknown",
        hint="Ask somebody with the duty security to add you: `groundplan people add`.",
        details={"address": address} if address else None,
    )
