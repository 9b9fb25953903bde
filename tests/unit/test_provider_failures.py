"""An error of the library means what it may have cost: refused as it was converted, nothing was sent, so that nothing
is billed and nobody is blamed; anything else may have been worked on."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from groundplan.gateway.upstream.provider_refusals import (
    actual_status,
    embedded_status,
    is_quota_spent,
    prompt_too_long,
)
from groundplan.gateway.upstream.providers import ProviderTarget
from groundplan.gateway.upstream.translation.failures import ProviderFailure, failure_of
from groundplan.gateway.upstream.translation.translate import ProviderClients

types = pytest.importorskip("any_llm.types.completion")
google = pytest.importorskip("google.genai.errors")
library_errors = pytest.importorskip("any_llm.exceptions")
ASKED = {"role": "user", "content": "Where is it?"}
IMAGE = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:x"}}]}]
OLDER: dict[str, Any] = {"definitions": {}}
WRONG: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "anthropic": [
        ("response_format", {"response_format": {"type": "json_schema", "json_schema": {"schema": OLDER}}}),
        ("messages", {"messages": IMAGE}),
    ],
    "gemini": [
        ("messages", {"messages": IMAGE}),
    ],
    "bedrock": [
        ("messages", {"messages": IMAGE}),
        ("top_p", {"top_p": "high"}),
        ("", {"tools": [{"type": "function", "function": {"name": ""}}]}),
    ],
    "mistral": [("temperature", {"temperature": "hot"})],
    "ollama": [("temperature", {"temperature": "hot"})],
}  # fmt: skip


@pytest.mark.parametrize("api", WRONG)
async def test_what_is_refused_as_it_is_converted_is_the_callers_and_was_not_sent(
    api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody listens where it would go, so that anything that was sent ends otherwise."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("PROVIDER", "sk-x")
    providers = ProviderClients()
    try:
        for field, more in WRONG[api]:
            body = json.dumps({"model": "m", "messages": [ASKED], "max_tokens": 5, **more}).encode()
            with pytest.raises(ProviderFailure) as caught:
                await providers.chat(ProviderTarget("one", api, "http://127.0.0.1:9/v1", "env:PROVIDER"), body)
            error = json.loads(caught.value.body)["error"]
            assert caught.value.status == 400, (api, error)
            assert error["code"] == "field_untranslatable" and error.get("field", "") == field, (api, error)
    finally:
        await providers.close()


BEDROCK = "bedrock-runtime"


@pytest.mark.parametrize(
    ("host", "region"),
    [
        (f"{BEDROCK}.eu-north-1.amazonaws.com", "eu-north-1"), (f"{BEDROCK}-fips.us-west-2.amazonaws.com", "us-west-2"),
        (f"{BEDROCK}.cn-north-1.amazonaws.com.cn", "cn-north-1"), (f"{BEDROCK}.us-east-1.api.aws", "us-east-1"),
        (f"vpce-1.{BEDROCK}.eu-central-1.vpce.amazonaws.com", "eu-central-1"), ("models.acme.example", "ap-south-1"),
    ],
)  # fmt: skip
async def test_bedrock_is_asked_for_the_region_of_its_address(
    monkeypatch: pytest.MonkeyPatch, host: str, region: str
) -> None:
    """Whatever the environment says, which may say nothing; requests to another one are refused there."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "ap-south-1")
    providers = ProviderClients()
    try:
        found = await providers.client(ProviderTarget("one", "bedrock", f"https://{host}"), "sk-x")
        assert found.client.meta.region_name == region
    finally:
        await providers.close()


async def test_what_cannot_be_signed_reached_nobody_and_is_not_billed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("PROVIDER", "sk-x")
    providers, body = ProviderClients(), json.dumps({"model": "m", "messages": [ASKED]}).encode()
    try:
        with pytest.raises(ProviderFailure) as caught:
            await providers.chat(ProviderTarget("one", "bedrock", "http://127.0.0.1:9", "env:PROVIDER"), body)
        assert caught.value.status == 503 and b"region" in caught.value.body
    finally:
        await providers.close()
    library = import_module("google.auth.exceptions")
    for error in (library.RefreshError("invalid_grant"), library.ReauthFailError("again")):
        wrapped = library_errors.ProviderError("it failed", original_exception=error, provider_name="vertexai")
        assert failure_of(wrapped, "", ProviderTarget("one", "vertexai", "https://v.example")).status == 503


@pytest.mark.parametrize(("details", "asked"), [([{}, {"retryDelay": "20.5s"}], "20.5"), ([], None), (None, None)])
def test_a_pause_that_google_asks_for_in_its_answer_is_told(details: Any, asked: str | None) -> None:
    refused = google.APIError(429, {"error": {"code": 429, "message": "quota", "details": details}})
    assert failure_of(refused, "", ProviderTarget("one", "gemini", "http://127.0.0.1:9", "")).retry_after == asked


def test_a_quota_that_is_used_up_is_told_with_a_code() -> None:
    """So that the key rests for longer than for a moment."""
    details = [{"violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel"}]}]
    for limit, told in ((details, True), ([], False)):
        refused = google.APIError(429, {"error": {"code": 429, "message": "quota", "details": limit}})
        refused.status_code = 429  # as the library has it
        answered = failure_of(refused, "", ProviderTarget("one", "gemini", "http://127.0.0.1:9", ""))
        assert answered.status == 429 and is_quota_spent(429, answered.body) == told
    refused.body = {"message": "x", "type": "insufficient_quota"}  # as OpenAI's client has it
    assert is_quota_spent(429, failure_of(refused, "", ProviderTarget("one", "azure", "")).body)


async def test_one_that_cannot_be_reached_was_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVIDER", "sk-x")
    providers = ProviderClients()
    body = json.dumps({"model": "m", "messages": [ASKED], "max_tokens": 5}).encode()
    for api in ("mistral", "ollama", "anthropic"):
        with pytest.raises(ProviderFailure) as caught:
            await providers.chat(ProviderTarget("one", api, "http://127.0.0.1:9/v1", "env:PROVIDER"), body)
        assert caught.value.status == 503, api
    await providers.close()


def test_an_answer_that_is_not_understood_may_have_been_billed() -> None:
    """The library calls it an invalid request, since it only reads the words of the error."""

    def _convert_completion_response() -> None:
        raise ValueError("1 validation error for CompletionUsage")

    class InvalidRequestError(Exception):
        status_code = None

    try:
        try:
            _convert_completion_response()
        except ValueError as error:
            raise InvalidRequestError("1 validation error for CompletionUsage") from error
    except InvalidRequestError as error:
        assert failure_of(error, "", ProviderTarget("one", "gemini", "")).status == 502


@pytest.mark.parametrize(
    ("error", "status"),
    [
        ({"type": "invalid_request_error", "message": "Your credit balance is too low to access the API."}, 402),
        ({"code": "billing_hard_limit_reached", "message": "Billing hard limit has been reached"}, 402),
        ({"message": "API key not valid. Please pass a valid API key."}, 401),
        ({"message": "You have reached your specified API usage limits. You will regain access on 2026-12-01."}, 402),
        ({"message": "This organization has been disabled."}, 403),
        ({"code": "organization_restricted", "message": "Organization has been restricted."}, 403),
        ({"code": "Arrearage", "message": "Access denied, please make sure your account is in good standing."}, 402),
        ({"code": "model_decommissioned", "message": "The model `m` has been decommissioned"}, 404),
        ({"code": "OperationNotSupported", "message": "The chatCompletion operation does not work with m"}, 404),
        ({"code": "invalid_request_error", "message": "Model Not Exist"}, 404),
        ({"code": "1500", "type": "invalid_model", "message": "Invalid model: m"}, 404),
        ({"code": 400, "message": "m/m-1:free is not a valid model ID"}, 404),
        ({"code": 400, "message": "no, m is not a valid model ID"}, 400),
        ({"message": "{'error': '/chat/completions: Invalid model name passed in model=m. Call `/v1/models`'}"}, 404),
        ({"message": "No such tool: Your credit balance is too low"}, 400),
        ({"message": None}, 400),
    ],
)
def test_a_refusal_that_is_about_our_account_is_not_the_callers(error: dict[str, Any], status: int) -> None:
    class BadRequestError(Exception):
        status_code = 400
        body: Any = None

    refused = BadRequestError("Error code: 400")
    refused.body = {"type": "error", "error": error}
    assert failure_of(refused, "", ProviderTarget("one", "anthropic", "")).status == status
    assert actual_status(400, json.dumps({"error": error}).encode()) == status
    assert actual_status(400, json.dumps([{"error": error}]).encode()) == status
    assert actual_status(422, json.dumps({"error": error}).encode()) == 422


@pytest.mark.parametrize("known_by", ["words", "library", "nothing"])
def test_a_prompt_that_a_provider_finds_too_long_is_told_with_a_code(known_by: str) -> None:
    """So that the call goes on to whoever reads more: before its words the name of the API stands."""

    class BadRequestError(Exception):
        status_code = 400
        body: Any = None

    class ContextLengthExceededError(BadRequestError):
        pass

    refused = (ContextLengthExceededError if known_by == "library" else BadRequestError)("Error code: 400")
    message = "prompt is too long: 9000 tokens > 8192 maximum" if known_by == "words" else "too much"
    refused.body = {"type": "error", "error": {"type": "invalid_request_error", "message": message}}
    told = failure_of(refused, "", ProviderTarget("one", "anthropic", ""))
    assert told.status == 400 and bool(prompt_too_long(400, told.body)) == (known_by != "nothing")


@pytest.mark.parametrize(
    "told",
    [
        {"code": "invalid", "error": "This model's maximum prompt length is 131072 but the request contains 537812"},
        {"error": {"message": "This endpoint's maximum context length is 65536 tokens. However", "code": 400}},
        {"error": {"message": "You passed 30721 input tokens and requested 2048 output tokens. However", "code": 400}},
        {"message": "The input (61709 tokens) is longer than the model's context length (40960 tokens)."},
        {"message": "Input length (700001 tokens) exceeds the maximum allowed length (536826 tokens)."},
        {"error": {"message": "The prompt is too long: 262377, model maximum context length: 262143"}},
        {"error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096", "error_type": "x"},
        {"error": "Trying to keep the first 9000 tokens when context the overflows. However, the model is loaded"},
    ],
)
def test_each_server_has_its_own_words_for_a_prompt_that_is_too_long(told: dict[str, Any]) -> None:
    assert prompt_too_long(400, json.dumps(told).encode()) and prompt_too_long(422, json.dumps(told).encode())
    assert not prompt_too_long(409, json.dumps(told).encode()) and not prompt_too_long(
        400, b'{"error":"You passed nothing"}'
    )


@pytest.mark.parametrize(
    ("told", "status"),
    [
        ({"error": {"message": "Rate limit exceeded", "code": 429}}, 429),
        ({"error": {"message": "m", "code": "400"}, "choices": None}, 400),
        ({"error": {"message": "m", "code": 502}, "choices": [{"message": {"content": "half"}}]}, 0),
        ({"error": {"message": "m", "code": 200}}, 0),
        ({"error": {"message": "m", "code": "rate_limit_exceeded"}}, 429),
        ({"error": {"message": "m", "code": "server_error"}}, 0),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded", "details": None}}, 529),
        ({"type": "error", "error": {"type": "rate_limit_error", "message": "m"}, "request_id": "req_1"}, 429),
        ({"type": "error", "error": {"type": "api_error", "message": "Internal server error"}}, 0),
        ({"error": {"message": "m", "type": ["overloaded_error"]}}, 0),
        ({"error": {"message": "m", "code": True}}, 0),
        ({"error": "busy"}, 0),
        ({}, 0),
    ],
)
def test_an_error_may_say_which_status_it_has(told: dict[str, Any], status: int) -> None:
    assert embedded_status(json.dumps(told).encode()) == status and embedded_status(b"") == embedded_status(b"no") == 0


def test_what_nobody_asks_for_is_no_refusal_of_what_was_asked() -> None:
    assert (actual_status(410, b"gone"), actual_status(412, b"{}"), actual_status(418, b"{}")) == (404, 402, 418)


def test_a_refusal_may_be_a_mere_text() -> None:
    assert actual_status(400, b'{"code":"invalid","error":"Incorrect API key provided: xa***"}') == 401
    assert actual_status(400, b'{"code":"invalid","error":"Incorrect value"}') == 400


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"no", b'{"error":"x"}', b"\xff", b"[" * 3000])
def test_any_other_refusal_means_what_it_says(body: bytes) -> None:
    assert actual_status(400, body) == 400


class Vectors:
    """A provider's client that embeds one text at a time, and fails at the second."""

    client = None

    def __init__(self, status: int) -> None:
        self.status = status

    async def aembedding(self, model: str, text: str, **_: Any) -> Any:
        if text == "b":
            refused = OSError("no")
            refused.status_code = self.status  # type: ignore[attr-defined]
            raise refused
        row = types.Embedding(embedding=[0.5], index=0, object="embedding")
        return types.CreateEmbeddingResponse(
            data=[row], model=model, object="list", usage=types.Usage(prompt_tokens=1, total_tokens=1)
        )


@pytest.mark.parametrize("status", [400, 429, 500, 503])
@pytest.mark.parametrize("api", ["bedrock", "gemini", "vertexai"])
async def test_texts_before_one_that_failed_may_have_been_billed(
    api: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the caller did wrong is told as that all the same."""
    providers = ProviderClients()

    async def client(*_: Any) -> Vectors:
        return Vectors(status)

    monkeypatch.setattr(providers, "client", client)
    try:
        for texts, told in ((["b", "a"], status), (["a", "b"], 502 if status != 400 else 400)):
            with pytest.raises(ProviderFailure) as caught:
                body = json.dumps({"model": "m", "input": texts}).encode()
                await providers.embed(ProviderTarget("one", api, "http://127.0.0.1:9"), body)
            assert caught.value.status == told, texts
        found = await providers.embed(
            ProviderTarget("one", api, "http://127.0.0.1:9"), b'{"model":"m","input":["a","c"]}'
        )
        assert json.loads(found)["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
    finally:
        await providers.close()
