"""The answer when the library for other providers' APIs, or a provider's client, fails: a status that says whether the
request may have been billed, and what went wrong. Calls nobody."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from groundplan.gateway.http.errors import error_body
from groundplan.gateway.upstream import provider_refusals
from groundplan.gateway.upstream.providers import ProviderTarget

_UNSENT_ERRORS = frozenset(
    {
        "ConnectError", "ConnectTimeout", "ConnectionRefusedError", "gaierror", "EndpointConnectionError",
        "ClientConnectorError", "ConnectionTimeoutError",
        "PoolTimeout", "NoRegionError", "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError",
        "TokenRetrievalError", "NoAuthTokenError", "SSOError", "LoginError", "ProfileNotFound", "RefreshError",
        "DefaultCredentialsError",
    }
)  # fmt: skip
"""Errors, and base classes of them, of a request that reached nobody: no connection, or no credentials."""
_TOKEN_FUNCTION = "_async_access_token"
"""The function in which Google's client gets its token."""
_CONVERSION_FUNCTIONS = {
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
    "_convert_reasoning_effort": "reasoning_effort",
}
"""Functions of the library and the providers' clients that run before anything is sent, with the field that each is
about. An error in any other function may have been billed."""


class ProviderFailure(Exception):
    """The error answer to send instead of the provider's."""

    def __init__(self, status: int, body: bytes, retry_after: str | None = None) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.body = body
        self.retry_after = retry_after


def failure_of(error: BaseException, secret: str, target: ProviderTarget) -> ProviderFailure:
    """The error answer for an exception of the library or of a provider's client."""
    field = _refused_field(error)
    status = _status(error, field)
    if status == 400 and field is None:
        status = _account_status(error) or status
    text = _error_text(error)
    if secret:
        text = text.replace(secret, "...")
    untold = field is not None or type(error).__name__ == "UnsupportedParameterError"
    code = "field_untranslatable" if untold and status == 400 else "upstream_refused"
    if status in (400, 413, 422) and _is_too_long(error):
        code = provider_refusals.TOO_LONG_CODES[0]
    if status == provider_refusals.BUSY and _is_quota_spent(error):
        code = provider_refusals.NO_QUOTA
    kind = "invalid_request_error" if status in (400, 422) else "api_error"
    hint = "Check the request against what the model takes." if status in (400, 422) else "Try again later."
    after = getattr(error, "retry_after", None) or _retry_after(error) or _retry_delay(error)
    details = {"field": field} if field else {}
    body = error_body(f"{target.api}: {text[:1000]}", code, hint, kind, **details)
    return ProviderFailure(status, body, None if after is None else str(after))


def _error_text(error: BaseException) -> str:
    """The error's message. Cohere's client puts all response headers in front of it."""
    for each in _error_chain(error):
        body = getattr(each, "body", None)
        if type(each).__module__.startswith("cohere.") and isinstance(body, dict) and body.get("message"):
            return str(body["message"])
    return str(getattr(error, "message", None) or error)


def _retry_after(error: BaseException) -> str | None:
    """The response's `retry-after`, which the library reports only with 429, and not for AWS and Ollama."""
    for each in _error_chain(error):
        answer = getattr(each, "response", None)
        parsed_headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders") if isinstance(answer, dict) else None
        for headers in (parsed_headers, getattr(answer, "headers", None), getattr(each, "headers", None)):
            if isinstance(headers, Mapping) and (after := headers.get("retry-after")):
                return str(after)
    return None


def _retry_delay(error: BaseException) -> str | None:
    """The delay that Google asks for in its error body, which its client keeps."""
    delay = next(
        (found for each in _error_bodies(error, "details") if (found := provider_refusals.retry_delay(each))), None
    )
    return None if delay is None else delay.decode()


def _is_quota_spent(error: BaseException) -> bool:
    """As `provider_refusals.is_quota_spent`, for the provider's error body."""
    return any(
        provider_refusals.is_quota_spent(provider_refusals.BUSY, each)
        for each in _error_bodies(error, "details", "body")
    )


def _error_bodies(error: BaseException, *names: str) -> Iterator[bytes]:
    """Error bodies of the provider as its client keeps them: Google's the complete body (`details`), others its error
    (`body`)."""
    for each in _error_chain(error):
        for name in names:
            if isinstance(body := getattr(each, name, None), dict):
                yield msgspec.json.encode(body if "error" in body else {"error": body})


def _status(error: BaseException, field: str | None) -> int:
    """The provider's own status if it answered with an error. Otherwise 400: refused before it was sent; 503: never
    reached the provider; 502: may have been worked on."""
    status = _provider_status(error)
    if status is not None and 400 <= status < 600:
        return status
    if status is not None and 300 <= status < 400:
        return 503  # a redirect, which is not followed
    names = [type(each).__name__ for each in _error_chain(error)]
    if _was_never_sent(error):
        return 503
    if status is not None or "APIResponseValidationError" in names:
        return 502
    if names[0] == "MissingApiKeyError":
        return 503
    if names[0] in ("UnsupportedParameterError", "NotImplementedError") or field is not None:
        return 400
    return 502


def _was_never_sent(error: BaseException) -> bool:
    for each in _error_chain(error):
        kinds = {kind.__name__ for kind in type(each).__mro__}
        if kinds & _UNSENT_ERRORS or any(
            f.f_code.co_name == _TOKEN_FUNCTION for f, _ in traceback.walk_tb(each.__traceback__)
        ):
            return True
    return False


def _account_status(error: BaseException) -> int:
    """As `provider_refusals.status_of_message`, for the provider's error."""
    return next(
        (
            status
            for message, code in _messages(error)
            if (status := provider_refusals.status_of_message(message, code))
        ),
        0,
    )


def _is_too_long(error: BaseException) -> bool:
    """Whether the provider says that the prompt is longer than its model can read, in words that we or the library
    know."""
    if any(type(each).__name__ == "ContextLengthExceededError" for each in _error_chain(error)):
        return True
    return any(provider_refusals.is_too_long_message(message, code) for message, code in _messages(error))


def _messages(error: BaseException) -> Iterator[tuple[str, object]]:
    """(message, code) of the provider's error, as its client and the library keep it."""
    for each in _error_chain(error):
        body = getattr(each, "body", None)
        error_body = body.get("error", body) if isinstance(body, dict) else {"message": getattr(each, "message", None)}
        if isinstance(error_body, dict) and isinstance(message := error_body.get("message"), str):
            yield message, error_body.get("code")


def _provider_status(error: BaseException) -> int | None:
    """The status that the provider answered with; AWS's client keeps it in the parsed response."""
    for each in _error_chain(error):
        if isinstance(status := getattr(each, "status_code", None), int):
            return status
        read = getattr(each, "response", None)
        metadata = read.get("ResponseMetadata") if isinstance(read, dict) else None
        if isinstance(metadata, dict) and isinstance(status := metadata.get("HTTPStatusCode"), int):
            return status
    return None


def _error_chain(error: BaseException) -> Iterator[BaseException]:
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


def _refused_field(error: BaseException) -> str | None:
    """The field that was refused while the request was converted, so that nothing was sent: empty if the field is
    unknown; None: the request may have been sent."""
    if _provider_status(error) is not None:
        return None
    for each in _error_chain(error):
        names = [frame.f_code.co_name for frame, _ in traceback.walk_tb(each.__traceback__)]
        converting = [_CONVERSION_FUNCTIONS[name] for name in names if name in _CONVERSION_FUNCTIONS]
        if converting:
            return next((field for field in reversed(converting) if field), "")
        if type(each).__name__ == "ParamValidationError" or str(getattr(each, "title", "")).endswith("Request"):
            return ""  # the client's own validation before sending
        if "acompletion" in names and "_acompletion" not in names and type(each).__name__ == "ValidationError":
            return _invalid_field(each)
    return None


def _invalid_field(error: Any) -> str:
    """The field that the library's request type reports as invalid."""
    where = error.errors()[0]["loc"]
    return str(where[0]) if where else ""
