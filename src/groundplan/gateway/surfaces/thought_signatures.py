"""Signatures of thoughts, which some models want back with the function call that they thought of, and for which
Messages and Responses have no place: each travels in the id of that call, and goes back to nobody but such a model.

Clients give back an id as they got it. What is signed, and whether it still holds, is the provider's to know; chat has
a field of its own for it and is passed on as it is. Pure.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import msgspec

from groundplan.blueprint.model import Deployment

_MARK = "__gp_signed_"
_TOLD = re.compile(r"[A-Za-z0-9_-]+", re.ASCII).fullmatch
_IDS = re.compile(rb'("(?:id|call_id|tool_use_id)"\s*:\s*")([^"\\]*+)(?=")').sub
_FIELD = b'"extra_content"'
_SIGNED = frozenset({"gemini", "vertexai"})
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class _Google(msgspec.Struct, frozen=True):
    thought_signature: str = ""


class Extra(msgspec.Struct, frozen=True):
    """What Gemini says of a call beside it, at its OpenAI-shaped address."""

    google: _Google | None = None


def marked(name: str, extra: Extra | None) -> str:
    """The id of a call with what it is signed with."""
    if extra is None or extra.google is None or not extra.google.thought_signature or not name:
        return name
    told = urlsafe_b64encode(extra.google.thought_signature.encode("utf-8", "surrogatepass")).rstrip(b"=")
    return f"{name}{_MARK}{told.decode('ascii')}"


def plain(name: str) -> str:
    """The id as the model gave it."""
    return signature(name)[0]


def signature(name: str) -> tuple[str, dict[str, Any] | None]:
    """The id as the model gave it, and in chat's words what it was signed with; None: nothing that can be read."""
    own, mark, signed = name.rpartition(_MARK)
    if not mark or _TOLD(signed) is None:
        return name, None
    try:
        told = urlsafe_b64decode(signed + "=" * (-len(signed) % 4)).decode("utf-8", "surrogatepass")
    except ValueError:
        return name, None
    return own, {"google": {"thought_signature": told}}


def call(name: str, function: dict[str, Any]) -> dict[str, Any]:
    """An earlier call in chat, by the id that a client gave back."""
    own, signed = signature(name)
    made = {"id": own, "type": "function", "function": function}
    return made if signed is None else {**made, "extra_content": signed}


def reads(deployment: Deployment) -> bool:
    """Whether its model wants them back."""
    gemini = "gemini" in deployment.upstream_model.lower() or ".googleapis.com" in deployment.url
    return deployment.api in _SIGNED or (deployment.api == "openai" and gemini)


def for_others(messages: msgspec.Raw) -> msgspec.Raw:
    """Messages of a chat without signatures, for a model that has no use for them and may refuse them."""
    if _FIELD not in bytes(messages):
        return messages
    told: list[dict[str, Any]] = _decode(messages)
    for message in told:
        for each in message.get("tool_calls") or ():
            each.pop("extra_content", None)
    return msgspec.Raw(_encode(told))


def without(raw: bytes) -> bytes | None:
    """Items or messages with the ids of calls as their models gave them, for a provider that has those APIs itself and
    takes no long ones; None where nothing is to be changed."""
    return _IDS(_unmarked, raw) if _MARK.encode() in raw else None


def _unmarked(found: re.Match[bytes]) -> bytes:
    own, mark, signed = found[2].rpartition(_MARK.encode())
    return found[1] + (own if mark and _TOLD(signed.decode("utf-8", "replace")) is not None else found[2])
