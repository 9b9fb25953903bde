"""Reads error answers of providers: refusals about our account, the model or the length of a prompt, though their
status says that the request is wrong. Pure.

Looks only at codes and at the beginning of messages: further on, a message may repeat what a caller sent.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from groundplan.gateway.http.strict_json import DECODE_ERRORS

REFUSED, UNKNOWN_KEY, UNPAID, NOT_ALLOWED, NO_MODEL, TOO_LARGE, BUSY, OVERLOADED, TIMED_OUT = (
    400,
    401,
    402,
    403,
    404,
    413,
    429,
    503,
    504,
)
_STATUS_MEANINGS = {410: NO_MODEL, 412: UNPAID, 498: OVERLOADED, 499: TIMED_OUT}
"""How Azure and others say that a model is retired, Fireworks that an account is not paid, Groq that there is no room
at flex, and Google that its server gave up, perhaps after it had worked. No request of a caller is answered with
these."""
_CODE_STATUSES = {
    "billing_hard_limit_reached": UNPAID,
    "insufficient_quota": UNPAID,
    "Arrearage": UNPAID,
    "organization_restricted": NOT_ALLOWED,
    "model_terms_required": NOT_ALLOWED,
    "model_decommissioned": NO_MODEL,
    "model_not_available": NO_MODEL,
    "model_not_found": NO_MODEL,
    "unknown_model": NO_MODEL,
    "OperationNotSupported": NO_MODEL,
}
"""The last one is Azure's, for a model that does not have, or no longer has, the requested feature."""
_MESSAGE_STATUSES = (
    ("Your credit balance is too low", UNPAID),
    ("You have reached your specified API usage limits", UNPAID),
    ("This organization has been disabled", NOT_ALLOWED),
    ("User location is not supported", NOT_ALLOWED),
    ("API key not valid", UNKNOWN_KEY),
    ("API key expired", UNKNOWN_KEY),
    ("Incorrect API key provided", UNKNOWN_KEY),
    ("Model Not Exist", NO_MODEL),
    ("Invalid model: ", NO_MODEL),
    ("Invalid model '", NO_MODEL),
    ("Unknown Model, ", NO_MODEL),
)
_match_no_model = re.compile(
    r"(?:400: )?(?:\{'error': ['\"])?/[a-z/]{1,40}: Invalid model name passed in|\S{1,200} is not a valid model ID\Z"
).match
"""As LiteLLM and OpenRouter word it."""

NO_QUOTA = "insufficient_quota"
_QUOTA_CODES = frozenset(
    {
        NO_QUOTA, "billing_hard_limit_reached", "billing_not_active", "exceeded_current_quota_error",
        "insufficient_balance_error", "1113",
    }
)  # fmt: skip
"""How OpenAI, Moonshot and MiniMax (in `type`) and Z.ai say with status 429, and Perplexity with 401, that an account
has no money. DashScope uses the first of them also for a limit of tokens per minute."""

_STREAM_CODE_STATUSES = {
    "rate_limit_exceeded": BUSY,
    "too_many_requests": BUSY,
    "server_is_overloaded": OVERLOADED,
    "slow_down": OVERLOADED,
    **dict.fromkeys(
        (
            "invalid_prompt", "cyber_policy", "bio_policy", "misalignment_policy_violation", "invalid_image",
            "invalid_image_format", "invalid_base64_image", "image_too_large", "image_too_small", "image_parse_error",
            "image_content_policy_violation", "invalid_image_mode", "image_file_too_large",
            "unsupported_image_media_type", "empty_image_file", "moderation_blocked", "content_policy_violation",
            "invalid_encrypted_content",
        ),
        REFUSED,
    ),
}  # fmt: skip
"""Codes that OpenAI and Azure send in a stream, which they begin before they check the request."""
_STREAM_TYPE_STATUSES = {"overloaded_error": 529, "rate_limit_error": BUSY}
"""Types of errors that Anthropic sends in a stream, which it begins before it knows whether there is room."""
_MINIMAX_STATUSES = {
    1001: TIMED_OUT, 1002: BUSY, 1004: UNKNOWN_KEY, 1008: UNPAID, 1026: REFUSED, 1039: BUSY, 1041: BUSY, 1042: REFUSED,
    2013: REFUSED, 2049: UNKNOWN_KEY, 2056: BUSY,
}  # fmt: skip
"""Codes that MiniMax sends with status 200 in `base_resp` in place of an answer."""
_USER_ERROR_TYPE = "image_generation_user_error"
"""The type of OpenAI's errors about an image request, whose code may be missing."""
_CONTENT_REFUSAL = "Content violates usage guidelines"
"""Beginning of xAI's refusal of a request for its content, which it sends with the status of a forbidden key;
OpenRouter says so in `metadata`."""
_UNSUPPORTED_FEATURE = "No endpoints found that "
"""Beginning of OpenRouter's message that no provider serves a model with a feature of the request: tools, images, a
parameter. If no provider serves the model at all, or under our account's data policy, the message goes on
differently."""
_TOO_LARGE_FOR_RATE = "Request too large for"
_SERVICE_CODES = ("secret_missing", "secret_unreadable", "providers_missing")
_MALFORMED_OUTPUT_CODES = ("tool_use_failed", "json_validate_failed")
"""Groq's codes for unusable output of its model, sent as if the request were wrong."""
TOO_LONG_CODES = ("context_length_exceeded", "exceed_context_size_error")
_TOO_LONG_MESSAGES = (
    "This model's maximum context length is",
    "Your input exceeds the context window",
    "The decoder prompt (length",
    "prompt is too long",
    "input length and `max_tokens` exceed context limit",
    "The input token count",
    "Input is too long for requested model",
    "Prompt contains",
    "the request exceeds the available context size",
    "too many tokens: total number of tokens",
    "This model's maximum prompt length is",
    "This endpoint's maximum context length is",
    "'max_tokens' or 'max_completion_tokens' is too large",
    "Requested token count exceeds the model's maximum context length",
    "The prompt is too long",
    "Input validation error: `inputs`",
    "Invalid request: Your request exceeded model token limit",
    "Range of input length should be",
    "<400> InternalError.Algo.InvalidParameter: Range of input length should be",
    "Prompt exceeds max length",
    "Trying to keep the first",
    "litellm.ContextWindowExceededError",
)
"""Beginnings of this message of OpenAI, vLLM, Anthropic, Gemini, Bedrock, Mistral, llama.cpp and Cohere; xAI,
OpenRouter, vLLM again, SGLang, Fireworks, TGI, Moonshot, DashScope, Z.ai, LM Studio and LiteLLM."""
_match_token_count = re.compile(
    r"You passed [\d,]+ input (?:tokens|characters)\b|The input \([\d,]+ tokens\) is longer than"
    r"|Input length \([\d,]+ tokens\) exceeds"
).match
"""The messages of vLLM and SGLang that contain the count."""
_SEALED_CODE = "invalid_encrypted_content"
_SEALED_MESSAGES = (
    "Could not decrypt the provided encrypted_content",
    "Could not decode the compaction blob",
    "Encrypted content is not supported",
    "reasoning `encrypted_content` was not issued to this caller",
)
"""The messages of OpenAI and Azure, and beginnings of those of xAI, vLLM and OpenCode Zen."""
_find_retry_delay = re.compile(r"ry again in (?:(\d{1,3})m)?(\d{1,5}(?:\.\d{1,6})?) ?(m?)s").search
"""Minutes, seconds or milliseconds: `11.054s`, `6m0s`, `350ms`."""


class _Error(msgspec.Struct, frozen=True):
    message: str = ""
    code: Any = None
    type: Any = None
    billed_tokens: Any = None
    hint: Any = None
    details: Any = None
    metadata: Any = None


class _BaseResponse(msgspec.Struct, frozen=True):
    status_code: Any = None
    status_msg: str = ""


class _Body(msgspec.Struct, frozen=True):
    error: _Error | str | None = None
    message: str = ""
    """If there is no error object, as from older vLLM."""
    base_resp: _BaseResponse | None = None
    """In every answer of MiniMax; its code is 0 unless it is an error."""


class _Answer(msgspec.Struct, frozen=True):
    choices: Any = None
    output: Any = None
    usage: Any = None

    @property
    def has_output(self) -> bool:
        """Whether the answer has any output or usage."""
        used = self.usage.values() if isinstance(self.usage, dict) else ()
        return bool(self.choices or self.output) or any(type(each) is int and each > 0 for each in used)


_decode_body = msgspec.json.Decoder(_Body | list[_Body]).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode


def retry_delay(data: bytes) -> bytes | None:
    """Seconds, in the format of `retry-after`, that an error body asks to wait: Google's (`RetryInfo`), and OpenAI's,
    which says it in words, and only in a stream."""
    if (error := _parse_error(data)) is None:
        return None
    for each in _dicts_in(error.details):
        delay = each.get("retryDelay")
        if isinstance(delay, str) and delay.endswith("s"):
            return delay[:-1].encode()
    if error.code != "rate_limit_exceeded" or (found := _find_retry_delay(error.message)) is None:
        return None
    return b"%.3f" % (60 * int(found[1] or 0) + float(found[2]) / (1000 if found[3] else 1))


def actual_status(status: int, data: bytes) -> int:
    """The status that a refusal should have had; for others, its own. A refusal of what was asked is the caller's
    matter (400)."""
    if status not in (REFUSED, NOT_ALLOWED):
        return _STATUS_MEANINGS.get(status, status)
    if (error := _parse_error(data)) is None:
        return status
    if status == REFUSED:
        return status_of_message(error.message, error.code) or status
    return REFUSED if _is_content_refusal(error) else status


def is_content_refused(status: int, data: bytes) -> bool:
    """Whether a provider refuses the content of a request."""
    error = _parse_error(data) if status in (REFUSED, NOT_ALLOWED) else None
    return error is not None and _is_content_refusal(error)


def tokens_billed_before(api: str, data: bytes) -> int | None:
    """Tokens that a provider billed for parts of a request before it refused another part, as reported by our
    translation service, which splits some requests; 0: unknown; None: there were none."""
    error = None if api == "openai" else _parse_error(data)
    tokens = None if error is None else error.billed_tokens
    return tokens if type(tokens) is int else None


def _is_content_refusal(error: _Error) -> bool:
    marked = isinstance(error.metadata, dict) and "flagged_input" in error.metadata
    return marked or error.message.startswith(_CONTENT_REFUSAL)


def embedded_status(data: bytes) -> int:
    """The status in an error body that was sent in place of an answer, as OpenRouter and SGLang do with status 200, or
    that follows from its code; 0: none, or the provider has produced output."""
    error = _parse_error(data) if data else None
    if error is None or _has_output(data):
        return 0
    code = error.code
    if isinstance(code, str) and len(code) == 3 and code.isdecimal():
        code = int(code)
    if isinstance(code, int):
        return code if 400 <= code < 600 else 0
    if is_too_long_message(error.message, code):
        return REFUSED
    known = (_STREAM_CODE_STATUSES.get(code) or _CODE_STATUSES.get(code, 0)) if isinstance(code, str) else 0
    if not known and isinstance(error.type, str):
        known = _STREAM_TYPE_STATUSES.get(error.type, 0)
    return known or (REFUSED if error.type == _USER_ERROR_TYPE else 0)


def is_error_chunk(data: bytes) -> bool:
    """Whether an event of a stream without choices is an error of MiniMax's, which has no `error`."""
    return b'"base_resp"' in data and _parse_error(data) is not None


def _has_output(data: bytes) -> bool:
    try:
        return _decode_answer(data).has_output
    except DECODE_ERRORS:
        return False  # a list of errors


def exceeds_rate(status: int, data: bytes) -> bool:
    """Whether a request exceeds what our account may send per minute, as reported by Groq, and by OpenAI with 429:
    another provider of the model may accept it, and this one would accept a smaller one."""
    error = _parse_error(data) if status in (TOO_LARGE, BUSY) else None
    if error is None or error.code != "rate_limit_exceeded":
        return False
    return status == TOO_LARGE or error.message.startswith(_TOO_LARGE_FOR_RATE)


def is_quota_spent(status: int, data: bytes) -> bool:
    """Whether a refusal of our key says that the account's money, or its daily quota, is used up: retrying soon does
    not help."""
    error = _parse_error(data) if status in (UNKNOWN_KEY, NOT_ALLOWED, BUSY) else None
    if error is None:
        return status == UNPAID
    return any(isinstance(each, str) and each in _QUOTA_CODES for each in (error.code, error.type)) or _is_daily_quota(
        error
    )


def _is_daily_quota(error: _Error) -> bool:
    """Whether Google names a daily quota; its answer suggests a pause of seconds all the same."""
    found = [each.get("violations") for each in _dicts_in(error.details)]
    return any("PerDay" in str(one.get("quotaId")) for each in found for one in _dicts_in(each))


def _dicts_in(value: object) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def unsupported_feature(status: int, data: bytes) -> str:
    """The provider's message if its model exists but not with the requested features, though the status says that it
    does not exist; else empty."""
    error = _parse_error(data) if status == NO_MODEL else None
    return error.message if error is not None and error.message.startswith(_UNSUPPORTED_FEATURE) else ""


def is_malformed_output(status: int, data: bytes) -> bool:
    """Whether a model produced output that its provider could not parse: another model may do better."""
    error = _parse_error(data) if status == REFUSED else None
    return error is not None and error.code in _MALFORMED_OUTPUT_CODES


def prompt_too_long(status: int, data: bytes) -> str:
    """The provider's message if a prompt is longer than its model can read, which another model may be able to; else
    empty."""
    error = _parse_error(data) if status in (400, TOO_LARGE, 422) else None
    if error is None:
        return ""
    known = error.type in TOO_LONG_CODES or is_too_long_message(error.message, error.code)
    return (error.message or "the prompt is too long") if known else ""


def is_sealed_elsewhere(status: int, data: bytes) -> bool:
    """Whether a provider cannot decrypt content that another provider, or it itself for another account, has
    encrypted."""
    error = _parse_error(data) if status == REFUSED else None
    return error is not None and (error.code == _SEALED_CODE or error.message.startswith(_SEALED_MESSAGES))


def is_too_long_message(message: str, code: object) -> bool:
    """Whether an error message is about how much the model can read."""
    return code in TOO_LONG_CODES or message.startswith(_TOO_LONG_MESSAGES) or _match_token_count(message) is not None


def service_failure(status: int, data: bytes) -> tuple[str, str] | None:
    """(reason, hint) if the translation service says that it could not call the provider at all."""
    error = _parse_error(data) if status == 503 else None
    return None if error is None or error.code not in _SERVICE_CODES else (error.message, str(error.hint or ""))


def _parse_error(data: bytes) -> _Error | None:
    try:
        found = _decode_body(data)
    except DECODE_ERRORS:
        return None
    if isinstance(found, list):  # as Gemini answers at its OpenAI-shaped address
        if not found:
            return None
        found = found[0]
    if isinstance(found.error, _Error):
        return found.error
    message = found.error or found.message
    if not message and (reported := found.base_resp) is not None and reported.status_code:
        known = _MINIMAX_STATUSES.get(reported.status_code) if isinstance(reported.status_code, int) else None
        return _Error(reported.status_msg or "the upstream reported an error", known)
    return _Error(message) if message else None


def status_of_message(message: str, code: object) -> int:
    """The status that an error with this message or code should have; 0: it is about the request."""
    if isinstance(code, str) and code in _CODE_STATUSES:
        return _CODE_STATUSES[code]
    found = next((status for begin, status in _MESSAGE_STATUSES if message.startswith(begin)), 0)
    return NO_MODEL if not found and _match_no_model(message) else found
