"""Calls every public method of an official client, found by reflection on its resources, and says how calls end."""

from __future__ import annotations

import contextlib
import inspect
import json
import typing
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import httpx

SKIPPED_ATTRIBUTES = ("with_raw_response", "with_streaming_response")
ARGUMENTS: dict[str, Any] = {
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
"""Parameter name -> argument; parameters that are not here get a value of their type."""
REQUIRED_ANYWAY = frozenset({"model", "input", "messages"})
"""Parameters that a call needs although the method has a default for them."""


def methods(client: Any) -> Iterator[tuple[str, Callable[..., Any]]]:
    """(name below the client such as `chat.completions.create`, bound method) of each method."""
    pending: list[tuple[tuple[str, ...], Any]] = [((), client)]
    while pending:
        path, resource = pending.pop()
        for name in sorted(dir(type(resource))):
            if name.startswith("_") or name in SKIPPED_ATTRIBUTES:
                continue
            attribute = inspect.getattr_static(type(resource), name)
            if isinstance(attribute, property) or type(attribute).__name__ == "cached_property":
                child = getattr(resource, name)
                if hasattr(child, "_client"):
                    pending.append(((*path, name), child))
            elif path and callable(attribute):
                yield ".".join((*path, name)), getattr(resource, name)


def arguments(method: Callable[..., Any]) -> dict[str, Any]:
    """The arguments that a call needs, and no others."""
    parameters = [each for each in inspect.signature(method).parameters.values() if each.kind < each.VAR_KEYWORD]
    required = [each for each in parameters if each.default is each.empty or each.name in REQUIRED_ANYWAY]
    return {
        each.name: ARGUMENTS[each.name] if each.name in ARGUMENTS else _value_of_type(str(each.annotation))
        for each in required
    }


def _value_of_type(type_name: str) -> Any:
    """A value of the type with that name."""
    if type_name.startswith(("Iterable", "SequenceNotStr", "Sequence", "List")):
        return []
    if type_name.startswith("Literal"):
        return type_name.partition("'")[2].partition("'")[0]
    if type_name.startswith("int"):
        return 1
    return "x" if type_name.startswith(("str", "Union[str", "Optional[str")) else {}


class RecordingTransport(httpx.AsyncHTTPTransport):
    """Records the newest request and its answer."""

    request_line = ""
    status = 0
    body = b""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = await super().handle_async_request(request)
        await answer.aread()
        self.request_line = f"{request.method} {request.url.path}"
        self.status, self.body = answer.status_code, answer.content
        return answer


async def call_outcome(name: str, method: Callable[..., Any], transport: RecordingTransport) -> str:
    """`works`, or the code of the refusal, which must have a hint; empty if the method sent no request."""
    transport.request_line, transport.status, transport.body = "", 0, b""
    with warnings.catch_warnings(), contextlib.suppress(Exception):  # the recorded answer says how the call ended
        warnings.simplefilter("ignore")  # deprecated methods warn
        result = method(**arguments(method))
        if inspect.isawaitable(result):
            result = await result
        if hasattr(result, "__aenter__"):
            async with result as entered:
                if name.rpartition(".")[2] != "connect":
                    async for _ in typing.cast("Any", entered):
                        pass
        elif hasattr(result, "__aiter__"):
            async for _ in result:
                break
    if not transport.request_line:
        return ""
    if transport.status < 300:
        return "works"
    error = json.loads(transport.body)["error"]
    assert transport.status < 500 and error["code"] and error["hint"], (name, transport.request_line, transport.body)
    assert error["code"] != "path_unknown", f"{name} ({transport.request_line}) is a bare 404"
    return str(error["code"])
