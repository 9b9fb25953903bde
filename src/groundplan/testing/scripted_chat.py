"""The scripted model in OpenAI's chat completions: requests, the words that answer them, and what they use. Pure.

Requests of other APIs are read as chats, and answered by the same words.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from groundplan.testing.reading import Reader, by_words
from groundplan.testing.script import Script


class Message(msgspec.Struct):
    """One message of a chat."""

    role: str
    content: str | list[dict[str, Any]] | None = None

    def text(self) -> str:
        if isinstance(self.content, list):
            return " ".join(str(part.get("text", "")) for part in self.content)
        return self.content or ""


class StreamOptions(msgspec.Struct):
    include_usage: bool = False
    continuous_usage_stats: bool = False


class ChatRequest(msgspec.Struct):
    """What of a request the scripted model looks at."""

    messages: list[Message]
    model: str = "scripted"
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    tool_choice: msgspec.Raw = msgspec.Raw(b'"auto"')

    def finish_reason(self, reason: str, *, tool: bool) -> str:
        """The finish_reason. As at OpenAI, it is not `tool_calls` where the request named the tool."""
        return reason if not tool or bytes(self.tool_choice).startswith(b"{") else "tool_calls"


def answer_text(messages: list[tuple[str, str]], model: str = "scripted", read: Reader = by_words) -> str:
    """The scripted answer to (role, text) messages, from the first system message with numbered passages."""
    question = next((text for role, text in reversed(messages) if role == "user"), "")
    for role, text in messages:
        if role == "system" and (found := read(model, question, text)):
            return found
    words = " ".join(question.split())[:200]
    return f"You asked: {words}" if words else "There was no question."


def answer_words(chat: ChatRequest, script: Script, read: Reader) -> tuple[list[str], str]:
    """Return the tokens of the answer (one a word, at most the caller's cap) and the finish reason."""
    caps = [cap for cap in (chat.max_tokens, chat.max_completion_tokens) if cap is not None]
    words = _all_words(chat.model, chat.messages, script, read)
    if len(chat.messages) > 2 and chat.messages[-2].role == "assistant":
        sent, whole = chat.messages[-2].text(), "".join(_all_words(chat.model, chat.messages[:-2], script, read))
        if sent and whole.startswith(sent):
            words = _split_words(whole[max(0, len(sent) - script.overlap) :])
    limit = min(caps) if caps else len(words)
    return words[:limit], "length" if len(words) > limit else "stop"


def _all_words(model: str, messages: list[Message], script: Script, read: Reader) -> list[str]:
    if (said := script.say) is not None:
        return [said[at : at + 3] for at in range(0, len(said), 3)]
    words = _split_words(answer_text([(m.role, m.text()) for m in messages], model, read))
    if script.tokens is None:
        return words
    words = [*words[:-1], f"{words[-1].rstrip()} "] if len(words) < script.tokens else words
    return (words * (script.tokens // max(1, len(words)) + 1))[: script.tokens]


def count_usage(chat: ChatRequest, words: int, mode: str, script: Script) -> dict[str, Any]:
    """The usage of an answer of so many `words`, as OpenAI has it; wrong where the mode says so."""
    cache_read, cache_write = script.cache_read, script.cache_write
    prompt = sum(len(m.text().split()) + 4 for m in chat.messages) + cache_read + cache_write
    completion = words * (chat.n or 1)
    if mode == "miscount":
        completion = completion * 3 + 7
    if mode == "undercount":
        completion = min(completion, 1)
    counts = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    if not cache_read and not cache_write:
        return counts
    return {**counts, "prompt_tokens_details": {"cached_tokens": cache_read, "cache_write_tokens": cache_write}}


def _split_words(text: str) -> list[str]:
    """One token a word."""
    return re.findall(r"\s*\S+\s*", text)
