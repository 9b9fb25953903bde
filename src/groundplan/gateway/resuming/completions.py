"""Going on with a broken stream of the older completions.

An upstream that has them goes on with prompt and text, any other is asked in chat. Several texts, log probabilities,
structured output, `echo` and `suffix` are not continued. Pure.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from groundplan.gateway.call.ask import Ask
from groundplan.gateway.resuming.chunks import ContinuedChunks
from groundplan.gateway.resuming.story import (
    INSTRUCTION,
    Sent,
    is_set,
    remaining_tokens,
    structured_output_reason,
    with_caps,
)
from groundplan.gateway.surfaces.body import has_tokens
from groundplan.gateway.surfaces.completions import Unfinished, prompts_of

ENDPOINT = "completions"
_encode = msgspec.json.encode


def forbidden(ask: Ask) -> str:
    """Why a stream that is asked so cannot be continued; empty where it can."""
    if ask.copies > 1:
        return "several texts (n, best_of, prompts) cannot be continued"
    if has_tokens(ask.parsed):
        return "a prompt that is given as tokens cannot be continued"
    found = next((name for name in ("logprobs", "echo", "suffix") if is_set(ask, name)), "")
    return f"{found} cannot be continued" if found else structured_output_reason(ask)


def rest(ask: Ask, sent: Sent, cap: int) -> Ask:
    """The caller's ask, for the rest of the answer. `cap`: output tokens that the whole of it may have."""
    (prompt,) = prompts_of(ask)
    if not isinstance(prompt, str):
        raise AssertionError("it cannot be continued")
    left = remaining_tokens(cap, sent)
    raw = msgspec.Raw(_encode(prompt + sent.text))
    grown = len(sent.text.encode()) + len(INSTRUCTION)
    fields = {**with_caps(ask.fields, left), "prompt": raw, "max_tokens": msgspec.Raw(b"%d" % left)}
    typed = Unfinished(prompt, sent.text, INSTRUCTION)
    return replace(
        ask, fields=fields, body=b"", messages=ask.messages + 2, size=ask.size + 2 * grown, cap=left, parsed=typed
    )


class ContinuedCompletion(ContinuedChunks):
    """See the module."""

    __slots__ = ()

    def _choice(self, choice: dict[str, Any], head: dict[str, Any]) -> bytes:  # noqa: ARG002 -- text has no event before it
        text = self._trim(choice.get("text") or "")
        if choice.get("finish_reason") and self._open:
            text += self._released()
        choice["text"] = text
        return b""

    def _tells(self, choice: dict[str, Any]) -> bool:
        return bool(choice["text"])

    def _noted(self, sent: Sent, chunk: dict[str, Any]) -> Sent:
        texts = [choice.get("text") or "" for choice in chunk.get("choices") or []]
        sent.said.write("".join(texts))
        return replace(sent, pieces=sent.pieces + sum(1 for text in texts if text))
