"""The key under which an answer is cached: a digest of the request, of the terms of its workload, and of who may share
the answer.

Bodies are compared by meaning: the order of keys, white space, escapes and fields that no answer depends on make no
difference; every other field does, known or not. Keeps nothing.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache, partial
from typing import Any

import msgspec
from msgspec.structs import replace

from groundplan.blueprint.model import Rates
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.http.strict_json import DECODE_ERRORS
from groundplan.gateway.offload import READ_BYTES, in_thread
from groundplan.gateway.policy.catalog import Plan
from groundplan.gateway.policy.snapshot import Policy

_encode = msgspec.json.Encoder(order="sorted").encode
_object = msgspec.json.Decoder(dict[str, Any]).decode
_NO_RATES = Rates(input=0, output=0)
_MAX_DIGESTS = 1024
"""Digests that are remembered, since most requests to a cache repeat earlier ones."""
_NUMERIC_FIELDS = ("temperature", "top_p", "frequency_penalty", "presence_penalty")


def terms_of(plan: Plan) -> bytes:
    """Digest of the workload and of every deployment that may answer for it, as the blueprint has them, without prices:
    a dated price takes effect in the worker before any blueprint has it, and no answer depends on it."""
    places = {
        place.name: replace(place, rates=_NO_RATES) for each in plan.deployments_by_name.values() for place in each
    }
    return hashlib.sha256(msgspec.json.encode([plan.workload, [places[name] for name in sorted(places)]])).digest()


def request_digest(exchange: Exchange, ignored_fields: frozenset[str], terms: bytes, policy: Policy) -> bytes | None:
    """32 bytes for a checked call, whose body digest is computed; None where its body cannot be compared.

    `ignored_fields`: fields that the answer does not depend on, or that are compared otherwise.
    """
    if not exchange.body_digest:
        exchange.body_digest = body_digest(exchange, ignored_fields)
    return _digest(exchange, exchange.body_digest, terms, policy) if exchange.body_digest else None


def is_long(exchange: Exchange) -> bool:
    """Whether the body is so long that digesting it would hold up other calls."""
    return len(exchange.request.body) > READ_BYTES


async def compare_off_loop(exchange: Exchange, ignored_fields: frozenset[str]) -> None:
    """Compute the body digest of a checked call whose body is long, off the event loop."""
    if not exchange.body_digest:
        exchange.body_digest = await in_thread(partial(body_digest, exchange, ignored_fields))


def body_digest(exchange: Exchange, ignored_fields: frozenset[str]) -> bytes:
    """Digest of what a body says; empty where it cannot be compared. Touches nothing but this call."""
    fields = _fields(exchange)
    return b"" if fields is None else _fields_digest(fields, ignored_fields)


def frame_digest(
    exchange: Exchange, ignored_fields: frozenset[str], terms: bytes, policy: Policy
) -> tuple[bytes, str] | None:
    """(digest of everything but the last question, that question); None: the conversation does not end in a question of
    plain text."""
    fields = _fields(exchange)
    messages = fields.get("messages") if fields is not None else None
    if fields is None or not isinstance(messages, list) or not messages or not isinstance(messages[-1], dict):
        return None
    last = messages[-1]
    question = last.get("content")
    if last.get("role") != "user" or not isinstance(question, str):
        return None
    fields["messages"] = [*messages[:-1], {**last, "content": None}]
    fields_digest = _fields_digest(fields, ignored_fields)
    return (_digest(exchange, fields_digest, b"meaning" + terms, policy), question) if fields_digest else None


def _fields(exchange: Exchange) -> dict[str, Any] | None:
    try:
        return _object(exchange.request.body)
    except DECODE_ERRORS:
        return None


def _fields_digest(fields: dict[str, Any], ignored_fields: frozenset[str]) -> bytes:
    """Digest of a body's fields; empty: they cannot be compared."""
    for name in ignored_fields & fields.keys():
        del fields[name]
    for name in _NUMERIC_FIELDS:
        amount = fields.get(name)
        if type(amount) is int and abs(amount) < 1000:
            fields[name] = float(amount)
    try:
        return hashlib.sha256(_encode(fields)).digest()
    except (UnicodeEncodeError, ValueError, RecursionError):
        return b""


def _digest(exchange: Exchange, fields_digest: bytes, terms: bytes, policy: Policy) -> bytes:
    ask, workload = exchange.ask, exchange.workload
    if ask is None or workload is None or workload.cache is None:
        raise AssertionError("not checked")
    cap = workload.max_output_tokens
    head = (
        workload.name,
        exchange.endpoint,
        sharing_scope(exchange, workload.cache.scope, policy),
        policy.cleared.get(workload.name, 0),
        cap if ask.cap is None else min(ask.cap, cap),
        ask.copies,
        ask.header_lines.decode("latin-1"),
    )
    if exchange.trial is not None:
        terms += exchange.trial.key
    return _hashed(terms, head, fields_digest)


@lru_cache(_MAX_DIGESTS)
def _hashed(terms: bytes, head: tuple[str | int, ...], fields_digest: bytes) -> bytes:
    return hashlib.sha256(terms + _encode(head) + fields_digest).digest()


def sharing_scope(exchange: Exchange, scope: str, policy: Policy) -> str:
    """Who shares an answer with this client. In the scope `group`: people who are in exactly the same groups; if these
    are not known, nobody else."""
    if scope == "workload":
        return "workload"
    person, key = exchange.person, exchange.key
    if scope == "group" and (groups := policy.groups.get(person)) is not None:
        return f"group {groups}"
    if person or key is None:
        return f"person {person}"
    return f"key {key.family or key.id}"
