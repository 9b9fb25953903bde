"""Continues a broken stream of the older completions.

An upstream that has them goes on with prompt and text, any other is asked in chat. Several texts, log probabilities,
structured output, `echo` and `suffix` are not continued. Pure.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from groundplan.gateway.call.ask import Ask
from groundplan.gateway.resuming.chunks import ContinuedChunks
from groundplan.gateway.resuming.continued_relay import (
    INSTRUCTION,
    SentAnswer,
    is_set,
    remaining_tokens,
    structured_output_reason,
    with_caps,
)
from groundplan.gateway.surfaces.body import has_tokens
from groundplan.gateway.surfaces.completions import Unfinished, prompts_of

ENDPOINT = "completions"
_encode = msgspec.json.encode


def obstacle(ask: Ask) -> str:
    """Why the stream of this request cannot be continued; empty where it can."""
    if ask.copies > 1:
        return "several texts (n, best_of, prompts) cannot be continued"
    if has_tokens(ask.parsed):
        return "a prompt that is given as tokens cannot be continued"
    found = next((name for name in ("logprobs", "echo", "suffix") if is_set(ask, name)), "")
    return f"{found} cannot be continued" if found else structured_output_reason(ask)


def rest_request(ask: Ask, sent: SentAnswer, cap: int) -> Ask:
    """The request for the rest of the answer. `cap`: the most output tokens of the whole answer."""
    (prompt,) = prompts_of(ask)
    if not isinstance(prompt, str):
        raise AssertionError("it cannot be continued")
    left = remaining_tokens(cap, sent)
    raw = msgspec.Raw(_encode(prompt + sent.text))
    grown = len(sent.text.encode()) + len(INSTRUCTION)
    fields = {**with_caps(ask.fields, left, sent), "prompt": raw, "max_tokens": msgspec.Raw(b"%d" % left)}
    parsed = Unfinished(prompt, sent.text, INSTRUCTION)
    return replace(
        ask, fields=fields, body=b"", messages=ask.messages + 2, size=ask.size + 2 * grown, cap=left, parsed=parsed
    )


class ContinuedCompletion(ContinuedChunks):
    """Continues streams of this surface."""

    __slots__ = ()

    def _trim_choice(self, choice: dict[str, Any], head: dict[str, Any]) -> bytes:  # noqa: ARG002 -- text has no event before it
        text = self._without_repetition(choice.get("text") or "")
        if choice.get("finish_reason") and self._may_repeat:
            text += self._release_held_text()
        choice["text"] = text
        return b""

    def _has_content(self, choice: dict[str, Any]) -> bool:
        return bool(choice["text"])

    def _updated(self, sent: SentAnswer, chunk: dict[str, Any]) -> SentAnswer:
        texts = [choice.get("text") or "" for choice in chunk.get("choices") or []]
        sent.text_buffer.write("".join(texts))
        return replace(sent, text_events=sent.text_events + sum(1 for text in texts if text))
