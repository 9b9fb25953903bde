"""Reads error answers of providers: refusals about our account, the model or the length of a prompt, though their
status says that the request is wrong. Pure.

Only codes, and how a message begins, are looked at: further behind, a message may repeat what a caller sent.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from groundplan.gateway.http.strict_json import DECODE_ERRORS

REFUSED, UNKNOWN_KEY, UNPAID, NOT_ALLOWED, NO_MODEL, TOO_LARGE, BUSY, AWAY = 400, 401, 402, 403, 404, 413, 429, 503
_STATUSES = {410: NO_MODEL, 412: UNPAID}
"""How Azure and others say that a model is retired, and Fireworks that an account is not paid. Nothing that a caller
sends has these for an answer."""
_CODES = {
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
"""The last one is Azure's, of a model that does not have, or has no longer, what its deployment is asked for."""
_MESSAGES = (
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
_NO_MODEL = re.compile(
    r"(?:400: )?(?:\{'error': ['\"])?/[a-z/]{1,40}: Invalid model name passed in|\S{1,200} is not a valid model ID\Z"
).match
"""As LiteLLM and OpenRouter say it."""

NO_QUOTA = "insufficient_quota"
_SPENT = frozenset(
    {
        NO_QUOTA, "billing_hard_limit_reached", "billing_not_active", "exceeded_current_quota_error", "1113",
    }
)  # fmt: skip
"""How OpenAI, Moonshot (in `type`) and Z.ai say with the status of too many, and Perplexity with that of a key, that an
account has no money. DashScope says the first of them of a minute's tokens, too."""

_TOLD = {
    "rate_limit_exceeded": BUSY,
    "too_many_requests": BUSY,
    "server_is_overloaded": AWAY,
    "slow_down": AWAY,
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
"""What OpenAI and Azure say in a stream, which they begin before they look at what is asked."""
_USERS = "image_generation_user_error"
"""The type of an error of theirs whose code may be none."""
_FLAGGED = "Content violates usage guidelines"
"""How xAI begins to refuse what somebody asks, as if our key were not allowed to; OpenRouter says so in `metadata`."""
_UNFIT = "No endpoints found that "
"""How OpenRouter begins to say that nobody serves a model with what is asked: tools, images, a parameter. Where nobody
does at all, or under the data policy of our account, it goes on otherwise."""
_LARGE = "Request too large for"
_NOT_ASKED = ("secret_missing", "secret_unreadable", "providers_missing")
_WRONG = ("tool_use_failed", "json_validate_failed")
"""What Groq says of what its model made, as if the request were wrong."""
TOO_LONG_CODES = ("context_length_exceeded", "exceed_context_size_error")
_TOO_LONG = (
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
"""How OpenAI, vLLM, Anthropic, Gemini, Bedrock, Mistral, llama.cpp and Cohere begin to say it; xAI, OpenRouter, vLLM
again, SGLang, Fireworks, TGI, Moonshot, DashScope, Z.ai, LM Studio and LiteLLM."""
_COUNTED = re.compile(
    r"You passed [\d,]+ input (?:tokens|characters)\b|The input \([\d,]+ tokens\) is longer than"
    r"|Input length \([\d,]+ tokens\) exceeds"
).match
"""As vLLM and SGLang do with the count."""
_SEALED_CODE = "invalid_encrypted_content"
_SEALED = (
    "Could not decrypt the provided encrypted_content",
    "Could not decode the compaction blob",
    "Encrypted content is not supported",
    "reasoning `encrypted_content` was not issued to this caller",
)
"""How OpenAI and Azure say it, and how xAI, vLLM and OpenCode Zen begin to."""
_again = re.compile(r"ry again in (?:(\d{1,3})m)?(\d{1,5}(?:\.\d{1,6})?) ?(m?)s").search
"""Minutes, seconds or thousandths of them: `11.054s`, `6m0s`, `350ms`."""


class _Error(msgspec.Struct, frozen=True):
    message: str = ""
    code: Any = None
    type: Any = None
    billed_tokens: Any = None
    hint: Any = None
    details: Any = None
    metadata: Any = None


class _Body(msgspec.Struct, frozen=True):
    error: _Error | str | None = None
    message: str = ""
    """Where the error is not in one, as of older vLLM."""


class _Answered(msgspec.Struct, frozen=True):
    choices: Any = None
    output: Any = None
    usage: Any = None

    @property
    def worked(self) -> bool:
        """Whether there is something of an answer, or anything was used."""
        used = self.usage.values() if isinstance(self.usage, dict) else ()
        return bool(self.choices or self.output) or any(type(each) is int and each > 0 for each in used)


_body = msgspec.json.Decoder(_Body | list[_Body]).decode
_answered = msgspec.json.Decoder(_Answered).decode


def asked_pause(data: bytes) -> bytes | None:
    """Seconds, as a `retry-after` says them, that are asked for in an answer: by Google (`RetryInfo`), and by OpenAI,
    which says it in words, in a stream alone."""
    if (error := _error(data)) is None:
        return None
    for each in _listed(error.details):
        delay = each.get("retryDelay")
        if isinstance(delay, str) and delay.endswith("s"):
            return delay[:-1].encode()
    if error.code != "rate_limit_exceeded" or (found := _again(error.message)) is None:
        return None
    return b"%.3f" % (60 * int(found[1] or 0) + float(found[2]) / (1000 if found[3] else 1))


def meant(status: int, data: bytes) -> int:
    """The status that such a refusal should have had; any other's own. What was asked is its caller's matter (400)."""
    if status not in (REFUSED, NOT_ALLOWED):
        return _STATUSES.get(status, status)
    if (error := _error(data)) is None:
        return status
    if status == REFUSED:
        return said(error.message, error.code) or status
    return REFUSED if _is_flagged(error) else status


def flagged(status: int, data: bytes) -> bool:
    """Whether a provider refuses a request for what it says."""
    error = _error(data) if status in (REFUSED, NOT_ALLOWED) else None
    return error is not None and _is_flagged(error)


def billed_before(api: str, data: bytes) -> int | None:
    """Tokens of those parts of a request that a provider answered before it refused one, as our own service tells of
    whom it asks several times; 0: nobody counted; None: there were none."""
    error = None if api == "openai" else _error(data)
    told = None if error is None else error.billed_tokens
    return told if type(told) is int else None


def _is_flagged(error: _Error) -> bool:
    marked = isinstance(error.metadata, dict) and "flagged_input" in error.metadata
    return marked or error.message.startswith(_FLAGGED)


def told_status(data: bytes) -> int:
    """The status that an error in the place of an answer says that it has, as OpenRouter and SGLang tell it with status
    200, or has by its name; 0: it says none, or it was worked on."""
    error = _error(data) if data else None
    if error is None or _was_worked_on(data):
        return 0
    code = error.code
    if isinstance(code, str) and len(code) == 3 and code.isdecimal():
        code = int(code)
    if isinstance(code, int):
        return code if 400 <= code < 600 else 0
    if says_too_long(error.message, code):
        return REFUSED
    known = (_TOLD.get(code) or _CODES.get(code, 0)) if isinstance(code, str) else 0
    return known or (REFUSED if error.type == _USERS else 0)


def _was_worked_on(data: bytes) -> bool:
    try:
        return _answered(data).worked
    except DECODE_ERRORS:
        return False  # a list of errors


def above_rate(status: int, data: bytes) -> bool:
    """Whether a request is too large for what our account may send in a minute, as Groq tells it, and OpenAI with the
    status of too many: whoever else serves the model may well take it, and a smaller one would be taken here."""
    error = _error(data) if status in (TOO_LARGE, BUSY) else None
    if error is None or error.code != "rate_limit_exceeded":
        return False
    return status == TOO_LARGE or error.message.startswith(_LARGE)


def spent(status: int, data: bytes) -> bool:
    """Whether a refusal that is about our key says that the money of its account is used up, or what it may have in a
    day: that it is asked again in a moment does not help."""
    error = _error(data) if status in (UNKNOWN_KEY, NOT_ALLOWED, BUSY) else None
    if error is None:
        return status == UNPAID
    return any(isinstance(each, str) and each in _SPENT for each in (error.code, error.type)) or _of_a_day(error)


def _of_a_day(error: _Error) -> bool:
    """As Google names quotas: what is of a day has a pause of seconds beside it all the same."""
    found = [each.get("violations") for each in _listed(error.details)]
    return any("PerDay" in str(one.get("quotaId")) for each in found for one in _listed(each))


def _listed(value: object) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def unfit(status: int, data: bytes) -> str:
    """What a provider says where its model is there, but not with what is asked, in the words of one that is not there.
    Empty: it says something else."""
    error = _error(data) if status == NO_MODEL else None
    return error.message if error is not None and error.message.startswith(_UNFIT) else ""


def came_out_wrong(status: int, data: bytes) -> bool:
    """Whether a model made an answer that its provider could not read: another one may make a better one."""
    error = _error(data) if status == REFUSED else None
    return error is not None and error.code in _WRONG


def too_long(status: int, data: bytes) -> str:
    """What a provider says of a prompt that is longer than its model can read: another one may read more. Empty: it
    says something else."""
    error = _error(data) if status in (400, TOO_LARGE, 422) else None
    if error is None:
        return ""
    known = error.type in TOO_LONG_CODES or says_too_long(error.message, error.code)
    return (error.message or "the prompt is too long") if known else ""


def sealed_elsewhere(status: int, data: bytes) -> bool:
    """Whether a provider cannot read what another one sealed, or it itself for another account."""
    error = _error(data) if status == REFUSED else None
    return error is not None and (error.code == _SEALED_CODE or error.message.startswith(_SEALED))


def says_too_long(message: str, code: object = None) -> bool:
    """Whether an error with these words is about how much the model can read."""
    return code in TOO_LONG_CODES or message.startswith(_TOO_LONG) or _COUNTED(message) is not None


def not_asked(status: int, data: bytes) -> tuple[str, str] | None:
    """(why, what to do) where the translating service says that it could not ask a provider at all."""
    error = _error(data) if status == 503 else None
    return None if error is None or error.code not in _NOT_ASKED else (error.message, str(error.hint or ""))


def _error(data: bytes) -> _Error | None:
    try:
        found = _body(data)
    except DECODE_ERRORS:
        return None
    if isinstance(found, list):  # as Gemini answers at its OpenAI-shaped address
        if not found:
            return None
        found = found[0]
    if isinstance(found.error, _Error):
        return found.error
    told = found.error or found.message
    return _Error(told) if told else None


def said(message: str, code: object = None) -> int:
    """The status that an error with these words should have; 0: it is about the request."""
    if isinstance(code, str) and code in _CODES:
        return _CODES[code]
    found = next((status for begin, status in _MESSAGES if message.startswith(begin)), 0)
    return NO_MODEL if not found and _NO_MODEL(message) else found
