"""Carries thought signatures, which some models want back with the function call that they belong to, through Messages
and Responses, which have no field for them: in the id of that call. They are sent back only to such models.

Clients return an id as they got it. What is signed, and whether it is still valid, only the provider knows; chat has a
field of its own for signatures and is passed on as it is. Pure.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import msgspec

from groundplan.blueprint.model import Deployment

_MARK = "__gp_signed_"
_is_base64url = re.compile(r"[A-Za-z0-9_-]+", re.ASCII).fullmatch
_replace_ids = re.compile(rb'("(?:id|call_id|tool_use_id)"\s*:\s*")([^"\\]*+)(?=")').sub
_FIELD = b'"extra_content"'
_SIGNING_APIS = frozenset({"gemini", "vertexai"})
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class _Google(msgspec.Struct, frozen=True):
    thought_signature: str = ""


class Extra(msgspec.Struct, frozen=True):
    """The `extra_content` of a tool call of Gemini's OpenAI-shaped API."""

    google: _Google | None = None


def signed_id(name: str, extra: Extra | None) -> str:
    """The id of a call with its signature appended."""
    if extra is None or extra.google is None or not extra.google.thought_signature or not name:
        return name
    encoded = urlsafe_b64encode(extra.google.thought_signature.encode("utf-8", "surrogatepass")).rstrip(b"=")
    return f"{name}{_MARK}{encoded.decode('ascii')}"


def plain_id(name: str) -> str:
    """The id as the model gave it, without a signature."""
    return split_signature(name)[0]


def split_signature(name: str) -> tuple[str, dict[str, Any] | None]:
    """(the id as the model gave it, the signature as chat's `extra_content`); None: it has no readable signature."""
    own, mark, signed = name.rpartition(_MARK)
    if not mark or _is_base64url(signed) is None:
        return name, None
    try:
        signature = urlsafe_b64decode(signed + "=" * (-len(signed) % 4)).decode("utf-8", "surrogatepass")
    except ValueError:
        return name, None
    return own, {"google": {"thought_signature": signature}}


def tool_call(name: str, called: dict[str, Any], kind: str = "function") -> dict[str, Any]:
    """An earlier call of a function or of a custom tool (`kind`) in chat's shape, from the id that a client
    returned."""
    own, signed = split_signature(name)
    made = {"id": own, "type": kind, kind: called}
    return made if signed is None else {**made, "extra_content": signed}


def wants_signatures(deployment: Deployment) -> bool:
    """Whether a deployment's model wants signatures back."""
    gemini = "gemini" in deployment.upstream_model.lower() or ".googleapis.com" in deployment.url
    return deployment.api in _SIGNING_APIS or (deployment.api == "openai" and gemini)


def remove_signatures(messages: msgspec.Raw) -> msgspec.Raw:
    """The messages of a chat without signatures, for a model that has no use for them and may refuse them."""
    if _FIELD not in bytes(messages):
        return messages
    decoded: list[dict[str, Any]] = _decode(messages)
    for message in decoded:
        for each in message.get("tool_calls") or ():
            each.pop("extra_content", None)
    return msgspec.Raw(_encode(decoded))


def without_signatures(raw: bytes) -> bytes | None:
    """Items or messages with the call ids as the models gave them, for a provider with these APIs of its own, which
    takes no long ids; None where nothing has to be changed."""
    return _replace_ids(_strip_signature, raw) if _MARK.encode() in raw else None


def _strip_signature(found: re.Match[bytes]) -> bytes:
    own, mark, signed = found[2].rpartition(_MARK.encode())
    return found[1] + (own if mark and _is_base64url(signed.decode("utf-8", "replace")) is not None else found[2])
