"""Replaces ids of tool calls that a provider rejects, as in a conversation that began at another provider. A replaced
id is always the same, in the call and in its result. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import lru_cache, partial

import msgspec

from groundplan.blueprint.model import Deployment
from groundplan.gateway.upstream.providers import VERTEX_MISTRAL

_COMMON_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_NINE_CHARACTERS = re.compile(r"[A-Za-z0-9]{9}", re.ASCII)
_OPENAI = "openai.com"
_FORTY_CHARACTERS = re.compile(r".{0,40}", re.DOTALL)
_ID_PATTERNS = {
    "anthropic": _COMMON_ID,
    "bedrock": _COMMON_ID,
    "mistral": _NINE_CHARACTERS,
    VERTEX_MISTRAL: _NINE_CHARACTERS,
    _OPENAI: _FORTY_CHARACTERS,
}
_CALL_ID_NAME = b'"tool_call_id"'
_find_long_id = re.compile(rb'"tool_call_id"\s*:\s*"[^"]{41}').search
_OPENAI_URL = re.compile(r"https?://[^/]*(?:\.openai\.com|\.openai\.azure\.com|\.services\.ai\.azure\.com)(?:[:/]|\Z)")
_find_result_ids = re.compile(rb'"tool_use_id"\s*:\s*"([^"]*)"').findall
_match_common_id = re.compile(rb"[A-Za-z0-9_-]{1,64}").fullmatch

_DEPLOYMENTS = 256
"""Size of the cache of id rules."""

_Objects = list[dict[str, msgspec.Raw]]
_objects = msgspec.json.Decoder(_Objects).decode
_text = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder().encode


def accepted_id(api: str, name: str) -> str:
    """The id itself if the provider accepts it, else its replacement."""
    known = _ID_PATTERNS.get(api)
    if known is None or known.fullmatch(name):
        return name
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:9]


@lru_cache(_DEPLOYMENTS)
def _id_rules(url: str, model: str) -> str:
    """Whose id rules apply at an OpenAI-shaped address, by the address or the model's name; empty: none are known."""
    if ".mistral.ai" in url or model.startswith(("mistral/", "mistralai/")):
        return "mistral"
    return _OPENAI if model.startswith(("openai/", "azure/")) or _OPENAI_URL.match(url) is not None else ""


def with_chat_ids(deployment: Deployment, messages: msgspec.Raw, body: bytes = b"") -> bytes | None:
    """Chat messages with ids that an OpenAI-shaped deployment accepts: Mistral's own format, or OpenAI's forty
    characters, of which vLLM makes more. None if no id has to be replaced. `body`: the request that contains the
    messages, if there is one."""
    if body and body.find(_CALL_ID_NAME) < 0:
        return None  # as in nearly every request, and found without copying a long one
    api = _id_rules(deployment.url, deployment.model)
    if not api or (raw := bytes(messages)).find(_CALL_ID_NAME) < 0:
        return None
    if api == _OPENAI and _find_long_id(raw) is None:
        return None
    return _replace_ids(raw, partial(_change_chat_message, api))


def with_anthropic_ids(messages: bytes) -> bytes | None:
    """Messages in Anthropic's format with ids that it accepts; None if no id has to be replaced."""
    # searching is much faster than decoding
    if b'"tool_use_id"' not in messages or all(map(_match_common_id, _find_result_ids(messages))):
        return None
    return _replace_ids(messages, _change_anthropic_message)


def _replace_ids(messages: bytes, change: Callable[[dict[str, msgspec.Raw]], bool]) -> bytes | None:
    """The messages after `change`; None if nothing changed. Messages of an unexpected shape stay as they are: the
    provider says what is wrong with them."""
    try:
        decoded = _objects(messages)
        return _encode(decoded) if any([change(each) for each in decoded]) else None
    except msgspec.DecodeError:
        return None


def _change_chat_message(api: str, message: dict[str, msgspec.Raw]) -> bool:
    changed = _change_id(api, message, "tool_call_id")
    return _change_items(message, "tool_calls", lambda call: _change_id(api, call, "id")) or changed


def _change_anthropic_message(message: dict[str, msgspec.Raw]) -> bool:
    return bytes(message.get("content", b"")).startswith(b"[") and _change_items(message, "content", _change_block)


def _change_block(block: dict[str, msgspec.Raw]) -> bool:
    name = {b'"tool_use"': "id", b'"tool_result"': "tool_use_id"}.get(bytes(block.get("type", b"")), "")
    return _change_id("anthropic", block, name)


def _change_items(holder: dict[str, msgspec.Raw], name: str, change: Callable[[dict[str, msgspec.Raw]], bool]) -> bool:
    raw = holder.get(name)
    if raw is None or bytes(raw) == b"null":
        return False
    items = _objects(raw)
    if not any([change(each) for each in items]):
        return False
    holder[name] = msgspec.Raw(_encode(items))
    return True


def _change_id(api: str, holder: dict[str, msgspec.Raw], name: str) -> bool:
    raw = holder.get(name)
    if raw is None or bytes(raw) == b"null":
        return False
    id = _text(raw)
    if (own := accepted_id(api, id)) == id:
        return False
    holder[name] = msgspec.Raw(_encode(own))
    return True
