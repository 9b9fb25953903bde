"""Every public method of an official client, found by looking at its resources, and what becomes of a call of it."""

from __future__ import annotations

import contextlib
import inspect
import json
import typing
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import httpx

OWN = ("with_raw_response", "with_streaming_response")
SAID: dict[str, Any] = {
    "model": "auto",
    "model_id": "auto",
    "messages": [{"role": "user", "content": "hello"}],
    "input": "hello",
    "prompt": "hello",
    "max_tokens": 9,
    "max_tokens_to_sample": 9,
    "endpoint": "/v1/chat/completions",
    "completion_window": "24h",
    "purpose": "user_data",
    "voice": "alloy",
    "file": ("a.txt", b"hello"),
    "image": ("a.png", b"\x89PNG\r\n\x1a\n"),
    "video": ("a.mp4", b"hello"),
    "data": b"hello",
    "files": [("a.txt", b"hello")],
    "payload": "{}",
    "metadata": {"a": "b"},
    "requests": [
        {
            "custom_id": "a",
            "params": {"model": "auto", "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]},
        }
    ],
    "bytes": 5,
}
"""Arguments that a call needs, by their names; of others what their types allow."""
ALWAYS = frozenset({"model", "input", "messages"})
"""Which a call needs, also where they may be left out."""


def methods(client: Any) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Name below the client (`chat.completions.create`) and the bound method."""
    pending: list[tuple[tuple[str, ...], Any]] = [((), client)]
    while pending:
        path, place = pending.pop()
        for name in sorted(dir(type(place))):
            if name.startswith("_") or name in OWN:
                continue
            found = inspect.getattr_static(type(place), name)
            if isinstance(found, property) or type(found).__name__ == "cached_property":
                below = getattr(place, name)
                if hasattr(below, "_client"):
                    pending.append(((*path, name), below))
            elif path and callable(found):
                yield ".".join((*path, name)), getattr(place, name)


def arguments(method: Callable[..., Any]) -> dict[str, Any]:
    """As few as it takes."""
    wanted = [each for each in inspect.signature(method).parameters.values() if each.kind < each.VAR_KEYWORD]
    needed = [each for each in wanted if each.default is each.empty or each.name in ALWAYS]
    return {each.name: SAID[each.name] if each.name in SAID else _such(str(each.annotation)) for each in needed}


def _such(kind: str) -> Any:
    """A value of a type, by its name."""
    if kind.startswith(("Iterable", "SequenceNotStr", "Sequence", "List")):
        return []
    if kind.startswith("Literal"):
        return kind.partition("'")[2].partition("'")[0]
    if kind.startswith("int"):
        return 1
    return "x" if kind.startswith(("str", "Union[str", "Optional[str")) else {}


class Heard(httpx.AsyncHTTPTransport):
    """Remembers what the newest request was, and its answer."""

    asked = ""
    status = 0
    body = b""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await super().handle_async_request(request)
        await answer.aread()
        self.asked = f"{request.method} {request.url.path}"
        self.status, self.body = answer.status_code, answer.content
        return answer


async def outcome(name: str, method: Callable[..., Any], heard: Heard) -> str:
    """`works`, or the code of the refusal, which says what to do; empty where nothing was asked over HTTP."""
    heard.asked, heard.status, heard.body = "", 0, b""
    with warnings.catch_warnings(), contextlib.suppress(Exception):  # how it went is told by its answer
        warnings.simplefilter("ignore")  # of what is deprecated
        found = method(**arguments(method))
        if inspect.isawaitable(found):
            found = await found
        if hasattr(found, "__aenter__"):
            async with found as entered:
                if name.rpartition(".")[2] != "connect":
                    async for _ in typing.cast("Any", entered):
                        pass
        elif hasattr(found, "__aiter__"):
            async for _ in found:
                break
    if not heard.asked:
        return ""
    if heard.status < 300:
        return "works"
    told = json.loads(heard.body)["error"]
    assert heard.status < 500 and told["code"] and told["hint"], (name, heard.asked, heard.body)
    assert told["code"] != "path_unknown", f"{name} ({heard.asked}) is a bare 404"
    return str(told["code"])
