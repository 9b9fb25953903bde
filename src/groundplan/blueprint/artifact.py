"""Blueprints as bytes: canonical encoding, digest, Ed25519 signature, and reading them back.

The signature covers the exact body bytes, so a reader verifies before it decodes. RFC 8785 numbers are doubles: an
integer beyond ±(2^53-1), such as a budget of 20,000 USD in picodollars, is written as its decimal text and read back as
an integer. This module neither stores nor compiles blueprints and opens no key file.
"""

from __future__ import annotations

import base64
import binascii
from functools import cache
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from groundplan.blueprint.model import Blueprint, Workload
from groundplan.core import canonical
from groundplan.core.errors import Invalid

FORMAT = 1
_SAFE = 2**53 - 1
_decoder = msgspec.json.Decoder(Blueprint, strict=False)


def encode(blueprint: Blueprint) -> bytes:
    """Canonical JSON of a blueprint; equal blueprints give equal bytes."""
    return canonical.canonical(portable(msgspec.to_builtins(blueprint)))


def decode(body: bytes) -> Blueprint:
    """The blueprint in these bytes. Raises `Invalid` when they are not one, or are of a newer format."""
    try:
        blueprint = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid(
            f"these bytes are not a blueprint: {error}",
            code="blueprint_malformed",
            hint="The stored blueprint is damaged; restore it from a backup.",
        ) from error
    if blueprint.format > FORMAT:
        raise Invalid(
            f"blueprint {blueprint.number} has format {blueprint.format}, this program reads up to {FORMAT}",
            code="blueprint_format",
            hint="Use the version of Groundplan that made it, or a newer one.",
        )
    return blueprint


class _Parts(msgspec.Struct):
    workloads: list[msgspec.Raw] = []


class _Named(msgspec.Struct):
    name: str


class Prompted(msgspec.Struct, frozen=True):
    """What a workload says of its prompt, named as in `Workload`."""

    name: str
    stage: str
    prompt: str | None = None
    system_prompt: str | None = None


class Prompts(msgspec.Struct, frozen=True):
    """What a blueprint says of prompts, named as in `Blueprint`."""

    number: int
    workloads: list[Prompted]


_prompts = msgspec.json.Decoder(Prompts)
_parts = msgspec.json.Decoder(_Parts)
_named = msgspec.json.Decoder(_Named)
_workload = msgspec.json.Decoder(Workload, strict=False)


def workload_in(body: bytes, name: str) -> Workload | None:
    """One workload of the blueprint in these bytes; None: it is not there. Of thousands, `decode` makes all."""
    told = name.encode()
    for part in _parts.decode(body).workloads:
        if told in bytes(part) and _named.decode(part).name == name:
            return _workload.decode(part)
    return None


def prompts_in(body: bytes) -> Prompts:
    """The prompts of the blueprint in these bytes, and nothing else of it."""
    return _prompts.decode(body)


def digest(body: bytes) -> str:
    """Lower-case hexadecimal SHA-256 of the body."""
    return canonical.digest(body)


def sign(body: bytes, key: Ed25519PrivateKey) -> str:
    """Base64 of the 64-byte Ed25519 signature over the body."""
    return base64.b64encode(key.sign(body)).decode("ascii")


def verify_signature(body: bytes, signature: str, public_key: bytes) -> bool:
    """Whether `signature` (base64) over `body` was made with the key whose 32 raw public bytes are given."""
    try:
        raw = base64.b64decode(signature, validate=True)
        Ed25519PublicKey.from_public_bytes(public_key).verify(raw, body)
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def said(value: msgspec.Struct) -> dict[str, Any]:
    """What is said beyond the defaults: a field that a newer version adds ends no approval."""
    return {
        field.name: _said(found)
        for field in _fields(type(value))
        if (found := getattr(value, field.name)) != field.default
        and (field.default_factory is msgspec.NODEFAULT or found != field.default_factory())
    }


@cache
def _fields(kind: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    return msgspec.structs.fields(kind)


def _said(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return said(value)
    return [_said(item) for item in value] if isinstance(value, list) else value


def portable(value: Any) -> Any:
    """The same JSON value with integers that a double cannot hold written as text, as RFC 8785 requires."""
    if isinstance(value, dict):
        return {key: portable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [portable(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _SAFE:
        return str(value)
    return value
