"""Receipts that a third party can check: canonical JSON in a C2SP signed note, by the key that signs checkpoints.

The note's name is not that of the log, and its text begins with its kind, so that a receipt is never taken for a
checkpoint. What is in a receipt is its writer's.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from groundplan.core.audit.checkpoint import VerifierKey, parse_note, sign
from groundplan.core.canonical import canonical, digest
from groundplan.core.errors import Invalid


@dataclass(frozen=True, slots=True)
class Receipt:
    """A signed receipt: `note` is the content of the file, `digest` the SHA-256 of its text as the audit log has it."""

    body: dict[str, Any]
    note: str
    digest: str


def write_receipt(kind: str, body: dict[str, Any], key: Ed25519PrivateKey) -> Receipt:
    """Sign a receipt of this kind, such as `erasure`."""
    text = f"groundplan receipt: {kind}\n{canonical(body).decode()}\n"
    note = sign(text, key, signer_name(key.public_key().public_bytes_raw())).encode().decode()
    return Receipt(body, note, digest(text.encode()))


def read_receipt(note: bytes, public: bytes) -> Receipt:
    """Read a receipt and check that this key (32 bytes) signed it. Raises `Invalid` (`receipt`)."""
    found = parse_note(note)
    if not found.signed_by(VerifierKey(signer_name(public), public)):
        raise Invalid("the signature does not verify", code="receipt", hint="It was changed, or another key signed it.")
    head, _, body = found.text.partition("\n")
    try:
        value = json.loads(body)
        if not head.startswith("groundplan receipt: ") or not isinstance(value, dict):
            raise ValueError("no receipt")
    except ValueError as error:
        raise Invalid("it is not a receipt", code="receipt", hint="Use the file as it was written.") from error
    return Receipt(value, note.decode(), digest(found.text.encode()))


def signer_name(public: bytes) -> str:
    """The name under which a key signs receipts."""
    return f"groundplan/receipts/{hashlib.sha256(public).hexdigest()[:16]}"
