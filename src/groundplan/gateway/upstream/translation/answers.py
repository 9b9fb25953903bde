"""Converts the library's answers of other providers to OpenAI's format, so that OpenAI's clients can read them; what it
loses of them is kept by `answer_patches`. Pure, but for the time and for new ids."""

from __future__ import annotations

import time
from typing import Any

from groundplan.core.ids import new_id

_TOTALS = frozenset({"prompt_tokens", "completion_tokens"})
USAGE_DETAILS = {
    "prompt_tokens_details": frozenset(
        {"cached_tokens", "cache_write_tokens", "audio_tokens", "image_tokens", "text_tokens"}
    ),
    "completion_tokens_details": frozenset(
        {
            "reasoning_tokens", "audio_tokens", "image_tokens", "text_tokens", "accepted_prediction_tokens",
            "rejected_prediction_tokens",
        }
    ),
}  # fmt: skip
"""Counts that OpenAI has names for, and the one of generated images, which have a price of their own."""
CHOICE_FILTERS, PROMPT_FILTERS = "content_filter_results", "prompt_filter_results"
"""What Azure's filters say: fields of a choice, and of an answer."""
_LEFT_OUT = "left_out"
"""A field of our own, in which the gateway is told what of a provider's answer chat has no field for."""
_NO_NAME = (None, "", "None")
"""The model's name in the library's answers if the provider did not say it."""


def to_dict(value: Any) -> dict[str, Any]:
    """An object of the library as a dict."""
    values: dict[str, Any] = value.model_dump(mode="json", exclude_none=True)
    return values


def to_completion(answer: Any, model: str, *, single_call: bool = False, counts_bytes: bool = False) -> dict[str, Any]:
    """A complete answer in OpenAI's format. `model`: the requested one, used if the provider names none, as Bedrock,
    whose answers have no id either. `single_call`: keep only the first tool call, since later ones may depend on its
    result. `counts_bytes`: the places of citations are in bytes of the text in UTF-8, as Google's."""
    converted = to_dict(answer)
    converted["id"] = converted.get("id") or f"chatcmpl-{new_id().hex}"
    converted["model"] = model if converted.get("model") in _NO_NAME else converted["model"]
    converted["created"] = converted.get("created") or int(time.time())
    if _LEFT_OUT in converted:
        converted[_LEFT_OUT] = sorted(set(converted[_LEFT_OUT]))
    for choice in converted["choices"]:
        message = choice["message"]
        _rename_reasoning(message)
        message.setdefault("content", None)
        message.setdefault("refusal", None)
        if counts_bytes:
            _count_characters(message, (message["content"] or "").encode())
        if single_call and message.get("tool_calls"):
            del message["tool_calls"][1:]
        choice.setdefault("logprobs", None)
    has_output = any(_has_output(choice["message"]) for choice in converted["choices"])
    if (usage := _plausible_usage(_merge_usage(None, converted.pop("usage", None)), has_output=has_output)) is not None:
        converted["usage"] = usage
    return converted


class ChunkConverter:
    """Converts the chunks of one stream to OpenAI's format: one id, one model, one role, one finish reason, and tool
    calls numbered from 0 on.

    For some providers the library gives each chunk an id of its own, and a role in none or in all of them, which
    OpenAI's clients join to `assistantassistant`. It calls an unnamed model `None`, numbers tool calls by their content
    block (or all of them 0), and reports the end of a call as the end of the answer.
    """

    __slots__ = (
        "_base",
        "_call_count",
        "_call_ids",
        "_end_filters",
        "_has_output",
        "_left_out",
        "_model",
        "_numbers",
        "_prompt_filters",
        "_reason",
        "_role",
        "_single_call",
        "_text",
        "_usage",
        "_with_arguments",
        "_without_arguments",
    )  # fmt: skip

    def __init__(self, model: str, *, single_call: bool = False, counts_bytes: bool = False) -> None:
        """`model`: the requested one. `single_call`, `counts_bytes`: as in `to_completion`."""
        self._model = model
        self._text = bytearray() if counts_bytes else None
        """The text so far, where citations count its bytes."""
        self._single_call = single_call
        self._base: dict[str, Any] = {}
        self._role: dict[str, Any] = {"role": "assistant"}
        """Empty once it was sent."""
        self._call_ids: set[str] = set()
        self._numbers: dict[int, int] = {}
        """Our number of the newest call, by the library's number."""
        self._without_arguments: set[int] = set()
        """Our numbers of calls without any arguments so far."""
        self._with_arguments: set[int] = set()
        self._call_count = 0
        self._has_output = False
        self._left_out = set[str]()
        self._end_filters: dict[str, Any] = {}
        """What the filters say with the end of the answer."""
        self._prompt_filters: dict[str, Any] = {}
        """What they say of the prompt; empty once it was sent."""
        self._reason: str | None = None
        self._usage: dict[str, Any] | None = None

    def convert(self, found: Any) -> dict[str, Any] | None:
        """The converted chunk; None if there is nothing to send for it now."""
        converted = to_dict(found)
        self._left_out.update(converted.pop(_LEFT_OUT, ()))
        self._usage = _merge_usage(self._usage, converted.pop("usage", None))
        if not self._base:
            self._base = {name: converted.get(name) for name in ("id", "object")}
            self._base["model"] = self._model if converted.get("model") in _NO_NAME else converted["model"]
            self._base["created"] = converted.get("created") or int(time.time())
        if tier := converted.get("service_tier"):
            self._base["service_tier"] = tier
        if filters := converted.pop(PROMPT_FILTERS, None):
            self._prompt_filters = {PROMPT_FILTERS: filters}
        choices, has_role = converted.get("choices") or [], False
        for choice in choices:
            self._reason = choice.get("finish_reason") or self._reason
            choice["finish_reason"] = None
            delta = choice["delta"]
            has_role |= delta.pop("role", None) is not None and bool(self._role)
            _rename_reasoning(delta)
            if self._text is not None:
                self._text += (delta.get("content") or "").encode()
                _count_characters(delta, self._text)
            self._has_output = self._has_output or _has_output(delta)
            if "tool_calls" in delta:
                self._number_calls(delta)
            if not delta and (filters := choice.get(CHOICE_FILTERS)):
                self._end_filters = {CHOICE_FILTERS: filters}
        if not has_role and not any(choice["delta"] for choice in choices):
            return None
        choices[0]["delta"] = self._role | choices[0]["delta"]
        converted = {**converted, **self._base, **self._prompt_filters}
        self._role, self._prompt_filters = {}, {}
        return converted

    def _number_calls(self, delta: dict[str, Any]) -> None:
        """Number the calls in `delta`, and drop those that are not to be sent."""
        calls = delta.pop("tool_calls") or []
        for call in calls:
            call["index"] = self._number_of_call(call)
        if kept := [call for call in calls if not (self._single_call and call["index"])]:
            delta["tool_calls"] = kept
        for call in kept:
            self._without_arguments.add(call["index"])
            if (call.get("function") or {}).get("arguments"):
                self._with_arguments.add(call["index"])
        self._without_arguments -= self._with_arguments

    def final_chunks(self) -> list[dict[str, Any]]:
        """The finish reason, if there was one, and the usage in a chunk of its own. Before them `{}` as arguments of
        calls that have none: callers parse them as JSON, and Anthropic streams nothing for an empty object."""
        chunks = []
        if self._reason not in (None, "length") and self._without_arguments:
            calls = [{"index": number, "function": {"arguments": "{}"}} for number in sorted(self._without_arguments)]
            chunks.append(
                {**self._base, "choices": [{"index": 0, "delta": {"tool_calls": calls}, "finish_reason": None}]}
            )
        if self._reason is not None:
            reason = "tool_calls" if self._reason == "stop" and self._call_count else self._reason
            last = {"index": 0, "delta": self._role, "finish_reason": reason, **self._end_filters}
            told = {_LEFT_OUT: sorted(self._left_out)} if self._left_out else {}
            told |= self._prompt_filters
            chunks.append({**self._base, "choices": [last], **told})
        if (usage := _plausible_usage(self._usage, has_output=self._has_output)) is not None:
            chunks.append({**self._base, "choices": [], "usage": usage})
        return chunks

    def _number_of_call(self, call: dict[str, Any]) -> int:
        name, place = call.get("id") or "", call.get("index") or 0
        if (name and name not in self._call_ids) or place not in self._numbers:
            self._call_ids.add(name)
            self._numbers[place] = self._call_count
            self._call_count += 1
        return self._numbers[place]


def _rename_reasoning(message: dict[str, Any]) -> None:
    """Rename the library's `reasoning` as OpenAI-shaped servers call it."""
    reasoning = message.pop("reasoning", None)
    text = reasoning.get("content") if isinstance(reasoning, dict) else reasoning
    if isinstance(text, str) and text:
        message["reasoning_content"] = text


def _count_characters(message: dict[str, Any], text: bytes | bytearray) -> None:
    """Change the places of a message's citations from bytes of the text to characters, as OpenAI counts them. A place
    behind the text so far becomes its end."""
    for annotation in message.get("annotations") or ():
        cited = annotation["url_citation"]
        for name in ("start_index", "end_index"):
            cited[name] = len(text[: cited[name]].decode("utf-8", "ignore"))


def _merge_usage(one: dict[str, Any] | None, two: dict[str, Any] | None) -> dict[str, Any] | None:
    """The larger of two usage reports, count by count; a stream may report usage in parts."""
    if two is None:
        return one
    merged = dict(one or {})
    for name, value in two.items():
        if isinstance(value, dict) and name in USAGE_DETAILS:
            known = {count: number for count, number in value.items() if count in USAGE_DETAILS[name]}
            merged[name] = {**known, **{n: max(v, known.get(n, 0)) for n, v in merged.get(name, {}).items()}}
        elif isinstance(value, int) and name in _TOTALS:
            merged[name] = max(value, merged.get(name, 0))
    if "prompt_tokens" in merged:
        merged["total_tokens"] = merged["prompt_tokens"] + merged.get("completion_tokens", 0)
    return merged


def _has_output(message: dict[str, Any]) -> bool:
    return any(message.get(name) for name in ("content", "tool_calls", "reasoning_content", "images"))


def _plausible_usage(usage: dict[str, Any] | None, *, has_output: bool) -> dict[str, Any] | None:
    """The usage; None if it says that no token was read, or that none was written of an answer that has output: the
    library reports 0 for what a provider did not say, or not yet."""
    if usage is None or not usage.get("prompt_tokens") or (has_output and not usage.get("completion_tokens")):
        return None
    return usage
