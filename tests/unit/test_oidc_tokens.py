"""ID tokens of the company's sign-in: accepted only if the provider signed them for us, for this sign-in and now."""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from datetime import UTC, datetime
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey

from groundplan.core.errors import Unauthenticated
from groundplan.identity.oidc import Provider, check_token

NOW = datetime(2026, 12, 3, 8, tzinfo=UTC)
PROVIDER = Provider("https://login.acme.example", "groundplan", "secret-of-the-client-0123456789abcdef")
KEY, FOREIGN = RSAKey.generate_key(2048, {"kid": "1"}), RSAKey.generate_key(2048, {"kid": "1"})
KEYS = {"keys": [KEY.as_dict(private=False)]}
CLAIMS = {
    "iss": PROVIDER.issuer, "aud": PROVIDER.client_id, "sub": "ana", "nonce": "n", "exp": int(NOW.timestamp()) + 300,
}  # fmt: skip


def signed(claims: dict[str, Any], key: RSAKey = KEY) -> str:
    return jwt.encode({"alg": "RS256", "kid": "1"}, claims, key)


def mac_signed(secret: bytes, body: str) -> str:
    """A token with a MAC by `secret` (HS256)."""
    head = urlsafe_b64encode(b'{"alg":"HS256","kid":"1"}').decode().rstrip("=")
    mac = hmac.digest(secret, f"{head}.{body}".encode(), "sha256")
    return f"{head}.{body}.{urlsafe_b64encode(mac).decode().rstrip('=')}"


def check(token: str) -> dict[str, Any]:
    return check_token(PROVIDER, token, KEYS, "n", NOW)


@pytest.mark.parametrize(
    "changed",
    [
        {}, {"aud": ["groundplan"]}, {"azp": "groundplan"}, {"aud": ["other", "groundplan"], "azp": "groundplan"},
    ],
)  # fmt: skip
def test_a_token_for_us_is_accepted(changed: dict[str, Any]) -> None:
    assert check(signed(CLAIMS | changed))["sub"] == "ana"


@pytest.mark.parametrize(
    "changed",
    [
        {"aud": "other"}, {"aud": []}, {"aud": ["other"]}, {"aud": ["other", "groundplan"]},
        {"aud": ["groundplan", "other"], "azp": "other"}, {"azp": "other"}, {"iss": "https://login.acme.example/"},
        {"iss": None}, {"nonce": "m"}, {"nonce": None}, {"exp": int(NOW.timestamp()) - 300}, {"exp": "soon"},
        {"sub": None}, {"nbf": int(NOW.timestamp()) + 300},
    ],
)  # fmt: skip
def test_a_token_for_somebody_else_or_another_time_is_refused(changed: dict[str, Any]) -> None:
    token = signed({name: value for name, value in (CLAIMS | changed).items() if value is not None})
    with pytest.raises(Unauthenticated):
        check(token)


def test_a_token_that_the_provider_did_not_sign_is_refused() -> None:
    """Also one that is signed with its public key, or our secret, as if these were shared keys."""
    head, body, _ = signed(CLAIMS).split(".")
    unsigned = "eyJhbGciOiJub25lIn0"  # {"alg":"none"}
    for token in (
        signed(CLAIMS, FOREIGN), mac_signed(KEY.as_pem(private=False), body), f"{unsigned}.{body}.", f"{head}.{body}.",
        mac_signed(PROVIDER.secret.encode(), body), "x", "", "a.b.c", "a.b.c.d.e",
    ):  # fmt: skip
        with pytest.raises(Unauthenticated):
            check(token)


@pytest.mark.parametrize(
    "unreadable",
    [
        {"kty": "AKP", "kid": "2", "alg": "ML-DSA-65", "pub": "AA"},
        {"kty": "EC", "kid": "2", "crv": "P-9", "x": "AA", "y": "AA"},
        {"kty": "RSA", "kid": "2", "n": "!", "e": "AQAB"}, {"kty": "RSA", "kid": "2", "e": "AQAB"},
        {"kty": "EC", "kid": "2", "crv": "P-256", "x": "AA", "y": "AA"}, {"kty": "RSA", "kid": "2", "n": 7, "e": 7},
        {"kid": "2"}, {}, None, "x", 7,
    ],
)  # fmt: skip
def test_a_key_of_the_provider_that_cannot_be_read_keeps_nobody_out(unreadable: Any) -> None:
    own = KEY.as_dict(private=False)
    for keys in ([unreadable, own], [own, unreadable]):
        assert check_token(PROVIDER, signed(CLAIMS), {"keys": keys}, "n", NOW)["sub"] == "ana"
    with pytest.raises(Unauthenticated):
        check_token(PROVIDER, signed(CLAIMS), {"keys": [unreadable]}, "n", NOW)
