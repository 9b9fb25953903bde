"""Ids of calls of tools, as a provider takes them: a conversation that began at another one bears such as it refuses.
Each of those becomes one that is always the same, in the call and in its result. Pure.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import lru_cache, partial

import msgspec

from groundplan.blueprint.model import Deployment
from groundplan.gateway.upstream.providers import VERTEX_MISTRAL

_USUAL = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_NINE = re.compile(r"[A-Za-z0-9]{9}", re.ASCII)
_OPENAIS = "openai.com"
_FORTY = re.compile(r".{0,40}", re.DOTALL)
_TAKEN = {"anthropic": _USUAL, "bedrock": _USUAL, "mistral": _NINE, VERTEX_MISTRAL: _NINE, _OPENAIS: _FORTY}
_CALLED = b'"tool_call_id"'
_LONG = re.compile(rb'"tool_call_id"\s*:\s*"[^"]{41}').search
_HOSTS = re.compile(r"https?://[^/]*(?:\.openai\.com|\.openai\.azure\.com|\.services\.ai\.azure\.com)(?:[:/]|\Z)")
_RESULTS = re.compile(rb'"tool_use_id"\s*:\s*"([^"]*)"').findall
_USUAL_RESULT = re.compile(rb"[A-Za-z0-9_-]{1,64}").fullmatch

_DEPLOYMENTS = 256
"""Of which it is remembered what they take."""

_Objects = list[dict[str, msgspec.Raw]]
_objects = msgspec.json.Decoder(_Objects).decode
_text = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder().encode


def taken(api: str, name: str) -> str:
    """The id of a call where the provider takes it, else one of its own."""
    known = _TAKEN.get(api)
    if known is None or known.fullmatch(name):
        return name
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:9]


@lru_cache(_DEPLOYMENTS)
def _whose(url: str, model: str) -> str:
    """Who takes no other ids than its own at an OpenAI-shaped address, by that or by the model's name; empty: it is
    not known of anybody."""
    if ".mistral.ai" in url or model.startswith(("mistral/", "mistralai/")):
        return "mistral"
    return _OPENAIS if model.startswith(("openai/", "azure/")) or _HOSTS.match(url) is not None else ""


def for_chat(deployment: Deployment, messages: msgspec.Raw, body: bytes = b"") -> bytes | None:
    """Messages of a chat with ids that an OpenAI-shaped deployment takes: Mistral's own form, or OpenAI's forty signs,
    of which vLLM makes more. None where it takes all of them. `body`: in which they are, where there is one."""
    if body and body.find(_CALLED) < 0:
        return None  # as in nearly every one, and nothing of a long one is copied to see it
    api = _whose(deployment.url, deployment.model)
    if not api or (raw := bytes(messages)).find(_CALLED) < 0:
        return None
    if api == _OPENAIS and _LONG(raw) is None:
        return None
    return _exchanged(raw, partial(_chat, api))


def for_anthropic(messages: bytes) -> bytes | None:
    """Messages as Anthropic has them, with ids that it takes; None where it takes all of them."""
    if b'"tool_use_id"' not in messages or all(map(_USUAL_RESULT, _RESULTS(messages))):  # a search is much quicker
        return None
    return _exchanged(messages, _turn)


def _exchanged(messages: bytes, change: Callable[[dict[str, msgspec.Raw]], bool]) -> bytes | None:
    """What is of another shape than its API has it stays as it is: whoever is asked says what is wrong with it."""
    try:
        told = _objects(messages)
        return _encode(told) if any([change(each) for each in told]) else None
    except msgspec.DecodeError:
        return None


def _chat(api: str, message: dict[str, msgspec.Raw]) -> bool:
    changed = _change(api, message, "tool_call_id")
    return _each(message, "tool_calls", lambda call: _change(api, call, "id")) or changed


def _turn(message: dict[str, msgspec.Raw]) -> bool:
    return bytes(message.get("content", b"")).startswith(b"[") and _each(message, "content", _block)


def _block(block: dict[str, msgspec.Raw]) -> bool:
    name = {b'"tool_use"': "id", b'"tool_result"': "tool_use_id"}.get(bytes(block.get("type", b"")), "")
    return _change("anthropic", block, name)


def _each(holder: dict[str, msgspec.Raw], name: str, change: Callable[[dict[str, msgspec.Raw]], bool]) -> bool:
    raw = holder.get(name)
    if raw is None or bytes(raw) == b"null":
        return False
    told = _objects(raw)
    if not any([change(each) for each in told]):
        return False
    holder[name] = msgspec.Raw(_encode(told))
    return True


def _change(api: str, holder: dict[str, msgspec.Raw], name: str) -> bool:
    raw = holder.get(name)
    if raw is None or bytes(raw) == b"null":
        return False
    given = _text(raw)
    if (own := taken(api, given)) == given:
        return False
    holder[name] = msgspec.Raw(_encode(own))
    return True
