"""A software passkey: the authenticator and the browser's part of WebAuthn, for tests and local trials of sign-in.

Holds its private keys in memory and asks nobody, so it proves that a program was there, and no person. The other side
checks it as it checks any device.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from fido2 import cbor
from fido2.cose import ES256

_PRESENT_AND_VERIFIED = 0x05
_WITH_CREDENTIAL = 0x40


@dataclass(slots=True)
class SoftPasskey:
    """One device with one passkey. `origin` is what the browser would say, such as `http://localhost:8601`."""

    origin: str
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    id: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    user: bytes = b""
    counter: int = 0

    def create(self, options: dict[str, Any]) -> dict[str, Any]:
        """The answer to registration options, as `PublicKeyCredential.toJSON` writes it."""
        self.user = _bytes(options["user"]["id"])
        public = ES256.from_cryptography_key(self.key.public_key())  # type: ignore[no-untyped-call]
        credential = bytes(16) + len(self.id).to_bytes(2, "big") + self.id + cbor.encode(dict(public))
        data = self._data(options["rp"]["id"], _PRESENT_AND_VERIFIED | _WITH_CREDENTIAL) + credential
        attested = cbor.encode({"fmt": "none", "attStmt": {}, "authData": data})
        response = {"attestationObject": _text(attested), "clientDataJSON": self._client("webauthn.create", options)}
        return self._answer(response)

    def get(self, options: dict[str, Any]) -> dict[str, Any]:
        """The answer to sign-in options."""
        self.counter += 1
        client = self._client("webauthn.get", options)
        data = self._data(options["rpId"], _PRESENT_AND_VERIFIED)
        signature = self.key.sign(data + hashlib.sha256(_bytes(client)).digest(), ec.ECDSA(hashes.SHA256()))
        response = {
            "authenticatorData": _text(data),
            "clientDataJSON": client,
            "signature": _text(signature),
            "userHandle": _text(self.user),
        }
        return self._answer(response)

    def _answer(self, response: dict[str, str]) -> dict[str, Any]:
        name = _text(self.id)
        return {
            "id": name, "rawId": name, "type": "public-key", "response": response, "clientExtensionResults": {},
        }  # fmt: skip

    def _client(self, type_: str, options: dict[str, Any]) -> str:
        told = {"type": type_, "challenge": options["challenge"], "origin": self.origin, "crossOrigin": False}
        return _text(json.dumps(told).encode())

    def _data(self, domain: str, flags: int) -> bytes:
        return hashlib.sha256(domain.encode()).digest() + bytes([flags]) + self.counter.to_bytes(4, "big")


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


def _bytes(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
