"""What is answered where the library that speaks other providers' APIs, or a provider's client, fails: a status that
says whether it may have been billed, and what went wrong. Calls nobody.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from groundplan.gateway.http.errors import error_body
from groundplan.gateway.upstream import provider_refusals
from groundplan.gateway.upstream.providers import ProviderTarget

_NEVER_SENT = frozenset(
    {
        "ConnectError", "ConnectTimeout", "ConnectionRefusedError", "gaierror", "EndpointConnectionError",
        "ClientConnectorError", "ConnectionTimeoutError",
        "PoolTimeout", "NoRegionError", "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError",
        "TokenRetrievalError", "NoAuthTokenError", "SSOError", "LoginError", "ProfileNotFound", "RefreshError",
        "DefaultCredentialsError",
    }
)  # fmt: skip
"""Errors, and kinds of them, of a request that reached nobody: no connection, or nothing to sign it with."""
_SIGNING = "_async_access_token"
"""Where Google's client gets its token."""
_CONVERTING = {
    "_convert_params": "",
    "_convert_completion_params": "",
    "_convert_messages": "messages",
    "_convert_messages_for_anthropic": "messages",
    "_convert_assistant": "messages",
    "_convert_tool_result_content": "messages",
    "_convert_images_for_bedrock": "messages",
    "_convert_content_for_anthropic": "messages",
    "_extract_images_from_message": "messages",
    "_convert_tool_calls": "messages",
    "_patch_messages": "messages",
    "_copy_messages": "messages",
    "_copy_tools": "tools",
    "_convert_tool_spec": "tools",
    "_convert_tools": "tools",
    "_build_tool_config": "tools",
    "prepare_tools": "tools",
    "_convert_tool_choice": "tool_choice",
    "_convert_response_format": "response_format",
    "_preprocess_response_format": "response_format",
}
"""Functions of the library and the providers' clients in which nothing has been sent yet, and which field each is
about. One that is not known here is taken for one that may have been billed."""


class Failed(Exception):
    """What is answered instead."""

    def __init__(self, status: int, body: bytes, retry_after: str | None = None) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.body = body
        self.retry_after = retry_after


def failed(error: BaseException, secret: str, place: ProviderTarget) -> Failed:
    """What is answered for an error of the library or of a provider's client."""
    field = _before_sending(error)
    status = _status(error, field)
    if status == 400 and field is None:
        status = _of_account(error) or status
    text = _text(error)
    if secret:
        text = text.replace(secret, "...")
    untold = field is not None or type(error).__name__ == "UnsupportedParameterError"
    code = "field_untranslatable" if untold and status == 400 else "upstream_refused"
    if status in (400, 413, 422) and _of_length(error):
        code = provider_refusals.TOO_LONG_CODES[0]
    if status == provider_refusals.BUSY and _is_spent(error):
        code = provider_refusals.NO_QUOTA
    kind = "invalid_request_error" if status in (400, 422) else "api_error"
    hint = "Check the request against what the model takes." if status in (400, 422) else "Try again later."
    after = getattr(error, "retry_after", None) or _pause(error) or _asked_pause(error)
    details = {"field": field} if field else {}
    body = error_body(f"{place.api}: {text[:1000]}", code, hint, kind, **details)
    return Failed(status, body, None if after is None else str(after))


def _text(error: BaseException) -> str:
    """What went wrong. Cohere's client says all headers of the answer before it."""
    for each in _chain(error):
        body = getattr(each, "body", None)
        if type(each).__module__.startswith("cohere.") and isinstance(body, dict) and body.get("message"):
            return str(body["message"])
    return str(getattr(error, "message", None) or error)


def _pause(error: BaseException) -> str | None:
    """The `retry-after` of the answer, which the library tells of 429 only, and not of AWS's and Ollama's."""
    for each in _chain(error):
        answer = getattr(each, "response", None)
        told = answer.get("ResponseMetadata", {}).get("HTTPHeaders") if isinstance(answer, dict) else None
        for headers in (told, getattr(answer, "headers", None), getattr(each, "headers", None)):
            if isinstance(headers, Mapping) and (after := headers.get("retry-after")):
                return str(after)
    return None


def _asked_pause(error: BaseException) -> str | None:
    """What Google asks for in its answer; its client keeps all of that."""
    asked = next((found for each in _kept(error, "details") if (found := provider_refusals.retry_delay(each))), None)
    return None if asked is None else asked.decode()


def _is_spent(error: BaseException) -> bool:
    """As `account.spent`, of what the provider answered."""
    return any(
        provider_refusals.is_quota_spent(provider_refusals.BUSY, each) for each in _kept(error, "details", "body")
    )


def _kept(error: BaseException, *names: str) -> Iterator[bytes]:
    """Answers of providers, as their clients keep them: Google's all of one (`details`), others the error of it
    (`body`)."""
    for each in _chain(error):
        for name in names:
            if isinstance(told := getattr(each, name, None), dict):
                yield msgspec.json.encode(told if "error" in told else {"error": told})


def _status(error: BaseException, field: str | None) -> int:
    """The provider's own status where it answered with an error. Otherwise one of ours: 400 was refused before it was
    sent, 503 never reached the provider, and 502 may have been worked on."""
    status = _answered(error)
    if status is not None and 400 <= status < 600:
        return status
    if status is not None and 300 <= status < 400:
        return 503  # a redirect, which is not followed
    names = [type(each).__name__ for each in _chain(error)]
    if _unsent(error):
        return 503
    if status is not None or "APIResponseValidationError" in names:
        return 502
    if names[0] == "MissingApiKeyError":
        return 503
    if names[0] in ("UnsupportedParameterError", "NotImplementedError") or field is not None:
        return 400
    return 502


def _unsent(error: BaseException) -> bool:
    for each in _chain(error):
        kinds = {kind.__name__ for kind in type(each).__mro__}
        if kinds & _NEVER_SENT or any(f.f_code.co_name == _SIGNING for f, _ in traceback.walk_tb(each.__traceback__)):
            return True
    return False


def _of_account(error: BaseException) -> int:
    """As `account.said`, of what the provider answered."""
    return next(
        (status for message, code in _said(error) if (status := provider_refusals.status_of_message(message, code))), 0
    )


def _of_length(error: BaseException) -> bool:
    """Whether the provider says that the prompt is longer than its model reads, as we or the library know it."""
    if any(type(each).__name__ == "ContextLengthExceededError" for each in _chain(error)):
        return True
    return any(provider_refusals.is_too_long_message(message, code) for message, code in _said(error))


def _said(error: BaseException) -> Iterator[tuple[str, object]]:
    """(message, code) of what the provider answered, as its client and the library have it."""
    for each in _chain(error):
        body = getattr(each, "body", None)
        told = body.get("error", body) if isinstance(body, dict) else {"message": getattr(each, "message", None)}
        if isinstance(told, dict) and isinstance(message := told.get("message"), str):
            yield message, told.get("code")


def _answered(error: BaseException) -> int | None:
    """The status that the provider answered with; AWS's client has it in what it read."""
    for each in _chain(error):
        if isinstance(status := getattr(each, "status_code", None), int):
            return status
        read = getattr(each, "response", None)
        told = read.get("ResponseMetadata") if isinstance(read, dict) else None
        if isinstance(told, dict) and isinstance(status := told.get("HTTPStatusCode"), int):
            return status
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop(0)
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        original = getattr(each, "original_exception", None)
        waiting += [original if isinstance(original, BaseException) else None, each.__cause__, each.__context__]


def _before_sending(error: BaseException) -> str | None:
    """The field of a request that was refused as it was converted, so that nothing of it was sent: empty where it is
    not known which; None: it may have been sent."""
    if _answered(error) is not None:
        return None
    for each in _chain(error):
        names = [frame.f_code.co_name for frame, _ in traceback.walk_tb(each.__traceback__)]
        converting = [_CONVERTING[name] for name in names if name in _CONVERTING]
        if converting:
            return next((field for field in reversed(converting) if field), "")
        if type(each).__name__ == "ParamValidationError" or str(getattr(each, "title", "")).endswith("Request"):
            return ""  # a client's own look at what it is to send
        if "acompletion" in names and "_acompletion" not in names and type(each).__name__ == "ValidationError":
            return _first_field(each)
    return None


def _first_field(error: Any) -> str:
    """What the library's own type of a request says is wrong with it."""
    where = error.errors()[0]["loc"]
    return str(where[0]) if where else ""
