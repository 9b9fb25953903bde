"""Blueprints as bytes: canonical encoding, digest, Ed25519 signature, and decoding.

The signature covers the exact body bytes, so a reader verifies before it decodes. RFC 8785 numbers are doubles: an
integer beyond ±(2^53-1), such as a budget of 20,000 USD in picodollars, is written as its decimal text and read back as
an integer. This module neither stores nor compiles blueprints, and opens no key file.
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
_MAX_SAFE_INTEGER = 2**53 - 1
_decoder = msgspec.json.Decoder(Blueprint, strict=False)


def encode(blueprint: Blueprint) -> bytes:
    """Canonical JSON of a blueprint; equal blueprints give equal bytes."""
    return canonical.canonical(with_large_integers_as_text(msgspec.to_builtins(blueprint)))


def decode(body: bytes) -> Blueprint:
    """Decode a blueprint. Raises `Invalid` if the bytes are not one, or have a newer format."""
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


class _RawWorkloads(msgspec.Struct):
    workloads: list[msgspec.Raw] = []


class _Name(msgspec.Struct):
    name: str


class PromptUse(msgspec.Struct, frozen=True):
    """The fields of a workload that concern its prompt, named as in `Workload`."""

    name: str
    stage: str
    prompt: str | None = None
    system_prompt: str | None = None


class BlueprintPrompts(msgspec.Struct, frozen=True):
    """The fields of a blueprint that concern prompts, named as in `Blueprint`."""

    number: int
    workloads: list[PromptUse]


_prompts_decoder = msgspec.json.Decoder(BlueprintPrompts)
_raw_workloads_decoder = msgspec.json.Decoder(_RawWorkloads)
_name_decoder = msgspec.json.Decoder(_Name)
_workload_decoder = msgspec.json.Decoder(Workload, strict=False)


def decode_workload(body: bytes, name: str) -> Workload | None:
    """Decode one workload of an encoded blueprint; None if it has none of that name. With thousands of workloads,
    `decode` would create all of them."""
    encoded_name = name.encode()
    for raw in _raw_workloads_decoder.decode(body).workloads:
        if encoded_name in bytes(raw) and _name_decoder.decode(raw).name == name:
            return _workload_decoder.decode(raw)
    return None


def decode_prompts(body: bytes) -> BlueprintPrompts:
    """Decode only the prompts of an encoded blueprint."""
    return _prompts_decoder.decode(body)


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


def non_default_fields(value: msgspec.Struct) -> dict[str, Any]:
    """The fields of a struct that differ from their defaults, so that a field added by a newer version ends no
    approval."""
    return {
        field.name: _plain(current)
        for field in _fields(type(value))
        if (current := getattr(value, field.name)) != field.default
        and (field.default_factory is msgspec.NODEFAULT or current != field.default_factory())
    }


@cache
def _fields(kind: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    return msgspec.structs.fields(kind)


def _plain(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return non_default_fields(value)
    return [_plain(item) for item in value] if isinstance(value, list) else value


def with_large_integers_as_text(value: Any) -> Any:
    """The same JSON value with integers that a double cannot hold as text, as RFC 8785 requires."""
    if isinstance(value, dict):
        return {key: with_large_integers_as_text(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_large_integers_as_text(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > _MAX_SAFE_INTEGER:
        return str(value)
    return value
