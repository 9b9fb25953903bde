"""The company's own sign-in by OpenID Connect: code flow with PKCE, a nonce, and a state that one browser holds.

The protocol is `authlib`'s, signatures are `joserfc`'s. Somebody is known by (issuer, subject); the first time by an
e-mail address that the provider calls verified. It makes no people: who is not known here is not signed in. Which
second factor the company asks for is the provider's.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from psycopg import Connection

from groundplan.core.errors import Invalid, Unauthenticated, Unavailable
from groundplan.identity import directory_store, passkey_store, sessions, store

CEREMONY = timedelta(minutes=10)
TIMEOUT = 10.0
PLACES, PLACE_SECONDS = 8, 2.0
"""So many wait for the provider at a time, and how long one more waits for that."""
LEEWAY = 60
SCOPE = "openid email profile"
ALGORITHMS = ["RS256", "PS256", "ES256", "RS384", "ES384", "RS512", "ES512"]
LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_places = threading.BoundedSemaphore(PLACES)


@dataclass(frozen=True, slots=True)
class Provider:
    """The company's sign-in: its issuer, and us as its client."""

    issuer: str
    client_id: str
    secret: str
    trust_email: bool = False
    """An address counts as verified where it does not say whether it is."""

    def check(self) -> None:
        """Raises `Invalid` (`oidc_issuer`) for an address that is neither https nor this machine's."""
        _trusted(self.issuer, self.issuer)


def way_to(provider: Provider, back: str) -> tuple[str, str, dict[str, str]]:
    """(where to send the browser, the state that it has to hold, what is kept of it until it returns). `back`: where
    the provider sends it afterwards.

    Asks the provider, so nothing is held meanwhile that others wait for. Raises `Invalid` (`oidc_issuer`),
    `Unavailable` (`oidc_provider`).
    """
    from authlib.integrations.httpx_client import OAuth2Client  # noqa: PLC0415 -- heavy: only who signs in needs it

    with _asking():
        found = _discovered(provider)
    state, nonce, verifier = (secrets.token_urlsafe(48) for _ in range(3))
    with OAuth2Client(
        provider.client_id, provider.secret, redirect_uri=back, scope=SCOPE, code_challenge_method="S256"
    ) as client:
        url, _ = client.create_authorization_url(
            found["authorization_endpoint"], state=state, nonce=nonce, code_verifier=verifier
        )
    return str(url), state, {"nonce": nonce, "verifier": verifier, "back": back}


def begin(conn: Connection[Any], state: str, asked: dict[str, str], now: datetime) -> None:
    """Keep what is needed once the browser returns."""
    passkey_store.insert_ceremony(conn, _hash(state), "oidc", None, asked, now + CEREMONY)


def returned(conn: Connection[Any], state: str, now: datetime) -> dict[str, str]:
    """What was kept of it, once. Raises `Invalid` (`ceremony`)."""
    found = passkey_store.use_ceremony(conn, _hash(state), "oidc", now)
    if found is None:
        raise Invalid("this sign-in was started too long ago, or has ended", code="ceremony", hint="Start again.")
    asked: dict[str, str] = found[1]
    return asked


def claims_of(provider: Provider, code: str, asked: dict[str, str], now: datetime) -> dict[str, Any]:
    """What the provider says of who signed in. Asks it, as `way_to`. Raises `Unauthenticated` (`oidc_refused`),
    `Unavailable` (`oidc_provider`)."""
    with _asking():
        return _claims(provider, code, asked, now)


def finish(conn: Connection[Any], provider: Provider, claims: dict[str, Any], now: datetime, agent: str = "") -> str:
    """Begin a session of whoever the provider vouches for; returns the secret for its cookie.

    Raises `Unauthenticated` (`oidc_unknown`).
    """
    return sessions.begin(conn, _person(conn, provider, claims), "oidc", now, agent)


@contextmanager
def _asking() -> Iterator[None]:
    """One of a few who wait for the provider: while it says nothing, everybody who signs in would take a thread of all
    that answer requests. Raises `Unavailable` (`oidc_provider`)."""
    if not _places.acquire(timeout=PLACE_SECONDS):
        raise _away()
    try:
        yield
    finally:
        _places.release()


def _claims(provider: Provider, code: str, asked: dict[str, str], now: datetime) -> dict[str, Any]:
    """What the provider says of who signed in, its signature, audience, time and nonce checked."""
    from authlib.common.errors import AuthlibBaseError  # noqa: PLC0415 -- heavy
    from authlib.integrations.httpx_client import OAuth2Client  # noqa: PLC0415
    from httpx import HTTPError  # noqa: PLC0415
    from joserfc import jwt  # noqa: PLC0415
    from joserfc.errors import JoseError  # noqa: PLC0415
    from joserfc.jwk import KeySet  # noqa: PLC0415

    places = _discovered(provider)
    try:
        with OAuth2Client(
            provider.client_id, provider.secret, redirect_uri=asked["back"], scope=SCOPE, timeout=TIMEOUT
        ) as client:
            token = client.fetch_token(places["token_endpoint"], code=code, code_verifier=asked["verifier"])
        keys = KeySet.import_key_set(_json(places["jwks_uri"]))
        claims = jwt.decode(token["id_token"], keys, algorithms=ALGORITHMS).claims
        wanted = jwt.JWTClaimsRegistry(
            now=int(now.timestamp()), leeway=LEEWAY, iss={"essential": True, "value": provider.issuer},
            aud={"essential": True, "value": provider.client_id}, exp={"essential": True},
            nonce={"essential": True, "value": asked["nonce"]}, sub={"essential": True},
        )  # fmt: skip
        wanted.validate(claims)
    except HTTPError as error:
        raise _silent(provider) from error
    except (AuthlibBaseError, JoseError, KeyError, TypeError, ValueError) as error:
        raise _refused() from error
    return dict(claims)


def is_verified(claims: Mapping[str, Any], *, trusted: bool) -> bool:
    """Whether an address may be taken for its person's: the sign-in says so, or is `trusted` and says nothing."""
    return claims.get("email_verified", trusted) in (True, "true")


def _person(conn: Connection[Any], provider: Provider, claims: dict[str, Any]) -> UUID:
    subject = str(claims["sub"])
    known = directory_store.by_subject(conn, provider.issuer, subject)
    if known is None:
        email = str(claims.get("email") or "").strip().lower()
        if email and not is_verified(claims, trusted=provider.trust_email):
            raise _unverified(email)
        person = store.person_by_email(conn, email) if email else None
        known = None if person is None else person.id
        if known is not None and directory_store.known_by_a_changed_address(conn, known):
            raise _changed(email)
        if known is None or not directory_store.keep_subject(conn, known, provider.issuer, subject):
            raise _unknown(email)
    found = store.person(conn, known)
    if found is None or not found.active:
        raise _unknown("" if found is None else found.email)
    return known


def _discovered(provider: Provider) -> dict[str, str]:
    """The provider's addresses. Raises `Unavailable`, `Invalid` (`oidc_issuer`)."""
    provider.check()
    found = _json(f"{provider.issuer.rstrip('/')}/.well-known/openid-configuration")
    names = ("authorization_endpoint", "token_endpoint", "jwks_uri")
    if found.get("issuer") != provider.issuer or not all(isinstance(found.get(name), str) for name in names):
        raise Invalid(
            f"{provider.issuer} does not describe itself as this issuer",
            code="oidc_issuer",
            hint="GROUNDPLAN_OIDC_ISSUER must be exactly what its openid-configuration says.",
        )
    for name in names:
        _trusted(found[name], provider.issuer)
    return {name: str(found[name]) for name in names}


def _trusted(url: str, issuer: str) -> None:
    """https; http only on this machine, and only where the issuer is there too."""
    found, own = urlsplit(url), urlsplit(issuer)
    here = found.hostname in LOCAL and own.hostname in LOCAL
    if found.scheme != "https" and not (found.scheme == "http" and here):
        raise Invalid("the company's sign-in needs https", code="oidc_issuer", hint="Set an https issuer.")


def _json(url: str) -> Any:
    import httpx  # noqa: PLC0415 -- heavy

    try:
        answer = httpx.get(url, timeout=TIMEOUT, follow_redirects=False)
        answer.raise_for_status()
        return answer.json()
    except (httpx.HTTPError, ValueError) as error:
        raise _away() from error


def _away() -> Unavailable:
    return Unavailable(
        "the company's sign-in does not answer", code="oidc_provider", hint="Use your passkey, or try again.",
        retry_after=5,
    )  # fmt: skip


def _hash(state: str) -> bytes:
    return hashlib.sha256(state.encode("utf-8", "surrogatepass")).digest()


def _silent(provider: Provider) -> Unavailable:
    return Unavailable(
        f"{urlsplit(provider.issuer).hostname} does not answer", code="oidc_provider",
        hint="Use your passkey, or try again.", retry_after=5,
    )  # fmt: skip


def _refused() -> Unauthenticated:
    return Unauthenticated("the company's sign-in did not vouch for you", code="oidc_refused", hint="Start again.")


def _changed(address: str) -> Unauthenticated:
    return Unauthenticated(
        "a directory changed the address by which you are known here, and you decide things",
        code="oidc_address_changed",
        hint="Sign in with your passkey: whoever writes to the directory could have taken your place by that address.",
        details={"address": address},
    )


def _unverified(address: str) -> Unauthenticated:
    return Unauthenticated(
        "the company's sign-in does not say that your address is verified",
        code="oidc_unknown",
        hint="Have it send email_verified; where only administrators set addresses: GROUNDPLAN_OIDC_TRUST_EMAIL=yes.",
        details={"address": address},
    )


def _unknown(address: str) -> Unauthenticated:
    return Unauthenticated(
        "the company's sign-in knows you, but you are not registered here",
        code="oidc_unknown",
        hint="Ask somebody with the duty security to add you: `groundplan people add`.",
        details={"address": address} if address else None,
    )
