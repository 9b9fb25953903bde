"""The gateway's own answer that nothing was found, where no passage reaches the workload's floor of relevance.

No model is asked, so none fills the gap from its own knowledge, and the call costs nothing; it is journalled like any
other. A request with tools or a required form of the answer could not use a sentence: for it, and where the answer is
stored or repeated under a key, the model is asked and told to say so.
"""

from __future__ import annotations

import time

import msgspec

from groundplan.gateway.caching.replay_forms import CHAT_REPLAY_FORMS
from groundplan.gateway.call import settle
from groundplan.gateway.call.ask import Ask
from groundplan.gateway.call.context import Gateway
from groundplan.gateway.call.delivery.to_client import EVENT_STREAM
from groundplan.gateway.call.exchange import Exchange
from groundplan.gateway.call.stored_answers import stores
from groundplan.gateway.resuming.continued_relay import STRUCTURED_FIELDS
from groundplan.gateway.resuming.messages import wants_structured_output
from groundplan.gateway.surfaces import answers

NOT_FOUND_TEXT = "Not found in what you may see."
NOT_FOUND_MODEL = "groundplan"
"""Named as the model of the gateway's own answer."""
_FORM_FIELDS = frozenset({"tools", "functions", "response_format", "text", *STRUCTURED_FIELDS})


def answers_not_found(exchange: Exchange) -> bool:
    """Whether the gateway itself answers that nothing was found."""
    ask, grounded, interface = exchange.ask, exchange.grounding_notes, exchange.interface
    if ask is None or grounded is None or not grounded.abstained or interface.via_chat is None:
        return False
    elsewhere = exchange.trial is not None or exchange.idempotency is not None or stores(exchange)
    return not elsewhere and _FORM_FIELDS.isdisjoint(ask.fields) and not wants_structured_output(ask)


def send_not_found(gateway: Gateway, exchange: Exchange) -> None:
    """Send the answer that nothing was found. Raises `Unavailable` where the journal cannot take it."""
    ask, codec, response = exchange.ask, exchange.interface.via_chat, exchange.response
    if ask is None or codec is None:
        raise AssertionError("not checked")
    exchange.first_byte = time.perf_counter_ns()
    left = settle.remaining_budget(gateway, exchange)
    settle.finish_or_raise(gateway, exchange, "ok", 200)
    lines, facts = answers.headers(exchange, cost=True), answers.facts(exchange, left)
    whole = _answer(exchange, ask)
    if ask.stream:
        relay = codec.new_relay(ask)
        data = b"".join(
            [relay.feed(event) for event in CHAT_REPLAY_FORMS.to_events(whole) or ()]
        ) + relay.closing_events(facts)
        response.end(data, response.start(200, EVENT_STREAM + lines))
    else:
        data = exchange.interface.with_facts(codec.parse_answer(whole, ask).data, facts)
        response.send(200, data, lines)
    if exchange.sent_chunks is not None:
        exchange.sent_chunks.append(data)


def _answer(exchange: Exchange, ask: Ask) -> bytes:
    """The answer as an upstream of chat completions would send it."""
    message = {"role": "assistant", "content": NOT_FOUND_TEXT}
    choices = [{"index": at, "message": message, "finish_reason": "stop"} for at in range(ask.copies)]
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    id, created = f"chatcmpl-{exchange.id.decode('ascii')}", int(time.time())
    return msgspec.json.encode(
        {
            "id": id,
            "object": "chat.completion",
            "created": created,
            "model": NOT_FOUND_MODEL,
            "choices": choices,
            "usage": usage,
        }
    )
