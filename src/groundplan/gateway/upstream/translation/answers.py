"""What the library makes of other providers' answers, as OpenAI tells it, so that OpenAI's clients can put it together.
Pure, but for the time and for new ids.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from typing import Any

from groundplan.core.ids import new_id

_TOTALS = frozenset({"prompt_tokens", "completion_tokens"})
_DETAILS = {
    "prompt_tokens_details": frozenset({"cached_tokens", "cache_write_tokens", "audio_tokens"}),
    "completion_tokens_details": frozenset({"reasoning_tokens", "audio_tokens", "image_tokens"}),
}
"""Counts that OpenAI has names for, and of images that were drawn, which have a price of their own."""
_FINISHED = frozenset(
    {
        "FINISH_REASON_UNSPECIFIED", "STOP", "MAX_TOKENS", "SAFETY", "RECITATION", "PROHIBITED_CONTENT", "BLOCKLIST",
        "SPII", "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION",
    }
)  # fmt: skip
"""Ends of Gemini's answers that OpenAI has a word for, and the one that says nothing."""
_MALFORMED = frozenset({"malformed_model_output", "malformed_tool_use"})
_NO_NAME = (None, "", "None")
"""What the library calls a model that nobody told."""


def plain(value: Any) -> dict[str, Any]:
    """A type of the library's as values."""
    made: dict[str, Any] = value.model_dump(mode="json", exclude_none=True)
    return made


def completion(found: Any, model: str, *, one: bool = False) -> dict[str, Any]:
    """A whole answer. `model`: that was asked for, and is told where the provider tells none, as Bedrock does, whose
    answers have no id either. `one`: its first call of a tool alone, since the next ones may want what comes of it."""
    made = plain(found)
    made["id"] = made.get("id") or f"chatcmpl-{new_id().hex}"
    made["model"] = model if made.get("model") in _NO_NAME else made["model"]
    made["created"] = made.get("created") or int(time.time())
    for choice in made["choices"]:
        message = choice["message"]
        _reasoning(message)
        message.setdefault("content", None)
        message.setdefault("refusal", None)
        if one and message.get("tool_calls"):
            del message["tool_calls"][1:]
        choice.setdefault("logprobs", None)
    spoke = any(_speaks(choice["message"]) for choice in made["choices"])
    if (usage := _told(_larger(None, made.pop("usage", None)), spoke=spoke)) is not None:
        made["usage"] = usage
    return made


def of_azure(told: Callable[..., Any]) -> Callable[..., Any]:
    """How the library tells an answer of Azure's, or a chunk of one, with what it leaves out: of the usage how much was
    read from a cache or reasoned, choices whose `delta` is empty, though OpenAI's models end with such a one, and that
    the model refused."""

    def whole(found: Any, **more: Any) -> Any:
        made = told(found, **more)
        for each, choice in zip(found.choices or (), made.choices, strict=False):
            if refusal := (each.get("message") or each.get("delta") or {}).get("refusal"):
                (choice.message if hasattr(choice, "message") else choice.delta).refusal = refusal
        lacking: dict[str, Any] = {}
        if not made.choices and (ends := [_end(each) for each in found.choices or () if each.finish_reason]):
            lacking["choices"] = ends
        given = found.usage or {}
        if made.usage is not None and (details := {name: given[name] for name in _DETAILS if given.get(name)}):
            lacking["usage"] = {**made.usage.model_dump(), **details}
        return type(made).model_validate({**made.model_dump(), **lacking}) if lacking else made

    return whole


class BrokenOff(Exception):
    """An answer that its provider did not finish, and says so at its end."""


def of_bedrock(told: Callable[..., Any]) -> Callable[..., Any]:
    """The same of Bedrock: calls of tools in an answer that ended otherwise, as at its cap, of which the library tells
    nothing. Raises `BrokenOff`."""

    def whole(found: dict[str, Any], **more: Any) -> Any:
        check_bedrock(found)
        content = found["output"]["message"]["content"]
        if found.get("stopReason") == "tool_use" or not any("toolUse" in each for each in content):
            return told(found, **more)
        made = told({**found, "stopReason": "tool_use"}, **more)
        _as_it_ended(made, told({**found, "output": {"message": {"content": []}}}, **more))
        return made

    return whole


def check_bedrock(ended: dict[str, Any]) -> None:
    """Raises `BrokenOff` where a model of Bedrock's said what cannot be read: the library tells it as an end like any
    other."""
    if (reason := ended.get("stopReason")) in _MALFORMED:
        raise BrokenOff(f"the answer ended with {reason}")


def _as_it_ended(made: Any, other: Any) -> None:
    if (reason := other.choices[0].finish_reason) != "stop":
        made.choices[0].finish_reason = reason


def of_cohere(told: Callable[..., Any]) -> Callable[..., Any]:
    """The same of Cohere: what is planned in a stream before a tool is called, what was reasoned before in a whole
    answer, the calls in one that ended at its cap, the tokens that it bills, and that an answer was not finished, which
    the library tells as its end. Raises `BrokenOff`."""

    def whole(found: Any, **more: Any) -> Any:
        streamed = getattr(found, "delta", None)
        ended = found if streamed is None else streamed
        reason = getattr(ended, "finish_reason", None)
        if reason in ("ERROR", "TIMEOUT"):
            raise BrokenOff(f"the answer ended with {reason}")
        made = told(found, **more)
        message = getattr(found, "message", None)
        if reason != "TOOL_CALL" and getattr(message, "tool_calls", None):
            other, made = made, told(found.model_copy(update={"finish_reason": "TOOL_CALL"}), **more)
            _as_it_ended(made, other)
        made = _billed(made, getattr(ended, "usage", None))
        if streamed is None:
            parts = getattr(message, "content", None) or ()
            return _with_thoughts(made, "".join(each.thinking for each in parts if each.type == "thinking"))
        if found.type == "tool-plan-delta":
            made.choices[0].delta.content = streamed.message.tool_plan
        return made

    return whole


def _billed(made: Any, usage: Any) -> Any:
    """With the tokens that Cohere bills, where it says so: the library tells all that its model read, with what Cohere
    itself puts in front of each prompt, hundreds of tokens that nobody pays."""
    units = getattr(usage, "billed_units", None)
    if units is None or not (units.input_tokens or units.output_tokens):
        return made
    read, written = math.ceil(units.input_tokens or 0), math.ceil(units.output_tokens or 0)
    told: dict[str, Any] = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    if cached := min(int(usage.cached_tokens or 0), read):
        told["prompt_tokens_details"] = {"cached_tokens": cached}
    return type(made).model_validate({**made.model_dump(), "usage": told})


def _with_thoughts(made: Any, thoughts: str) -> Any:
    if not thoughts or made.choices[0].message.reasoning is not None:
        return made
    lacking = made.model_dump()
    lacking["choices"][0]["message"]["reasoning"] = {"content": thoughts}
    return type(made).model_validate(lacking)


def of_mistral(told: Callable[..., Any]) -> Callable[..., Any]:
    """The same of Mistral, whose own ends of a stream the library tells as they are. Raises `BrokenOff`."""

    def whole(found: Any, **more: Any) -> Any:
        for choice in getattr(found, "data", found).choices:
            if choice.finish_reason == "error":
                raise BrokenOff("the answer ended with error")
            if choice.finish_reason == "model_length":
                choice.finish_reason = "length"
        return told(found, **more)

    return whole


def of_gemini(told: Callable[..., Any]) -> Callable[..., Any]:
    """The same of Gemini: an answer without a word, for which the library tells no choice, and an id of its own for
    each, where the library tells the same one for all."""

    def whole(found: Any, **more: Any) -> Any:
        if isinstance(found, tuple):  # a chunk is none
            answer: dict[str, Any] = found[0]
            answer["id"] = ""
            if not answer["choices"]:
                message = {"role": "assistant", "content": ""}
                answer["choices"] = [{"index": 0, "message": message, "finish_reason": "stop"}]
        return told(found, **more)

    return whole


def finished(send: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """What Gemini answers whole, where it finished it: the library tells a call of a tool that came out wrong, and all
    else that it does not know, as an end like any other. Raises `BrokenOff`."""

    async def sent(*given: Any, **more: Any) -> Any:
        found = await send(*given, **more)
        for candidate in (found.candidates or ())[:1]:
            reason = getattr(candidate.finish_reason, "value", None)
            if reason is not None and reason not in _FINISHED:
                raise BrokenOff(f"the answer ended with {reason}")
        return found

    return sent


def of_google(told: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """How the library tells vectors of Google's, with the tokens that were read for them where Google says so: the
    library says 0 whatever it was told."""

    def whole(found: Any) -> Any:
        made, result = told(found), found["result"]
        known = [getattr(each, "statistics", None) for each in result.embeddings or ()]
        counts = [getattr(each, "token_count", None) or 0 for each in known]
        usage = getattr(result, "usage_metadata", None)
        tokens = getattr(usage, "prompt_token_count", None) or (sum(counts) if all(counts) else 0)
        made.usage.prompt_tokens = made.usage.total_tokens = math.ceil(tokens)
        return made

    return whole


MENDED = {
    "azure": of_azure,
    "bedrock": of_bedrock,
    "cohere": of_cohere,
    "gemini": of_gemini,
    "mistral": of_mistral,
    "vertexai": of_gemini,
}
"""Providers whose answers the library does not tell in full."""


def _end(choice: Any) -> dict[str, Any]:
    reason = choice.finish_reason
    return {"index": choice.index, "delta": {}, "finish_reason": getattr(reason, "value", reason)}


class Chunks:
    """Of one stream: one id, one model, one role and one end, and each call of a tool under a number of its own, from 0
    on.

    The library gives each chunk of some an id of its own, and says a role in none or in each of them, which OpenAI's
    clients put together as `assistantassistant`. It calls a model that nobody told `None`, numbers calls by their block
    (or all of them 0), and tells the end of a call as the end of the answer.
    """

    __slots__ = (
        "_bare", "_base", "_calls", "_ids", "_model", "_numbers", "_one", "_reason", "_role", "_said", "_spoke",
        "_usage",
    )  # fmt: skip

    def __init__(self, model: str, *, one: bool = False) -> None:
        """`model`: that was asked for. `one`: as of `completion`."""
        self._model = model
        self._one = one
        self._base: dict[str, Any] = {}
        self._role: dict[str, Any] = {"role": "assistant"}
        """Empty once it was told."""
        self._ids: set[str] = set()
        self._numbers: dict[int, int] = {}
        """Ours, of the newest call under each of the library's."""
        self._bare: set[int] = set()
        """Calls, by our numbers, of whose arguments nothing was said yet."""
        self._said: set[int] = set()
        self._calls = 0
        self._spoke = False
        self._reason: str | None = None
        self._usage: dict[str, Any] | None = None

    def take(self, found: Any) -> dict[str, Any] | None:
        """The chunk to tell, None where there is nothing to be told of it now."""
        made = plain(found)
        self._usage = _larger(self._usage, made.pop("usage", None))
        if not self._base:
            self._base = {name: made.get(name) for name in ("id", "object")}
            self._base["model"] = self._model if made.get("model") in _NO_NAME else made["model"]
            self._base["created"] = made.get("created") or int(time.time())
        choices, begins = made.get("choices") or [], False
        for choice in choices:
            self._reason = choice.get("finish_reason") or self._reason
            choice["finish_reason"] = None
            delta = choice["delta"]
            begins |= delta.pop("role", None) is not None and bool(self._role)
            _reasoning(delta)
            self._spoke = self._spoke or _speaks(delta)
            if "tool_calls" in delta:
                self._call(delta)
        if not begins and not any(choice["delta"] for choice in choices):
            return None
        choices[0]["delta"] = self._role | choices[0]["delta"]
        self._role = {}
        return {**made, **self._base}

    def _call(self, delta: dict[str, Any]) -> None:
        """Number its calls, and leave out those that are not to be told."""
        calls = delta.pop("tool_calls") or []
        for call in calls:
            call["index"] = self._number(call)
        if told := [call for call in calls if not (self._one and call["index"])]:
            delta["tool_calls"] = told
        for call in told:
            self._bare.add(call["index"])
            if (call.get("function") or {}).get("arguments"):
                self._said.add(call["index"])
        self._bare -= self._said

    def end(self) -> list[dict[str, Any]]:
        """How it ended, where that was told, and the usage on its own. Before it the arguments of calls that have none:
        callers read them as JSON, and Anthropic says nothing of them in a stream."""
        told = []
        if self._reason not in (None, "length") and self._bare:
            calls = [{"index": number, "function": {"arguments": "{}"}} for number in sorted(self._bare)]
            told.append(
                {**self._base, "choices": [{"index": 0, "delta": {"tool_calls": calls}, "finish_reason": None}]}
            )
        if self._reason is not None:
            reason = "tool_calls" if self._reason == "stop" and self._calls else self._reason
            last = {"index": 0, "delta": self._role, "finish_reason": reason}
            told.append({**self._base, "choices": [last]})
        if (usage := _told(self._usage, spoke=self._spoke)) is not None:
            told.append({**self._base, "choices": [], "usage": usage})
        return told

    def _number(self, call: dict[str, Any]) -> int:
        name, place = call.get("id") or "", call.get("index") or 0
        if (name and name not in self._ids) or place not in self._numbers:
            self._ids.add(name)
            self._numbers[place] = self._calls
            self._calls += 1
        return self._numbers[place]


def _reasoning(said: dict[str, Any]) -> None:
    """The library's `reasoning`, under the name that OpenAI-shaped servers give it."""
    reasoning = said.pop("reasoning", None)
    text = reasoning.get("content") if isinstance(reasoning, dict) else reasoning
    if isinstance(text, str) and text:
        said["reasoning_content"] = text


def _larger(one: dict[str, Any] | None, two: dict[str, Any] | None) -> dict[str, Any] | None:
    """Usage as the dearer of two reports says, count by count; a stream may report it in parts."""
    if two is None:
        return one
    merged = dict(one or {})
    for name, value in two.items():
        if isinstance(value, dict) and name in _DETAILS:
            known = {count: number for count, number in value.items() if count in _DETAILS[name]}
            merged[name] = {**known, **{n: max(v, known.get(n, 0)) for n, v in merged.get(name, {}).items()}}
        elif isinstance(value, int) and name in _TOTALS:
            merged[name] = max(value, merged.get(name, 0))
    if "prompt_tokens" in merged:
        merged["total_tokens"] = merged["prompt_tokens"] + merged.get("completion_tokens", 0)
    return merged


def _speaks(said: dict[str, Any]) -> bool:
    return any(said.get(name) for name in ("content", "tool_calls", "reasoning_content", "images"))


def _told(usage: dict[str, Any] | None, *, spoke: bool) -> dict[str, Any] | None:
    """None, too, where it says that no token was read, or none written of an answer that has some: for some the library
    says so of what it was not told, or not yet, and no answer is made of none."""
    if usage is None or not usage.get("prompt_tokens") or (spoke and not usage.get("completion_tokens")):
        return None
    return usage
